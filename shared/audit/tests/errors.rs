//! The errors of a process reach the followers of other processes, at a bounded cost.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod faults;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use faults::FaultyTable;
use futures_util::{FutureExt, StreamExt};
use keyway_audit::{
    AuditTable, AuditWriter, AuditWriterSettings, Contexts, ErrorLog, Flushing, Following,
    Strictness,
};
use keyway_domain::audit::{Followed, LogFollowing};
use keyway_domain::ports::{Clock, Kind, Record, TableReader};
use keyway_testkit::{FixedClock, SeededRandom};
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

const WRITER: &str = "0123456789abcdef";

/// One process and its table.
struct Scene {
    clock: Arc<FixedClock>,
    table: Arc<FaultyTable>,
    lines: broadcast::Sender<Arc<str>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn scene() -> Scene {
    let clock = Arc::new(FixedClock::new("2026-01-02T03:59:58Z".parse().unwrap()));
    let table = Arc::new(faults::table(clock.clone()));
    let (lines, told) = broadcast::channel(256);
    let random = Arc::new(SeededRandom::new(5));
    let log = ErrorLog::new(
        WRITER,
        AuditTable::new(table.clone()),
        clock.clone(),
        random,
    );
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(async move { log.keep_writing(told, stopped).await });
    Scene {
        clock,
        table,
        lines,
        stop,
        task,
    }
}

impl Scene {
    fn tell(&self, line: &str) {
        self.lines.send(line.into()).unwrap();
    }

    async fn records(&self) -> Vec<Record> {
        let page = self.table.page(Kind::ErrorLog, "20260102T03", None, 1000);
        page.await.unwrap().records
    }

    async fn kept(&self) -> Vec<String> {
        faults::lines(&self.records().await)
    }

    /// Waits until the table has this many lines.
    async fn has(&self, count: usize) {
        until(async || self.kept().await.len() >= count).await;
    }

    /// The table's lines after the end of the process.
    async fn end(self) -> (Vec<String>, usize) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
        let table = self.table;
        let page = table.page(Kind::ErrorLog, "20260102T03", None, 1000);
        let kept = faults::lines(&page.await.unwrap().records);
        (kept, table.interceptor().writes())
    }
}

/// Waits until the condition holds.
async fn until(is_so: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap();
}

#[tokio::test]
async fn error_lines_are_written_together_and_expire() {
    let scene = scene();
    scene.tell("one\nand its rest");
    scene.tell(&"\u{e4}".repeat(700));
    scene.has(2).await;
    assert_eq!(scene.kept().await[0], "one and its rest");
    assert_eq!(scene.kept().await[1], "\u{e4}".repeat(500));
    let records = scene.records().await;
    assert_eq!(records.len(), 1);
    assert_eq!(
        records[0].id,
        format!("20260102T035958.000000Z.{WRITER}.000000000000")
    );
    let expected = "2026-01-09T03:59:58Z".parse().unwrap();
    assert_eq!(records[0].expires_at, Some(expected));
    // Pending lines are written at the end; without pending lines nothing is written.
    scene.tell("last");
    let (kept, writes) = scene.end().await;
    assert_eq!((kept.len(), writes), (3, 2));
    assert_eq!(self::scene().end().await, (Vec::new(), 0));
}

#[tokio::test]
async fn flood_of_errors_is_counted_in_few_writes() {
    const FLOOD: u64 = 5000;
    let scene = scene();
    let begun = Instant::now();
    for n in 0..FLOOD {
        scene.tell(&format!("error {n}"));
        if n % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let took = begun.elapsed();
    // At the end, the channel's capacity bounds the pending lines.
    let (kept, writes) = scene.end().await;
    let most = took.as_millis() / 400 + 1 + 256 / 64;
    assert!(
        (1..=most).contains(&(writes as u128)),
        "{writes} in {took:?}"
    );
    let lost: u64 = kept
        .iter()
        .filter_map(|line| line.strip_suffix(" errors came faster than they could be written"))
        .map(|lost| lost.parse::<u64>().unwrap())
        .sum();
    assert!(lost > 0);
    let told = kept.iter().filter(|line| line.starts_with("error "));
    assert_eq!(told.count() as u64 + lost, FLOOD);
}

/// Passes a process's errors on as its log does.
struct Told(broadcast::Sender<Arc<str>>);

struct Text(String);

impl tracing::field::Visit for Text {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0.insert_str(0, &format!("{value:?}"));
        } else {
            self.0.push_str(&format!(" {}={value:?}", field.name()));
        }
    }
}

