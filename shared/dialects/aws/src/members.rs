//! Members of a request's body: JSON with unknown members ignored and wrong types refused, base64, and the limits of
//! AWS's model.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_domain::keys::KeySpec;
use keyway_domain::{EncryptionContext, SecretBytes};
use keyway_http::{Pairs, without_bom};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::ErrorResponse;
use crate::error_response::{
    at_least, at_most, incompatible, length, not_of, null, serialization, unsupported, validation,
};

/// Decodes a body that must be a JSON object; an empty one is `{}`. The error repeats nothing of the body.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ErrorResponse> {
    let body = without_bom(body);
    let start = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let body = if start.is_none() { b"{}" } else { body };
    // Derived structs would also accept an array, member by member.
    if start.is_some_and(|byte| *byte != b'{') {
        return Err(serialization("the body must be a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let what = match error.is_data() {
            true => "a member has the wrong type, or is there twice",
            false => "the body is not JSON",
        };
        serialization(&format!("{what}, at line {line} column {column}"))
    })
}

/// The body of a request for a page of what belongs to a key.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListBody {
    pub(crate) key_id: Option<String>,
    pub(crate) limit: Option<i64>,
    pub(crate) marker: Option<String>,
}

/// The encryption context in a member.
pub(crate) fn context(
    member: &'static str,
    pairs: Option<Pairs>,
) -> Result<EncryptionContext, ErrorResponse> {
    EncryptionContext::from_pairs(pairs.unwrap_or_default().0)
        .map_err(|error| validation(format!("{member}: {error}")))
}

/// The bytes of a base64 member, 1 to `longest` of them.
pub(crate) fn blob(
    member: &'static str,
    text: Option<&str>,
    longest: usize,
) -> Result<SecretBytes, ErrorResponse> {
    let text = text.ok_or_else(|| null(member))?;
    let bytes = STANDARD
        .decode(text)
        .map(SecretBytes::from)
        .map_err(|_| serialization(&format!("{member} is not base64")))?;
    length(member, None, bytes.len(), 1, longest)?;
    Ok(bytes)
}

/// The number in a member, within these limits.
pub(crate) fn number(
    member: &'static str,
    value: i64,
    least: i64,
    most: i64,
) -> Result<i64, ErrorResponse> {
    if value < least {
        Err(at_least(member, value, least))
    } else if value > most {
        Err(at_most(member, value, most))
    } else {
        Ok(value)
    }
}

/// The page size.
pub(crate) fn limit(value: Option<i64>, most: i64, default: usize) -> Result<usize, ErrorResponse> {
    match value {
        None => Ok(default),
        Some(value) => {
            let limit = number("limit", value, 1, most)?;
            Ok(usize::try_from(limit).unwrap_or(default))
        }
    }
}

/// The marker at which a page begins.
pub(crate) fn marker(text: Option<String>) -> Result<Option<String>, ErrorResponse> {
    if let Some(text) = &text {
        length("marker", Some(text), text.chars().count(), 1, 1024)?;
    }
    Ok(text)
}

/// The word in a member, which must be one of these.
pub(crate) fn one_of(
    member: &'static str,
    text: &str,
    words: &'static [&'static str],
) -> Result<&'static str, ErrorResponse> {
    let found = words.iter().find(|word| **word == text);
    found.copied().ok_or_else(|| not_of(member, text, words))
}

/// The algorithm of every key here.
pub(crate) const ALGORITHM: &str = "SYMMETRIC_DEFAULT";
const ALGORITHMS: [&str; 4] = [
    "RSAES_OAEP_SHA_1",
    "RSAES_OAEP_SHA_256",
    "SM2PKE",
    ALGORITHM,
];

/// Checks the algorithm in a member.
pub(crate) fn algorithm(member: &'static str, text: Option<&str>) -> Result<(), ErrorResponse> {
    match text {
        None | Some(ALGORITHM) => Ok(()),
        Some(text) => {
            let text = one_of(member, text, &ALGORITHMS)?;
            Err(incompatible(text, KeySpec::SymmetricDefault))
        }
    }
}

/// The longest ciphertext or MAC, in bytes.
pub(crate) const LONGEST_CIPHERTEXT: usize = 6144;

/// Checks the number of grant tokens, which have no effect: there are no grants.
pub(crate) fn grant_tokens(tokens: Option<&[String]>) -> Result<(), ErrorResponse> {
    let count = tokens.map_or(0, <[String]>::len);
    length("grantTokens", None, count, 0, 10)
}

/// Refuses a member that is not supported.
pub(crate) fn absent<T>(member: &'static str, value: Option<&T>) -> Result<(), ErrorResponse> {
    match value {
        None => Ok(()),
        Some(_) => Err(unsupported(format!("{member} is not supported here"))),
    }
}
