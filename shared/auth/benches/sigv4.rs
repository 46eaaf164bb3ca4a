//! What one verification costs when the caller's signing key is known already, next to the hashing
//! that no verifier can do without.
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a benchmark"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::{digest, hmac};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use keyway_auth::sigv4::{Presented, Rules, SigningKeys};
use keyway_domain::SecretBytes;
use keyway_http::{Peer, Request};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const PATH: &str = "/rustfs/admin/v3/kms/generate-data-key";

fn main() {
    let at = Timestamp::from_second(1_772_600_767).expect("a time");
    let request = signed_request(at);
    let rules = Rules::default();
    let keys = SigningKeys::default();
    let secret = Arc::new(SecretBytes::from(SECRET.as_bytes().to_vec()));
    let warm = || {
        let presented = Presented::parse(black_box(&request), &rules).expect("well-formed");
        presented.verify(&secret, at, &keys).expect("signed");
    };
    let cold = || {
        let presented = Presented::parse(black_box(&request), &rules).expect("well-formed");
        presented
            .verify(&secret, at, &SigningKeys::default())
            .expect("signed");
    };
    // The canonical request and the string to sign of this request, in size.
    let canonical_request = [b'c'; 218];
    let string_to_sign = [b's'; 142];
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[0; 32]);
    let minimum = || {
        black_box(digest::digest(&digest::SHA256, black_box(&request.body)));
        black_box(digest::digest(
            &digest::SHA256,
            black_box(&canonical_request),
        ));
        black_box(hmac::sign(&key, black_box(&string_to_sign)));
    };
    // Turn by turn, and the best of each, so that a busy machine disturbs them alike.
    let mut best = [Duration::MAX; 3];
    for _ in 0..40 {
        for (best, measured) in best
            .iter_mut()
            .zip([time(&warm), time(&cold), time(&minimum)])
        {
            *best = measured.min(*best);
        }
    }
    let [warm, cold, minimum] = best.map(|time| time.as_secs_f64() * 1e9);
    println!("body of {} bytes", request.body.len());
    println!(
        "warm parse and verify {warm:>8.0} ns, {:.2} times the bare hashing",
        warm / minimum
    );
    println!(
        "cold parse and verify {cold:>8.0} ns, {:.2} times the bare hashing",
        cold / minimum
    );
    println!("bare hashing          {minimum:>8.0} ns");
}

/// The time of one run, over many.
fn time(run: &impl Fn()) -> Duration {
    const RUNS: u32 = 2000;
    let start = Instant::now();
    (0..RUNS).for_each(|_| run());
    start.elapsed() / RUNS
}

fn signed_request(at: Timestamp) -> Request {
    let mut body =
        br#"{"key_id":"a","key_spec":"AES_256","encryption_context":{"object":""#.to_vec();
    body.resize(197, b'x');
    body.extend_from_slice(br#""}}"#);
    let identity =
        aws_credential_types::Credentials::new("AKIDEXAMPLE", SECRET, None, None, "bench").into();
    let params = aws_sigv4::sign::v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("execute-api")
        .time(SystemTime::from(at))
        .settings(SigningSettings::default())
        .build()
        .expect("complete")
        .into();
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("kms.example.com"));
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    let lines = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default()));
    let signable = SignableRequest::new(
        "POST",
        format!("https://kms.example.com{PATH}"),
        lines,
        SignableBody::Bytes(&body),
    )
    .expect("signable");
    let (instructions, _) = aws_sigv4::http_request::sign(signable, &params)
        .expect("signed")
        .into_parts();
    for (name, value) in instructions.headers() {
        headers.insert(
            HeaderName::from_bytes(name.as_bytes()).expect("a name"),
            HeaderValue::from_str(value).expect("a value"),
        );
    }
    Request {
        method: Method::POST,
        raw_path: PATH.to_owned(),
        raw_query: String::new(),
        headers,
        body: body.into(),
        peer: Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), false),
    }
}
