//! Memory that holds secrets: wiped on drop and never printed, copied or serialised.

use std::sync::OnceLock;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use zeroize::{Zeroize, Zeroizing};

/// A secret of any length in bytes: a data key, a passphrase, an opened plaintext.
///
/// The bytes are wiped when the value is dropped. There is deliberately no `Clone`, `Debug`,
/// `Display`, `PartialEq` or serialisation: a secret leaves only through [`SecretBytes::expose`],
/// which is easy to find in a review.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// The secret bytes. A caller that copies them is responsible for wiping the copy.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes; not treated as secret.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares in time that depends on the two lengths only, never on the content.
    #[must_use]
    pub fn ct_eq(&self, other: &[u8]) -> bool {
        verify_slices_are_equal(&self.0, other).is_ok()
    }
}

impl From<Vec<u8>> for SecretBytes {
    /// Takes the allocation over without copying, spare capacity included, and wipes all of it on
    /// drop. A vector that grew before it came here may have left older copies behind.
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl From<Zeroizing<Vec<u8>>> for SecretBytes {
    /// Takes the allocation over without copying.
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

/// A 256-bit symmetric key (32 bytes).
///
/// The bytes live in one heap allocation for the life of the key, so moving the value copies a
/// pointer and leaves no key material on the stack. Otherwise as [`SecretBytes`].
pub struct Key256 {
    bytes: Box<[u8; 32]>,
    /// HMAC-SHA256 with this key, its two key blocks hashed already: that is a third of the work for
    /// most messages here. Made at the first use. aws-lc wipes it on drop, but not the copies that it
    /// makes on the stack while it signs.
    mac: OnceLock<Box<hmac::Key>>,
}

impl Key256 {
    /// The key bytes. A caller that copies them is responsible for wiping the copy.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// HMAC-SHA256 with this key.
    pub(crate) fn mac(&self) -> &hmac::Key {
        self.mac
            .get_or_init(|| Box::new(hmac::Key::new(hmac::HMAC_SHA256, self.expose())))
    }

    /// Compares in time that depends on the two lengths only, never on the content.
    #[must_use]
    pub fn ct_eq(&self, other: &[u8]) -> bool {
        verify_slices_are_equal(self.bytes.as_slice(), other).is_ok()
    }

    /// A key written in place by `fill`, so the bytes are never on the stack; wiped if it fails.
    pub(crate) fn try_fill<E>(
        fill: impl FnOnce(&mut [u8; 32]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut key = Self::of(Box::new([0; 32]));
        fill(&mut key.bytes)?;
        Ok(key)
    }

    const fn of(bytes: Box<[u8; 32]>) -> Self {
        let mac = OnceLock::new();
        Self { bytes, mac }
    }
}

impl From<[u8; 32]> for Key256 {
    /// Copies the array to the heap and wipes the one passed in. An array is `Copy`: if the caller
    /// keeps its own, wiping that is the caller's part.
    fn from(mut bytes: [u8; 32]) -> Self {
        let key = Self::of(Box::new(bytes));
        bytes.zeroize();
        key
    }
}

impl TryFrom<&[u8]> for Key256 {
    type Error = KeyLengthError;

    /// Copies exactly 32 bytes; [`KeyLengthError`] for any other length.
    fn try_from(bytes: &[u8]) -> Result<Self, KeyLengthError> {
        if bytes.len() != 32 {
            return Err(KeyLengthError { got: bytes.len() });
        }
        Self::try_fill(|key| {
            key.copy_from_slice(bytes);
            Ok(())
        })
    }
}

impl Drop for Key256 {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl zeroize::ZeroizeOnDrop for SecretBytes {}
impl zeroize::ZeroizeOnDrop for Key256 {}

/// Bytes offered as a [`Key256`] were not 32 long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is 32 bytes, not {got}")]
pub struct KeyLengthError {
    /// How many bytes were offered.
    pub got: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_takes_exactly_32_bytes() {
        for length in [0, 1, 31, 33, 64] {
            let refused = Key256::try_from(vec![7; length].as_slice()).err();
            assert_eq!(refused, Some(KeyLengthError { got: length }));
        }
        let key = Key256::try_from([7; 32].as_slice()).unwrap();
        assert_eq!(key.expose(), &[7; 32]);
    }

    #[test]
    fn equality_looks_at_every_byte_and_the_length() {
        let key = Key256::from([7; 32]);
        assert!(key.ct_eq(&[7; 32]));
        assert!(!key.ct_eq(&[7; 31]));
        for position in 0..32 {
            let mut other = [7; 32];
            other[position] ^= 1;
            assert!(!key.ct_eq(&other));
        }

        let secret = SecretBytes::from(b"secret".to_vec());
        assert_eq!(secret.len(), 6);
        assert!(secret.ct_eq(b"secret"));
        assert!(!secret.ct_eq(b"secreT"));
        assert!(!secret.ct_eq(b"secret "));
        assert!(SecretBytes::from(Vec::new()).is_empty());
    }

    #[test]
    fn failed_fill_gives_no_key() {
        assert!(Key256::try_fill(|_| Err(())).is_err());
    }
}
