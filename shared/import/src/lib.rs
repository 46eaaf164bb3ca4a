//! Imports keys from KES and MinIO, and the policies and identities of KES's configuration. The library reads, checks and
//! imports; a command only names the source and prints the report.

mod config;
mod files;
mod kes;
mod keys;
mod minio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_domain::Key256;
use zeroize::Zeroizing;

pub use config::{
    ConfigError, ConfigImport, ConfiguredPolicy, ImportedConfig, ImportedIdentity, ImportedPolicy,
    KesConfig, MAX_CONFIG_BYTES, TrustedProxies, UNCHANGED,
};
pub use files::read_static_key_file;
pub use kes::{MAX_VALUE_BYTES, is_key_name, key};
pub use keys::{ImportError, KeyDetails, KeyImport, KeyReport, NotImported};
pub use minio::{MAX_STATIC_KEY_BYTES, static_key};

/// Why a value is not a key that can be imported. The texts never repeat the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The value is longer than any key.
    #[error("it is longer than any key")]
    TooLong,
    /// The name is not a key's.
    #[error("its name is not a key's")]
    Name,
    /// The value has no format that any release of the other system wrote.
    #[error("it is in none of the forms that a key is kept in")]
    Form,
    /// The value has parts that this release does not know and would lose.
    #[error("it has parts that this version does not know")]
    UnknownParts,
    /// A key is not 32 bytes long.
    #[error("a key in it is not 32 bytes long")]
    KeyLength,
    /// The algorithm is unknown.
    #[error("it is for an algorithm that is not known")]
    Algorithm,
    /// The creation date is not a date.
    #[error("the date of its creation is none")]
    CreatedAt,
    /// The creator's name is too long, or has control characters.
    #[error("what it says of who made it is too long, or not text")]
    CreatedBy,
}

/// A key of exactly 32 bytes in standard base64.
fn key_of(base64: &[u8]) -> Result<Key256, Unreadable> {
    // A buffer of fixed size: a value that is longer than a key is not copied.
    let mut bytes = Zeroizing::new([0; 36]);
    let length = STANDARD
        .decode_slice(base64, bytes.as_mut_slice())
        .map_err(|error| match error {
            base64::DecodeSliceError::OutputSliceTooSmall => Unreadable::KeyLength,
            base64::DecodeSliceError::DecodeError(_) => Unreadable::Form,
        })?;
    let bytes = bytes.get(..length).ok_or(Unreadable::KeyLength)?;
    Key256::try_from(bytes).map_err(|_| Unreadable::KeyLength)
}
