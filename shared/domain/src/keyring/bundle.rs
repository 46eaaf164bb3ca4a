//! The MAC that authenticates a backup.
//!
//! It is HMAC-SHA256 under `K = HMAC-SHA256(root key, "keyway/v1/backup-key" || 00)`, over
//! `"keyway/v1/backup" || 00 || BE32(len) || deployment || SHA-256 of the backup`.

use keyway_crypto::{Key256, mac_sha256, verify_mac_sha256};

use super::RootKeyring;

const KEY_LABEL: &[u8] = b"keyway/v1/backup-key\0";
const LABEL: &[u8] = b"keyway/v1/backup\0";

/// Why a backup is not authentic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleForgery {
    /// The keyring does not hold the root of this id, which authenticates the backup.
    #[error(
        "it was made under the root {0}, which the root keyring does not hold; a backup of before that root was retired \
         opens with the root keyring of its time, in an empty deployment"
    )]
    UnknownRoot(String),
    /// The MAC is not that of the content.
    #[error(
        "its MAC is not that of its content: it was not made with this root keyring, or was changed since"
    )]
    Altered,
}

/// The id as a text for the operator. It comes from the backup, whoever wrote that.
fn shown(id: &str) -> String {
    id.chars().take(32).flat_map(char::escape_debug).collect()
}

fn backup_key(root: &Key256) -> Key256 {
    Key256::from(mac_sha256(root, &[KEY_LABEL]))
}

impl RootKeyring {
    /// The MAC of a backup of this deployment with this SHA-256, and the id of the root key.
    pub fn mac_bundle(&self, digest: &[u8; 32]) -> Option<(&str, [u8; 32])> {
        let root = self.roots.last()?;
        let length = self.deployment_length()?;
        let parts = [LABEL, &length, self.deployment.as_bytes(), digest];
        Some((&root.id, mac_sha256(&backup_key(&root.key), &parts)))
    }

    /// Checks the MAC of a backup of this deployment with this SHA-256.
    ///
    /// # Errors
    /// [`BundleForgery`].
    pub fn verify_bundle(
        &self,
        root: &str,
        digest: &[u8; 32],
        tag: &[u8],
    ) -> Result<(), BundleForgery> {
        let kept = self.roots.iter().find(|kept| kept.id == root);
        let root = kept.ok_or_else(|| BundleForgery::UnknownRoot(shown(root)))?;
        let length = self.deployment_length().ok_or(BundleForgery::Altered)?;
        let parts = [LABEL, &length, self.deployment.as_bytes(), digest];
        if verify_mac_sha256(&backup_key(&root.key), &parts, tag) {
            Ok(())
        } else {
            Err(BundleForgery::Altered)
        }
    }

    fn deployment_length(&self) -> Option<[u8; 4]> {
        let length = u32::try_from(self.deployment.len()).ok()?;
        Some(length.to_be_bytes())
    }
}
