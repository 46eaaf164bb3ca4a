//! The headers that are read to verify a signature.

use http::{HeaderMap, HeaderValue};

use super::SignatureError;

/// These headers of a request, found in one pass over all of them.
#[derive(Default)]
pub(super) struct Received<'r> {
    pub(super) authorization: Single<'r>,
    pub(super) host: Single<'r>,
    pub(super) date: Single<'r>,
    pub(super) amz_date: Single<'r>,
    pub(super) security_token: Single<'r>,
    pub(super) content_sha256: Single<'r>,
    pub(super) forwarded_proto: Single<'r>,
    /// Whether the body is in chunks with a signature each.
    pub(super) is_chunked: bool,
}

impl<'r> Received<'r> {
    pub(super) fn of(headers: &'r HeaderMap) -> Self {
        let mut received = Self::default();
        for (name, value) in headers {
            let header = match name.as_str() {
                "authorization" => &mut received.authorization,
                "host" => &mut received.host,
                "date" => &mut received.date,
                "x-amz-date" => &mut received.amz_date,
                "x-amz-security-token" => &mut received.security_token,
                "x-amz-content-sha256" => &mut received.content_sha256,
                "x-forwarded-proto" => &mut received.forwarded_proto,
                "content-encoding" => {
                    received.is_chunked |= is_chunked(value);
                    continue;
                }
                _ => continue,
            };
            header.add(value);
        }
        received
    }
}

fn is_chunked(value: &HeaderValue) -> bool {
    let mut codings = value.as_bytes().split(|byte| *byte == b',');
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"aws-chunked"))
}

/// A header that may occur only once.
#[derive(Default, Clone, Copy)]
pub(super) enum Single<'r> {
    #[default]
    Absent,
    Once(&'r HeaderValue),
    Repeated,
}

impl<'r> Single<'r> {
    fn add(&mut self, value: &'r HeaderValue) {
        *self = match self {
            Self::Absent => Self::Once(value),
            Self::Once(_) | Self::Repeated => Self::Repeated,
        };
    }

    pub(super) fn is_there(self) -> bool {
        !matches!(self, Self::Absent)
    }

    /// The value without the spaces around it. `what` names the header in errors.
    pub(super) fn text(self, what: &'static str) -> Result<Option<&'r str>, SignatureError> {
        let value = match self {
            Self::Absent => return Ok(None),
            Self::Once(value) => value,
            Self::Repeated => return Err(SignatureError::Repeated(what)),
        };
        // No header value has control characters except the tab, so all ASCII in it is visible. `to_str` looks at
        // each byte alone, and these two checks look at many at once.
        let text = str::from_utf8(value.as_bytes()).ok();
        let text = text.filter(|text| text.is_ascii());
        let text = text.ok_or(SignatureError::Malformed {
            what,
            expected: "visible ASCII characters",
        })?;
        Ok(Some(text.trim_matches(' ')))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn value_is_accepted_where_to_str_accepts_it() {
        for byte in 0..=u8::MAX {
            let Ok(value) = HeaderValue::from_bytes(&[b'a', byte, b'z']) else {
                continue;
            };
            let text = Single::Once(&value).text("x").ok().flatten();
            assert_eq!(text, value.to_str().ok(), "{byte:#x}");
        }
    }

    #[test]
    fn header_given_twice_is_refused_and_absent_header_is_none() {
        let mut headers = HeaderMap::new();
        for value in ["20260302T050607Z", "20260302T050608Z"] {
            let name = HeaderName::from_static("x-amz-date");
            headers.append(name, HeaderValue::from_static(value));
        }
        let received = Received::of(&headers);
        let refused = received.amz_date.text("x-amz-date");
        assert_eq!(refused, Err(SignatureError::Repeated("x-amz-date")));
        assert_eq!(received.date.text("the Date header"), Ok(None));
        assert!(received.amz_date.is_there() && !received.date.is_there());
    }

    #[test]
    fn chunked_body_is_found_among_several_codings() {
        let is_chunked = |codings: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for coding in codings {
                headers.append("content-encoding", HeaderValue::from_static(coding));
            }
            Received::of(&headers).is_chunked
        };
        assert!(is_chunked(&["gzip, AWS-chunked"]));
        assert!(is_chunked(&["aws-chunked", "gzip"]));
        assert!(!is_chunked(&["gzip"]));
        assert!(!is_chunked(&[]));
    }
}
