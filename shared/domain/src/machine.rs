//! The facts about the machine in the service's status.

use std::time::Duration;

/// The machine that this process runs on. Unknown facts are absent.
pub trait Machine: Send + Sync {
    /// What the machine is, and its present state.
    fn facts(&self) -> MachineFacts;

    /// The commit that this program was built from; empty if the build did not say.
    fn commit(&self) -> &'static str;
}

/// Facts about a machine and this process. The names are Go's, as clients expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineFacts {
    /// The operating system, as Go names it: `linux`, `darwin`.
    pub os: &'static str,
    /// The processor, as Go names it: `amd64`, `arm64`.
    pub architecture: &'static str,
    /// How long this process has run.
    pub up: Duration,
    /// The number of processors.
    pub cpus: Option<u64>,
    /// The number of processors that this process may use.
    pub usable_cpus: Option<u64>,
    /// This process's own memory, in bytes.
    pub heap_bytes: Option<u64>,
    /// The main thread's stack, in bytes, which is a part of it.
    pub stack_bytes: Option<u64>,
    /// The number of areas of this process's own memory.
    pub heap_areas: Option<u64>,
    /// The number of this process's threads.
    pub threads: Option<u64>,
}
