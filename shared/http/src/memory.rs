//! The memory limit for request bodies that are being read and handled.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

/// A number of bytes to reserve from and return to.
#[derive(Debug)]
struct Budget {
    free: AtomicUsize,
}

impl Budget {
    const fn new(bytes: usize) -> Self {
        Self {
            free: AtomicUsize::new(bytes),
        }
    }

    fn take(&self, bytes: usize) -> bool {
        self.free
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
                free.checked_sub(bytes)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.free.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The memory for the bodies of one process. Bodies beyond it are refused, and the client may retry.
///
/// New bodies of unauthenticated callers evict the oldest ones: a body that is sent to fill the memory stays long, and an
/// honest one is read in a moment.
#[derive(Debug)]
pub struct BodyMemory {
    unproven: Mutex<Unproven>,
    all: Budget,
}

impl BodyMemory {
    /// Bytes for the bodies of callers who are authenticated only once their body is read.
    pub const UNPROVEN: usize = 64 << 20;
    /// Bytes for all bodies.
    pub const ALL: usize = 256 << 20;

    /// With these limits in bytes.
    pub const fn new(unproven: usize, all: usize) -> Self {
        Self {
            unproven: Mutex::new(Unproven {
                free: unproven,
                next: 0,
                bodies: BTreeMap::new(),
            }),
            all: Budget::new(all),
        }
    }

    fn unproven(&self) -> MutexGuard<'_, Unproven> {
        // Nothing that can panic runs under the lock.
        self.unproven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for BodyMemory {
    fn default() -> Self {
        Self::new(Self::UNPROVEN, Self::ALL)
    }
}

/// The bodies of unauthenticated callers.
#[derive(Debug)]
struct Unproven {
    free: usize,
    next: u64,
    /// Each body with its reserved bytes, by number. A later body has a higher number.
    bodies: BTreeMap<u64, (usize, Arc<Evictable>)>,
}

impl Unproven {
    /// Reserves `more` bytes for a body. If too few are free, evicts the oldest other bodies.
    fn take(&mut self, number: u64, more: usize) -> bool {
        while self.free < more {
            let oldest = self.bodies.keys().find(|other| **other != number).copied();
            let Some((bytes, body)) = oldest.and_then(|oldest| self.bodies.remove(&oldest)) else {
                return false;
            };
            self.free += bytes;
            body.evict();
        }
        let Some((bytes, _)) = self.bodies.get_mut(&number) else {
            return false;
        };
        *bytes += more;
        self.free -= more;
        true
    }

    fn give_back(&mut self, number: u64) {
        if let Some((bytes, _)) = self.bodies.remove(&number) {
            self.free += bytes;
        }
    }
}

/// The received part of a body that may be evicted.
#[derive(Default)]
struct Evictable {
    /// `None` after eviction.
    read: Mutex<Option<Pieces>>,
    reader: AtomicWaker,
}

/// Bytes in pieces of one length, so that the allocator can reuse the memory of one body for another. Memory that is freed
/// and requested in different sizes stays with the process.
#[derive(Default)]
struct Pieces(Vec<Vec<u8>>);

impl Pieces {
    fn push(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let room = self.0.last().map_or(0, |last| last.capacity() - last.len());
            if room == 0 {
                // A short body gets one short piece.
                let length = if self.0.is_empty() { data.len() } else { PIECE };
                self.0.push(Vec::with_capacity(length.min(PIECE)));
                continue;
            }
            let (fits, rest) = data.split_at(room.min(data.len()));
            if let Some(last) = self.0.last_mut() {
                last.extend_from_slice(fits);
            }
            data = rest;
        }
    }

    fn whole(self) -> Bytes {
        let mut pieces = self.0;
        if pieces.len() <= 1 {
            return pieces.pop().unwrap_or_default().into();
        }
        pieces.concat().into()
    }
}

/// Bytes that a pending body takes besides its data: the request's head, the pending future, and the connection's
/// buffers.
pub(crate) const OVERHEAD: usize = 32 << 10;
/// The length of a piece, in bytes.
pub(crate) const PIECE: usize = 16 << 10;

impl Evictable {
    fn read(&self) -> MutexGuard<'_, Option<Pieces>> {
        // Nothing that can panic runs under the lock.
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees the memory before this returns. Under a flood of requests it can take a while until the reader learns of the
    /// eviction.
    fn evict(&self) {
        drop(self.read().take());
        self.reader.wake();
    }
}

impl fmt::Debug for Evictable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Evictable").finish_non_exhaustive()
    }
}

/// State that the requests of one connection share. A runtime without connections uses [`Connection::NONE`].
#[derive(Clone)]
pub struct Connection(Option<Arc<Shared>>);

