//! Kubernetes' KMS v2 service: its API server has the keys of a cluster's secrets encrypted and decrypted by a process on
//! the same machine, over gRPC on a Unix socket. This one asks a server of Keyway.
//!
//! The service is `v2.KeyManagementService` of Kubernetes' `k8s.io/kms/apis/v2/api.proto`. The API server asks for
//! `Status` about once a minute. When the key id of the answer has changed, it has a new key encrypted.
//!
//! **Invariant:** the plugin keeps no plaintext, no ciphertext and no state of a key. Several plugins on several machines
//! answer alike.

mod key_id;
mod messages;
mod plugin;
mod service;
mod socket;

pub use plugin::Plugin;
pub use service::serve;
pub use socket::{Socket, SocketError};
