//! KES's API through the functions' real bootstraps, as a REST API and a load balancer call them.

use keyway_auth::certificate::Identity;
use keyway_tests::{Answer, Aws, Deployment, Function, MemorySite, RuntimeApi, binary};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

/// A client with its certificate and identity. The key is on P-256, which API Gateway takes.
pub(crate) struct Client {
    pem: String,
    pub(crate) identity: String,
}

impl Client {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let identity = Identity::of_pem(&pem).unwrap().to_string();
        Self { pem, identity }
    }

    /// The certificate as load balancers write it: they do not escape `+`.
    fn header(&self) -> String {
        let mut text = String::new();
        for byte in self.pem.bytes() {
            match byte {
                b'+' | b'=' | b'/' | b'-' => text.push(char::from(byte)),
                byte if byte.is_ascii_alphanumeric() => text.push(char::from(byte)),
                byte => text.push_str(&format!("%{byte:02X}")),
            }
        }
        text
    }
}

pub(crate) fn rest_event(client: Option<&Client>, method: &str, path: &str, body: &str) -> Value {
    let certificate = client.map(|client| json!({"clientCertPem": client.pem}));
    json!({
        "resource": "/v1/key/{route+}",
        "path": path,
        "httpMethod": method,
        "headers": {"Host": "kes.example.com"},
        "multiValueHeaders": {"Host": ["kes.example.com"]},
        "requestContext": {
            "path": path,
            "stage": "kes",
            "identity": {"sourceIp": "203.0.113.7", "clientCert": certificate},
        },
        "body": body,
        "isBase64Encoded": false,
    })
}

fn alb_event(client: Option<&Client>, method: &str, path: &str, body: &str) -> Value {
    let mut event = json!({
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/k/0"}},
        "httpMethod": method,
        "path": path,
        "multiValueQueryStringParameters": {},
        "multiValueHeaders": {
            "host": ["kes.example.com"],
            "x-forwarded-for": ["203.0.113.7"],
            "x-forwarded-proto": ["https"],
        },
        "body": body,
        "isBase64Encoded": false,
    });
    if let Some(client) = client {
        event["multiValueHeaders"]["x-amzn-mtls-clientcert"] = json!([client.header()]);
    }
    event
}

