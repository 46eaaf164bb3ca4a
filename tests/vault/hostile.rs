//! Hostile servers in the place of Vault: they redirect, echo, send too much, and count.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use keyway_domain::keyring::WrapError;
use keyway_domain::vault::{
    CopyError, CopyVersion, TransitKey, Vault, VaultAuth, VaultRetryPolicy, Vaults,
};
use tokio::net::TcpListener;
use tracing_subscriber::fmt::MakeWriter;

use crate::{BINDING, Setup, opened, secret, set_clock, unavailable, vaults};

const QUICK: VaultRetryPolicy = VaultRetryPolicy {
    timeout: Duration::from_secs(5),
    retries: 0,
};

/// Vault's answer about a fit transit key.
const FIT_KEY: &str = r#"{"data":{"type":"aes256-gcm96","derived":true,"supports_encryption":true,"supports_decryption":true,"keys":{"1":1}}}"#;

type Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

fn whole(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).boxed();
    Response::builder().status(status).body(body).unwrap()
}

/// A server whose answers depend on request and body.
async fn serve(
    answer: impl Fn(&Request<()>, &[u8]) -> Response<Body> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let answer = Arc::clone(&answer);
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        Ok::<_, hyper::Error>(answer(&Request::from_parts(head, ()), &body))
                    }
                });
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
                    .ok();
            });
        }
    });
    address
}

fn place() -> Setup {
    Setup {
        transit: "transit".to_owned(),
        kv: "kv".to_owned(),
    }
}

fn at(address: &str) -> Arc<dyn Vault> {
    let settings = place().settings(address, VaultAuth::Token);
    opened(&settings, Some("s.canary-token"), QUICK)
}

