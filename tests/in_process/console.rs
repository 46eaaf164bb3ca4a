//! RustFS's console: its calls as recorded in a browser, in their order, and the fields that it reads of the answers.
//!
//! `tests/data/console-calls.json` is the list. `make test-console` compares the console itself with the same list.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use keyway_domain::ports::Clock as _;
use keyway_http::Cors;
use keyway_tests::{Answer, MemorySite, Signer};
use serde::Deserialize;
use serde_json::Value;

const HOST: &str = "keyway.test";
/// Where the console's pages come from.
const ORIGIN: &str = "http://localhost:3000";
/// The headers that a browser sends to another origin without a preflight.
const SIMPLE: [&str; 2] = ["GET", "HEAD"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[expect(dead_code, reason = "for the reader of the list")]
    about: Vec<String>,
    clients: BTreeMap<String, Client>,
    walks: BTreeMap<String, Vec<Step>>,
}

/// One of the console's clients: how it signs, and its headers that need a preflight.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    signed_for: String,
    payload: String,
    sends: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    name: String,
    /// The call that another client makes before this one.
    #[serde(default)]
    others: Vec<Other>,
    calls: Vec<Call>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Other {
    method: String,
    path: String,
    #[serde(default)]
    body: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    method: String,
    path: String,
    #[serde(default)]
    query: BTreeMap<String, String>,
    /// `None`: it is unsigned.
    client: Option<String>,
    /// An object goes as JSON or as a form, a text as it is.
    body: Option<Value>,
    status: u16,
    /// By JSON pointer, or for XML by the names of elements from the outermost on. A name in braces matches any text, and
    /// stands for that text in later calls.
    #[serde(default)]
    reads: BTreeMap<String, Value>,
    /// The browser repeats it, about once a minute.
    #[serde(default)]
    #[expect(dead_code, reason = "how often is no matter here")]
    sometimes: bool,
}

fn list() -> List {
    serde_json::from_str(include_str!("../data/console-calls.json")).unwrap()
}

/// A console in a browser, before or after signing in.
struct Console<'a> {
    site: &'a MemorySite,
    list: &'a List,
    /// The access key that signs in.
    signer: Signer,
    /// The texts for which names in braces stand.
    known: BTreeMap<String, String>,
}

impl<'a> Console<'a> {
    fn new(site: &'a MemorySite, list: &'a List, signer: Signer) -> Self {
        let known = [
            ("key_directory", "/var/lib/keyway/keys"),
            ("vault_address", "http://127.0.0.1:8200"),
            ("vault_token", "token-of-the-vault"),
        ];
        Self {
            site,
            list,
            signer,
            known: known
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }

    async fn walk(&mut self, name: &str) {
        let list = self.list;
        for step in &list.walks[name] {
            for other in &step.others {
                let body = other.body.as_ref().map(Value::to_string);
                let root = self.site.root();
                let answer = self
                    .site
                    .call_at(root, &other.method, &other.path, &body.unwrap_or_default())
                    .await;
                assert!(answer.status.is_success(), "{}: {}", step.name, other.path);
            }
            for call in &step.calls {
                let about = format!("{}: {} {}", step.name, call.method, call.path);
                let answer = self.call(call, &about).await;
                self.read(call, &answer, &about);
            }
        }
    }

    /// The signer of this client: the session, or while signing in the access key.
    fn signer(&self, client: &Client) -> Signer {
        let signer = match client.signed_for.as_str() {
            "sts" => self.signer.clone().for_service("sts"),
            "s3" => self.session().for_service("s3"),
            other => panic!("the list has the service {other}"),
        };
        match client.payload.as_str() {
            "hash" => signer.declaring_hash(),
            _ => signer,
        }
    }

    fn session(&self) -> Signer {
        let known = |name: &str| self.known[name].as_str();
        Signer::new(known("access_key_id"), known("secret_access_key"))
            .with_token(known("session_token"))
    }

    async fn call(&self, call: &Call, about: &str) -> Answer {
        let client = call.client.as_ref().map(|name| &self.list.clients[name]);
        let mut path = self.filled(&call.path);
        if !call.query.is_empty() {
            let pairs = call.query.iter();
            let pairs = pairs.map(|(name, value)| match value.as_str() {
                "" => name.clone(),
                value => format!("{name}={}", encoded(&self.filled(value))),
            });
            path = format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"));
        }
        if let Some(client) = client {
            self.ask_first(call, client, &path, about).await;
        } else {
            assert!(SIMPLE.contains(&call.method.as_str()), "{about}");
        }
        let (content_type, body) = match &call.body {
            None => (None, String::new()),
            Some(Value::String(text)) => (Some("application/xml"), self.filled(text)),
            Some(object) if client.is_some_and(|client| client.signed_for == "sts") => {
                let pairs = object.as_object().unwrap().iter();
                let pairs = pairs
                    .map(|(name, value)| format!("{name}={}", encoded(value.as_str().unwrap())));
                let form = pairs.collect::<Vec<_>>().join("&");
                (Some("application/x-www-form-urlencoded"), form)
            }
            Some(object) => (Some("application/json"), self.filled(&object.to_string())),
        };
        let time = SystemTime::from(self.site.clock.now());
        let mut request = match client {
            None => Request::builder()
                .method(call.method.as_str())
                .uri(&path)
                .header("host", HOST)
                .body(Bytes::from(body))
                .unwrap(),
            Some(client) => {
                let declared = (client.payload != "hash").then_some(client.payload.as_str());
                self.signer(client).declared_request(
                    &call.method,
                    HOST,
                    &path,
                    body.as_bytes(),
                    declared,
                    time,
                )
            }
        };
        let headers = request.headers_mut();
        headers.insert("origin", HeaderValue::from_static(ORIGIN));
        if let Some(content_type) = content_type {
            headers.insert("content-type", HeaderValue::from_static(content_type));
        }
        let answer = self.site.send(request).await;
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, call.status, "{about}: {text}");
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some(ORIGIN),
            "{about}"
        );
        answer
    }

    /// Makes the browser's preflight for the call.
    async fn ask_first(&self, call: &Call, client: &Client, path: &str, about: &str) {
        let request = Request::builder()
            .method(Method::OPTIONS)
            .uri(path)
            .header("host", HOST)
            .header("origin", ORIGIN)
            .header("access-control-request-method", &call.method)
            .header("access-control-request-headers", client.sends.join(","))
            .body(Bytes::new())
            .unwrap();
        let answer = self.site.send(request).await;
        assert!(answer.status.is_success(), "{about}: {}", answer.status);
        let allowed = |name: &str| {
            let listed = answer.header(name).unwrap_or_default().split(',');
            listed.map(str::trim).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some(ORIGIN),
            "{about}"
        );
        let methods = allowed("access-control-allow-methods");
        assert!(methods.contains(&call.method), "{about}: {methods:?}");
        let headers = allowed("access-control-allow-headers");
        for sent in &client.sends {
            assert!(headers.contains(sent), "{about}: {sent}");
        }
    }

    /// A text of the list with its names in braces replaced.
    fn filled(&self, text: &str) -> String {
        let filled = |text: String, (name, value): (&String, &String)| {
            text.replace(&format!("{{{name}}}"), value)
        };
        self.known.iter().fold(text.to_owned(), filled)
    }

    /// The answer has the fields that the console reads.
    fn read(&mut self, call: &Call, answer: &Answer, about: &str) {
        for (place, wanted) in &call.reads {
            let found = if place.starts_with('/') {
                answer.json().pointer(place).cloned()
            } else {
                let text = String::from_utf8_lossy(&answer.body);
                element(&text, place).map(Value::String)
            };
            let found = found.unwrap_or_else(|| panic!("{about}: there is no {place}"));
            let name = wanted
                .as_str()
                .and_then(|text| text.strip_prefix('{')?.strip_suffix('}'));
            match (name, found.as_str()) {
                (Some(name), Some(text)) if !text.is_empty() => {
                    self.known.insert(name.to_owned(), text.to_owned());
                }
                (Some(_), _) => panic!("{about}: {place} is {found}"),
                (None, _) => assert_eq!(&found, wanted, "{about}: {place}"),
            }
        }
    }
}

