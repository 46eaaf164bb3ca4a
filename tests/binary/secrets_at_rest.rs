//! No key is in the clear: in no file of the data folder, not in the log, not on stderr.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use keyway_crypto::{Blob, EncryptionContext, Key256, Purpose};
use keyway_domain::ports::{Kind, SecretStore};
use keyway_secrets_file::FileSecrets;
use keyway_testkit::SeededRandom;
use keyway_tests::{KesClient, Server, ServerOptions, Signer};
use serde_json::{Value, json};

use crate::kes;
use crate::raw::{Http2, presigned_get, signed_by};
use crate::{access_key_by, data_dir, folder, logged, on, shown_root, signer};

/// The secrets that must not be found, each with its name in failures.
pub(crate) type Secrets = Vec<(String, Vec<u8>)>;

/// Finds secrets in any of the forms that a program may write them in.
pub(crate) struct Scanner {
    /// The forms by their first bytes.
    forms: HashMap<[u8; 8], Vec<(String, Vec<u8>)>>,
}

impl Scanner {
    pub(crate) fn new(secrets: &Secrets) -> Self {
        let mut forms: HashMap<_, Vec<_>> = HashMap::new();
        for (name, secret) in secrets {
            for form in forms_of(secret) {
                let start = *form.first_chunk().expect("a secret of 8 bytes or more");
                forms.entry(start).or_default().push((name.clone(), form));
            }
        }
        Self { forms }
    }

    /// The names of the secrets that are in these bytes, or in base64 within them.
    pub(crate) fn find(&self, bytes: &[u8]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (at, start) in bytes.windows(8).enumerate() {
            let forms = self.forms.get(start).into_iter().flatten();
            found.extend(
                forms
                    .filter(|(_, form)| bytes[at..].starts_with(form))
                    .map(|(name, _)| name.clone()),
            );
        }
        let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
        for run in bytes.split(|byte| !is_base64(byte)) {
            // The forms above find a run that begins within other text.
            let whole = &run[..run.len() - usize::from(run.len() % 4 == 1)];
            if let (24.., Ok(inner)) = (whole.len(), loose().decode(whole)) {
                found.extend(self.find(&inner));
            }
        }
        found
    }
}

/// Accepts base64 whose last bits are not zero, since a run may end there.
fn loose() -> base64::engine::GeneralPurpose {
    let config = base64::engine::GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
    base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, config)
}

fn forms_of(secret: &[u8]) -> Vec<Vec<u8>> {
    let numbers = |separator: &str| {
        let numbers: Vec<String> = secret.iter().map(u8::to_string).collect();
        numbers.join(separator).into_bytes()
    };
    let mut forms = vec![
        secret.to_vec(),
        hex::encode(secret).into_bytes(),
        hex::encode_upper(secret).into_bytes(),
        numbers(","),
        numbers(", "),
    ];
    for shift in 0..3 {
        let shifted = [&vec![0; shift], secret].concat();
        // Only the characters that depend on no neighbouring byte.
        let (first, end) = ((shift * 8).div_ceil(6), shifted.len() * 8 / 6);
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            forms.push(engine.encode(&shifted).as_bytes()[first..end].to_vec());
        }
    }
    forms
}

