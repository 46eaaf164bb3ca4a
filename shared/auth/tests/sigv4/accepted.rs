//! Requests of AWS's signer are accepted.

use std::net::{IpAddr, Ipv4Addr};

use http::HeaderValue;
use keyway_auth::sigv4::SignatureError;
use keyway_http::Peer;
use proptest::prelude::*;

use crate::generate::{Shape, signed};
use crate::signer::{Signing, TOKEN, request, sign_plain, verdict};

const TARGETS: [&str; 12] = [
    "/",
    "/rustfs/admin/v3/kms/keys",
    "/rustfs/admin/v3/kms/keys?limit=20&marker=",
    "/rustfs/admin/v3/kms/keys/archive%2Fkey?impact=true",
    "/rustfs/admin/v3/kms/keys?b=2&a=2&a=1&a=&c",
    "/rustfs/admin/v3/kms/keys?a=b+c%2Bd%20e&A=%7e&%C3%A9=%c3%a9",
    "/bucket?encryption",
    "/a%20b/%7e~/x:y@z;w,v=u+t!s$r&q'p(o)n*m",
    "/trailing/",
    "//double//slashes/",
    "/a/./b/../c/.",
    "/%2e%2e/%2E/%25/%2525",
];

#[test]
fn header_and_query_of_every_service_are_accepted() {
    for target in TARGETS {
        for service in ["execute-api", "s3", "sts", "kms"] {
            for presigned in [false, true] {
                for session_token in [None, Some(TOKEN)] {
                    let s3 = service == "s3";
                    let signing = Signing {
                        service,
                        presigned,
                        session_token,
                        declare_payload: s3 && !presigned,
                        unsigned_payload: s3 && presigned,
                        ..Signing::KMS
                    };
                    let unsigned = request(
                        "POST",
                        target,
                        &[
                            ("content-type", "application/json"),
                            ("x-amz-target", "  two   words "),
                        ],
                        r#"{"key_id":"a"}"#,
                    );
                    assert_eq!(
                        verdict(&signing.sign(&unsigned)),
                        Ok(()),
                        "{target} {signing:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn unsigned_payload_over_tls_or_loopback_is_accepted() {
    let signing = Signing {
        unsigned_payload: true,
        ..Signing::S3
    };
    let mut signed = signing.sign(&request("PUT", "/bucket?encryption", &[], "<x/>"));
    assert_eq!(signed.headers["x-amz-content-sha256"], "UNSIGNED-PAYLOAD");
    for (address, encrypted) in [
        (Ipv4Addr::LOCALHOST, false),
        (Ipv4Addr::new(192, 0, 2, 1), true),
    ] {
        signed.peer = Peer::new(IpAddr::V4(address), encrypted);
        assert_eq!(verdict(&signed), Ok(()));
    }
    // No signature covers the body then.
    signed.body = "another".into();
    assert_eq!(verdict(&signed), Ok(()));
}

#[test]
fn date_header_without_x_amz_date_is_accepted() {
    // botocore signs so when the request carries a Date of its own.
    for date in [
        "Wed, 04 Mar 2026 05:06:07 GMT",
        "Wed, 04 Mar 2026 05:06:07 -0000",
        "20260304T050607Z",
    ] {
        // AWS's signer cannot; the signature does not cover x-amz-date when it is not a signed header.
        let signed = sign_plain(&request("GET", "/x", &[("date", date)], ""), "date;host");
        assert_eq!(verdict(&signed), Ok(()), "{date}");
    }
}

#[test]
fn region_empty_as_minio_clients_sign_is_accepted() {
    let signing = Signing {
        region: "",
        ..Signing::S3
    };
    assert_eq!(
        verdict(&signing.sign(&request("GET", "/minio/kms/v1/status", &[], ""))),
        Ok(())
    );
}

#[test]
fn headers_added_by_a_gateway_are_accepted() {
    let mut signed = Signing::KMS.sign(&request("GET", "/x", &[], ""));
    for name in ["x-amz-cf-id", "x-amzn-trace-id", "x-forwarded-for", "via"] {
        signed.headers.insert(name, "1".parse().unwrap());
    }
    assert_eq!(verdict(&signed), Ok(()));
}

#[test]
fn authorization_with_other_spacing_and_order_is_accepted() {
    let signed = Signing::KMS.sign(&request("GET", "/x", &[], ""));
    let text = signed.headers["authorization"].to_str().unwrap().to_owned();
    let parts: Vec<_> = text
        .trim_start_matches("AWS4-HMAC-SHA256 ")
        .split(", ")
        .collect();
    let [credential, headers, signature] = parts[..] else {
        panic!("{text}")
    };
    for other in [
        format!("AWS4-HMAC-SHA256 {credential},{headers},{signature}"),
        format!("AWS4-HMAC-SHA256 {signature}, {headers},\t{credential}"),
        format!("AWS4-HMAC-SHA256   {headers} ,  {credential} , {signature}  "),
    ] {
        let mut signed = signed.clone();
        signed
            .headers
            .insert("authorization", other.parse().unwrap());
        assert_eq!(verdict(&signed), Ok(()), "{other}");
    }
}

/// The hosts that were signed and sent, whether TLS is spoken, and whether they are one host.
const HOSTS: [(&str, &str, bool, bool); 14] = [
    ("h", "h:443", true, true),
    ("h:443", "h", true, true),
    ("h", "h:80", false, true),
    ("h:80", "h", false, true),
    ("[::1]", "[::1]:443", true, true),
    ("[::1]:80", "[::1]", false, true),
    ("h", "h:80", true, false),
    ("h", "h:443", false, false),
    ("h:443", "h:80", true, false),
    ("h:8443", "h", true, false),
    ("h", "h:443:443", true, false),
    ("h", "g:443", true, false),
    ("h:9000", "h:9000:80", false, false),
    ("h", "[h]:443", true, false),
];

#[test]
fn host_with_the_default_port_equals_the_host_without() {
    for (signed, sent, encrypted, is_one) in HOSTS {
        let unsigned = request(
            "GET",
            "/a",
            &[("host", signed), ("x-amz-date", "20260304T050607Z")],
            "",
        );
        let mut request = sign_plain(&unsigned, "host;x-amz-date");
        request
            .headers
            .insert("host", HeaderValue::from_str(sent).unwrap());
        request.peer = Peer::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), encrypted);
        let expected = if is_one {
            Ok(())
        } else {
            Err(SignatureError::SignatureMismatch)
        };
        assert_eq!(verdict(&request), expected, "{signed} {sent} {encrypted}");
    }
}

#[test]
fn forwarded_scheme_from_another_machine_is_ignored() {
    let unsigned = request(
        "GET",
        "/a",
        &[("host", "h"), ("x-amz-date", "20260304T050607Z")],
        "",
    );
    let mut request = sign_plain(&unsigned, "host;x-amz-date");
    request
        .headers
        .insert("host", HeaderValue::from_static("h:443"));
    assert_eq!(verdict(&request), Err(SignatureError::SignatureMismatch));
    let https = HeaderValue::from_static("https");
    request.headers.insert("x-forwarded-proto", https.clone());
    assert_eq!(verdict(&request), Ok(()));
    request.peer = Peer::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), false);
    assert_eq!(verdict(&request), Err(SignatureError::SignatureMismatch));
    request.peer = Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), false);
    request.headers.append("x-forwarded-proto", https);
    assert_eq!(verdict(&request), Err(SignatureError::SignatureMismatch));
}

proptest! {
    #[test]
    fn any_signed_request_is_accepted((signing, signed) in signed(Shape::Odd)) {
        prop_assert_eq!(verdict(&signed), Ok(()), "{:?} {:?}", signing, signed);
    }
}

/// Without a declared payload, the head waits for the body: short heads as text, long ones as hashes. A host without its
/// default port has two forms.
#[test]
fn head_of_any_length_is_accepted_with_its_own_body_only() {
    for length in [0, 1000, 1500, 1900, 2100, 8000] {
        for host in ["kms.example.com", "kms.example.com:443"] {
            let note = "n".repeat(length);
            let headers = [("host", "kms.example.com"), ("x-amz-note", note.as_str())];
            let mut signed = Signing::KMS.sign(&request("POST", "/x", &headers, "body"));
            signed
                .headers
                .insert("host", HeaderValue::from_static(host));
            signed.peer.encrypted = true;
            assert_eq!(verdict(&signed), Ok(()), "{host} {length}");
            signed.body = "bodY".into();
            let refused = Err(SignatureError::SignatureMismatch);
            assert_eq!(verdict(&signed), refused, "{host} {length}");
        }
    }
}
