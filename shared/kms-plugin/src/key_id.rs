//! The key id that the API server stores beside each ciphertext, and by whose change it sees a rotation.

use std::fmt;

use keyway_domain::keys::KeyId;

/// `KEY/VERSION/CREATED`, such as `cluster/2/2026-11-30T08:15:00Z`.
///
/// The time is that of the key's creation. Another key that is made later under the same id has another time. Without it,
/// the API server would go on with a key that the destroyed key encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VersionedKey {
    pub(crate) key: KeyId,
    pub(crate) version: u32,
    created_at: String,
}

/// The longest time in bytes. The longest key id then has 204 bytes, of the 1024 that the API server takes.
const LONGEST_TIME: usize = 64;

impl VersionedKey {
    /// The key id of this version. `None` if the time is not printable ASCII of at most 64 bytes.
    pub(crate) fn new(key: KeyId, version: u32, created_at: &str) -> Option<Self> {
        let is_fit = created_at.len() <= LONGEST_TIME
            && created_at.bytes().all(|byte| byte.is_ascii_graphic());
        is_fit.then(|| Self {
            key,
            version,
            created_at: created_at.to_owned(),
        })
    }

    /// Parses a key id of [`VersionedKey::fmt`].
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let (key, version, created_at) = (parts.next()?, parts.next()?, parts.next()?);
        let key = KeyId::parse("key_id", key).ok()?;
        Self::new(key, version.parse().ok()?, created_at)
    }
}

impl fmt::Display for VersionedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.key, self.version, self.created_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_id_comes_back_as_it_was_written() {
        let longest = format!("{}/4294967295/{}", "k".repeat(128), "9".repeat(64));
        assert_eq!(longest.len(), 204);
        for text in ["k/1/2026-11-30T08:15:00Z", "a.b_c-d/12/2026/x", &longest] {
            assert_eq!(VersionedKey::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn text_that_is_no_key_id_is_refused() {
        let long = format!("k/1/{}", "9".repeat(65));
        for text in [
            "", "k", "k/1", "/1/t", "k/x/t", "k/-1/t", "a b/1/t", "k/1/a b", "k/1/é", &long,
        ] {
            assert_eq!(VersionedKey::parse(text), None, "{text}");
        }
    }
}
