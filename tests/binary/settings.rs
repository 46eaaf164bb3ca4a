//! Settings as compose files, templates and users of other servers write them.

use std::path::Path;

use keyway_tests::{Server, ServerOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{access_key, create, data_dir, eventually, folder};

fn listening(address: &str) -> ServerOptions {
    ServerOptions::default()
        .argument("--listen")
        .argument(address)
}

fn port(server: &Server) -> u16 {
    let (_, port) = server.address.rsplit_once(':').unwrap();
    port.parse().unwrap()
}

/// The answer to a GET that is sent to this address.
async fn get(address: (&str, u16), path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn listen_address_with_a_name_or_without_a_host_is_resolved() {
    let folder = folder();
    for (address, begins) in [
        ("localhost:0", &["127.0.0.1:", "[::1]:"][..]),
        ("[::ffff:127.0.0.1]:0", &["127.0.0.1:"]),
    ] {
        let server = listening(address).start(&data_dir(&folder)).await;
        assert!(
            begins.iter().any(|begin| server.address.starts_with(begin)),
            "{address} {}",
            server.address
        );
        server.call("GET", "/kms/keys", "").await.ok();
        assert_eq!(server.stop().await.0, Some(0));
    }
    for address in [":0", "[::ffff:0.0.0.0]:0", "[::ffff:192.0.2.1]:0"] {
        let (code, stderr) = listening(address).fail(&data_dir(&folder)).await;
        assert_eq!(code, Some(1), "{address} {stderr}");
        assert!(stderr.contains("is not loopback"), "{address} {stderr}");
    }
    for address in ["9000", "localhost", "::1:9000"] {
        let (code, stderr) = listening(address).fail(&data_dir(&folder)).await;
        assert_eq!(code, Some(2), "{address} {stderr}");
        assert!(stderr.contains("localhost:9000 or :9000"), "{stderr}");
    }
    let kes = |address| {
        ServerOptions::default()
            .argument("--kes-listen")
            .argument(address)
    };
    let server = kes("localhost:0").start(&data_dir(&folder)).await;
    assert!(server.kes().ip().is_loopback());
    assert_eq!(server.stop().await.0, Some(0));
    let (code, stderr) = kes(":0").fail(&data_dir(&folder)).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("--kes-listen :0 is not loopback"),
        "{stderr}"
    );
}

#[tokio::test]
async fn peer_with_an_ipv4_mapped_address_is_its_ipv4_address() {
    let folder = folder();
    let server = listening(":0")
        .argument("--insecure-http")
        .start(folder.path())
        .await;
    let address = ("127.0.0.1", port(&server));
    let metrics = get(address, "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    get(address, "/rustfs/admin/v3/kms/keys").await;
    eventually("the request is audited", async || {
        let log = server.log();
        log.contains(r#""address":"127.0.0.1""#).then_some(())
    })
    .await;
    assert!(!server.log().contains("ffff"), "{}", server.log());
}

#[tokio::test]
async fn hangup_without_tls_leaves_the_server_running() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    for _ in 0..3 {
        server.signal("HUP");
    }
    create(&server, "k").await;
    assert_eq!(server.stop().await.0, Some(0));
}

#[tokio::test]
async fn variable_that_is_empty_counts_as_not_set() {
    let folder = folder();
    let (_, help, _) = ServerOptions::default().run(&["serve", "--help"]).await;
    let is_variable = |name: &&str| name.len() > 7 && name.starts_with("KEYWAY_");
    let variables: Vec<_> = help
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(is_variable)
        .collect();
    assert!(variables.len() > 30, "{variables:?}");
    let mut options = ServerOptions::default();
    for name in variables {
        let is_secret = name.contains("PASSPHRASE") || name.starts_with("KEYWAY_ROOT_");
        // The harness sets these itself.
        let is_given = ["KEYWAY_LISTEN", "KEYWAY_DATA_DIR"].contains(&name);
        if !is_secret && !is_given {
            options = options.variable(name, "");
        }
    }
    let server = options
        .variable("AWS_REGION", "")
        .start(folder.path())
        .await;
    assert_eq!(server.first_line()["status"], "Running");
    create(&server, "k").await;
    assert_eq!(server.stop().await.0, Some(0));
    // The operator's commands check it too.
    let data_dir = folder.path().to_str().unwrap();
    let (code, _, stderr) = ServerOptions::default()
        .variable("AWS_REGION", "")
        .variable("KEYWAY_TABLE", "")
        .run(&["access-key", "list", "--data-dir", data_dir])
        .await;
    assert_eq!(code, Some(0), "{stderr}");
}

#[tokio::test]
async fn secret_that_is_set_and_empty_is_refused_by_its_name() {
    let folder = folder();
    for name in [
        "KEYWAY_PASSPHRASE",
        "KEYWAY_PASSPHRASE_FILE",
        "KEYWAY_ROOT_ACCESS_KEY",
        "KEYWAY_ROOT_SECRET_KEY",
    ] {
        let options = ServerOptions::default().variable(name, "");
        let (code, stderr) = options.fail(&data_dir(&folder)).await;
        assert_eq!(code, Some(1), "{name} {stderr}");
        let text = format!("{name} is set and empty: give it a value, or unset it");
        assert!(stderr.contains(&text), "{stderr}");
        let keyring = data_dir(&folder).join("root-keyring.secret");
        assert!(name.contains("ROOT_") || !keyring.exists(), "{name}");
    }
    let store = ServerOptions::default()
        .variable("KEYWAY_S3_ENDPOINT", "http://127.0.0.1:1")
        .variable("KEYWAY_S3_ACCESS_KEY_ID", "")
        .variable("KEYWAY_S3_SECRET_ACCESS_KEY", "");
    let (code, stderr) = store.fail(&data_dir(&folder)).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("KEYWAY_S3_ACCESS_KEY_ID is set and empty"),
        "{stderr}"
    );
}

#[tokio::test]
async fn log_level_that_is_unknown_is_refused_with_the_known_ones() {
    let folder = folder();
    for level in ["verbose", "infos", "keyway"] {
        let options = ServerOptions::default().variable("KEYWAY_LOG", level);
        let (code, stderr) = options.fail(&data_dir(&folder)).await;
        assert_eq!(code, Some(1), "{stderr}");
        for word in [
            "KEYWAY_LOG",
            level,
            "error, warn, info, debug, trace or off",
        ] {
            assert!(stderr.contains(word), "{word}: {stderr}");
        }
    }
    let function = ServerOptions::function("keyway-fn-all").variable("KEYWAY_LOG", "verbose");
    let (code, _, stderr) = function.run(&[]).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("KEYWAY_LOG") && stderr.contains("`verbose` is no level"),
        "{stderr}"
    );
}

