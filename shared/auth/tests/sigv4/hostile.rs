//! Hostile input causes no panic and is not accepted.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use keyway_auth::sigv4::{Presented, Rules, SigningKeys};
use keyway_http::{Peer, Request};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::generate::{Shape, signed};
use crate::signer::{SECRET, now, secret, verdict};

fn header() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
    let name = select(vec![
        "authorization",
        "host",
        "date",
        "x-amz-date",
        "x-amz-content-sha256",
        "x-amz-security-token",
        "content-encoding",
        "x-amz-anything",
        "my-header",
    ]);
    let value = prop_oneof![
        vec(any::<u8>(), 0..60),
        "AWS4-HMAC-SHA256 ?((Credential|SignedHeaders|Signature|X)?=?[ -~]{0,20},? ?){0,5}"
            .prop_map(String::into_bytes),
        "AWS4-HMAC-SHA256 Credential=[A-Z/]{0,5}/20260304/[a-z]{0,3}/(s3|kms)/aws4_request,SignedHeaders=(date;)?host(;x-amz-date)?,Signature=[0-9a-f]{64}"
            .prop_map(String::into_bytes),
        "[0-9TZ+:-]{0,20}|20260304T050607Z".prop_map(String::into_bytes),
        "(Mon|Wed|Xxx)?,? ?[0-9]{0,3} (Jan|Mar) [0-9-]{0,6} [0-9:]{0,9} ?(GMT|[+-][0-9]{0,5}|\\(.{0,3}\\)?)?"
            .prop_map(String::into_bytes),
        "UNSIGNED-PAYLOAD|STREAMING-.{0,5}|[0-9a-fA-F]{60,68}".prop_map(String::into_bytes),
    ];
    (name, value).prop_filter_map("no header", |(name, value)| {
        Some((
            HeaderName::from_static(name),
            HeaderValue::from_bytes(&value).ok()?,
        ))
    })
}

fn query() -> impl Strategy<Value = String> {
    let pair = prop_oneof![
        "\\PC{0,10}",
        "X-Amz-(Algorithm|Credential|Date|Expires|SignedHeaders|Signature|Security-Token|Content-Sha256)=\\PC{0,10}",
        "X-Amz-(Algorithm=AWS4-HMAC-SHA256|Credential=a/20260304/r/s3/aws4_request|Date=20260304T050607Z|Expires=[0-9]{0,8}|SignedHeaders=host|Signature=[0-9a-f]{64})",
        Just("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a/20260304/r/s3/aws4_request&X-Amz-Date=20260304T050607Z&X-Amz-SignedHeaders=host&X-Amz-Signature=".to_owned() + &"0".repeat(64)),
    ];
    vec(pair, 0..9).prop_map(|pairs| pairs.join("&"))
}

fn garbage() -> impl Strategy<Value = Request> {
    let path = prop_oneof!["\\PC{0,30}", "/\\PC{0,30}", "(/|%|\\.|[0-9a-f]){0,30}"];
    (path, query(), vec(header(), 0..8), any::<(bool, bool)>()).prop_map(
        |(raw_path, raw_query, headers, (encrypted, body))| Request {
            method: Method::GET,
            raw_path,
            raw_query,
            headers: headers
                .into_iter()
                .fold(HeaderMap::new(), |mut map, (name, value)| {
                    map.append(name, value);
                    map
                }),
            body: if body { "body".into() } else { "".into() },
            peer: Peer::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), encrypted),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn garbage_is_refused(request in garbage()) {
        // No access key is looked up, so that every parsed request goes all the way.
        let verdict = Presented::parse(&request, &Rules::default())
            .and_then(|presented| presented.verify(&secret(SECRET), now(), &SigningKeys::default()));
        prop_assert!(verdict.is_err());
    }
}

proptest! {
    /// A signed request with bytes cut out, doubled or overwritten.
    #[test]
    fn truncated_requests_do_not_panic(
        (_, signed) in signed(Shape::Odd),
        tears in vec((any::<Index>(), any::<Index>(), any::<u8>(), 0..3), 1..4),
    ) {
        let mut torn = signed;
        for (field, at, byte, how) in tears {
            let names: Vec<_> = torn.headers.keys().cloned().collect();
            let field = field.index(names.len() + 2);
            let mut bytes = match field {
                0 => torn.raw_path.clone().into_bytes(),
                1 => torn.raw_query.clone().into_bytes(),
                n => torn.headers[&names[n - 2]].as_bytes().to_vec(),
            };
            let at = at.index(bytes.len() + 1);
            match how {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, byte),
                _ => bytes.extend_from_within(at..),
            }
            match field {
                0 => torn.raw_path = String::from_utf8_lossy(&bytes).into_owned(),
                1 => torn.raw_query = String::from_utf8_lossy(&bytes).into_owned(),
                n => drop(HeaderValue::from_bytes(&bytes).map(|value| torn.headers.insert(&names[n - 2], value))),
            }
        }
        // The mutation tests check the verdict, since they know the meaning of each change.
        drop(verdict(&torn));
    }
}
