//! The audit and the error log: decode, operate, encode.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use jiff::Timestamp;
use keyway_domain::audit::{Event, EventQuery, Followed, MAX_EVENTS};
use keyway_http::{Call, HandlerResult, Tail};
use serde::Serialize;

use crate::Kes;
use crate::endpoint::OnLog;
use crate::error_response::{bad, not_implemented};

/// An event as KES tells it.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct AuditEvent<'a> {
    time: &'a str,
    request: Asked<'a>,
    response: Said,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct Asked<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<&'a str>,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'a str>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct Said {
    code: u16,
    /// In nanoseconds.
    time: u64,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct ErrorEvent<'a> {
    message: &'a str,
}

/// KES's audit log has no calls of these.
const UNTOLD: [&str; 3] = ["/v1/log/", "/v1/metrics", "/v1/ready"];

/// The event as a line of KES's log; `None` if KES does not log it.
fn told(line: &str) -> Option<String> {
    let event: Event<'_> = serde_json::from_str(line).ok()?;
    let (path, code) = (event.path.as_deref()?, event.status?);
    // KES has one event for each call, but a call with many items has several here.
    if event.goes_on() {
        return None;
    }
    if event.dialect == Kes::WORD && UNTOLD.iter().any(|untold| path.starts_with(untold)) {
        return None;
    }
    encoded(&AuditEvent {
        time: &event.time,
        request: Asked {
            ip: event.address.as_deref(),
            path,
            identity: event.principal.as_deref(),
        },
        response: Said {
            code,
            time: event.duration_us.unwrap_or_default().saturating_mul(1000),
        },
    })
}

fn encoded(event: &impl Serialize) -> Option<String> {
    let mut line = serde_json::to_string(event).ok()?;
    line.push('\n');
    Some(line)
}

/// Follows the audit log; with `since`, answers a page of its events in the table.
pub(crate) async fn audit(on: Arc<OnLog>, call: Call<Kes>) -> HandlerResult<Kes> {
    let parameter = |name| {
        let value = call.query.one(name);
        value.map_err(|error| bad(format!("{name} {error}")))
    };
    let (since, marker) = (parameter("since")?, parameter("continue_at")?);
    if since.is_none() && marker.is_none() {
        let following = on.following.as_ref().ok_or_else(not_implemented)?;
        let lines = following.audit().filter_map(async |heard| match heard {
            Followed::Line(line) => told(&line),
            Followed::Missed(missed) => {
                tracing::warn!(missed, "a reader of the audit log is too slow");
                None
            }
        });
        return Ok(streamed(lines.map(Bytes::from).boxed()));
    }
    let since: Option<Timestamp> = since
        .map(str::parse)
        .transpose()
        .map_err(|_| bad("since must be a time as RFC 3339 writes it"))?;
    let query = EventQuery {
        since,
        limit: MAX_EVENTS,
        marker: marker.map(str::to_owned),
        ..EventQuery::default()
    };
    let page = on.reading.page(call.caller.caller()?, &query).await?;
    let lines: String = page.events.iter().filter_map(|line| told(line)).collect();
    let mut answer = ndjson(lines.into());
    if let Some(next) = page.next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        answer.headers_mut().insert("x-continue-at", next);
    }
    Ok(answer)
}

/// Follows the error log.
pub(crate) async fn error(on: Arc<OnLog>, _: Call<Kes>) -> HandlerResult<Kes> {
    let following = on.following.as_ref().ok_or_else(not_implemented)?;
    let lines = following.errors().filter_map(async |heard| match heard {
        Followed::Line(message) => encoded(&ErrorEvent { message: &message }),
        Followed::Missed(missed) => encoded(&ErrorEvent {
            message: &format!("{missed} errors came faster than they were read"),
        }),
    });
    Ok(streamed(lines.map(Bytes::from).boxed()))
}

/// The first line is empty, because proxies send the head on only once they have a part of the body.
fn streamed(lines: BoxStream<'static, Bytes>) -> Response<Bytes> {
    let mut answer = ndjson(Bytes::from_static(b"\n"));
    // Tells nginx to pass on each line when it comes.
    let unbuffered = HeaderValue::from_static("no");
    answer.headers_mut().insert("x-accel-buffering", unbuffered);
    answer.extensions_mut().insert(Tail::new(lines));
    answer
}

fn ndjson(body: Bytes) -> Response<Bytes> {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
