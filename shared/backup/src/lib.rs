//! Backups of a deployment: one file with the records of its table as they are stored and, if it is asked for, the
//! encrypted root keyring.
//!
//! [`create`] writes a bundle, [`Bundle::open`] checks one, and [`restore()`] writes its records into a table. Nothing
//! here prints.
//!
//! **Invariant:** a bundle is checked whole before one of its records is used.
//!
//! **Invariant:** the memory that reading takes is bounded, whatever a file says.

mod changes;
mod create;
mod format;
mod merge;
mod nothing;
mod output;
mod reading;
mod restore;
mod root;
mod shares;
#[cfg(test)]
mod tests;

pub use create::{CreateError, Created, Logs, RootWish, Source, create};
pub use format::{BundleError, Header, RootProtection, Summary};
pub use merge::Name;
pub use nothing::Nothing;
pub use output::{FileOutput, Output};
pub use reading::{Bundle, Records};
pub use restore::{Destination, RestoreError, RestoreOptions, Restored, Target, restore};
pub use root::{RootError, SealedRoot, open_root, seal_root};
pub use shares::{Share, ShareCount, ShareError, combine, split};
