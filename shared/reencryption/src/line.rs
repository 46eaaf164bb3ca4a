//! A line of the input, and a line of the output.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_crypto::{EncryptionContext, sha256};
use keyway_domain::keys::KeyId;
use keyway_http::Pairs;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

/// The longest line, in bytes. A ciphertext and a context of the longest lengths fit, with every character escaped.
pub const MAX_LINE_BYTES: usize = 64 << 10;

/// The longest ciphertext of AWS KMS, in bytes.
const MAX_CIPHERTEXT_BYTES: usize = 6144;

/// A ciphertext of the input.
#[derive(Debug)]
pub struct Ciphertext {
    blob: Vec<u8>,
    context: EncryptionContext,
}

/// The JSON form of a line. The names in Pascal case are those of AWS's answers, which can be given as they are.
#[derive(Deserialize)]
struct Json {
    #[serde(alias = "CiphertextBlob")]
    ciphertext: String,
    #[serde(default, alias = "EncryptionContext")]
    encryption_context: Option<Pairs>,
}

impl Ciphertext {
    /// Parses a line: base64 alone, or a JSON object with `ciphertext` and `encryption_context`.
    ///
    /// # Errors
    /// What is wrong with the line; repeats nothing of it.
    pub fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        if !line.starts_with('{') {
            return Self::new(line, Pairs::default());
        }
        let json: Json = serde_json::from_str(line).map_err(|error| {
            format!(
                "the line is no JSON object with `ciphertext` as a string and `encryption_context` as an object of strings (column {})",
                error.column()
            )
        })?;
        Self::new(
            &json.ciphertext,
            json.encryption_context.unwrap_or_default(),
        )
    }

    fn new(ciphertext: &str, Pairs(pairs): Pairs) -> Result<Self, String> {
        let blob = STANDARD
            .decode(ciphertext)
            .map_err(|_| "the ciphertext is not base64".to_owned())?;
        if !(1..=MAX_CIPHERTEXT_BYTES).contains(&blob.len()) {
            return Err(format!(
                "the ciphertext has {} bytes; AWS KMS has none of more than {MAX_CIPHERTEXT_BYTES}",
                blob.len()
            ));
        }
        let context = EncryptionContext::from_pairs(pairs)
            .map_err(|error| format!("encryption_context: {error}"))?;
        Ok(Self { blob, context })
    }

    pub(crate) fn blob(&self) -> &[u8] {
        &self.blob
    }

    pub(crate) fn context(&self) -> &EncryptionContext {
        &self.context
    }

    /// The same for the same ciphertext and context, and for no others.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let length = (self.blob.len() as u64).to_be_bytes();
        let mut context = Vec::new();
        for (key, value) in self.context.pairs() {
            for part in [key, value] {
                context.extend_from_slice(&(part.len() as u64).to_be_bytes());
                context.extend_from_slice(part.as_bytes());
            }
        }
        sha256(&[&length, &self.blob, &context])
    }
}

/// A line of the output: the ciphertext of AWS KMS, and what replaces it.
#[derive(Serialize)]
pub(crate) struct Reencrypted {
    source: String,
    ciphertext: String,
    key_id: String,
    #[serde(skip_serializing_if = "is_empty", serialize_with = "as_object")]
    encryption_context: Vec<(String, String)>,
    #[serde(skip)]
    digest: [u8; 32],
}

impl Reencrypted {
    pub(crate) fn new(source: &Ciphertext, sealed: &[u8], key: &KeyId) -> Self {
        Self {
            source: STANDARD.encode(&source.blob),
            ciphertext: STANDARD.encode(sealed),
            key_id: key.as_str().to_owned(),
            encryption_context: source
                .context
                .pairs()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            digest: source.digest(),
        }
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

fn is_empty(pairs: &[(String, String)]) -> bool {
    pairs.is_empty()
}

fn as_object<S: Serializer>(pairs: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_map(Some(pairs.len()))?;
    for (key, value) in pairs {
        object.serialize_entry(key, value)?;
    }
    object.end()
}

/// What an earlier run wrote, as far as it is needed to go on.
#[derive(Deserialize)]
pub(crate) struct Earlier {
    source: String,
    pub(crate) key_id: String,
    #[serde(default)]
    encryption_context: Pairs,
}

impl Earlier {
    pub(crate) fn digest(self) -> Option<[u8; 32]> {
        let ciphertext = Ciphertext::new(&self.source, self.encryption_context).ok()?;
        Some(ciphertext.digest())
    }
}
