//! What an operation leaves behind for those who tell of it afterwards: about what it was, never what it made.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use keyway_crypto::EncryptionContext;

use crate::keys::KeyId;

/// What one request was about, noted on the way by the operations, which all have the caller. It outlives them, however
/// they end: a refusal says what was refused.
#[derive(Default)]
pub struct Trail(Mutex<Noted>);

/// What was noted of one request.
#[derive(Clone, Default)]
pub struct Noted {
    /// The key: where there are two, the one that the outcome is under.
    pub key: Option<KeyId>,
    /// The version of the key that was used, or made.
    pub key_version: Option<u32>,
    /// Of a ciphertext that was moved, the key and version that it was under before.
    pub source: Option<(KeyId, u32)>,
    /// What it was about that is no key: a bucket, a policy, an identity.
    pub resource: Option<String>,
    /// The encryption context; `None` where there was none.
    pub context: Option<NotedContext>,
}

/// An encryption context, for those who tell of its names. Its values are secrets to some.
#[derive(Clone, PartialEq, Eq)]
pub enum NotedContext {
    /// A map, or opaque bytes that are a JSON object of strings.
    Pairs(Vec<(String, String)>),
    /// Bytes of this number, which have no names.
    Opaque(usize),
}

/// Opaque contexts that are longer than this are not looked into.
const LONGEST_PARSED: usize = 16 << 10;

impl Trail {
    /// What was noted so far.
    pub fn noted(&self) -> Noted {
        self.lock().clone()
    }

    pub(crate) fn key(&self, id: &KeyId) {
        let mut noted = self.lock();
        if noted.key.as_ref() != Some(id) {
            noted.key = Some(id.clone());
            noted.key_version = None;
        }
    }

    pub(crate) fn version(&self, version: u32) {
        self.lock().key_version = Some(version);
    }

    pub(crate) fn source(&self, id: &KeyId, version: u32) {
        self.lock().source = Some((id.clone(), version));
    }

    pub(crate) fn resource(&self, name: &str) {
        self.lock().resource = Some(name.to_owned());
    }

    pub(crate) fn context(&self, context: &EncryptionContext) {
        let noted = match context.opaque_bytes() {
            Some(bytes) => Some(of_opaque(bytes)),
            None => Some(context.pairs())
                .filter(|pairs| pairs.len() > 0)
                .map(|pairs| pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
                .map(NotedContext::Pairs),
        };
        self.lock().context = noted;
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        // Each note is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// MinIO writes its contexts as JSON objects of strings; what others write has no names.
fn of_opaque(bytes: &[u8]) -> NotedContext {
    if bytes.first() == Some(&b'{')
        && bytes.len() <= LONGEST_PARSED
        && let Ok(pairs) = serde_json::from_slice::<BTreeMap<String, String>>(bytes)
    {
        return NotedContext::Pairs(pairs.into_iter().collect());
    }
    NotedContext::Opaque(bytes.len())
}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trail").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(context: &EncryptionContext) -> Option<NotedContext> {
        let trail = Trail::default();
        trail.context(context);
        trail.noted().context
    }

    #[test]
    fn contexts_have_names_where_they_are_maps() {
        let pair = || ("b".to_owned(), "o".to_owned());
        assert!(context(&EncryptionContext::none()).is_none());
        let map = EncryptionContext::from_pairs([pair()]).unwrap();
        assert!(context(&map) == Some(NotedContext::Pairs(vec![pair()])));
        let opaque = |text: &str| EncryptionContext::opaque(text.into()).unwrap();
        assert!(context(&opaque(r#"{"b":"o"}"#)) == Some(NotedContext::Pairs(vec![pair()])));
        for bytes in ["secret", "{secret", r#"{"a":1}"#, r#"["a"]"#] {
            let noted = context(&opaque(bytes));
            assert!(noted == Some(NotedContext::Opaque(bytes.len())), "{bytes}");
        }
    }

    #[test]
    fn a_version_is_of_the_key_that_was_noted_with_it() {
        let id = |text| KeyId::parse("key_id", text).unwrap();
        let trail = Trail::default();
        trail.key(&id("a"));
        trail.version(3);
        trail.key(&id("a"));
        assert_eq!(trail.noted().key_version, Some(3));
        trail.key(&id("b"));
        assert_eq!(trail.noted().key_version, None);
    }
}
