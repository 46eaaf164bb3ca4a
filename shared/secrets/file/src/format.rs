//! A secret's file as text: JSON, format 1.
//!
//! ```json
//! {"format":1,"version":"1.…","value":"<base64>"}
//! ```
//!
//! in the clear, or under a passphrase
//!
//! ```json
//! {"format":1,"version":"1.…",
//!  "argon2id":{"memory_kib":65536,"passes":3,"lanes":1,"salt":"<base64 of 16 bytes>"},
//!  "sealed":"<base64 of a blob of the purpose Passphrase>"}
//! ```
//!
//! on one line. The blob is bound to the secret's name, the version and all of `argon2id`.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_crypto::PassphraseParams;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::FileError;
use crate::folder::MAX_FILE_BYTES;

const FORMAT: u64 = 1;

/// How a key is derived from the passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) params: PassphraseParams,
    pub(crate) salt: [u8; 16],
}

impl Settings {
    /// Memory in KiB, passes, lanes.
    pub(crate) fn costs(&self) -> (u32, u32, u32) {
        (
            self.params.memory_kib(),
            self.params.passes(),
            self.params.lanes(),
        )
    }
}

/// A secret's file with its base64 decoded.
pub(crate) struct Content<'a> {
    pub(crate) version: &'a str,
    pub(crate) body: Body,
}

pub(crate) enum Body {
    Clear(Zeroizing<Vec<u8>>),
    Sealed(Settings, Zeroizing<Vec<u8>>),
}

// The texts borrow from the file's buffer, which is wiped. That works because base64 needs no JSON escapes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text<'a> {
    format: u64,
    version: &'a str,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    argon2id: Option<Argon2id<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Argon2id<'a> {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: &'a str,
}

#[derive(Deserialize)]
struct Format {
    format: u64,
}

impl<'a> Content<'a> {
    /// Parses the text of the file. `path` is only for errors.
    pub(crate) fn parse(text: &'a [u8], path: &Path) -> Result<Self, FileError> {
        // The parser's own errors quote the content, so they are dropped.
        let garbled = |what| FileError::Garbled {
            path: path.to_owned(),
            what,
        };
        let Format { format } = serde_json::from_slice(text)
            .map_err(|_| garbled("it is not a JSON object with a format"))?;
        if format != FORMAT {
            return Err(FileError::Newer {
                path: path.to_owned(),
                found: format,
            });
        }
        let text: Text<'a> = serde_json::from_slice(text)
            .map_err(|_| garbled("its fields are not those of format 1"))?;
        let body = match (text.value, text.argon2id, text.sealed) {
            (Some(value), None, None) => {
                Body::Clear(decode(value).ok_or_else(|| garbled("its value is not base64"))?)
            }
            (None, Some(argon2id), Some(sealed)) => {
                let params =
                    PassphraseParams::new(argon2id.memory_kib, argon2id.passes, argon2id.lanes)
                        .map_err(|_| garbled("its Argon2id parameters are out of bounds"))?;
                let salt = decode(argon2id.salt)
                    .and_then(|salt| salt.as_slice().try_into().ok())
                    .ok_or_else(|| garbled("its salt is not 16 bytes in base64"))?;
                let sealed =
                    decode(sealed).ok_or_else(|| garbled("its sealed value is not base64"))?;
                Body::Sealed(Settings { params, salt }, sealed)
            }
            _ => return Err(garbled("it is neither in the clear nor sealed")),
        };
        Ok(Self {
            version: text.version,
            body,
        })
    }

    /// The text to write.
    pub(crate) fn text(&self) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        let (body, salt);
        let mut text = Text {
            format: FORMAT,
            version: self.version,
            value: None,
            argon2id: None,
            sealed: None,
        };
        match &self.body {
            Body::Clear(value) => {
                body = encode(value);
                text.value = Some(&body);
            }
            Body::Sealed(settings, sealed) => {
                body = encode(sealed);
                salt = encode(&settings.salt);
                let (memory_kib, passes, lanes) = settings.costs();
                text.argon2id = Some(Argon2id {
                    memory_kib,
                    passes,
                    lanes,
                    salt: &salt,
                });
                text.sealed = Some(&body);
            }
        }
        // Reserve enough at once: a buffer that grows leaves copies of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES));
        serde_json::to_writer(&mut *bytes, &text)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

pub(crate) fn encode(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(bytes))
}

/// Decodes into a buffer that is wiped, also after an error.
fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
    let length = STANDARD.decode_slice(text, &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}