#[test]
fn scanner_finds_every_form_at_any_place() {
    let secret: Vec<u8> = (0..32).map(|n| 251 - n * 7).collect();
    let scanner = Scanner::new(&vec![("it".to_owned(), secret.clone())]);
    for before in 0..7 {
        let embedded = [&vec![7; before][..], &secret, b"after"].concat();
        let urlsafe = URL_SAFE_NO_PAD.encode(&embedded);
        let twice = STANDARD.encode(format!(r#"{{"key":"{}"}}"#, STANDARD.encode(&embedded)));
        let texts = [
            embedded.clone(),
            hex::encode(&embedded).into_bytes(),
            hex::encode_upper(&embedded).into_bytes(),
            STANDARD.encode(&embedded).into_bytes(),
            urlsafe.into_bytes(),
            format!(r#"{{"value":"{twice}"}}"#).into_bytes(),
            format!("{embedded:?}").into_bytes(),
            json!(embedded).to_string().into_bytes(),
        ];
        for text in texts {
            assert_eq!(scanner.find(&text).len(), 1, "{}", text.escape_ascii());
            // It must be whole.
            let half = &text[..text.len() / 2];
            assert!(scanner.find(half).is_empty(), "{}", half.escape_ascii());
        }
    }
}

/// Every file below a data folder, and what its logs hold uncompressed.
fn kept(data_dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut kept = files(data_dir);
    let audit = logged(data_dir, Kind::Audit).concat();
    assert!(audit.contains("{\"audit\":2"), "{audit}");
    let errors = logged(data_dir, Kind::ErrorLog).concat();
    kept.push(("the logs".into(), (audit + &errors).into_bytes()));
    kept
}

pub(crate) fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found
}

/// The secrets that the server got or made, and a data key to try master keys on.
struct Used {
    secrets: Secrets,
    blob: Vec<u8>,
    plaintext: Vec<u8>,
}

/// Uses every route that meets a secret, by HTTP/1.1 and HTTP/2.
async fn use_all(server: &Server, root: &Signer, keys: &[Value]) -> Used {
    let context = json!({"canary-name": "canary-value-of-a-context", "n": "1"});
    let mut secrets: Secrets = vec![(
        "a context".to_owned(),
        b"canary-value-of-a-context".to_vec(),
    )];
    let mut blobs = Vec::new();
    for id in ["k1", "k2"] {
        generate_under(server, root, id, &context, &mut secrets, &mut blobs).await;
    }
    let blob = STANDARD.decode(&blobs[0]).unwrap();
    let plaintext = secrets[1].1.clone();

    let text = "a canary among the plaintexts";
    secrets.push(("a plaintext".to_owned(), text.as_bytes().to_vec()));
    blobs.push(encrypt(server, root, text).await);
    open_all(server, root, &blobs, &context).await;
    for key in keys {
        for field in ["secret_access_key", "session_token"] {
            if let Some(secret) = key[field].as_str() {
                secrets.push((field.to_owned(), secret.as_bytes().to_vec()));
            }
        }
        sign_with(server, key).await;
    }
    for (method, path) in [
        ("POST", "/kms/keys/disable"),
        ("DELETE", "/kms/keys/delete"),
    ] {
        let body = json!({"key_id": "k2"}).to_string();
        server.call_as(root, method, path, &body).await.ok();
    }
    Used {
        secrets,
        blob,
        plaintext,
    }
}

/// Makes a key of three versions, and data keys under each of them.
async fn generate_under(
    server: &Server,
    root: &Signer,
    id: &str,
    context: &Value,
    secrets: &mut Secrets,
    blobs: &mut Vec<String>,
) {
    let post =
        async |path: &str, body: Value| server.call_as(root, "POST", path, &body.to_string()).await;
    post("/kms/keys", json!({"key_id": id, "description": "d"}))
        .await
        .ok();
    for version in 1..=3 {
        for spec in ["AES_256", "AES_128"] {
            let body = json!({"key_id": id, "key_spec": spec, "encryption_context": context});
            let answer = post("/kms/generate-data-key", body).await;
            let plaintext = STANDARD.decode(answer.text("plaintext_key")).unwrap();
            secrets.push((format!("a data key of {id}.{version}"), plaintext));
            blobs.push(answer.text("ciphertext_blob"));
        }
        post("/kms/keys/rotate", json!({"key_id": id})).await.ok();
    }
}

/// Encrypts a text, and sends it in bodies that are cut off.
async fn encrypt(server: &Server, root: &Signer, text: &str) -> String {
    let text = STANDARD.encode(text);
    for broken in [
        r#"{"key_id":"k1","plaintext":"#,
        r#"{"key_id":"k1","plaintext":{"#,
    ] {
        let body = format!("{broken}\"{text}\"");
        let answer = server.call_as(root, "POST", "/kms/encrypt", &body).await;
        assert_eq!(answer.refusal().0, 400);
    }
    let body = json!({"key_id": "k1", "plaintext": text}).to_string();
    let answer = server.call_as(root, "POST", "/kms/encrypt", &body).await;
    answer.text("ciphertext_blob")
}

/// Opens and seals anew each ciphertext, with its context and with others.
async fn open_all(server: &Server, root: &Signer, blobs: &[String], context: &Value) {
    let http2 = Http2::new();
    for blob in blobs {
        for context in [context, &json!({}), &json!({"canary-name": "other"})] {
            let body = json!({"ciphertext_blob": blob, "encryption_context": context}).to_string();
            for path in ["/kms/decrypt", "/kms/rewrap"] {
                let first = server.call_as(root, "POST", path, &body).await;
                let request = signed_by(root, server, "POST", path, &body);
                assert_eq!(http2.send(server, request).await.status, first.status);
            }
        }
    }
}

/// Signs with an access key, in the header and in the query.
async fn sign_with(server: &Server, key: &Value) {
    let http2 = Http2::new();
    let request = signed_by(&signer(key), server, "GET", "/kms/keys/k1", "");
    http2.send(server, request).await.ok();
    let request = presigned_get(server, key, "/kms/keys/k1");
    server.send(request.clone()).await.unwrap().ok();
    http2.send(server, request).await.ok();
    let unknown = presigned_get(server, key, "/kms/keys/absent");
    assert_eq!(server.send(unknown).await.unwrap().status, 404);
}

/// The root key and the id of the deployment, out of the keyring's file.
async fn root_key(data_dir: &Path, passphrase: Option<&str>) -> (String, Vec<u8>) {
    let passphrase = passphrase.map(|text| text.as_bytes().to_vec().into());
    let random = Arc::new(SeededRandom::new(1));
    let secrets = FileSecrets::open(&data_dir.join("secrets"), passphrase, random).unwrap();
    let (keyring, _) = secrets.get("root-keyring").await.unwrap().unwrap();
    let keyring: Value = serde_json::from_slice(keyring.expose()).unwrap();
    let key = keyring["roots"][0]["key"].as_str().unwrap();
    (
        keyring["deployment"].as_str().unwrap().to_owned(),
        STANDARD.decode(key).unwrap(),
    )
}

/// Every master key in the table, unwrapped, by id and version.
fn master_keys(data_dir: &Path, deployment: &str, root: &[u8]) -> Secrets {
    let root = Key256::try_from(root).unwrap();
    let table = rusqlite::Connection::open(data_dir.join("keyway.db")).unwrap();
    let mut rows = table
        .prepare("SELECT value FROM records WHERE kind = 'key'")
        .unwrap();
    let values = rows.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    let mut keys = Vec::new();
    for value in values {
        let value = value.unwrap();
        // After its signature.
        let content = value.iter().position(|byte| *byte == b'{').unwrap();
        let record: Value = serde_json::from_slice(&value[content..]).unwrap();
        let id = record["id"].as_str().unwrap();
        for version in record["versions"].as_array().unwrap() {
            let number = version["version"].to_string();
            let context = [
                ("deployment", deployment),
                ("key_id", id),
                ("key_version", &number),
                ("origin", "KMS"),
            ];
            let context = context.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let context = EncryptionContext::from_pairs(context).unwrap();
            let wrapped = version["material"]["bytes"].as_str().unwrap();
            let wrapped = STANDARD.decode(wrapped).unwrap();
            let blob = Blob::parse(Purpose::Wrap, &wrapped).unwrap();
            let key = blob.open(&root, &context).unwrap();
            keys.push((format!("{id}.{number}"), key.expose().to_vec()));
        }
    }
    keys
}

/// Uses a server's secrets in every way, and then searches for them.
async fn life(passphrase: Option<&str>) {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let mut options = ServerOptions::default()
        .without_root()
        .argument("--log")
        .argument("trace");
    if let Some(passphrase) = passphrase {
        options = options.variable("KEYWAY_PASSPHRASE", passphrase);
    }
    let server = options.start(&data_dir).await;
    let shown = shown_root(&[&server]).await;
    let root_secret = shown["secret_access_key"].as_str().unwrap().to_owned();
    let root = signer(&shown);
    let mut keys = vec![shown];
    for life in [&[][..], &["--expires-in", "600"]] {
        let arguments = [&["--policy", "kms-admin"], life].concat();
        keys.push(access_key_by(&options, &data_dir, &arguments).await);
    }
    let Used {
        mut secrets,
        blob,
        plaintext,
    } = use_all(&server, &root, &keys).await;
    let running = kept(&data_dir);
    let (code, log, stderr) = server.stop().await;
    assert_eq!(code, Some(0));

    let (deployment, root_key) = root_key(&data_dir, passphrase).await;
    let master_keys = master_keys(&data_dir, &deployment, &root_key);
    assert_eq!(master_keys.len(), 2 * 4);
    // The server seals under these keys.
    let (_, first) = master_keys.iter().find(|(name, _)| name == "k1.1").unwrap();
    let context = [("canary-name", "canary-value-of-a-context"), ("n", "1")];
    let context = context.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let opened = Blob::parse(Purpose::Seal, &blob)
        .unwrap()
        .open(
            &Key256::try_from(first.as_slice()).unwrap(),
            &EncryptionContext::from_pairs(context).unwrap(),
        )
        .unwrap();
    assert_eq!(opened.expose(), plaintext);

    secrets.extend(master_keys);
    secrets.push(("the root key".to_owned(), root_key));
    if let Some(passphrase) = passphrase {
        secrets.push(("the passphrase".to_owned(), passphrase.as_bytes().to_vec()));
    }
    let scanner = Scanner::new(&secrets);
    let nothing = BTreeSet::new();
    let keyring_file = data_dir.join("secrets").join("root-keyring.secret");
    // Without a passphrase the root key is in the file, which also shows that the scanner finds it.
    let in_the_keyring = match passphrase {
        Some(_) => nothing.clone(),
        None => BTreeSet::from(["the root key".to_owned()]),
    };
    let names: Vec<_> = running.iter().map(|(path, _)| path).collect();
    assert!(
        names.contains(&&data_dir.join("keyway.db-wal")),
        "{names:?}"
    );
    for (path, content) in running.iter().chain(&kept(&data_dir)) {
        let expected = if *path == keyring_file {
            &in_the_keyring
        } else {
            &nothing
        };
        assert_eq!(scanner.find(content), *expected, "{}", path.display());
    }
    assert!(log.contains("keyway is serving"), "{log}");
    assert_eq!(scanner.find(log.as_bytes()), nothing, "{log}");
    assert_eq!(stderr.matches(&root_secret).count(), 1);
    let rest = stderr.replace(&root_secret, "");
    assert_eq!(scanner.find(rest.as_bytes()), nothing, "{stderr}");
}

#[tokio::test]
async fn data_folder_under_a_passphrase_holds_no_secret_in_the_clear() {
    life(Some("a passphrase that is long enough")).await;
}

#[tokio::test]
async fn data_folder_without_a_passphrase_has_the_root_key_in_the_keyring_only() {
    life(None).await;
}

#[tokio::test]
async fn root_secret_set_by_the_operator_is_not_kept() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    server.call("POST", "/kms/keys", &on("k")).await.ok();
    let secrets = vec![("the root's".to_owned(), b"test-root-secret".to_vec())];
    let scanner = Scanner::new(&secrets);
    let running = files(folder.path());
    let (_, log, stderr) = server.stop().await;
    for (path, content) in running.iter().chain(&files(folder.path())) {
        assert!(scanner.find(content).is_empty(), "{}", path.display());
    }
    assert!(scanner.find((log + &stderr).as_bytes()).is_empty());
}

/// Secrets that a caller may send and the server must not keep, as text.
const CANARIES: [(&str, &str); 7] = [
    ("a plaintext", "canary-among-the-plaintexts"),
    ("a message", "canary-among-the-messages"),
    ("a context's value", "canary-among-the-contexts"),
    ("an imported key", "canary-of-an-imported-key-32byte"),
    ("a token for Vault", "canary-of-a-token-for-vault"),
    ("a query", "canary-in-a-query"),
    ("a header", "canary-in-a-header"),
];

/// A body with a canary in every field of every route.
fn canary_body() -> String {
    let of = |what: &str| {
        let (_, canary) = CANARIES.iter().find(|(name, _)| *name == what).unwrap();
        *canary
    };
    let in_base64 = |what: &str| STANDARD.encode(of(what));
    let context = json!({"name": of("a context's value")});
    json!({
        "key_id": "k",
        "plaintext": in_base64("a plaintext"),
        "message": in_base64("a message"),
        "encryption_context": context,
        "context": STANDARD.encode(context.to_string()),
        "key": in_base64("an imported key"),
        "bytes": in_base64("an imported key"),
        "cipher": "AES256",
        "backend_type": "vault",
        "address": "http://127.0.0.1:9",
        "auth_method": {"Token": {"token": of("a token for Vault")}},
        "vault_token": of("a token for Vault"),
        "token": of("a token for Vault"),
    })
    .to_string()
}

/// Calls every route of both listeners with canaries in each part of a request: bodies that suit some routes and not
/// others, broken bodies, queries, headers, with and without a signature.
async fn send_canaries_everywhere(server: &Server, kes: &KesClient) -> usize {
    let http = |method: &str, path: &str, body: &str| {
        let request = http::Request::builder().method(method).uri(path);
        request.body(bytes::Bytes::from(body.to_owned())).unwrap()
    };
    let described = server.send(http("GET", "/openapi.json", "")).await.unwrap();
    let described = described.ok();
    let whole = canary_body();
    let broken = &whole[..whole.len() - 9];
    let mut sent = 0;
    for (path, methods) in described["paths"].as_object().unwrap() {
        let path = path.replace("{key_id}", "k").replace("{bucket}", "b");
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            for body in [whole.as_str(), broken, ""] {
                let target = format!("{path}?x=canary-in-a-query");
                let signed = server.signed(&method, &target, body);
                // A wrong key is only refused; this test ignores the answers.
                server.send(signed).await.unwrap();
                let mut unsigned = http(&method, &target, body);
                for name in [
                    "authorization",
                    "x-amz-security-token",
                    "x-canary",
                    "cookie",
                ] {
                    let value = http::HeaderValue::from_static("canary-in-a-header");
                    unsigned.headers_mut().insert(name, value);
                }
                server.send(unsigned).await.unwrap();
                sent += 2;
            }
        }
    }
    let apis = kes.call("GET", "/v1/api", None).await.ok();
    for api in apis.as_array().unwrap() {
        let path = api["path"].as_str().unwrap();
        if path.starts_with("/v1/log/") {
            continue;
        }
        let path = match path.strip_suffix('/') {
            Some(_) => format!("{path}k?x=canary-in-a-query"),
            None => format!("{path}?x=canary-in-a-query"),
        };
        for body in [whole.as_str(), broken, ""] {
            let headers = [("x-canary", "canary-in-a-header")];
            let method = api["method"].as_str().unwrap();
            kes.send(method, &path, &headers, Some(body)).await.unwrap();
            sent += 1;
        }
    }
    sent
}

