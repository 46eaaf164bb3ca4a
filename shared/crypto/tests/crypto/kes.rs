//! KES's ciphertexts, MACs and identities, against vectors that KES's own code accepted:
//! `vectors/kes-ciphertexts.json`.

use std::collections::BTreeMap;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use keyway_crypto::kes::{
    Algorithm, LegacyDerivation, MAX_CIPHERTEXT_BYTES, OVERHEAD_BYTES, open, seal,
};
use keyway_crypto::{Key256, mac_sha256, sha256};
use proptest::prelude::*;
use serde::{Deserialize, Deserializer};
use sha2::Sha256;

#[derive(Deserialize)]
struct Vectors {
    ciphertexts: Vec<Sealed>,
    hmac: Vec<MacVector>,
    apikeys: Vec<ApiKey>,
}

#[derive(Deserialize)]
struct Sealed {
    format: String,
    cipher: Algorithm,
    #[serde(deserialize_with = "base64")]
    key: Vec<u8>,
    #[serde(deserialize_with = "base64")]
    context: Vec<u8>,
    #[serde(deserialize_with = "base64")]
    plaintext: Vec<u8>,
    #[serde(deserialize_with = "base64")]
    ciphertext: Vec<u8>,
}

#[derive(Deserialize)]
struct MacVector {
    #[serde(deserialize_with = "base64")]
    hmac_key: Vec<u8>,
    #[serde(deserialize_with = "base64")]
    message: Vec<u8>,
    #[serde(deserialize_with = "base64")]
    hmac: Vec<u8>,
}

#[derive(Deserialize)]
struct ApiKey {
    api_key: String,
    identity: String,
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../../vectors/kes-ciphertexts.json")).unwrap()
}

impl Sealed {
    fn key(&self) -> Key256 {
        Key256::try_from(self.key.as_slice()).unwrap()
    }

    fn is_legacy(&self) -> bool {
        self.format == "json-insecure-kdf"
    }

    fn opens(&self, ciphertext: &[u8]) -> bool {
        self.opens_as(self.cipher, LegacyDerivation::Allowed, ciphertext)
    }

    fn opens_as(&self, of_key: Algorithm, legacy: LegacyDerivation, ciphertext: &[u8]) -> bool {
        let key = self.key();
        match open(&key, of_key, legacy, ciphertext, &self.context) {
            Ok(plaintext) => plaintext.ct_eq(&self.plaintext),
            Err(_) => false,
        }
    }
}

#[test]
fn ciphertext_of_every_format_opens() {
    let vectors = vectors().ciphertexts;
    let mut formats = BTreeMap::new();
    for vector in &vectors {
        *formats
            .entry((&vector.format, vector.cipher.as_str()))
            .or_insert(0) += 1;
        assert!(vector.opens(&vector.ciphertext), "{}", vector.format);
    }
    assert_eq!(
        formats.len(),
        11,
        "five formats of two ciphers, and the legacy one"
    );
    assert!(formats.values().all(|&count| count == 3));
}

#[test]
fn legacy_derivation_is_refused_unless_allowed() {
    for vector in vectors().ciphertexts {
        let opened = vector.opens_as(vector.cipher, LegacyDerivation::Refused, &vector.ciphertext);
        assert_eq!(opened, !vector.is_legacy(), "{}", vector.format);
    }
    assert_eq!(LegacyDerivation::default(), LegacyDerivation::Refused);
}

#[test]
fn algorithm_comes_from_the_format_and_in_raw_from_the_key() {
    for vector in vectors().ciphertexts {
        let other = match vector.cipher {
            Algorithm::Aes256 => Algorithm::ChaCha20,
            Algorithm::ChaCha20 => Algorithm::Aes256,
        };
        let opened = vector.opens_as(other, LegacyDerivation::Allowed, &vector.ciphertext);
        assert_eq!(opened, vector.format != "raw", "{}", vector.format);
    }
}

