//! What is refused, with the words the client is told.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use jiff::ToSpan;
use keyway_auth::sigv4::{Presented, Rules, SignatureError, SigningKeys, StatusClass};
use keyway_http::{Peer, Request};

use Change::{Append, AppendToQuery, Other, Remove, Replace, ReplaceInQuery, Set};
use StatusClass::{BadRequest, Unauthenticated};

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

/// A change to a signed request that makes it refused.
enum Change {
    Set(&'static str, &'static str),
    Append(&'static str, &'static str),
    Remove(&'static str),
    Replace(&'static str, &'static str, &'static str),
    ReplaceInQuery(&'static str, &'static str),
    AppendToQuery(&'static str),
    Other(fn(&mut Request)),
}

impl Change {
    fn apply(&self, request: &mut Request) {
        match *self {
            Set(name, value) => set(request, name, value),
            Append(name, value) => drop(request.headers.append(name, value.parse().unwrap())),
            Remove(name) => drop(request.headers.remove(name).unwrap()),
            Replace(name, from, to) => replace(request, name, from, to),
            ReplaceInQuery(from, to) => replace_query(request, from, to),
            AppendToQuery(text) => request.raw_query.push_str(text),
            Other(change) => change(request),
        }
    }
}

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

/// A request signed in the given form passes; after each change it is refused with the class and the text of its row.
fn check(signing: &Signing, rows: &[(StatusClass, &str, &[Change])]) {
    let signed = signing.sign(&unsigned());
    assert_eq!(verdict(&signed), Ok(()));
    for (class, text, changes) in rows {
        assert!(!changes.is_empty(), "{text}");
        for (index, change) in changes.iter().enumerate() {
            let mut changed = signed.clone();
            change.apply(&mut changed);
            let denied = verdict(&changed).expect_err(text);
            assert_eq!(denied.to_string(), *text, "change {index}");
            assert_eq!(denied.status_class(), *class, "change {index}: {text}");
        }
    }
}

const NOT_SIGNED: &str = "the request is not signed: an AWS4-HMAC-SHA256 Authorization header or a presigned query is needed";
const SIGNED_TWICE: &str =
    "the request is signed twice, in the Authorization header and in the query; send one of them";
const OTHER_SCHEME: &str = "only AWS4-HMAC-SHA256 signatures are accepted";
const VERSION_2: &str = "Signature Version 2 is not accepted: sign with Signature Version 4 (AWS4-HMAC-SHA256), which clients call s3v4 or v4";
const MALFORMED: &str = "the Authorization header is malformed: expected AWS4-HMAC-SHA256 Credential=..., SignedHeaders=..., Signature=...";
const CREDENTIAL_MALFORMED: &str =
    "Credential is malformed: expected ACCESS_KEY_ID/YYYYMMDD/REGION/SERVICE/aws4_request";
const SCOPE_DATE: &str = "the credential scope's date is not the date of the request";
const SIGNED_HEADERS_MALFORMED: &str = "SignedHeaders is malformed: expected lower-case header names in ascending order, separated by semicolons";
const SIGNATURE_MALFORMED: &str = "Signature is malformed: expected 64 lower-case hex digits";
const HOST_UNSIGNED: &str = "the header host must be signed";
const DATE_MALFORMED: &str = "x-amz-date is malformed: expected YYYYMMDDTHHMMSSZ";
const MISMATCH: &str =
    "the signature does not match: check the secret access key and how the request is signed";
const CHUNKED: &str = "aws-chunked bodies are not supported: send the body whole with its SHA-256 in x-amz-content-sha256";
const DECLARATION: &str =
    "x-amz-content-sha256 must be the body's SHA-256 in hex or UNSIGNED-PAYLOAD";
const DECLARED_TWICE: &str = "x-amz-content-sha256 is given more than once";
const UNSIGNED_PAYLOAD: &str =
    "UNSIGNED-PAYLOAD is accepted over TLS or loopback only: sign the body";
const EXPIRES_MALFORMED: &str = "X-Amz-Expires is malformed: expected 1 to 604800 seconds";

/// The address of a client outside of this machine; its connection is not encrypted.
fn over_plain_network(request: &mut Request) {
    request.peer = Peer::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), false);
}

#[test]
fn authorization_of_another_scheme_is_refused() {
    let rows: &[(StatusClass, &str, &[Change])] = &[
        (
            Unauthenticated,
            NOT_SIGNED,
            &[
                Remove("authorization"),
                Other(|r| {
                    r.headers.remove("authorization");
                    r.raw_query = "Signature=a".to_owned();
                }),
            ],
        ),
        (
            Unauthenticated,
            "the Authorization header is given more than once",
            &[Other(|r| {
                let again = r.headers["authorization"].clone();
                r.headers.append("authorization", again);
            })],
        ),
        (
            Unauthenticated,
            SIGNED_TWICE,
            &[
                AppendToQuery("X-Amz-Signature=00"),
                AppendToQuery("X%2dAmz-Credential=x"),
            ],
        ),
        (
            Unauthenticated,
            VERSION_2,
            &[
                Set(
                    "authorization",
                    "AWS AKIDEXAMPLE:frJIUN8DYpKDtOLCwo//yllqDzg=",
                ),
                Other(|r| {
                    r.headers.remove("authorization");
                    r.raw_query =
                        "AWSAccessKeyId=AKIDEXAMPLE&Signature=vjbyPxybdZaNmGa%2ByT272YEAiv4%3D&Expires=1772600000"
                            .to_owned();
                }),
            ],
        ),
        (
            Unauthenticated,
            OTHER_SCHEME,
            &[
                Set("authorization", ""),
                Set("authorization", "Bearer abc"),
                Set("authorization", "Basic YTpi"),
                Replace(
                    "authorization",
                    "AWS4-HMAC-SHA256",
                    "AWS4-ECDSA-P256-SHA256",
                ),
                Replace("authorization", "AWS4-HMAC", "aws4-hmac"),
            ],
        ),
    ];
    check(&Signing::KMS, rows);
}

#[test]
fn authorization_malformed_is_refused() {
    let rows: &[(StatusClass, &str, &[Change])] = &[
        (
            Unauthenticated,
            MALFORMED,
            &[
                Set("authorization", "AWS4-HMAC-SHA256"),
                Set("authorization", "AWS4-HMAC-SHA256 ,,,"),
                Replace("authorization", ", Signature", ", X=y, Signature"),
                Replace("authorization", ", Signature", ",, Signature"),
                Replace("authorization", "Signature=", "Signature"),
                Replace("authorization", "Signature=", "signature="),
            ],
        ),
        (
            Unauthenticated,
            "Credential is given more than once",
            &[Replace(
                "authorization",
                ", Signature",
                ", Credential=x, Signature",
            )],
        ),
        (
            Unauthenticated,
            "Signature is given more than once",
            &[Replace(
                "authorization",
                ", Signature=",
                ", Signature=0, Signature=",
            )],
        ),
        (
            Unauthenticated,
            "SignedHeaders is given more than once",
            &[Replace(
                "authorization",
                "SignedHeaders=",
                "SignedHeaders=host, SignedHeaders=",
            )],
        ),
        (
            Unauthenticated,
            "Credential is missing",
            &[Other(|r| {
                replace(
                    r,
                    "authorization",
                    &format!("Credential={CREDENTIAL}, "),
                    "",
                );
            })],
        ),
        (
            Unauthenticated,
            "SignedHeaders is missing",
            &[Set("authorization", "AWS4-HMAC-SHA256 Credential=a")],
        ),
        (
            Unauthenticated,
            "Signature is missing",
            &[Set(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host",
            )],
        ),
        (
            Unauthenticated,
            "the Authorization header is too long: at most 8192 bytes are accepted",
            &[Other(|r| {
                set(
                    r,
                    "authorization",
                    &format!("AWS4-HMAC-SHA256 {}", "x".repeat(9000)),
                );
            })],
        ),
        (
            Unauthenticated,
            "the Authorization header is malformed: expected visible ASCII characters",
            &[Other(|r| {
                let value = http::HeaderValue::from_bytes(b"AWS4\xff").unwrap();
                r.headers.insert("authorization", value);
            })],
        ),
    ];
    check(&Signing::KMS, rows);
}

#[test]
fn credential_malformed_is_refused() {
    let rows: &[(StatusClass, &str, &[Change])] = &[
        (
            Unauthenticated,
            CREDENTIAL_MALFORMED,
            &[
                Replace("authorization", CREDENTIAL, ""),
                Replace("authorization", CREDENTIAL, "AKIDEXAMPLE"),
                Replace("authorization", "AKIDEXAMPLE/", "/"),
                Replace("authorization", "AKIDEXAMPLE/", ""),
                Replace("authorization", "AKIDEXAMPLE", "AKID EXAMPLE"),
                Replace("authorization", "aws4_request", "aws4"),
                Replace("authorization", "/20260304/", "/2026030x/"),
                Replace("authorization", "/20260304/", "/202603040/"),
            ],
        ),
        (
            Unauthenticated,
            "the access key id is too long: at most 128 characters are accepted",
            &[Other(|r| {
                replace(r, "authorization", "AKIDEXAMPLE", &"A".repeat(129))
            })],
        ),
        (
            Unauthenticated,
            "the region is too long: at most 64 characters are accepted",
            &[Other(|r| {
                replace(r, "authorization", "us-east-1", &"a".repeat(65))
            })],
        ),
        (
            Unauthenticated,
            "the credential scope names another service: expected one of execute-api, s3, sts, kms",
            &[Replace("authorization", "execute-api", "lambda")],
        ),
        (
            Unauthenticated,
            SCOPE_DATE,
            &[Replace("authorization", "/20260304/", "/20260303/")],
        ),
        (
            Unauthenticated,
            MISMATCH,
            &[
                Replace("authorization", "/us-east-1/", "/us-east-2/"),
                Replace("authorization", "/execute-api/", "/kms/"),
            ],
        ),
    ];
    check(&Signing::KMS, rows);
}

#[test]
fn signature_malformed_is_refused() {
    let rows: &[(StatusClass, &str, &[Change])] = &[(
        Unauthenticated,
        SIGNATURE_MALFORMED,
        &[
            Replace("authorization", "Signature=", "Signature=0"),
            Other(|r| {
                let value = r.headers["authorization"].to_str().unwrap().to_owned();
                set(r, "authorization", &value[..value.len() - 1]);
            }),
            Other(|r| {
                let value = r.headers["authorization"].to_str().unwrap().to_owned();
                let (rest, signature) = value.split_once("Signature=").unwrap();
                let value = format!("{rest}Signature={}", signature.to_uppercase());
                set(r, "authorization", &value);
            }),
        ],
    )];
    check(&Signing::KMS, rows);
}

#[test]
fn signed_headers_malformed_are_refused() {
    let rows: &[(StatusClass, &str, &[Change])] = &[
        (
            Unauthenticated,
            SIGNED_HEADERS_MALFORMED,
            &[
                Replace("authorization", "content-type;host", "host;content-type"),
                Replace("authorization", "content-type;host", "host;host"),
                Replace("authorization", "content-type;host", "Content-Type;host"),
                Replace("authorization", "content-type;host", ";host"),
                Replace("authorization", "content-type;host;x-amz-date", ""),
            ],
        ),
        (
            Unauthenticated,
            "SignedHeaders is too long: at most 100 names are accepted",
            &[Other(|r| {
                let names: Vec<_> = (0..101).map(|n| format!("a{n:03}")).collect();
                for name in &names {
                    let name = http::HeaderName::try_from(name).unwrap();
                    r.headers.insert(name, "".parse().unwrap());
                }
                let names = format!("{};content-type;", names.join(";"));
                replace(r, "authorization", "content-type;", &names);
            })],
        ),
        (
            Unauthenticated,
            "the text of the signed headers is too long: at most 65536 bytes are accepted",
            &[Other(|r| set(r, "content-type", &"x".repeat(70_000)))],
        ),
    ];
    check(&Signing::KMS, rows);
}

#[test]
fn headers_other_than_the_signed_ones_are_refused() {
    let rows: &[(StatusClass, &str, &[Change])] = &[
        (
            Unauthenticated,
            HOST_UNSIGNED,
            &[Replace("authorization", ";host;", ";")],
        ),
        (
            Unauthenticated,
            "the signed header host is not in the request",
            &[Remove("host")],
        ),
        (
            Unauthenticated,
            "the Host header is given more than once",
            &[Append("host", "other.example.com")],
        ),
        (
            Unauthenticated,
            "the signed header content-type is not in the request",
            &[Remove("content-type")],
        ),
        (
            Unauthenticated,
            "the signed header expect is not in the request",
            &[Replace(
                "authorization",
                "content-type;host",
                "content-type;expect;host",
            )],
        ),
        (
            Unauthenticated,
            "the header x-amz-target must be signed",
            &[Set("x-amz-target", "a")],
        ),
        (
            Unauthenticated,
            "the header x-amz-security-token must be signed",
            &[Set("x-amz-security-token", "a")],
        ),
        (
            Unauthenticated,
            "the header x-amz-content-sha256 must be signed",
            &[Set("x-amz-content-sha256", "UNSIGNED-PAYLOAD")],
        ),
        (
            Unauthenticated,
            "the header x-amz-date must be signed",
            &[Replace("authorization", ";x-amz-date", "")],
        ),
    ];
    check(&Signing::KMS, rows);
}

#[test]
fn date_malformed_is_refused() {
    let rows: &[(StatusClass, &str, &[Change])] = &[
        (
            Unauthenticated,
            "x-amz-date is missing",
            &[Remove("x-amz-date")],
        ),
        (
            Unauthenticated,
            "x-amz-date is given more than once",
            &[Append("x-amz-date", "20260304T050607Z")],
        ),
        (
            Unauthenticated,
            DATE_MALFORMED,
            &[
                Set("x-amz-date", ""),
                Set("x-amz-date", "2026-03-04T05:06:07Z"),
                Set("x-amz-date", "20260304T050607"),
                Set("x-amz-date", "20260230T050607Z"),
                Set("x-amz-date", "20260304T050660Z"),
                Set("x-amz-date", "20260304T2406o7Z"),
                Set("x-amz-date", "+2260304T050607Z"),
            ],
        ),
        (
            Unauthenticated,
            "the Date header is malformed: expected an HTTP date",
            &[Other(|r| {
                r.headers.remove("x-amz-date");
                set(r, "date", "yesterday");
            })],
        ),
    ];
    check(&Signing::KMS, rows);
}

#[test]
fn request_changed_after_signing_is_refused() {
    let rows: &[(StatusClass, &str, &[Change])] = &[(
        Unauthenticated,
        MISMATCH,
        &[
            Set("x-amz-date", "20260304T050608Z"),
            Other(|r| r.body = "{ }".into()),
            Other(|r| r.raw_path.push('x')),
            AppendToQuery("x"),
        ],
    )];
    check(&Signing::KMS, rows);
}

#[test]
fn path_and_query_malformed_are_refused() {
    let rows: &[(StatusClass, &str, &[Change])] = &[
        (
            BadRequest,
            "the path is malformed: a percent sign must be followed by two hex digits",
            &[
                Other(|r| r.raw_path.push('%')),
                Other(|r| r.raw_path.push_str("%4")),
            ],
        ),
        (
            BadRequest,
            "the query is malformed: a percent sign must be followed by two hex digits",
            &[AppendToQuery("a=%4g")],
        ),
        (
            BadRequest,
            "the path is malformed: control characters must be percent-encoded",
            &[Other(|r| r.raw_path.push('\n'))],
        ),
        (
            BadRequest,
            "the query is malformed: control characters must be percent-encoded",
            &[AppendToQuery("\0")],
        ),
        (
            BadRequest,
            "the path must begin with a slash",
            &[
                Other(|r| r.raw_path.insert(0, 'x')),
                Other(|r| r.raw_path = String::new()),
            ],
        ),
        (
            BadRequest,
            "the path is too long: at most 8192 bytes are accepted",
            &[Other(|r| r.raw_path = "/x".repeat(5000))],
        ),
        (
            BadRequest,
            "the query is too long: at most 16384 bytes are accepted",
            &[Other(|r| r.raw_query = "&".repeat(20_000))],
        ),
    ];
    check(&Signing::KMS, rows);
}

/// Declares the payload in a signed header. The signature no longer matches, but it is verified later.
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
fn payload_declaration_unsupported_is_refused() {
    let rows: &[(StatusClass, &str, &[Change])] = &[
        (
            BadRequest,
            CHUNKED,
            &[
                Set("content-encoding", "aws-chunked"),
                Set("content-encoding", "gzip, AWS-Chunked"),
                Other(|r| declare(r, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")),
                Other(|r| declare(r, "STREAMING-UNSIGNED-PAYLOAD-TRAILER")),
            ],
        ),
        (
            BadRequest,
            DECLARATION,
            &[
                Other(|r| declare(r, "")),
                Other(|r| declare(r, "unsigned-payload")),
                Other(|r| declare(r, &"0".repeat(63))),
                Other(|r| declare(r, &"0".repeat(65))),
                Other(|r| declare(r, &"g".repeat(64))),
            ],
        ),
        (
            BadRequest,
            UNSIGNED_PAYLOAD,
            &[Other(|r| {
                declare(r, "UNSIGNED-PAYLOAD");
                over_plain_network(r);
            })],
        ),
        (
            Unauthenticated,
            DECLARED_TWICE,
            &[Other(|r| {
                declare(r, "UNSIGNED-PAYLOAD");
                let again = r.headers["x-amz-content-sha256"].clone();
                r.headers.append("x-amz-content-sha256", again);
            })],
        ),
    ];
    check(&Signing::KMS, rows);
}

#[test]
fn presigned_query_incomplete_or_repeated_is_refused() {
    let rows: &[(StatusClass, &str, &[Change])] = &[
        (
            Unauthenticated,
            SIGNED_TWICE,
            &[
                Set("authorization", "Basic YTpi"),
                Set("x-amz-security-token", "a"),
            ],
        ),
        (
            Unauthenticated,
            "X-Amz-Algorithm is missing",
            &[ReplaceInQuery("X-Amz-Algorithm", "a")],
        ),
        (
            Unauthenticated,
            "X-Amz-Credential is missing",
            &[ReplaceInQuery("X-Amz-Credential", "a")],
        ),
        (
            Unauthenticated,
            "X-Amz-Date is missing",
            &[ReplaceInQuery("X-Amz-Date", "a")],
        ),
        (
            Unauthenticated,
            "X-Amz-SignedHeaders is missing",
            &[ReplaceInQuery("X-Amz-SignedHeaders", "a")],
        ),
        (
            Unauthenticated,
            "X-Amz-Signature is missing",
            &[ReplaceInQuery("X-Amz-Signature", "a")],
        ),
        (
            Unauthenticated,
            "X-Amz-Algorithm is given more than once",
            &[AppendToQuery("&X-Amz-Algorithm=x")],
        ),
        (
            Unauthenticated,
            "X-Amz-Credential is given more than once",
            &[AppendToQuery("&X-Amz-Credential=x")],
        ),
        (
            Unauthenticated,
            "X-Amz-Date is given more than once",
            &[AppendToQuery("&X-Amz-Date=x")],
        ),
        (
            Unauthenticated,
            "X-Amz-Expires is given more than once",
            &[AppendToQuery("&X-Amz-Expires=x")],
        ),
        (
            Unauthenticated,
            "X-Amz-SignedHeaders is given more than once",
            &[AppendToQuery("&X-Amz-SignedHeaders=x")],
        ),
        (
            Unauthenticated,
            "X-Amz-Signature is given more than once",
            &[
                AppendToQuery("&X-Amz-Signature=x"),
                AppendToQuery("&X%2dAmz-Signature"),
            ],
        ),
        (
            Unauthenticated,
            "X-Amz-Security-Token is given more than once",
            &[AppendToQuery(
                "&X-Amz-Security-Token=x&X-Amz-Security-Token=y",
            )],
        ),
    ];
    check(&PRESIGNED, rows);
}

#[test]
fn presigned_query_malformed_is_refused() {
    let rows: &[(StatusClass, &str, &[Change])] = &[
        (
            Unauthenticated,
            OTHER_SCHEME,
            &[ReplaceInQuery("AWS4%2DHMAC", "AWS5-HMAC")],
        ),
        (
            Unauthenticated,
            CREDENTIAL_MALFORMED,
            &[ReplaceInQuery("%2Faws4%5Frequest", "%FFaws4%5Frequest")],
        ),
        (
            Unauthenticated,
            "X-Amz-Date is malformed: expected YYYYMMDDTHHMMSSZ",
            &[ReplaceInQuery("20260304T050607Z", "yesterday")],
        ),
        (
            Unauthenticated,
            SCOPE_DATE,
            &[ReplaceInQuery("%2F20260304%2F", "%2F20260305%2F")],
        ),
        (
            Unauthenticated,
            HOST_UNSIGNED,
            &[ReplaceInQuery("%3Bhost", "")],
        ),
        (
            Unauthenticated,
            EXPIRES_MALFORMED,
            &[
                ReplaceInQuery("X-Amz-Expires=300", "X-Amz-Expires=0"),
                ReplaceInQuery("X-Amz-Expires=300", "X-Amz-Expires=604801"),
                ReplaceInQuery("X-Amz-Expires=300", "X-Amz-Expires=-300"),
                ReplaceInQuery("X-Amz-Expires=300", "X-Amz-Expires=99999999999999999999"),
                ReplaceInQuery("X-Amz-Expires=300", "X-Amz-Expires=3e2"),
            ],
        ),
        (
            Unauthenticated,
            "X-Amz-Security-Token is malformed: expected a token without spaces; a plus is written %2B",
            &[AppendToQuery("&X-Amz-Security-Token=x+y")],
        ),
        (
            Unauthenticated,
            "the session token is too long: at most 8192 characters are accepted",
            &[Other(|r| {
                r.raw_query.push_str("&X-Amz-Security-Token=");
                r.raw_query.push_str(&"x".repeat(9000));
            })],
        ),
    ];
    check(&PRESIGNED, rows);
}

#[test]
fn presigned_request_changed_after_signing_is_refused() {
    let rows: &[(StatusClass, &str, &[Change])] = &[
        (
            Unauthenticated,
            MISMATCH,
            &[
                AppendToQuery("&X-Amz-Security-Token=x"),
                ReplaceInQuery("X-Amz-Expires=300", "X-Amz-Expires=301"),
                ReplaceInQuery("X-Amz-Expires=300", ""),
                Other(|r| r.body = "{ }".into()),
            ],
        ),
        (
            BadRequest,
            UNSIGNED_PAYLOAD,
            &[Other(|r| {
                r.raw_query
                    .push_str("&X-Amz-Content-Sha256=UNSIGNED-PAYLOAD");
                over_plain_network(r);
            })],
        ),
        (
            Unauthenticated,
            DECLARED_TWICE,
            &[Other(|r| {
                r.raw_query
                    .push_str("&X-Amz-Content-Sha256=UNSIGNED-PAYLOAD");
                set(
                    r,
                    "x-amz-content-sha256",
                    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
                );
            })],
        ),
    ];
    check(&PRESIGNED, rows);
}

#[test]
fn presigned_s3_request_over_plain_http_is_refused() {
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
fn body_other_than_declared_is_refused() {
    let mut signed = Signing::S3.sign(&unsigned());
    signed.body = "{ }".into();
    let denied = verdict(&signed).unwrap_err();
    assert_eq!(denied, SignatureError::PayloadMismatch);
    assert_eq!(denied.status_class(), Unauthenticated);
    assert_eq!(
        denied.to_string(),
        "the body does not match x-amz-content-sha256"
    );
}

#[test]
fn request_outside_of_the_clock_skew_is_refused() {
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
fn presigned_request_before_or_after_its_time_is_refused() {
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
fn rules_for_region_service_and_skew_are_enforced() {
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
fn refusal_and_debug_output_hold_no_secret() {
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
