//! Arbitrary requests: nothing panics, no request is accepted by a wrong signature, and no change of an accepted
//! request is accepted.
//!
//! The input is the request as text: `METHOD target`, header lines, an empty line, the body. Some lines are not headers
//! but instructions, because no fuzzer finds a signature by itself:
//!
//! ```text
//! #sign SERVICE NAMES      sign it in the Authorization header, over its bytes as they stand
//! #presign SERVICE NAMES   sign it in the query, over its parameters as they stand, sorted
//! #also TEXT               once it is accepted, add this to the query, which must then be refused
//! #far                     let it come from another machine, unencrypted
//! ```
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::{SignedDuration, Timestamp};
use keyway_auth::sigv4::{SignatureError, Presented, Rules, SigningKeys};
use keyway_domain::SecretBytes;
use keyway_http::{Peer, Request};
use libfuzzer_sys::fuzz_target;

const ACCESS_KEY_ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const OTHER_SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEZ";
const DATE: &str = "20260304T050607Z";
/// Beyond the longest life of a presigned request, seven days.
const EIGHT_DAYS: SignedDuration = SignedDuration::from_hours(8 * 24);

fn now() -> Timestamp {
    "2026-03-04T05:06:07Z".parse().unwrap()
}

struct Input<'a> {
    request: Request,
    wish: Option<Wish<'a>>,
    also: &'a str,
}

/// How the input asks to be signed.
#[derive(Clone, Copy)]
struct Wish<'a> {
    presigned: bool,
    service: &'a str,
    names: &'a str,
}

fuzz_target!(|data: &[u8]| {
    let Some(Input {
        mut request,
        wish,
        also,
    }) = read(data)
    else {
        return;
    };
    let helped = wish.and_then(|wish| sign(&mut request, wish));
    let verdict = verdict(&request, SECRET, now());
    if let Some(wish) = helped
        && !wish.presigned
    {
        // The request was signed as it is, so the signature must match.
        assert_ne!(
            verdict,
            Err(SignatureError::SignatureMismatch),
            "a right signature was refused"
        );
    }
    refused("with another secret", &request, OTHER_SECRET, now());
    if verdict.is_ok() {
        no_change_is_accepted(&request, helped, also);
    }
});

fn read(data: &[u8]) -> Option<Input<'_>> {
    let (head, body) = match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => (&data[..end], &data[end + 2..]),
        None => (data, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let (method, target) = str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
    let (raw_path, raw_query) = target.split_once('?').unwrap_or((target, ""));
    let (mut headers, mut address) = (HeaderMap::new(), Ipv4Addr::LOCALHOST);
    let (mut wish, mut also) = (None, "zz=zz");
    for line in lines {
        if let Some(asked) = line.strip_prefix(b"#") {
            let asked = str::from_utf8(asked).ok()?;
            let mut words = asked.split(' ');
            match (words.next(), words.next(), words.next()) {
                (Some(kind @ ("sign" | "presign")), Some(service), Some(names)) => {
                    wish = Some(Wish {
                        presigned: kind == "presign",
                        service,
                        names,
                    });
                }
                (Some("also"), ..) => also = asked.strip_prefix("also ")?,
                _ => address = Ipv4Addr::new(203, 0, 113, 9),
            }
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = line[colon + 1..].trim_ascii_start();
        headers.append(
            HeaderName::from_bytes(&line[..colon]).ok()?,
            HeaderValue::from_bytes(value).ok()?,
        );
    }
    let request = Request {
        method: Method::from_bytes(method.as_bytes()).ok()?,
        raw_path: raw_path.to_owned(),
        raw_query: raw_query.to_owned(),
        headers,
        body: Bytes::copy_from_slice(body),
        peer: Peer::new(IpAddr::V4(address), false),
    };
    Some(Input {
        request,
        wish,
        also,
    })
}

/// The verdict, which must be the same whether or not the signing key is known already.
fn verdict(request: &Request, secret: &str, at: Timestamp) -> Result<(), SignatureError> {
    let rules = Rules::default();
    let presented = Presented::parse(request, &rules)?;
    let keys = SigningKeys::new(NonZeroUsize::MIN);
    let secret = Arc::new(SecretBytes::from(secret.as_bytes().to_vec()));
    let cold = presented.verify(&secret, at, &keys);
    assert_eq!(cold, presented.verify(&secret, at, &keys));
    cold
}

fn refused(why: &str, request: &Request, secret: &str, at: Timestamp) {
    assert!(
        verdict(request, secret, at).is_err(),
        "accepted {why}: {request:?}"
    );
}

/// A separate signer that normalises nothing. Returns `None` if it cannot sign the request.
fn sign<'a>(request: &mut Request, wish: Wish<'a>) -> Option<Wish<'a>> {
    let unfit = |text: &str| {
        text.is_empty()
            || !text.bytes().all(|byte| {
                byte.is_ascii_graphic() && !matches!(byte, b',' | b'&' | b'%' | b'+' | b'=')
            })
    };
    if unfit(wish.service) || unfit(wish.names) || request.headers.contains_key("authorization") {
        return None;
    }
    let scope = format!("{}/us-east-1/{}/aws4_request", &DATE[..8], wish.service);
    if wish.presigned {
        let (credential, names) = (
            format!("{ACCESS_KEY_ID}/{scope}").replace('/', "%2F"),
            wish.names.replace(';', "%3B"),
        );
        let ours = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={DATE}&X-Amz-Expires=300&X-Amz-SignedHeaders={names}"
        );
        request.raw_query = if request.raw_query.is_empty() {
            ours
        } else {
            format!("{}&{ours}", request.raw_query)
        };
    } else {
        request
            .headers
            .insert("x-amz-date", HeaderValue::from_static(DATE));
    }

    let mut query: Vec<_> = request.raw_query.split('&').collect();
    if wish.presigned {
        query.sort_unstable();
    }
    let mut canonical = format!(
        "{}\n{}\n{}\n",
        request.method,
        request.raw_path,
        query.join("&")
    )
    .into_bytes();
    for name in wish.names.split(';') {
        let values: Vec<_> = request.headers.get_all(name).iter().map(words).collect();
        canonical.extend([name.as_bytes(), b":", &values.join(&b','), b"\n"].concat());
    }
    let declared = request
        .headers
        .get("x-amz-content-sha256")
        .map(|value| value.as_bytes().trim_ascii().to_vec());
    let payload = declared.unwrap_or_else(|| match wish {
        Wish {
            presigned: true,
            service: "s3",
            ..
        } => b"UNSIGNED-PAYLOAD".to_vec(),
        _ => sha256(&request.body).into_bytes(),
    });
    canonical.extend([b"\n", wish.names.as_bytes(), b"\n", &payload].concat());
    let to_sign = format!("AWS4-HMAC-SHA256\n{DATE}\n{scope}\n{}", sha256(&canonical));
    let key = scope
        .split('/')
        .fold(format!("AWS4{SECRET}").into_bytes(), |key, part| {
            mac(&key, part)
        });
    let signature = hex::encode(mac(&key, &to_sign));

    if wish.presigned {
        request
            .raw_query
            .push_str(&format!("&X-Amz-Signature={signature}"));
    } else {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={ACCESS_KEY_ID}/{scope}, SignedHeaders={}, Signature={signature}",
            wish.names
        );
        request
            .headers
            .insert("authorization", HeaderValue::from_str(&authorization).ok()?);
    }
    Some(wish)
}

