//! What a seal and an open of one data key cost, against the least that any design would pay: one
//! bare AES-256-GCM seal with its key setup, and two draws of 32 random bytes.
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
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
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
