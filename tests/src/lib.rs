//! What the suites share: requests signed as AWS's own SDK signs them, a site over memory, a server that is a real process.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must stop"
)]

mod answer;
mod memory;
mod server;
mod signer;

pub use answer::Answer;
pub use memory::MemorySite;
pub use server::{Server, ServerOptions, binary};
pub use signer::Signer;
