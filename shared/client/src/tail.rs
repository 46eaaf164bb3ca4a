//! Follows the audit log of a server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use keyway_domain::ports::Clock;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::Error;
use crate::answers::AuditEvent;
use crate::error::Outcome;
use crate::http::{Incoming, root_cause};
use crate::kes::Kes;
use crate::rustfs::RustFs;

/// How often RustFS's API is asked for new events.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Events may reach the table this long after their time. Each look begins so much before the newest event.
const LOOK_BACK: SignedDuration = SignedDuration::from_secs(10);
/// The longest silence of a stream. Servers send an empty line every 20 seconds.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// The longest line of a stream, in bytes.
const LONGEST_LINE: usize = 1 << 20;
/// The end of the path by which this client reads the log. Its own requests are events too, and would go on for ever.
const OWN_PATH: &str = "/kms/audit";

/// Which events to follow.
#[derive(Debug, Clone, Default)]
pub struct TailQuery {
    /// Events from this time on; without it, those of the last ten seconds and later.
    pub since: Option<Timestamp>,
    /// Events of this key.
    pub key_id: Option<String>,
    /// Events of this caller.
    pub principal: Option<String>,
}

/// The audit log of a server, as it is written.
pub struct AuditTail<'a>(Source<'a>);

enum Source<'a> {
    Polled(Polled<'a>),
    Streamed(Streamed<'a>),
}

impl<'a> AuditTail<'a> {
    pub(crate) fn of_rustfs(api: &'a RustFs, query: TailQuery, clock: &Arc<dyn Clock>) -> Self {
        let since = query.since;
        let since = since.unwrap_or_else(|| earlier(clock.now()));
        Self(Source::Polled(Polled {
            api,
            query,
            since,
            marker: None,
            seen: Seen {
                newest: since,
                last: BTreeMap::new(),
            },
            rest: false,
        }))
    }

    pub(crate) fn of_kes(api: &'a Kes) -> Self {
        Self(Source::Streamed(Streamed {
            api,
            stream: None,
            buffer: Vec::new(),
        }))
    }

    /// Waits for the next events, and returns some of them, or none after a while. After an [`Error::Unreachable`], the next call connects anew.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn next(&mut self) -> Result<Vec<AuditEvent>, Error> {
        match &mut self.0 {
            Source::Polled(polled) => polled.look().await,
            Source::Streamed(streamed) => streamed.next().await,
        }
    }

    /// The next events that are there already; `None` when there are no more.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Unsupported`] with KES's API.
    pub async fn present(&mut self) -> Result<Option<Vec<AuditEvent>>, Error> {
        match &mut self.0 {
            Source::Polled(polled) if polled.rest => Ok(None),
            Source::Polled(polled) => Ok(Some(polled.look().await?)),
            Source::Streamed(_) => Err(Error::Unsupported(
                "KES's API follows the audit log from now on only",
            )),
        }
    }
}

/// The log of RustFS's API, which has pages.
struct Polled<'a> {
    api: &'a RustFs,
    query: TailQuery,
    since: Timestamp,
    marker: Option<String>,
    seen: Seen,
    /// Whether the last page of a look was read.
    rest: bool,
}

impl Polled<'_> {
    /// Reads one page, after a pause if the page before was the last. Returns the events that are new.
    async fn look(&mut self) -> Result<Vec<AuditEvent>, Error> {
        if std::mem::take(&mut self.rest) {
            sleep(POLL_EVERY).await;
        }
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", "1000");
        query.append_pair("since", &self.since.to_string());
        for (name, value) in [
            ("key_id", &self.query.key_id),
            ("principal", &self.query.principal),
            ("marker", &self.marker),
        ] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        let page = self.api.events(&query.finish()).await?;
        let mut events = Vec::new();
        for event in page.events {
            if self.seen.is_new(&event) && !is_own(&event) {
                events.push(of_rustfs(&event));
            }
        }
        self.marker = page.next_marker.filter(|marker| !marker.is_empty());
        if self.marker.is_none() {
            self.rest = true;
            self.since = self.since.max(earlier(self.seen.newest));
        }
        Ok(events)
    }
}

/// Which events were seen. Looks overlap, and each event is printed once.
struct Seen {
    /// The time of the newest event.
    newest: Timestamp,
    /// The last event of each writer. A writer's events come in their order.
    last: BTreeMap<String, u64>,
}

