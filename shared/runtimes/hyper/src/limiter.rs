//! Limits the connections of a listener, and closes idle ones. When there are too many, it closes the oldest unproven one:
//! unproven means without an authenticated request.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyway_http::Connection;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::Bounds;

/// The unit of time in this module. A tick is exact enough for its timeouts, and spares requests from reading a clock.
pub(crate) const TICK: Duration = Duration::from_millis(500);
/// How many ticks a connection stays open although its address has too many, because a client may open many at once.
const YOUNG: u32 = 2;
/// The factor by which young connections may exceed the limit of an address.
const BURST: usize = 4;
/// How many ticks a connection without a request may stay open after it was told to end. A client that sends its head too
/// slowly has no request either.
const ENDING: u32 = 4;
/// How often the end of the process looks whether every request has its answer.
const LOOK: Duration = Duration::from_millis(10);
/// The least number of ticks between two warnings of one kind.
const WARNING: u32 = 120;

static OPEN: AtomicUsize = AtomicUsize::new(0);
static DROPPED: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// Why a connection was dropped, or had to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowded {
    /// An address had too many connections without an authenticated request: its oldest was dropped.
    Address,
    /// The listener had too many connections without an authenticated request: the oldest was dropped.
    Unproven,
    /// All connections had an authenticated request: the next connection had to wait.
    Full,
}

impl Crowded {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Address, Self::Unproven, Self::Full];

    /// The reason's label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Unproven => "unproven",
            Self::Full => "full",
        }
    }

    /// How often it has happened in this process.
    pub fn count(self) -> u64 {
        self.counter().load(Ordering::Relaxed)
    }

    fn counter(self) -> &'static AtomicU64 {
        let [address, unproven, full] = &DROPPED;
        match self {
            Self::Address => address,
            Self::Unproven => unproven,
            Self::Full => full,
        }
    }
}

/// How many connections this process serves.
pub fn open_connections() -> usize {
    OPEN.load(Ordering::Relaxed)
}

/// The address that a connection counts for. With IPv6 that is its /64, because one client can have all of its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Origin(IpAddr);

impl Origin {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) >> 64 << 64;
                IpAddr::V6(Ipv6Addr::from(network))
            }
            v4 => v4,
        })
    }
}

/// The state of one connection.
pub(crate) struct Held {
    connection: Connection,
    tick: Arc<AtomicU32>,
    /// Requests whose answers are not sent yet.
    requests: AtomicUsize,
    /// Requests that have no answer yet. An answer that is sent in parts may last as long as its connection.
    unanswered: AtomicUsize,
    idle_since: AtomicU32,
    /// When the connection was told to end, or [`NEVER`].
    ending_since: AtomicU32,
    end: Notify,
    /// The answers that are being sent, by number, and the tick when sending began.
    answers: Mutex<Vec<(u32, u32)>>,
    answered: AtomicU32,
    /// Whether a body of HTTP/1.1 was left unread.
    is_unread: AtomicBool,
}

/// Stands for no tick.
const NEVER: u32 = u32::MAX;

impl Held {
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Resolves when the connection must end after its current requests.
    pub(crate) async fn ends(&self) {
        self.end.notified().await;
    }

    fn now(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    /// Starts the idle time, so that it does not include the handshake.
    pub(crate) fn opened(&self) {
        self.idle_since.store(self.now(), Ordering::Relaxed);
    }

    pub(crate) fn leave_unread(&self) {
        self.is_unread.store(true, Ordering::Relaxed);
    }

    pub(crate) fn was_left_unread(&self) -> bool {
        self.is_unread.load(Ordering::Relaxed)
    }

    pub(crate) fn begin_request(self: &Arc<Self>) -> Open {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        Open {
            held: Arc::clone(self),
            is_answered: false,
            answer: None,
        }
    }

    fn answers(&self) -> MutexGuard<'_, Vec<(u32, u32)>> {
        // Nothing that can panic runs under the lock.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_to_end(&self, now: u32) {
        if self.ending_since.load(Ordering::Relaxed) == NEVER {
            self.ending_since.store(now, Ordering::Relaxed);
            self.end.notify_one();
        }
    }
}

/// Counts a request as open until its answer is sent.
pub(crate) struct Open {
    held: Arc<Held>,
    is_answered: bool,
    answer: Option<u32>,
}

