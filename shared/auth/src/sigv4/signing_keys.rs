use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::{constant_time, digest, hmac};
use lru::LruCache;
use zeroize::Zeroizing;

/// Derived signing keys, so that a caller's next request costs one HMAC instead of five.
///
/// A cache of at most `capacity` entries, which drops the least recently used. An entry is found by the
/// whole credential (access key id, date, region, service) and is valid only for the secret that it was
/// derived from: when a secret changes, its old entry is useless. A key is cached only after it verified
/// a signature, so an unauthenticated caller who knows an access key id cannot fill the cache with invented regions.
pub struct SigningKeys {
    entries: Mutex<LruCache<Box<str>, Entry>>,
}

struct Entry {
    secret: Fingerprint,
    /// aws-lc wipes the key's state when the last holder drops it.
    key: Arc<hmac::Key>,
}

/// The SHA-256 of a secret.
pub(super) struct Fingerprint(Zeroizing<[u8; 32]>);

impl Fingerprint {
    pub(super) fn of(secret: &[u8]) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        bytes
            .iter_mut()
            .zip(digest::digest(&digest::SHA256, secret).as_ref())
            .for_each(|(to, from)| *to = *from);
        Self(bytes)
    }

    fn is(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(self.0.as_slice(), other.0.as_slice()).is_ok()
    }
}

impl SigningKeys {
    /// An empty cache of at most `capacity` keys.
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self {
            entries: Mutex::new(LruCache::new(capacity)),
        }
    }

    pub(super) fn find(&self, credential: &str, secret: &Fingerprint) -> Option<Arc<hmac::Key>> {
        let mut entries = self.lock();
        let entry = entries.get(credential)?;
        entry.secret.is(secret).then(|| Arc::clone(&entry.key))
    }

    pub(super) fn keep(&self, credential: &str, secret: Fingerprint, key: Arc<hmac::Key>) {
        self.lock().put(credential.into(), Entry { secret, key });
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
        let key = || Arc::new(derive(b"old", SCOPE).unwrap());
        keys.keep("A/scope", Fingerprint::of(b"old"), key());
        assert!(keys.find("A/scope", &Fingerprint::of(b"old")).is_some());
        assert!(keys.find("A/scope", &Fingerprint::of(b"new")).is_none());
        assert!(keys.find("B/scope", &Fingerprint::of(b"old")).is_none());
        keys.keep("A/scope", Fingerprint::of(b"new"), key());
        assert!(keys.find("A/scope", &Fingerprint::of(b"old")).is_none());
        keys.keep("B/scope", Fingerprint::of(b"old"), key());
        assert!(
            keys.find("A/scope", &Fingerprint::of(b"new")).is_none(),
            "bounded"
        );
    }
}