impl Seen {
    fn is_new(&mut self, event: &Value) -> bool {
        let time = event["time"].as_str().and_then(|time| time.parse().ok());
        self.newest = self.newest.max(time.unwrap_or(Timestamp::MIN));
        let (Some(writer), Some(number)) = (event["writer"].as_str(), event["seq"].as_u64()) else {
            return true;
        };
        match self.last.get_mut(writer) {
            Some(last) if *last >= number => false,
            Some(last) => {
                *last = number;
                true
            }
            None => {
                self.last.insert(writer.to_owned(), number);
                true
            }
        }
    }
}

fn earlier(time: Timestamp) -> Timestamp {
    time.saturating_sub(LOOK_BACK).unwrap_or(time)
}

/// Whether the event is a request for events.
fn is_own(event: &Value) -> bool {
    let path = event["path"].as_str();
    path.is_some_and(|path| path.ends_with(OWN_PATH))
}

fn owned(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn status(value: &Value) -> Option<u16> {
    value.as_u64()?.try_into().ok()
}

fn of_rustfs(event: &Value) -> AuditEvent {
    AuditEvent {
        json: event.to_string(),
        time: owned(&event["time"]),
        status: status(&event["status"]),
        operation: owned(&event["operation"]),
        principal: owned(&event["principal"]),
        resource: owned(&event["key_id"]).or_else(|| owned(&event["resource"])),
        address: owned(&event["address"]),
        error: owned(&event["error"]),
    }
}

fn of_kes(event: &Value) -> AuditEvent {
    let request = &event["request"];
    let code = event.pointer("/response/code");
    AuditEvent {
        json: event.to_string(),
        time: owned(&event["time"]),
        status: code.and_then(status),
        operation: owned(&request["path"]),
        principal: owned(&request["identity"]),
        resource: None,
        address: owned(&request["ip"]),
        error: None,
    }
}

/// The log of KES's API, which is a stream.
struct Streamed<'a> {
    api: &'a Kes,
    stream: Option<Incoming>,
    buffer: Vec<u8>,
}

impl Streamed<'_> {
    async fn next(&mut self) -> Result<Vec<AuditEvent>, Error> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                self.buffer.clear();
                self.stream.insert(self.api.events().await?.into_body())
            }
        };
        let frame = match timeout(LONGEST_SILENCE, stream.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(self.broken(root_cause(error.as_ref()))),
            Ok(None) => return Err(self.broken("the server ended the stream".to_owned())),
            Err(_) => return Err(self.broken("the stream is silent".to_owned())),
        };
        if let Ok(data) = frame.into_data() {
            self.buffer.extend_from_slice(&data);
        }
        let events = complete_lines(&mut self.buffer);
        if self.buffer.len() > LONGEST_LINE {
            return Err(self.broken("a line of the stream is too long".to_owned()));
        }
        Ok(events)
    }

    fn broken(&mut self, cause: String) -> Error {
        self.stream = None;
        Error::Unreachable {
            endpoint: self.api.0.endpoint.to_string(),
            cause,
            unknown: Outcome::Unchanged,
        }
    }
}

/// Takes the complete lines of the buffer.
fn complete_lines(buffer: &mut Vec<u8>) -> Vec<AuditEvent> {
    let end = buffer.iter().rposition(|byte| *byte == b'\n');
    let complete: Vec<u8> = buffer.drain(..end.map_or(0, |end| end + 1)).collect();
    let lines = complete.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .map(|event| of_kes(&event))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn event_of_two_looks_is_new_once() {
        let mut seen = Seen {
            newest: Timestamp::UNIX_EPOCH,
            last: BTreeMap::new(),
        };
        let event = |writer: &str, seq: u64, second: u32| json!({"writer": writer, "seq": seq, "time": format!("2026-01-01T00:00:{second:02}Z")});
        let mut is_new = |writer, seq, second| seen.is_new(&event(writer, seq, second));
        // The second look begins before the end of the first, and finds another writer's earlier event.
        assert!(is_new("a", 0, 10) && is_new("a", 1, 12));
        assert!(!is_new("a", 0, 10) && is_new("b", 7, 11) && !is_new("a", 1, 12));
        assert!(is_new("a", 2, 13) && !is_new("b", 7, 11));
        assert_eq!(seen.newest, "2026-01-01T00:00:13Z".parse().unwrap());
    }

    #[test]
    fn line_of_a_stream_that_comes_in_parts_is_put_together() {
        let mut buffer = b"\n{\"time\":\"1\"}\n\n{\"time\"".to_vec();
        let first = complete_lines(&mut buffer);
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].time.as_deref(), Some("1"));
        buffer.extend_from_slice(b":\"2\",\"response\":{\"code\":403}}\n");
        let second = complete_lines(&mut buffer);
        assert_eq!((second.len(), second[0].status), (1, Some(403)));
        assert!(buffer.is_empty());
    }
}
