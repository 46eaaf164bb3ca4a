use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use http_body_util::{BodyExt, Full};
use keyway_http::{BasePath, Body, IamCaller, Peer};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

use crate::ingress::EventSource;
use crate::{alb, http_api, rest_api};

/// Why an event is refused. No message repeats a value of the event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("this function answers {}, and this is none", .0.events())]
    OtherEvent(EventSource),
    #[error("the method is no HTTP method")]
    Method,
    #[error("the path and query are no HTTP request's, or are too long")]
    Target,
    #[error("a header has the name \"{0}\", which no HTTP header can have")]
    HeaderName(String),
    #[error("the header {0} has a value that no HTTP header can have")]
    HeaderValue(HeaderName),
    #[error("there are too many headers")]
    TooManyHeaders,
    #[error("the body is said to be base64 and is not")]
    Body,
}

/// An event of any source. Each source's reader uses the members that its events have, and refuses an event that lacks
/// one of them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    /// REST APIs and load balancers send none; emulators of REST APIs send 1.0.
    pub(crate) version: Option<String>,
    /// The method, of REST APIs and load balancers.
    pub(crate) http_method: Option<String>,
    /// The path, of REST APIs and load balancers.
    pub(crate) path: Option<String>,
    /// The path, of payload format 2.0.
    pub(crate) raw_path: Option<String>,
    pub(crate) raw_query_string: Option<String>,
    pub(crate) query_string_parameters: Option<Pairs<String>>,
    pub(crate) multi_value_query_string_parameters: Option<Pairs<Vec<String>>>,
    pub(crate) cookies: Option<Vec<String>>,
    pub(crate) headers: Option<Pairs<String>>,
    pub(crate) multi_value_headers: Option<Pairs<Vec<String>>>,
    pub(crate) request_context: Context,
    pub(crate) body: Option<String>,
    pub(crate) is_base64_encoded: Option<bool>,
}

/// What a gateway says about a request. Clients cannot write it.
#[derive(Deserialize)]
pub(crate) struct Context {
    /// Only in payload format 2.0.
    pub(crate) http: Option<http_api::Http>,
    pub(crate) authentication: Option<http_api::Authentication>,
    pub(crate) authorizer: Option<http_api::Authorizer>,
    /// The path with the stage, of REST APIs.
    pub(crate) path: Option<String>,
    /// Only from REST APIs.
    pub(crate) identity: Option<rest_api::Identity>,
    /// Only from load balancers.
    pub(crate) elb: Option<alb::LoadBalancer>,
}

impl Event {
    /// Parses the event. The error does not say what is wrong, because serde's messages repeat wrong values.
    pub(crate) fn parse(event: &str, source: EventSource) -> Result<Self, Refusal> {
        serde_json::from_str(event).map_err(|_| Refusal::OtherEvent(source))
    }

    /// Whether the event has payload format 2.0.
    pub(crate) fn is_version_two(&self) -> bool {
        self.version.as_deref() == Some("2.0")
    }
}

/// A JSON object's members in their order, repeated ones included.
pub(crate) struct Pairs<T>(pub(crate) Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Pairs<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Pairs<T>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = members.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// The members of the object with lists if there is one, else of the object with single values.
/// A gateway that fills both puts only the last of repeated values into the latter.
pub(crate) fn members(
    multi: Option<Pairs<Vec<String>>>,
    single: Option<Pairs<String>>,
) -> Vec<(String, String)> {
    match (multi, single) {
        (Some(Pairs(multi)), _) => multi
            .into_iter()
            .flat_map(|(name, values)| values.into_iter().map(move |value| (name.clone(), value)))
            .collect(),
        (None, Some(Pairs(single))) => single,
        (None, None) => Vec::new(),
    }
}

/// The headers, repeated ones in their order.
pub(crate) fn headers(members: Vec<(String, String)>) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::new();
    for (name, value) in members {
        push_header(&mut headers, &name, value)?;
    }
    Ok(headers)
}

pub(crate) fn push_header(
    headers: &mut HeaderMap,
    name: &str,
    value: String,
) -> Result<(), Refusal> {
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
        let start: String = name.chars().take(64).collect();
        return Err(Refusal::HeaderName(start.escape_debug().to_string()));
    };
    // Accepts bytes beyond ASCII, as on a socket.
    let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) else {
        return Err(Refusal::HeaderValue(name));
    };
    match headers.try_append(name, value) {
        Ok(_) => Ok(()),
        Err(_) => Err(Refusal::TooManyHeaders),
    }
}

