//! Verification of AWS Signature Version 4, as a header or as a presigned query.
//!
//! Two steps, because the secret is looked up between them: [`Presented::parse`] reads what a request
//! claims, [`Presented::verify_head`] proves it against a secret. Nothing that `parse` returns is proven.
//! What only the body can prove comes back as a [`Remainder`], so that no body is read for a head that is refused.
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
mod signing_keys;
mod stamp;

use std::time::Duration;

pub use error::{SignatureError, StatusClass};
pub use presented::{Presented, Remainder, Unfinished};
pub use signing_keys::SigningKeys;

/// The one algorithm that is spoken here.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What a signature must be made for to be looked at.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The services a credential scope may name.
    pub services: &'static [&'static str],
    /// The region a credential scope must name; `None` accepts any, and none at all.
    pub region: Option<String>,
    /// How far a request's date may be from ours, either way.
    pub max_skew: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            services: &["execute-api", "s3", "sts", "kms"],
            region: None,
            max_skew: Duration::from_secs(15 * 60),
        }
    }
}
