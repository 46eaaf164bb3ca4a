//! What is refused of a presigned query.

use std::net::{IpAddr, Ipv4Addr};

use keyway_auth::sigv4::StatusClass::{BadRequest, Unauthenticated};
use keyway_http::Peer;

use super::change::Change::{By, Header, Query, QueryEnd};
use super::change::{Refused, set};

/// Parts of the query that are absent or repeated.
pub(super) const PARTS: &[Refused] = &[
    (
        Unauthenticated,
        "the request is signed twice, in the Authorization header and in the query; send one of them",
        &[
            Header("authorization", "Basic YTpi"),
            Header("x-amz-security-token", "a"),
        ],
    ),
    (
        Unauthenticated,
        "X-Amz-Algorithm is missing",
        &[Query("X-Amz-Algorithm", "a")],
    ),
    (
        Unauthenticated,
        "X-Amz-Credential is missing",
        &[Query("X-Amz-Credential", "a")],
    ),
    (
        Unauthenticated,
        "X-Amz-Date is missing",
        &[Query("X-Amz-Date", "a")],
    ),
    (
        Unauthenticated,
        "X-Amz-SignedHeaders is missing",
        &[Query("X-Amz-SignedHeaders", "a")],
    ),
    (
        Unauthenticated,
        "X-Amz-Signature is missing",
        &[Query("X-Amz-Signature", "a")],
    ),
    (
        Unauthenticated,
        "X-Amz-Algorithm is given more than once",
        &[QueryEnd("&X-Amz-Algorithm=x")],
    ),
    (
        Unauthenticated,
        "X-Amz-Credential is given more than once",
        &[QueryEnd("&X-Amz-Credential=x")],
    ),
    (
        Unauthenticated,
        "X-Amz-Date is given more than once",
        &[QueryEnd("&X-Amz-Date=x")],
    ),
    (
        Unauthenticated,
        "X-Amz-Expires is given more than once",
        &[QueryEnd("&X-Amz-Expires=x")],
    ),
    (
        Unauthenticated,
        "X-Amz-SignedHeaders is given more than once",
        &[QueryEnd("&X-Amz-SignedHeaders=x")],
    ),
    (
        Unauthenticated,
        "X-Amz-Signature is given more than once",
        &[
            QueryEnd("&X-Amz-Signature=x"),
            QueryEnd("&X%2dAmz-Signature"),
        ],
    ),
    (
        Unauthenticated,
        "X-Amz-Security-Token is given more than once",
        &[QueryEnd("&X-Amz-Security-Token=x&X-Amz-Security-Token=y")],
    ),
];

/// Parts of the query that are malformed, or not for this service.
pub(super) const VALUES: &[Refused] = &[
    (
        Unauthenticated,
        "only AWS4-HMAC-SHA256 signatures are accepted",
        &[Query("AWS4%2DHMAC", "AWS5-HMAC")],
    ),
    (
        Unauthenticated,
        "X-Amz-Security-Token is malformed: expected a token without spaces; a plus is written %2B",
        &[QueryEnd("&X-Amz-Security-Token=x+y")],
    ),
    (
        Unauthenticated,
        "the session token is too long: at most 8192 characters are accepted",
        &[By(|r| {
            let token = "x".repeat(9000);
            r.raw_query
                .push_str(&format!("&X-Amz-Security-Token={token}"));
        })],
    ),
    (
        Unauthenticated,
        "X-Amz-Expires is malformed: expected 1 to 604800 seconds",
        &[
            Query("X-Amz-Expires=300", "X-Amz-Expires=0"),
            Query("X-Amz-Expires=300", "X-Amz-Expires=604801"),
            Query("X-Amz-Expires=300", "X-Amz-Expires=-300"),
            Query("X-Amz-Expires=300", "X-Amz-Expires=99999999999999999999"),
            Query("X-Amz-Expires=300", "X-Amz-Expires=3e2"),
        ],
    ),
    (
        Unauthenticated,
        "X-Amz-Date is malformed: expected YYYYMMDDTHHMMSSZ",
        &[Query("20260304T050607Z", "yesterday")],
    ),
    (
        Unauthenticated,
        "the credential scope's date is not the date of the request",
        &[Query("%2F20260304%2F", "%2F20260305%2F")],
    ),
    (
        Unauthenticated,
        "the header host must be signed",
        &[Query("%3Bhost", "")],
    ),
    (
        Unauthenticated,
        "Credential is malformed: expected ACCESS_KEY_ID/YYYYMMDD/REGION/SERVICE/aws4_request",
        &[Query("%2Faws4%5Frequest", "%FFaws4%5Frequest")],
    ),
];

/// Requests that are not the signed one.
pub(super) const MISMATCH: &[Refused] = &[(
    Unauthenticated,
    "the signature does not match: check the secret access key and how the request is signed",
    &[
        QueryEnd("&X-Amz-Security-Token=x"),
        Query("X-Amz-Expires=300", "X-Amz-Expires=301"),
        Query("X-Amz-Expires=300", ""),
        By(|r| r.body = "{ }".into()),
    ],
)];

/// Declarations of the payload that are not accepted.
pub(super) const PAYLOAD: &[Refused] = &[
    (
        BadRequest,
        "UNSIGNED-PAYLOAD is accepted over TLS or loopback only: sign the body",
        &[By(|r| {
            r.raw_query
                .push_str("&X-Amz-Content-Sha256=UNSIGNED-PAYLOAD");
            r.peer = Peer::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), false);
        })],
    ),
    (
        Unauthenticated,
        "x-amz-content-sha256 is given more than once",
        &[By(|r| {
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