struct Shared {
    is_proven: AtomicBool,
    unproven: Budget,
    sender: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Connection {
    /// No connection.
    pub const NONE: Self = Self(None);
    /// Bytes for the bodies of unauthenticated callers on a connection without an authenticated caller so far.
    pub const UNPROVEN: usize = 4 << 20;

    /// A new connection.
    pub fn new() -> Self {
        Self(Some(Arc::new(Shared {
            is_proven: AtomicBool::new(false),
            unproven: Budget::new(Self::UNPROVEN),
            sender: OnceLock::new(),
        })))
    }

    /// What a dialect knows of the connection's other end, which is the same for all requests of the connection. The first
    /// call makes it. `None` without a connection, and for another type than that of the first call.
    pub fn sender<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Option<&T> {
        let shared = self.0.as_ref()?;
        let sender = shared.sender.get_or_init(|| Box::new(make()));
        sender.downcast_ref()
    }

    /// Whether a caller whom the deployment knows has authenticated on it.
    pub fn is_proven(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|shared| shared.is_proven.load(Ordering::Relaxed))
    }

    pub(crate) fn prove(&self) {
        if let Some(shared) = &self.0
            && !shared.is_proven.load(Ordering::Relaxed)
        {
            shared.is_proven.store(true, Ordering::Relaxed);
        }
    }
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Connection")
    }
}

/// Compares identity: the same connection, not an equal one.
impl PartialEq for Connection {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for Connection {}

/// The received part of a body and the memory that it reserves. Dropping it returns the memory.
pub(crate) struct Room<'m> {
    memory: &'m BodyMemory,
    /// The reserved bytes.
    bytes: usize,
    /// The data, if the caller is authenticated.
    read: Vec<u8>,
    unproven: Option<Doubtful>,
}

/// Further state for the body of an unauthenticated caller.
struct Doubtful {
    /// The connection, if its limit applies.
    connection: Option<Arc<Shared>>,
    number: u64,
    /// The data, which is here and not in [`Room::read`].
    body: Arc<Evictable>,
}

impl<'m> Room<'m> {
    pub(crate) fn of_proven(memory: &'m BodyMemory) -> Self {
        Self {
            memory,
            bytes: 0,
            read: Vec::new(),
            unproven: None,
        }
    }

    pub(crate) fn of_unproven(memory: &'m BodyMemory, connection: &Connection) -> Self {
        let is_limited = !connection.is_proven();
        let body = Arc::new(Evictable {
            read: Mutex::new(Some(Pieces::default())),
            reader: AtomicWaker::new(),
        });
        let mut unproven = memory.unproven();
        let number = unproven.next;
        unproven.next += 1;
        unproven.bodies.insert(number, (0, Arc::clone(&body)));
        drop(unproven);
        Self {
            memory,
            bytes: 0,
            read: Vec::new(),
            unproven: Some(Doubtful {
                connection: connection.0.clone().filter(|_| is_limited),
                number,
                body,
            }),
        }
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.unproven.is_none()
    }

    /// Reserves `more` bytes, or none if they are not free.
    #[must_use]
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        if !self.memory.all.take(more) {
            return false;
        }
        if !self.grow_unproven(more) {
            self.memory.all.give_back(more);
            return false;
        }
        self.bytes += more;
        if self.is_proven() {
            self.read.reserve_exact(self.bytes - self.read.len());
        }
        true
    }

    fn grow_unproven(&self, more: usize) -> bool {
        let Some(doubtful) = &self.unproven else {
            return true;
        };
        let connection = doubtful.connection.as_ref();
        if connection.is_some_and(|shared| !shared.unproven.take(more)) {
            return false;
        }
        let is_taken = self.memory.unproven().take(doubtful.number, more);
        if !is_taken && let Some(shared) = connection {
            shared.unproven.give_back(more);
        }
        is_taken
    }

    /// Adds data, for which memory must be reserved. Returns `false` if the body was evicted.
    #[must_use]
    pub(crate) fn push(&mut self, data: &[u8]) -> bool {
        match &self.unproven {
            None => self.read.extend_from_slice(data),
            Some(doubtful) => match doubtful.body.read().as_mut() {
                Some(read) => read.push(data),
                None => return false,
            },
        }
        true
    }

    /// The whole body, or `None` if it was evicted. Its memory stays reserved.
    pub(crate) fn whole(&mut self) -> Option<Bytes> {
        match &self.unproven {
            None => Some(std::mem::take(&mut self.read).into()),
            Some(doubtful) => doubtful.body.read().take().map(Pieces::whole),
        }
    }

    /// Ready once the body is evicted.
    pub(crate) fn poll_evicted(&self, context: &mut Context<'_>) -> Poll<()> {
        let Some(doubtful) = &self.unproven else {
            return Poll::Pending;
        };
        doubtful.body.reader.register(context.waker());
        if doubtful.body.read().is_none() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Stops counting the body as one of an unauthenticated caller, because its caller is authenticated.
    pub(crate) fn prove(&mut self) {
        let Some(doubtful) = self.unproven.take() else {
            return;
        };
        self.memory.unproven().give_back(doubtful.number);
        if let Some(shared) = doubtful.connection {
            shared.unproven.give_back(self.bytes);
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.prove();
        self.memory.all.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sender_of_a_connection_is_made_once() {
        let connection = Connection::new();
        let of_request = connection.clone();
        assert_eq!(of_request.sender(|| 1), Some(&1));
        assert_eq!(connection.sender(|| 2), Some(&1));
        assert_eq!(connection.sender(|| "other"), None);
        assert_eq!(Connection::new().sender(|| 3), Some(&3));
        assert_eq!(Connection::NONE.sender(|| 4), None);
    }
}
