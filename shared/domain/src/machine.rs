//! What a status tells of the machine beneath.

use std::time::Duration;

/// The commit that this was built from, where the build says it in `KEYWAY_COMMIT`.
pub const COMMIT: &str = match option_env!("KEYWAY_COMMIT") {
    Some(commit) => commit,
    None => "",
};

/// The machine that this process runs on. What it cannot tell is not told.
pub trait Machine: Send + Sync {
    /// What it is, and how it does at this moment.
    fn facts(&self) -> MachineFacts;
}

/// What a machine tells of itself and of this process. Whoever asks is used to the names that Go gives machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineFacts {
    /// The operating system, as Go names it: `linux`, `darwin`.
    pub os: &'static str,
    /// The processor, as Go names it: `amd64`, `arm64`.
    pub architecture: &'static str,
    /// For how long this process has run.
    pub up: Duration,
    /// How many processors there are.
    pub cpus: Option<u64>,
    /// How many of them this process may use.
    pub usable_cpus: Option<u64>,
    /// The memory that is this process's own, in bytes.
    pub heap_bytes: Option<u64>,
    /// How much of it is the main thread's stack.
    pub stack_bytes: Option<u64>,
    /// How many areas the memory has that is this process's own.
    pub heap_areas: Option<u64>,
    /// How many threads this process has.
    pub threads: Option<u64>,
}
