use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, Method};

/// One request, its body read whole (within the route's limit), its path and query exactly as they
/// stood on the wire: signatures are over those bytes, so nothing may be decoded or normalised before.
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
    /// The whole body.
    pub body: Bytes,
    /// What the runtime knows of the other end.
    pub peer: Peer,
}

/// What a runtime knows of the connection's other end. None of it comes from the request itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The address of the other end.
    pub address: IpAddr,
    /// Whether the connection is encrypted up to this process, or up to a gateway that vouches for it.
    pub encrypted: bool,
}

impl Peer {
    /// Whether nobody between the two ends can read or change what is sent: TLS, or loopback.
    pub fn is_private(&self) -> bool {
        self.encrypted || self.address.is_loopback()
    }
}
