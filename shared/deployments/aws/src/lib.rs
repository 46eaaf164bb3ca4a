//! A deployment on AWS: the table in DynamoDB, the root keyring in Secrets Manager.
//!
//! Every function's `main` uses [`Function`]: it reads the environment, opens only the ports that the function may
//! have, and serves from Lambda's Runtime API or, where there is none, from a local HTTP listener.

mod function;
mod location;
mod object_store;

pub use function::{Function, ended};
pub use keyway_buckets_s3::S3Upload;
pub use location::{Location, account, account_secrets, counted};
pub use object_store::ObjectStore;
