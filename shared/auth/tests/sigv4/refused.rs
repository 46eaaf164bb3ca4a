//! What is refused, with the words the client is told.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use jiff::ToSpan;
use keyway_auth::sigv4::{Presented, Rules, SignatureError, SigningKeys, StatusClass};
use keyway_http::{Peer, Request};

use crate::signer::{SECRET, Signing, TOKEN, now, request, sign_plain, verdict, verdict_at};

const PRESIGNED: Signing = Signing {
    presigned: true,
    ..Signing::KMS
};
const CREDENTIAL: &str = "AKIDEXAMPLE/20260304/us-east-1/execute-api/aws4_request";

fn unsigned() -> Request {
    request(
        "POST",
        "/rustfs/admin/v3/kms/keys",
        &[("content-type", "application/json")],
        "{}",
    )
}

/// A change to a request that was fine.
type Change = fn(&mut Request);

fn set(request: &mut Request, name: &'static str, value: &str) {
    request.headers.insert(name, value.parse().unwrap());
}

fn replace(request: &mut Request, name: &'static str, from: &str, to: &str) {
    let value = request.headers[name].to_str().unwrap();
    assert!(value.contains(from), "{name}: {value}");
    let value = value.replace(from, to);
    set(request, name, &value);
}

fn replace_query(request: &mut Request, from: &str, to: &str) {
    assert!(request.raw_query.contains(from), "{}", request.raw_query);
    request.raw_query = request.raw_query.replace(from, to);
}

fn check(signing: &Signing, cases: &[(Change, StatusClass, &str)]) {
    let signed = signing.sign(&unsigned());
    assert_eq!(verdict(&signed), Ok(()));
    for (change, class, text) in cases {
        let mut changed = signed.clone();
        change(&mut changed);
        let denied = verdict(&changed).expect_err(text);
        assert_eq!(denied.to_string(), *text);
        assert_eq!(denied.status_class(), *class, "{text}");
    }
}

