//! Status, header and text of the pipeline's rejections.

use std::borrow::Cow;
use std::convert::Infallible;

use bytes::Bytes;
use http::header::{ALLOW, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::pipeline::{Rejection, RequestLine};

/// `Retry-After`: clients may retry after one second.
pub const ONE_SECOND: HeaderValue = HeaderValue::from_static("1");

impl<E> Rejection<E> {
    /// Returns the dialect's own error.
    ///
    /// # Errors
    /// The pipeline's rejection, for which the dialect has no error yet.
    pub fn by_dialect(self) -> Result<E, Rejection<Infallible>> {
        Err(match self {
            Self::By(error) => return Ok(error),
            Self::NoRoute => Rejection::NoRoute,
            Self::OtherMethods(allow) => Rejection::OtherMethods(allow),
            Self::BodyTooLarge { limit } => Rejection::BodyTooLarge { limit },
            Self::BodyBroken => Rejection::BodyBroken,
            Self::BodyEncoded => Rejection::BodyEncoded,
            Self::Unreadable(unreadable) => Rejection::Unreadable(unreadable),
            Self::Overloaded => Rejection::Overloaded,
            Self::Malformed { part, error } => Rejection::Malformed { part, error },
            Self::Panicked => Rejection::Panicked,
            Self::Unrecorded => Rejection::Unrecorded,
        })
    }

    /// The error response of a page without an error format: a status without a body.
    ///
    /// # Errors
    /// The page's own error, which only the page can answer.
    pub fn bare(self) -> Result<Response<Bytes>, E> {
        let rejection = match self.by_dialect() {
            Ok(error) => return Err(error),
            Err(rejection) => rejection,
        };
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = rejection.status();
        response.headers_mut().extend(rejection.header());
        Ok(response)
    }
}

impl Rejection<Infallible> {
    /// The HTTP status.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::OtherMethods(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyBroken | Self::Malformed { .. } => StatusCode::BAD_REQUEST,
            Self::BodyEncoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unreadable(unreadable) => unreadable.status,
            Self::Overloaded | Self::Unrecorded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
            Self::By(never) => match *never {},
        }
    }

    /// The header that belongs to the status: `Allow` or `Retry-After`.
    pub fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::OtherMethods(allow) => {
                let allow = HeaderValue::from_str(allow).ok()?;
                Some((ALLOW, allow))
            }
            Self::Overloaded | Self::Unrecorded => Some((RETRY_AFTER, ONE_SECOND)),
            _ => None,
        }
    }

    /// The text, for dialects whose clients expect no specific text.
    pub fn text(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::NoRoute => "there is no such endpoint",
            Self::OtherMethods(allow) => return format!("this endpoint takes {allow}").into(),
            Self::BodyTooLarge { limit } => {
                return format!("the body is longer than {limit} bytes").into();
            }
            Self::BodyBroken => "the body broke off",
            Self::BodyEncoded => {
                "Content-Encoding: send the body as it is, without a content coding"
            }
            Self::Unreadable(unreadable) => unreadable.reason(),
            Self::Overloaded => "too many large requests at once; try again later",
            Self::Malformed { part, error } => return format!("the {part} {error}").into(),
            Self::Panicked => "the request failed unexpectedly",
            Self::Unrecorded => {
                "the audit log is not available, and without it this is not done; try again later"
            }
            Self::By(never) => match *never {},
        })
    }
}

impl<'a> RequestLine<'a> {
    /// The path, as an error response repeats it: at most 300 characters, because the client chooses its length.
    pub fn resource(&self) -> &'a str {
        const LONGEST: usize = 300;
        let end = self.raw_path.char_indices().nth(LONGEST);
        end.and_then(|(end, _)| self.raw_path.get(..end))
            .unwrap_or(self.raw_path)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn resource(raw_path: &str) -> &str {
        let line = RequestLine {
            request_id: "r",
            method: &Method::GET,
            raw_path,
            path: raw_path,
            prefix: None,
        };
        line.resource()
    }

    #[test]
    fn resource_of_more_than_300_characters_is_cut() {
        let path = "\u{e9}".repeat(300);
        assert_eq!(resource(&path), path);
        assert_eq!(resource(&format!("{path}x")), path);
    }

    #[test]
    fn dialects_own_rejection_is_no_rejection_of_the_pipeline() {
        assert_eq!(Rejection::By(7).by_dialect().unwrap(), 7);
        let rejection = Rejection::<u8>::BodyTooLarge { limit: 7 };
        let rejection = rejection.by_dialect().unwrap_err();
        assert_eq!(rejection.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(rejection.text(), "the body is longer than 7 bytes");
    }

    #[test]
    fn bare_rejection_has_the_header_of_its_status() {
        for (rejection, name, value) in [
            (
                Rejection::OtherMethods("GET, PUT".to_owned()),
                ALLOW,
                "GET, PUT",
            ),
            (Rejection::Overloaded, RETRY_AFTER, "1"),
        ] {
            let answer = Rejection::<u8>::bare(rejection).unwrap();
            assert_eq!(answer.headers()[name], value);
        }
    }
}