impl tracing::Subscriber for Told {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::Id {
        tracing::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.send(text.0.into()).ok();
    }

    fn enter(&self, _: &tracing::Id) {}

    fn exit(&self, _: &tracing::Id) {}
}

#[tokio::test]
async fn errors_while_the_table_fails_are_written_later() {
    let scene = scene();
    let _guard = tracing::subscriber::set_default(Told(scene.lines.clone()));
    let mut all = scene.lines.subscribe();
    scene
        .table
        .interceptor()
        .fails
        .store(true, Ordering::Relaxed);
    let begun = Instant::now();
    let error = io::Error::other("it broke");
    tracing::error!(%error, "something");
    until(async || scene.table.interceptor().writes() >= 2).await;
    let (writes, took) = (scene.table.interceptor().writes(), begun.elapsed());
    assert!(writes as u128 <= took.as_millis() / 400 + 1, "{writes}");
    tracing::warn!("meanwhile");
    scene
        .table
        .interceptor()
        .fails
        .store(false, Ordering::Relaxed);
    scene.has(2).await;
    assert_eq!(
        scene.kept().await,
        ["something error=it broke", "meanwhile"]
    );
    let mut told = Vec::new();
    while let Ok(line) = all.try_recv() {
        told.push(line.to_string());
    }
    // A failed write is reported once, to the followers of this process, and never written: that write might fail too.
    let failed = "the error log cannot be written to the table error=\"the store is throttling\"";
    assert_eq!(told, ["something error=it broke", failed, "meanwhile"]);
    let writes = scene.table.interceptor().writes();
    // Were one written because of another, it would be there before what comes later.
    tracing::warn!("later");
    scene.has(3).await;
    assert_eq!(scene.kept().await[2], "later");
    assert_eq!(scene.table.interceptor().writes(), writes + 1);
}

#[tokio::test]
async fn follower_gets_errors_of_other_processes_once() {
    let scene = scene();
    let settings = AuditWriterSettings {
        strictness: Strictness::Required,
        contexts: Contexts::Names,
        retention_days: 90,
        flushing: Flushing::ByTask,
        batch_age: Duration::from_millis(250),
    };
    // A process whose own errors are of the same name as those in the table, and one that knows of none.
    let (of_here, _) = broadcast::channel(16);
    let audit_writer = AuditWriter::new(
        Box::new(io::sink()),
        AuditTable::new(scene.table.clone()),
        scene.clock.clone(),
        Arc::new(SeededRandom::new(6)),
        settings,
    );
    let audit_writer = Arc::new(audit_writer.unwrap());
    let own = ErrorLog::new(
        audit_writer.writer(),
        AuditTable::new(scene.table.clone()),
        scene.clock.clone(),
        Arc::new(SeededRandom::new(7)),
    );
    let told = of_here.subscribe();
    tokio::spawn(async move { own.keep_writing(told, std::future::pending::<()>()).await });
    let errors = {
        let of_here = of_here.clone();
        Arc::new(move || of_here.subscribe())
    };
    let table: Arc<dyn TableReader> = scene.table.clone();
    let clock: Arc<dyn Clock> = scene.clock.clone();
    let following = Following::new(audit_writer, &table, &clock, errors);
    let mut followers = [following.errors(), following.errors()];
    // What the table holds at the first look is the past. A look is at two parts, for the hour is about to end.
    let pages = || scene.table.interceptor().pages.load(Ordering::Relaxed);
    until(async || pages() >= 2).await;
    scene.tell("elsewhere");
    of_here.send("here".into()).unwrap();
    for follower in &mut followers {
        let mut heard = Vec::new();
        for _ in 0..2 {
            let next = tokio::time::timeout(Duration::from_secs(20), follower.next());
            let Some(Followed::Line(line)) = next.await.unwrap() else {
                panic!("a line");
            };
            heard.push(line.to_string());
        }
        assert_eq!(heard, ["here", "elsewhere"], "an own one comes at once");
    }
    scene.has(2).await;
    // It is looked at again, twice at least.
    let before = pages();
    until(async || pages() >= before + 6).await;
    for follower in &mut followers {
        let again = follower.next().now_or_never();
        assert!(again.is_none(), "{again:?}");
    }
}
