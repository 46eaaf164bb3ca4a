//! What encrypting and decrypting a file cost, against one bare pass of the same AES-256-GCM over the same chunks.
//!
//! `cargo bench -p keyway-files`
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark reads the clock, prints, and may stop"
)]

use std::hint::black_box;
use std::io;
use std::time::Instant;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use keyway_crypto::{EncryptionContext, Key256};
use keyway_files::{CHUNK_BYTES, EncryptedFile, Header, encrypt};

const ROUNDS: usize = 15;
const CHUNKS: usize = 512;
const TARGET: f64 = 1.5;

fn main() {
    let plaintext = vec![7; CHUNKS * CHUNK_BYTES];
    let data_key = Key256::from([7; 32]);
    let header = Header::new("my-key", b"wrapped", &EncryptionContext::none(), [9; 32]).unwrap();
    let sealed = |output: &mut dyn io::Write| {
        let mut input = plaintext.as_slice();
        encrypt(&header, &data_key, &mut input, output, &mut |_| ()).unwrap();
    };
    let mut file = Vec::new();
    sealed(&mut file);

    // Interleaved, so that a machine that slows down for a while slows all of them.
    let mut samples: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        let [reference, encrypted, decrypted] = &mut samples;
        reference.push(time(|| bare(&plaintext)));
        encrypted.push(time(|| sealed(&mut io::sink())));
        decrypted.push(time(|| {
            let file = EncryptedFile::open(file.as_slice()).unwrap();
            file.decrypt(&data_key, &mut io::sink(), &mut |_| ())
                .unwrap();
        }));
    }
    let [reference, encrypted, decrypted] = samples.map(median);
    for (name, seconds) in [
        ("reference: bare AES-256-GCM", reference),
        ("encrypt a file", encrypted),
        ("decrypt a file", decrypted),
    ] {
        let rate = plaintext.len() as f64 / seconds / 1e6;
        let ratio = seconds / reference;
        println!("{name:<32}{rate:>9.0} MB/s   ratio of time {ratio:.2} (target <= {TARGET:.1})");
    }
}

/// Copies each chunk and encrypts it, which is the least that anything does that reads a file.
fn bare(plaintext: &[u8]) {
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
    let mut buffer = vec![0; CHUNK_BYTES];
    for (number, chunk) in (0_u32..).zip(plaintext.chunks(CHUNK_BYTES)) {
        buffer.copy_from_slice(chunk);
        let nonce = [[0; 4], [0; 4], number.to_be_bytes()].concat();
        let nonce = Nonce::try_assume_unique_for_key(&nonce).unwrap();
        let tag = cipher.seal_in_place_separate_tag(nonce, Aad::empty(), &mut buffer);
        black_box((&buffer, tag.unwrap().as_ref().len()));
    }
}

fn time(call: impl Fn()) -> f64 {
    let start = Instant::now();
    call();
    start.elapsed().as_secs_f64()
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap()
}
