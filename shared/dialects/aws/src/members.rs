//! Members of a request's body: JSON with unknown members ignored and wrong types refused, and base64.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_domain::keys::KeySpec;
use keyway_domain::{EncryptionContext, Fault, SecretBytes};
use keyway_http::{Pairs, without_bom};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::ErrorResponse;
use crate::constraints::{Faults, Input};
use crate::error_response::{incompatible, internal, serialization, unsupported, validation};

/// Decodes a body that must be a JSON object, and checks it against AWS's model; an empty one is `{}`. An error about
/// the JSON repeats nothing of the body.
pub(crate) fn decode<T: Input>(body: &[u8]) -> Result<T, ErrorResponse> {
    let body = without_bom(body);
    let start = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let body = if start.is_none() { b"{}" } else { body };
    // Derived structs would also accept an array, member by member.
    if start.is_some_and(|byte| *byte != b'{') {
        return Err(serialization("the body must be a JSON object"));
    }
    let input: T = serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let what = match error.is_data() {
            true => "a member has the wrong type, is not base64, or is there twice",
            false => "the body is not JSON",
        };
        serialization(&format!("{what}, at line {line} column {column}"))
    })?;
    let mut faults = Faults::default();
    input.check(&mut faults);
    faults.result()?;
    Ok(input)
}

/// The value of a member that [`decode`] requires.
pub(crate) fn given<T>(value: Option<T>) -> Result<T, ErrorResponse> {
    let unchecked = || internal(Fault::new("a request", "a required member is not checked"));
    value.ok_or_else(unchecked)
}

/// The bytes of a member in base64, which may be secret.
pub(crate) struct Blob(SecretBytes);

impl Blob {
    pub(crate) fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

impl From<Blob> for SecretBytes {
    fn from(blob: Blob) -> Self {
        blob.0
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64;
        impl Visitor<'_> for Base64 {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Blob, E> {
                // A buffer that grows would leave copies in memory.
                let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 4 * 3 + 3));
                STANDARD
                    .decode_vec(text, &mut bytes)
                    .map_err(|_| E::custom("not base64"))?;
                Ok(Blob(bytes.into()))
            }
        }
        deserializer.deserialize_str(Base64)
    }
}

/// The body of a request for a page of at most `MOST` things that belong to a key.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListBody<const MOST: i64> {
    pub(crate) key_id: Option<String>,
    pub(crate) limit: Option<i64>,
    pub(crate) marker: Option<String>,
}

impl<const MOST: i64> Input for ListBody<MOST> {
    fn check(&self, faults: &mut Faults) {
        faults.required_key_id("keyId", self.key_id.as_ref());
        faults.page(self.limit, MOST, self.marker.as_deref());
    }
}

/// The encryption context in a member.
pub(crate) fn context(
    member: &'static str,
    pairs: Option<Pairs>,
) -> Result<EncryptionContext, ErrorResponse> {
    EncryptionContext::from_pairs(pairs.unwrap_or_default().0)
        .map_err(|error| validation(format!("{member}: {error}")))
}

/// The page size, which [`Faults::page`] has checked.
pub(crate) fn limit(value: Option<i64>, default: usize) -> usize {
    let given = value.and_then(|value| usize::try_from(value).ok());
    given.unwrap_or(default)
}

/// The algorithm of every key here.
pub(crate) const ALGORITHM: &str = "SYMMETRIC_DEFAULT";

/// In the order of AWS's error texts.
pub(crate) const ALGORITHMS: [&str; 4] = [
    "RSAES_OAEP_SHA_1",
    "RSAES_OAEP_SHA_256",
    "SM2PKE",
    ALGORITHM,
];

/// Refuses an algorithm that is for other kinds of keys.
pub(crate) fn algorithm(text: Option<&str>) -> Result<(), ErrorResponse> {
    match text {
        None | Some(ALGORITHM) => Ok(()),
        Some(text) => Err(incompatible(text, KeySpec::SymmetricDefault)),
    }
}

/// The longest ciphertext or MAC, in bytes.
pub(crate) const LONGEST_CIPHERTEXT: usize = 6144;

/// Refuses a member that is not supported.
pub(crate) fn absent<T>(member: &'static str, value: Option<&T>) -> Result<(), ErrorResponse> {
    match value {
        None => Ok(()),
        Some(_) => Err(unsupported(format!("{member} is not supported here"))),
    }
}
