//! The public keys that are accepted for identities.

use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{Decode, Header, Reader, SliceReader, Tag};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const SHORTEST_RSA: usize = 2048;

pub(super) fn is_accepted(info: &SubjectPublicKeyInfoOwned) -> bool {
    let parameters = info.algorithm.parameters.as_ref();
    match info.algorithm.oid {
        ED25519 => parameters.is_none(),
        EC => parameters
            .and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok())
            .is_some_and(|curve| curve == P256 || curve == P384),
        RSA => info
            .subject_public_key
            .as_bytes()
            .and_then(modulus_bits)
            .is_some_and(|bits| bits >= SHORTEST_RSA),
        _ => false,
    }
}

/// `RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }`
fn modulus_bits(key: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(key).ok()?;
    Header::decode(&mut reader)
        .ok()?
        .tag()
        .assert_eq(Tag::Sequence)
        .ok()?;
    let modulus = UintRef::decode(&mut reader).ok()?;
    UintRef::decode(&mut reader).ok()?;
    reader.finish().ok()?;
    let first = modulus.as_bytes().first()?;
    Some(modulus.as_bytes().len() * 8 - first.leading_zeros() as usize)
}