#[tokio::test(flavor = "multi_thread")]
async fn redirect_is_not_followed() {
    let canary = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = format!("http://{}/v1/", canary.local_addr().unwrap());
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = elsewhere.clone();
        let address = serve(move |_, _| {
            let mut answer = whole(status, "");
            let to = elsewhere.parse().unwrap();
            answer.headers_mut().insert("location", to);
            answer
        })
        .await;
        let vault = at(&address);
        unavailable(vault.check(TransitKey::MustExist).await, "redirect");
        unavailable(vault.wrap(&BINDING, b"m").await, "redirect");
        unavailable(vault.copy("key-1").await, "redirect");
    }
    let asked = tokio::time::timeout(Duration::from_millis(200), canary.accept()).await;
    assert!(asked.is_err(), "somebody came");
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_too_long_is_refused() {
    let endless = serve(|_, _| {
        let chunk =
            || Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![b' '; 65536])));
        let chunks = futures_util::stream::repeat_with(chunk);
        Response::new(BodyExt::boxed(StreamBody::new(chunks)))
    })
    .await;
    let declared = serve(|_, _| whole(200, vec![b' '; 9 << 20])).await;
    for address in [endless, declared] {
        let vault = at(&address);
        unavailable(vault.check(TransitKey::MustExist).await, "longer than");
        unavailable(vault.copy("key-1").await, "longer than");
        unavailable(vault.copies().await, "longer than");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_not_of_vault_is_refused() {
    let wrapped = b"vault:v1:AAAA";
    for body in [
        "",
        "null",
        "[]",
        "<html>",
        "{}",
        r#"{"data":null}"#,
        r#"{"data":{}}"#,
    ] {
        for status in [200, 204, 206, 418] {
            let address = serve(move |_, _| whole(status, body)).await;
            let vault = at(&address);
            unavailable(vault.check(TransitKey::MustExist).await, "Vault");
            unavailable(vault.wrap(&BINDING, b"m").await, "Vault");
            unavailable(vault.unwrap(&BINDING, wrapped).await, "Vault");
            unavailable(vault.copy("key-1").await, "Vault");
            unavailable(vault.copies().await, "Vault");
        }
    }
}

/// The exact request of a wrap: its namespace, and a kind of key that Vault does not make.
#[tokio::test(flavor = "multi_thread")]
async fn requests_to_vault_have_method_path_and_headers() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    let address = serve(move |request, body| {
        let path = request.uri().path();
        let headers = ["x-vault-token", "x-vault-request", "x-vault-namespace"].map(|name| {
            let value = request.headers().get(name);
            value.map(|value| value.to_str().unwrap().to_owned())
        });
        let body = String::from_utf8(body.to_vec()).unwrap();
        let mut heard = hearing.lock().unwrap();
        heard.push((format!("{} {path}", request.method()), headers, body));
        match path.rsplit_once("transit/") {
            Some((_, "keys/keyway")) => whole(200, FIT_KEY),
            Some((_, "encrypt/keyway")) => {
                whole(200, r#"{"data":{"ciphertext":"vault:v1:c2VhbGVk"}}"#)
            }
            _ => whole(200, r#"{"data":{"ttl":0}}"#),
        }
    })
    .await;
    let mut settings = place().settings(&format!("{address}/behind/a/path/"), VaultAuth::Token);
    settings.namespace = Some(crate::path("team/a"));
    let vault = opened(&settings, Some("s.token"), QUICK);
    let wrapped = vault.wrap(&BINDING, b"m").await.unwrap();
    assert_eq!(wrapped, b"vault:v1:c2VhbGVk");
    drop(vault.check(TransitKey::MustExist).await);

    let heard = heard.lock().unwrap();
    let paths: Vec<_> = heard.iter().map(|(path, ..)| path.as_str()).collect();
    let expected = [
        "GET /behind/a/path/v1/auth/token/lookup-self",
        "GET /behind/a/path/v1/transit/keys/keyway",
        "POST /behind/a/path/v1/transit/encrypt/keyway",
        "GET /behind/a/path/v1/sys/health",
    ];
    assert_eq!(paths[..4], expected);
    let some = |text: &str| Some(text.to_owned());
    for (_, headers, _) in &heard[..3] {
        assert_eq!(*headers, [some("s.token"), some("true"), some("team/a")]);
    }
    let body: serde_json::Value = serde_json::from_str(&heard[2].2).unwrap();
    // The label, the id, the version and the origin, each with its length where it has one.
    let context = "AAAAGGtleXdheSB0cmFuc2l0IGNvbnRleHQgMQAAAAVrZXktMQAAAAEAAAAGS0VZV0FZ";
    let expected =
        serde_json::json!({"plaintext": "bQ==", "context": context, "type": "ecdsa-p256"});
    assert_eq!(body, expected);
    // Health is of the whole server, and takes no namespace or token.
    assert_eq!(heard[3].1, [None, some("true"), None]);
}

/// A load balancer without a backend is not a sealed Vault; the request is retried.
#[tokio::test(flavor = "multi_thread")]
async fn transient_failure_is_retried_as_configured() {
    for (status, body, times) in [
        (429, "", 3),
        (500, "", 3),
        (502, "<html>", 3),
        (503, "no healthy upstream", 3),
        (504, "", 3),
        (412, "", 3),
        (400, "", 1),
        (404, "", 1),
        (501, "", 1),
        (503, r#"{"errors":["Vault is sealed"]}"#, 1),
        (307, "", 1),
    ] {
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let address = serve(move |request, _| {
            if request.uri().path().ends_with("/lookup-self") {
                return whole(200, r#"{"data":{"ttl":0}}"#);
            }
            count.fetch_add(1, Ordering::SeqCst);
            whole(status, body)
        })
        .await;
        let settings = place().settings(&address, VaultAuth::Token);
        let retry_policy = VaultRetryPolicy {
            timeout: Duration::from_secs(20),
            retries: 2,
        };
        let vault = opened(&settings, Some("s.token"), retry_policy);
        let outcome = vault.remove_copy("key-1").await;
        assert_eq!(outcome.is_ok(), status == 404);
        assert_eq!(asked.load(Ordering::SeqCst), times, "{status} {body}");
        // A check makes one attempt.
        asked.store(0, Ordering::SeqCst);
        drop(vault.check(TransitKey::MustExist).await);
        assert!(asked.load(Ordering::SeqCst) <= 2, "{status} {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_login_is_not_repeated_at_once() {
    let logins = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&logins);
    let address = serve(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        whole(400, r#"{"errors":["invalid role or secret ID"]}"#)
    })
    .await;
    let auth = VaultAuth::AppRole {
        role_id: "role".to_owned(),
        mount: crate::path("approle"),
    };
    let clock = set_clock();
    let vault = vaults(clock.clone())
        .open(&place().settings(&address, auth), Some(&secret("s")), QUICK)
        .unwrap();
    let mut expected = 0;
    for pause in [1, 2, 4, 8, 16, 30, 30] {
        expected += 1;
        for _ in 0..20 {
            unavailable(vault.copies().await, "refuses the login");
        }
        assert_eq!(logins.load(Ordering::SeqCst), expected, "{pause}");
        clock.advance(Duration::from_millis(1000 * pause - 1));
        unavailable(vault.copies().await, "refuses the login");
        assert_eq!(logins.load(Ordering::SeqCst), expected, "{pause}");
        clock.advance(Duration::from_millis(1));
    }
}

/// The bytes of the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The server repeats everything that it got in its errors; our errors and log have none of it.
#[tokio::test]
async fn errors_and_log_hold_no_secret() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);

    let mut texts = String::new();
    for status in [200, 204, 302, 400, 403, 404, 412, 429, 500, 503] {
        let address = serve(move |request, body| {
            let path = request.uri().path();
            if path.ends_with("/login") && status != 403 {
                let token = r#"{"auth":{"client_token":"s.canary-token","lease_duration":9,"renewable":true}}"#;
                return whole(200, token);
            }
            if path.ends_with("/keys/keyway") {
                return whole(200, FIT_KEY);
            }
            let token = request.headers().get("x-vault-token");
            let token = token.map_or("", |token| token.to_str().unwrap());
            let body = String::from_utf8_lossy(body);
            let told = serde_json::json!({"errors": [token, body]}).to_string();
            let mut answer = whole(status, told);
            answer.headers_mut().insert("x-echo", token.parse().unwrap());
            answer
        })
        .await;
        let auths = [
            (VaultAuth::Token, "s.canary-token"),
            (
                VaultAuth::AppRole {
                    role_id: "role".to_owned(),
                    mount: crate::path("approle"),
                },
                "canary-secret-id",
            ),
        ];
        for (auth, credential) in auths {
            let settings = place().settings(&address, auth);
            let clock = set_clock();
            let vault = vaults(clock.clone())
                .open(&settings, Some(&secret(credential)), QUICK)
                .unwrap();
            let mut told = |error: Option<WrapError>| {
                if let Some(error) = error {
                    texts += &format!("{error} {error:?}\n");
                }
            };
            for _ in 0..2 {
                told(vault.check(TransitKey::MustExist).await.err());
                told(vault.wrap(&BINDING, b"canary-plaintext").await.err());
                told(vault.unwrap(&BINDING, b"vault:v1:canary").await.err());
                told(vault.copy("key-1").await.err());
                told(vault.copies().await.err());
                told(vault.renew().await.err());
                let put = vault.put_copy("key-1", b"canary-record", CopyVersion(0));
                if let Err(CopyError::Vault(error)) = put.await {
                    told(Some(error));
                }
                clock.advance(Duration::from_secs(7));
            }
        }
    }
    assert!(texts.lines().count() > 100, "there are errors");
    texts += &String::from_utf8_lossy(&log.0.lock().unwrap());
    // The beginnings of "canary-plaintext" and "canary-record" in base64.
    for canary in ["canary", "Y2FuYXJ5"] {
        let line = texts.lines().find(|line| line.contains(canary));
        assert_eq!(line, None, "something secret came to light");
    }
}