#[test]
fn header_form() {
    use StatusClass::{BadRequest, Unauthenticated};
    const MALFORMED: &str = "the Authorization header is malformed: expected AWS4-HMAC-SHA256 Credential=..., SignedHeaders=..., Signature=...";
    const CREDENTIAL_MALFORMED: &str =
        "Credential is malformed: expected ACCESS_KEY_ID/YYYYMMDD/REGION/SERVICE/aws4_request";
    const SIGNED_HEADERS_MALFORMED: &str = "SignedHeaders is malformed: expected lower-case header names in ascending order, separated by semicolons";
    const SIGNATURE_MALFORMED: &str = "Signature is malformed: expected 64 lower-case hex digits";
    const DATE_MALFORMED: &str = "x-amz-date is malformed: expected YYYYMMDDTHHMMSSZ";
    const MISMATCH: &str =
        "the signature does not match: check the secret access key and how the request is signed";
    const CHUNKED: &str = "aws-chunked bodies are not supported: send the body whole with its SHA-256 in x-amz-content-sha256";
    const DECLARATION: &str =
        "x-amz-content-sha256 must be the body's SHA-256 in hex or UNSIGNED-PAYLOAD";
    let cases: &[(Change, StatusClass, &str)] = &[
        (
            |r| drop(r.headers.remove("authorization")),
            Unauthenticated,
            "the request is not signed: an AWS4-HMAC-SHA256 Authorization header or a presigned query is needed",
        ),
        (
            |r| {
                let again = r.headers["authorization"].clone();
                r.headers.append("authorization", again);
            },
            Unauthenticated,
            "the Authorization header is given more than once",
        ),
        (
            |r| r.raw_query = "X-Amz-Signature=00".to_owned(),
            Unauthenticated,
            "the request is signed twice, in the Authorization header and in the query; send one of them",
        ),
        (
            |r| r.raw_query = "X%2dAmz-Credential=x".to_owned(),
            Unauthenticated,
            "the request is signed twice, in the Authorization header and in the query; send one of them",
        ),
        (
            |r| set(r, "authorization", ""),
            Unauthenticated,
            "only AWS4-HMAC-SHA256 signatures are accepted",
        ),
        (
            |r| {
                set(
                    r,
                    "authorization",
                    "AWS AKIDEXAMPLE:frJIUN8DYpKDtOLCwo//yllqDzg=",
                )
            },
            Unauthenticated,
            "Signature Version 2 is not accepted: sign with Signature Version 4 (AWS4-HMAC-SHA256), which clients call s3v4 or v4",
        ),
        (
            |r| {
                r.headers.remove("authorization");
                r.raw_query =
                    "AWSAccessKeyId=AKIDEXAMPLE&Signature=vjbyPxybdZaNmGa%2ByT272YEAiv4%3D&Expires=1772600000".to_owned();
            },
            Unauthenticated,
            "Signature Version 2 is not accepted: sign with Signature Version 4 (AWS4-HMAC-SHA256), which clients call s3v4 or v4",
        ),
        (
            |r| {
                r.headers.remove("authorization");
                r.raw_query = "Signature=a".to_owned();
            },
            Unauthenticated,
            "the request is not signed: an AWS4-HMAC-SHA256 Authorization header or a presigned query is needed",
        ),
        (
            |r| set(r, "authorization", "Bearer abc"),
            Unauthenticated,
            "only AWS4-HMAC-SHA256 signatures are accepted",
        ),
        (
            |r| set(r, "authorization", "Basic YTpi"),
            Unauthenticated,
            "only AWS4-HMAC-SHA256 signatures are accepted",
        ),
        (
            |r| {
                replace(
                    r,
                    "authorization",
                    "AWS4-HMAC-SHA256",
                    "AWS4-ECDSA-P256-SHA256",
                )
            },
            Unauthenticated,
            "only AWS4-HMAC-SHA256 signatures are accepted",
        ),
        (
            |r| replace(r, "authorization", "AWS4-HMAC", "aws4-hmac"),
            Unauthenticated,
            "only AWS4-HMAC-SHA256 signatures are accepted",
        ),
        (
            |r| set(r, "authorization", "AWS4-HMAC-SHA256"),
            Unauthenticated,
            MALFORMED,
        ),
        (
            |r| set(r, "authorization", "AWS4-HMAC-SHA256 ,,,"),
            Unauthenticated,
            MALFORMED,
        ),
        (
            |r| replace(r, "authorization", ", Signature", ", X=y, Signature"),
            Unauthenticated,
            MALFORMED,
        ),
        (
            |r| replace(r, "authorization", ", Signature", ",, Signature"),
            Unauthenticated,
            MALFORMED,
        ),
        (
            |r| replace(r, "authorization", "Signature=", "Signature"),
            Unauthenticated,
            MALFORMED,
        ),
        (
            |r| replace(r, "authorization", "Signature=", "signature="),
            Unauthenticated,
            MALFORMED,
        ),
        (
            |r| {
                replace(
                    r,
                    "authorization",
                    ", Signature",
                    ", Credential=x, Signature",
                )
            },
            Unauthenticated,
            "Credential is given more than once",
        ),
        (
            |r| {
                replace(
                    r,
                    "authorization",
                    ", Signature=",
                    ", Signature=0, Signature=",
                )
            },
            Unauthenticated,
            "Signature is given more than once",
        ),
        (
            |r| {
                replace(
                    r,
                    "authorization",
                    "SignedHeaders=",
                    "SignedHeaders=host, SignedHeaders=",
                )
            },
            Unauthenticated,
            "SignedHeaders is given more than once",
        ),
        (
            |r| {
                replace(
                    r,
                    "authorization",
                    &format!("Credential={CREDENTIAL}, "),
                    "",
                )
            },
            Unauthenticated,
            "Credential is missing",
        ),
        (
            |r| set(r, "authorization", "AWS4-HMAC-SHA256 Credential=a"),
            Unauthenticated,
            "SignedHeaders is missing",
        ),
        (
            |r| {
                set(
                    r,
                    "authorization",
                    "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host",
                )
            },
            Unauthenticated,
            "Signature is missing",
        ),
        (
            |r| {
                set(
                    r,
                    "authorization",
                    &format!("AWS4-HMAC-SHA256 {}", "x".repeat(9000)),
                )
            },
            Unauthenticated,
            "the Authorization header is too long: at most 8192 bytes are accepted",
        ),
        (
            |r| {
                drop(r.headers.insert(
                    "authorization",
                    http::HeaderValue::from_bytes(b"AWS4\xff").unwrap(),
                ))
            },
            Unauthenticated,
            "the Authorization header is malformed: expected visible ASCII characters",
        ),
        (
            |r| replace(r, "authorization", CREDENTIAL, ""),
            Unauthenticated,
            CREDENTIAL_MALFORMED,
        ),
        (
            |r| replace(r, "authorization", CREDENTIAL, "AKIDEXAMPLE"),
            Unauthenticated,
            CREDENTIAL_MALFORMED,
        ),
        (
            |r| replace(r, "authorization", "AKIDEXAMPLE/", "/"),
            Unauthenticated,
            CREDENTIAL_MALFORMED,
        ),
        (
            |r| replace(r, "authorization", "AKIDEXAMPLE/", ""),
            Unauthenticated,
            CREDENTIAL_MALFORMED,
        ),
        (
            |r| replace(r, "authorization", "AKIDEXAMPLE", "AKID EXAMPLE"),
            Unauthenticated,
            CREDENTIAL_MALFORMED,
        ),
        (
            |r| replace(r, "authorization", "aws4_request", "aws4"),
            Unauthenticated,
            CREDENTIAL_MALFORMED,
        ),
        (
            |r| replace(r, "authorization", "/20260304/", "/2026030x/"),
            Unauthenticated,
            CREDENTIAL_MALFORMED,
        ),
        (
            |r| replace(r, "authorization", "/20260304/", "/202603040/"),
            Unauthenticated,
            CREDENTIAL_MALFORMED,
        ),
        (
            |r| replace(r, "authorization", "AKIDEXAMPLE", &"A".repeat(129)),
            Unauthenticated,
            "the access key id is too long: at most 128 characters are accepted",
        ),
        (
            |r| replace(r, "authorization", "us-east-1", &"a".repeat(65)),
            Unauthenticated,
            "the region is too long: at most 64 characters are accepted",
        ),
        (
            |r| replace(r, "authorization", "execute-api", "lambda"),
            Unauthenticated,
            "the credential scope names another service: expected one of execute-api, s3, sts, kms",
        ),
        (
            |r| replace(r, "authorization", "/20260304/", "/20260303/"),
            Unauthenticated,
            "the credential scope's date is not the date of the request",
        ),
        (
            |r| replace(r, "authorization", "/us-east-1/", "/us-east-2/"),
            Unauthenticated,
            MISMATCH,
        ),
        (
            |r| replace(r, "authorization", "/execute-api/", "/kms/"),
            Unauthenticated,
            MISMATCH,
        ),
        (
            |r| replace(r, "authorization", "Signature=", "Signature=0"),
            Unauthenticated,
            SIGNATURE_MALFORMED,
        ),
        (
            |r| {
                let value = r.headers["authorization"].to_str().unwrap().to_owned();
                set(r, "authorization", &value[..value.len() - 1]);
            },
            Unauthenticated,
            SIGNATURE_MALFORMED,
        ),
        (
            |r| {
                let value = r.headers["authorization"].to_str().unwrap().to_owned();
                let (rest, signature) = value.split_once("Signature=").unwrap();
                set(
                    r,
                    "authorization",
                    &format!("{rest}Signature={}", signature.to_uppercase()),
                );
            },
            Unauthenticated,
            SIGNATURE_MALFORMED,
        ),
        (
            |r| replace(r, "authorization", "content-type;host", "host;content-type"),
            Unauthenticated,
            SIGNED_HEADERS_MALFORMED,
        ),
        (
            |r| replace(r, "authorization", "content-type;host", "host;host"),
            Unauthenticated,
            SIGNED_HEADERS_MALFORMED,
        ),
        (
            |r| replace(r, "authorization", "content-type;host", "Content-Type;host"),
            Unauthenticated,
            SIGNED_HEADERS_MALFORMED,
        ),
        (
            |r| replace(r, "authorization", "content-type;host", ";host"),
            Unauthenticated,
            SIGNED_HEADERS_MALFORMED,
        ),
        (
            |r| replace(r, "authorization", "content-type;host;x-amz-date", ""),
            Unauthenticated,
            SIGNED_HEADERS_MALFORMED,
        ),
        (
            |r| replace(r, "authorization", ";host;", ";"),
            Unauthenticated,
            "the header host must be signed",
        ),
        (
            |r| drop(r.headers.remove("host")),
            Unauthenticated,
            "the signed header host is not in the request",
        ),
        (
            |r| {
                r.headers
                    .append("host", "other.example.com".parse().unwrap());
            },
            Unauthenticated,
            "the Host header is given more than once",
        ),
        (
            |r| drop(r.headers.remove("content-type")),
            Unauthenticated,
            "the signed header content-type is not in the request",
        ),
        (
            |r| {
                replace(
                    r,
                    "authorization",
                    "content-type;host",
                    "content-type;expect;host",
                )
            },
            Unauthenticated,
            "the signed header expect is not in the request",
        ),
        (
            |r| set(r, "x-amz-target", "a"),
            Unauthenticated,
            "the header x-amz-target must be signed",
        ),
        (
            |r| set(r, "x-amz-security-token", "a"),
            Unauthenticated,
            "the header x-amz-security-token must be signed",
        ),
        (
            |r| set(r, "x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
            Unauthenticated,
            "the header x-amz-content-sha256 must be signed",
        ),
        (
            |r| replace(r, "authorization", ";x-amz-date", ""),
            Unauthenticated,
            "the header x-amz-date must be signed",
        ),
        (
            |r| {
                for n in 0..101 {
                    r.headers.insert(
                        http::HeaderName::try_from(format!("a{n:03}")).unwrap(),
                        "".parse().unwrap(),
                    );
                }
                let names: Vec<_> = (0..101).map(|n| format!("a{n:03}")).collect();
                replace(
                    r,
                    "authorization",
                    "content-type;",
                    &format!("{};content-type;", names.join(";")),
                );
            },
            Unauthenticated,
            "SignedHeaders is too long: at most 100 names are accepted",
        ),
        (
            |r| set(r, "content-type", &"x".repeat(70_000)),
            Unauthenticated,
            "the text of the signed headers is too long: at most 65536 bytes are accepted",
        ),
        (
            |r| drop(r.headers.remove("x-amz-date")),
            Unauthenticated,
            "x-amz-date is missing",
        ),
        (
            |r| {
                r.headers
                    .append("x-amz-date", "20260304T050607Z".parse().unwrap());
            },
            Unauthenticated,
            "x-amz-date is given more than once",
        ),
        (
            |r| set(r, "x-amz-date", ""),
            Unauthenticated,
            DATE_MALFORMED,
        ),
        (
            |r| set(r, "x-amz-date", "2026-03-04T05:06:07Z"),
            Unauthenticated,
            DATE_MALFORMED,
        ),
        (
            |r| set(r, "x-amz-date", "20260304T050607"),
            Unauthenticated,
            DATE_MALFORMED,
        ),
        (
            |r| set(r, "x-amz-date", "20260230T050607Z"),
            Unauthenticated,
            DATE_MALFORMED,
        ),
        (
            |r| set(r, "x-amz-date", "20260304T050660Z"),
            Unauthenticated,
            DATE_MALFORMED,
        ),
        (
            |r| set(r, "x-amz-date", "20260304T2406o7Z"),
            Unauthenticated,
            DATE_MALFORMED,
        ),
        (
            |r| set(r, "x-amz-date", "+2260304T050607Z"),
            Unauthenticated,
            DATE_MALFORMED,
        ),
        (
            |r| set(r, "x-amz-date", "20260304T050608Z"),
            Unauthenticated,
            MISMATCH,
        ),
        (
            |r| {
                r.headers.remove("x-amz-date");
                set(r, "date", "yesterday");
            },
            Unauthenticated,
            "the Date header is malformed: expected an HTTP date",
        ),
        (|r| r.body = "{ }".into(), Unauthenticated, MISMATCH),
        (|r| r.raw_path.push('x'), Unauthenticated, MISMATCH),
        (|r| r.raw_query.push('x'), Unauthenticated, MISMATCH),
        (
            |r| r.raw_path.push('%'),
            BadRequest,
            "the path is malformed: a percent sign must be followed by two hex digits",
        ),
        (
            |r| r.raw_path.push_str("%4"),
            BadRequest,
            "the path is malformed: a percent sign must be followed by two hex digits",
        ),
        (
            |r| r.raw_query.push_str("a=%4g"),
            BadRequest,
            "the query is malformed: a percent sign must be followed by two hex digits",
        ),
        (
            |r| r.raw_path.push('\n'),
            BadRequest,
            "the path is malformed: control characters must be percent-encoded",
        ),
        (
            |r| r.raw_query.push('\0'),
            BadRequest,
            "the query is malformed: control characters must be percent-encoded",
        ),
        (
            |r| r.raw_path.insert(0, 'x'),
            BadRequest,
            "the path must begin with a slash",
        ),
        (
            |r| r.raw_path = String::new(),
            BadRequest,
            "the path must begin with a slash",
        ),
        (
            |r| r.raw_path = "/x".repeat(5000),
            BadRequest,
            "the path is too long: at most 8192 bytes are accepted",
        ),
        (
            |r| r.raw_query = "&".repeat(20_000),
            BadRequest,
            "the query is too long: at most 16384 bytes are accepted",
        ),
        (
            |r| set(r, "content-encoding", "aws-chunked"),
            BadRequest,
            CHUNKED,
        ),
        (
            |r| set(r, "content-encoding", "gzip, AWS-Chunked"),
            BadRequest,
            CHUNKED,
        ),
        (
            |r| declare(r, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
            BadRequest,
            CHUNKED,
        ),
        (
            |r| declare(r, "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            BadRequest,
            CHUNKED,
        ),
        (|r| declare(r, ""), BadRequest, DECLARATION),
        (|r| declare(r, "unsigned-payload"), BadRequest, DECLARATION),
        (|r| declare(r, &"0".repeat(63)), BadRequest, DECLARATION),
        (|r| declare(r, &"0".repeat(65)), BadRequest, DECLARATION),
        (|r| declare(r, &"g".repeat(64)), BadRequest, DECLARATION),
        (
            |r| {
                declare(r, "UNSIGNED-PAYLOAD");
                r.peer = Peer::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), false);
            },
            BadRequest,
            "UNSIGNED-PAYLOAD is accepted over TLS or loopback only: sign the body",
        ),
        (
            |r| {
                declare(r, "UNSIGNED-PAYLOAD");
                r.headers
                    .append("x-amz-content-sha256", "UNSIGNED-PAYLOAD".parse().unwrap());
            },
            Unauthenticated,
            "x-amz-content-sha256 is given more than once",
        ),
    ];
    check(&Signing::KMS, cases);
}

/// A signed declaration of the payload; the signature is another matter, and comes later.
fn declare(request: &mut Request, value: &str) {
    replace(
        request,
        "authorization",
        ";x-amz-date",
        ";x-amz-content-sha256;x-amz-date",
    );
    set(request, "x-amz-content-sha256", value);
}

#[test]
fn presigned_form() {
    use StatusClass::{BadRequest, Unauthenticated};
    let cases: &[(Change, StatusClass, &str)] = &[
        (
            |r| set(r, "authorization", "Basic YTpi"),
            Unauthenticated,
            "the request is signed twice, in the Authorization header and in the query; send one of them",
        ),
        (
            |r| set(r, "x-amz-security-token", "a"),
            Unauthenticated,
            "the request is signed twice, in the Authorization header and in the query; send one of them",
        ),
        (
            |r| replace_query(r, "X-Amz-Algorithm", "a"),
            Unauthenticated,
            "X-Amz-Algorithm is missing",
        ),
        (
            |r| replace_query(r, "X-Amz-Credential", "a"),
            Unauthenticated,
            "X-Amz-Credential is missing",
        ),
        (
            |r| replace_query(r, "X-Amz-Date", "a"),
            Unauthenticated,
            "X-Amz-Date is missing",
        ),
        (
            |r| replace_query(r, "X-Amz-SignedHeaders", "a"),
            Unauthenticated,
            "X-Amz-SignedHeaders is missing",
        ),
        (
            |r| replace_query(r, "X-Amz-Signature", "a"),
            Unauthenticated,
            "X-Amz-Signature is missing",
        ),
        (
            |r| replace_query(r, "AWS4%2DHMAC", "AWS5-HMAC"),
            Unauthenticated,
            "only AWS4-HMAC-SHA256 signatures are accepted",
        ),
        (
            |r| r.raw_query.push_str("&X-Amz-Algorithm=x"),
            Unauthenticated,
            "X-Amz-Algorithm is given more than once",
        ),
        (
            |r| r.raw_query.push_str("&X-Amz-Credential=x"),
            Unauthenticated,
            "X-Amz-Credential is given more than once",
        ),
        (
            |r| r.raw_query.push_str("&X-Amz-Date=x"),
            Unauthenticated,
            "X-Amz-Date is given more than once",
        ),
        (
            |r| r.raw_query.push_str("&X-Amz-Expires=x"),
            Unauthenticated,
            "X-Amz-Expires is given more than once",
        ),
        (
            |r| r.raw_query.push_str("&X-Amz-SignedHeaders=x"),
            Unauthenticated,
            "X-Amz-SignedHeaders is given more than once",
        ),
        (
            |r| r.raw_query.push_str("&X-Amz-Signature=x"),
            Unauthenticated,
            "X-Amz-Signature is given more than once",
        ),
        (
            |r| r.raw_query.push_str("&X%2dAmz-Signature"),
            Unauthenticated,
            "X-Amz-Signature is given more than once",
        ),
        (
            |r| {
                r.raw_query
                    .push_str("&X-Amz-Security-Token=x&X-Amz-Security-Token=y")
            },
            Unauthenticated,
            "X-Amz-Security-Token is given more than once",
        ),
        (
            |r| r.raw_query.push_str("&X-Amz-Security-Token=x+y"),
            Unauthenticated,
            "X-Amz-Security-Token is malformed: expected a token without spaces; a plus is written %2B",
        ),
        (
            |r| {
                r.raw_query
                    .push_str(&format!("&X-Amz-Security-Token={}", "x".repeat(9000)))
            },
            Unauthenticated,
            "the session token is too long: at most 8192 characters are accepted",
        ),
        (
            |r| r.raw_query.push_str("&X-Amz-Security-Token=x"),
            Unauthenticated,
            "the signature does not match: check the secret access key and how the request is signed",
        ),
        (
            |r| replace_query(r, "X-Amz-Expires=300", "X-Amz-Expires=0"),
            Unauthenticated,
            "X-Amz-Expires is malformed: expected 1 to 604800 seconds",
        ),
        (
            |r| replace_query(r, "X-Amz-Expires=300", "X-Amz-Expires=604801"),
            Unauthenticated,
            "X-Amz-Expires is malformed: expected 1 to 604800 seconds",
        ),
        (
            |r| replace_query(r, "X-Amz-Expires=300", "X-Amz-Expires=-300"),
            Unauthenticated,
            "X-Amz-Expires is malformed: expected 1 to 604800 seconds",
        ),
        (
            |r| replace_query(r, "X-Amz-Expires=300", "X-Amz-Expires=99999999999999999999"),
            Unauthenticated,
            "X-Amz-Expires is malformed: expected 1 to 604800 seconds",
        ),
        (
            |r| replace_query(r, "X-Amz-Expires=300", "X-Amz-Expires=3e2"),
            Unauthenticated,
            "X-Amz-Expires is malformed: expected 1 to 604800 seconds",
        ),
        (
            |r| replace_query(r, "X-Amz-Expires=300", "X-Amz-Expires=301"),
            Unauthenticated,
            "the signature does not match: check the secret access key and how the request is signed",
        ),
        (
            |r| replace_query(r, "X-Amz-Expires=300", ""),
            Unauthenticated,
            "the signature does not match: check the secret access key and how the request is signed",
        ),
        (
            |r| replace_query(r, "20260304T050607Z", "yesterday"),
            Unauthenticated,
            "X-Amz-Date is malformed: expected YYYYMMDDTHHMMSSZ",
        ),
        (
            |r| replace_query(r, "%2F20260304%2F", "%2F20260305%2F"),
            Unauthenticated,
            "the credential scope's date is not the date of the request",
        ),
        (
            |r| replace_query(r, "%3Bhost", ""),
            Unauthenticated,
            "the header host must be signed",
        ),
        (
            |r| replace_query(r, "%2Faws4%5Frequest", "%FFaws4%5Frequest"),
            Unauthenticated,
            "Credential is malformed: expected ACCESS_KEY_ID/YYYYMMDD/REGION/SERVICE/aws4_request",
        ),
        (
            |r| r.body = "{ }".into(),
            Unauthenticated,
            "the signature does not match: check the secret access key and how the request is signed",
        ),
        (
            |r| {
                r.raw_query
                    .push_str("&X-Amz-Content-Sha256=UNSIGNED-PAYLOAD");
                r.peer = Peer::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), false);
            },
            BadRequest,
            "UNSIGNED-PAYLOAD is accepted over TLS or loopback only: sign the body",
        ),
        (
            |r| {
                r.raw_query
                    .push_str("&X-Amz-Content-Sha256=UNSIGNED-PAYLOAD");
                set(
                    r,
                    "x-amz-content-sha256",
                    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
                );
            },
            Unauthenticated,
            "x-amz-content-sha256 is given more than once",
        ),
    ];
    check(&PRESIGNED, cases);
}

