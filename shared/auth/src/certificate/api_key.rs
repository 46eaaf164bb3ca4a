use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::Identity;

/// The prefix of the key's text.
const PREFIX: &str = "kes:v1:";
/// The first byte, which marks an Ed25519 seed.
const ED25519: u8 = 0;
const SEED_LENGTH: usize = 32;
/// The DER before an Ed25519 seed in PKCS #8, and before a public key in SubjectPublicKeyInfo.
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
const SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// A KES API key: an Ed25519 key from which a client makes its certificate. The key itself is never sent.
///
/// ```text
/// "kes:v1:" base64(0x00 || seed(32))
/// ```
pub struct ApiKey(Zeroizing<[u8; SEED_LENGTH]>);

/// The text is not an API key. The error does not contain the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no API key; one is `kes:v1:` and 44 characters of base64")]
pub struct NotAnApiKey;

impl ApiKey {
    /// The API key of a seed.
    pub fn from_seed(seed: Zeroizing<[u8; SEED_LENGTH]>) -> Self {
        Self(seed)
    }

    /// Parses an API key with or without its prefix, as KES's own parser does.
    ///
    /// # Errors
    /// [`NotAnApiKey`].
    pub fn parse(text: &str) -> Result<Self, NotAnApiKey> {
        let text = text.strip_prefix(PREFIX).unwrap_or(text);
        let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| NotAnApiKey)?);
        match bytes.split_first() {
            Some((&ED25519, seed)) => Ok(Self(Zeroizing::new(
                seed.try_into().map_err(|_| NotAnApiKey)?,
            ))),
            _ => Err(NotAnApiKey),
        }
    }

    /// The key's text: a secret.
    pub fn expose(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([ED25519; SEED_LENGTH + 1]);
        for (to, from) in bytes.iter_mut().skip(1).zip(self.0.iter()) {
            *to = *from;
        }
        // Allocate the full length at once: growing would leave copies in memory.
        let mut text = Zeroizing::new(String::with_capacity(64));
        text.push_str(PREFIX);
        STANDARD.encode_string(bytes.as_slice(), &mut text);
        text
    }

    /// The private key in PKCS #8, for making a certificate: a secret.
    pub fn expose_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let mut der = Zeroizing::new(Vec::with_capacity(PKCS8.len() + SEED_LENGTH));
        der.extend_from_slice(&PKCS8);
        der.extend_from_slice(self.0.as_slice());
        der
    }

    /// The identity of the key.
    ///
    /// # Errors
    /// [`NotAnApiKey`], which no seed causes.
    pub fn identity(&self) -> Result<Identity, NotAnApiKey> {
        let pair = Ed25519KeyPair::from_seed_unchecked(self.0.as_slice());
        let pair = pair.map_err(|_| NotAnApiKey)?;
        let info = [&SPKI, pair.public_key().as_ref()].concat();
        Ok(Identity::of_public_key(&info))
    }
}
