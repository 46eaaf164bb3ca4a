//! The encoding of records: JSON with a `format` number, which distinguishes a later format.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Fault, KmsError};

/// The format of every new record.
pub(crate) const FORMAT: u8 = 1;

#[derive(serde::Deserialize)]
struct FormatOnly {
    format: u8,
}

pub(crate) fn encode(noun: &impl Serialize) -> Result<Vec<u8>, KmsError> {
    serde_json::to_vec(noun)
        .map_err(|error| KmsError::Backend(Fault::new("encoding a record", error)))
}

pub(crate) fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, KmsError> {
    decode_of(value, &[FORMAT])
}

/// Decodes a record that must have one of these formats.
pub(crate) fn decode_of<T: DeserializeOwned>(value: &[u8], formats: &[u8]) -> Result<T, KmsError> {
    // The parser's own texts quote the input, and the log must not show a record's content.
    let damaged = |error: serde_json::Error| {
        let place = format!(
            "{:?} fault at line {}, column {}",
            error.classify(),
            error.line(),
            error.column()
        );
        KmsError::Backend(Fault::new("decoding a record", place))
    };
    let FormatOnly { format } = serde_json::from_slice(value).map_err(damaged)?;
    if !formats.contains(&format) {
        return Err(KmsError::Backend(Fault::plain(
            "a record is of a format that this version does not know",
        )));
    }
    serde_json::from_slice(value).map_err(damaged)
}

/// Bytes as standard base64 in a record.
pub(crate) mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        STANDARD
            .decode(text.as_bytes())
            .map_err(|_| de::Error::custom("expected standard base64"))
    }
}
