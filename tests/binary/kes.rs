//! KES's API over TLS, as MinIO and KES's own clients use it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_tests::{Answer, KesClient, KesIdentity, Server, ServerOptions, kes_error};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::{create, data_dir, eventually, folder, generate, on};

pub(crate) const ADMIN_KEY: &str = "kes:v1:AD9E7FSYWrMD+VjhI6q545cYT9YOyFxZb7UnjEepYDRc";
pub(crate) const ADMIN: &str = "3ecfcdf38fcbe141ae26a1030f81e96b753365a46760ae6b578698a97c59fd22";
const DENIED: &str = "not authorized: insufficient permissions";
const NOT_AUTHENTIC: &str = "decryption failed: ciphertext is not authentic";

/// A server with KES's API and an admin.
pub(crate) fn options() -> ServerOptions {
    ServerOptions::default()
        .argument("--kes-listen")
        .argument("127.0.0.1:0")
        .argument("--kes-admin-identity")
        .argument(ADMIN)
}

/// The certificate that a server made for itself.
fn made_certificate(data_dir: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(data_dir.join("kes-listener.crt")).unwrap()
}

pub(crate) fn client(server: &Server, data_dir: &Path, who: &KesIdentity) -> KesClient {
    KesClient::new(server.kes(), made_certificate(data_dir), who)
}

pub(crate) fn admin(server: &Server, data_dir: &Path) -> KesClient {
    client(server, data_dir, &KesIdentity::of_api_key(ADMIN_KEY))
}

/// Why a key cannot be used, in the field that KES's clients ignore.
fn kes_reason(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    body["reason"].as_str().unwrap_or_default().to_owned()
}

