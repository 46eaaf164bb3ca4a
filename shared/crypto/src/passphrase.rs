//! A key from a passphrase: Argon2id (RFC 9106), version 1.3.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroizing;

use crate::Key256;

/// The cost of deriving a key from a passphrase; stored beside the salt, so it is parsed from
/// files and checked against bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassphraseParams {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl PassphraseParams {
    /// Memory in KiB (19,456 to 1,048,576), passes (2 to 16) and lanes (1 to 16).
    ///
    /// The lower bounds are OWASP's minimum for Argon2id (19 MiB, 2 passes, 1 lane). The upper
    /// ones keep a damaged or hostile file from taking the process's memory (1 GiB) or minutes of
    /// its time.
    ///
    /// # Errors
    /// [`PassphraseError::Params`] outside those bounds.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, PassphraseError> {
        let within = (19 * 1024..=1024 * 1024).contains(&memory_kib)
            && (2..=16).contains(&passes)
            && (1..=16).contains(&lanes);
        if !within {
            return Err(PassphraseError::Params {
                memory_kib,
                passes,
                lanes,
            });
        }
        Ok(Self {
            memory_kib,
            passes,
            lanes,
        })
    }

    /// Memory in KiB.
    #[must_use]
    pub fn memory_kib(&self) -> u32 {
        self.memory_kib
    }

    /// Passes over the memory.
    #[must_use]
    pub fn passes(&self) -> u32 {
        self.passes
    }

    /// Lanes: how many cores a derivation could use at once.
    #[must_use]
    pub fn lanes(&self) -> u32 {
        self.lanes
    }
}

/// 64 MiB, 3 passes, 1 lane: memory and passes of RFC 9106's second recommendation, a few tenths of
/// a second once per process start. One lane, where the RFC has four, because this code runs the
/// lanes one after another: more of them would speed up only an attacker's machine.
impl Default for PassphraseParams {
    fn default() -> Self {
        Self {
            memory_kib: 64 * 1024,
            passes: 3,
            lanes: 1,
        }
    }
}

/// Argon2id of the passphrase: a 32-byte key, without secret or associated data.
///
/// `salt` is 16 random bytes, new for each passphrase that is set. The passphrase's bytes are taken
/// as they are: no trimming, no Unicode normalisation. Takes `memory_kib` of memory, which is wiped
/// afterwards, and blocks its thread for as long as the parameters ask.
///
/// # Errors
/// [`PassphraseError::Empty`] for an empty passphrase, [`PassphraseError::OutOfMemory`] if the
/// memory cannot be allocated, [`PassphraseError::Argon2`] if the hash refuses its input.
pub fn derive(
    passphrase: &[u8],
    salt: &[u8; 16],
    params: &PassphraseParams,
) -> Result<Key256, PassphraseError> {
    // An unset variable or an empty file must not quietly become a key that anyone can derive.
    if passphrase.is_empty() {
        return Err(PassphraseError::Empty);
    }
    let cost = Params::new(params.memory_kib, params.passes, params.lanes, Some(32))?;
    // Our own blocks, because the ones that the crate allocates are freed without being wiped.
    let mut blocks = Zeroizing::new(Vec::<Block>::new());
    blocks
        .try_reserve_exact(cost.block_count())
        .map_err(|_| PassphraseError::OutOfMemory)?;
    blocks.resize(cost.block_count(), Block::new());

    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, cost);
    Key256::try_fill(|key| {
        argon2.hash_password_into_with_memory(passphrase, salt, key, &mut *blocks)?;
        Ok(())
    })
}

/// Why no key was derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseError {
    /// Parameters outside the bounds of [`PassphraseParams::new`].
    #[error(
        "passphrase parameters out of bounds: {memory_kib} KiB, {passes} passes, {lanes} lanes"
    )]
    Params {
        /// Memory in KiB that was asked for.
        memory_kib: u32,
        /// Passes that were asked for.
        passes: u32,
        /// Lanes that were asked for.
        lanes: u32,
    },
    /// The passphrase has no bytes.
    #[error("passphrase is empty")]
    Empty,
    /// The memory that the parameters ask for could not be allocated.
    #[error("not enough memory for the passphrase parameters")]
    OutOfMemory,
    /// The hash refused its input.
    #[error("argon2: {0}")]
    Argon2(#[from] argon2::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_exact() {
        for (memory_kib, passes, lanes) in
            [(19 * 1024, 2, 1), (1024 * 1024, 16, 16), (64 * 1024, 3, 1)]
        {
            assert!(PassphraseParams::new(memory_kib, passes, lanes).is_ok());
        }
        for (memory_kib, passes, lanes) in [
            (19 * 1024 - 1, 2, 1),
            (1024 * 1024 + 1, 2, 1),
            (u32::MAX, 2, 1),
            (0, 2, 1),
            (19 * 1024, 1, 1),
            (19 * 1024, 17, 1),
            (19 * 1024, 2, 0),
            (19 * 1024, 2, 17),
        ] {
            let refused = PassphraseParams::new(memory_kib, passes, lanes);
            assert!(matches!(refused, Err(PassphraseError::Params { .. })));
        }
    }

    #[test]
    fn default_is_within_bounds() {
        let default = PassphraseParams::default();
        let parsed = PassphraseParams::new(default.memory_kib(), default.passes(), default.lanes());
        assert_eq!(parsed, Ok(default));
    }

    #[test]
    fn empty_passphrase_is_refused() {
        let refused = derive(b"", &[1; 16], &PassphraseParams::default()).err();
        assert_eq!(refused, Some(PassphraseError::Empty));
    }

    #[test]
    fn key_depends_on_passphrase_and_salt() {
        let params = PassphraseParams::new(19 * 1024, 2, 1).unwrap();
        let key = derive(b"passphrase", &[1; 16], &params).unwrap();
        assert!(key.ct_eq(derive(b"passphrase", &[1; 16], &params).unwrap().expose()));
        assert!(!key.ct_eq(derive(b"passphrase ", &[1; 16], &params).unwrap().expose()));
        assert!(!key.ct_eq(derive(b"passphrase", &[2; 16], &params).unwrap().expose()));
    }
}