#[tokio::test]
async fn secrets_sent_to_routes_are_kept_nowhere() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = kes::options()
        .argument("--log")
        .argument("trace")
        .start(&data_dir)
        .await;
    let admin = kes::admin(&server, &data_dir);
    // The first round has keys to seal and open with; in the second one they are gone, disabled, or imported.
    for name in ["k", "kept"] {
        let path = format!("/v1/key/import/{name}");
        let key = json!({"key": STANDARD.encode(CANARIES[3].1), "cipher": "AES256"});
        admin.call("POST", &path, Some(&key)).await;
    }
    let plaintext = json!({"plaintext": STANDARD.encode(CANARIES[0].1)});
    let sealed = admin
        .call("POST", "/v1/key/encrypt/kept", Some(&plaintext))
        .await
        .text("ciphertext");
    let opened = admin
        .call(
            "POST",
            "/v1/key/decrypt/kept",
            Some(&json!({"ciphertext": sealed})),
        )
        .await;
    assert_eq!(opened.text("plaintext"), plaintext["plaintext"]);
    let sent = send_canaries_everywhere(&server, &admin).await;
    assert!(sent > 500, "{sent}");
    // The routes have stopped the service, too.
    let metrics = http::Request::get("/metrics")
        .body(bytes::Bytes::new())
        .unwrap();
    let metrics = server.send(metrics).await.unwrap();
    assert_eq!(metrics.status, 200);
    let of_kes = admin.call("GET", "/v1/metrics", None).await;
    let running = kept(&data_dir);
    let (_, log, stderr) = server.stop().await;
    let secrets: Secrets = CANARIES
        .iter()
        .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
        .chain([("the root's".to_owned(), b"test-root-secret".to_vec())])
        .collect();
    let scanner = Scanner::new(&secrets);
    assert_eq!(
        scanner.find(canary_body().as_bytes()).len(),
        5,
        "it would be found"
    );
    let nothing = BTreeSet::new();
    for (what, content) in [
        ("the log", log.as_bytes()),
        ("stderr", stderr.as_bytes()),
        ("figures", &metrics.body),
        ("KES's figures", &of_kes.body),
    ] {
        assert_eq!(scanner.find(content), nothing, "{what}");
    }
    // The audit log is in both, and has each of them.
    assert!(log.matches("{\"audit\":2").count() > sent);
    for (path, content) in running.iter().chain(&kept(&data_dir)) {
        assert_eq!(scanner.find(content), nothing, "{}", path.display());
    }
}

