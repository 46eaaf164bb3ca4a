//! The parts of all shapes: JSON as Go's decoder accepts it and as Go's encoder writes it.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};
use keyway_domain::{Fault, KmsError, SecretBytes};
use keyway_http::without_bom;
use keyway_http::{HandlerResult, Trailers};
use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use crate::error_response::invalid_body;
use crate::{ErrorResponse, Kes};

/// The body is not valid. The answer says neither where nor why: KES's does not, and values may be secret.
pub(crate) struct BadBody;

impl From<BadBody> for ErrorResponse {
    fn from(_: BadBody) -> Self {
        invalid_body()
    }
}

/// Decodes the first JSON value of a body as Go does: what follows it is ignored.
pub(crate) fn json<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, BadBody> {
    T::deserialize(&mut serde_json::Deserializer::from_slice(without_bom(body)))
        .map_err(|_| BadBody)
}

/// A struct that decodes as in Go: field names match in any case, unknown fields are ignored, the last of repeated fields
/// is taken, and without a value or with `null` all fields are zero.
pub(crate) trait Fields: Default {
    /// The names of the fields, in lower case.
    const NAMES: &'static [&'static str];

    /// Takes the value of the field with this name, in lower case. Returns `false` if there is no such field.
    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error>;
}

/// The name in [`Fields::NAMES`] that equals the name of a member, if one does.
struct Name<T>(Option<&'static str>, PhantomData<T>);

impl<'de, T: Fields> Deserialize<'de> for Name<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor<T>(PhantomData<T>);

        impl<T: Fields> Visitor<'_> for NameVisitor<T> {
            type Value = Option<&'static str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<&'static str>, E> {
                let mut names = T::NAMES.iter().copied();
                Ok(names.find(|name| name.eq_ignore_ascii_case(text)))
            }
        }

        let name = deserializer.deserialize_identifier(NameVisitor::<T>(PhantomData))?;
        Ok(Self(name, PhantomData))
    }
}

/// A body of [`Fields`].
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Fields> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Fields> Visitor<'de> for ObjectVisitor<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_none<E: de::Error>(self) -> Result<T, E> {
                Ok(T::default())
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
                deserializer.deserialize_struct("object", T::NAMES, self)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
                let mut object = T::default();
                while let Some(Name(name, _)) = map.next_key::<Name<T>>()? {
                    let is_taken = match name {
                        Some(name) => object.take(name, &mut map)?,
                        None => false,
                    };
                    if !is_taken {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(object)
            }
        }

        deserializer
            .deserialize_option(ObjectVisitor(PhantomData))
            .map(Object)
    }
}

/// Bytes as standard base64 with padding and without spaces, or as an array of numbers as in Go; `null` for none.
#[derive(Default)]
pub(crate) struct Base64(Zeroizing<Vec<u8>>);

impl Base64 {
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_secret(mut self) -> SecretBytes {
        std::mem::take(&mut *self.0).into()
    }

    pub(crate) fn into_vec(mut self) -> Vec<u8> {
        std::mem::take(&mut *self.0)
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64Visitor;

        impl<'de> Visitor<'de> for Base64Visitor {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Vec<u8>, E> {
                Ok(Vec::new())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
                STANDARD
                    .decode(text)
                    .map_err(|_| E::custom("no standard base64"))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }

        deserializer
            .deserialize_any(Base64Visitor)
            .map(|bytes| Self(Zeroizing::new(bytes)))
    }
}

/// Decodes a value; `null` is its zero value.
pub(crate) fn or_zero<'de, A: MapAccess<'de>, T: Deserialize<'de> + Default>(
    map: &mut A,
) -> Result<T, A::Error> {
    Ok(map.next_value::<Option<T>>()?.unwrap_or_default())
}

/// 200 without a body.
pub(crate) fn empty() -> Response<Bytes> {
    Response::new(Bytes::new())
}

/// Enough for most answers: a buffer that grows leaves copies of data keys behind.
const ANSWER_BYTES: usize = 1024;

/// 200 with one line of JSON.
pub(crate) fn ok(body: &impl Serialize) -> HandlerResult<Kes> {
    let mut json = Vec::with_capacity(ANSWER_BYTES);
    line(&mut json, body)?;
    Ok(with_type(json, "application/json"))
}

