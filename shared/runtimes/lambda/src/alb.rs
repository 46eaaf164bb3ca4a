use http::{HeaderMap, HeaderValue};
use keyway_http::Peer;
use serde::Deserialize;

use crate::event::{Event, Facts, Refusal, address, headers, members, raw_query};
use crate::ingress::EventSource;

#[derive(Deserialize)]
pub(crate) struct LoadBalancer {
    #[serde(rename = "targetGroupArn")]
    _target_group: String,
}

pub(crate) fn read(event: Event) -> Result<Facts, Refusal> {
    let (Some(method), Some(path), Some(_)) =
        (event.http_method, event.path, event.request_context.elb)
    else {
        return Err(Refusal::OtherEvent(EventSource::Alb));
    };
    let headers = headers(members(event.multi_value_headers, event.headers))?;
    let query = members(
        event.multi_value_query_string_parameters,
        event.query_string_parameters,
    );
    let forwarded_for = last(&headers, "x-forwarded-for").map(last_entry);
    let peer = Peer::new(
        address(forwarded_for),
        // A load balancer may also listen to plain HTTP, and only this header says so.
        last(&headers, "x-forwarded-proto") == Some("https"),
    );
    Ok(Facts {
        method,
        base: String::new(),
        path,
        query: raw_query(&query),
        headers,
        body: event.body,
        is_base64: event.is_base64_encoded.unwrap_or(false),
        peer,
    })
}

/// The last value. The client may have sent those before it.
fn last<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let last = headers.get_all(name).iter().next_back();
    last.map(HeaderValue::to_str)?.ok()
}

fn last_entry(list: &str) -> &str {
    list.rsplit(',').next().unwrap_or_default()
}
