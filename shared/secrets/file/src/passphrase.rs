//! A passphrase that an operator gives in an environment variable or in a line of a file.

use keyway_crypto::SecretBytes;

/// Some editors and tools put it before a text. It is not part of a passphrase.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The passphrase that protects the secrets of a folder.
///
/// One line break at the end and a byte order mark at the beginning are not part of it, because tools add and remove
/// them. Earlier releases used them as a part of it; secrets sealed under such a text still open.
pub struct Passphrase {
    /// `None` if the passphrase has a control character. Then nothing new is sealed under it.
    usable: Option<SecretBytes>,
    /// The text as it was given, if it differs from `usable`.
    exact: Option<SecretBytes>,
}

impl Passphrase {
    /// Reads the text that an operator gave, before anything is removed from it.
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
    /// Uses exactly these bytes.
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
