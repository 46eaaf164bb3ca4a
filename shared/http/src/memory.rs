//! The memory that bodies may take while they are read and handled.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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
#[derive(Debug)]
pub struct BodyMemory {
    unproven: Budget,
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
            unproven: Budget::new(unproven),
            all: Budget::new(all),
        }
    }
}

impl Default for BodyMemory {
    fn default() -> Self {
        Self::new(Self::UNPROVEN, Self::ALL)
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

/// The memory that one body takes; given back when this is dropped.
pub(crate) struct Room<'m> {
    memory: &'m BodyMemory,
    /// While the caller is not proven; with the connection, if its limit applies.
    unproven: Option<Option<Arc<Shared>>>,
    bytes: usize,
}

impl<'m> Room<'m> {
    pub(crate) fn of_proven(memory: &'m BodyMemory) -> Self {
        Self {
            memory,
            unproven: None,
            bytes: 0,
        }
    }

    pub(crate) fn of_unproven(memory: &'m BodyMemory, connection: &Connection) -> Self {
        let limited = !connection.is_proven();
        Self {
            memory,
            unproven: Some(connection.0.clone().filter(|_| limited)),
            bytes: 0,
        }
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.unproven.is_none()
    }

    /// Takes so many bytes more, or none.
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        if !self.memory.all.take(more) {
            return false;
        }
        if let Some(connection) = &self.unproven {
            if !self.memory.unproven.take(more) {
                self.memory.all.give_back(more);
                return false;
            }
            if connection
                .as_ref()
                .is_some_and(|shared| !shared.unproven.take(more))
            {
                self.memory.unproven.give_back(more);
                self.memory.all.give_back(more);
                return false;
            }
        }
        self.bytes += more;
        true
    }

    /// The caller is proven: the body no longer counts as that of one who is not.
    pub(crate) fn prove(&mut self) {
        if let Some(connection) = self.unproven.take() {
            self.memory.unproven.give_back(self.bytes);
            if let Some(shared) = connection {
                shared.unproven.give_back(self.bytes);
            }
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.prove();
        self.memory.all.give_back(self.bytes);
    }
}
