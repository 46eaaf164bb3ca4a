//! The root keyring as the secret store holds it.

use jiff::Timestamp;
use keyway_crypto::SecretBytes;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::OpenError;
use crate::encoding::{self, base64_bytes};
use crate::error::Fault;
use crate::ports::{Clock, Random};

/// The format of a keyring that was rotated. A release that knows format 1 only would keep using the root that it read
/// at its start, so it must refuse this keyring.
const ROTATED_FORMAT: u8 = 2;
/// The most roots that a keyring holds. The secret then stays far below the size that stores accept.
const MAX_ROOTS: usize = 64;
/// The most retired roots that a keyring remembers, so that it does not grow without end.
const MAX_RETIRED: usize = 256;
/// More than a keyring with the most roots takes, in bytes.
const MAX_BYTES: usize = 16 * 1024;
/// The length of a root key, in bytes.
const ROOT_BYTES: usize = 32;

/// The keyring's JSON in the secret store.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredKeyring {
    format: u8,
    pub(super) deployment: String,
    /// Oldest first.
    pub(super) roots: Vec<StoredRoot>,
    /// The ids of the roots that were taken out. A process drops a root that it holds only if it is named here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) retired: Vec<String>,
    /// Whether every record of the table is signed.
    #[serde(default)]
    pub(super) signed: bool,
}

#[derive(Deserialize)]
struct Format {
    format: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredRoot {
    pub(super) id: String,
    pub(super) created_at: Timestamp,
    #[serde(with = "base64_bytes")]
    pub(super) key: Vec<u8>,
}

impl Drop for StoredRoot {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl StoredRoot {
    fn new(number: u32, clock: &dyn Clock, random: &dyn Random) -> Result<Self, OpenError> {
        let mut root = Self {
            id: format!("r{number}"),
            created_at: clock.now(),
            key: vec![0; ROOT_BYTES],
        };
        random.fill(&mut root.key)?;
        Ok(root)
    }
}

impl StoredKeyring {
    /// The first keyring of a deployment, with one root.
    pub(super) fn fresh(
        deployment: &str,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            format: encoding::FORMAT,
            deployment: deployment.to_owned(),
            roots: vec![StoredRoot::new(1, clock, random)?],
            retired: Vec::new(),
            signed: true,
        })
    }

    pub(super) fn parse(value: &SecretBytes) -> Result<Self, OpenError> {
        let damaged = |_| OpenError::KeyringDamaged("it is not the JSON that keyway writes");
        // A later format may have other fields, so this comes first.
        let Format { format } = serde_json::from_slice(value.expose()).map_err(damaged)?;
        if format > u64::from(ROTATED_FORMAT) {
            return Err(OpenError::KeyringNewer {
                found: format,
                known: ROTATED_FORMAT,
            });
        }
        serde_json::from_slice(value.expose()).map_err(damaged)
    }

    pub(super) fn encode(&self) -> Result<SecretBytes, OpenError> {
        // Reserve enough at once: a buffer that grows leaves copies of the secret behind.
        let mut value = Zeroizing::new(Vec::with_capacity(MAX_BYTES));
        serde_json::to_writer(&mut *value, self).map_err(|error| {
            OpenError::Operation(Fault::new("encoding the root keyring", error).into())
        })?;
        Ok(SecretBytes::from(value))
    }

    /// Adds a root, which is the newest from then on. `None` when the keyring holds as many as it may.
    pub(super) fn add_root(
        &mut self,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<Option<&str>, OpenError> {
        // No id is used twice, also not that of a root that was given up.
        let ids = self.roots.iter().map(|root| &root.id).chain(&self.retired);
        let newest = ids.filter_map(|id| number(id)).max();
        let number =
            newest
                .and_then(|number| number.checked_add(1))
                .ok_or(OpenError::KeyringDamaged(
                    "the id of its newest root has no number",
                ))?;
        if self.roots.len() >= MAX_ROOTS {
            return Ok(None);
        }
        self.roots.push(StoredRoot::new(number, clock, random)?);
        self.format = ROTATED_FORMAT;
        Ok(self.roots.last().map(|root| root.id.as_str()))
    }

    /// Takes a root out, or notes that one that it does not hold is lost.
    pub(super) fn retire(&mut self, root: &str) {
        self.roots.retain(|held| held.id != root);
        self.retired.push(root.to_owned());
        let forgotten = self.retired.len().saturating_sub(MAX_RETIRED);
        self.retired.drain(..forgotten);
        self.format = ROTATED_FORMAT;
    }
}

fn number(id: &str) -> Option<u32> {
    id.strip_prefix('r')?.parse().ok()
}
