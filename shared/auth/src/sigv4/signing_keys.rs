use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use aws_lc_rs::hmac;
use keyway_domain::SecretBytes;
use lru::LruCache;
use zeroize::Zeroizing;

/// Derived signing keys, so that a caller's next request costs one HMAC instead of five.
///
/// A cache of at most `capacity` entries, which drops the least recently used. An entry is found by the
/// whole credential (access key id, date, region, service) and is valid only for the secret that it was
/// derived from, in the memory where that secret is: once the secret is read again, changed or revoked,
/// the entry is useless, and the next key that is cached drops it. A key is cached only after it verified
/// a signature, so an unauthenticated caller who knows an access key id cannot fill the cache with invented regions.
pub struct SigningKeys {
    entries: Mutex<LruCache<Box<str>, Entry>>,
}

struct Entry {
    /// While this exists, its address stands for no other secret. So no secret is hashed or compared.
    secret: Weak<SecretBytes>,
    /// aws-lc wipes the key's state when the last holder drops it.
    key: Arc<hmac::Key>,
}

impl SigningKeys {
    /// An empty cache of at most `capacity` keys.
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self {
            entries: Mutex::new(LruCache::new(capacity)),
        }
    }

    pub(super) fn find(
        &self,
        credential: &str,
        secret: &Arc<SecretBytes>,
    ) -> Option<Arc<hmac::Key>> {
        let mut entries = self.lock();
        let entry = entries.get(credential)?;
        let is_its_own = std::ptr::eq(entry.secret.as_ptr(), Arc::as_ptr(secret));
        is_its_own.then(|| Arc::clone(&entry.key))
    }

    pub(super) fn keep(&self, credential: &str, secret: &Arc<SecretBytes>, key: Arc<hmac::Key>) {
        let secret = Arc::downgrade(secret);
        let mut entries = self.lock();
        let forgotten: Vec<_> = (entries.iter())
            .filter(|(_, entry)| entry.secret.strong_count() == 0)
            .map(|(credential, _)| credential.clone())
            .collect();
        for credential in forgotten {
            entries.pop(&credential);
        }
        entries.put(credential.into(), Entry { secret, key });
    }

    /// Nothing that can panic runs under the lock; if it did, the map would still be valid.
    fn lock(&self) -> MutexGuard<'_, LruCache<Box<str>, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for SigningKeys {
    fn default() -> Self {
        const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);
        Self::new(CAPACITY)
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeys").finish_non_exhaustive()
    }
}

/// `HMAC(HMAC(HMAC(HMAC("AWS4" + secret, date), region), service), "aws4_request")`, where `scope` is
/// `date/region/service/aws4_request`: its parts, in that order. `None` if the HMAC fails, because a
/// step that wrote nothing would leave a key of zeros, which everyone knows.
pub(super) fn derive(secret: &[u8], scope: &str) -> Option<hmac::Key> {
    let mut first = Zeroizing::new(Vec::with_capacity(4 + secret.len()));
    first.extend_from_slice(b"AWS4");
    first.extend_from_slice(secret);
    scope
        .split('/')
        .try_fold(hmac::Key::new(hmac::HMAC_SHA256, &first), |key, part| {
            let mut next = Zeroizing::new([0; 32]);
            hmac::sign_to_buffer(&key, part.as_bytes(), next.as_mut_slice()).ok()?;
            Some(hmac::Key::new(hmac::HMAC_SHA256, next.as_slice()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: &str = "20150830/us-east-1/iam/aws4_request";

    /// The example of AWS's documentation, "Deriving the signing key".
    #[test]
    fn derives_as_documented() {
        let key = derive(b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", SCOPE).unwrap();
        let expected = "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9";
        let expected = hmac::Key::new(hmac::HMAC_SHA256, &hex::decode(expected).unwrap());
        assert_eq!(
            hmac::sign(&key, b"x").as_ref(),
            hmac::sign(&expected, b"x").as_ref()
        );
    }

    #[test]
    fn entry_serves_its_own_secret_and_credential_only() {
        let keys = SigningKeys::new(NonZeroUsize::MIN);
        let key = || Arc::new(derive(b"secret", SCOPE).unwrap());
        let secret = || Arc::new(SecretBytes::from(b"secret".to_vec()));
        let (old, new) = (secret(), secret());
        keys.keep("A/scope", &old, key());
        assert!(keys.find("A/scope", &old).is_some());
        assert!(keys.find("A/scope", &new).is_none());
        assert!(keys.find("B/scope", &old).is_none());
        keys.keep("A/scope", &new, key());
        assert!(keys.find("A/scope", &old).is_none());
        keys.keep("B/scope", &old, key());
        assert!(keys.find("A/scope", &new).is_none(), "bounded");
    }

    #[test]
    fn key_of_a_dropped_secret_is_dropped_with_the_next_entry() {
        let keys = SigningKeys::default();
        let key = || Arc::new(derive(b"secret", SCOPE).unwrap());
        let secret = || Arc::new(SecretBytes::from(b"secret".to_vec()));
        let (revoked, valid, other) = (secret(), secret(), secret());
        let watched = key();
        keys.keep("A/scope", &revoked, Arc::clone(&watched));
        keys.keep("B/scope", &valid, key());
        drop(revoked);
        keys.keep("C/scope", &other, key());
        assert_eq!(Arc::strong_count(&watched), 1);
        assert!(keys.find("B/scope", &valid).is_some());
    }
}
