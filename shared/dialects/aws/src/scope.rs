//! Checks of the verified `Authorization` header besides the signature: region and service of its scope, and that it
//! signs the operation's name.

use keyway_auth::sigv4::SignedScope;
use keyway_http::Request;

use crate::error_response::{incomplete, wrong_service};
use crate::{ErrorResponse, TARGET};

/// The region of ARNs if the request's scope has none.
const DEFAULT_REGION: &str = "us-east-1";

/// The region that the request is signed for.
///
/// # Errors
/// If the request is signed for another service, or does not sign the name of its operation: otherwise an eavesdropper
/// could turn the request into another one.
pub(crate) fn region(request: &Request) -> Result<String, ErrorResponse> {
    let scope = SignedScope::of(request)
        .map_err(|_| incomplete("sign the request in the Authorization header"))?;
    if !scope.signs(TARGET.as_str()) {
        return Err(incomplete("the header x-amz-target must be signed"));
    }
    // Requests through AWS's IAM are signed for the service that verifies them: API Gateway, or Lambda's function URL.
    let expected: &[&str] = match request.peer.iam_caller {
        Some(_) => &["execute-api", "lambda"],
        None => &["kms"],
    };
    if !scope
        .service()
        .is_some_and(|service| expected.contains(&service))
    {
        return Err(wrong_service(&expected.join("' or '")));
    }
    let region = scope.region().filter(|region| !region.is_empty());
    Ok(region.unwrap_or(DEFAULT_REGION).to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use bytes::Bytes;
    use http::header::AUTHORIZATION;
    use http::{HeaderMap, HeaderValue, Method};
    use keyway_http::{IamCaller, Peer};

    use super::*;

    const SIGNED: &str = "host;x-amz-date;x-amz-target";

    fn request(scope: &str, signed: &str, is_by_gateway: bool) -> Request {
        let header = format!(
            "AWS4-HMAC-SHA256 Credential=AK/20260102/{scope}/aws4_request, SignedHeaders={signed}, Signature=00"
        );
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::try_from(header).unwrap());
        headers.insert("x-amz-date", HeaderValue::from_static("20260102T030405Z"));
        let mut peer = Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), true);
        peer.iam_caller = is_by_gateway.then(|| IamCaller {
            arn: "arn:aws:iam::000000000000:user/app".to_owned(),
            account_id: "000000000000".to_owned(),
            access_key_id: "AK".to_owned(),
        });
        Request {
            raw_path: "/".to_owned(),
            raw_query: String::new(),
            method: Method::POST,
            headers,
            body: Bytes::new(),
            peer,
        }
    }

    #[test]
    fn region_is_the_one_of_the_scope() {
        let found = |scope| region(&request(scope, SIGNED, false)).unwrap();
        assert_eq!(found("eu-central-1/kms"), "eu-central-1");
        assert_eq!(found("/kms"), "us-east-1");
    }

    #[test]
    fn service_is_kms_and_behind_a_gateway_its_own() {
        for (service, is_by_gateway, is_accepted) in [
            ("kms", false, true),
            ("execute-api", false, false),
            ("s3", false, false),
            ("lambda", false, false),
            ("execute-api", true, true),
            ("lambda", true, true),
            ("kms", true, false),
        ] {
            let request = request(&format!("us-east-1/{service}"), SIGNED, is_by_gateway);
            assert_eq!(region(&request).is_ok(), is_accepted, "{service}");
        }
    }

    #[test]
    fn second_signature_in_the_query_is_refused() {
        let mut request = request("us-east-1/kms", SIGNED, false);
        request.raw_query = "X-Amz-Signature=00".to_owned();
        let error = region(&request).unwrap_err();
        assert_eq!(error.content.code, "IncompleteSignature");
    }

    #[test]
    fn unsigned_target_is_refused_also_behind_a_gateway() {
        for (service, is_by_gateway) in [("kms", false), ("execute-api", true)] {
            for signed in ["host", "host;x-amz-target-other", "ax-amz-target"] {
                let request = request(&format!("us-east-1/{service}"), signed, is_by_gateway);
                let error = region(&request).unwrap_err();
                assert_eq!(error.content.code, "IncompleteSignature");
            }
        }
    }
}
