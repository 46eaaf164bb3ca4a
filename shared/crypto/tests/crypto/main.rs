//! The crate as its callers see it: against vectors, against a second implementation, and against
//! whoever changes a byte.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests stop at what must not happen, as the tests do"
)]

mod context;
mod kes;
mod oracle;
mod primitives;
mod reference;
mod secrets;
mod tamper;
mod vectors;
