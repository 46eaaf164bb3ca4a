//! The scope of a signature, for dialects that serve one service.

use std::borrow::Cow;

use keyway_http::Request;

use super::SignatureError;
use super::canonical::Query;
use super::presented::{Parts, is_presigned};
use super::received::Received;

/// What a signature in the `Authorization` header claims. Nothing of it is verified here: the authenticator or the gateway
/// has done that.
pub struct SignedScope<'r> {
    credential: Cow<'r, str>,
    signed_headers: Cow<'r, str>,
}

impl<'r> SignedScope<'r> {
    /// Parses the header.
    ///
    /// # Errors
    /// If there is no such header, it is malformed, or the query has a signature too.
    pub fn of(request: &'r Request) -> Result<Self, SignatureError> {
        let received = Received::of(&request.headers);
        let authorization = received.authorization.text("the Authorization header")?;
        let authorization = authorization.ok_or(SignatureError::Missing)?;
        if is_presigned(&Query::parse(&request.raw_query)?) {
            return Err(SignatureError::BothForms);
        }
        let parts = Parts::of_header(&received, authorization)?;
        Ok(Self {
            credential: parts.credential,
            signed_headers: parts.signed_headers,
        })
    }

    /// The service, such as `kms`.
    pub fn service(&self) -> Option<&str> {
        self.credential.rsplit('/').nth(1)
    }

    /// The region. It may be empty.
    pub fn region(&self) -> Option<&str> {
        self.credential.rsplit('/').nth(2)
    }

    /// Returns whether the signature covers the header of this name, in lower case.
    pub fn signs(&self, name: &str) -> bool {
        self.signed_headers.split(';').any(|signed| signed == name)
    }
}