#[test]
fn ciphertext_under_another_key_or_context_does_not_open() {
    for vector in vectors().ciphertexts {
        let try_with = |key: &Key256, context: &[u8]| {
            let (algorithm, legacy) = (vector.cipher, LegacyDerivation::Allowed);
            open(key, algorithm, legacy, &vector.ciphertext, context).is_ok()
        };
        for position in 0..32 {
            let mut key = vector.key.clone();
            key[position] ^= 1;
            let key = Key256::try_from(key.as_slice()).unwrap();
            assert!(!try_with(&key, &vector.context));
        }
        let longer = [vector.context.as_slice(), b" "].concat();
        assert!(!try_with(&vector.key(), &longer));
        if !vector.context.is_empty() {
            assert!(!try_with(&vector.key(), b""));
            assert!(!try_with(&vector.key(), &vector.context[1..]));
        }
    }
}

/// The bytes of a ciphertext that hold what is authenticated, as it is written: digests of keys, which nobody compares,
/// are not among them, nor is JSON's own punctuation.
#[test]
fn ciphertext_with_any_bit_flipped_does_not_open() {
    for vector in vectors().ciphertexts {
        let digest = match vector.format.as_str() {
            "json-id" => digest_of_key(&vector, br#","id":""#),
            "msgpack" | "msgpack-newalg" => digest_of_key(&vector, &[0xd9, 32]),
            _ => 0..0,
        };
        for position in (0..vector.ciphertext.len()).filter(|n| !digest.contains(n)) {
            for bit in 0..8 {
                let mut changed = vector.ciphertext.clone();
                changed[position] ^= 1 << bit;
                assert!(
                    !vector.opens(&changed),
                    "{}: bit {bit} of byte {position}",
                    vector.format
                );
            }
        }
        for length in 0..vector.ciphertext.len() {
            assert!(
                !vector.opens(&vector.ciphertext[..length]),
                "cut to {length}"
            );
        }
        let more = [vector.ciphertext.as_slice(), b"\0"].concat();
        assert!(!vector.opens(&more), "{}: a byte more", vector.format);
    }
}

fn digest_of_key(vector: &Sealed, before: &[u8]) -> std::ops::Range<usize> {
    let windows = vector.ciphertext.windows(before.len());
    let found = windows.into_iter().position(|window| window == before);
    let start = found.unwrap() + before.len();
    // In JSON the name too: an `id` by another name is a field that nobody looks at.
    let named = if before.len() > 2 {
        start - before.len() + 2
    } else {
        start
    };
    named..start + 32
}

/// `{` and 95 are bytes like any other at the beginning of a raw ciphertext.
#[test]
fn ciphertext_that_resembles_another_format_is_raw() {
    let key = Key256::from([3; 32]);
    let mut met = [0, 0];
    for fresh in 0..4000_u32 {
        let mut drawn = [0; 32];
        drawn[..4].copy_from_slice(&fresh.to_be_bytes());
        let sealed = seal(&key, Algorithm::Aes256, b"a", &[7; 32], &drawn).unwrap();
        match sealed[0] {
            b'{' => met[0] += 1,
            0x95 => met[1] += 1,
            _ => continue,
        }
        let (algorithm, legacy) = (Algorithm::Aes256, LegacyDerivation::Refused);
        let opened = open(&key, algorithm, legacy, &sealed, b"a").unwrap();
        assert!(opened.ct_eq(&[7; 32]));
    }
    assert!(met.iter().all(|&met| met > 0), "{met:?}");
}

#[test]
fn sizes_out_of_bounds_are_refused() {
    let key = Key256::from([3; 32]);
    let open = |bytes: &[u8]| {
        open(
            &key,
            Algorithm::Aes256,
            LegacyDerivation::Refused,
            bytes,
            b"",
        )
        .is_ok()
    };
    for length in 0..OVERHEAD_BYTES {
        assert!(!open(&vec![0; length]));
    }
    let longest = vec![1; MAX_CIPHERTEXT_BYTES - OVERHEAD_BYTES];
    let mut sealed = seal(&key, Algorithm::Aes256, b"", &longest, &[0; 32]).unwrap();
    assert_eq!(sealed.len(), MAX_CIPHERTEXT_BYTES);
    assert!(open(&sealed));
    sealed.push(0);
    assert!(!open(&sealed));
    // Nested without end, and lengths that are not there.
    assert!(!open(&b"{\"aead\":".repeat(20_000)));
    assert!(!open(b"\x95\xdb\xff\xff\xff\xff\xc6\xff\xff\xff\xff"));
}

/// The construction once more, over RustCrypto.
#[test]
fn sealed_ciphertext_opens_by_a_second_implementation() {
    let (key, context) = ([5; 32], b"{\"bucket\":\"b/o\"}");
    let sealed = seal(
        &Key256::from(key),
        Algorithm::Aes256,
        context,
        b"data",
        &[1; 32],
    )
    .unwrap();
    let (body, rest) = sealed.split_at(sealed.len() - 28);
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&key).unwrap();
    mac.update(&rest[..16]);
    let derived = mac.finalize().into_bytes();
    let payload = Payload {
        msg: body,
        aad: context,
    };
    let nonce: [u8; 12] = rest[16..].try_into().unwrap();
    let opened = aes_gcm::Aes256Gcm::new_from_slice(&derived)
        .unwrap()
        .decrypt(&nonce.into(), payload);
    assert_eq!(opened.unwrap(), b"data");
}

