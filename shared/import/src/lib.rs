//! What comes from KES and MinIO: keys as they keep them, and the policies and identities of KES's configuration. The
//! library reads, judges and imports; a command only names the source and prints the report.

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
    KesConfig, MAX_CONFIG_BYTES, TrustedProxies,
};
pub use files::read_static_key_file;
pub use kes::{MAX_VALUE_BYTES, is_key_name, key};
pub use keys::{ImportError, KeyDetails, KeyImport, KeyReport, NotImported};
pub use minio::{MAX_STATIC_KEY_BYTES, static_key};

/// Why something is not a key that can be brought here. It never repeats what it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is longer than any key.
    #[error("it is longer than any key")]
    TooLong,
    /// The name is no key's.
    #[error("its name is not a key's")]
    Name,
    /// It is in no form that the other system has ever written.
    #[error("it is in none of the forms that a key is kept in")]
    Form,
    /// It has parts that this version does not know and would lose.
    #[error("it has parts that this version does not know")]
    UnknownParts,
    /// The key has another length.
    #[error("a key in it is not 32 bytes long")]
    KeyLength,
    /// The key is for another algorithm.
    #[error("it is for an algorithm that is not known")]
    Algorithm,
    /// The date is none.
    #[error("the date of its creation is none")]
    CreatedAt,
    /// The name of its maker is too long, or has control characters.
    #[error("what it says of who made it is too long, or not text")]
    CreatedBy,
}

/// A key of exactly 32 bytes in standard base64.
fn key_of(base64: &[u8]) -> Result<Key256, Unreadable> {
    // Before it is decoded: what is longer than a key leaves no copy behind.
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
