//! The format of a table as a whole, which an older release cannot know.

use serde::{Deserialize, Serialize};

use super::OpenError;

/// The newest format of tables that this release knows. A change that a release of the format before must not meet raises
/// it. Such a release then refuses the table, and names this one. Formats of single records do not need it: a release
/// refuses the records that it cannot read.
const KNOWN: u32 = 1;

/// What a release must know to use the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableFormat {
    format: u32,
    /// The release that gave the table this format.
    release: String,
}

impl TableFormat {
    /// The format that this release gives to tables.
    pub(super) fn own() -> Self {
        Self {
            format: KNOWN,
            release: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Refuses a format that this release does not know.
    pub(super) fn check(needed: Option<&Self>) -> Result<(), OpenError> {
        match needed {
            Some(Self { format, release }) if *format > KNOWN => Err(OpenError::TableNewer {
                release: release.clone(),
                found: *format,
                known: KNOWN,
            }),
            _ => Ok(()),
        }
    }

    /// Whether a table of this format gets the one of this release. Up to 0.1.0, tables name none.
    pub(super) fn is_older(needed: Option<&Self>) -> bool {
        needed.is_none_or(|needed| needed.format < KNOWN)
    }
}
