//! Verification of AWS Signature Version 4, as a header or as a presigned query.
//!
//! There are two steps, because the secret is looked up between them: [`Presented::parse`] reads what a request claims,
//! and [`Presented::verify_head`] verifies it with a secret. Nothing that `parse` returns is verified.
//! What needs the body is returned as a [`Remainder`], so that no body is read for a head that is refused.
//!
//! ```text
//! CanonicalRequest = Method \n CanonicalPath \n CanonicalQuery \n CanonicalHeaders \n SignedHeaders \n PayloadHash
//! StringToSign     = "AWS4-HMAC-SHA256" \n Date \n Scope \n Hex(SHA256(CanonicalRequest))
//! SigningKey       = HMAC(HMAC(HMAC(HMAC("AWS4" + Secret, ScopeDate), Region), Service), "aws4_request")
//! Signature        = Hex(HMAC(SigningKey, StringToSign))
//! ```

mod canonical;
mod credential;
mod error;
mod presented;
mod received;
mod scope;
mod signing_keys;
mod stamp;

use std::time::Duration;

pub use error::{SignatureError, StatusClass};
pub use presented::{Presented, Remainder, Unfinished};
pub use scope::SignedScope;
pub use signing_keys::SigningKeys;

/// The only algorithm that is accepted.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The conditions that a signature must meet before it is verified.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The services a credential scope may name.
    pub services: &'static [&'static str],
    /// The region a credential scope must name; `None` accepts any, and none at all.
    pub region: Option<String>,
    /// How far a request's date may differ from the server's clock, in either direction.
    pub max_skew: Duration,
}

/// Every service that a credential scope may name.
pub const SERVICES: &[&str] = &["execute-api", "s3", "sts", "kms"];

impl Default for Rules {
    fn default() -> Self {
        Self {
            services: SERVICES,
            region: None,
            max_skew: Duration::from_secs(15 * 60),
        }
    }
}
