//! Measures what AWS charges for: bytes of log lines, units of the table, calls of Secrets Manager. It drives the
//! functions' real processes with the template's settings, and counts at a proxy before the stand-in.
//!
//! `make cost` writes the figures to docs/cost/measured.json, from which tests/template/cost makes the tables of
//! docs/cost.md. Without it, the tests compare what does not depend on time with that file.

use std::ops::Sub;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_deployment_assembly::SystemRandom;
use keyway_domain::ports::Random;
use keyway_tests::{
    Aws, Deployment, FUNCTION_HOST, Function, Proxy, Signer, http_api_event, parameter_default,
    project,
};
use serde_json::{Value, json};

use crate::cli_json;
use crate::kes::{Client, rest_event};

const FILE: &str = "docs/cost/measured.json";
const KEY: &str = "reports";
const GENERATE: &str = "/rustfs/admin/v3/kms/generate-data-key";
/// A busy instance of docs/cost.md: a hundred calls a second on three instances.
const CALLS_A_SECOND: u32 = 33;
/// Refused requests of one instance: Lambda takes at most ten a second for each reserved one.
const REFUSED_A_SECOND: u32 = 10;
/// Records of the audit log after which a measurement over time ends.
const RECORDS: f64 = 3.0;

/// What a function has caused so far.
#[derive(Debug, Clone, Copy, Default)]
struct Charged {
    reads: f64,
    writes: f64,
    /// Records of the audit log.
    records: f64,
    record_bytes: f64,
    /// Other records that were written.
    item_bytes: f64,
    secret_calls: f64,
    audit_lines: f64,
    audit_bytes: f64,
    other_bytes: f64,
}

impl Sub for Charged {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            reads: self.reads - before.reads,
            writes: self.writes - before.writes,
            records: self.records - before.records,
            record_bytes: self.record_bytes - before.record_bytes,
            item_bytes: self.item_bytes - before.item_bytes,
            secret_calls: self.secret_calls - before.secret_calls,
            audit_lines: self.audit_lines - before.audit_lines,
            audit_bytes: self.audit_bytes - before.audit_bytes,
            other_bytes: self.other_bytes - before.other_bytes,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn number(count: usize) -> f64 {
    count as f64
}

/// An attribute's size by DynamoDB's rules.
/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>
fn attribute_bytes(value: &Value) -> usize {
    let (kind, value) = value.as_object().unwrap().iter().next().unwrap();
    let text = value.as_str().unwrap_or_default();
    match kind.as_str() {
        "S" => text.len(),
        "B" => STANDARD.decode(text).unwrap().len(),
        "N" => text.len().div_ceil(2) + 1,
        "BOOL" | "NULL" => 1,
        other => panic!("{other} is not counted"),
    }
}

fn item_bytes(item: &Value) -> usize {
    let attributes = item.as_object().into_iter().flatten();
    (attributes.map(|(name, value)| name.len() + attribute_bytes(value))).sum()
}

impl Charged {
    fn call(&mut self, operation: &str, request: &[u8], answer: &[u8]) {
        let request: Value = serde_json::from_slice(request).unwrap();
        let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
        let consistency = if request["ConsistentRead"] == true {
            1.0
        } else {
            0.5
        };
        let units = |bytes: usize| number(bytes.div_ceil(4096).max(1)) * consistency;
        match operation.rsplit_once('.').unwrap().1 {
            "GetItem" => self.reads += units(item_bytes(&answer["Item"])),
            "Query" => {
                let items = answer["Items"].as_array().into_iter().flatten();
                self.reads += units(items.map(item_bytes).sum());
            }
            "PutItem" => {
                let bytes = item_bytes(&request["Item"]);
                self.writes += number(bytes.div_ceil(1024));
                let kind = request["Item"]["kind"]["S"].as_str().unwrap();
                if kind.starts_with("audit#") {
                    self.records += 1.0;
                    self.record_bytes += number(bytes);
                } else {
                    self.item_bytes += number(bytes);
                }
            }
            "GetSecretValue" => self.secret_calls += 1.0,
            other => panic!("{other} is not counted"),
        }
    }
}

/// A function whose calls and output are counted.
struct Counted {
    function: Function,
    calls: Arc<Mutex<Charged>>,
    _proxy: Proxy,
}

impl Counted {
    async fn start(
        aws: &Aws,
        deployment: &Deployment,
        program: &str,
        more: &[(&str, &str)],
    ) -> Self {
        let proxy = Proxy::before(&aws.endpoint).await;
        let calls = Arc::new(Mutex::new(Charged::default()));
        let counting = Arc::clone(&calls);
        proxy.watch(move |operation, request, answer| {
            counting.lock().unwrap().call(operation, request, answer);
        });
        let age = parameter_default("AuditBatchMilliseconds");
        let ttl = parameter_default("StateTtlSeconds");
        let metrics = parameter_default("Metrics");
        let days = parameter_default("AuditRetentionDays");
        let mut variables = vec![
            ("KEYWAY_EVENT_SOURCE", "function-url"),
            ("KEYWAY_AUDIT_BATCH_MILLISECONDS", &age),
            ("KEYWAY_AUDIT_RETENTION_DAYS", &days),
            ("KEYWAY_STATE_TTL_SECONDS", &ttl),
            ("KEYWAY_METRICS", &metrics),
        ];
        variables.extend(more);
        let deployment = deployment.through(&proxy.endpoint);
        let function = Function::start(program, &deployment, &variables).await;
        Self {
            function,
            calls,
            _proxy: proxy,
        }
    }