/// The access key's lines as a shell would evaluate them.
async fn printed(data_dir: &Path, more: &[&str]) -> String {
    let folder = data_dir.to_str().unwrap();
    let all = [
        &[
            "access-key",
            "create",
            "--policy",
            "kms-admin",
            "--output",
            "env",
            "--data-dir",
            folder,
        ],
        more,
    ]
    .concat();
    let (code, stdout, stderr) = ServerOptions::default().run(&all).await;
    assert_eq!(code, Some(0), "{stderr}");
    stdout
}

#[tokio::test]
async fn access_key_for_a_shell_leaves_no_session_token_of_another() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    let permanent = printed(folder.path(), &[]).await;
    assert!(
        permanent.ends_with("\nunset AWS_SESSION_TOKEN\n"),
        "{permanent}"
    );
    let temporary = printed(folder.path(), &["--expires-in", "600"]).await;
    assert!(
        temporary.contains("\nexport AWS_SESSION_TOKEN="),
        "{temporary}"
    );
    assert!(!temporary.contains("unset"), "{temporary}");

    // A session token of another key is refused by its name, after the signature is verified.
    let key = access_key(folder.path(), &["--policy", "kms-admin"]).await;
    let text = |name: &str| key[name].as_str().unwrap().to_owned();
    let (id, secret) = (text("access_key_id"), text("secret_access_key"));
    let signer = keyway_tests::Signer::new(&id, &secret).with_token("left-over");
    for (method, path, body) in [
        ("GET", "/kms/keys", ""),
        ("POST", "/kms/keys", r#"{"key_id":"k"}"#),
    ] {
        let refused = server.call_as(&signer, method, path, body).await;
        assert_eq!(refused.refusal(), (401, "AccessDenied".to_owned()));
        assert!(
            refused.message().contains("unsetting AWS_SESSION_TOKEN"),
            "{refused:?}"
        );
    }
    let other = keyway_tests::Signer::new(&id, "another secret").with_token("left-over");
    let refused = server.call_as(&other, "GET", "/kms/keys", "").await;
    assert!(
        refused.message().contains("the signature does not match"),
        "{refused:?}"
    );
    assert_eq!(server.call("GET", "/kms/keys/k", "").await.status, 404);
}
