//! The published vectors, made by an independent script: `vectors/make_file_vectors.py`.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests stop at what must not happen, as the tests do"
)]

use keyway_crypto::{EncryptionContext, Key256};
use keyway_files::{EncryptedFile, Header, encrypt};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

#[derive(Deserialize)]
struct Vectors {
    format: u8,
    valid: Vec<Valid>,
    invalid: Vec<Invalid>,
}

#[derive(Deserialize)]
struct Valid {
    name: String,
    #[serde(with = "hex")]
    data_key: [u8; 32],
    key_id: String,
    #[serde(with = "hex")]
    wrapped_key: Vec<u8>,
    context: Vec<(String, String)>,
    #[serde(with = "hex")]
    salt: [u8; 32],
    plaintext_seed: String,
    plaintext_bytes: usize,
    #[serde(with = "hex")]
    header: Vec<u8>,
    file_bytes: usize,
    #[serde(with = "hex")]
    file_sha256: [u8; 32],
    file: Option<String>,
}

#[derive(Deserialize)]
struct Invalid {
    why: String,
    #[serde(with = "hex")]
    data_key: [u8; 32],
    #[serde(with = "hex")]
    file: Vec<u8>,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../vectors/file-v1.json")).unwrap()
}

/// SHA-256(seed || BE64(n)) for n = 0, 1, ...
fn plaintext(seed: &str, length: usize) -> Vec<u8> {
    let block = |n: u64| Sha256::digest([seed.as_bytes(), &n.to_be_bytes()].concat());
    (0..).flat_map(block).take(length).collect()
}

#[test]
fn vector_valid_decrypts_and_encrypts_to_the_same_bytes() {
    let vectors = vectors();
    assert_eq!(vectors.format, 1);
    assert_eq!(vectors.valid.len(), 10);
    for vector in &vectors.valid {
        let name = &vector.name;
        let data_key = Key256::from(vector.data_key);
        let context = EncryptionContext::from_pairs(vector.context.clone()).unwrap();
        let header =
            Header::new(&vector.key_id, &vector.wrapped_key, &context, vector.salt).unwrap();
        assert_eq!(header.encoded(), vector.header, "{name}");

        let plaintext = plaintext(&vector.plaintext_seed, vector.plaintext_bytes);
        let mut file = Vec::new();
        let mut input = plaintext.as_slice();
        encrypt(&header, &data_key, &mut input, &mut file, &mut |_| ()).unwrap();
        assert_eq!(file.len(), vector.file_bytes, "{name}");
        assert_eq!(
            Sha256::digest(&file).as_slice(),
            vector.file_sha256,
            "{name}"
        );
        if let Some(expected) = &vector.file {
            assert_eq!(&hex::encode(&file), expected, "{name}");
        }

        let opened = EncryptedFile::open(file.as_slice()).unwrap();
        assert_eq!(opened.header(), &header, "{name}");
        let mut decrypted = Vec::new();
        opened
            .decrypt(&data_key, &mut decrypted, &mut |_| ())
            .unwrap();
        assert_eq!(decrypted, plaintext, "{name}");
    }
}

#[test]
fn vector_invalid_does_not_decrypt() {
    let vectors = vectors();
    assert!(vectors.invalid.len() >= 33);
    for vector in &vectors.invalid {
        let mut plaintext = Vec::new();
        let opened = EncryptedFile::open(vector.file.as_slice());
        let decrypted = opened.is_ok_and(|file| {
            let data_key = Key256::from(vector.data_key);
            file.decrypt(&data_key, &mut plaintext, &mut |_| ()).is_ok()
        });
        assert!(!decrypted, "{}", vector.why);
        assert!(plaintext.is_empty(), "{}", vector.why);
    }
}
