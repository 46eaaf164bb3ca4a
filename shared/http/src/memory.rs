//! The memory that bodies may take while they are read and handled.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

/// A number of bytes that is shared out and given back.
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

/// How much memory the bodies of one process may take at once. What is beyond is refused, to be tried again.
///
/// Bodies of callers who are not proven make way for newer ones: a body that is sent to fill the memory is there for long, and
/// an honest one for a moment.
#[derive(Debug)]
pub struct BodyMemory {
    unproven: Mutex<Unproven>,
    all: Budget,
}

impl BodyMemory {
    /// Bytes for the bodies of callers whose identity is not proven until their body is there.
    pub const UNPROVEN: usize = 64 << 20;
    /// Bytes for all bodies.
    pub const ALL: usize = 256 << 20;

    /// With these numbers of bytes.
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

/// The bodies of callers who are not proven.
#[derive(Debug)]
struct Unproven {
    free: usize,
    next: u64,
    /// By number: a later one has a higher number. With the bytes that each takes.
    bodies: BTreeMap<u64, (usize, Arc<Evictable>)>,
}

impl Unproven {
    /// Takes so many bytes more for a body, from the oldest others where none are free.
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

/// What has come of a body that may have to make way for others.
#[derive(Default)]
struct Evictable {
    /// `None` when it had to.
    read: Mutex<Option<Pieces>>,
    reader: AtomicWaker,
}

/// Bytes in pieces of one length, so that what one body gives back is what another needs: memory that is given back in
/// other sizes than it is asked for in stays with the process.
#[derive(Default)]
struct Pieces(Vec<Vec<u8>>);

impl Pieces {
    fn push(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let room = self.0.last().map_or(0, |last| last.capacity() - last.len());
            if room == 0 {
                // One that is short when the body is.
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

/// What a body that is waited for takes besides its bytes: the request's head, what is to become of it, and what the
/// connection has for it.
pub(crate) const OVERHEAD: usize = 32 << 10;
/// The length of a piece, in bytes.
pub(crate) const PIECE: usize = 16 << 10;

impl Evictable {
    fn read(&self) -> MutexGuard<'_, Option<Pieces>> {
        // Nothing that can panic runs under the lock.
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory is free when this returns, and not only when whoever reads has been told: that may take a while on a
    /// machine that is busy with a flood.
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

/// What the requests of one connection share. A runtime that knows no connections has [`Connection::NONE`].
#[derive(Clone)]
pub struct Connection(Option<Arc<Shared>>);

struct Shared {
    is_proven: AtomicBool,
    unproven: Budget,
}

impl Connection {
    /// No connection.
    pub const NONE: Self = Self(None);
    /// Bytes for the bodies of unproven callers on a connection on which nobody is proven yet.
    pub const UNPROVEN: usize = 4 << 20;

    /// A connection that has just come.
    pub fn new() -> Self {
        Self(Some(Arc::new(Shared {
            is_proven: AtomicBool::new(false),
            unproven: Budget::new(Self::UNPROVEN),
        })))
    }

    /// Whether a caller whom the deployment knows has proven an identity on it.
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

/// The same connection, not an equal one.
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

/// A body as far as it has come, and the memory that it takes; which is given back when this is dropped.
pub(crate) struct Room<'m> {
    memory: &'m BodyMemory,
    /// How much is taken.
    bytes: usize,
    /// Of a caller who is proven.
    read: Vec<u8>,
    unproven: Option<Doubtful>,
}

/// What a body of a caller who is not proven has besides.
struct Doubtful {
    /// The connection, if its limit applies.
    connection: Option<Arc<Shared>>,
    number: u64,
    /// Where its bytes are, and not in the room itself.
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

    /// Takes so many bytes more, or none.
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

    /// Adds bytes, for which there must be room, unless the body had to make way.
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

    /// The whole, unless it had to make way. The room stays taken.
    pub(crate) fn whole(&mut self) -> Option<Bytes> {
        match &self.unproven {
            None => Some(std::mem::take(&mut self.read).into()),
            Some(doubtful) => doubtful.body.read().take().map(Pieces::whole),
        }
    }

    /// Ready when the body had to make way for another.
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

    /// The caller is proven: the body no longer counts as that of one who is not.
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
