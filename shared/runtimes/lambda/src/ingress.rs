use std::fmt;
use std::str::FromStr;

use keyway_http::{Body, Peer};

use crate::event::{Event, Refusal};
use crate::{alb, http_api, rest_api};

/// The service that sends a function its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventSource {
    /// An HTTP API of API Gateway, with payload format 2.0.
    HttpApi,
    /// A REST API of API Gateway.
    RestApi,
    /// An application load balancer.
    Alb,
    /// The function's own URL, whose events have the shape of an HTTP API's.
    FunctionUrl,
    /// An HTTP API and a REST API. The event's outermost members, which clients cannot write, say which one sent it. Both
    /// vouch for the same things in the same place.
    ApiGateway,
}

impl EventSource {
    const NAMES: [(&str, Self); 5] = [
        ("http-api", Self::HttpApi),
        ("rest-api", Self::RestApi),
        ("alb", Self::Alb),
        ("function-url", Self::FunctionUrl),
        ("api-gateway", Self::ApiGateway),
    ];

    /// The kind of event in words.
    pub(crate) const fn events(self) -> &'static str {
        match self {
            Self::HttpApi => "events of an API Gateway HTTP API (payload format 2.0)",
            Self::RestApi => "events of an API Gateway REST API",
            Self::Alb => "events of an application load balancer",
            Self::FunctionUrl => "events of a Lambda function URL",
            Self::ApiGateway => {
                "events of an API Gateway HTTP API (payload format 2.0) or REST API"
            }
        }
    }
}

/// There is no event source of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no event source; there are http-api, rest-api, alb, function-url and api-gateway"
)]
pub struct UnknownEventSource(String);

impl FromStr for EventSource {
    type Err = UnknownEventSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::NAMES
            .into_iter()
            .find_map(|(name, source)| (name == text).then_some(source))
            .ok_or_else(|| UnknownEventSource(text.to_owned()))
    }
}

impl fmt::Display for EventSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES
            .into_iter()
            .find_map(|(name, source)| (source == *self).then_some(name));
        formatter.write_str(name.unwrap_or_default())
    }
}

/// How a function is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingress {
    /// The sender of the events; events of others are refused.
    pub source: EventSource,
    /// The prefix of the site's paths, such as `prod` for an API's named stage. Paths without it are served as they
    /// are. REST APIs state it in their events, except behind a custom domain with a base path.
    pub stage: Option<String>,
    /// Whether a function URL's invoke mode is response streaming.
    pub streaming: bool,
}

/// How the sender of an event expects the headers of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Each header once, and the cookies as a list of their own.
    WithCookies,
    /// A list of values for each header.
    Lists,
    /// Each header once, the cookie too.
    Once,
}

/// A received event.
pub(crate) struct Received {
    /// The request that the event carries, and who sent it.
    pub(crate) request: Result<(http::Request<Body>, Peer), Refusal>,
    /// The shape of the answer, also to a refused event.
    pub(crate) shape: Shape,
}

impl Ingress {
    /// Parses and reads the event. Events are parsed nowhere else.
    pub(crate) fn read(&self, event: &str) -> Received {
        let event = Event::parse(event, self.source);
        Received {
            shape: self.shape(event.as_ref().ok()),
            request: event.and_then(|event| self.request(event)),
        }
    }

    /// The answer's shape. If the event does not parse, its sender is unknown and the source alone decides.
    fn shape(&self, event: Option<&Event>) -> Shape {
        match self.source {
            EventSource::HttpApi | EventSource::FunctionUrl => Shape::WithCookies,
            EventSource::ApiGateway if event.is_some_and(Event::is_version_two) => {
                Shape::WithCookies
            }
            EventSource::RestApi | EventSource::ApiGateway => Shape::Lists,
            // The target group has multi-value headers turned on, and expects them in the answer too.
            EventSource::Alb if event.is_some_and(|event| event.multi_value_headers.is_some()) => {
                Shape::Lists
            }
            EventSource::Alb => Shape::Once,
        }
    }

    fn request(&self, event: Event) -> Result<(http::Request<Body>, Peer), Refusal> {
        let facts = match self.source {
            EventSource::HttpApi | EventSource::FunctionUrl => http_api::read(event, self.source),
            EventSource::RestApi => rest_api::read(event, self.source),
            EventSource::Alb => alb::read(event),
            EventSource::ApiGateway if event.is_version_two() => http_api::read(event, self.source),
            EventSource::ApiGateway => rest_api::read(event, self.source),
        };
        facts?.into_request(self.stage.as_deref())
    }
}
