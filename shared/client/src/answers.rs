//! What calls return. Both APIs' answers become these; what an API does not say is `None`.

use keyway_domain::SecretBytes;

/// A new data key.
pub struct DataKey {
    /// The key that encrypts it.
    pub key_id: String,
    /// The version of that key.
    pub key_version: Option<u32>,
    /// The data key: a secret.
    pub plaintext: SecretBytes,
    /// The data key, encrypted. It is stored beside the data.
    pub ciphertext: Vec<u8>,
}

/// A ciphertext.
pub struct Encrypted {
    /// The key that encrypted it.
    pub key_id: String,
    /// The version of that key.
    pub key_version: Option<u32>,
    /// The ciphertext.
    pub ciphertext: Vec<u8>,
}

/// A decrypted ciphertext.
pub struct Decrypted {
    /// The key that decrypted it.
    pub key_id: String,
    /// The version of that key.
    pub key_version: Option<u32>,
    /// The plaintext: a secret.
    pub plaintext: SecretBytes,
}

/// The length of a data key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DataKeySpec {
    /// 32 bytes.
    #[default]
    Aes256,
    /// 16 bytes.
    Aes128,
}
