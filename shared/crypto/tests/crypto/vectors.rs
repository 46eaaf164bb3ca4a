//! The published vectors, made by an independent script: `vectors/make_seal_vectors.py`.

use std::collections::HashSet;

use keyway_crypto::{
    Blob, EncryptionContext, Key256, PassphraseParams, Purpose, SecretBytes, derive, seal,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct SealVectors {
    format: u8,
    valid: Vec<Valid>,
    invalid: Vec<Invalid>,
}

#[derive(Deserialize)]
struct Valid {
    name: String,
    purpose: String,
    #[serde(with = "hex")]
    key: [u8; 32],
    key_id: String,
    key_version: u32,
    context: Context,
    #[serde(with = "hex")]
    encoded_context: Vec<u8>,
    #[serde(with = "hex")]
    plaintext: Vec<u8>,
    #[serde(with = "hex")]
    fresh: [u8; 32],
    #[serde(with = "hex")]
    blob: Vec<u8>,
}

#[derive(Deserialize)]
struct Invalid {
    why: String,
    purpose: String,
    #[serde(with = "hex")]
    key: [u8; 32],
    context: Context,
    #[serde(with = "hex")]
    blob: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Context {
    None,
    Map {
        pairs: Vec<(String, String)>,
    },
    Opaque {
        #[serde(with = "hex")]
        bytes: Vec<u8>,
    },
}

impl Context {
    fn build(&self) -> EncryptionContext {
        match self {
            Self::None => EncryptionContext::none(),
            Self::Map { pairs } => EncryptionContext::from_pairs(pairs.clone()).unwrap(),
            Self::Opaque { bytes } => EncryptionContext::opaque(bytes.clone()).unwrap(),
        }
    }
}

#[derive(Deserialize)]
struct PassphraseVectors {
    valid: Vec<Passphrase>,
}

#[derive(Deserialize)]
struct Passphrase {
    passphrase: String,
    #[serde(with = "hex")]
    salt: [u8; 16],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    #[serde(with = "hex")]
    key: [u8; 32],
}

fn seal_vectors() -> SealVectors {
    serde_json::from_str(include_str!("../../../../vectors/seal-v1.json")).unwrap()
}

fn purpose(name: &str) -> Purpose {
    match name {
        "seal" => Purpose::Seal,
        "wrap" => Purpose::Wrap,
        "passphrase" => Purpose::Passphrase,
        other => panic!("purpose {other}"),
    }
}

#[test]
fn vector_valid_opens_and_seals_to_the_same_bytes() {
    let vectors = seal_vectors();
    assert_eq!(vectors.format, 1);
    for vector in &vectors.valid {
        let name = &vector.name;
        let purpose = purpose(&vector.purpose);
        let key = Key256::from(vector.key);
        let context = vector.context.build();
        assert_eq!(context.encode(), vector.encoded_context, "{name}");

        let sealed = seal(
            purpose,
            &key,
            &vector.key_id,
            vector.key_version,
            &context,
            &vector.plaintext,
            &vector.fresh,
        );
        assert_eq!(sealed.as_ref(), Ok(&vector.blob), "{name}");

        let blob = Blob::parse(purpose, &vector.blob).unwrap();
        assert_eq!(blob.key_id(), vector.key_id, "{name}");
        assert_eq!(blob.key_version(), vector.key_version, "{name}");
        let opened = blob.open(&key, &context).unwrap();
        assert_eq!(opened.expose(), vector.plaintext, "{name}");
    }

    // Which kinds are covered is part of the contract.
    let covered: HashSet<_> = vectors
        .valid
        .iter()
        .map(|vector| (vector.purpose.as_str(), vector.encoded_context[0]))
        .collect();
    assert_eq!(covered.len(), 9, "three purposes, three context kinds");
}

#[test]
fn vector_invalid_does_not_open() {
    let vectors = seal_vectors();
    assert!(vectors.invalid.len() >= 40);
    for vector in &vectors.invalid {
        let opened: Result<SecretBytes, _> = Blob::parse(purpose(&vector.purpose), &vector.blob)
            .and_then(|blob| blob.open(&Key256::from(vector.key), &vector.context.build()));
        assert!(opened.is_err(), "{}", vector.why);
    }
}

#[test]
fn vector_of_a_passphrase_gives_its_key() {
    let vectors: PassphraseVectors =
        serde_json::from_str(include_str!("../../../../vectors/passphrase-v1.json")).unwrap();
    assert!(!vectors.valid.is_empty());
    for vector in &vectors.valid {
        let params = PassphraseParams::new(vector.memory_kib, vector.passes, vector.lanes).unwrap();
        let key = derive(vector.passphrase.as_bytes(), &vector.salt, &params).unwrap();
        assert_eq!(key.expose(), &vector.key);
    }
}
