//! Stores and functions over services that speak AWS's protocols, as `scripts/with-aws` starts them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must stop"
)]

mod secrets;
mod table;
