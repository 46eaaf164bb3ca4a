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