#[tokio::test]
async fn panic_shows_no_secret() {
    const WAYS: [&str; 7] = [
        "message", "bounds", "length", "refused", "parsed", "task", "thread",
    ];
    const BODY: &str = "canary-that-is-32-bytes-in-a-row";
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = ServerOptions::example("panicking")
        .variable("KEYWAY_DATA_DIR", data_dir.to_str().unwrap())
        .variable("RUST_BACKTRACE", "full")
        .start_in_place()
        .await;
    server.call("POST", "/kms/keys", &on("k")).await.ok();
    for way in WAYS {
        let target = format!("/rustfs/admin/v3/panic/{way}?x=canary-in-a-query");
        let mut request = server.signed("POST", &target, BODY);
        let value = http::HeaderValue::from_static("canary-in-a-header");
        request.headers_mut().insert("x-canary", value);
        let answer = server.send(request).await.unwrap();
        assert_eq!(answer.status, 500, "{way}: {answer:?}");
        assert!(!answer.body.windows(6).any(|part| part == b"canary"));
        // It serves on.
        server
            .call("POST", "/kms/generate-data-key", &on("k"))
            .await
            .ok();
    }
    let metrics = http::Request::get("/metrics")
        .body(bytes::Bytes::new())
        .unwrap();
    let metrics = server.send(metrics).await.unwrap();
    let running = kept(&data_dir);
    let (code, log, stderr) = server.stop().await;
    assert_eq!(code, Some(0), "{stderr}");
    // Each was one, and where it was meant to be; those of the task and the thread also where they are waited for.
    let panics = stderr
        .matches("panicked at tests/panicking/main.rs")
        .count();
    assert_eq!(panics, WAYS.len() + 2, "{stderr}");
    assert!(stderr.contains("stack backtrace"), "{stderr}");
    let told = log.matches(r#""status":500,"#).count();
    assert_eq!(log.matches(r#""error":"panicked""#).count(), told);
    assert_eq!(told, WAYS.len(), "{log}");

    let (deployment, root_key) = root_key(&data_dir, None).await;
    let mut secrets = master_keys(&data_dir, &deployment, &root_key);
    assert_eq!(secrets.len(), 1);
    secrets.push(("the root key".to_owned(), root_key));
    for (name, text) in [
        ("the root's", "test-root-secret"),
        ("a body, a plaintext, a key", BODY),
        ("a query", "canary-in-a-query"),
        ("a header", "canary-in-a-header"),
    ] {
        secrets.push((name.to_owned(), text.as_bytes().to_vec()));
    }
    let scanner = Scanner::new(&secrets);
    assert_eq!(scanner.find(BODY.as_bytes()).len(), 1, "it would be found");
    let nothing = BTreeSet::new();
    for (what, content) in [
        ("the log", log.as_bytes()),
        ("stderr", stderr.as_bytes()),
        ("figures", &metrics.body),
    ] {
        assert_eq!(scanner.find(content), nothing, "{what}");
    }
    let keyring = data_dir.join("secrets").join("root-keyring.secret");
    for (path, content) in running.iter().chain(&kept(&data_dir)) {
        // Which has no passphrase.
        if *path != keyring {
            assert_eq!(scanner.find(content), nothing, "{}", path.display());
        }
    }
}
