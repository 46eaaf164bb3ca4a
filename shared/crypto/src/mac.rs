//! HMAC-SHA256 and SHA-256 over a message given in parts, and HMAC with any SHA-2 for a caller's own key.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac};

use crate::{Key256, SecretBytes};

/// HMAC-SHA256 (RFC 2104, FIPS 198-1): 32 bytes.
///
/// The parts are concatenated with nothing between them: `["ab", "c"]` and `["a", "bc"]` are the
/// same message. A caller with parts of variable length puts lengths between them.
#[must_use]
pub fn mac_sha256(key: &Key256, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key.mac());
    for part in parts {
        context.update(part);
    }
    first_32(context.sign().as_ref())
}

/// Whether `tag` is the [`mac_sha256`] of the parts, in time that depends on lengths only.
///
/// A tag of any length but 32 bytes is refused. Nothing here uses truncated tags, and a length
/// that the tag's sender chooses would let the sender choose how strong the check is.
#[must_use]
pub fn verify_mac_sha256(key: &Key256, parts: &[&[u8]], tag: &[u8]) -> bool {
    verify_slices_are_equal(&mac_sha256(key, parts), tag).is_ok()
}

/// SHA-256 (FIPS 180-4) of the concatenated parts: 32 bytes.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    if let [whole] = parts {
        // One part needs no allocation.
        return first_32(digest::digest(&digest::SHA256, whole).as_ref());
    }
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    first_32(context.finish().as_ref())
}

/// SHA-256 (FIPS 180-4) of a message that comes in parts, one after the other.
pub struct Sha256(digest::Context);

impl Sha256 {
    /// The hash of no bytes yet.
    #[must_use]
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Adds the message's next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes: 32 bytes.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        first_32(self.0.finish().as_ref())
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

/// The hash function of an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacHash {
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl MacHash {
    /// The length of its MACs, in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    fn algorithm(self) -> hmac::Algorithm {
        match self {
            Self::Sha224 => hmac::HMAC_SHA224,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

/// The HMAC (RFC 2104, FIPS 198-1) of the message, in full length.
#[must_use]
pub fn mac(hash: MacHash, key: &SecretBytes, message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hash.algorithm(), key.expose());
    hmac::sign(&key, message).as_ref().to_vec()
}

/// Whether `tag` is the [`mac`] of the message, in time that depends on lengths only. A truncated tag is refused.
#[must_use]
pub fn verify_mac(hash: MacHash, key: &SecretBytes, message: &[u8], tag: &[u8]) -> bool {
    verify_slices_are_equal(&mac(hash, key, message), tag).is_ok()
}

/// The library returns outputs as slices of a larger buffer; SHA-256 fills exactly 32 bytes.
fn first_32(output: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(output);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_concatenated() {
        let key = Key256::from([1; 32]);
        assert_eq!(
            mac_sha256(&key, &[b"ab", b"", b"c"]),
            mac_sha256(&key, &[b"abc"])
        );
        assert_eq!(sha256(&[b"ab", b"", b"c"]), sha256(&[b"abc"]));
        assert_ne!(sha256(&[b"abc"]), sha256(&[b"abd"]));
        let mut hash = Sha256::new();
        hash.update(b"ab");
        hash.update(b"c");
        assert_eq!(hash.finish(), sha256(&[b"abc"]));
    }

    #[test]
    fn tag_truncated_does_not_verify() {
        let key = Key256::from([1; 32]);
        let tag = mac_sha256(&key, &[b"message"]);
        assert!(verify_mac_sha256(&key, &[b"message"], &tag));
        assert!(!verify_mac_sha256(&key, &[b"messagE"], &tag));
        assert!(!verify_mac_sha256(
            &Key256::from([2; 32]),
            &[b"message"],
            &tag
        ));
        for length in 0..32 {
            assert!(!verify_mac_sha256(&key, &[b"message"], &tag[..length]));
        }
        let mut longer = tag.to_vec();
        longer.push(0);
        assert!(!verify_mac_sha256(&key, &[b"message"], &longer));
        for position in 0..32 {
            let mut other = tag;
            other[position] ^= 0x80;
            assert!(!verify_mac_sha256(&key, &[b"message"], &other));
        }
    }
}
