//! The OpenAPI 3.1 document of all routes: the committed document, which binaries serve, and what makes it from the mounted
//! routes (feature `describe`, which only tests enable).

#[cfg(feature = "describe")]
mod describe;
mod served;

#[cfg(feature = "describe")]
pub use describe::{
    Answer, Description, Document, Operation, Parameter, RequestBody, Schema, own_description,
};
pub use served::{SendingLimit, inventory, mount};

/// The document that `make openapi` wrote, with its lines joined.
pub const DOCUMENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json"));

/// The document's path.
pub const PATH: &str = "/openapi.json";
