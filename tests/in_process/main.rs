//! Every route over memory: golden answers, refusals, bad input, and the house's own rules.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "these are tests")]

mod bad_input;
mod golden;
mod house;
mod refusals;
