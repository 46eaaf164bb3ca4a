//! The checksums that S3's clients send along. They find what went wrong on the way, not who did it: that is what
//! signatures are for. Those that are not known here are left to the signature, which covers the body as well.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_http::Request;

use crate::Refusal;

/// Whether the body is the one that its sender has summed up.
pub(crate) fn verify(request: &Request) -> Result<(), Refusal> {
    let declared = |name: &str| request.headers.get(name).map(|value| value.as_bytes());
    if let Some(text) = declared("content-md5") {
        match STANDARD.decode(text) {
            Ok(sum) if sum.len() == 16 => {
                if sum != md5::compute(&request.body).0 {
                    return Err(Refusal::bad_digest("Content-MD5"));
                }
            }
            _ => return Err(Refusal::invalid_digest()),
        }
    }
    if let Some(text) = declared("x-amz-checksum-crc32") {
        let sum = crc32fast::hash(&request.body).to_be_bytes();
        if STANDARD.decode(text).ok().as_deref() != Some(&sum) {
            return Err(Refusal::bad_digest("x-amz-checksum-crc32"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, Method};
    use keyway_http::Peer;

    use super::*;

    #[test]
    fn sums_are_compared_where_they_are_known() {
        // Of "hello", by other tools.
        for (header, value, fits) in [
            ("content-md5", "XUFAKrxLKna5cZ2REBfFkg==", true),
            ("content-md5", "XUFAKrxLKna5cZ2REBfFkw==", false),
            ("content-md5", "XUFAKrxLKna5cZ2REBfF", false),
            ("x-amz-checksum-crc32", "NhCmhg==", true),
            ("x-amz-checksum-crc32", "NhCmhw==", false),
            ("x-amz-checksum-crc32", "%", false),
            ("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(header), value.parse().unwrap());
            let request = Request {
                method: Method::PUT,
                raw_path: "/photos".to_owned(),
                raw_query: "encryption".to_owned(),
                headers,
                body: "hello".into(),
                peer: Peer::new([127, 0, 0, 1].into(), false),
            };
            assert_eq!(verify(&request).is_ok(), fits, "{header}: {value}");
        }
    }
}
