//! A client of KES's API that sends what the official SDKs send: POST for everything but HMACs, bodies without a declared
//! length, `%2A` for an asterisk, no slash behind an empty prefix, and a retry after a 503.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, USER_AGENT};
use keyway_auth::certificate::ApiKey;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use reqwest::{Body, Client, ClientBuilder, Method};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use crate::{Answer, Described};

/// A client's certificate and key.
pub struct KesIdentity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl KesIdentity {
    /// A new certificate of an API key, as every client makes one when it starts.
    pub fn of_api_key(text: &str) -> Self {
        let key = ApiKey::parse(text).expect("an API key");
        let der = key.expose_pkcs8().to_vec();
        let pair = KeyPair::try_from(der.as_slice()).expect("a key");
        let name = key.identity().expect("an identity").to_string();
        Self {
            certificate: certificate(&pair, &name),
            key: PrivateKeyDer::Pkcs8(der.into()),
        }
    }

    /// A new certificate of an ECDSA key on P-256.
    pub fn ecdsa() -> Self {
        let pair = KeyPair::generate().expect("a key");
        Self {
            certificate: certificate(&pair, "ecdsa"),
            key: PrivateKeyDer::Pkcs8(pair.serialize_der().into()),
        }
    }

    /// The identity by which servers know it.
    pub fn name(&self) -> String {
        let identity = keyway_auth::certificate::Identity::of_chain([self.certificate.as_ref()]);
        identity.expect("an identity").to_string()
    }

    /// Its certificate in DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The TLS settings for it, which trust the server with this certificate only.
    pub fn tls(&self, server: CertificateDer<'static>) -> ClientConfig {
        trusting(server)
            .with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key())
            .expect("a certificate and its key")
    }
}

fn certificate(pair: &KeyPair, name: &str) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    let made = params.self_signed(pair).expect("a certificate");
    made.der().clone()
}

fn trusting(
    server: CertificateDer<'static>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(server).expect("a certificate");
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_root_certificates(roots)
}

/// A client of one server.
pub struct KesClient {
    address: SocketAddr,
    client: Client,
}

/// How long a client waits before it tries again.
const BACKOFF: Duration = Duration::from_millis(200);

impl KesClient {
    /// A client with these credentials, of the server with this certificate.
    pub fn new(address: SocketAddr, server: CertificateDer<'static>, who: &KesIdentity) -> Self {
        Self::over(address, who.tls(server), Client::builder())
    }

    /// Like [`KesClient::new`], with HTTP/1.1 only.
    pub fn http1(address: SocketAddr, server: CertificateDer<'static>, who: &KesIdentity) -> Self {
        Self::over(address, who.tls(server), Client::builder().http1_only())
    }

    /// A client without a certificate.
    pub fn nobody(address: SocketAddr, server: CertificateDer<'static>) -> Self {
        let tls = trusting(server).with_no_client_auth();
        Self::over(address, tls, Client::builder())
    }

    fn over(address: SocketAddr, tls: ClientConfig, builder: ClientBuilder) -> Self {
        let builder = builder
            .tls_backend_preconfigured(tls)
            .resolve("localhost", address)
            .no_proxy();
        Self {
            address,
            client: builder.build().expect("a client"),
        }
    }

    /// Sends a request as it is given. The answer must be one that is described.
    ///
    /// # Errors
    /// The client's error.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Result<Answer, String> {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let asked = http::Request::builder().method(&method).uri(path);
        let asked = asked.body(Bytes::copy_from_slice(body.unwrap_or_default().as_bytes()));
        let url = format!("https://localhost:{}{path}", self.address.port());
        let mut request = self.client.request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            let chunks: Vec<Result<Bytes, std::convert::Infallible>> = body
                .as_bytes()
                .chunks(37)
                .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
                .collect();
            request = request.body(Body::wrap_stream(stream::iter(chunks)));
        }
        let response = request.send().await.map_err(|error| format!("{error:?}"))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await;
        let answer = Answer {
            status,
            headers,
            body: body.map_err(|error| format!("{error:?}"))?,
        };
        if let Err(said) = Described::committed().check_kes(&asked.expect("a request"), &answer) {
            panic!("{said}");
        }
        Ok(answer)
    }

    /// Calls as the SDK does: a body is JSON but for HMACs, and a 503 is retried twice.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let mut headers = vec![(USER_AGENT.as_str(), "Go-http-client/2.0")];
        if body.is_some() && !path.starts_with("/v1/key/hmac/") {
            headers.push((CONTENT_TYPE.as_str(), "application/json"));
        }
        headers.push(("accept-encoding", "gzip"));
        let body = body.map(Value::to_string);
        let mut tries = 0;
        loop {
            let answer = self.send(method, path, &headers, body.as_deref()).await;
            let again = answer.as_ref().map_or(true, |answer| answer.status == 503);
            if !again || tries == 2 {
                return answer.expect("the server answers");
            }
            tries += 1;
            tokio::time::sleep(BACKOFF).await;
        }
    }
}

/// The status and message of a refusal, by which an SDK tells errors apart.
pub fn kes_error(answer: &Answer) -> (u16, String) {
    let kind = answer.header("content-type").unwrap_or_default();
    let message = if kind.starts_with("application/json") {
        answer.message()
    } else {
        String::from_utf8_lossy(&answer.body).trim_end().to_owned()
    };
    (answer.status.as_u16(), message)
}
