use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method};

use crate::memory::Connection;

/// One request, its path and query exactly as they stood on the wire: signatures are over those bytes, so nothing may be
/// decoded or normalised before.
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
    /// What the runtime knows of the other end.
    pub peer: Peer,
}

impl Request {
    /// The scheme and host that the client asked; none where it names no host.
    pub fn origin(&self) -> Option<String> {
        let host = self.headers.get(HOST)?.to_str().ok()?;
        let scheme = if self.peer.encrypted { "https" } else { "http" };
        Some(format!("{scheme}://{host}"))
    }
}

/// What a runtime knows of the connection's other end. None of it comes from what the client may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The address of the other end, never an IPv4-mapped one.
    pub address: IpAddr,
    /// Whether the connection is encrypted up to this process, or up to a gateway that vouches for it.
    pub encrypted: bool,
    /// The client's certificates, if it showed any.
    pub client_certificate: Option<ClientCertificate>,
    /// The IAM caller whom a gateway has verified.
    pub iam_caller: Option<IamCaller>,
    /// What it shares with the other requests of its connection.
    pub connection: Connection,
}

/// The certificates that a client showed, its own first. Possession of that one's key was proven, to this process or
/// to a gateway; nothing is proven of the others, and no authority need have signed any.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ClientCertificate {
    /// In DER, as a TLS handshake carries them.
    Der(Arc<[Bytes]>),
    /// In PEM, as gateways write them.
    Pem(Arc<str>),
}

impl ClientCertificate {
    /// The bytes of all of them.
    pub fn size(&self) -> usize {
        match self {
            Self::Der(chain) => chain.iter().map(Bytes::len).sum(),
            Self::Pem(text) => text.len(),
        }
    }
}

/// An IAM caller as API Gateway reports the one that it has verified.
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
    /// A peer of whom no more is known than its address. An IPv4-mapped IPv6 address, as a socket for both families tells
    /// it, is its IPv4 address here and for all who ask this peer: whether it is loopback, a trusted proxy, what is audited.
    pub const fn new(address: IpAddr, encrypted: bool) -> Self {
        Self {
            address: address.to_canonical(),
            encrypted,
            client_certificate: None,
            iam_caller: None,
            connection: Connection::NONE,
        }
    }

    /// Whether nobody between the two ends can read or change what is sent: TLS, or loopback.
    pub fn is_private(&self) -> bool {
        self.encrypted || self.address.is_loopback()
    }
}

/// In a request's extensions: what a gateway has put before the paths of this site, such as `/prod` for a stage.
/// Signatures cover it, routes do not have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasePath(pub String);
