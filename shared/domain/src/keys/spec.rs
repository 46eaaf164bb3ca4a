//! The records and the material of keys of each spec.

use crate::encoding;
use crate::ids::{KeySpec, KeyUsage};

/// The format of the records of MAC keys. A release that knows format 1 only leaves such a record alone: otherwise it
/// would encrypt under the key, or rotate it and thereby lose the material of its MACs.
const MAC_KEY_FORMAT: u8 = 2;

/// The formats of the records of keys.
pub(super) const FORMATS: [u8; 2] = [encoding::FORMAT, MAC_KEY_FORMAT];

impl KeySpec {
    /// The length of its material, in bytes.
    pub(super) const fn bytes(self) -> usize {
        match self.mac_hash() {
            None => 32,
            // AWS's MAC keys are as long as their MACs.
            Some(hash) => hash.bytes(),
        }
    }

    /// The format of its keys' records.
    pub(super) const fn record_format(self) -> u8 {
        match self.usage() {
            KeyUsage::EncryptDecrypt => encoding::FORMAT,
            KeyUsage::GenerateVerifyMac => MAC_KEY_FORMAT,
        }
    }

    /// The origin to which its wrapped material is bound, if it is not the key's own: material of one kind never opens
    /// as material of another.
    pub(super) const fn bound_origin(self) -> Option<&'static str> {
        match self {
            Self::SymmetricDefault => None,
            Self::Hmac224 => Some("master-key/HMAC_224"),
            Self::Hmac256 => Some("master-key/HMAC_256"),
            Self::Hmac384 => Some("master-key/HMAC_384"),
            Self::Hmac512 => Some("master-key/HMAC_512"),
        }
    }

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
