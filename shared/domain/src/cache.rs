//! The one cache of the domain: bounded, aged by the monotonic clock from *before* the cached thing was read.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;

/// Bounded, least recently used out first. What it drops is dropped at once, so secret values are zeroized then.
pub(crate) struct Cache<K: Hash + Eq, V> {
    state: Mutex<State<K, V>>,
}

struct State<K: Hash + Eq, V> {
    entries: LruCache<K, (Duration, Arc<V>)>,
    /// Counts invalidations, so that a read begun before one cannot put its old answer back after it.
    epoch: u64,
}

/// Taken before a read, and needed to cache its answer.
#[derive(Clone, Copy)]
pub(crate) struct Ticket {
    epoch: u64,
    begun: Duration,
}

impl<K: Hash + Eq, V> Cache<K, V> {
    pub(crate) fn new(capacity: NonZeroUsize) -> Self {
        Self {
            state: Mutex::new(State {
                entries: LruCache::new(capacity),
                epoch: 0,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<K, V>> {
        // Every change below leaves the map whole, so a panic elsewhere does not make it unfit.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cached value, if its read began less than `max_age` before `now`.
    pub(crate) fn get(&self, key: &K, now: Duration, max_age: Duration) -> Option<Arc<V>> {
        let mut state = self.state();
        let (begun, value) = state.entries.get(key)?;
        if now.saturating_sub(*begun) < max_age {
            return Some(Arc::clone(value));
        }
        state.entries.pop(key);
        None
    }

    pub(crate) fn begin(&self, now: Duration) -> Ticket {
        Ticket {
            epoch: self.state().epoch,
            begun: now,
        }
    }

    /// Caches what a read begun with `ticket` found, and drops everything older than `max_age`.
    pub(crate) fn insert(&self, ticket: Ticket, key: K, value: Arc<V>, max_age: Duration)
    where
        K: Clone,
    {
        let mut state = self.state();
        if state.epoch != ticket.epoch {
            return;
        }
        // Entries that nobody asks for again would otherwise outlive their age. The scan is short: a miss is rare.
        let stale: Vec<K> = state
            .entries
            .iter()
            .filter(|(_, (begun, _))| ticket.begun.saturating_sub(*begun) >= max_age)
            .map(|(key, _)| key.clone())
            .collect();
        for key in stale {
            state.entries.pop(&key);
        }
        state.entries.put(key, (ticket.begun, value));
    }

    /// Forgets the entry, and whatever reads of it are still under way.
    pub(crate) fn forget(&self, key: &K) {
        let mut state = self.state();
        state.epoch = state.epoch.wrapping_add(1);
        state.entries.pop(key);
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
    fn an_entry_ages_from_the_beginning_of_its_read() {
        let cache = cache(4);
        let ticket = cache.begin(at(10));
        cache.insert(ticket, 1, Arc::new("a"), AGE);
        assert_eq!(cache.get(&1, at(14), AGE).as_deref(), Some(&"a"));
        assert!(cache.get(&1, at(15), AGE).is_none());
    }

    #[test]
    fn a_zero_age_never_serves() {
        let cache = cache(4);
        cache.insert(cache.begin(at(10)), 1, Arc::new("a"), Duration::ZERO);
        assert!(cache.get(&1, at(10), Duration::ZERO).is_none());
    }

    #[test]
    fn a_read_begun_before_an_invalidation_is_not_cached() {
        let cache = cache(4);
        let ticket = cache.begin(at(10));
        cache.forget(&1);
        cache.insert(ticket, 1, Arc::new("old"), AGE);
        assert!(cache.get(&1, at(10), AGE).is_none());
    }

    #[test]
    fn it_is_bounded_and_drops_what_is_stale() {
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
