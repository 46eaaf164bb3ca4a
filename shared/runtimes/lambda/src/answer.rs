use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONTENT_TYPE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use keyway_http::{KEEP_ALIVE, Tail, kept_alive};
use lambda_runtime::streaming::{Body, channel};
use lambda_runtime::{FunctionResponse, MetadataPrelude, StreamResponse};
use serde::Serialize;

use crate::event::Refusal;
use crate::ingress::{EventSource, Ingress, Shape};

/// An answer as the gateways read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    status_code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_description: Option<String>,
    #[serde(flatten)]
    headers: Headers,
    body: String,
    is_base64_encoded: bool,
}

/// The three ways in which gateways take headers.
#[derive(Debug, Serialize)]
#[serde(rename_all_fields = "camelCase", untagged)]
enum Headers {
    WithCookies {
        headers: BTreeMap<String, String>,
        cookies: Vec<String>,
    },
    Multi {
        multi_value_headers: BTreeMap<String, Vec<String>>,
    },
    Single {
        headers: BTreeMap<String, String>,
    },
}

/// The answer to a refused event.
pub(crate) fn refuse(refusal: &Refusal) -> Response<Bytes> {
    let body = serde_json::json!({ "message": refusal.to_string() });
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The body, followed by the tail if there is one.
fn goes_on(body: Bytes, tail: Option<Tail>) -> Body {
    let Some(stream) = tail.and_then(|tail| tail.take()) else {
        return Body::from(body);
    };
    let mut stream = Box::pin(kept_alive(stream, KEEP_ALIVE));
    let (mut sender, sent) = channel();
    tokio::spawn(async move {
        let mut next = Some(body);
        while let Some(data) = next {
            // The reader is gone.
            if sender.send_data(data).await.is_err() {
                return;
            }
            next = stream.next().await;
        }
    });
    sent
}

/// The response in the shape that the event's sender expects.
pub(crate) fn encode(
    ingress: &Ingress,
    shape: Shape,
    response: Response<Bytes>,
) -> FunctionResponse<Answer, Body> {
    let (mut parts, body) = response.into_parts();
    if ingress.source == EventSource::FunctionUrl && ingress.streaming {
        return FunctionResponse::StreamingResponse(StreamResponse {
            metadata_prelude: prelude(parts.status, &parts.headers),
            stream: goes_on(body, parts.extensions.remove::<Tail>()),
        });
    }
    let headers = match shape {
        Shape::WithCookies => Headers::WithCookies {
            headers: joined(&parts.headers, |name| *name != SET_COOKIE),
            cookies: texts(&parts.headers, &SET_COOKIE).collect(),
        },
        Shape::Lists => Headers::Multi {
            multi_value_headers: parts
                .headers
                .keys()
                .map(|name| (name.to_string(), texts(&parts.headers, name).collect()))
                .collect(),
        },
        Shape::Once => Headers::Single {
            headers: single(&parts.headers),
        },
    };
    let (body, is_base64_encoded) = match String::from_utf8(Vec::from(body)) {
        Ok(text) => (text, false),
        Err(error) => (STANDARD.encode(error.as_bytes()), true),
    };
    FunctionResponse::BufferedResponse(Answer {
        status_code: parts.status.as_u16(),
        status_description: (ingress.source == EventSource::Alb).then(|| parts.status.to_string()),
        headers,
        body,
        is_base64_encoded,
    })
}

/// The head of a streamed answer. Lambda accepts one value for each name here, in ASCII.
fn prelude(status_code: StatusCode, headers: &HeaderMap) -> MetadataPrelude {
    let headers_once = joined(headers, |name| *name != SET_COOKIE)
        .into_iter()
        .filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)))
        .collect();
    MetadataPrelude {
        status_code,
        headers: headers_once,
        cookies: texts(headers, &SET_COOKIE).collect(),
    }
}

/// Each header once, with repeated values as a list. That means the same, except for cookies.
fn joined(headers: &HeaderMap, wanted: impl Fn(&HeaderName) -> bool) -> BTreeMap<String, String> {
    headers
        .keys()
        .filter(|name| wanted(name))
        .map(|name| {
            let values: Vec<_> = texts(headers, name).collect();
            (name.to_string(), values.join(", "))
        })
        .collect()
}

/// As [`joined`], but with the last cookie: the load balancer accepts only one in this mode.
fn single(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut single = joined(headers, |name| *name != SET_COOKIE);
    if let Some(cookie) = texts(headers, &SET_COOKIE).last() {
        single.insert(SET_COOKIE.to_string(), cookie);
    }
    single
}

fn texts<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> + use<'h> {
    headers
        .get_all(name)
        .into_iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
