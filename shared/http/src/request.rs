use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method};

use crate::memory::Connection;

/// One request, with path and query exactly as sent: signatures cover those bytes, so nothing may be decoded or
/// normalised before verification.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path as sent, percent-encoding and dot segments included; begins with `/`.
    pub raw_path: String,
    /// The query as sent, without the `?`; empty when there is none.
    pub raw_query: String,
    /// Every header, repeated ones included.
    pub headers: HeaderMap,
    /// The whole body, within the route's limit; empty until the caller is authenticated.
    pub body: Bytes,
    /// What the runtime knows of the other end of the connection.
    pub peer: Peer,
}

impl Request {
    /// The scheme and host of the request. `None` without a valid Host header.
    pub fn origin(&self) -> Option<String> {
        let host = self.headers.get(HOST)?.to_str().ok()?;
        let scheme = if self.peer.encrypted { "https" } else { "http" };
        Some(format!("{scheme}://{host}"))
    }
}

/// What a runtime knows of the connection's other end. Nothing here comes from the request that the client wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The address, never an IPv4-mapped one.
    pub address: IpAddr,
    /// Whether the connection is encrypted as far as this process, or as far as a gateway that vouches for it.
    pub encrypted: bool,
    /// The client's certificates, if it sent any.
    pub client_certificate: Option<ClientCertificate>,
    /// The IAM caller that a gateway verified.
    pub iam_caller: Option<IamCaller>,
    /// State that it shares with the other requests of its connection.
    pub connection: Connection,
}

/// The certificates that a client sent, its own first. This process or a gateway verified that the client has the key
/// of the first. The others are unverified, and no authority need have signed any of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ClientCertificate {
    /// In DER, as a TLS handshake carries them.
    Der(Arc<[Bytes]>),
    /// In PEM, as gateways write them.
    Pem(Arc<str>),
}

impl ClientCertificate {
    /// The length of all of them, in bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Der(chain) => chain.iter().map(Bytes::len).sum(),
            Self::Pem(text) => text.len(),
        }
    }
}

/// An IAM caller that API Gateway verified, as it reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IamCaller {
    /// The user's or assumed role's ARN.
    pub arn: String,
    /// The account's id.
    pub account_id: String,
    /// The access key that signed.
    pub access_key_id: String,
}

impl Peer {
    /// A peer of which only the address is known. An IPv4-mapped IPv6 address, as a dual-stack socket reports it, becomes
    /// its IPv4 address, so that the checks for loopback and trusted proxies and the audit log see only that.
    pub const fn new(address: IpAddr, encrypted: bool) -> Self {
        Self {
            address: address.to_canonical(),
            encrypted,
            client_certificate: None,
            iam_caller: None,
            connection: Connection::NONE,
        }
    }

    /// Whether the connection is safe from reading and tampering: TLS, or loopback.
    pub fn is_private(&self) -> bool {
        self.encrypted || self.address.is_loopback()
    }
}

/// In a request's extensions: the base path that a gateway added to the paths of this site, such as `/prod` for a stage.
/// Signatures cover it; routes do not contain it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasePath(pub String);
