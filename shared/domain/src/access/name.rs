//! The name that an operator gives an access key.

use serde::{Deserialize, Serialize};

use crate::error::KmsError;

/// Says who uses an access key: 1 to 64 of `[A-Za-z0-9_+=,.@-]`. Several access keys may have the same name, as they have
/// during a rotation. A name decides nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccessKeyName(String);

impl AccessKeyName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] when it is empty, too long or has other characters.
    pub fn parse(text: &str) -> Result<Self, KmsError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(KmsError::invalid(
                "name",
                "must be 1 to 64 of A-Z, a-z, 0-9, `_`, `+`, `=`, `,`, `.`, `@`, `-`",
            ))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
