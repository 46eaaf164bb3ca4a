//! What is refused of a signature in the `Authorization` header.

use std::net::{IpAddr, Ipv4Addr};

use http::HeaderValue;
use keyway_auth::sigv4::StatusClass::{BadRequest, Unauthenticated};
use keyway_http::Peer;

use super::change::Change::{
    Again, Authorization, By, Declared, Header, PathEnd, QueryEnd, Without,
};
use super::change::{Refused, authorization, declare, set};

const CREDENTIAL: &str = "AKIDEXAMPLE/20260304/us-east-1/execute-api/aws4_request";
const AUTHORIZATION: &str = "authorization";
const DATE: &str = "x-amz-date";

/// Another scheme, or a header that cannot be read.
pub(super) const SCHEME: &[Refused] = &[
    (
        Unauthenticated,
        "the request is not signed: an AWS4-HMAC-SHA256 Authorization header or a presigned query is needed",
        &[
            Without(AUTHORIZATION),
            By(|r| {
                r.headers.remove(AUTHORIZATION);
                r.raw_query = "Signature=a".to_owned();
            }),
        ],
    ),
    (
        Unauthenticated,
        "the request is signed twice, in the Authorization header and in the query; send one of them",
        &[
            QueryEnd("X-Amz-Signature=00"),
            QueryEnd("X%2dAmz-Credential=x"),
        ],
    ),
    (
        Unauthenticated,
        "only AWS4-HMAC-SHA256 signatures are accepted",
        &[
            Header(AUTHORIZATION, ""),
            Header(AUTHORIZATION, "Bearer abc"),
            Header(AUTHORIZATION, "Basic YTpi"),
            Authorization("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
            Authorization("AWS4-HMAC", "aws4-hmac"),
        ],
    ),
    (
        Unauthenticated,
        "Signature Version 2 is not accepted: sign with Signature Version 4 (AWS4-HMAC-SHA256), which clients call s3v4 or v4",
        &[
            Header(
                AUTHORIZATION,
                "AWS AKIDEXAMPLE:frJIUN8DYpKDtOLCwo//yllqDzg=",
            ),
            By(|r| {
                r.headers.remove(AUTHORIZATION);
                r.raw_query = "AWSAccessKeyId=AKIDEXAMPLE&Signature=vjbyPxybdZaNmGa%2ByT272YEAiv4%3D&Expires=1772600000".to_owned();
            }),
        ],
    ),
    (
        Unauthenticated,
        "the Authorization header is too long: at most 8192 bytes are accepted",
        &[By(|r| {
            let long = format!("AWS4-HMAC-SHA256 {}", "x".repeat(9000));
            set(r, AUTHORIZATION, &long);
        })],
    ),
    (
        Unauthenticated,
        "the Authorization header is malformed: expected visible ASCII characters",
        &[By(|r| {
            let value = HeaderValue::from_bytes(b"AWS4\xff").unwrap();
            r.headers.insert(AUTHORIZATION, value);
        })],
    ),
    (
        Unauthenticated,
        "the Authorization header is given more than once",
        &[By(|r| {
            let again = r.headers[AUTHORIZATION].clone();
            r.headers.append(AUTHORIZATION, again);
        })],
    ),
];

/// Parts of the header that are absent, repeated or malformed.
pub(super) const PARTS: &[Refused] = &[
    (
        Unauthenticated,
        "the Authorization header is malformed: expected AWS4-HMAC-SHA256 Credential=..., SignedHeaders=..., Signature=...",
        &[
            Header(AUTHORIZATION, "AWS4-HMAC-SHA256"),
            Header(AUTHORIZATION, "AWS4-HMAC-SHA256 ,,,"),
            Authorization(", Signature", ", X=y, Signature"),
            Authorization(", Signature", ",, Signature"),
            Authorization("Signature=", "Signature"),
            Authorization("Signature=", "signature="),
        ],
    ),
    (
        Unauthenticated,
        "Credential is given more than once",
        &[Authorization(", Signature", ", Credential=x, Signature")],
    ),
    (
        Unauthenticated,
        "Signature is given more than once",
        &[Authorization(", Signature=", ", Signature=0, Signature=")],
    ),
    (
        Unauthenticated,
        "SignedHeaders is given more than once",
        &[Authorization(
            "SignedHeaders=",
            "SignedHeaders=host, SignedHeaders=",
        )],
    ),
    (
        Unauthenticated,
        "Credential is missing",
        &[By(|r| {
            authorization(r, &format!("Credential={CREDENTIAL}, "), "");
        })],
    ),
    (
        Unauthenticated,
        "SignedHeaders is missing",
        &[Header(AUTHORIZATION, "AWS4-HMAC-SHA256 Credential=a")],
    ),
    (
        Unauthenticated,
        "Signature is missing",
        &[Header(
            AUTHORIZATION,
            "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host",
        )],
    ),
    (
        Unauthenticated,
        "Signature is malformed: expected 64 lower-case hex digits",
        &[
            Authorization("Signature=", "Signature=0"),
            By(|r| {
                let value = r.headers[AUTHORIZATION].to_str().unwrap().to_owned();
                set(r, AUTHORIZATION, &value[..value.len() - 1]);
            }),
            By(|r| {
                let value = r.headers[AUTHORIZATION].to_str().unwrap().to_owned();
                let (rest, signature) = value.split_once("Signature=").unwrap();
                let upper = format!("{rest}Signature={}", signature.to_uppercase());
                set(r, AUTHORIZATION, &upper);
            }),
        ],
    ),
];

/// Credentials that cannot be read, or are not for this service.
pub(super) const SCOPE: &[Refused] = &[
    (
        Unauthenticated,
        "Credential is malformed: expected ACCESS_KEY_ID/YYYYMMDD/REGION/SERVICE/aws4_request",
        &[
            Authorization(CREDENTIAL, ""),
            Authorization(CREDENTIAL, "AKIDEXAMPLE"),
            Authorization("AKIDEXAMPLE/", "/"),
            Authorization("AKIDEXAMPLE/", ""),
            Authorization("AKIDEXAMPLE", "AKID EXAMPLE"),
            Authorization("aws4_request", "aws4"),
            Authorization("/20260304/", "/2026030x/"),
            Authorization("/20260304/", "/202603040/"),
        ],
    ),
    (
        Unauthenticated,
        "the access key id is too long: at most 128 characters are accepted",
        &[By(|r| authorization(r, "AKIDEXAMPLE", &"A".repeat(129)))],
    ),
    (
        Unauthenticated,
        "the region is too long: at most 64 characters are accepted",
        &[By(|r| authorization(r, "us-east-1", &"a".repeat(65)))],
    ),
    (
        Unauthenticated,
        "the credential scope names another service: expected one of execute-api, s3, sts, kms",
        &[Authorization("execute-api", "lambda")],
    ),
    (
        Unauthenticated,
        "the credential scope's date is not the date of the request",
        &[Authorization("/20260304/", "/20260303/")],
    ),
];

/// Signed headers that are malformed, absent or too many, and headers that must be signed.
pub(super) const SIGNED_HEADERS: &[Refused] = &[
    (
        Unauthenticated,
        "SignedHeaders is malformed: expected lower-case header names in ascending order, separated by semicolons",
        &[
            Authorization("content-type;host", "host;content-type"),
            Authorization("content-type;host", "host;host"),
            Authorization("content-type;host", "Content-Type;host"),
            Authorization("content-type;host", ";host"),
            Authorization("content-type;host;x-amz-date", ""),
        ],
    ),
    (
        Unauthenticated,
        "the header host must be signed",
        &[Authorization(";host;", ";")],
    ),
    (
        Unauthenticated,
        "the signed header host is not in the request",
        &[Without("host")],
    ),
    (
        Unauthenticated,
        "the Host header is given more than once",
        &[Again("host", "other.example.com")],
    ),
    (
        Unauthenticated,
        "the signed header content-type is not in the request",
        &[Without("content-type")],
    ),
    (
        Unauthenticated,
        "the signed header expect is not in the request",
        &[Authorization(
            "content-type;host",
            "content-type;expect;host",
        )],
    ),
    (
        Unauthenticated,
        "the header x-amz-target must be signed",
        &[Header("x-amz-target", "a")],
    ),
    (
        Unauthenticated,
        "the header x-amz-security-token must be signed",
        &[Header("x-amz-security-token", "a")],
    ),
    (
        Unauthenticated,
        "the header x-amz-content-sha256 must be signed",
        &[Header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")],
    ),
    (
        Unauthenticated,
        "the header x-amz-date must be signed",
        &[Authorization(";x-amz-date", "")],
    ),
    (
        Unauthenticated,
        "SignedHeaders is too long: at most 100 names are accepted",
        &[By(|r| {
            let names: Vec<_> = (0..101).map(|n| format!("a{n:03}")).collect();
            for name in &names {
                let name = http::HeaderName::try_from(name).unwrap();
                r.headers.insert(name, HeaderValue::from_static(""));
            }
            let names = names.join(";");
            authorization(r, "content-type;", &format!("{names};content-type;"));
        })],
    ),
    (
        Unauthenticated,
        "the text of the signed headers is too long: at most 65536 bytes are accepted",
        &[By(|r| set(r, "content-type", &"x".repeat(70_000)))],
    ),
];

/// Dates that are absent, repeated or malformed.
pub(super) const DATES: &[Refused] = &[
    (Unauthenticated, "x-amz-date is missing", &[Without(DATE)]),
    (
        Unauthenticated,
        "x-amz-date is given more than once",
        &[Again(DATE, "20260304T050607Z")],
    ),
    (
        Unauthenticated,
        "x-amz-date is malformed: expected YYYYMMDDTHHMMSSZ",
        &[
            Header(DATE, ""),
            Header(DATE, "2026-03-04T05:06:07Z"),
            Header(DATE, "20260304T050607"),
            Header(DATE, "20260230T050607Z"),
            Header(DATE, "20260304T050660Z"),
            Header(DATE, "20260304T2406o7Z"),
            Header(DATE, "+2260304T050607Z"),
        ],
    ),
    (
        Unauthenticated,
        "the Date header is malformed: expected an HTTP date",
        &[By(|r| {
            r.headers.remove(DATE);
            set(r, "date", "yesterday");
        })],
    ),
];

/// Requests that are not the signed one.
pub(super) const MISMATCH: &[Refused] = &[(
    Unauthenticated,
    "the signature does not match: check the secret access key and how the request is signed",
    &[
        Authorization("/us-east-1/", "/us-east-2/"),
        Authorization("/execute-api/", "/kms/"),
        Header(DATE, "20260304T050608Z"),
        By(|r| r.body = "{ }".into()),
        PathEnd("x"),
        QueryEnd("x"),
    ],
)];

/// Paths and queries that no URL has, or no honest client sends.
pub(super) const TARGET: &[Refused] = &[
    (
        BadRequest,
        "the path is malformed: a percent sign must be followed by two hex digits",
        &[PathEnd("%"), PathEnd("%4")],
    ),
    (
        BadRequest,
        "the query is malformed: a percent sign must be followed by two hex digits",
        &[QueryEnd("a=%4g")],
    ),
    (
        BadRequest,
        "the path is malformed: control characters must be percent-encoded",
        &[PathEnd("\n")],
    ),
    (
        BadRequest,
        "the query is malformed: control characters must be percent-encoded",
        &[QueryEnd("\0")],
    ),
    (
        BadRequest,
        "the path must begin with a slash",
        &[
            By(|r| r.raw_path.insert(0, 'x')),
            By(|r| r.raw_path.clear()),
        ],
    ),
    (
        BadRequest,
        "the path is too long: at most 8192 bytes are accepted",
        &[By(|r| r.raw_path = "/x".repeat(5000))],
    ),
    (
        BadRequest,
        "the query is too long: at most 16384 bytes are accepted",
        &[By(|r| r.raw_query = "&".repeat(20_000))],
    ),
];

/// Declarations of the payload that are not accepted.
pub(super) const PAYLOAD: &[Refused] = &[
    (
        BadRequest,
        "aws-chunked bodies are not supported: send the body whole with its SHA-256 in x-amz-content-sha256",
        &[
            Header("content-encoding", "aws-chunked"),
            Header("content-encoding", "gzip, AWS-Chunked"),
            Declared("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
            Declared("STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        ],
    ),
    (
        BadRequest,
        "x-amz-content-sha256 must be the body's SHA-256 in hex or UNSIGNED-PAYLOAD",
        &[
            Declared(""),
            Declared("unsigned-payload"),
            By(|r| declare(r, &"0".repeat(63))),
            By(|r| declare(r, &"0".repeat(65))),
            By(|r| declare(r, &"g".repeat(64))),
        ],
    ),
    (
        BadRequest,
        "UNSIGNED-PAYLOAD is accepted over TLS or loopback only: sign the body",
        &[By(|r| {
            declare(r, "UNSIGNED-PAYLOAD");
            r.peer = Peer::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), false);
        })],
    ),
    (
        Unauthenticated,
        "x-amz-content-sha256 is given more than once",
        &[By(|r| {
            declare(r, "UNSIGNED-PAYLOAD");
            let again = HeaderValue::from_static("UNSIGNED-PAYLOAD");
            r.headers.append("x-amz-content-sha256", again);
        })],
    ),
];
