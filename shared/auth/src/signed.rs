//! Authentication for every dialect whose requests have AWS Signature Version 4.

use std::borrow::Borrow;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, request};
use keyway_domain::access::Caller;
use keyway_http::{Dialect, Operation, Proof, Rejection, Request, RequestLine, Route, Trace};

use crate::sigv4::{SERVICES, SignatureError};
use crate::{AuthError, Authenticator, Coded, ErrorResponse, ErrorTable, trace};

/// The parts of a dialect with signed requests that differ between dialects.
pub trait SignedApi: SignedErrors {
    /// The dialect's name in the audit log and the metrics: one short word.
    const NAME: &'static str;
    /// The services that its requests may be signed for.
    const SERVICES: &'static [&'static str] = SERVICES;

    /// The caller type of its handlers.
    type Caller: From<Caller> + Borrow<Caller> + Send + 'static;
    /// The action that a route needs permission for.
    type Action: Copy + Send + Sync;

    /// Checks whether any policy can permit the caller this action.
    ///
    /// # Errors
    /// The error response.
    fn authorize(caller: &Caller, action: Self::Action) -> Result<(), ErrorResponse<Self>>;

    /// The operation of a request of this route with this head.
    fn operation(route: &Route<Signed<Self>>, head: &request::Parts) -> Operation;

    /// What the observers record of the caller.
    fn trace(caller: &Self::Caller) -> Option<Box<dyn Trace>> {
        trace(caller.borrow())
    }
}

/// The dialect's errors of authentication and the pipeline, and the format of its error responses.
pub trait SignedErrors: ErrorTable<Content = Coded> {
    /// The header with the id of a refused request, if the dialect has one.
    const REQUEST_ID: Option<HeaderName> = None;

    /// The error response to a signature that is not accepted.
    fn of_signature(error: &SignatureError) -> ErrorResponse<Self>;

    /// The error response to a rejection of the pipeline.
    fn of_pipeline(
        rejection: &Rejection<Infallible>,
        line: &RequestLine<'_>,
    ) -> ErrorResponse<Self>;

    /// The body in this dialect's format, with its content type. The caller sets the status and the other headers.
    fn write(response: &ErrorResponse<Self>, line: &RequestLine<'_>) -> Response<Bytes>;
}

/// The dialect of a [`SignedApi`].
pub struct Signed<A> {
    authenticator: Arc<Authenticator>,
    api: PhantomData<A>,
}

impl<A: SignedApi> Signed<A> {
    /// The dialect, with this authenticator.
    pub const fn new(authenticator: Arc<Authenticator>) -> Self {
        Self {
            authenticator,
            api: PhantomData,
        }
    }
}

impl<A: SignedApi> Dialect for Signed<A> {
    type Caller = A::Caller;
    type Action = A::Action;
    type Error = ErrorResponse<A>;

    fn name(&self) -> &'static str {
        A::NAME
    }

    async fn authenticate(
        &self,
        request: &Request,
    ) -> Result<Proof<A::Caller, ErrorResponse<A>>, ErrorResponse<A>> {
        let proof = self
            .authenticator
            .authenticate(request, A::SERVICES)
            .await?;
        Ok(proof.map(A::Caller::from))
    }

    fn is_known(caller: &A::Caller) -> bool {
        caller.borrow().is_known()
    }

    fn authorize(
        &self,
        caller: A::Caller,
        action: A::Action,
        _: &str,
    ) -> Result<A::Caller, ErrorResponse<A>> {
        A::authorize(caller.borrow(), action)?;
        Ok(caller)
    }

    fn operation(&self, route: &Route<Self>, head: &request::Parts) -> Operation {
        A::operation(route, head)
    }

    fn trace(&self, caller: &A::Caller) -> Option<Box<dyn Trace>> {
        A::trace(caller)
    }

    fn class(error: &ErrorResponse<A>) -> &'static str {
        error.class()
    }

    fn refuse(
        &self,
        rejection: Rejection<ErrorResponse<A>>,
        line: &RequestLine<'_>,
    ) -> Response<Bytes> {
        let response = rejection
            .by_dialect()
            .unwrap_or_else(|rejection| A::of_pipeline(&rejection, line));
        let mut written = A::write(&response, line);
        if let Some(name) = A::REQUEST_ID
            && let Ok(id) = HeaderValue::from_str(line.request_id)
        {
            written.headers_mut().insert(name, id);
        }
        response.finish(&mut written, line.request_id);
        written
    }
}

impl<A: SignedErrors> From<AuthError> for ErrorResponse<A> {
    fn from(error: AuthError) -> Self {
        let class = error.class();
        let response = match error {
            AuthError::Signature(error) => A::of_signature(&error),
            AuthError::Kms(error) => A::of_kms(error),
        };
        response.with_class(class)
    }
}