    /// Calls as the function URL does. Returns the answer's status and size.
    async fn call(&self, signer: &Signer, path: &str, body: &str) -> (u16, f64) {
        let method = if body.is_empty() { "GET" } else { "POST" };
        let request = signer.request(method, FUNCTION_HOST, path, body.as_bytes(), now());
        let mut event = http_api_event(&request);
        event["requestContext"]["requestId"] = json!(request_id());
        self.send(&event).await
    }

    async fn send(&self, event: &Value) -> (u16, f64) {
        let answer = self.function.send(event).await;
        let headers = answer.headers.iter();
        let headers: usize = headers
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum();
        (answer.status.as_u16(), number(headers + answer.body.len()))
    }

    /// What it has caused so far, once its output has the event of every answered request.
    async fn charged(&self, lines: Option<f64>) -> Charged {
        loop {
            let mut charged = *self.calls.lock().unwrap();
            let log = self.function.log();
            for line in log.lines() {
                let bytes = number(line.len());
                if line.starts_with("{\"audit\":") {
                    charged.audit_lines += 1.0;
                    charged.audit_bytes += bytes;
                } else {
                    charged.other_bytes += bytes;
                }
            }
            if lines.is_none_or(|lines| charged.audit_lines >= lines) {
                return charged;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A request id as AWS makes it. Compression cannot shorten what is random in it.
fn request_id() -> String {
    let mut bytes = [0; 16];
    SystemRandom::default().fill(&mut bytes).unwrap();
    let digits = format!("{:032x}", u128::from_be_bytes(bytes));
    let (a, b) = (&digits[..8], &digits[8..12]);
    let (c, d, e) = (&digits[12..16], &digits[16..20], &digits[20..]);
    format!("{a}-{b}-{c}-{d}-{e}")
}

fn data_key() -> String {
    let context = json!({"bucket": "backups", "object": "2026/11/30.tar"});
    json!({"key_id": KEY, "encryption_context": context}).to_string()
}

/// A deployment with a running service, a key, and an access key that may use it.
struct Scene {
    aws: Aws,
    deployment: Deployment,
    caller: Signer,
    /// What the key's creation took.
    created: Charged,
}

impl Scene {
    async fn new(aws: Aws) -> Self {
        let deployment = aws.deployment().await;
        // It makes the keyring and starts the service, which happens once.
        let first = Function::start("keyway-fn-keys", &deployment, &[]).await;
        first.call("GET", "/kms/keys", "").await.ok();
        let made = cli_json(&deployment, &["create", "--policy", "kms-key-user"]).await;
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        let caller = Signer::new(&text("access_key_id"), &text("secret_access_key"));
        let mut scene = Self {
            aws,
            deployment,
            caller,
            created: Charged::default(),
        };
        let keys = scene.start("keyway-fn-keys", &[]).await;
        let root = Signer::new("test-root", "test-root-secret");
        let create = |id: &str| json!({"key_id": id}).to_string();
        let path = "/rustfs/admin/v3/kms/keys";
        // The first mutation of an instance has one more write, which proves that the audit log works.
        assert_eq!(keys.call(&root, path, &create("first")).await.0, 200);
        let before = keys.charged(None).await;
        assert_eq!(keys.call(&root, path, &create(KEY)).await.0, 200);
        scene.created = keys.charged(None).await - before;
        scene
    }

    async fn start(&self, program: &str, more: &[(&str, &str)]) -> Counted {
        Counted::start(&self.aws, &self.deployment, program, more).await
    }

    /// Makes a data key.
    async fn generate(&self, function: &Counted) -> u16 {
        function.call(&self.caller, GENERATE, &data_key()).await.0
    }
}

/// Each call comes later than the batch's age and the state TTL, on its instance.
async fn sparse(scene: &Scene) -> Value {
    let late = [
        ("KEYWAY_AUDIT_BATCH_MILLISECONDS", "50ms"),
        ("KEYWAY_STATE_TTL_SECONDS", "0"),
    ];
    let all = scene.start("keyway-fn-all", &late).await;
    let calls = 20_u8;
    scene.generate(&all).await;
    let before = all.charged(Some(2.0)).await;
    for _ in 0..calls {
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(scene.generate(&all).await, 200);
    }
    let lines = before.audit_lines + f64::from(calls);
    let charged = all.charged(Some(lines)).await - before;
    let calls = f64::from(calls);
    json!({
        "read_units_a_call": rounded(charged.reads / calls),
        "write_units_a_call": rounded(charged.writes / calls),
        "record_bytes_a_call": rounded(charged.record_bytes / calls),
        "records_a_call": rounded(charged.records / calls),
    })
}

/// An instance from its start to its first answer.
async fn start(scene: &Scene) -> Value {
    let all = scene.start("keyway-fn-all", &[]).await;
    assert_eq!(scene.generate(&all).await, 200);
    let charged = all.charged(Some(2.0)).await;
    json!({
        "read_units": charged.reads,
        "write_units": charged.writes,
        "secret_calls": charged.secret_calls,
        "log_bytes": charged.audit_bytes + charged.other_bytes,
    })
}

/// One data key through an API: the line of its event, and the size of its answer.
async fn line(all: &Counted, signer: &Signer, path: &str, body: &str) -> Value {
    let before = all.charged(None).await;
    let (status, answer) = all.call(signer, path, body).await;
    assert_eq!(status, 200, "{path}");
    of_line(all, before, answer).await
}

async fn of_line(function: &Counted, before: Charged, answer: f64) -> Value {
    let charged = function.charged(Some(before.audit_lines + 1.0)).await - before;
    assert_eq!(charged.other_bytes, 0.0, "{}", function.function.log());
    json!({"log_bytes": charged.audit_bytes, "answer_bytes": answer})
}

async fn lines(scene: &Scene) -> Value {
    let all = scene.start("keyway-fn-all", &[]).await;
    scene.generate(&all).await;
    all.charged(Some(2.0)).await;
    let rustfs = line(&all, &scene.caller, GENERATE, &data_key()).await;
    let aws_kms = scene
        .caller
        .clone()
        .for_service("kms")
        .with_target("TrentService.GenerateDataKey");
    let body = json!({
        "KeyId": KEY, "KeySpec": "AES_256",
        "EncryptionContext": {"bucket": "backups", "object": "2026/11/30.tar"},
    });
    let aws_kms = line(&all, &aws_kms, "/", &body.to_string()).await;

    let client = Client::new();
    let kes = [
        ("KEYWAY_EVENT_SOURCE", "rest-api"),
        ("KEYWAY_KES_ADMIN", client.identity.as_str()),
    ];
    let datakey = scene.start("keyway-fn-datakey", &kes).await;
    let context = STANDARD.encode(r#"{"backups":"backups/2026/11/30.tar"}"#);
    let body = json!({ "context": context }).to_string();
    let mut event = rest_event(
        Some(&client),
        "POST",
        &format!("/v1/key/generate/{KEY}"),
        &body,
    );
    event["requestContext"]["requestId"] = json!(request_id());
    assert_eq!(datakey.send(&event).await.0, 200);
    let before = datakey.charged(Some(2.0)).await;
    let (_, answer) = datakey.send(&event).await;
    let kes = of_line(&datakey, before, answer).await;
    json!({"rustfs": rustfs, "aws": aws_kms, "kes": kes})
}

/// A request that no access key proves: the longest line that it can cause, and the reads.
async fn refused(scene: &Scene) -> Value {
    let all = scene.start("keyway-fn-all", &[]).await;
    let before = all.charged(None).await;
    for number in 0..10 {
        assert_eq!(refused_call(&all, number).await, 401);
    }
    let charged = all.charged(Some(10.0)).await - before;
    assert_eq!(charged.other_bytes, 0.0, "{}", all.function.log());
    json!({
        "log_bytes": rounded(charged.audit_bytes / 10.0),
        "read_units_a_call": rounded(charged.reads / 10.0),
    })
}

/// Each names an access key of its own, on a long path.
async fn refused_call(all: &Counted, number: u32) -> u16 {
    let nobody = Signer::new(
        &format!("AKIAIOSFODNN{number:08}"),
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    );
    let path = format!("/rustfs/admin/v3/kms/keys/{}", "k".repeat(400));
    all.call(&nobody, &path, "").await.0
}

/// A line of all metrics, of an instance that has answered a data key.
async fn metrics_line(scene: &Scene) -> f64 {
    let emf = [("KEYWAY_METRICS", "emf")];
    let all = scene.start("keyway-fn-all", &emf).await;
    assert_eq!(scene.generate(&all).await, 200);
    all.charged(Some(2.0)).await;
    let log = all.function.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("CloudWatchMetrics"));
    lines.map(|line| number(line.len())).sum()
}

/// What does not depend on time.
async fn timeless(scene: &Scene) -> Value {
    json!({
        "sparse": sparse(scene).await,
        "start": start(scene).await,
        "lines": lines(scene).await,
        "refused": refused(scene).await,
        "metrics_line_bytes": metrics_line(scene).await,
        "created_key": {"write_units": scene.created.writes, "bytes": scene.created.item_bytes},
    })
}

/// Requests at this rate until the audit log has some records: what they caused, their number and the seconds.
async fn over_time<F: Future<Output = u16>>(
    function: &Counted,
    rate: u32,
    expected: u16,
    call: impl Fn(u32) -> F,
) -> (Charged, f64, f64) {
    let before = function.charged(None).await;
    let began = crate::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut calls = 0;
    while (function.calls.lock().unwrap().records - before.records) < RECORDS {
        ticks.tick().await;
        assert_eq!(call(calls).await, expected);
        calls += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    let lines = before.audit_lines + f64::from(calls);
    (
        function.charged(Some(lines)).await - before,
        f64::from(calls),
        seconds,
    )
}

async fn busy(scene: &Scene) -> Value {
    let all = scene.start("keyway-fn-all", &[]).await;
    scene.generate(&all).await;
    let (charged, calls, seconds) = over_time(&all, CALLS_A_SECOND, 200, async |_| {
        scene.generate(&all).await
    })
    .await;
    assert_eq!(charged.other_bytes, 0.0);
    json!({
        "calls_a_second": rounded(calls / seconds),
        "read_units_a_call": rounded(charged.reads / calls),
        "write_units_a_call": rounded(charged.writes / calls),
        "record_bytes_a_call": rounded(charged.record_bytes / calls),
        "records_a_call": rounded(charged.records / calls),
    })
}

async fn flood(scene: &Scene) -> Value {
    let all = scene.start("keyway-fn-all", &[]).await;
    refused_call(&all, 0).await;
    let (charged, calls, seconds) = over_time(&all, REFUSED_A_SECOND, 401, |number| {
        refused_call(&all, number + 1)
    })
    .await;
    json!({
        "calls_a_second": rounded(calls / seconds),
        "write_units_a_second": rounded(charged.writes / seconds),
        "record_bytes_a_second": rounded(charged.record_bytes / seconds),
    })
}

/// To a precision that later runs reach again.
fn rounded(figure: f64) -> f64 {
    (figure * 10_000.0).round() / 10_000.0
}

#[expect(
    clippy::disallowed_methods,
    reason = "`make cost` says by a variable that the figures are to be written"
)]
fn is_to_be_written() -> bool {
    std::env::var("KEYWAY_WRITE_COST").is_ok_and(|value| !value.is_empty())
}

/// The figures below `at` that differ by more than a twentieth.
fn differences(measured: &Value, committed: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(members) = measured.as_object() {
        for (name, value) in members {
            differences(value, &committed[name], &format!("{at}/{name}"), found);
        }
        return;
    }
    let (now, then) = (measured.as_f64(), committed.as_f64());
    if !now
        .zip(then)
        .is_some_and(|(now, then)| (now - then).abs() <= then.abs() / 20.0)
    {
        found.push(format!("{at}: measured {measured}, committed {committed}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn measured_figures_are_the_committed_ones() {
    let Some(aws) = Aws::here() else { return };
    let scene = Scene::new(aws).await;
    let mut measured = timeless(&scene).await;
    let file = project().join(FILE);
    if is_to_be_written() {
        let (busy, flood) = tokio::join!(busy(&scene), flood(&scene));
        measured["busy"] = busy;
        measured["flood"] = flood;
        let text = serde_json::to_string_pretty(&measured).unwrap() + "\n";
        std::fs::write(file, text).unwrap();
        return;
    }
    let committed = std::fs::read(file).unwrap();
    let committed = serde_json::from_slice(&committed).unwrap();
    let mut found = Vec::new();
    differences(&measured, &committed, "", &mut found);
    assert!(found.is_empty(), "`make cost` writes them anew: {found:#?}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "requests to a real process carry the real time"
)]
fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
