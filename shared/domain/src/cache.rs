//! The one cache of the domain: bounded, with ages by the monotonic clock from *before* the value was read.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;

/// A bounded cache. Evicts the least recently used entry, and drops it at once so that secrets are zeroized.
pub(crate) struct Cache<K: Hash + Eq, V> {
    state: Mutex<State<K, V>>,
}

/// The statistics of a cache since its process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Lookups that found an entry.
    pub hits: u64,
    /// Lookups that found none.
    pub misses: u64,
    /// The entries that it holds now.
    pub entries: u64,
    /// Entries that were evicted or became too old.
    pub evictions: u64,
}

struct State<K: Hash + Eq, V> {
    hits: u64,
    misses: u64,
    evictions: u64,
    entries: LruCache<K, (Duration, Arc<V>)>,
    /// Counts invalidations, so that a read that began before one cannot cache its old value after it.
    epoch: u64,
}

/// Taken before a read, and needed to cache its result.
#[derive(Clone, Copy)]
pub(crate) struct Ticket {
    epoch: u64,
    begun: Duration,
}

impl<K: Hash + Eq, V> Cache<K, V> {
    pub(crate) fn new(capacity: NonZeroUsize) -> Self {
        Self {
            state: Mutex::new(State {
                hits: 0,
                misses: 0,
                evictions: 0,
                entries: LruCache::new(capacity),
                epoch: 0,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<K, V>> {
        // Ignore poisoning: every change below leaves the map complete.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cached value, if its read began less than `max_age` before `now`.
    pub(crate) fn get(&self, key: &K, now: Duration, max_age: Duration) -> Option<Arc<V>> {
        let mut state = self.state();
        let fresh = state.entries.get(key).map(|(begun, value)| {
            (now.saturating_sub(*begun) < max_age).then(|| Arc::clone(value))
        });
        match fresh {
            Some(Some(value)) => {
                state.hits += 1;
                return Some(value);
            }
            Some(None) => {
                state.entries.pop(key);
                state.evictions += 1;
            }
            None => {}
        }
        state.misses += 1;
        None
    }

    pub(crate) fn begin(&self, now: Duration) -> Ticket {
        Ticket {
            epoch: self.state().epoch,
            begun: now,
        }
    }

    /// Caches the result of a read that began with `ticket`, and drops everything older than `max_age`.
    pub(crate) fn insert(&self, ticket: Ticket, key: K, value: Arc<V>, max_age: Duration)
    where
        K: Clone,
    {
        let mut state = self.state();
        if state.epoch != ticket.epoch {
            return;
        }
        // Otherwise unused entries would outlive their age. The scan is short, because misses are rare.
        state.drop_stale(ticket.begun, max_age);
        if max_age.is_zero() {
            return;
        }
        let known = state.entries.contains(&key);
        let made_room = state.entries.push(key, (ticket.begun, value)).is_some();
        if made_room && !known {
            state.evictions += 1;
        }
    }

    /// Drops everything older than `max_age`, and then entries above `capacity`.
    pub(crate) fn tidy(&self, now: Duration, max_age: Duration, capacity: NonZeroUsize)
    where
        K: Clone,
    {
        let mut state = self.state();
        state.drop_stale(now, max_age);
        if state.entries.cap() != capacity {
            let before = state.entries.len();
            state.entries.resize(capacity);
            state.evictions += before.saturating_sub(state.entries.len()) as u64;
        }
    }

    /// Drops everything, also the results of reads in progress.
    pub(crate) fn clear(&self) {
        let mut state = self.state();
        state.epoch = state.epoch.wrapping_add(1);
        state.entries.clear();
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let state = self.state();
        CacheStats {
            hits: state.hits,
            misses: state.misses,
            entries: state.entries.len() as u64,
            evictions: state.evictions,
        }
    }

    /// Drops the entry, also the results of reads of it in progress.
    pub(crate) fn forget(&self, key: &K) {
        let mut state = self.state();
        state.epoch = state.epoch.wrapping_add(1);
        state.entries.pop(key);
    }
}

impl<K: Hash + Eq + Clone, V> State<K, V> {
    fn drop_stale(&mut self, now: Duration, max_age: Duration) {
        let stale: Vec<K> = self
            .entries
            .iter()
            .filter(|(_, (begun, _))| now.saturating_sub(*begun) >= max_age)
            .map(|(key, _)| key.clone())
            .collect();
        self.evictions += stale.len() as u64;
        for key in stale {
            self.entries.pop(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(5);

    fn cache(capacity: usize) -> Cache<u8, &'static str> {
        Cache::new(NonZeroUsize::new(capacity).unwrap())
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn entry_ages_from_the_beginning_of_its_read() {
        let cache = cache(4);
        let ticket = cache.begin(at(10));
        cache.insert(ticket, 1, Arc::new("a"), AGE);
        assert_eq!(cache.get(&1, at(14), AGE).as_deref(), Some(&"a"));
        assert!(cache.get(&1, at(15), AGE).is_none());
    }

    #[test]
    fn entry_of_age_zero_is_never_served() {
        let cache = cache(4);
        cache.insert(cache.begin(at(10)), 1, Arc::new("a"), Duration::ZERO);
        assert!(cache.get(&1, at(10), Duration::ZERO).is_none());
    }

    #[test]
    fn read_begun_before_an_invalidation_is_not_cached() {
        let cache = cache(4);
        let ticket = cache.begin(at(10));
        cache.forget(&1);
        cache.insert(ticket, 1, Arc::new("old"), AGE);
        assert!(cache.get(&1, at(10), AGE).is_none());
    }

    #[test]
    fn cache_is_bounded_and_drops_stale_entries() {
        let cache = cache(2);
        for key in 0..3 {
            cache.insert(cache.begin(at(10)), key, Arc::new("x"), AGE);
        }
        assert!(cache.get(&0, at(10), AGE).is_none());
        let held = cache.get(&1, at(10), AGE).unwrap();
        cache.insert(cache.begin(at(20)), 9, Arc::new("y"), AGE);
        assert_eq!(
            Arc::strong_count(&held),
            1,
            "the stale entry was dropped, not only hidden"
        );
    }
}
