//! What operations record about a request for its observers: what it was about, never its result.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyway_crypto::EncryptionContext;

use crate::ids::{AliasName, KeyId};

/// The facts of one request, recorded by its operations through the caller. It outlives the operations, so a refusal
/// also says what was refused.
#[derive(Default)]
pub struct AuditContext {
    noted: Mutex<Noted>,
    /// The permissions that were checked, with their keys.
    #[cfg(test)]
    decisions: Mutex<Vec<(&'static str, String)>>,
}

/// The action that a caller was refused, and on what, for error texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    Key(&'static str, KeyId),
    Alias(&'static str, AliasName),
}

#[derive(Default)]
struct Noted {
    facts: AuditFacts,
    /// What the caller was refused last.
    denied: Option<Denied>,
    /// One per item of a request with several items. An item is added before it is processed, so the audit context of a
    /// request that is dropped midway shows how far it came.
    items: Vec<Arc<AuditContext>>,
}

/// The recorded facts of one request.
#[derive(Clone, Default)]
pub struct AuditFacts {
    /// The key. If there are two, the one of the result.
    pub key: Option<KeyId>,
    /// The version of the key that was used or made.
    pub key_version: Option<u32>,
    /// The old key and version of a re-encrypted ciphertext.
    pub source: Option<(KeyId, Option<u32>)>,
    /// The target, if it is not a key: a bucket, a policy, an identity.
    pub resource: Option<String>,
    /// The encryption context; `None` if there was none.
    pub context: Option<ContextFacts>,
    /// Why this was refused, if the answer as a whole is no refusal: a word such as `not_permitted`.
    pub refusal: Option<&'static str>,
    /// The items of a request with several items.
    pub items: Vec<AuditFacts>,
}

/// An encryption context, for observers that record its names. Some users keep its values secret.
#[derive(Clone, PartialEq, Eq)]
pub enum ContextFacts {
    /// A map, or opaque bytes that are a JSON object of strings.
    Pairs(Vec<(String, String)>),
    /// The length of bytes that have no names.
    Opaque(usize),
}

/// Longer opaque contexts are not parsed.
const LONGEST_PARSED: usize = 16 << 10;

impl AuditContext {
    /// Takes the facts recorded so far.
    pub fn take(&self) -> AuditFacts {
        let mut noted = self.lock();
        AuditFacts {
            items: noted.items.iter().map(|item| item.take()).collect(),
            ..mem::take(&mut noted.facts)
        }
    }

    /// What the caller was refused permission on last.
    pub(crate) fn denied(&self) -> Option<Denied> {
        self.lock().denied.clone()
    }

    pub(crate) fn deny(&self, what: Denied) {
        self.lock().denied = Some(what);
    }

    /// Records why this was refused, for a request whose answer as a whole is no refusal.
    pub fn refused(&self, why: &'static str) {
        self.lock().facts.refusal = Some(why);
    }

    /// The audit context of the next item.
    pub(crate) fn next_item(&self) -> Arc<Self> {
        let item = Arc::new(Self::default());
        self.lock().items.push(Arc::clone(&item));
        item
    }

    #[cfg(test)]
    pub(crate) fn decided(&self, action: &'static str, id: &KeyId) {
        let mut decisions = self.decisions.lock().unwrap();
        decisions.push((action, id.as_str().to_owned()));
    }

    #[cfg(test)]
    pub(crate) fn decisions(&self) -> Vec<(&'static str, String)> {
        self.decisions.lock().unwrap().clone()
    }

    pub(crate) fn key(&self, id: &KeyId) {
        let noted = &mut self.lock().facts;
        if noted.key.as_ref() != Some(id) {
            noted.key = Some(id.clone());
            noted.key_version = None;
        }
    }

    pub(crate) fn version(&self, version: u32) {
        self.lock().facts.key_version = Some(version);
    }

    /// Makes the recorded key the source of a re-encryption under `destination`; `None` is the same key.
    pub(crate) fn moves_to(&self, destination: Option<&KeyId>) {
        let noted = &mut self.lock().facts;
        let Some(key) = noted.key.take() else {
            noted.key = destination.cloned();
            return;
        };
        noted.key = Some(destination.unwrap_or(&key).clone());
        let version = noted.key_version.take();
        noted.source = Some((key, version));
    }

    pub(crate) fn resource(&self, name: &str) {
        self.lock().facts.resource = Some(name.to_owned());
    }

    pub(crate) fn context(&self, context: &EncryptionContext) {
        let noted = match context.opaque_bytes() {
            Some(bytes) => Some(of_opaque(bytes)),
            None => Some(context.pairs())
                .filter(|pairs| pairs.len() > 0)
                .map(|pairs| pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
                .map(ContextFacts::Pairs),
        };
        self.lock().facts.context = noted;
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        // Ignore poisoning: each fact is set by one assignment.
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// MinIO writes its contexts as JSON objects of strings. The contexts of other clients have no names.
fn of_opaque(bytes: &[u8]) -> ContextFacts {
    if bytes.first() == Some(&b'{')
        && bytes.len() <= LONGEST_PARSED
        && let Ok(pairs) = serde_json::from_slice::<BTreeMap<String, String>>(bytes)
    {
        return ContextFacts::Pairs(pairs.into_iter().collect());
    }
    ContextFacts::Opaque(bytes.len())
}

impl fmt::Debug for AuditContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditContext").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(context: &EncryptionContext) -> Option<ContextFacts> {
        let audit = AuditContext::default();
        audit.context(context);
        audit.take().context
    }

    #[test]
    fn contexts_have_names_where_they_are_maps() {
        let pair = || ("b".to_owned(), "o".to_owned());
        assert!(context(&EncryptionContext::none()).is_none());
        let map = EncryptionContext::from_pairs([pair()]).unwrap();
        assert!(context(&map) == Some(ContextFacts::Pairs(vec![pair()])));
        let opaque = |text: &str| EncryptionContext::opaque(text.into()).unwrap();
        assert!(context(&opaque(r#"{"b":"o"}"#)) == Some(ContextFacts::Pairs(vec![pair()])));
        for bytes in ["secret", "{secret", r#"{"a":1}"#, r#"["a"]"#] {
            let noted = context(&opaque(bytes));
            assert!(noted == Some(ContextFacts::Opaque(bytes.len())), "{bytes}");
        }
    }

    #[test]
    fn version_belongs_to_the_key_noted_with_it() {
        let id = |text| KeyId::parse("key_id", text).unwrap();
        let audit = AuditContext::default();
        audit.key(&id("a"));
        audit.version(3);
        audit.key(&id("a"));
        assert_eq!(audit.lock().facts.key_version, Some(3));
        audit.key(&id("b"));
        assert_eq!(audit.take().key_version, None);
    }

    #[test]
    fn item_is_noted_apart_from_the_request_and_other_items() {
        let id = |text| KeyId::parse("key_id", text).unwrap();
        let audit = AuditContext::default();
        let first = audit.next_item();
        first.key(&id("a"));
        first.version(1);
        first.moves_to(Some(&id("b")));
        let second = audit.next_item();
        second.key(&id("c"));
        second.refused("not_permitted");
        let noted = audit.take();
        assert!(noted.key.is_none() && noted.refusal.is_none());
        let [first, second] = noted.items.as_slice() else {
            panic!("two items")
        };
        assert_eq!(first.source, Some((id("a"), Some(1))));
        assert_eq!((&first.key, first.key_version), (&Some(id("b")), None));
        assert_eq!(second.refusal, Some("not_permitted"));
        assert_eq!(second.key, Some(id("c")));
    }
}