/// An object whose members are base64, as their bytes. JSON escapes none of their characters, so that they are written
/// without a search for some.
pub(crate) trait InBase64 {
    /// The members, in their order.
    fn members(&self) -> impl IntoIterator<Item = (&'static str, &[u8])>;
}

/// 200 with one line of JSON.
pub(crate) fn ok_in_base64(object: &impl InBase64) -> Response<Bytes> {
    let mut json = Vec::with_capacity(object_bytes(object) + 1);
    push_object(&mut json, object);
    json.push(b'\n');
    with_type(json, "application/json")
}

/// 200 with one line of JSON, an array.
pub(crate) fn ok_all_in_base64(objects: &[impl InBase64]) -> Response<Bytes> {
    let length: usize = objects.iter().map(|object| object_bytes(object) + 1).sum();
    let mut json = Vec::with_capacity(length + 3);
    json.push(b'[');
    for (number, object) in objects.iter().enumerate() {
        if number > 0 {
            json.push(b',');
        }
        push_object(&mut json, object);
    }
    json.extend_from_slice(b"]\n");
    with_type(json, "application/json")
}

/// The length of an object in bytes. A buffer that grows leaves copies of data keys behind.
fn object_bytes(object: &impl InBase64) -> usize {
    let members = object.members().into_iter();
    let lengths = members.map(|(name, bytes)| name.len() + bytes.len().div_ceil(3) * 4 + 6);
    1 + lengths.sum::<usize>()
}

fn push_object(json: &mut Vec<u8>, object: &impl InBase64) {
    let mut before = b'{';
    for (name, bytes) in object.members() {
        json.push(before);
        json.push(b'"');
        json.extend_from_slice(name.as_bytes());
        json.extend_from_slice(b"\":\"");
        let start = json.len();
        json.resize(start + bytes.len().div_ceil(3) * 4, 0);
        let written = json
            .get_mut(start..)
            .map_or(0, |rest| STANDARD.encode_slice(bytes, rest).unwrap_or(0));
        json.truncate(start + written);
        json.push(b'"');
        before = b',';
    }
    json.push(b'}');
}

/// 200 with a line of JSON for each item. The trailers have the outcome: without them, the SDKs of v0.13 to v0.17 assume
/// that the answer broke off.
pub(crate) fn lines<T: Serialize>(items: impl IntoIterator<Item = T>) -> HandlerResult<Kes> {
    let mut json = Vec::with_capacity(ANSWER_BYTES);
    for item in items {
        line(&mut json, &item)?;
    }
    let mut answer = with_type(json, "application/x-ndjson");
    let mut fields = HeaderMap::new();
    fields.insert("status", HeaderValue::from_static("200"));
    fields.insert("error", HeaderValue::from_static(""));
    answer.extensions_mut().insert(Trailers(fields));
    Ok(answer)
}

fn line(json: &mut Vec<u8>, body: &impl Serialize) -> Result<(), ErrorResponse> {
    serde_json::to_writer(&mut *json, body)
        .map_err(|error| KmsError::from(Fault::new("encoding an answer", error)))?;
    json.push(b'\n');
    Ok(())
}

fn with_type(body: Vec<u8>, content_type: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two(Vec<u8>, Vec<u8>);

    impl InBase64 for Two {
        fn members(&self) -> impl IntoIterator<Item = (&'static str, &[u8])> {
            [("one", self.0.as_slice()), ("other", self.1.as_slice())]
        }
    }

    #[test]
    fn object_in_base64_is_json_in_a_buffer_of_its_length() {
        for length in 0..70 {
            let two = Two(vec![0xff; length], vec![7; 70 - length]);
            let mut json = Vec::with_capacity(object_bytes(&two));
            let capacity = json.capacity();
            push_object(&mut json, &two);
            assert_eq!(
                (json.len(), json.capacity()),
                (object_bytes(&two), capacity)
            );
            let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
            let expected = serde_json::json!({"one": STANDARD.encode(&two.0), "other": STANDARD.encode(&two.1)});
            assert_eq!(value, expected);
        }
    }

    #[test]
    fn array_of_objects_in_base64_is_one_line() {
        let two = |byte| Two(vec![byte], Vec::new());
        let body = |all: &[Two]| ok_all_in_base64(all).into_body();
        assert_eq!(body(&[]), "[]\n");
        assert_eq!(body(&[two(1)]), "[{\"one\":\"AQ==\",\"other\":\"\"}]\n");
        assert_eq!(
            body(&[two(1), two(2)]),
            "[{\"one\":\"AQ==\",\"other\":\"\"},{\"one\":\"Ag==\",\"other\":\"\"}]\n"
        );
    }
}
