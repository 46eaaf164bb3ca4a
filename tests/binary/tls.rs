//! `keyway serve --tls-cert --tls-key`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use keyway_tests::{Answer, Server, ServerOptions};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::raw::signed;
use crate::{data_dir, eventually, folder, on};

/// Writes a certificate and its key; returns the certificate.
pub(crate) fn pair(folder: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

/// Makes a request over a new TLS connection; the server must show this certificate.
async fn ask(
    server: &Server,
    trusted: &CertificateDer<'static>,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Answer, String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(&server.address).await.unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
        .map_err(|error| error.to_string())?;
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = signed(server, method, path, body).map(Full::new);
    let response = send.send_request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = http_body_util::BodyExt::collect(body).await.unwrap();
    driver.abort();
    Ok(http::Response::from_parts(parts, body.to_bytes()).into())
}

#[tokio::test]
async fn listener_for_other_machines_needs_tls() {
    let folder = folder();
    let first = pair(folder.path());
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let server = ServerOptions::default()
        .argument("--listen")
        .argument("0.0.0.0:0")
        .argument("--tls-cert")
        .argument(&file("cert.pem"))
        .variable("KEYWAY_TLS_KEY", &file("key.pem"))
        .start(&data_dir(&folder))
        .await;
    assert_eq!(server.first_line()["tls"], true);
    let made = ask(&server, &first, "POST", "/kms/keys", &on("k")).await;
    made.unwrap().ok();
    // Plain HTTP gets an answer that names TLS.
    let plain = server.call("GET", "/kms/keys/k", "").await;
    assert_eq!(plain.status, 400);

    // An unusable certificate is logged and changes nothing.
    std::fs::write(file("key.pem"), "nonsense").unwrap();
    server.signal("HUP");
    eventually("it is logged", async || {
        server.log().contains("the one before stays").then_some(())
    })
    .await;
    let answer = ask(&server, &first, "GET", "/kms/keys/k", "").await;
    answer.unwrap().ok();

    let second = pair(folder.path());
    server.signal("HUP");
    let answer = eventually("the new one is served with", async || {
        ask(&server, &second, "GET", "/kms/keys/k", "").await.ok()
    });
    answer.await.ok();
    ask(&server, &first, "GET", "/kms/keys/k", "")
        .await
        .unwrap_err();
    let (code, log, stderr) = server.stop().await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{log}");
    assert!(!log.contains("PRIVATE"), "{log}");
}

#[tokio::test]
async fn certificate_without_its_key_is_refused() {
    let folder = folder();
    pair(folder.path());
    let cert = folder.path().join("cert.pem");
    for option in ["--tls-cert", "--tls-key"] {
        let options = ServerOptions::default()
            .argument(option)
            .argument(cert.to_str().unwrap());
        let (code, stderr) = options.fail(&data_dir(&folder)).await;
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains("--tls-"), "{stderr}");
    }
    assert!(!data_dir(&folder).exists(), "nothing was begun");
    let mode = std::fs::metadata(folder.path()).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o700);
}
