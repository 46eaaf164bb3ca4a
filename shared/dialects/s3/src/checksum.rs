//! The checksums that S3's clients send. They detect errors in transit; signatures protect against tampering.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;
use keyway_http::Request;

use crate::ErrorResponse;
use crate::error_response::{bad_digest, invalid_digest};

/// Verifies the body against each checksum in the headers.
pub(crate) fn verify(request: &Request) -> Result<(), ErrorResponse> {
    let body = &request.body;
    let declared = |name: &str| request.headers.get(name).map(|value| value.as_bytes());
    if let Some(text) = declared("content-md5") {
        match STANDARD.decode(text) {
            Ok(sum) if sum.len() == 16 => {
                if sum != md5::compute(body).0 {
                    return Err(bad_digest("Content-MD5"));
                }
            }
            _ => return Err(invalid_digest()),
        }
    }
    for (header, algorithm) in ALGORITHMS {
        if let Some(text) = declared(header)
            && STANDARD.decode(text).ok() != Some(algorithm.sum(body))
        {
            return Err(bad_digest(header));
        }
    }
    Ok(())
}

/// Each header with its algorithm.
const ALGORITHMS: [(&str, Algorithm); 5] = [
    ("x-amz-checksum-crc32", Algorithm::Crc32),
    ("x-amz-checksum-crc32c", Algorithm::Crc32c),
    ("x-amz-checksum-crc64nvme", Algorithm::Crc64Nvme),
    ("x-amz-checksum-sha1", Algorithm::Sha1),
    ("x-amz-checksum-sha256", Algorithm::Sha256),
];

#[derive(Clone, Copy)]
enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    /// The checksum as S3 encodes it in base64: most significant byte first.
    fn sum(self, body: &[u8]) -> Vec<u8> {
        let crc32 = |algorithm| {
            // The library returns 64 bits for every algorithm; for CRC-32 the upper half is zero.
            let [_, _, _, _, sum @ ..] = crc_fast::checksum(algorithm, body).to_be_bytes();
            sum.to_vec()
        };
        match self {
            Self::Crc32 => crc32(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => crc32(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => crc_fast::checksum(CrcAlgorithm::Crc64Nvme, body)
                .to_be_bytes()
                .to_vec(),
            Self::Sha1 => digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, body)
                .as_ref()
                .to_vec(),
            Self::Sha256 => digest::digest(&digest::SHA256, body).as_ref().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, Method};
    use keyway_http::Peer;

    use super::*;

    #[test]
    fn declared_checksum_is_compared_with_the_body() {
        // Checksums of "hello", made by other tools.
        for (header, right) in [
            ("content-md5", "XUFAKrxLKna5cZ2REBfFkg=="),
            ("x-amz-checksum-crc32", "NhCmhg=="),
            ("x-amz-checksum-crc32c", "mnG7TA=="),
            ("x-amz-checksum-crc64nvme", "M3eFcAZSQlc="),
            ("x-amz-checksum-sha1", "qvTGHdzF6KLavt4PO0gs2a6pQ00="),
            (
                "x-amz-checksum-sha256",
                "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
            ),
        ] {
            let checked = |value: &str| {
                let mut headers = HeaderMap::new();
                headers.insert(HeaderName::from_static(header), value.parse().unwrap());
                verify(&Request {
                    method: Method::PUT,
                    raw_path: "/photos".to_owned(),
                    raw_query: "encryption".to_owned(),
                    headers,
                    body: "hello".into(),
                    peer: Peer::new([127, 0, 0, 1].into(), false),
                })
            };
            assert!(checked(right).is_ok(), "{header}");
            let first = if right.starts_with('A') { "B" } else { "A" };
            let wrong = format!("{first}{}", right.get(1..).unwrap());
            let shorter = right.get(4..).unwrap();
            for wrong in [wrong.as_str(), shorter, "%", ""] {
                assert!(checked(wrong).is_err(), "{header}: {wrong}");
            }
        }
    }
}
