//! The cache of signing keys never outlives what it was made from.

use std::num::NonZeroUsize;

use keyway_auth::sigv4::{Presented, Rules, SignatureError, SigningKeys};

use crate::signer::{SECRET, Signing, now, request};

#[test]
fn a_changed_secret_is_never_served_by_an_old_key() {
    let signed = Signing::KMS.sign(&request("GET", "/x", &[], ""));
    let presented = Presented::parse(&signed, &Rules::default()).unwrap();
    let keys = SigningKeys::default();
    let verify = |secret: &str| presented.verify(secret.as_bytes(), now(), &keys);
    assert_eq!(verify(SECRET), Ok(()));
    assert_eq!(verify(SECRET), Ok(()));
    // The account has another secret now: whoever signs with the old one is out at once.
    assert_eq!(
        verify("another secret"),
        Err(SignatureError::SignatureMismatch)
    );
    // And a refused attempt does not harm the one whose secret it is.
    assert_eq!(verify(SECRET), Ok(()));
}

#[test]
fn one_cache_serves_many_scopes() {
    let unsigned = request("GET", "/x", &[], "");
    // Room for one, so that every other scope drops the one before.
    for keys in [SigningKeys::default(), SigningKeys::new(NonZeroUsize::MIN)] {
        for _ in 0..3 {
            for service in ["kms", "s3", "sts"] {
                for region in ["us-east-1", "eu-west-1"] {
                    let signing = Signing {
                        service,
                        region,
                        declare_payload: service == "s3",
                        ..Signing::KMS
                    };
                    let signed = signing.sign(&unsigned);
                    let presented = Presented::parse(&signed, &Rules::default()).unwrap();
                    assert_eq!(presented.verify(SECRET.as_bytes(), now(), &keys), Ok(()));
                }
            }
        }
    }
}
