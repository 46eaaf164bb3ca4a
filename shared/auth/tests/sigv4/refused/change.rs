//! Changes to a signed request, as data.

use http::{HeaderName, HeaderValue};
use keyway_auth::sigv4::StatusClass;
use keyway_http::Request;

/// A change to a request whose signature was accepted.
pub(super) enum Change {
    /// The header is gone.
    Without(&'static str),
    /// The header has this value alone.
    Header(&'static str, &'static str),
    /// The header is there once more, with this value.
    Again(&'static str, &'static str),
    /// In the `Authorization` header, the second text replaces the first.
    Authorization(&'static str, &'static str),
    /// In the query, the second text replaces the first.
    Query(&'static str, &'static str),
    /// The query ends in this text.
    QueryEnd(&'static str),
    /// The path ends in this text.
    PathEnd(&'static str),
    /// The signature covers a declaration of the payload, which has this value.
    Declared(&'static str),
    /// Whatever the other changes cannot say.
    By(fn(&mut Request)),
}

/// Changes that are refused with the same class and text.
pub(super) type Refused = (StatusClass, &'static str, &'static [Change]);

impl Change {
    pub(super) fn apply(&self, request: &mut Request) {
        match *self {
            Self::Without(name) => drop(request.headers.remove(name).unwrap()),
            Self::Header(name, value) => set(request, name, value),
            Self::Again(name, value) => {
                assert!(request.headers.contains_key(name), "{name}");
                request.headers.append(name, value.parse().unwrap());
            }
            Self::Authorization(from, to) => authorization(request, from, to),
            Self::Query(from, to) => {
                assert!(request.raw_query.contains(from), "{}", request.raw_query);
                request.raw_query = request.raw_query.replace(from, to);
            }
            Self::QueryEnd(end) => request.raw_query.push_str(end),
            Self::PathEnd(end) => request.raw_path.push_str(end),
            Self::Declared(value) => declare(request, value),
            Self::By(change) => change(request),
        }
    }
}

pub(super) fn set(request: &mut Request, name: &'static str, value: &str) {
    let value: HeaderValue = value.parse().unwrap();
    request.headers.insert(HeaderName::from_static(name), value);
}

/// Replaces a text in the `Authorization` header.
pub(super) fn authorization(request: &mut Request, from: &str, to: &str) {
    let value = request.headers["authorization"].to_str().unwrap();
    assert!(value.contains(from), "{value}");
    let value = value.replace(from, to);
    set(request, "authorization", &value);
}

/// Declares the payload in a header that the signature covers. The signature itself is checked later.
pub(super) fn declare(request: &mut Request, value: &str) {
    authorization(request, ";x-amz-date", ";x-amz-content-sha256;x-amz-date");
    set(request, "x-amz-content-sha256", value);
}
