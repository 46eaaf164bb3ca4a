//! A passphrase as an operator gives it, in a variable or a line of a file.

use keyway_crypto::SecretBytes;

/// Some editors and tools put it before a text. It is no part of a passphrase.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// What protects the secrets of a folder.
///
/// One line break at the end and a byte order mark at the beginning are no part of it, for they come and go with how it
/// is given. Earlier releases took them for a part of it: what is sealed under such a text still opens.
pub struct Passphrase {
    /// `None`: it has a control character, and nothing new is sealed under it.
    usable: Option<SecretBytes>,
    /// The text as it was given, where that is another one.
    exact: Option<SecretBytes>,
}

impl Passphrase {
    /// What an operator gave, as it is.
    pub fn read(given: &str) -> Self {
        let text = given.strip_prefix(BYTE_ORDER_MARK).unwrap_or(given);
        let text = text
            .strip_suffix("\r\n")
            .or_else(|| text.strip_suffix('\n'))
            .unwrap_or(text);
        let usable = !text.chars().any(char::is_control);
        Self {
            usable: usable.then(|| secret(text)),
            exact: (!usable || text != given).then(|| secret(given)),
        }
    }

    pub(crate) const fn usable(&self) -> Option<&SecretBytes> {
        self.usable.as_ref()
    }

    pub(crate) const fn exact(&self) -> Option<&SecretBytes> {
        self.exact.as_ref()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.usable.as_ref().is_some_and(SecretBytes::is_empty)
    }
}

impl From<SecretBytes> for Passphrase {
    /// The very bytes.
    fn from(bytes: SecretBytes) -> Self {
        Self {
            usable: Some(bytes),
            exact: None,
        }
    }
}

fn secret(text: &str) -> SecretBytes {
    SecretBytes::from(text.as_bytes().to_vec())
}
