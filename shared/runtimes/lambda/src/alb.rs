use http::{HeaderMap, HeaderValue};
use keyway_http::Peer;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::event::{Facts, Pairs, Refusal, address, headers, members, parse, raw_query};
use crate::ingress::EventSource;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    http_method: String,
    path: String,
    headers: Option<Pairs<String>>,
    multi_value_headers: Option<Pairs<Vec<String>>>,
    query_string_parameters: Option<Pairs<String>>,
    multi_value_query_string_parameters: Option<Pairs<Vec<String>>>,
    /// Only its being there counts: it tells these events from all others.
    #[serde(rename = "requestContext")]
    _context: Context,
    body: Option<String>,
    is_base64_encoded: Option<bool>,
}

#[derive(Deserialize)]
struct Context {
    #[serde(rename = "elb")]
    _elb: LoadBalancer,
}

#[derive(Deserialize)]
struct LoadBalancer {
    #[serde(rename = "targetGroupArn")]
    _target_group: String,
}

pub(crate) fn read(event: &str) -> Result<Facts, Refusal> {
    let event: Event = parse(event, EventSource::Alb)?;
    let headers = headers(members(event.multi_value_headers, event.headers))?;
    let query = members(
        event.multi_value_query_string_parameters,
        event.query_string_parameters,
    );
    let forwarded_for = last(&headers, "x-forwarded-for").map(last_entry);
    let peer = Peer::new(
        address(forwarded_for),
        // A load balancer may also listen to plain HTTP, and only says so here.
        last(&headers, "x-forwarded-proto") == Some("https"),
    );
    Ok(Facts {
        method: event.http_method,
        base: String::new(),
        path: event.path,
        query: raw_query(&query),
        headers,
        body: event.body,
        is_base64: event.is_base64_encoded.unwrap_or(false),
        peer,
    })
}

/// Whether the target group has multi-value headers turned on. It then wants the answer so, too.
pub(crate) fn is_multi_value(event: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Headers {
        multi_value_headers: Option<IgnoredAny>,
    }

    serde_json::from_str::<Headers>(event)
        .is_ok_and(|headers| headers.multi_value_headers.is_some())
}

/// The last value: what stands before it, the client may have sent.
fn last<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let last = headers.get_all(name).iter().next_back();
    last.map(HeaderValue::to_str)?.ok()
}

fn last_entry(list: &str) -> &str {
    list.rsplit(',').next().unwrap_or_default()
}