fn words(value: &HeaderValue) -> Vec<u8> {
    let words = value
        .as_bytes()
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(&b' ')
}

fn sha256(data: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, data))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
        .as_ref()
        .to_vec()
}

fn no_change_is_accepted(request: &Request, helped: Option<Wish<'_>>, also: &str) {
    let changed = |why: &str, change: &dyn Fn(&mut Request)| {
        let mut other = request.clone();
        change(&mut other);
        refused(why, &other, SECRET, now());
    };
    refused("long after", request, SECRET, now() + EIGHT_DAYS);
    refused("long before", request, SECRET, now() - EIGHT_DAYS);
    changed("with another method", &|request| {
        request.method = if request.method == Method::GET {
            Method::DELETE
        } else {
            Method::GET
        };
    });
    changed("with another path", &|request| request.raw_path.push('x'));
    changed("with a path below", &|request| {
        request.raw_path.push_str("/x")
    });
    // Empty parameters are ignored.
    if also.bytes().any(|byte| byte != b'&') {
        changed("with another query", &|request| {
            request.raw_query.push_str(&format!("&{also}"))
        });
    }
    // A parameter that resembles a known one must be signed as well.
    for pair in request.raw_query.split('&') {
        let name = pair.split('=').next().unwrap_or_default();
        for near in [format!("{name}x"), name.to_ascii_lowercase()] {
            changed("with a parameter more", &|request| {
                request.raw_query.push_str(&format!("&{near}=1"));
            });
        }
    }
    changed("with another signature", &change_signature);
    let Some(wish) = helped else { return };
    for name in wish.names.split(';') {
        changed("with another signed header", &|request| {
            let value = request.headers.get(name).unwrap();
            let value = HeaderValue::from_bytes(&[value.as_bytes(), b"x"].concat()).unwrap();
            request
                .headers
                .insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        });
        changed("without a signed header", &|request| {
            drop(request.headers.remove(name))
        });
    }
    let declared = request
        .headers
        .get("x-amz-content-sha256")
        .map(|value| value.as_bytes().trim_ascii());
    let is_unsigned = declared == Some(b"UNSIGNED-PAYLOAD")
        || (wish.presigned && wish.service == "s3" && declared.is_none());
    if !is_unsigned {
        changed("with another body", &|request| {
            request.body = [&request.body, &b"x"[..]].concat().into()
        });
    }
}

/// Changes the first digit of the signature, in the header or in the query.
fn change_signature(request: &mut Request) {
    let digit = |text: &str| -> String {
        let at = text
            .find("Signature=")
            .map_or(0, |at| at + "Signature=".len());
        let digit = if text[at..].starts_with('0') {
            "1"
        } else {
            "0"
        };
        format!("{}{digit}{}", &text[..at], &text[at + 1..])
    };
    match request
        .headers
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .map(digit)
    {
        Some(text) => drop(
            request
                .headers
                .insert("authorization", HeaderValue::from_str(&text).unwrap()),
        ),
        None => request.raw_query = digit(&request.raw_query),
    }
}