/// The text of the element at this path of names.
fn element(xml: &str, names: &str) -> Option<String> {
    let inner = names.split('/').try_fold(xml, |text, name| {
        let (_, rest) = text.split_once(&format!("<{name}"))?;
        let (_, rest) = rest.split_once('>')?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    });
    inner.map(str::to_owned)
}

/// Encodes a value of a query or form as a browser does: all but unreserved characters.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

async fn site() -> MemorySite {
    MemorySite::with_cors(Cors::parse(ORIGIN).unwrap()).await
}

#[tokio::test]
async fn console_of_root_works_from_signing_in_to_an_encrypted_bucket() {
    let (site, list) = (site().await, list());
    let mut console = Console::new(&site, &list, site.root().clone());
    console.walk("root").await;
}

#[tokio::test]
async fn console_works_with_a_vault_and_is_told_which_backends_are_refused() {
    let (site, list) = (site().await, list());
    let mut console = Console::new(&site, &list, site.root().clone());
    console.walk("vault").await;
}

/// A site whose service runs as with `--start`.
async fn started() -> MemorySite {
    let site = site().await;
    let configure = r#"{"backend_type":"local"}"#;
    site.call("POST", "/kms/configure", configure).await.ok();
    site.call("POST", "/kms/start", "").await.ok();
    site
}

#[tokio::test]
async fn console_of_a_key_that_expires_works_until_then() {
    let (site, list) = (started().await, list());
    let life = Duration::from_secs(3600);
    let administrator = site.signer_for("kms-admin", Some(life)).await;
    let mut console = Console::new(&site, &list, administrator);
    console.walk("session").await;
    site.clock.advance(life);
    let session = console.session().for_service("s3");
    let answer = site.call_as(&session, "GET", "/is-admin", "").await;
    // This makes the console sign out.
    assert_eq!(answer.refusal(), (401, "AccessDenied".to_owned()));
}

#[tokio::test]
async fn console_of_an_auditor_stays_signed_in_and_is_refused_the_service() {
    let (site, list) = (started().await, list());
    let auditor = site.signer("kms-auditor").await;
    let mut console = Console::new(&site, &list, auditor);
    console.walk("auditor").await;
    let policy: Value = serde_json::from_str(&console.known["policy"]).unwrap();
    let actions = policy["Statement"][0]["Action"].as_array().unwrap();
    assert!(actions.contains(&"s3:ListAllMyBuckets".into()), "{policy}");
    // The page of the KMS begins with these calls.
    for page in ["console:SSESettings", "kms:*", "admin:*"] {
        assert!(!actions.contains(&page.into()), "{policy}");
    }
    let session = console.session().for_service("s3");
    for (method, path, body) in [
        ("GET", "/kms/service-status", ""),
        ("POST", "/kms/reconfigure", r#"{"timeout_seconds":20}"#),
        ("POST", "/kms/clear-cache", "{}"),
        ("POST", "/kms/stop", "{}"),
    ] {
        let answer = site.call_as(&session, method, path, body).await;
        // A 401 would make the console sign out.
        assert_eq!(answer.refusal(), (403, "AccessDenied".to_owned()), "{path}");
    }
}
