//! What is refused, with the words the client is told.

mod change;
mod header_form;
mod presigned_form;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use jiff::ToSpan;
use keyway_auth::sigv4::{Presented, Rules, SignatureError, SigningKeys, StatusClass};
use keyway_http::Request;

use self::change::Refused;
use crate::signer::{
    SECRET, Signing, TOKEN, now, request, secret, sign_plain, verdict, verdict_at,
};

const PRESIGNED: Signing = Signing {
    presigned: true,
    ..Signing::KMS
};

fn unsigned() -> Request {
    request(
        "POST",
        "/rustfs/admin/v3/kms/keys",
        &[("content-type", "application/json")],
        "{}",
    )
}

/// A request is accepted as it was signed, and refused after each of the changes.
fn check(signing: &Signing, tables: &[&[Refused]]) {
    let signed = signing.sign(&unsigned());
    assert_eq!(verdict(&signed), Ok(()));
    for (class, text, changes) in tables.iter().copied().flatten() {
        for (number, change) in changes.iter().enumerate() {
            let mut changed = signed.clone();
            change.apply(&mut changed);
            let denied = verdict(&changed).expect_err(text);
            assert_eq!(denied.to_string(), *text, "change {number}");
            assert_eq!(denied.status_class(), *class, "{text}: change {number}");
        }
    }
}

#[test]
fn header_form_changed_is_refused() {
    check(
        &Signing::KMS,
        &[
            header_form::SCHEME,
            header_form::PARTS,
            header_form::SCOPE,
            header_form::SIGNED_HEADERS,
            header_form::DATES,
            header_form::MISMATCH,
            header_form::TARGET,
            header_form::PAYLOAD,
        ],
    );
}

#[test]
fn presigned_form_changed_is_refused() {
    check(
        &PRESIGNED,
        &[
            presigned_form::PARTS,
            presigned_form::VALUES,
            presigned_form::MISMATCH,
            presigned_form::PAYLOAD,
        ],
    );
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
    assert_eq!(denied.status_class(), StatusClass::Unauthenticated);
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
    assert_eq!(presented.verify(&secret(SECRET), now(), &keys), Ok(()));
    assert_eq!(
        presented.verify(&secret(SECRET), now() + 1.second(), &keys),
        Err(SignatureError::Skewed)
    );
    // No secret is not a secret.
    assert_eq!(
        presented.verify(&secret(""), now(), &keys),
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
