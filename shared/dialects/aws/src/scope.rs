//! What a request's `Authorization` header says beside the signature, which is proven already: region, service, and that
//! the operation's name is signed.

use http::header::AUTHORIZATION;
use keyway_http::Request;

use crate::error_response::{incomplete, wrong_service};
use crate::{ErrorResponse, TARGET};

/// What ARNs have for a region where the request's scope has none.
const DEFAULT_REGION: &str = "us-east-1";

/// The region that the request is signed for.
///
/// # Errors
/// When the request is signed for another service, or does not sign the name of its operation: a listener could
/// otherwise turn the request into another one.
pub(crate) fn region(request: &Request) -> Result<String, ErrorResponse> {
    let header = request.headers.get(AUTHORIZATION);
    let header = header.and_then(|value| value.to_str().ok());
    let header =
        header.ok_or_else(|| incomplete("sign the request in the Authorization header"))?;
    let part = |name: &str| {
        let (_, rest) = header.split_once(name)?;
        rest.strip_prefix('=')?.split([',', ' ']).next()
    };
    let is_signed = part("SignedHeaders")
        .is_some_and(|signed| signed.split(';').any(|name| name == TARGET.as_str()));
    if !is_signed {
        return Err(incomplete("the header x-amz-target must be signed"));
    }
    let mut scope = part("Credential").unwrap_or_default().rsplit('/').skip(1);
    let (service, region) = (scope.next(), scope.next());
    // A gateway that verifies callers is what their requests are signed for.
    let expected = match request.peer.iam_caller {
        Some(_) => "execute-api",
        None => "kms",
    };
    if service != Some(expected) {
        return Err(wrong_service(expected));
    }
    let region = region.filter(|region| !region.is_empty());
    Ok(region.unwrap_or(DEFAULT_REGION).to_owned())
}