/// The functions that answer KES's requests.
enum Target<'t> {
    Memory(&'t MemorySite),
    RestApi(&'t Functions),
    LoadBalancer(&'t Function),
}

/// Those that KES's API calls.
struct Functions {
    keys: Function,
    datakey: Function,
    service: Function,
    access: Function,
}

impl Functions {
    async fn start(deployment: &Deployment, admin: &Client) -> Self {
        let more = [
            ("KEYWAY_EVENT_SOURCE", "api-gateway"),
            ("KEYWAY_STATE_TTL_SECONDS", "0"),
            ("KEYWAY_KES_ADMIN", &admin.identity),
        ];
        let of_access = [
            ("KEYWAY_EVENT_SOURCE", "rest-api"),
            ("KEYWAY_STATE_TTL_SECONDS", "0"),
            ("KEYWAY_KES_ADMIN", &admin.identity),
            ("KEYWAY_ROOT_ACCESS_KEY_SECRET", ""),
        ];
        Self {
            keys: Function::start("keyway-fn-keys", deployment, &more).await,
            datakey: Function::start("keyway-fn-datakey", deployment, &more).await,
            service: Function::start("keyway-fn-service", deployment, &more).await,
            access: Function::start("keyway-fn-access", deployment, &of_access).await,
        }
    }

    /// The function that the template's routes name.
    fn of(&self, path: &str) -> &Function {
        let mut parts = path.split('/').skip(2);
        match (parts.next(), parts.next()) {
            (Some("key"), Some("generate" | "encrypt" | "decrypt" | "hmac" | "bulk")) => {
                &self.datakey
            }
            (Some("key"), _) => &self.keys,
            (Some("policy" | "identity"), _) => &self.access,
            _ => &self.service,
        }
    }
}

impl Target<'_> {
    async fn call(&self, client: Option<&Client>, method: &str, path: &str, body: &str) -> Answer {
        match self {
            Self::Memory(site) => {
                let pem = client.map(|client| client.pem.as_str());
                site.kes_as(pem, method, path, &[], body).await
            }
            Self::RestApi(functions) => {
                let event = rest_event(client, method, path, body);
                functions.of(path).send(&event).await
            }
            Self::LoadBalancer(function) => {
                function.send(&alb_event(client, method, path, body)).await
            }
        }
    }
}

/// Makes the requests of a client and returns each answer. An answer that differs each time is its status alone.
async fn every_group(target: &Target<'_>, admin: &Client, app: &Client) -> Vec<(u16, String)> {
    let mut answers = Vec::new();
    let mut note = |answer: &Answer, is_random: bool| {
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        let body = if is_random { String::new() } else { body };
        answers.push((answer.status.as_u16(), body));
    };
    let as_admin =
        async |method, path: &str, body: &str| target.call(Some(admin), method, path, body).await;
    for (client, method, path) in [
        (None, "GET", "/v1/status"),
        (None, "POST", "/v1/key/create/minio"),
        (Some(app), "POST", "/v1/key/create/minio"),
        (Some(admin), "POST", "/v1/key/create/minio"),
        (Some(admin), "PUT", "/v1/key/create/minio"),
        (Some(admin), "GET", "/v1/key/create/minio"),
        (Some(admin), "POST", "/v1/key/create/"),
        (Some(admin), "GET", "/v1/key/list/*"),
        (Some(admin), "GET", "/v1/ready"),
        (Some(admin), "POST", "/v1/key/generate/absent"),
        (Some(admin), "GET", "/v1/policy/read/absent"),
        (Some(app), "GET", "/v1/identity/self/describe"),
    ] {
        note(&target.call(client, method, path, "").await, false);
    }
    let policy =
        json!({"allow": {"/v1/key/generate/minio": {}, "/v1/key/decrypt/minio": {}}}).to_string();
    note(
        &as_admin("POST", "/v1/policy/write/minio", &policy).await,
        false,
    );
    let assign = json!({"identity": app.identity}).to_string();
    note(
        &as_admin("POST", "/v1/policy/assign/minio", &assign).await,
        false,
    );
    let body = json!({"context": "Y29udGV4dA=="}).to_string();
    let generated = target
        .call(Some(app), "POST", "/v1/key/generate/minio", &body)
        .await;
    note(&generated, true);
    let body =
        json!({"ciphertext": generated.text("ciphertext"), "context": "Y29udGV4dA=="}).to_string();
    let opened = target
        .call(Some(app), "POST", "/v1/key/decrypt/minio", &body)
        .await;
    assert_eq!(opened.text("plaintext"), generated.text("plaintext"));
    let elsewhere = json!({"ciphertext": generated.text("ciphertext")}).to_string();
    for (method, path, body) in [
        ("POST", "/v1/key/decrypt/minio", elsewhere.as_str()),
        ("POST", "/v1/key/encrypt/minio", "{}"),
        ("DELETE", "/v1/key/delete/minio", ""),
        ("POST", "/v1/policy/write/minio", "{}"),
    ] {
        note(&target.call(Some(app), method, path, body).await, false);
    }
    for (method, path) in [
        ("DELETE", "/v1/policy/delete/minio"),
        ("GET", "/v1/identity/list/*"),
        ("DELETE", "/v1/key/delete/minio"),
        ("DELETE", "/v1/key/delete/minio"),
        ("GET", "/v1/key/describe/minio"),
    ] {
        // It has the time since which there is an admin.
        let is_dated = path.starts_with("/v1/identity/list");
        note(&as_admin(method, path, "").await, is_dated);
    }
    note(
        &target
            .call(Some(app), "POST", "/v1/key/generate/minio", "")
            .await,
        false,
    );
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn kes_clients_get_the_same_answers_through_every_ingress() {
    let Some(aws) = Aws::here() else { return };
    let (admin, app) = (Client::new(), Client::new());
    let site = MemorySite::with_certificates(None, &admin.identity).await;
    let directly = every_group(&Target::Memory(&site), &admin, &app).await;
    assert!(directly.contains(&(200, String::new())), "{directly:?}");

    let functions = Functions::start(&aws.deployment().await, &admin).await;
    let over_rest = every_group(&Target::RestApi(&functions), &admin, &app).await;
    assert_eq!(over_rest, directly);
    for function in [
        &functions.keys,
        &functions.datakey,
        &functions.service,
        &functions.access,
    ] {
        assert!(!function.log().contains("\"ERROR\""), "{}", function.log());
    }

    let balanced = [
        ("KEYWAY_EVENT_SOURCE", "alb"),
        ("KEYWAY_STATE_TTL_SECONDS", "0"),
        ("KEYWAY_KES_ADMIN", &admin.identity),
        ("KEYWAY_KES_PROXY_HEADER", "X-Amzn-Mtls-Clientcert"),
    ];
    let all = Function::start("keyway-fn-all", &aws.deployment().await, &balanced).await;
    let over_balancer = every_group(&Target::LoadBalancer(&all), &admin, &app).await;
    assert_eq!(over_balancer, directly);
}

/// Without a load balancer before the function, a certificate header gives no identity.
#[tokio::test(flavor = "multi_thread")]
async fn headers_made_up_by_clients_are_ignored() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let admin = Client::new();
    let required = (400, "tls: client certificate is required");
    for (program, source) in [
        ("keyway-fn-keys", "api-gateway"),
        ("keyway-fn-all", "rest-api"),
        ("keyway-fn-all", "alb"),
    ] {
        let more = [
            ("KEYWAY_EVENT_SOURCE", source),
            ("KEYWAY_KES_ADMIN", &admin.identity),
        ];
        let function = Function::start(program, &deployment, &more).await;
        let mut event = match source {
            "alb" => alb_event(None, "POST", "/v1/key/create/k", ""),
            _ => rest_event(None, "POST", "/v1/key/create/k", ""),
        };
        for header in [
            "x-amzn-mtls-clientcert",
            "x-amzn-mtls-clientcert-leaf",
            "x-tls-client-cert",
        ] {
            event["multiValueHeaders"][header] = json!([admin.header()]);
        }
        let answer = function.send(&event).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.message()),
            required,
            "{program} {source}"
        );
    }
}

