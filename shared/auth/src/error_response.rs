//! The parts of an error response that every dialect has: status, class, header, and the fault that goes only to the log.
//! A dialect adds its content, a table from errors to it, and the format in which it writes it.

use std::convert::Infallible;
use std::fmt::Debug;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use keyway_domain::access::Caller;
use keyway_domain::{Fault, InvalidId, KmsError};
use keyway_http::{ONE_SECOND, Rejection, class_of};

/// A dialect's table from the errors of operations to error responses.
pub trait ErrorTable: Debug + Sized + Send + Sync + 'static {
    /// The content of an error response in this dialect. [`Coded`] serves dialects whose errors have a code.
    type Content: Debug + Send;

    /// The error response to `error`.
    fn of_kms(error: KmsError) -> ErrorResponse<Self>;
}

/// An error response before the dialect writes it.
#[derive(Debug)]
pub struct ErrorResponse<T: ErrorTable> {
    /// The status.
    pub status: StatusCode,
    /// The content.
    pub content: T::Content,
    class: &'static str,
    header: Option<Box<(HeaderName, HeaderValue)>>,
    fault: Option<Box<Fault>>,
}

impl<T: ErrorTable> ErrorResponse<T> {
    /// An error response whose class follows from its status.
    pub fn with_content(status: StatusCode, content: T::Content) -> Self {
        Self {
            status,
            content,
            class: class_of(status),
            header: None,
            fault: None,
        }
    }

    /// The class for metrics and the audit log: one of a few words.
    pub const fn class(&self) -> &'static str {
        self.class
    }

    /// Sets the class.
    #[must_use]
    pub const fn with_class(mut self, class: &'static str) -> Self {
        self.class = class;
        self
    }

    /// Sets the header. It replaces an earlier one.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// Sets the header that tells clients to retry after a second.
    #[must_use]
    pub fn retry_later(self) -> Self {
        self.with_header(RETRY_AFTER, ONE_SECOND)
    }

    /// Sets the fault that caused it. Only the log shows it.
    #[must_use]
    pub fn caused_by(mut self, fault: impl Into<Box<Fault>>) -> Self {
        self.fault = Some(fault.into());
        self
    }

    /// Returns the content, for an item of an answer that is not an error as a whole. The caller's audit context gets the
    /// class, and the log the fault.
    pub fn into_item(self, caller: &Caller, request_id: &str) -> T::Content {
        caller.audit().refused(self.class);
        self.log(request_id);
        self.content
    }

    /// Sets the status and the header of `response`, which the dialect wrote. The fault goes to the log.
    pub fn finish(self, response: &mut Response<Bytes>, request_id: &str) {
        self.log(request_id);
        *response.status_mut() = self.status;
        let header = self.header.map(|header| *header);
        response.headers_mut().extend(header);
    }

    fn log(&self, request_id: &str) {
        if let Some(fault) = &self.fault {
            fault.log(request_id);
        }
    }
}

impl<T: ErrorTable> From<InvalidId> for ErrorResponse<T> {
    fn from(error: InvalidId) -> Self {
        KmsError::from(error).into()
    }
}

impl<T: ErrorTable> From<KmsError> for ErrorResponse<T> {
    fn from(error: KmsError) -> Self {
        let class = error.class();
        T::of_kms(error).with_class(class)
    }
}

/// The content of an error response that has a code and a text.
#[derive(Debug)]
pub struct Coded {
    /// The code, by which clients distinguish errors.
    pub code: &'static str,
    /// The text, for people.
    pub message: String,
}

impl<T: ErrorTable<Content = Coded>> ErrorResponse<T> {
    /// An error response with this status, code and text.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::with_content(status, Coded { code, message })
    }

    /// 400.
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 403.
    pub fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// 404.
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 409.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 500.
    pub fn internal(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, message)
    }

    /// 501.
    pub fn not_implemented(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, code, message)
    }

    /// 503.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// The error response to a rejection of the pipeline, with its status and header. `message` replaces the usual text.
    pub fn of_pipeline(
        rejection: &Rejection<Infallible>,
        code: &'static str,
        message: Option<&'static str>,
    ) -> Self {
        let message = message.map_or_else(|| rejection.text(), Into::into);
        let response = Self::new(rejection.status(), code, message);
        match rejection.header() {
            Some((name, value)) => response.with_header(name, value),
            None => response,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ALLOW, CONTENT_TYPE};

    use super::*;

    #[derive(Debug)]
    struct Table;

    impl ErrorTable for Table {
        type Content = Coded;

        fn of_kms(_: KmsError) -> ErrorResponse<Self> {
            ErrorResponse::unavailable("Away", "try again")
                .retry_later()
                .caused_by(Fault::plain("the secret cause"))
        }
    }

    #[test]
    fn error_of_an_operation_gets_its_own_class() {
        let error = ErrorResponse::<Table>::forbidden("Denied", "no");
        assert_eq!(error.class(), class_of(StatusCode::FORBIDDEN));
        let error = ErrorResponse::<Table>::from(KmsError::NotRunning);
        assert_eq!(error.class(), KmsError::NotRunning.class());
    }

    #[test]
    fn finished_response_has_status_and_header_and_no_fault() {
        let error = ErrorResponse::<Table>::from(KmsError::NotRunning);
        let mut response = keyway_http::uncached("text/plain", error.content.message.clone());
        error.finish(&mut response, "r");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain");
        assert_eq!(response.body(), "try again");
    }

    #[test]
    fn rejection_of_the_pipeline_keeps_its_header_with_another_text() {
        let methods = Rejection::OtherMethods("GET".to_owned());
        let error = ErrorResponse::<Table>::of_pipeline(&methods, "NotHere", Some("not so"));
        let mut response = Response::new(Bytes::new());
        assert_eq!(
            (error.content.code, error.content.message.as_str()),
            ("NotHere", "not so")
        );
        error.finish(&mut response, "r");
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[ALLOW], "GET");
    }
}
