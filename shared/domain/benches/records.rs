//! What it costs to verify a record that is read, and to sign one that is written, next to the one HMAC that it takes.
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a benchmark"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use keyway_crypto::{Key256, mac_sha256};
use keyway_domain::ports::{
    Clock, Consistency, Kind, Random, Record, Revision, TableReader, TableWriter,
};
use keyway_testkit::{FixedClock, MemorySecrets, MemoryTable, SeededRandom, signed_table};

/// A key with two versions has about so many bytes.
const BYTES: usize = 900;

fn main() {
    let clock: Arc<dyn Clock> = Arc::new(FixedClock::new(
        "2026-01-02T03:04:05Z".parse().expect("a time"),
    ));
    let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
    let stored = Arc::new(MemoryTable::new(Arc::clone(&clock)));
    let secrets = Arc::new(MemorySecrets::new());
    let made = signed_table(&stored, secrets, &clock, &random).now_or_never();
    let Some(Ok((signed, _))) = made else {
        println!("memory does not fail");
        return;
    };
    let record = |id: &str| Record {
        kind: Kind::Key,
        id: id.to_owned(),
        revision: Revision([7; 16]),
        value: format!("{:<BYTES$}", "{").into_bytes(),
        expires_at: None,
    };
    // Another row, which is read as it is stored.
    let plain = record("plain");
    let put = stored.put_new(&plain).now_or_never();
    put.expect("memory does not wait").expect("it takes all");
    let true_one = record("signed");
    let put = signed.put_new(&true_one).now_or_never();
    put.expect("memory does not wait").expect("it takes all");
    let read = |table: &dyn TableReader, id: &str| {
        let read = table.get(Kind::Key, id, Consistency::Strong);
        black_box(read.now_or_never().expect("memory does not wait").is_ok());
    };
    // Written again as it is, which changes nothing.
    let write = |table: &dyn TableWriter, record: &Record| {
        let written = table.put_new(black_box(record));
        black_box(
            written
                .now_or_never()
                .expect("memory does not wait")
                .is_ok(),
        );
    };
    let key = Key256::from([1; 32]);
    let hmac = || {
        black_box(mac_sha256(&key, &[black_box(&plain.value)]));
    };
    let runs: [&dyn Fn(); 5] = [
        &|| read(stored.as_ref(), "plain"),
        &|| read(signed.as_ref(), "signed"),
        &|| write(stored.as_ref(), &plain),
        &|| write(signed.as_ref(), &true_one),
        &hmac,
    ];
    // Turn by turn, and the best of each, so that a busy machine disturbs them alike.
    let mut best = [Duration::MAX; 5];
    for _ in 0..40 {
        for (best, run) in best.iter_mut().zip(runs) {
            *best = time(run).min(*best);
        }
    }
    let [bare_read, read, bare_write, write, hmac] = best.map(|time| time.as_secs_f64() * 1e9);
    println!("records of {BYTES} bytes; one HMAC-SHA256 of as many: {hmac:.0} ns");
    for (what, cost) in [
        ("verifying what is read", read - bare_read),
        ("signing what is written", write - bare_write),
    ] {
        println!(
            "{what:<24}{cost:>8.0} ns, {:.2} times that HMAC",
            cost / hmac
        );
    }
}

/// The time of one run, over many.
fn time(run: &dyn Fn()) -> Duration {
    const RUNS: u32 = 2000;
    let start = Instant::now();
    (0..RUNS).for_each(|_| run());
    start.elapsed() / RUNS
}
