//! Secret types, ciphertext formats and key derivation: bytes in, bytes out.
//!
//! **Invariant:** nothing here draws randomness, reads a clock, does I/O or logs. Callers pass
//! fresh random bytes in, so every output can be reproduced from its inputs and checked against
//! vectors.
//!
//! **Invariant:** every primitive comes from `aws-lc-rs`, but for three that it lacks: Argon2id from
//! `argon2`, HChaCha20 from `chacha20`, and STREAM from `aead-stream`, over the AES-GCM of `aws-lc-rs`.
//! This crate composes primitives and implements none.

mod blob;
mod context;
pub mod kes;
mod mac;
mod passphrase;
mod secret;
mod self_test;
mod stream;

pub use blob::{Blob, InvalidCiphertext, MAX_KEY_ID_BYTES, Purpose, SealError, seal};
pub use context::{ContextError, EncryptionContext, MAX_CONTEXT_CHARS, MAX_OPAQUE_CONTEXT_BYTES};
pub use mac::{MacHash, Sha256, mac, mac_sha256, sha256, verify_mac, verify_mac_sha256};
pub use passphrase::{PassphraseError, PassphraseParams, derive};
pub use secret::{Key256, KeyLengthError, SecretBytes};
pub use self_test::{SelfTestError, self_test};
pub use stream::{
    CHUNK_TAG_BYTES, ChunkOpener, ChunkSealer, STREAM_COMMITMENT_BYTES, StreamError, StreamKeys,
};
