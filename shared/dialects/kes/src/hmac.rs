//! HMACs: decode, operate, encode.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use keyway_domain::EncryptionContext;
use keyway_domain::datakey::DataKeyRequest;
use keyway_http::{Call, HandlerResult};
use serde::de::MapAccess;

use crate::endpoint::OnDataKeys;
use crate::wire::{self, Base64, Fields, InBase64, Object};
use crate::{ErrorResponse, Kes, names};

pub(crate) async fn hmac(on: Arc<OnDataKeys>, call: Call<Kes>) -> HandlerResult<Kes> {
    let key = names::key(call.params.get("name"))?;
    let message = decode(&call.request.body)?;
    let none = EncryptionContext::none();
    let request = DataKeyRequest::new(key, &none);
    let mac = on
        .data_keys
        .hmac(call.caller.caller()?, &request, &message)
        .await?;
    Ok(encode(&mac))
}

#[derive(Default)]
pub(crate) struct Body {
    message: Base64,
}

impl Fields for Body {
    const NAMES: &[&str] = &["message"];

    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        if name != "message" {
            return Ok(false);
        }
        self.message = map.next_value()?;
        Ok(true)
    }
}

/// Decodes the message, which every client sends as base64. Without one it is empty.
fn decode(body: &[u8]) -> Result<Vec<u8>, ErrorResponse> {
    let Object(body) = wire::json::<Object<Body>>(body)?;
    Ok(body.message.into_vec())
}

#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct Mac<'a> {
    #[cfg_attr(feature = "openapi", schemars(with = "String"))]
    hmac: &'a [u8],
}

impl InBase64 for Mac<'_> {
    fn members(&self) -> impl IntoIterator<Item = (&'static str, &[u8])> {
        [("hmac", self.hmac)]
    }
}

fn encode(hmac: &[u8]) -> Response<Bytes> {
    wire::ok_in_base64(&Mac { hmac })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_base64() {
        assert_eq!(decode(br#"{"message":"SGVsbG8="}"#).unwrap(), b"Hello");
        assert_eq!(decode(b"{}").unwrap(), b"");
        assert_eq!(decode(b"null").unwrap(), b"");
        for bad in [
            &br#"{"message":"Data to use to generate the HMAC secret"}"#[..],
            br#"{"message":"SGVsbG8"}"#,
            b"",
            b"[]",
        ] {
            assert!(decode(bad).is_err());
        }
        assert_eq!(encode(&[1, 2]).body(), "{\"hmac\":\"AQI=\"}\n");
    }
}
