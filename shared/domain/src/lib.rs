//! The domain: types that parse in their constructors, the rules of keys and access, and the ports they need.
//! It has no HTTP, no wire format, no SDK, and no ambient clock, generator or environment.

pub mod access;
pub mod audit;
pub mod audit_context;
pub mod bucket_operations;
pub mod buckets;
mod cache;
pub mod control;
pub mod datakey;
pub mod doctor;
mod encoding;
mod error;
mod glob;
pub mod identity;
mod ids;
pub mod janitor;
pub mod keyring;
pub mod keys;
pub mod machine;
pub mod migration;
pub mod paths;
pub mod policy;
pub mod ports;
pub mod ranges;
pub mod records;
mod repository;
pub mod roots;
mod scan;
pub mod service;
pub mod transit;
pub mod vault;
pub mod wrappers;

pub use cache::CacheStats;
pub use error::{Fault, KmsError, one_line};
pub use ids::InvalidId;
pub use keyring::OpenError;
pub use keyway_crypto::kes::Algorithm;
pub use keyway_crypto::{ContextError, EncryptionContext, Key256, SecretBytes};
