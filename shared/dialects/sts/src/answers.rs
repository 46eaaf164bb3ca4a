//! STS's answers in XML.

use bytes::Bytes;
use http::Response;
use keyway_domain::access::NewAccessKey;
use keyway_domain::{Fault, SecretBytes};
use keyway_http::uncached;
use serde::Serialize;

use crate::ErrorResponse;
use crate::error_response::internal;

pub(crate) const XMLNS: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

#[derive(Serialize)]
pub(crate) struct AssumeRoleResponse<'a> {
    #[serde(rename = "@xmlns")]
    pub(crate) xmlns: &'static str,
    #[serde(rename = "AssumeRoleResult")]
    pub(crate) result: AssumeRoleResult<'a>,
    #[serde(rename = "ResponseMetadata")]
    pub(crate) metadata: ResponseMetadata<'a>,
}

#[derive(Serialize)]
pub(crate) struct AssumeRoleResult<'a> {
    #[serde(rename = "AssumedRoleUser")]
    pub(crate) user: AssumedRoleUser,
    #[serde(rename = "Credentials")]
    pub(crate) credentials: Credentials<'a>,
}

#[derive(Serialize)]
pub(crate) struct AssumedRoleUser {
    #[serde(rename = "Arn")]
    pub(crate) arn: String,
    #[serde(rename = "AssumedRoleId")]
    pub(crate) id: String,
}

/// The new access key, which no other answer contains.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Credentials<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
    session_token: &'a str,
    expiration: String,
}

impl<'a> Credentials<'a> {
    pub(crate) fn of(key: &'a NewAccessKey) -> Result<Self, ErrorResponse> {
        let text = |secret: &'a SecretBytes| std::str::from_utf8(secret.expose()).ok();
        let token = key.session_token.as_ref().and_then(text);
        match (text(&key.secret), token, key.expires_at) {
            (Some(secret_access_key), Some(session_token), Some(expiry)) => Ok(Self {
                access_key_id: key.id.as_str(),
                secret_access_key,
                session_token,
                expiration: format!("{expiry:.0}"),
            }),
            _ => Err(internal(Fault::plain(
                "a session was made without an end or a token",
            ))),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct GetCallerIdentityResponse<'a> {
    #[serde(rename = "@xmlns")]
    pub(crate) xmlns: &'static str,
    #[serde(rename = "GetCallerIdentityResult")]
    pub(crate) result: GetCallerIdentityResult,
    #[serde(rename = "ResponseMetadata")]
    pub(crate) metadata: ResponseMetadata<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GetCallerIdentityResult {
    pub(crate) arn: String,
    pub(crate) user_id: String,
    pub(crate) account: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ResponseMetadata<'a> {
    request_id: &'a str,
}

impl<'a> ResponseMetadata<'a> {
    pub(crate) const fn of(request_id: &'a str) -> Self {
        Self { request_id }
    }
}

#[derive(Serialize)]
#[serde(rename = "ErrorResponse", rename_all = "PascalCase")]
pub(crate) struct ErrorDocument<'a> {
    #[serde(rename = "@xmlns")]
    pub(crate) xmlns: &'static str,
    pub(crate) error: Error<'a>,
    pub(crate) request_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Error<'a> {
    /// `Sender` or `Receiver`: whose fault it is.
    pub(crate) r#type: &'static str,
    pub(crate) code: &'static str,
    pub(crate) message: &'a str,
}

/// A document as an answer.
pub(crate) fn xml<T: Serialize>(document: &T) -> Response<Bytes> {
    // Only maps can fail to serialize, because their keys may not be XML names.
    let text = quick_xml::se::to_string(document).unwrap_or_default();
    uncached("text/xml", text)
}
