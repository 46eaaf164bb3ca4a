//! The root keyring in a bundle: an age file, encrypted under a passphrase.

use age::secrecy::SecretString;
use keyway_crypto::SecretBytes;
use zeroize::Zeroizing;

use crate::format::RootProtection;

/// scrypt's cost of a passphrase that a person chose: 2^18 steps, 256 MiB of memory and about a second. It is age's own
/// choice.
const WORK: u8 = 18;
/// A drawn secret of 256 bits needs no slow derivation.
const WORK_OF_DRAWN: u8 = 1;
/// The most that opening may cost: 1 GiB of memory.
const MOST_WORK: u8 = 20;

/// The root keyring as a bundle has it.
pub struct SealedRoot {
    pub(crate) protection: RootProtection,
    pub(crate) age: Vec<u8>,
}

/// Why a bundle's root keyring cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// The passphrase or the shares are others.
    #[error("the passphrase or the shares are not those of this backup")]
    Wrong,
    /// It is not an age file that keyway makes.
    #[error("the root keyring in the backup is damaged")]
    Damaged,
    /// It could not be encrypted.
    #[error("the root keyring could not be encrypted")]
    Failed,
}

/// Encrypts the keyring under the passphrase, or the drawn secret that was split into shares.
///
/// # Errors
/// [`RootError::Failed`].
pub fn seal_root(
    keyring: &SecretBytes,
    secret: &str,
    protection: RootProtection,
) -> Result<SealedRoot, RootError> {
    let mut recipient = age::scrypt::Recipient::new(SecretString::from(secret.to_owned()));
    recipient.set_work_factor(match protection {
        RootProtection::Passphrase => WORK,
        RootProtection::Shares { .. } => WORK_OF_DRAWN,
    });
    let age = age::encrypt(&recipient, keyring.expose()).map_err(|_| RootError::Failed)?;
    Ok(SealedRoot { protection, age })
}

/// Decrypts a keyring that [`seal_root`] encrypted.
///
/// # Errors
/// [`RootError`].
pub fn open_root(age: &[u8], secret: &str) -> Result<SecretBytes, RootError> {
    let mut identity = age::scrypt::Identity::new(SecretString::from(secret.to_owned()));
    identity.set_max_work_factor(MOST_WORK);
    match age::decrypt(&identity, age) {
        Ok(keyring) => Ok(Zeroizing::new(keyring).into()),
        Err(
            age::DecryptError::DecryptionFailed
            | age::DecryptError::KeyDecryptionFailed
            | age::DecryptError::NoMatchingKeys,
        ) => Err(RootError::Wrong),
        Err(_) => Err(RootError::Damaged),
    }
}
