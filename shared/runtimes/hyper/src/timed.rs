//! Timeouts of a connection: for the client's first bytes, and for reading what it is sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::body_timeout::Pace;

/// The first bytes of an HTTP/2 connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Closes a connection whose first bytes do not show in time which version of HTTP it speaks, because hyper's own timers
/// start only then. Also closes it if the client does not read what it is sent, for which hyper has no timer.
pub(crate) struct Timed<S> {
    stream: S,
    seen: usize,
    timer: Option<Pin<Box<Sleep>>>,
    pace: Pace,
    stalled: Option<Stalled>,
}

/// A client that has not read all that was written.
struct Stalled {
    begun: Instant,
    /// How many bytes it has read since.
    bytes: u64,
    timer: Pin<Box<Sleep>>,
    is_set: bool,
}

impl<S> Timed<S> {
    pub(crate) fn new(stream: S, opening: Duration, pace: Pace) -> Self {
        Self {
            stream,
            seen: 0,
            timer: Some(Box::pin(tokio::time::sleep(opening))),
            pace,
            stalled: None,
        }
    }

    /// Whether the version of HTTP is known with these bytes.
    fn settles(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            if PREFACE.get(self.seen) != Some(byte) {
                return true;
            }
            self.seen += 1;
        }
        self.seen == PREFACE.len()
    }

    /// The result of writing, or an error when the client has been too slow.
    fn in_time(
        &mut self,
        polled: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(Ok(written)) => {
                if let Some(stalled) = &mut self.stalled {
                    stalled.bytes += written as u64;
                    stalled.is_set = false;
                }
                Poll::Ready(Ok(written))
            }
            Poll::Ready(failed) => Poll::Ready(failed),
            Poll::Pending => {
                ready!(self.poll_stalled(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let pace = self.pace;
        let stalled = self.stalled.get_or_insert_with(|| {
            let now = Instant::now();
            Stalled {
                begun: now,
                bytes: 0,
                timer: Box::pin(tokio::time::sleep_until(pace.deadline(now, now, 0))),
                is_set: true,
            }
        });
        if !stalled.is_set {
            let deadline = pace.deadline(stalled.begun, Instant::now(), stalled.bytes);
            stalled.timer.as_mut().reset(deadline);
            stalled.is_set = true;
        }
        stalled.timer.as_mut().poll(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.timer.is_none() {
            return polled;
        }
        if let Poll::Ready(read) = polled {
            let new = buffer.filled().get(before..).unwrap_or_default();
            if new.is_empty() || self.settles(new) {
                self.timer = None;
            }
            return Poll::Ready(read);
        }
        if let Some(timer) = &mut self.timer {
            ready!(timer.as_mut().poll(context));
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.in_time(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper calls this after it has written everything. Once it is flushed, the client no longer counts as slow.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(flushed) => {
                self.stalled = None;
                Poll::Ready(flushed)
            }
            Poll::Pending => {
                ready!(self.poll_stalled(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(context) {
            Poll::Ready(shut) => Poll::Ready(shut),
            Poll::Pending => {
                ready!(self.poll_stalled(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}