#[test]
fn random_repeated_gives_another_message_another_nonce() {
    let key = Key256::from([5; 32]);
    let tail = |context: &[u8], plaintext: &[u8]| {
        let sealed = seal(&key, Algorithm::Aes256, context, plaintext, &[1; 32]).unwrap();
        sealed[sealed.len() - 28..].to_vec()
    };
    let tails = [
        tail(b"", b"ab"),
        tail(b"", b"ac"),
        tail(b"a", b"b"),
        tail(b"ab", b""),
    ];
    for (n, one) in tails.iter().enumerate() {
        assert!(!tails[..n].contains(one));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sealed_ciphertext_opens(
        key: [u8; 32], fresh: [u8; 32], chacha: bool,
        context in proptest::collection::vec(any::<u8>(), 0..100),
        plaintext in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let algorithm = if chacha { Algorithm::ChaCha20 } else { Algorithm::Aes256 };
        let key = Key256::from(key);
        let sealed = seal(&key, algorithm, &context, &plaintext, &fresh).unwrap();
        prop_assert_eq!(sealed.len(), plaintext.len() + OVERHEAD_BYTES);
        let opened = open(&key, algorithm, LegacyDerivation::Refused, &sealed, &context);
        prop_assert!(opened.unwrap().ct_eq(&plaintext));
    }
}

#[test]
fn macs_equal_those_of_kes() {
    let vectors = vectors().hmac;
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let key = Key256::try_from(vector.hmac_key.as_slice()).unwrap();
        assert_eq!(mac_sha256(&key, &[&vector.message]), *vector.hmac);
    }
}

/// An identity is the SHA-256 of an Ed25519 public key in its X.509 wrapping; the API key holds the seed.
#[test]
fn identities_equal_those_of_kes() {
    let vectors = vectors().apikeys;
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let encoded = vector.api_key.strip_prefix("kes:v1:").unwrap();
        let bytes = STANDARD.decode(encoded).unwrap();
        let (&kind, seed) = bytes.split_first().unwrap();
        assert_eq!(kind, 0);
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).unwrap();
        let wrapping = hex::decode("302a300506032b6570032100").unwrap();
        let identity = sha256(&[&wrapping, pair.public_key().as_ref()]);
        assert_eq!(hex::encode(identity), vector.identity);
    }
}
