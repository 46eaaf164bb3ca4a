//! Cross-origin requests from browsers, such as those of a console on another origin.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

/// The origins whose pages may read answers: none, these, or any.
///
/// Credentials are never allowed: requests carry their own signature, so cookies are not needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cors {
    /// None. Browsers then withhold answers from every page.
    #[default]
    Off,
    /// These, as browsers write them: `https://console.example.com`, with a port unless it is the scheme's default.
    Origins(Vec<String>),
    /// Any.
    Any,
}

/// An entry of the list is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an origin such as https://console.example.com or http://localhost:3000, nor `*`"
)]
pub struct NotAnOrigin(String);

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE, HEAD");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, x-amz-request-id, content-type, content-length, etag, retry-after",
);
/// For how many seconds a browser may cache a preflight response.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const VARIES: HeaderValue = HeaderValue::from_static("origin");
const LONGEST_LIST: usize = 4096;

impl Cors {
    /// Parses comma-separated origins, or `*`. An empty list is [`Cors::Off`].
    ///
    /// # Errors
    /// [`NotAnOrigin`] with the entry.
    pub fn parse(list: &str) -> Result<Self, NotAnOrigin> {
        let entries: Vec<&str> = list
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .collect();
        if entries.contains(&"*") {
            return Ok(Self::Any);
        }
        let origins = entries
            .iter()
            .map(|entry| origin(entry).ok_or_else(|| NotAnOrigin((*entry).to_owned())))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(if origins.is_empty() {
            Self::Off
        } else {
            Self::Origins(origins)
        })
    }

    /// The request's origin, if its page may read answers.
    pub(crate) fn admitted(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let admitted = match self {
            Self::Off => false,
            Self::Any => true,
            Self::Origins(origins) => origins
                .iter()
                .any(|known| known.as_bytes() == origin.as_bytes()),
        };
        admitted.then(|| origin.clone())
    }

    /// The answer to a preflight request; `None` for any other request.
    pub(crate) fn preflight(method: &Method, headers: &HeaderMap) -> Option<Response<Bytes>> {
        if method != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        answer.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        // Clients may send any header that they sign.
        if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS)
            && wanted.len() <= LONGEST_LIST
        {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        Some(response)
    }

    /// Lets the page of this origin read the answer.
    pub(crate) fn admit(origin: HeaderValue, answer: &mut HeaderMap) {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        answer.append(VARY, VARIES);
    }
}

/// The origin as browsers write it: in lower case, without the scheme's default port. `None` if it is not an origin.
fn origin(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/').to_ascii_lowercase();
    let (scheme, authority, default_port) = match text.strip_prefix("https://") {
        Some(authority) => ("https", authority, ":443"),
        None => ("http", text.strip_prefix("http://")?, ":80"),
    };
    let host = authority.strip_suffix(default_port).unwrap_or(authority);
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    (!host.is_empty() && host.bytes().all(plain)).then(|| format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_of_origins() {
        assert_eq!(Cors::parse(""), Ok(Cors::Off));
        assert_eq!(Cors::parse(" , "), Ok(Cors::Off));
        assert_eq!(Cors::parse("https://a.example, *"), Ok(Cors::Any));
        assert_eq!(
            Cors::parse("https://A.example/,http://localhost:3000,http://[::1]:80"),
            Ok(Cors::Origins(
                ["https://a.example", "http://localhost:3000", "http://[::1]"]
                    .map(str::to_owned)
                    .to_vec()
            ))
        );
        for bad in [
            "a.example",
            "https://",
            "https://:443",
            "https://a/b",
            "ftp://a",
            "null",
            "https://a b",
            "https://*.example",
        ] {
            assert!(Cors::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn origin_with_its_default_port_equals_the_origin_without() {
        for (given, sent) in [
            ("https://x:443", "https://x"),
            (
                "HTTPS://Console.Example.com:443/",
                "https://console.example.com",
            ),
            ("http://x:80", "http://x"),
            ("http://[::1]:80", "http://[::1]"),
            // The other scheme's default port stays.
            ("https://x:80", "https://x:80"),
            ("http://x:443", "http://x:443"),
            ("https://x:8443", "https://x:8443"),
        ] {
            let cors = Cors::parse(given).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, sent.parse().unwrap());
            assert!(cors.admitted(&headers).is_some(), "{given}: {sent}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_static("https://x"));
        for other in ["http://x", "https://x:80", "https://x:4430"] {
            let cors = Cors::parse(other).unwrap();
            assert!(cors.admitted(&headers).is_none(), "{other}");
        }
    }
}
