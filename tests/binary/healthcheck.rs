//! `keyway healthcheck`.

use keyway_tests::{Server, ServerOptions};

use crate::tls::pair;
use crate::{data_dir, folder};

/// Runs the command: exit code and stderr.
async fn check(options: &ServerOptions, arguments: &[&str]) -> (Option<i32>, String) {
    let arguments = [&["healthcheck"], arguments].concat();
    let (code, stdout, stderr) = options.run(&arguments).await;
    assert_eq!(stdout, "");
    (code, stderr)
}

/// A server that listens on every address, and its port with a colon.
async fn everywhere(options: ServerOptions, folder: &std::path::Path) -> (Server, String) {
    let options = options.argument("--listen").argument(":0");
    let server = options.start(folder).await;
    let (_, port) = server.address.rsplit_once(':').unwrap();
    let listen = format!(":{port}");
    (server, listen)
}

#[tokio::test]
async fn server_that_is_ready_passes() {
    let folder = folder();
    let options = ServerOptions::default().argument("--insecure-http");
    let (server, listen) = everywhere(options, &data_dir(&folder)).await;
    let plain = ServerOptions::default();
    let passes = (Some(0), String::new());
    assert_eq!(check(&plain, &["--listen", &listen]).await, passes);
    let by_variable = ServerOptions::default().variable("KEYWAY_LISTEN", &listen);
    assert_eq!(check(&by_variable, &[]).await, passes);
    server.stop().await;
    let (code, stderr) = check(&plain, &["--listen", &listen]).await;
    assert_eq!(code, Some(1));
    let expected = format!("keyway: {listen} cannot be asked: ");
    assert!(stderr.starts_with(&expected), "{stderr}");
}

#[tokio::test]
async fn server_that_is_not_configured_is_live_and_not_ready() {
    let folder = folder();
    let server = ServerOptions::not_started().start(&data_dir(&folder)).await;
    let address = server.address.clone();
    let plain = ServerOptions::default();
    let (code, stderr) = check(&plain, &["--listen", &address]).await;
    let expected = format!("keyway: {address} is not ready: /health/ready answers 503\n");
    assert_eq!((code, stderr), (Some(1), expected));
    let live = check(&plain, &["--listen", &address, "--live"]).await;
    assert_eq!(live, (Some(0), String::new()));
}

#[tokio::test]
async fn listener_with_tls_must_have_the_certificate() {
    let folder = folder();
    pair(folder.path());
    let other = crate::folder();
    pair(other.path());
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let options = ServerOptions::default()
        .variable("KEYWAY_TLS_CERT", &file("cert.pem"))
        .variable("KEYWAY_TLS_KEY", &file("key.pem"));
    let (server, listen) = everywhere(options, &data_dir(&folder)).await;
    // The server's own variables are enough.
    let same = ServerOptions::default()
        .variable("KEYWAY_LISTEN", &listen)
        .variable("KEYWAY_TLS_CERT", &file("cert.pem"));
    assert_eq!(check(&same, &[]).await, (Some(0), String::new()));
    let wrong = other.path().join("cert.pem");
    let wrong = ["--listen", &listen, "--tls-cert", wrong.to_str().unwrap()];
    let (code, stderr) = check(&ServerOptions::default(), &wrong).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("cannot be asked"), "{stderr}");
    // Plain HTTP is answered with a refusal.
    let (code, stderr) = check(&ServerOptions::default(), &["--listen", &listen]).await;
    assert_eq!(code, Some(1), "{stderr}");
    let missing = ["--listen", &listen, "--tls-cert", "/nowhere/cert.pem"];
    let (code, stderr) = check(&ServerOptions::default(), &missing).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("/nowhere/cert.pem"), "{stderr}");
    assert_eq!(server.stop().await.0, Some(0));
}

#[tokio::test]
async fn server_that_does_not_answer_fails_in_time() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let arguments = ["--listen", &address, "--timeout", "200ms"];
    let (code, stderr) = check(&ServerOptions::default(), &arguments).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("has not answered in time"), "{stderr}");
}
