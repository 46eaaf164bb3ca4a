//! How long a client may take, and how many may come.

use std::time::Duration;

/// The bounds of a listener; every listener has its own count of connections.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections served at once; more wait in the listen queue.
    pub connections: usize,
    /// Requests at once on one connection of HTTP/2; HTTP/1.1 has one.
    pub streams: u32,
    /// How long a client may take for the TLS handshake.
    pub handshake: Duration,
    /// How long a client may take to send a request's head, or to begin the next request of a connection.
    pub head: Duration,
    /// How long a client may pause within a body.
    pub body_pause: Duration,
    /// How long requests in flight may take to finish after shutdown has begun.
    pub grace: Duration,
    /// How often a certificate's files are looked at.
    pub reload: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 4096,
            streams: 128,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            body_pause: Duration::from_secs(15),
            grace: Duration::from_secs(25),
            reload: Duration::from_secs(5),
        }
    }
}
