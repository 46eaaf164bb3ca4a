//! A cached signing key is used only with its own secret and scope.

use std::num::NonZeroUsize;

use keyway_auth::sigv4::{Presented, Rules, SignatureError, SigningKeys};

use crate::signer::{SECRET, Signing, now, request, secret};

#[test]
fn signing_key_of_an_old_secret_is_not_used() {
    let signed = Signing::KMS.sign(&request("GET", "/x", &[], ""));
    let presented = Presented::parse(&signed, &Rules::default()).unwrap();
    let keys = SigningKeys::default();
    let verify = |secret: &_| presented.verify(secret, now(), &keys);
    let held = secret(SECRET);
    assert_eq!(verify(&held), Ok(()));
    assert_eq!(verify(&held), Ok(()));
    // The account has a new secret: signatures with the old one are refused at once.
    assert_eq!(
        verify(&secret("another secret")),
        Err(SignatureError::SignatureMismatch)
    );
    // A refused attempt does not affect the owner of the secret.
    assert_eq!(verify(&held), Ok(()));
    // Nor does the same secret, read again.
    assert_eq!(verify(&secret(SECRET)), Ok(()));
    assert_eq!(verify(&held), Ok(()));
}

#[test]
fn cache_of_signing_keys_serves_many_scopes() {
    let unsigned = request("GET", "/x", &[], "");
    let held = secret(SECRET);
    // The cache has room for one key, so each new scope drops the key before.
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
                    assert_eq!(presented.verify(&held, now(), &keys), Ok(()));
                }
            }
        }
    }
}
