//! What `scratchstack-aws-signature` makes of the same request.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use keyway_http::Request;
use scratchstack_aws_signature::principal::{Principal, User};
use scratchstack_aws_signature::{
    GetSigningKeyRequest, GetSigningKeyResponse, KSecretKey, SignatureError, SignatureOptions,
    VecSignedHeaderRequirements, service_for_signing_key_fn, sigv4_validate_request,
};

use crate::signer::{ACCESS_KEY_ID, SECRET, Signing, now};

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn signing_key(request: GetSigningKeyRequest) -> Result<GetSigningKeyResponse, Failure> {
    if request.access_key() != ACCESS_KEY_ID {
        return Err(Box::new(SignatureError::InvalidClientTokenId(
            "unknown".to_owned(),
        )));
    }
    let key = KSecretKey::from_str(SECRET)?.to_ksigning(
        request.request_date(),
        request.region(),
        request.service(),
    );
    let user = User::new("aws", "123456789012", "/", "user")?;
    Ok(GetSigningKeyResponse::builder()
        .principal(Principal::from(user))
        .signing_key(key)
        .build()?)
}

/// Whether it accepts; `None` when it cannot be asked, for its request has a parsed URL.
pub(crate) fn accepts(signing: &Signing, request: &Request) -> Option<bool> {
    let target = if request.raw_query.is_empty() {
        request.raw_path.clone()
    } else {
        format!("{}?{}", request.raw_path, request.raw_query)
    };
    let mut asked = http::Request::builder()
        .method(request.method.clone())
        .uri(target);
    asked.headers_mut()?.extend(request.headers.clone());
    let asked = asked.body(request.body.clone()).ok()?;
    let is_unchanged = asked.uri().path() == request.raw_path
        && asked.uri().query().unwrap_or_default() == request.raw_query;
    if !is_unchanged {
        return None;
    }
    let options = if signing.service == "s3" {
        SignatureOptions::S3
    } else {
        SignatureOptions::default()
    };
    let required = VecSignedHeaderRequirements::new::<str, str, str>(&[], &[], &["x-amz-"]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let verdict = runtime.block_on(sigv4_validate_request(
        asked,
        signing.region,
        signing.service,
        &mut service_for_signing_key_fn(signing_key),
        DateTime::<Utc>::from_timestamp(now().as_second(), 0).unwrap(),
        &required,
        options,
    ));
    Some(verdict.is_ok())
}