/// A certificate header needs the proxy whose requests may have it.
#[tokio::test(flavor = "multi_thread")]
async fn certificate_header_without_a_proxy_is_no_setting() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    for (source, is_refused) in [("rest-api", true), ("http-api", true), ("alb", false)] {
        let api = RuntimeApi::start().await;
        let mut process = tokio::process::Command::new(binary("keyway-fn-access"))
            .env_clear()
            .envs(deployment.variables())
            .envs(api.environment())
            .env("KEYWAY_EVENT_SOURCE", source)
            .env("KEYWAY_KES_PROXY_HEADER", "X-Amzn-Mtls-Clientcert")
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        if !is_refused {
            api.first_next().await;
            assert!(process.try_wait().unwrap().is_none());
            continue;
        }
        let ended = process.wait_with_output().await.unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(
            !ended.status.success() && said.contains("KEYWAY_KES_PROXY_HEADER"),
            "{said}"
        );
    }
}

/// KES's dialect answers every path below `/v1`.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_path_is_refused_by_the_dialect_of_its_area() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let all = [("KEYWAY_EVENT_SOURCE", "function-url")];
    let all = Function::start("keyway-fn-all", &deployment, &all).await;
    let answer = all.call("GET", "/kms/nothing", "").await;
    assert_eq!(answer.refusal(), (404, "NotFound".to_owned()));
    // A path below no prefix may be an object of S3.
    for (path, status, content_type) in [
        ("/v1/nothing", 404, "text/plain; charset=utf-8"),
        ("/v1/enclave/create/e", 501, "application/json"),
        ("/v2/key/create/k", 501, "application/xml"),
        ("/a/b", 501, "application/xml"),
    ] {
        let event = json!({
            "version": "2.0", "rawPath": path, "headers": {"host": "keyway.test"},
            "requestContext": {"http": {"method": "GET", "sourceIp": "192.0.2.1"}},
        });
        let answer = all.send(&event).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("content-type"), Some(content_type), "{path}");
    }
    // A function URL passes no certificates on, so its callers have no identity.
    let event = json!({
        "version": "2.0", "rawPath": "/v1/status", "headers": {"host": "keyway.test"},
        "requestContext": {"http": {"method": "GET", "sourceIp": "192.0.2.1"}},
    });
    let answer = all.send(&event).await;
    assert_eq!(
        (answer.status.as_u16(), &*answer.message()),
        (400, "tls: client certificate is required")
    );
}
