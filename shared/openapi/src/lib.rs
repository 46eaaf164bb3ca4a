//! The description of the routes in OpenAPI 3.1: the committed document, which binaries serve, and (with the feature
//! `describe`, which only tests turn on) what makes it from the routes that are mounted.

#[cfg(feature = "describe")]
mod describe;
mod served;

#[cfg(feature = "describe")]
pub use describe::{
    Answer, Description, Document, Operation, Parameter, RequestBody, Schema, own_description,
};
pub use served::{inventory, mount};

/// The document that `make openapi` wrote, its lines joined.
pub const DOCUMENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json"));

/// Where it is served.
pub const PATH: &str = "/openapi.json";
