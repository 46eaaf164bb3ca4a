//! Requests of every legal shape.

use keyway_http::Request;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::signer::{Signing, TOKEN, request};

/// Requests on which AWS's signer and all others agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Any text that a target may have.
    Odd,
    /// Requests that both verifiers support: header form, paths of unreserved characters without dot segments, query names
    /// of one length.
    Plain,
}

fn path(shape: Shape) -> BoxedStrategy<String> {
    let plain = "[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,8}";
    let segment = match shape {
        Shape::Plain => plain.boxed(),
        Shape::Odd => prop_oneof![
            4 => plain,
            3 => "([A-Za-z0-9._~:@!$&'()*,;=+-]|%[0-9A-Fa-f]{2}){0,6}",
            1 => select(vec![String::new(), ".".to_owned(), "..".to_owned()]),
        ]
        .boxed(),
    };
    vec(segment, 0..5)
        .prop_map(|segments| format!("/{}", segments.join("/")))
        .boxed()
}

/// Encoded bytes are ASCII or whole UTF-8, for AWS's signer replaces everything else.
fn query(shape: Shape) -> impl Strategy<Value = String> {
    let name = match shape {
        Shape::Plain => "[A-Za-z]{3}",
        Shape::Odd => "[A-Za-z0-9._~-]{1,6}",
    };
    let value = "([A-Za-z0-9._~:/@!$'()*,;-]|%[2-7][0-9A-F]|%7[ef]|%C3%A9|\\+|=){0,8}";
    let pair = prop_oneof![
        6 => (name, value).prop_map(|(name, value)| format!("{name}={value}")),
        1 => name,
        1 => Just(String::new()),
    ];
    vec(pair, 0..5).prop_map(|pairs| pairs.join("&"))
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let name = select(vec![
        "content-type",
        "my-header",
        "x-amz-meta-a",
        "x-amz-meta-a-b",
        "x-amz-target",
    ]);
    vec((name, "[!-~]([ -~]{0,20}[!-~])?"), 0..5)
}

fn signing(shape: Shape) -> impl Strategy<Value = Signing> {
    (
        select(vec!["execute-api", "s3", "sts", "kms"]),
        any::<[bool; 4]>(),
    )
        .prop_map(move |(service, [presigned, token, unsigned, declared])| {
            let presigned = presigned && shape == Shape::Odd;
            let s3 = service == "s3";
            // Unsigned has to be declared, except where a presigned S3 request means it anyway.
            let unsigned_payload =
                (unsigned && shape == Shape::Odd && !presigned) || (presigned && s3);
            Signing {
                service,
                presigned,
                session_token: token.then_some(TOKEN),
                unsigned_payload,
                declare_payload: !presigned && (s3 || declared || unsigned_payload),
                ..Signing::KMS
            }
        })
}

/// How it is signed, and the request with its signature.
pub(crate) fn signed(shape: Shape) -> impl Strategy<Value = (Signing, Request)> {
    let method = select(vec!["GET", "POST", "PUT", "DELETE", "HEAD"]);
    (
        signing(shape),
        method,
        path(shape),
        query(shape),
        headers(),
        vec(any::<u8>(), 0..200),
    )
        .prop_map(|(signing, method, path, query, headers, body)| {
            let target = format!("{path}?{query}");
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            let mut unsigned = request(method, &target, &headers, "");
            unsigned.body = body.into();
            let signed = signing.sign(&unsigned);
            (signing, signed)
        })
}