#[test]
fn presigned_s3_on_a_connection_that_others_can_change() {
    let signing = Signing {
        presigned: true,
        declare_payload: false,
        unsigned_payload: true,
        ..Signing::S3
    };
    let mut signed = signing.sign(&unsigned());
    assert_eq!(verdict(&signed), Ok(()));
    signed.peer.address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(verdict(&signed), Err(SignatureError::UnsignedPayload));
}

#[test]
fn a_body_that_is_not_the_declared_one() {
    let mut signed = Signing::S3.sign(&unsigned());
    signed.body = "{ }".into();
    let denied = verdict(&signed).unwrap_err();
    assert_eq!(denied, SignatureError::PayloadMismatch);
    assert_eq!(denied.status_class(), StatusClass::Unauthenticated);
    assert_eq!(
        denied.to_string(),
        "the body does not match x-amz-content-sha256"
    );
}

#[test]
fn clock_skew() {
    let signed = Signing::KMS.sign(&unsigned());
    for (now, expected) in [
        (now() + 900.seconds(), Ok(())),
        (now() - 900.seconds(), Ok(())),
        (now() + 901.seconds(), Err(SignatureError::Skewed)),
        (now() - 901.seconds(), Err(SignatureError::Skewed)),
        (
            now() + 900.seconds() + 1.nanosecond(),
            Err(SignatureError::Skewed),
        ),
        (jiff::Timestamp::MAX, Err(SignatureError::Skewed)),
        (jiff::Timestamp::MIN, Err(SignatureError::Skewed)),
    ] {
        assert_eq!(verdict_at(&signed, now), expected, "{now}");
    }
    let dated = sign_plain(
        &request(
            "GET",
            "/x",
            &[("date", "Wed, 04 Mar 2026 05:06:07 GMT")],
            "",
        ),
        "date;host",
    );
    assert_eq!(
        verdict_at(&dated, now() + 901.seconds()),
        Err(SignatureError::Skewed)
    );
}

