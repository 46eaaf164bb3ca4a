//! A client that follows the rules of Kubernetes' API server for KMS v2. Its messages and its gRPC are the tests' own.

use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;

/// Codes of gRPC.
pub(crate) const INVALID_ARGUMENT: u32 = 3;
pub(crate) const NOT_FOUND: u32 = 5;
pub(crate) const PERMISSION_DENIED: u32 = 7;
pub(crate) const FAILED_PRECONDITION: u32 = 9;
pub(crate) const OUT_OF_RANGE: u32 = 11;
pub(crate) const UNIMPLEMENTED: u32 = 12;
pub(crate) const UNAVAILABLE: u32 = 14;

/// What API servers store at most, in bytes.
const LONGEST: usize = 1024;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Nothing {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(string, tag = "1")]
    pub(crate) version: String,
    #[prost(string, tag = "2")]
    pub(crate) healthz: String,
    #[prost(string, tag = "3")]
    pub(crate) key_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Plaintext {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
}

/// What an API server keeps in etcd beside a secret, and sends to have it decrypted.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Stored {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
    #[prost(string, tag = "3")]
    pub(crate) key_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct Encrypted {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(map = "string, bytes", tag = "3")]
    annotations: std::collections::HashMap<String, Vec<u8>>,
}

/// A refusal: gRPC's code and the text.
#[derive(Debug, PartialEq)]
pub(crate) struct Refused(pub(crate) u32, pub(crate) String);

/// An API server's connection to a plugin.
pub(crate) struct ApiServer(SendRequest<Full<Bytes>>);

impl ApiServer {
    pub(crate) async fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).await.unwrap();
        let io = TokioIo::new(stream);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// One call of gRPC, which must answer within the 3 seconds of API servers, here 20.
    pub(crate) async fn call<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<A, Refused> {
        let message = request.encode_to_vec();
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).unwrap());
        body.extend_from_slice(&message);
        let request = http::Request::post(format!("http://localhost/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(body.freeze()))
            .unwrap();
        let answer = self.0.clone().send_request(request);
        let limit = std::time::Duration::from_secs(20);
        let answer = tokio::time::timeout(limit, answer)
            .await
            .expect("it answers");
        let (head, body) = answer.unwrap().into_parts();
        assert_eq!(head.status, 200);
        let body = body.collect().await.unwrap();
        let ended = body.trailers().unwrap_or(&head.headers).clone();
        let text = |name: &str| ended.get(name).map(|value| value.to_str().unwrap());
        match text("grpc-status") {
            Some("0") => {}
            code => {
                let message = text("grpc-message").unwrap_or_default();
                let message = percent_decoded(message);
                return Err(Refused(code.unwrap().parse().unwrap(), message));
            }
        }
        let bytes = body.to_bytes();
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
        assert_eq!((bytes[0], length as usize), (0, bytes.len() - 5));
        Ok(A::decode(&bytes[5..]).unwrap())
    }

    pub(crate) async fn status(&self) -> Status {
        let method = "v2.KeyManagementService/Status";
        let status: Status = self.call(method, &Nothing {}).await.unwrap();
        assert_eq!(status.version, "v2");
        // API servers act on the key id of a plugin that is not healthy too.
        let is_named = (1..=LONGEST).contains(&status.key_id.len());
        assert_eq!(is_named, status.healthz == "ok", "{status:?}");
        status
    }

    /// The key id of a plugin that must be healthy.
    pub(crate) async fn healthy(&self) -> String {
        let status = self.status().await;
        assert_eq!(status.healthz, "ok");
        status.key_id
    }

    /// Why the plugin is not healthy.
    pub(crate) async fn unhealthy(&self) -> String {
        let status = self.status().await;
        assert_ne!(status.healthz, "ok");
        status.healthz
    }

    pub(crate) async fn encrypt(&self, plaintext: &[u8]) -> Result<Stored, Refused> {
        let request = Plaintext {
            plaintext: plaintext.to_vec(),
            uid: "uid-of-encrypt".to_owned(),
        };
        let method = "v2.KeyManagementService/Encrypt";
        let made: Encrypted = self.call(method, &request).await?;
        assert!((1..=LONGEST).contains(&made.key_id.len()), "{made:?}");
        assert!((1..=LONGEST).contains(&made.ciphertext.len()), "{made:?}");
        assert!(made.annotations.is_empty());
        Ok(Stored {
            ciphertext: made.ciphertext,
            uid: "uid-of-decrypt".to_owned(),
            key_id: made.key_id,
        })
    }

    pub(crate) async fn decrypt(&self, stored: &Stored) -> Result<Vec<u8>, Refused> {
        let method = "v2.KeyManagementService/Decrypt";
        let opened: Plaintext = self.call(method, stored).await?;
        Ok(opened.plaintext)
    }

    /// As at a start and at each change of the key id: has a new seed encrypted, whose key id must be that of `Status`.
    pub(crate) async fn rotated(&self, seed: &[u8; 32]) -> Stored {
        let key_id = self.healthy().await;
        let stored = self.encrypt(seed).await.unwrap();
        assert_eq!(stored.key_id, key_id);
        assert_eq!(self.decrypt(&stored).await.unwrap(), seed);
        stored
    }
}

fn percent_decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}
