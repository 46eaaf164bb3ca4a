//! The messages of the service. Their field numbers are those of Kubernetes' `api.proto`.

use prost::Message;
use zeroize::ZeroizeOnDrop;

#[derive(Message)]
pub(crate) struct StatusRequest {}

#[derive(Message)]
pub(crate) struct StatusResponse {
    /// The version of the API: `v2`.
    #[prost(string, tag = "1")]
    pub(crate) version: String,
    /// `ok`, or why the plugin cannot encrypt and decrypt.
    #[prost(string, tag = "2")]
    pub(crate) healthz: String,
    #[prost(string, tag = "3")]
    pub(crate) key_id: String,
}

#[derive(Message, ZeroizeOnDrop)]
#[prost(skip_debug)]
pub(crate) struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) plaintext: Vec<u8>,
    /// It names the request in the API server's log.
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
}

/// The field `annotations` is left out: the plugin makes none.
#[derive(Message)]
pub(crate) struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(crate) key_id: String,
}

/// The field `annotations` is left out: it is not authenticated, and the plugin makes none.
#[derive(Message)]
pub(crate) struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
    #[prost(string, tag = "3")]
    pub(crate) key_id: String,
}

#[derive(Message, ZeroizeOnDrop)]
#[prost(skip_debug)]
pub(crate) struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) plaintext: Vec<u8>,
}