impl Open {
    /// Says that the request has its answer, or the beginning of one.
    pub(crate) fn answered(&mut self) {
        if !std::mem::replace(&mut self.is_answered, true) {
            self.held.unanswered.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Starts the time that the client has to read the answer.
    pub(crate) fn answer(&mut self) {
        let number = self.held.answered.fetch_add(1, Ordering::Relaxed);
        self.held.answers().push((number, self.held.now()));
        self.answer = Some(number);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.answered();
        if let Some(number) = self.answer {
            self.held.answers().retain(|(other, _)| *other != number);
        }
        self.held
            .idle_since
            .store(self.held.now(), Ordering::Relaxed);
        self.held.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Entry {
    held: Arc<Held>,
    origin: Origin,
    since: u32,
    task: Option<AbortHandle>,
}

/// The connections of one listener.
#[derive(Default)]
struct Taken {
    /// By number; a later connection has a higher one.
    all: HashMap<u64, Entry>,
    /// Connections that had no authenticated request when they were last checked.
    unproven: BTreeSet<u64>,
    by_origin: HashMap<Origin, BTreeSet<u64>>,
    next: u64,
    /// The tick when `unproven` was last checked.
    looked: u32,
}

impl Taken {
    fn is_proven(&self, number: u64) -> bool {
        self.all
            .get(&number)
            .is_none_or(|entry| entry.held.connection.is_proven())
    }

    /// Stops counting this connection as unproven.
    fn settle(&mut self, number: u64, origin: Origin) {
        self.unproven.remove(&number);
        if let Some(numbers) = self.by_origin.get_mut(&origin) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_origin.remove(&origin);
            }
        }
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.all.remove(&number)?;
        self.settle(number, entry.origin);
        Some(entry)
    }

    fn look(&mut self, numbers: Vec<u64>) {
        for number in numbers {
            if self.is_proven(number)
                && let Some(origin) = self.all.get(&number).map(|entry| entry.origin)
            {
                self.settle(number, origin);
            }
        }
    }

    fn look_at_all(&mut self) {
        self.look(self.unproven.iter().copied().collect());
    }

    fn drop_connection(&mut self, number: u64) {
        if let Some(task) = self.remove(number).and_then(|entry| entry.task) {
            task.abort();
        }
    }

    fn unproven_of(&self, origin: Origin) -> usize {
        self.by_origin.get(&origin).map_or(0, BTreeSet::len)
    }

    /// Drops the oldest unproven connection of an origin that has reached `limit`, and returns whether it did. A young
    /// connection is dropped only at [`BURST`] times the limit.
    fn make_way_for(&mut self, origin: Origin, limit: usize, now: u32) -> bool {
        let count = self.unproven_of(origin);
        let oldest = self
            .by_origin
            .get(&origin)
            .and_then(|numbers| numbers.first());
        let Some(oldest) = oldest.copied().filter(|_| count >= limit) else {
            return false;
        };
        let is_young = self
            .all
            .get(&oldest)
            .is_some_and(|entry| now.wrapping_sub(entry.since) < YOUNG);
        if is_young && count < limit.saturating_mul(BURST) {
            return false;
        }
        self.drop_connection(oldest);
        true
    }
}

/// Limits the connections of one listener.
pub(crate) struct ConnectionLimiter {
    limit: usize,
    unproven: usize,
    of_origin: usize,
    idle: u32,
    answer: u32,
    tick: Arc<AtomicU32>,
    taken: Mutex<Taken>,
    freed: Notify,
    warned: [AtomicU32; 3],
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(TICK.as_millis())).unwrap_or(NEVER)
}

impl ConnectionLimiter {
    pub(crate) fn new(bounds: &Bounds) -> Arc<Self> {
        Arc::new(Self {
            limit: bounds.connections,
            unproven: (bounds.connections - bounds.connections / 4).max(1),
            of_origin: bounds.unproven_of_address,
            // A tick may be almost over when a request ends.
            idle: ticks(bounds.head).saturating_add(1),
            answer: ticks(bounds.whole),
            tick: Arc::default(),
            taken: Mutex::default(),
            freed: Notify::new(),
            warned: [const { AtomicU32::new(NEVER) }; 3],
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing that can panic runs under the lock.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when the listener is not full, or an unproven connection can be dropped.
    pub(crate) async fn available(&self) {
        loop {
            let freed = self.freed.notified();
            {
                let mut taken = self.taken();
                if taken.all.len() < self.limit {
                    return;
                }
                taken.look_at_all();
                if !taken.unproven.is_empty() {
                    return;
                }
            }
            self.note(Crowded::Full);
            // Check again each tick: a connection may end before this waits, or become one that can be dropped.
            tokio::time::timeout(TICK, freed).await.ok();
        }
    }

    /// Admits a connection from this address, and drops an older one if there are too many.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> ConnectionSlot {
        let now = self.tick.load(Ordering::Relaxed);
        let origin = Origin::of(address);
        let mut crowded = None;
        let mut taken = self.taken();
        if taken.unproven_of(origin) >= self.of_origin {
            let numbers = taken.by_origin.get(&origin);
            let numbers = numbers.map(|numbers| numbers.iter().copied().collect());
            taken.look(numbers.unwrap_or_default());
            if taken.make_way_for(origin, self.of_origin, now) {
                crowded = Some(Crowded::Address);
            }
        }
        if taken.unproven.len() >= self.unproven && taken.looked != now {
            taken.looked = now;
            taken.look_at_all();
        }
        if taken.unproven.len() >= self.unproven || taken.all.len() >= self.limit {
            while let Some(oldest) = taken.unproven.first().copied() {
                if taken.is_proven(oldest) {
                    taken.look(vec![oldest]);
                } else {
                    taken.drop_connection(oldest);
                    crowded = Some(Crowded::Unproven);
                    break;
                }
            }
        }
        let number = taken.next;
        taken.next += 1;
        let held = Arc::new(Held {
            connection: Connection::new(),
            tick: Arc::clone(&self.tick),
            requests: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            idle_since: AtomicU32::new(now),
            ending_since: AtomicU32::new(NEVER),
            end: Notify::new(),
            answers: Mutex::default(),
            answered: AtomicU32::new(0),
            is_unread: AtomicBool::new(false),
        });
        taken.unproven.insert(number);
        taken.by_origin.entry(origin).or_default().insert(number);
        taken.all.insert(
            number,
            Entry {
                held: Arc::clone(&held),
                origin,
                since: now,
                task: None,
            },
        );
        drop(taken);
        OPEN.fetch_add(1, Ordering::Relaxed);
        if let Some(crowded) = crowded {
            self.note(crowded);
        }
        ConnectionSlot {
            places: Arc::clone(self),
            number,
            held,
        }
    }

    /// Stores the task to abort when the connection is dropped.
    pub(crate) fn runs_as(&self, number: u64, task: AbortHandle) {
        if let Some(entry) = self.taken().all.get_mut(&number) {
            entry.task = Some(task);
        }
    }

    /// Checks all connections each tick, for as long as it is polled.
    pub(crate) async fn watch(&self) {
        loop {
            tokio::time::sleep(TICK).await;
            let now = self.tick.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            self.sweep(now);
        }
    }

    fn sweep(&self, now: u32) {
        let mut taken = self.taken();
        taken.look_at_all();
        let mut doomed = Vec::new();
        for (number, entry) in &taken.all {
            let held = &entry.held;
            let since = |tick: &AtomicU32| now.wrapping_sub(tick.load(Ordering::Relaxed));
            if held.ending_since.load(Ordering::Relaxed) != NEVER {
                // Its requests may finish; after that, a connection that the client keeps open is dropped.
                let is_over = held.requests.load(Ordering::Relaxed) == 0
                    && since(&held.ending_since) > ENDING;
                if is_over {
                    doomed.push(*number);
                }
            } else if held.requests.load(Ordering::Relaxed) == 0 {
                if since(&held.idle_since) > self.idle {
                    held.tell_to_end(now);
                }
            } else if held
                .answers()
                .iter()
                .any(|(_, since)| now.wrapping_sub(*since) > self.answer)
            {
                doomed.push(*number);
            }
        }
        for number in doomed {
            taken.drop_connection(number);
        }
        let crowded: Vec<Origin> = taken
            .by_origin
            .iter()
            .filter(|(_, numbers)| numbers.len() > self.of_origin)
            .map(|(origin, _)| *origin)
            .collect();
        let mut dropped = 0;
        for origin in crowded {
            while taken.unproven_of(origin) > self.of_origin
                && taken.make_way_for(origin, self.of_origin, now)
            {
                dropped += 1;
            }
        }
        drop(taken);
        for _ in 0..dropped {
            self.note(Crowded::Address);
        }
    }

    /// Tells every connection to end after its current requests.
    pub(crate) fn end_all(&self) {
        let now = self.tick.load(Ordering::Relaxed);
        for entry in self.taken().all.values() {
            entry.held.tell_to_end(now);
        }
    }

    /// Resolves when no connection has a request without an answer. It looks again and again, because only the end of the
    /// process asks: requests need not tell anybody about themselves.
    pub(crate) async fn all_answered(&self) {
        let is_answered = |entry: &Entry| entry.held.unanswered.load(Ordering::Relaxed) == 0;
        while !self.taken().all.values().all(is_answered) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Resolves when no connection is left.
    pub(crate) async fn emptied(&self) {
        loop {
            let freed = self.freed.notified();
            if self.taken().all.is_empty() {
                return;
            }
            freed.await;
        }
    }

    /// Counts the event, and logs a warning at most once a minute for each kind.
    fn note(&self, crowded: Crowded) {
        crowded.counter().fetch_add(1, Ordering::Relaxed);
        let [address, unproven, full] = &self.warned;
        let warned = match crowded {
            Crowded::Address => address,
            Crowded::Unproven => unproven,
            Crowded::Full => full,
        };
        let now = self.tick.load(Ordering::Relaxed);
        let before = warned.load(Ordering::Relaxed);
        if before != NEVER && now.wrapping_sub(before) < WARNING {
            return;
        }
        warned.store(now, Ordering::Relaxed);
        let limit = self.limit;
        match crowded {
            Crowded::Address => tracing::warn!(
                limit = self.of_origin,
                "an address has too many connections without an authenticated request; its oldest are closed"
            ),
            Crowded::Unproven => tracing::warn!(
                limit,
                "the listener is full; the oldest connections without an authenticated request are closed"
            ),
            Crowded::Full => tracing::warn!(limit, "the listener is full; new connections wait"),
        }
    }
}

/// Counts a connection as open until this is dropped.
pub(crate) struct ConnectionSlot {
    places: Arc<ConnectionLimiter>,
    number: u64,
    held: Arc<Held>,
}

impl ConnectionSlot {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn held(&self) -> &Arc<Held> {
        &self.held
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.places.taken().remove(self.number);
        self.places.freed.notify_waiters();
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::task::JoinHandle;

    use super::*;

    /// The ticks after which an idle connection is dropped by these limits, or a slow head: there is no request before
    /// its head is read.
    fn dropped_after(bounds: &Bounds) -> u32 {
        // One tick may be almost over, and the connection is told to end before it is dropped.
        ticks(bounds.head) + 1 + 1 + ENDING + 1
    }

    fn sweep_at(limiter: &ConnectionLimiter, tick: u32) {
        limiter.tick.store(tick, Ordering::Relaxed);
        limiter.sweep(tick);
    }

    /// An open connection, with its task.
    fn opened(limiter: &Arc<ConnectionLimiter>) -> (ConnectionSlot, JoinHandle<()>) {
        let place = limiter.take(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let task = tokio::spawn(std::future::pending());
        limiter.runs_as(place.number(), task.abort_handle());
        place.held().opened();
        (place, task)
    }

    #[tokio::test]
    async fn slow_head_ends_its_connection_soon_after_the_limit() {
        let bounds = Bounds::default();
        let limiter = ConnectionLimiter::new(&bounds);
        let (_place, task) = opened(&limiter);
        let end = dropped_after(&bounds);
        for tick in 1..end {
            sweep_at(&limiter, tick);
            assert_eq!(limiter.taken().all.len(), 1, "tick {tick}");
        }
        sweep_at(&limiter, end);
        assert!(task.await.is_err_and(|error| error.is_cancelled()));
        assert!(TICK * end > bounds.head);
        assert!(TICK * end < bounds.head + Duration::from_secs(4));
    }

    #[tokio::test]
    async fn time_of_the_next_head_begins_with_the_end_of_a_request() {
        let bounds = Bounds::default();
        let limiter = ConnectionLimiter::new(&bounds);
        let (place, task) = opened(&limiter);
        let end = dropped_after(&bounds);
        // The head arrives in time; the request itself has other limits.
        let request = place.held().begin_request();
        sweep_at(&limiter, end);
        drop(request);
        for tick in end + 1..2 * end {
            sweep_at(&limiter, tick);
        }
        assert!(!task.is_finished());
        sweep_at(&limiter, 2 * end);
        assert!(task.await.is_err_and(|error| error.is_cancelled()));
    }
}
