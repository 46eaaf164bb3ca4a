//! HTTP beyond the harness's client: raw bytes, HTTP/2, presigned requests.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use keyway_tests::{Answer, Server, Signer};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wall_clock;

/// A connection that sends raw bytes.
pub(crate) struct Connection(TcpStream);

impl Connection {
    pub(crate) async fn open(server: &Server) -> Self {
        Self(TcpStream::connect(&server.address).await.unwrap())
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends as many bytes as the server accepts.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.ok();
    }

    /// Reads until the bytes end with `end`.
    pub(crate) async fn read_until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        while !read.ends_with(end.as_bytes()) {
            let byte = tokio::time::timeout(TIMEOUT, self.0.read_u8()).await;
            let so_far = || String::from_utf8_lossy(&read).into_owned();
            read.push(
                byte.unwrap_or_else(|_| panic!("no {end:?} in {}", so_far()))
                    .unwrap_or_else(|error| panic!("{error} after {}", so_far())),
            );
        }
        String::from_utf8(read).unwrap()
    }

    /// Reads until the server closes the connection.
    pub(crate) async fn read_to_end(mut self) -> String {
        let mut read = Vec::new();
        let end = tokio::time::timeout(TIMEOUT, self.0.read_to_end(&mut read)).await;
        end.expect("the server closes the connection").unwrap();
        String::from_utf8(read).unwrap()
    }
}

const TIMEOUT: Duration = Duration::from_secs(20);

/// A request's head as bytes, with these headers added.
pub(crate) fn head(request: &Request<Bytes>, more: &str) -> String {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        head += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    format!(
        "{head}content-length: {}\r\n{more}\r\n",
        request.body().len()
    )
}

/// A request that root signs now; `path` is below the prefix.
pub(crate) fn signed(server: &Server, method: &str, path: &str, body: &str) -> Request<Bytes> {
    signed_by(server.root(), server, method, path, body)
}

/// As [`signed`], by this signer.
pub(crate) fn signed_by(
    signer: &Signer,
    server: &Server,
    method: &str,
    path: &str,
    body: &str,
) -> Request<Bytes> {
    let path = format!("/rustfs/admin/v3{path}");
    signer.request(
        method,
        &server.address,
        &path,
        body.as_bytes(),
        wall_clock(),
    )
}

/// A client that speaks HTTP/2 with prior knowledge.
pub(crate) struct Http2(Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>);

impl Http2 {
    pub(crate) fn new() -> Self {
        Self(
            Client::builder(TokioExecutor::new())
                .http2_only(true)
                .build_http(),
        )
    }

    pub(crate) async fn send(&self, server: &Server, request: Request<Bytes>) -> Answer {
        let (mut parts, body) = request.into_parts();
        parts.uri = format!("http://{}{}", server.address, parts.uri)
            .parse()
            .unwrap();
        parts.version = http::Version::HTTP_2;
        // HTTP/2 has the host in the target only.
        parts.headers.remove("host");
        let request = Request::from_parts(parts, Full::new(body));
        let response = self.0.request(request).await.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        http::Response::from_parts(parts, body).into()
    }
}

/// A GET of `path`, below the prefix, whose signature is in the query; `key` is an access key's JSON.
pub(crate) fn presigned_get(server: &Server, key: &Value, path: &str) -> Request<Bytes> {
    let text = |name: &str| key[name].as_str().unwrap().to_owned();
    let token = key["session_token"].as_str().map(str::to_owned);
    let identity = Credentials::new(
        text("access_key_id"),
        text("secret_access_key"),
        token,
        None,
        "keyway-tests",
    )
    .into();
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(Duration::from_secs(300));
    let params = SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("execute-api")
        .time(wall_clock())
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let uri = format!("http://{}/rustfs/admin/v3{path}", server.address);
    let headers = [("host", server.address.as_str())];
    let signable = SignableRequest::new("GET", &uri, headers.into_iter(), SignableBody::Bytes(b""));
    let (instructions, _) = sign(signable.unwrap(), &params).unwrap().into_parts();
    let mut request = Request::get(uri).body(Bytes::new()).unwrap();
    instructions.apply_to_request_http1x(&mut request);
    let (mut parts, body) = request.into_parts();
    parts.uri = parts
        .uri
        .path_and_query()
        .unwrap()
        .as_str()
        .parse()
        .unwrap();
    parts
        .headers
        .insert("host", server.address.parse().unwrap());
    Request::from_parts(parts, body)
}