/// The address that a gateway says the request came from.
///
/// Loopback addresses are trusted, and no request from one comes through a gateway. An event that claims one gets the
/// unspecified address, as does one without an address (such as the console's test calls).
pub(crate) fn address(claimed: Option<&str>) -> IpAddr {
    let claimed = claimed.unwrap_or_default().trim();
    let address = claimed
        .parse()
        .or_else(|_| claimed.parse().map(|socket: SocketAddr| socket.ip()));
    match address.map(|address| address.to_canonical()) {
        Ok(address) if !address.is_loopback() => address,
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// The IAM caller, if the gateway gives all three values.
pub(crate) fn iam_caller(
    arn: Option<String>,
    account_id: Option<String>,
    access_key_id: Option<String>,
) -> Option<IamCaller> {
    let said = |text: &String| !text.is_empty();
    Some(IamCaller {
        arn: arn.filter(said)?,
        account_id: account_id.filter(said)?,
        access_key_id: access_key_id.filter(said)?,
    })
}

/// Characters that a path must not hold, and that a gateway may have decoded. They are encoded again. `%` is not among
/// them, so that encoded parts stay as they were signed; nor is the backslash, which clients do send.
const NOT_IN_PATHS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Only the characters that [`Uri`] refuses in a query, because gateways pass queries on as they were sent.
const NOT_IN_QUERIES: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>');

/// All characters but the unreserved ones, as in signatures.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A query of values that the gateway has decoded, encoded as signatures require.
pub(crate) fn encoded_query(members: &[(String, String)]) -> String {
    joined(members.iter().map(|(name, value)| {
        let name = utf8_percent_encode(name, RESERVED);
        format!("{name}={}", utf8_percent_encode(value, RESERVED))
    }))
}

/// A query of values that the gateway has not decoded.
pub(crate) fn raw_query(members: &[(String, String)]) -> String {
    joined(
        members
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    )
}

fn joined(pairs: impl Iterator<Item = String>) -> String {
    pairs.collect::<Vec<_>>().join("&")
}

/// What the events of all sources have in common.
pub(crate) struct Facts {
    pub(crate) method: String,
    /// The stage or base path that the gateway removed from the path; it is part of what was signed.
    pub(crate) base: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<String>,
    pub(crate) is_base64: bool,
    pub(crate) peer: Peer,
}

impl Facts {
    pub(crate) fn into_request(
        self,
        stage: Option<&str>,
    ) -> Result<(http::Request<Body>, Peer), Refusal> {
        let method = Method::from_bytes(self.method.as_bytes()).map_err(|_| Refusal::Method)?;
        if !self.path.starts_with('/') {
            return Err(Refusal::Target);
        }
        let base = utf8_percent_encode(&self.base, NOT_IN_PATHS).to_string();
        let path = base.clone() + &utf8_percent_encode(&self.path, NOT_IN_PATHS).to_string();
        let base = if base.is_empty() {
            stage_of(&path, stage)
        } else {
            Some(base)
        };
        let mut target = path;
        if !self.query.is_empty() {
            target.push('?');
            target.extend(utf8_percent_encode(&self.query, NOT_IN_QUERIES));
        }
        let target = PathAndQuery::from_maybe_shared(Bytes::from(target));
        let body = match self.body {
            Some(body) if self.is_base64 => STANDARD.decode(body).map_err(|_| Refusal::Body)?,
            Some(body) => body.into_bytes(),
            None => Vec::new(),
        };
        let body = Full::new(Bytes::from(body)).map_err(lambda_runtime::Error::from);
        let mut request = http::Request::new(Box::pin(body) as Body);
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from(target.map_err(|_| Refusal::Target)?);
        *request.headers_mut() = self.headers;
        if let Some(base) = base {
            request.extensions_mut().insert(BasePath(base));
        }
        Ok((request, self.peer))
    }
}

/// The configured stage, if it is the path's first segment.
fn stage_of(path: &str, stage: Option<&str>) -> Option<String> {
    let stage = stage?.trim_matches('/');
    let rest = path.strip_prefix('/')?.strip_prefix(stage)?;
    let is_whole = !stage.is_empty() && (rest.is_empty() || rest.starts_with('/'));
    is_whole.then(|| format!("/{stage}"))
}
