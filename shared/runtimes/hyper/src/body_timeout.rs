//! Breaks off bodies whose sender pauses for too long or sends too slowly.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use tokio::time::{Instant, Sleep};

use crate::limiter::Held;

/// How long a transfer of bytes may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// The longest time without a byte.
    pub(crate) pause: Duration,
    /// The longest time as a whole.
    pub(crate) whole: Duration,
    /// The least average rate after `pause`, in bytes per second.
    pub(crate) rate: u64,
}

impl Pace {
    /// When the next byte is due, if the transfer first waited at `begun` and has moved `bytes` since.
    pub(crate) fn deadline(&self, begun: Instant, now: Instant, bytes: u64) -> Instant {
        let earned = Duration::from_secs(bytes.checked_div(self.rate).unwrap_or_default());
        let at_rate = begun + self.whole.min(self.pause.saturating_add(earned));
        at_rate.min(now + self.pause)
    }
}

/// Breaks off a body whose next part does not come in time.
///
/// Most bodies arrive with their head. They get no timer, which would cost more than reading them.
pub(crate) struct BodyTimeout {
    body: Option<Incoming>,
    pace: Pace,
    /// When this first waited for the body, and how many bytes have come since.
    begun: Option<(Instant, u64)>,
    timer: Option<Pin<Box<Sleep>>>,
    rest: Rest,
}

/// What to do with a body that is not read to its end.
pub(crate) enum Rest {
    /// HTTP/2 has a frame that tells the sender to stop.
    Reset,
    /// HTTP/1.1 has no such frame. A client that sends its whole body before it reads would see a broken connection
    /// instead of the answer, so a part of the body is read and thrown away.
    Drain(Arc<Held>),
    /// The client sent `Expect`: it waits before it sends the body, and reads the answer instead.
    Unasked(Arc<Held>),
}

impl BodyTimeout {
    pub(crate) fn new(body: Incoming, pace: Pace, rest: Rest) -> Self {
        Self {
            body: Some(body),
            pace,
            begun: None,
            timer: None,
            rest,
        }
    }
}

impl Body for BodyTimeout {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            self.timer = None;
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
                && let Some((_, bytes)) = &mut self.begun
            {
                *bytes += data.len() as u64;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if self.timer.is_none() {
            let now = Instant::now();
            let (begun, bytes) = *self.begun.get_or_insert((now, 0));
            let deadline = self.pace.deadline(begun, now, bytes);
            self.timer = Some(Box::pin(tokio::time::sleep_until(deadline)));
        }
        if let Some(timer) = &mut self.timer {
            ready!(timer.as_mut().poll(context));
        }
        Poll::Ready(Some(Err("the sender is too slow".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for BodyTimeout {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        match &self.rest {
            Rest::Reset => {}
            Rest::Unasked(held) => held.leave_unread(),
            Rest::Drain(held) => {
                let limit = if held.connection().is_proven() {
                    DRAINED_OF_PROVEN
                } else {
                    DRAINED
                };
                let fits = body.size_hint().lower() <= limit;
                match Draining::begin().filter(|_| fits) {
                    Some(draining) => {
                        tokio::spawn(drain(body, limit, draining));
                    }
                    None => held.leave_unread(),
                }
            }
        }
    }
}

/// The most that is read and thrown away of an unwanted body, in bytes.
const DRAINED: u64 = 2 << 20;
/// The same on a connection with an authenticated request.
const DRAINED_OF_PROVEN: u64 = 8 << 20;
/// The longest time that this takes.
const DRAINING_TIME: Duration = Duration::from_secs(5);
/// How many bodies are drained at once, in the whole process.
const DRAINING_AT_ONCE: usize = 256;

async fn drain(mut body: Incoming, limit: u64, draining: Draining) {
    let read = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, |data| data.len() as u64);
            if read > limit {
                break;
            }
        }
    };
    // After the timeout the rest stays unread, and hyper closes the connection.
    tokio::time::timeout(DRAINING_TIME, read).await.ok();
    drop(draining);
}

static DRAINING: AtomicUsize = AtomicUsize::new(0);

struct Draining;

impl Draining {
    fn begin() -> Option<Self> {
        let begun = DRAINING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < DRAINING_AT_ONCE).then_some(count + 1)
        });
        begun.is_ok().then_some(Self)
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        DRAINING.fetch_sub(1, Ordering::Relaxed);
    }
}
