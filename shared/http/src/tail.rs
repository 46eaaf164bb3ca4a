//! Streamed answers and trailers.

use std::sync::{Arc, Mutex, PoisonError};

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use http::HeaderMap;

/// In a response's extensions: a stream of lines that follows the body. A runtime that can send a stream takes it from
/// here. A dialect that does not know whether the runtime can must not promise the lines.
#[derive(Clone)]
pub struct Tail(Arc<Mutex<Option<BoxStream<'static, Bytes>>>>);

impl Tail {
    /// Wraps the stream.
    pub fn new(stream: BoxStream<'static, Bytes>) -> Self {
        Self(Arc::new(Mutex::new(Some(stream))))
    }

    /// The stream. Every call after the first returns `None`.
    pub fn take(&self) -> Option<BoxStream<'static, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// How long a stream of lines may be silent before an empty line is sent. Proxies close idle connections, nginx after
/// 60 seconds.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The same lines, with an empty line whenever none arrives for `interval`. Readers of lines and of JSON ignore it.
pub fn kept_alive(
    lines: BoxStream<'static, Bytes>,
    interval: Duration,
) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::unfold(lines, move |mut lines| async move {
        let next = tokio::time::timeout(interval, lines.next()).await;
        let line = next.unwrap_or(Some(Bytes::from_static(b"\n")));
        line.map(|line| (line, lines))
    })
}

/// In a response's extensions: fields to be sent after its body. A runtime that cannot send them leaves them out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailers(pub HeaderMap);
