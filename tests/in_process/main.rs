//! Every route over memory: golden answers, refusals, bad input, and the rules of the architecture.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must stop"
)]

mod architecture;
mod audit;
mod aws;
mod aws_aliases;
mod aws_callers;
mod aws_envelope;
mod aws_keys;
mod aws_macs;
mod aws_refusals;
mod aws_rotation;
mod aws_sdk;
mod bad_input;
mod bodies;
mod buckets;
mod checklists;
mod console;
mod cors;
mod doctor;
mod expired_keys;
mod function_lengths;
mod golden;
mod health;
mod kes;
mod kes_generations;
mod kes_timeouts;
mod links;
mod minio;
mod openapi;
mod rc;
mod refusals;
mod routes;
mod service;
mod sts;
