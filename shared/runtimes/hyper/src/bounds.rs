//! How long a client may take, and how many may come.

use std::time::Duration;

use keyway_http::KEEP_ALIVE;

/// The bounds of a listener; every listener has its own count of connections.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections served at once. Those on which nobody is proven yet have three quarters of the places; when there are
    /// more, the oldest of them is closed.
    pub connections: usize,
    /// Connections of one address (of one /64 with IPv6) on which nobody is proven.
    pub unproven_of_address: usize,
    /// Requests at once on one connection of HTTP/2; HTTP/1.1 has one.
    pub streams: u32,
    /// The longest head of a request, in bytes.
    pub head_size: u32,
    /// How long a client may take for the TLS handshake.
    pub handshake: Duration,
    /// How long a client may take to send a request's head, or to begin the next request of a connection.
    pub head: Duration,
    /// How long a client may pause within a body, or while it is sent an answer.
    pub pause: Duration,
    /// How long a body, or an answer, may take as a whole.
    pub whole: Duration,
    /// How many bytes a second a body or an answer must make on average, after a first `pause`.
    pub rate: u64,
    /// How long an answer that goes on may be silent before an empty line is sent.
    pub keep_alive: Duration,
    /// How long requests in flight may take to finish after shutdown has begun.
    pub grace: Duration,
    /// How often a certificate's files are looked at.
    pub reload: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 4096,
            unproven_of_address: 256,
            streams: 128,
            head_size: 32 << 10,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            pause: Duration::from_secs(15),
            whole: Duration::from_secs(120),
            rate: 1024,
            keep_alive: KEEP_ALIVE,
            grace: Duration::from_secs(25),
            reload: Duration::from_secs(5),
        }
    }
}
