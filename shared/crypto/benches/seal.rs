//! What a seal and an open of one data key cost, against the least that any design would pay: one
//! bare AES-256-GCM seal with its key setup, and two draws of 32 random bytes.
//!
//! It also measures the ways to compute the HMACs of a seal: three have 55 bytes, one has 68.
//!
//! `cargo bench -p keyway-crypto`
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark reads the clock, draws its own randomness, prints, and may stop"
)]

use std::hint::black_box;
use std::time::Instant;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{self, SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign_to_buffer};
use aws_lc_rs::kdf::{KbkdfCtrHmacAlgorithmId, get_kbkdf_ctr_hmac_algorithm, kbkdf_ctr_hmac};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use hmac::{Hmac, KeyInit, Mac};
use keyway_crypto::{Blob, EncryptionContext, Key256, Purpose, seal};

const ROUNDS: usize = 200;
const CALLS: u32 = 500;
const TARGET: f64 = 3.0;

fn main() {
    let random = SystemRandom::new();
    let key = Key256::from([7; 32]);
    let data_key = [9; 32];
    let context = build_context();
    let blob = seal_one(&random, &key, &context, &data_key);

    // Interleaved, so that a machine that slows down for a while slows all of them.
    let mut samples: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        let [reference, draw, build, seal, open] = &mut samples;
        reference.push(time(|| reference_seal(&random, &data_key)));
        draw.push(time(|| draw_32(&random)));
        build.push(time(build_context));
        seal.push(time(|| seal_one(&random, &key, &context, &data_key)));
        open.push(time(|| open_one(&key, &context, &blob)));
    }
    let [reference, draw, build, seal, open] = samples.map(median);

    // Most of the cost is SHA-256, which is several times as fast with instructions of its own.
    #[cfg(target_arch = "x86_64")]
    println!("SHA instructions: {}", is_x86_feature_detected!("sha"));
    let ratio = |name: &str, nanoseconds: f64| {
        println!(
            "{name:<32}{nanoseconds:>9.0} ns   ratio {:.2}",
            nanoseconds / reference
        );
    };
    ratio("reference: bare seal + 2 draws", reference);
    ratio("of which one 32-byte draw", draw);
    ratio("context of two pairs, built", build);
    ratio("seal, one draw included", seal);
    ratio("open", open);
    ratio("seal + open", seal + open);
    println!(
        "ratio of seal + open to reference {:.2} (target <= {TARGET:.1})",
        (seal + open) / reference
    );
    println!();
    for length in [55, 68] {
        measure_macs(&vec![3; length], reference);
    }
}

/// HMAC-SHA256 of one message under one key that is prepared as each variant allows.
fn measure_macs(message: &[u8], reference: f64) {
    let bytes = [7; 32];
    let pad = |with: u8| -> Vec<u8> {
        let mut pad = vec![with; 64];
        pad.iter_mut().zip(bytes).for_each(|(to, key)| *to ^= key);
        pad
    };
    let (inner_pad, outer_pad) = (pad(0x36), pad(0x5c));
    let begun = |pad: &[u8]| {
        let mut context = digest::Context::new(&SHA256);
        context.update(pad);
        context
    };
    let (inner, outer) = (begun(&inner_pad), begun(&outer_pad));
    let second = Hmac::<sha2::Sha256>::new_from_slice(&bytes).unwrap();
    let key = Key::new(HMAC_SHA256, &bytes);
    let kdf = get_kbkdf_ctr_hmac_algorithm(KbkdfCtrHmacAlgorithmId::Sha256).unwrap();

    let by_key = || {
        let mut out = [0; 32];
        sign_to_buffer(&key, black_box(message), &mut out).unwrap();
        out
    };
    let by_digests = || {
        let hash = digest(
            &SHA256,
            &[inner_pad.as_slice(), black_box(message)].concat(),
        );
        let hash = digest(&SHA256, &[outer_pad.as_slice(), hash.as_ref()].concat());
        <[u8; 32]>::try_from(hash.as_ref()).unwrap()
    };
    let by_contexts = || {
        let (mut inner, mut outer) = (inner.clone(), outer.clone());
        inner.update(black_box(message));
        outer.update(inner.finish().as_ref());
        <[u8; 32]>::try_from(outer.finish().as_ref()).unwrap()
    };
    let by_second = || -> [u8; 32] {
        let mut mac = second.clone();
        mac.update(black_box(message));
        mac.finalize().into_bytes().into()
    };
    let by_kdf = || {
        let mut out = [0; 96];
        kbkdf_ctr_hmac(kdf, black_box(&bytes), message, &mut out).unwrap();
        out
    };
    assert_eq!(
        [by_digests(), by_contexts(), by_second()],
        [by_key(); 3],
        "all variants compute the same"
    );
    let mut samples: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        let [key, digests, contexts, second, kdf] = &mut samples;
        key.push(time(by_key));
        digests.push(time(by_digests));
        contexts.push(time(by_contexts));
        second.push(time(by_second));
        kdf.push(time(by_kdf));
    }
    let names = [
        "prepared key",
        "two one-shot digests",
        "two cloned digest contexts",
        "RustCrypto's, cloned",
        "three by KBKDF",
    ];
    for (name, samples) in names.into_iter().zip(samples) {
        let nanoseconds = median(samples);
        println!(
            "HMAC of {} bytes: {name:<28}{nanoseconds:>6.0} ns   ratio {:.2}",
            message.len(),
            nanoseconds / reference
        );
    }
}

fn build_context() -> EncryptionContext {
    EncryptionContext::from_pairs([
        ("bucket".to_owned(), "customer-backups".to_owned()),
        ("object".to_owned(), "reports/2025/q4.parquet".to_owned()),
    ])
    .unwrap()
}

fn draw_32(random: &SystemRandom) -> [u8; 32] {
    let mut bytes = [0; 32];
    random.fill(&mut bytes).unwrap();
    bytes
}

/// A fresh key and nonce for one message, and nothing else: no context, no commitment.
fn reference_seal(random: &SystemRandom, plaintext: &[u8; 32]) -> Vec<u8> {
    let key = draw_32(random);
    let nonce = draw_32(random);
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
    let nonce = Nonce::try_assume_unique_for_key(nonce.get(..12).unwrap()).unwrap();
    let mut out = Vec::with_capacity(48);
    out.extend_from_slice(plaintext);
    cipher
        .seal_in_place_append_tag(nonce, Aad::empty(), &mut out)
        .unwrap();
    out
}

fn seal_one(
    random: &SystemRandom,
    key: &Key256,
    context: &EncryptionContext,
    plaintext: &[u8],
) -> Vec<u8> {
    let fresh = draw_32(random);
    seal(Purpose::Seal, key, "my-key", 1, context, plaintext, &fresh).unwrap()
}

fn open_one(key: &Key256, context: &EncryptionContext, blob: &[u8]) -> usize {
    let blob = Blob::parse(Purpose::Seal, blob).unwrap();
    blob.open(key, context).unwrap().len()
}

/// Nanoseconds for one call.
fn time<T>(call: impl Fn() -> T) -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        black_box(call());
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap()
}
