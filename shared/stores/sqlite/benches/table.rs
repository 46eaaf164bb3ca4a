//! What a read, a page and a creation cost in a small table and in a large one: `cargo bench -p keyway-store-sqlite`.
//!
//! Prints measurements and judges nothing: they depend on the disk. What should hold anywhere is that the ratios stay near
//! 1, and that creations at the same time cost far less than as many one after another.
#![expect(clippy::print_stdout, reason = "the figures are the result")]
#![expect(clippy::disallowed_methods, reason = "measures real time")]
#![expect(clippy::expect_used, reason = "a failed measurement has no result")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use keyway_domain::ports::{Consistency, Kind, Random, Record, Revision, TableReader, TableWriter};
use keyway_store_sqlite::SqliteTable;
use keyway_testkit::{FixedClock, SeededRandom};
use tokio::task::JoinSet;

const SMALL: u64 = 100;
const LARGE: u64 = 100_000;
/// About what a key's signed record has.
const VALUE_BYTES: usize = 800;
const PAGE: usize = 50;
const SAMPLES: u64 = 4_000;

struct Costs {
    get: Duration,
    page: Duration,
}

#[tokio::main]
async fn main() {
    // `cargo test --all-targets` runs this too, and has nothing to learn from it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let small = reads(SMALL).await;
    let large = reads(LARGE).await;
    let ratio = |small: Duration, large: Duration| large.as_secs_f64() / small.as_secs_f64();
    println!(
        "{:<28} {:>12} {:>12} {:>8}",
        "median", SMALL, LARGE, "ratio"
    );
    println!(
        "{:<28} {:>12.1?} {:>12.1?} {:>8.2}",
        "get",
        small.get,
        large.get,
        ratio(small.get, large.get)
    );
    let page = format!("page of {PAGE}");
    println!(
        "{page:<28} {:>12.1?} {:>12.1?} {:>8.2}",
        small.page,
        large.page,
        ratio(small.page, large.page)
    );
    writes().await;
}

async fn reads(records: u64) -> Costs {
    let folder = private_folder();
    let table = open(&folder);
    let random = SeededRandom::new(records);
    let mut ids: Vec<String> = (0..records)
        .map(|_| format!("key-{:016x}", number(&random)))
        .collect();
    for some in ids.chunks(1_000) {
        create(&table, some, &random).await;
    }
    ids.sort_unstable();

    let mut get = Vec::new();
    let mut page = Vec::new();
    for _ in 0..SAMPLES {
        // From the first half, so that a whole page follows in the small table too.
        let id = pick(&ids, number(&random) % (records / 2));
        let begun = Instant::now();
        table
            .get(Kind::Key, id, Consistency::Strong)
            .await
            .expect("get")
            .expect("a record");
        get.push(begun.elapsed());
    }
    for _ in 0..SAMPLES {
        let id = pick(&ids, number(&random) % (records / 2));
        let begun = Instant::now();
        let found = table
            .page(Kind::Key, "key-", Some(id), PAGE)
            .await
            .expect("page");
        page.push(begun.elapsed());
        assert_eq!(found.records.len(), PAGE);
    }
    Costs {
        get: median(get),
        page: median(page),
    }
}

async fn writes() {
    let folder = private_folder();
    let table = open(&folder);
    let random = SeededRandom::new(3);

    let mut one = Vec::new();
    for n in 0..50 {
        let begun = Instant::now();
        create(&table, &[format!("one-{n}")], &random).await;
        one.push(begun.elapsed());
    }
    let ids: Vec<String> = (0..1_000).map(|n| format!("many-{n}")).collect();
    let begun = Instant::now();
    create(&table, &ids, &random).await;
    let many = begun.elapsed();
    println!(
        "one creation, median: {:.1?}; 1,000 at the same time: {many:.1?}",
        median(one)
    );
}

fn private_folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .expect("a folder")
}

fn open(folder: &tempfile::TempDir) -> Arc<SqliteTable> {
    let clock = Arc::new(FixedClock::new(Timestamp::UNIX_EPOCH));
    Arc::new(SqliteTable::open(&folder.path().join("table"), clock).expect("a table"))
}

async fn create(table: &Arc<SqliteTable>, ids: &[String], random: &SeededRandom) {
    let mut running = JoinSet::new();
    for id in ids {
        let (mut revision, mut value) = ([0; 16], vec![0; VALUE_BYTES]);
        random.fill(&mut revision).expect("random bytes");
        random.fill(&mut value).expect("random bytes");
        let record = Record {
            kind: Kind::Key,
            id: id.clone(),
            revision: Revision(revision),
            value,
            expires_at: None,
        };
        let table = Arc::clone(table);
        running.spawn(async move { table.put_new(&record).await.expect("a creation") });
    }
    running.join_all().await;
}

fn pick(ids: &[String], n: u64) -> &str {
    ids.get(usize::try_from(n).expect("an index"))
        .expect("an id")
}

fn number(random: &SeededRandom) -> u64 {
    let mut bytes = [0; 8];
    random.fill(&mut bytes).expect("random bytes");
    u64::from_be_bytes(bytes)
}

fn median(mut samples: Vec<Duration>) -> Duration {
    let middle = samples.len() / 2;
    *samples.select_nth_unstable(middle).1
}