#[test]
fn expiry() {
    let signed = PRESIGNED.sign(&unsigned());
    for (now, expected) in [
        (now() + 300.seconds(), Ok(())),
        (now() + 301.seconds(), Err(SignatureError::Expired)),
        (now() - 900.seconds(), Ok(())),
        (now() - 901.seconds(), Err(SignatureError::NotYetValid)),
        (jiff::Timestamp::MAX, Err(SignatureError::Expired)),
        (jiff::Timestamp::MIN, Err(SignatureError::NotYetValid)),
    ] {
        assert_eq!(verdict_at(&signed, now), expected, "{now}");
    }
    let week = Signing {
        expires_in: 604_800,
        ..PRESIGNED
    }
    .sign(&unsigned());
    assert_eq!(verdict_at(&week, now() + 604_800.seconds()), Ok(()));
    assert_eq!(
        verdict_at(&week, now() + 604_801.seconds()),
        Err(SignatureError::Expired)
    );
}

#[test]
fn configured_rules() {
    let signed = Signing {
        session_token: Some(TOKEN),
        ..Signing::KMS
    }
    .sign(&unsigned());
    let rules = Rules {
        region: Some("eu-west-1".to_owned()),
        ..Rules::default()
    };
    let denied = Presented::parse(&signed, &rules).unwrap_err();
    assert_eq!(
        denied.to_string(),
        "the credential scope names another region: expected eu-west-1"
    );
    let rules = Rules {
        services: &["s3"],
        ..Rules::default()
    };
    let denied = Presented::parse(&signed, &rules).unwrap_err();
    assert_eq!(
        denied.to_string(),
        "the credential scope names another service: expected one of s3"
    );
    let rules = Rules {
        max_skew: Duration::ZERO,
        region: Some("us-east-1".to_owned()),
        ..Rules::default()
    };
    let presented = Presented::parse(&signed, &rules).unwrap();
    assert_eq!(presented.session_token(), Some(TOKEN));
    let keys = SigningKeys::default();
    assert_eq!(presented.verify(SECRET.as_bytes(), now(), &keys), Ok(()));
    assert_eq!(
        presented.verify(SECRET.as_bytes(), now() + 1.second(), &keys),
        Err(SignatureError::Skewed)
    );
    // No secret is not a secret.
    assert_eq!(
        presented.verify(b"", now(), &keys),
        Err(SignatureError::SignatureMismatch)
    );
}

/// Nothing a refusal says, or debug output shows, is worth stealing.
#[test]
fn refusals_tell_no_secrets() {
    let mut signed = Signing {
        session_token: Some(TOKEN),
        ..Signing::KMS
    }
    .sign(&unsigned());
    let presented = Presented::parse(&signed, &Rules::default()).unwrap();
    assert_eq!(
        format!("{presented:?}"),
        "Presented { access_key_id: \"AKIDEXAMPLE\", .. }"
    );
    assert_eq!(
        format!("{:?}", SigningKeys::default()),
        "SigningKeys { .. }"
    );
    signed.body = "changed".into();
    let denied = verdict(&signed).unwrap_err();
    for text in [denied.to_string(), format!("{denied:?}")] {
        assert!(
            !text.contains(TOKEN) && !text.contains(SECRET) && !text.contains("Signature="),
            "{text}"
        );
    }
}
