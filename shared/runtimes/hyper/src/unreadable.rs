//! Adds the site's body to errors that hyper answers by itself.
//!
//! A head that hyper cannot read never becomes a request: hyper writes a status without a body, and calls no service.
//! Only the bytes that it writes show that answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::StatusCode;
use keyway_http::{Site, Unreadable};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Replaces hyper's answer to an unreadable head with the site's.
pub(crate) struct Explained<S> {
    stream: S,
    site: Arc<Site>,
    /// The part of the site's answer that is not written yet.
    rest: Bytes,
}

impl<S: AsyncWrite + Unpin> Explained<S> {
    pub(crate) fn new(stream: S, site: Arc<Site>) -> Self {
        Self {
            stream,
            site,
            rest: Bytes::new(),
        }
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.rest.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// The status, if these bytes are an answer that hyper made by itself: a head without a body, in one write. An answer of
/// a site always has an `x-request-id`, and no part of its body looks like a head.
fn of_hyper(written: &[u8]) -> Option<StatusCode> {
    let text = std::str::from_utf8(written).ok()?;
    let (line, headers) = text.strip_suffix("\r\n\r\n")?.split_once("\r\n")?;
    let status = line.strip_prefix("HTTP/1.")?.get(2..5)?;
    let status = StatusCode::from_bytes(status.as_bytes()).ok()?;
    let is_bare = headers
        .split("\r\n")
        .any(|line| line == "Content-Length: 0")
        && headers.split("\r\n").all(|line| {
            ["Connection: ", "Content-Length: ", "Date: "]
                .iter()
                .any(|own| line.starts_with(own))
        });
    (is_bare && status.is_client_error()).then_some(status)
}

/// The site's answer, with `connection: close`.
fn explained(site: &Site, status: StatusCode) -> Bytes {
    let answer = site.refuse_unreadable(Unreadable { status });
    let status = answer.status();
    let line = format!(
        "HTTP/1.1 {} {}\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default()
    );
    let mut whole = line.into_bytes();
    for (name, value) in answer.headers() {
        if name == http::header::CONTENT_LENGTH || name == http::header::CONNECTION {
            continue;
        }
        whole.extend_from_slice(name.as_str().as_bytes());
        whole.extend_from_slice(b": ");
        whole.extend_from_slice(value.as_bytes());
        whole.extend_from_slice(b"\r\n");
    }
    let end = format!(
        "Content-Length: {}\r\nConnection: close\r\n\r\n",
        answer.body().len()
    );
    whole.extend_from_slice(end.as_bytes());
    whole.extend_from_slice(answer.body());
    whole.into()
}

impl<S: AsyncRead + Unpin> AsyncRead for Explained<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Explained<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_rest(context))?;
        if let Some(status) = of_hyper(bytes) {
            self.rest = explained(&self.site, status);
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_rest(context))?;
        if let [one] = parts
            && let Some(status) = of_hyper(one)
        {
            self.rest = explained(&self.site, status);
            return Poll::Ready(Ok(one.len()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
