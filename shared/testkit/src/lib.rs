//! Support for tests of the ports: each port's contract as public functions that every implementation runs, ports in
//! memory, a clock that tests set and a generator with a seed.
//!
//! For tests only: nothing here is durable, and nothing random here is secret.

pub mod bucket_contract;
mod clock;
mod machine;
mod memory;
mod memory_vault;
mod random;
pub mod secret_store_contract;
mod signed;
pub mod table_contract;
pub mod vault_contract;

pub use clock::FixedClock;
pub use machine::FixedMachine;
pub use memory::{MemorySecrets, MemoryTable};
pub use memory_vault::{MemoryVault, MemoryVaults, Opened};
pub use random::SeededRandom;
pub use signed::signed_table;