/// The answer to these bytes, which are sent through TLS, until the server closes the connection.
pub(crate) async fn raw(server: &Server, data_dir: &Path, bytes: &[u8]) -> String {
    let tls = KesIdentity::of_api_key(ADMIN_KEY).tls(made_certificate(data_dir));
    let socket = TcpStream::connect(server.kes()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connecting = TlsConnector::from(Arc::new(tls)).connect(name, socket);
    let mut stream = connecting.await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn said(status: u16, message: &str) -> (u16, String) {
    (status, message.to_owned())
}

/// Assigns a policy to an identity.
async fn permit(admin: &KesClient, who: &str, allow: &[&str]) {
    let allow: Value = allow.iter().map(|path| (*path, json!({}))).collect();
    let policy = json!({ "allow": allow });
    for (path, body) in [
        ("/v1/policy/write/of-test", &policy),
        ("/v1/policy/assign/of-test", &json!({ "identity": who })),
    ] {
        let answer = admin.call("POST", path, Some(body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// What a MinIO server may do.
const OF_MINIO: [&str; 7] = [
    "/v1/key/create/minio-*",
    "/v1/key/generate/minio-*",
    "/v1/key/decrypt/minio-*",
    "/v1/key/describe/minio-*",
    "/v1/key/hmac/minio-*",
    "/v1/key/list*",
    "/v1/status",
];

/// A context as MinIO writes it.
fn context(json: &str) -> Value {
    Value::from(STANDARD.encode(json))
}

/// The calls of MinIO when it starts, and for its objects.
async fn as_minio(minio: &KesClient, key: &str) {
    let generate = format!("/v1/key/generate/{key}");
    let none = json!({ "context": context("{}") });
    let absent = minio.call("POST", &generate, Some(&none)).await;
    assert_eq!(kes_error(&absent), said(404, "key does not exist"));
    let made = minio
        .call("POST", &format!("/v1/key/create/{key}"), None)
        .await;
    assert_eq!((made.status.as_u16(), made.body.len()), (200, 0));
    // Another server of the same deployment made the key first.
    let again = minio
        .call("POST", &format!("/v1/key/create/{key}"), None)
        .await;
    assert_eq!(kes_error(&again), said(400, "key already exists"));
    minio.call("POST", &generate, Some(&none)).await.ok();
    // MinIO repeats this every ten seconds.
    for _ in 0..3 {
        let path = format!("/v1/key/describe/{key}");
        let described = minio.call("GET", &path, None).await.ok();
        assert_eq!(
            (&described["name"], &described["algorithm"]),
            (&json!(key), &json!("AES256"))
        );
        assert!(described["created_at"].as_str().unwrap().ends_with('Z'));
    }
    let mut credentials = Vec::new();
    for message in ["root access key", "root secret key"] {
        let body = json!({ "message": STANDARD.encode(message) });
        let path = format!("/v1/key/hmac/{key}");
        let mac = minio.call("PUT", &path, Some(&body)).await.text("hmac");
        assert_eq!(STANDARD.decode(&mac).unwrap().len(), 32);
        credentials.push(mac);
    }
    assert_ne!(credentials[0], credentials[1]);
    // An object is put and got.
    for name in ["bucket/object", "bucket/a b&<c>"] {
        let of_object = context(&format!(r#"{{"bucket":"{name}"}}"#));
        let made = minio
            .call("POST", &generate, Some(&json!({ "context": of_object })))
            .await
            .ok();
        let open = async |context: &Value| {
            let body = json!({"ciphertext": made["ciphertext"], "context": context});
            minio
                .call("POST", &format!("/v1/key/decrypt/{key}"), Some(&body))
                .await
        };
        assert_eq!(open(&of_object).await.ok()["plaintext"], made["plaintext"]);
        let elsewhere = open(&context(r#"{"bucket":"bucket/other"}"#)).await;
        assert_eq!(kes_error(&elsewhere), said(400, NOT_AUTHENTIC));
    }
    let status = minio.call("GET", "/v1/status", None).await.ok();
    assert!(status.get("keystore_unreachable").is_none(), "{status}");
}

#[tokio::test]
async fn minio_over_keyway_starts_and_keeps_objects() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = options().start(&data_dir).await;
    let admin = admin(&server, &data_dir);
    let certificate = KesIdentity::ecdsa();
    permit(&admin, &certificate.name(), &OF_MINIO).await;
    as_minio(&client(&server, &data_dir, &certificate), "minio-h2").await;
    let http1 = KesClient::http1(server.kes(), made_certificate(&data_dir), &certificate);
    as_minio(&http1, "minio-h1").await;
    // A refusal has the text that MinIO compares.
    let denied = http1.call("POST", "/v1/key/create/other", None).await;
    assert_eq!(kes_error(&denied), said(403, DENIED));
    // Both APIs have the same keys, whichever of them made a key.
    let listed = server.call("GET", "/kms/keys", "").await.ok();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 2);
    create(&server, "minio-made-there").await;
    create(&server, "not.a.name.of.kes").await;
    let names = admin.call("GET", "/v1/key/list", None).await.ok();
    assert_eq!(
        names["names"],
        json!(["minio-h1", "minio-h2", "minio-made-there"])
    );
    let lines = admin.call("GET", "/v1/key/list/minio-h%2A", None).await;
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(
        lines.body,
        "{\"name\":\"minio-h1\"}\n{\"name\":\"minio-h2\"}\n"
    );
    // A key that was disabled there is disabled here, within the state TTL.
    let disabled = server
        .call("POST", "/kms/keys/disable", &on("minio-h1"))
        .await;
    assert_eq!(disabled.status, 200);
    let refused = admin.call("POST", "/v1/key/generate/minio-h1", None).await;
    assert_eq!(
        kes_error(&refused),
        said(403, "not authorized: insufficient permissions")
    );
    assert_eq!(kes_reason(&refused), "key is disabled");
    // KES's listener serves none of RustFS's routes, and the other listener none of KES's.
    let elsewhere = admin.call("GET", "/rustfs/admin/v3/kms/status", None).await;
    assert_eq!(elsewhere.status, 404);
}

#[tokio::test]
async fn listener_makes_a_certificate_once_and_for_loopback_only() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let one = options();
    let (server, other) = tokio::join!(one.start(&data_dir), one.start(&data_dir));
    for server in [&server, &other] {
        let admin = admin(server, &data_dir);
        let ready = admin.call("GET", "/v1/ready", None).await;
        assert_eq!(ready.status, 200, "both show the same certificate");
    }
    other.stop().await;
    let first = made_certificate(&data_dir);
    let key = fs::metadata(data_dir.join("kes-listener.key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    let print = keyway_auth::certificate::fingerprint(&first);
    assert!(server.log().contains(&print), "{}", server.log());
    server.stop().await;
    let server = options().start(&data_dir).await;
    assert_eq!(
        made_certificate(&data_dir),
        first,
        "clients go on to know it"
    );
    server.stop().await;

    let away = ServerOptions::default()
        .argument("--kes-listen")
        .argument("0.0.0.0:0");
    let (code, stderr) = away.fail(&data_dir).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("--kes-cert"), "{stderr}");
    let wrong = ServerOptions::default().variable("KEYWAY_KES_ADMIN", "not-an-identity");
    let (code, stderr) = wrong.fail(&data_dir).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains("KEYWAY_KES_ADMIN"), "{stderr}");
    for (setting, value, named) in [
        ("KEYWAY_KES_OPEN", "/v1/key/list", "KEYWAY_KES_OPEN"),
        ("KEYWAY_KES_PROXIES", "10.0.0.0/8", "--kes-proxy-header"),
        (
            "KEYWAY_KES_PROXY_HEADER",
            "X-Tls-Client-Cert",
            "--kes-proxies",
        ),
        (
            "KEYWAY_KES_PROXY_HEADER",
            "X-Forwarded-For",
            "X-Forwarded-For",
        ),
        ("KEYWAY_KES_DELETE", "never", "KEYWAY_KES_DELETE"),
        ("KEYWAY_KES_CLIENT_CA", "/nowhere.pem", "/nowhere.pem"),
    ] {
        let (code, stderr) = options().variable(setting, value).fail(&data_dir).await;
        assert!(matches!(code, Some(1 | 2)), "{setting}: {stderr}");
        assert!(stderr.contains(named), "{setting}: {stderr}");
    }
}

#[tokio::test]
async fn certificate_of_the_operator_is_served_and_a_client_authority_required() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let keyway = |arguments: &[&str]| {
        let output = std::process::Command::new(keyway_tests::binary("keyway"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let pair = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .self_signed(&pair)
        .unwrap();
    fs::write(file("server.pem"), made.pem()).unwrap();
    fs::write(file("server.key"), pair.serialize_pem()).unwrap();
    // The listener knows an identity that the operator's command made.
    let (cert, key) = (file("client.pem"), file("client.key"));
    keyway(&[
        "identity", "new", "--kind", "ecdsa", "--cert", &cert, "--key", &key,
    ]);
    let server = options()
        .argument("--kes-cert")
        .argument(&file("server.pem"))
        .argument("--kes-key")
        .argument(&file("server.key"))
        .argument("--kes-client-ca")
        .argument(&cert)
        .start(&data_dir)
        .await;
    assert!(!data_dir.join("kes-listener.crt").exists());
    // The admin's certificate is well-formed but not of that authority: the handshake fails.
    let stranger = KesIdentity::of_api_key(ADMIN_KEY);
    let refused = KesClient::new(server.kes(), made.der().clone(), &stranger);
    assert!(refused.send("GET", "/version", &[], None).await.is_err());
    let nobody = KesClient::nobody(server.kes(), made.der().clone());
    nobody.call("GET", "/version", None).await.ok();
    let ready = nobody.call("GET", "/v1/ready", None).await;
    assert_eq!(
        kes_error(&ready),
        said(400, "tls: client certificate is required")
    );
}

#[tokio::test]
async fn creations_at_once_over_two_processes_have_one_winner() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let first = options().start(&data_dir).await;
    let second = options().start(&data_dir).await;
    let clients = [&first, &second].map(|server| Arc::new(admin(server, &data_dir)));
    let mut creations = JoinSet::new();
    for number in 0..64 {
        let client = Arc::clone(&clients[number % 2]);
        creations.spawn(async move { client.call("POST", "/v1/key/create/one", None).await });
    }
    let answers = creations.join_all().await;
    let (won, lost): (Vec<Answer>, Vec<Answer>) =
        answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 63));
    for answer in lost {
        assert_eq!(kes_error(&answer), said(400, "key already exists"));
    }
    // Both processes have the new key.
    let made = clients[0]
        .call("POST", "/v1/key/generate/one", None)
        .await
        .ok();
    let body = json!({ "ciphertext": made["ciphertext"] });
    let opened = clients[1]
        .call("POST", "/v1/key/decrypt/one", Some(&body))
        .await;
    assert_eq!(opened.ok()["plaintext"], made["plaintext"]);
}

#[tokio::test]
async fn policy_change_holds_in_every_process_within_the_ttl() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let short = || options().argument("--state-ttl-seconds").argument("1");
    let (first, second) = (
        short().start(&data_dir).await,
        short().start(&data_dir).await,
    );
    let who = KesIdentity::ecdsa();
    let (here, there) = (admin(&first, &data_dir), client(&second, &data_dir, &who));
    let ask = async || {
        there
            .call("GET", "/v1/key/list/", None)
            .await
            .status
            .as_u16()
    };
    assert_eq!(ask().await, 403);
    permit(&here, &who.name(), &["/v1/key/list/*"]).await;
    eventually("the policy is obeyed", async || {
        (ask().await == 200).then_some(())
    })
    .await;
    let path = format!("/v1/identity/delete/{}", who.name());
    assert_eq!(here.call("DELETE", &path, None).await.status, 200);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(ask().await, 403);
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../vectors/kes-ciphertexts.json")).unwrap()
}

/// Imports a folder of KES's keys into the deployment.
async fn import(data_dir: &Path, kept: &TempDir) {
    let arguments = [
        "import",
        "kes",
        "--from-dir",
        kept.path().to_str().unwrap(),
        "--data-dir",
        data_dir.to_str().unwrap(),
    ];
    let (code, _, stderr) = ServerOptions::default().run(&arguments).await;
    assert_eq!(code, Some(0), "{stderr}");
}

#[tokio::test]
async fn imported_keys_keep_their_hmac_keys_and_can_seal_for_kes() {
    let (folder, kept) = (folder(), tempfile::tempdir().unwrap());
    let data_dir = data_dir(&folder);
    let vectors = vectors();
    let modern = vectors["keys"][0]["stored"].as_str().unwrap();
    fs::write(kept.path().join("modern"), modern).unwrap();
    fs::write(
        kept.path().join("oldest"),
        format!(r#"{{"bytes":"{}"}}"#, STANDARD.encode([7; 32])),
    )
    .unwrap();
    let server = options()
        .variable("KEYWAY_KES_CIPHERTEXT", "kes")
        .start(&data_dir)
        .await;
    import(&data_dir, &kept).await;
    let admin = admin(&server, &data_dir);
    for vector in vectors["hmac"].as_array().unwrap() {
        let body = json!({ "message": vector["message"] });
        let mac = admin.call("PUT", "/v1/key/hmac/modern", Some(&body)).await;
        assert_eq!(mac.ok()["hmac"], vector["hmac"]);
    }
    let none = admin
        .call("PUT", "/v1/key/hmac/oldest", Some(&json!({})))
        .await;
    assert_eq!(kes_error(&none), said(409, "key does not support HMAC"));
    // KES's raw format: 32 bytes, 16 of authentication, 16 and 12 of randomness.
    let seal = async |key: &str| {
        let path = format!("/v1/key/generate/{key}");
        let made = admin.call("POST", &path, None).await.ok();
        let sealed = STANDARD.decode(made["ciphertext"].as_str().unwrap());
        let body = json!({ "ciphertext": made["ciphertext"] });
        let path = format!("/v1/key/decrypt/{key}");
        let opened = admin.call("POST", &path, Some(&body)).await;
        assert_eq!(opened.ok()["plaintext"], made["plaintext"]);
        sealed.unwrap()
    };
    assert_eq!(seal("modern").await.len(), 32 + 44);
    // KES does not have the material of a key that Keyway made.
    admin.call("POST", "/v1/key/create/ours", None).await;
    assert_ne!(seal("ours").await.len(), 32 + 44);
    server.stop().await;
    let server = options().start(&data_dir).await;
    let made = admin_of(&server, &data_dir, "/v1/key/generate/modern").await;
    assert_ne!(STANDARD.decode(made).unwrap().len(), 32 + 44);
}

async fn admin_of(server: &Server, data_dir: &Path, path: &str) -> String {
    let answer = admin(server, data_dir).call("POST", path, None).await;
    answer.text("ciphertext")
}

#[tokio::test]
async fn deletion_can_be_scheduled_instead() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = options()
        .variable("KEYWAY_KES_DELETE", "schedule")
        .start(&data_dir)
        .await;
    let admin = admin(&server, &data_dir);
    admin.call("POST", "/v1/key/create/k", None).await;
    let deleted = admin.call("DELETE", "/v1/key/delete/k", None).await;
    assert_eq!((deleted.status.as_u16(), deleted.body.len()), (200, 0));
    let refused = admin.call("POST", "/v1/key/generate/k", None).await;
    assert_eq!(
        kes_error(&refused),
        said(403, "not authorized: insufficient permissions")
    );
    assert_eq!(kes_reason(&refused), "key is pending deletion");
    let cancelled = server
        .call("POST", "/kms/keys/cancel-deletion", &on("k"))
        .await;
    assert_eq!(cancelled.status, 200);
    generate(&server, "k").await.ok();
}

/// Faults of KES's last releases, and our answers in their place.
mod mended {
    use super::*;

    #[tokio::test]
    async fn identity_with_a_policy_can_describe_itself() {
        let folder = folder();
        let data_dir = data_dir(&folder);
        let server = options().start(&data_dir).await;
        let who = KesIdentity::ecdsa();
        permit(
            &admin(&server, &data_dir),
            &who.name(),
            &["/v1/key/create/a*"],
        )
        .await;
        let described = client(&server, &data_dir, &who)
            .call("GET", "/v1/identity/self/describe", None)
            .await
            .ok();
        assert_eq!(described["identity"], who.name());
        // The shape that SDKs read: the policy's name, and beside it what it says.
        assert_eq!(described["policy"], "of-test");
        assert_eq!(described["allow"], json!({"/v1/key/create/a*": {}}));
        assert_eq!(described["deny"], json!({}));
        assert_eq!(described["admin"], false);
    }

    #[tokio::test]
    async fn pattern_lists_its_matches_and_an_asterisk_permits_everything() {
        let folder = folder();
        let data_dir = data_dir(&folder);
        let server = options().start(&data_dir).await;
        let admin = admin(&server, &data_dir);
        for name in ["my-a", "my-b", "other"] {
            admin
                .call("POST", &format!("/v1/key/create/{name}"), None)
                .await;
        }
        let listed = admin.call("GET", "/v1/key/list/my-%2A", None).await;
        assert_eq!(listed.body, "{\"name\":\"my-a\"}\n{\"name\":\"my-b\"}\n");
        let who = KesIdentity::ecdsa();
        let theirs = client(&server, &data_dir, &who);
        for (allow, status) in [
            (&["*"][..], 200),
            (&["/v1/key/*"], 200),
            (&["/v1/key/*/my-*"], 200),
            (&["/v1/key/*/your-*"], 403),
            (&["/v1/*/my-*"], 403),
        ] {
            permit(&admin, &who.name(), allow).await;
            let answer = theirs.call("GET", "/v1/key/describe/my-a", None).await;
            // The process that replaced a policy obeys it at once.
            assert_eq!(answer.status, status, "{allow:?}");
        }
    }

    #[tokio::test]
    async fn trusted_proxy_passes_client_certificates_on() {
        let folder = folder();
        let data_dir = data_dir(&folder);
        let who = KesIdentity::ecdsa();
        let pem = percent_encoded(&who);
        let ask = async |server: &Server, via: &KesIdentity, header: &str, value: &str| {
            let client = client(server, &data_dir, via);
            let headers = [(header, value)];
            let answer = client
                .send("GET", "/v1/identity/self/describe", &headers, None)
                .await
                .unwrap();
            (answer.status.as_u16(), answer)
        };
        let proxy = KesIdentity::ecdsa();
        let behind = |proxies: &str| {
            options()
                .argument("--kes-proxy-header")
                .argument("X-Tls-Client-Cert")
                .argument("--kes-proxies")
                .argument(proxies)
        };
        let server = behind(&proxy.name()).start(&data_dir).await;
        permit(&admin(&server, &data_dir), &who.name(), &["/v1/ready"]).await;
        let (status, answer) = ask(&server, &proxy, "x-tls-client-cert", &pem).await;
        assert_eq!(
            (status, &answer.json()["identity"]),
            (200, &json!(who.name()))
        );
        // No other peer is trusted, and no other header.
        let (status, answer) = ask(&server, &KesIdentity::ecdsa(), "x-tls-client-cert", &pem).await;
        assert_eq!(
            (status, answer.message().as_str()),
            (404, "identity does not exist")
        );
        let (status, answer) = ask(&server, &proxy, "x-amzn-mtls-clientcert", &pem).await;
        assert_eq!(
            (status, answer.message().as_str()),
            (400, "tls: client certificate is required")
        );
        server.stop().await;
        // The proxy is trusted by its address; the header is that of AWS's load balancer, which does not escape `+`, `=`, `/`.
        let server = behind("127.0.0.1").start(&data_dir).await;
        let other = KesIdentity::ecdsa();
        let (status, _) = ask(&server, &other, "x-tls-client-cert", &pem).await;
        assert_eq!(status, 200);
        server.stop().await;
        let server = options().start(&data_dir).await;
        let (status, _) = ask(&server, &other, "x-tls-client-cert", &pem).await;
        assert_eq!(status, 404, "without the setting the header says nothing");
    }

    /// As nginx writes `$ssl_client_escaped_cert`.
    fn percent_encoded(who: &KesIdentity) -> String {
        let body = STANDARD.encode(who.certificate());
        let lines: Vec<&str> = body
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        );
        pem.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
                other => format!("%{other:02X}"),
            })
            .collect()
    }

    #[tokio::test]
    async fn key_without_an_algorithm_opens_ciphertexts_of_both() {
        let (folder, kept) = (folder(), tempfile::tempdir().unwrap());
        let data_dir = data_dir(&folder);
        let vectors = vectors();
        let mut sealed = Vec::new();
        for vector in vectors["ciphertexts"].as_array().unwrap() {
            let format = vector["format"].as_str().unwrap();
            if !matches!(format, "json" | "json-id" | "msgpack" | "msgpack-newalg") {
                continue;
            }
            let name = format!("key-{}", sealed.len());
            let value = json!({ "bytes": vector["key"] }).to_string();
            fs::write(kept.path().join(&name), value).unwrap();
            sealed.push((name, vector));
        }
        let server = options().start(&data_dir).await;
        import(&data_dir, &kept).await;
        let admin = admin(&server, &data_dir);
        let mut of_chacha = 0;
        for (name, vector) in sealed {
            let body = json!({"ciphertext": vector["ciphertext"], "context": vector["context"]});
            let path = format!("/v1/key/decrypt/{name}");
            let opened = admin.call("POST", &path, Some(&body)).await;
            assert_eq!(opened.ok()["plaintext"], vector["plaintext"], "{vector}");
            of_chacha += usize::from(vector["cipher"] == "ChaCha20");
        }
        assert!(of_chacha > 0);
    }

    #[tokio::test]
    async fn probe_by_head_without_a_certificate_is_answered() {
        let folder = folder();
        let data_dir = data_dir(&folder);
        let server = options()
            .argument("--kes-open")
            .argument("/v1/ready,/v1/status")
            .start(&data_dir)
            .await;
        let nobody = KesClient::nobody(server.kes(), made_certificate(&data_dir));
        for path in ["/version", "/v1/ready", "/v1/status"] {
            for method in ["GET", "HEAD"] {
                let answer = nobody.call(method, path, None).await;
                assert_eq!(answer.status, 200, "{method} {path}");
            }
        }
        // A path that is not open is refused by an answer, not by the handshake.
        let refused = nobody.call("GET", "/v1/key/list/", None).await;
        assert_eq!(
            kes_error(&refused),
            said(400, "tls: client certificate is required")
        );
    }
}

#[tokio::test]
async fn failed_handshakes_are_logged_once_with_address_and_reason() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = options().start(&data_dir).await;
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.kes()).await.unwrap();
        stream.write_all(&[0xff; 64]).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
    }
    // A load balancer probes the port.
    drop(TcpStream::connect(server.kes()).await.unwrap());
    let (_, log, _) = server.stop().await;
    let told: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("a TLS handshake failed"))
        .collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("127.0.0.1"), "{told:?}");
    assert!(told[0].contains("does not speak TLS"), "{told:?}");
}
