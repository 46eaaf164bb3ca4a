//! Limits on the time and the number of clients.

use std::time::Duration;

use keyway_http::KEEP_ALIVE;

/// The limits of a listener. Every listener counts its own connections.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections served at once. Those without an authenticated request may be three quarters of them; when there are
    /// more, the oldest of these is closed.
    pub connections: usize,
    /// Connections without an authenticated request from one address (from one /64 with IPv6).
    pub unproven_of_address: usize,
    /// Concurrent requests on one HTTP/2 connection; HTTP/1.1 has one.
    pub streams: u32,
    /// The longest head of a request, in bytes.
    pub head_size: u32,
    /// How long a client may take for the TLS handshake.
    pub handshake: Duration,
    /// How long a client may take to send a request's head, or to begin the next request of a connection.
    pub head: Duration,
    /// How long a client may pause while it sends a body or reads an answer.
    pub pause: Duration,
    /// How long a body, or an answer, may take as a whole.
    pub whole: Duration,
    /// The least average rate of a body or an answer after a first `pause`, in bytes per second.
    pub rate: u64,
    /// How long a streamed answer may be silent before an empty line is sent.
    pub keep_alive: Duration,
    /// How long requests in flight may take to finish after shutdown has begun.
    pub grace: Duration,
    /// How often a certificate's files are checked for changes.
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
