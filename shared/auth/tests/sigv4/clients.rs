//! Requests as they came over the wire from clients that people use, with the suite's example
//! credentials: botocore 1.44, requests-aws4auth 1.4, awscurl 0.44, curl 7.88, aws4fetch 1.0.20,
//! aws4 1.13 and @smithy/signature-v4 5.7. Headers that are neither signed nor looked at are left out.

use std::collections::BTreeSet;
use std::io::BufRead;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use keyway_auth::sigv4::SignatureError;
use serde_json::Value;

use crate::signer::{request, verdict_at};

const RECORDED: &[u8] = include_bytes!("clients.jsonl");

/// Recorded requests that are refused: S3 and API Gateway may refuse them too, or one signature would be good for two
/// requests.
const REFUSED: [(&str, &str, &str); 8] = [
    // An encoded slash in an S3 path, signed as a slash.
    ("aws4", "s3", "/rustfs/admin/v3/kms/keys/archive%2Fkey"),
    (
        "aws4 presigned",
        "s3",
        "/rustfs/admin/v3/kms/keys/archive%2Fkey",
    ),
    ("aws4fetch", "s3", "/rustfs/admin/v3/kms/keys/archive%2Fkey"),
    (
        "aws4fetch presigned",
        "s3",
        "/rustfs/admin/v3/kms/keys/archive%2Fkey",
    ),
    (
        "requests-aws4auth",
        "s3",
        "/rustfs/admin/v3/kms/keys/archive%2Fkey",
    ),
    // What is already encoded, signed encoded once more; awscurl wants it typed plainly.
    (
        "awscurl",
        "execute-api",
        "/rustfs/admin/v3/kms/keys?limit=25&marker=marker%2Fwith%20space",
    ),
    ("awscurl", "s3", "/rustfs/admin/v3/kms/keys/archive%2Fkey"),
    (
        "awscurl",
        "s3",
        "/rustfs/admin/v3/kms/keys?limit=25&marker=marker%2Fwith%20space",
    ),
];

#[test]
fn recorded_requests_of_real_clients_are_accepted() {
    let mut refused = BTreeSet::new();
    let mut accepted = 0;
    for line in RECORDED.lines() {
        let recorded: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let field = |name: &str| recorded[name].as_str().unwrap().to_owned();
        let (client, service, typed, target) = (
            field("client"),
            field("service"),
            field("typed"),
            field("target"),
        );
        let headers: Vec<(&str, &str)> = recorded["headers"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
            .collect();
        let date = headers
            .iter()
            .find_map(|(name, value)| (*name == "x-amz-date").then_some(*value))
            .or_else(|| target.split("X-Amz-Date=").nth(1).map(|rest| &rest[..16]))
            .unwrap();
        let signed_at = DateTime::strptime("%Y%m%dT%H%M%SZ", date).unwrap();
        let request = request(&field("method"), &target, &headers, &field("body"));
        match verdict_at(&request, TimeZone::UTC.to_timestamp(signed_at).unwrap()) {
            Ok(()) => accepted += 1,
            Err(denied) => {
                assert_eq!(
                    denied,
                    SignatureError::SignatureMismatch,
                    "{client} {service} {typed}"
                );
                refused.insert((client, service, typed));
            }
        }
    }
    let expected: BTreeSet<_> = REFUSED
        .iter()
        .map(|(c, s, t)| (c.to_string(), s.to_string(), t.to_string()))
        .collect();
    assert_eq!(refused, expected);
    assert_eq!(accepted, 156);
}

/// A request for each recorded one that botocore signed as it stood.
fn as_they_stand() -> impl Iterator<Item = (keyway_http::Request, jiff::Timestamp)> {
    let at = "2026-11-30T00:00:00Z";
    RECORDED.lines().filter_map(move |line| {
        let recorded: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let headers = recorded["headers"].as_object().unwrap();
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
            .collect();
        let date = recorded["headers"]["x-amz-date"].as_str()?;
        (date > at.replace(['-', ':'], "").as_str()).then(|| {
            let date = DateTime::strptime("%Y%m%dT%H%M%SZ", date).unwrap();
            let target = recorded["target"].as_str().unwrap();
            (
                request("GET", target, &headers, ""),
                TimeZone::UTC.to_timestamp(date).unwrap(),
            )
        })
    })
}

#[test]
fn query_signed_as_it_stands_with_other_pairs_is_refused() {
    let mut count = 0;
    for (signed, at) in as_they_stand() {
        count += 1;
        assert_eq!(verdict_at(&signed, at), Ok(()));
        let query = &signed.raw_query;
        let mut others = vec![
            format!("{query}&a=b"),
            format!("a{query}"),
            format!("{query}x"),
            query.replacen('&', "%26", 1),
            query.replacen('=', "%3D", 1),
        ];
        others.extend(query.rsplit_once('&').map(|(rest, _)| rest.to_owned()));
        others.retain(|other| other != query);
        for other in others {
            let mut changed = signed.clone();
            changed.raw_query = other;
            let verdict = verdict_at(&changed, at);
            assert_eq!(
                verdict,
                Err(SignatureError::SignatureMismatch),
                "{query} {}",
                changed.raw_query
            );
        }
    }
    assert_eq!(count, 34);
}
