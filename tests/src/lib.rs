//! Code of all suites: requests signed by AWS's own SDK, a site over memory, a server that is a real process.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must stop"
)]

mod answer;
mod aws;
mod bao;
mod event;
mod function;
mod kes;
mod link;
mod memory;
mod openapi;
mod postgres;
mod proxy;
mod routes;
mod runtime_api;
mod server;
mod signer;
mod staleness;
mod suite;
mod tools;

pub use answer::Answer;
pub use aws::{Aws, Deployment, skipped, variable};
pub use bao::Bao;
pub use event::http_api_event;
pub use function::{FUNCTION_HOST, Function, Gateway};
pub use kes::{KesClient, KesIdentity, kes_error};
pub use link::{Link, LinkState};
pub use memory::{KES_ADMIN, MemorySite};
pub use openapi::Described;
pub use postgres::Postgres;
pub use proxy::{Fate, Proxy};
pub use routes::{function_of, function_of_group};
pub use runtime_api::{Invocation, RuntimeApi};
pub use server::{Server, ServerOptions, binary};
pub use signer::Signer;
pub use staleness::{obeys, serves};
pub use suite::{Target, every_route, life_of_an_aws_key};
pub use tools::{aws_tool, parameter_default, project};
