//! AWS's signing test suite, read from the sources of the `aws-sigv4` crate that the tests are built with.

use std::fs;
use std::path::{Path, PathBuf};

use keyway_auth::sigv4::{Presented, Rules, SignatureError, SigningKeys};
use keyway_http::Request;

use crate::signer::{request, secret as secret_in_memory};

const RULES: Rules = Rules {
    services: &["service"],
    region: None,
    max_skew: std::time::Duration::from_secs(900),
};

/// The two files with signed requests of each case.
const FORMS: [&str; 2] = ["header-signed-request.txt", "query-signed-request.txt"];

/// Where the crate's sources are, says the dep-info file that cargo wrote next to this test when it
/// built the crate; unlike `cargo metadata` that needs neither a network nor a lock.
fn suite() -> PathBuf {
    let deps = std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .to_owned();
    fs::read_dir(deps)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("aws_sigv4-") && name.ends_with(".d")
        })
        .find_map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let source = text
                .split_whitespace()
                .find(|word| word.ends_with("/src/lib.rs"))?;
            let suite = Path::new(source)
                .parent()?
                .parent()?
                .join("aws-signing-test-suite/v4");
            suite.is_dir().then_some(suite)
        })
        .expect("the sources that aws-sigv4 was built from hold the suite")
}

/// A request as the suite writes it: raw spaces and UTF-8 in the target, folded header lines.
fn read(path: &Path) -> Request {
    let text = fs::read_to_string(path).unwrap();
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    // The suite's own parser drops the newline that ends a file.
    let body = body.trim_end_matches('\n');
    let head = head.replace("\n ", " ");
    let mut lines = head.lines();
    let (method, target) = lines.next().unwrap().split_once(' ').unwrap();
    let target = target.trim_end_matches(" HTTP/1.1");
    let headers: Vec<_> = lines.map(|line| line.split_once(':').unwrap()).collect();
    request(method, target, &headers, body)
}

fn context(case: &Path) -> Option<serde_json::Value> {
    Some(serde_json::from_slice(&fs::read(case.join("context.json")).ok()?).unwrap())
}

#[test]
fn case_of_the_suite_verifies_in_both_forms() {
    let mut accepted = 0;
    let mut without_context = Vec::new();
    for case in fs::read_dir(suite()).unwrap() {
        let case = case.unwrap().path();
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(context) = context(&case) else {
            without_context.push(name);
            continue;
        };
        let secret = context["credentials"]["secret_access_key"]
            .as_str()
            .unwrap();
        let now = context["timestamp"].as_str().unwrap().parse().unwrap();
        for form in FORMS {
            let request = read(&case.join(form));
            let verdict = Presented::parse(&request, &RULES).and_then(|presented| {
                assert_eq!(
                    presented.access_key_id(),
                    context["credentials"]["access_key_id"]
                );
                assert_eq!(
                    presented.session_token(),
                    context["credentials"]["token"].as_str()
                );
                presented.verify(&secret_in_memory(secret), now, &SigningKeys::default())
            });
            // The one case that does not apply: a session token that is added after signing. Only IoT's
            // device gateway works so; here a token that anyone could have put there is refused.
            if context["omit_session_token"] == true {
                let expected = if form == FORMS[0] {
                    SignatureError::Unsigned("x-amz-security-token".parse().unwrap())
                } else {
                    SignatureError::SignatureMismatch
                };
                assert_eq!(verdict, Err(expected), "{name} {form}");
            } else {
                assert_eq!(verdict, Ok(()), "{name} {form}");
                accepted += 1;
            }
            let wrong = Presented::parse(&request, &RULES).and_then(|presented| {
                presented.verify(
                    &secret_in_memory("another secret"),
                    now,
                    &SigningKeys::default(),
                )
            });
            assert!(wrong.is_err(), "{name} {form}");
        }
    }
    assert!(
        accepted >= 74,
        "only {accepted} of the suite's signed requests were found"
    );
    // These two have no context and only one form; the first one's parts contradict each other.
    without_context.sort();
    assert_eq!(without_context, ["double-encode-path", "double-url-encode"]);
}

/// Signed with the suite's usual secret.
#[test]
fn path_with_encoded_percent_signs_verifies() {
    let request = read(&suite().join("double-url-encode").join(FORMS[0]));
    let rules = Rules {
        services: &["lambda"],
        ..RULES
    };
    let verdict = Presented::parse(&request, &rules).unwrap().verify(
        &secret_in_memory("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        "2021-05-11T15:40:45Z".parse().unwrap(),
        &SigningKeys::default(),
    );
    assert_eq!(verdict, Ok(()));
}
