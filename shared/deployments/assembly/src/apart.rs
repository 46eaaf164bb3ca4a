//! Deployments whose table and root keyring are in different places.

use std::sync::Arc;

use anyhow::Context;
use keyway_domain::OpenError;
use keyway_domain::keyring::KeyringOnDemand;
use keyway_domain::ports::{ChangeFeed, Clock, Random, SecretStore, TableWriter};
use keyway_domain::records::SignedTable;
use keyway_domain::vault::Vaults;

use crate::Writing;

/// What happens if the table holds no deployment yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstUse {
    /// It is made.
    Makes {
        /// Whether an existing root keyring may be used with an empty table, in which everything is lost.
        accept_empty_table: bool,
    },
    /// It is refused: a mistyped name must not make a new deployment.
    IsRefused,
}

/// A deployment's ports beside its table, for a root keyring that is not in the table's folder.
pub struct Apart {
    /// The store of the root keyring.
    pub secrets: Arc<dyn SecretStore>,
    /// Connects to Vaults.
    pub vaults: Arc<dyn Vaults>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub random: Arc<dyn Random>,
}

impl Apart {
    /// The ports of a process that writes this table. `changes` announces other processes' changes of it, if the store does.
    /// The keyring is opened when it is first needed; see [`must_fit`].
    pub fn ports<T: TableWriter + 'static>(
        self,
        table: Arc<T>,
        changes: Option<Arc<dyn ChangeFeed>>,
        first_use: FirstUse,
    ) -> Writing {
        let Self {
            secrets,
            vaults,
            clock,
            random,
        } = self;
        let (of_keyring, randomness) = (Arc::clone(&clock), Arc::clone(&random));
        let keyring = Arc::new(match first_use {
            FirstUse::Makes { accept_empty_table } => {
                let table = Arc::clone(&table) as _;
                KeyringOnDemand::establishing(table, secrets, of_keyring, randomness)
                    .accepting_empty_table(accept_empty_table)
            }
            FirstUse::IsRefused => {
                let table = Arc::clone(&table) as _;
                KeyringOnDemand::opening(table, secrets, of_keyring, randomness)
            }
        });
        Writing {
            table: Arc::new(SignedTable::new(Arc::clone(&table), Arc::clone(&keyring))),
            stored: table,
            keyring: Arc::clone(&keyring),
            wrapper: keyring,
            vaults,
            folder: None,
            changes,
            clock,
            random,
        }
    }
}

/// Refuses a root keyring and a table that do not belong together, and stores that cannot be used.
///
/// # Errors
/// As the keyring is opened; the text says what to do.
pub async fn must_fit(keyring: &KeyringOnDemand) -> anyhow::Result<()> {
    match keyring.must_be_own().await {
        // The error's text names the table or the secret itself.
        Err(OpenError::Store(error)) => Err(error.into()),
        judged => judged.context("the root keyring"),
    }
}
