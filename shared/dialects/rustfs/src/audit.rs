//! The audit log: decode, operate, encode.

#[cfg(feature = "openapi")]
pub(crate) mod openapi;

use std::sync::Arc;

use http::Method;
use jiff::Timestamp;
use keyway_domain::audit::{AuditReading, Event, EventQuery};
use keyway_domain::policy::Action;
use keyway_http::{Call, HandlerResult, Query, RouteEntry};
use serde::Serialize;

use crate::error_response::invalid_field;
use crate::keys::{limit, query_value};
use crate::{ErrorResponse, RustFs, route, wire};

pub(crate) fn entries() -> Vec<RouteEntry<RustFs, AuditReading>> {
    vec![route(Method::GET, "/kms/audit", Action::ReadAudit, events)]
}

#[derive(Serialize)]
struct EventsAnswer<'a> {
    success: bool,
    events: Vec<Event<'a>>,
    next_marker: Option<&'a str>,
}

async fn events(log: Arc<AuditReading>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let query = &call.query;
    let owned = |name| {
        let value = query_value(query, name)?.filter(|value| !value.is_empty());
        Ok::<_, ErrorResponse>(value.map(str::to_owned))
    };
    let wanted = EventQuery {
        since: time(query, "since")?,
        until: time(query, "until")?,
        key_id: owned("key_id")?,
        principal: owned("principal")?,
        limit: limit(query_value(query, "limit")?)?,
        marker: owned("marker")?,
    };
    let page = log.page(&call.caller, &wanted).await?;
    wire::ok(&EventsAnswer {
        success: true,
        // Skip lines that cannot be parsed.
        events: page
            .events
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect(),
        next_marker: page.next.as_deref(),
    })
}

fn time(query: &Query, name: &'static str) -> Result<Option<Timestamp>, ErrorResponse> {
    query_value(query, name)?
        .filter(|text| !text.is_empty())
        .map(|text| {
            text.parse()
                .map_err(|_| invalid_field(name, "must be a time as RFC 3339 writes it"))
        })
        .transpose()
}
