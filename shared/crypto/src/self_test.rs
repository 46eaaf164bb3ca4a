//! A known-answer test for process start.

use crate::{Blob, EncryptionContext, Key256, Purpose, seal, sha256};

/// Seals a fixed message, compares the blob with the known answer, opens it, and checks that a
/// changed blob and a wrong context do not open.
/// Takes microseconds. At the start of a process it finds a miscompiled or miswired library before
/// that writes ciphertexts that nothing else can open.
/// be found before it writes ciphertexts that nothing else can open.
///
/// # Errors
/// [`SelfTestError`] if any step gives another answer.
pub fn self_test() -> Result<(), SelfTestError> {
    let key = Key256::from([0x11; 32]);
    let plaintext = [0x22; 32];
    let context = EncryptionContext::from_pairs([("purpose".to_owned(), "self-test".to_owned())])
        .map_err(|_| SelfTestError)?;
    let mut blob = seal(
        Purpose::Seal,
        &key,
        "self-test",
        1,
        &context,
        &plaintext,
        &[0x33; 32],
    )
    .map_err(|_| SelfTestError)?;
    if sha256(&[&blob]) != EXPECTED_SHA256 {
        return Err(SelfTestError);
    }

    let opens = |blob: &[u8], context: &EncryptionContext| {
        Blob::parse(Purpose::Seal, blob).and_then(|blob| blob.open(&key, context))
    };
    let opened = opens(&blob, &context).map_err(|_| SelfTestError)?;
    if !opened.ct_eq(&plaintext) || opens(&blob, &EncryptionContext::none()).is_ok() {
        return Err(SelfTestError);
    }
    if let Some(last) = blob.last_mut() {
        *last ^= 1;
    }
    match opens(&blob, &context) {
        Ok(_) => Err(SelfTestError),
        Err(_) => Ok(()),
    }
}

/// The cryptography gave a wrong answer: nothing may be sealed or opened by this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cryptographic self-test failed")]
pub struct SelfTestError;

/// SHA-256 of the blob: vector `self-test` of `vectors/seal-v1.json`.
const EXPECTED_SHA256: [u8; 32] = [
    0x14, 0xd5, 0xa6, 0xdb, 0x86, 0xc8, 0xb7, 0x86, 0x75, 0x91, 0xf5, 0x25, 0x45, 0xaf, 0xc2, 0xa2,
    0x60, 0xc9, 0x13, 0x3f, 0x13, 0xfe, 0x93, 0x25, 0xe9, 0xd6, 0xe5, 0x8d, 0xb3, 0x66, 0x4f, 0x24,
];

#[cfg(test)]
mod tests {
    #[test]
    fn self_test_passes() {
        assert_eq!(super::self_test(), Ok(()));
    }
}
