//! When events are written, what happens if a write fails, and what verification finds.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod faults;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use faults::FaultyTable;
use futures_util::FutureExt;
use futures_util::future::join_all;
use http::{Method, StatusCode};
use jiff::Timestamp;
use keyway_audit::{
    AuditTable, AuditWriter, AuditWriterSettings, Contexts, Finding, Flushing, Strictness,
    TableLog, Verified, Verifier,
};
use keyway_domain::audit::{AuditLog, Event, EventQuery};
use keyway_domain::ports::{Clock as _, Kind, Record};
use keyway_http::{
    Answered, Class, Context, Item, Observer, Operation, Subject, TraceHeaders, Unrecorded,
};
use keyway_testkit::{FixedClock, SeededRandom};

/// Standard output that keeps its bytes and can fail.
#[derive(Clone, Default)]
struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    writes: Arc<AtomicUsize>,
    fails: Arc<AtomicBool>,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.text.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    /// Whether one of the last lines has this.
    fn has(&self, wanted: &str) -> bool {
        let text = self.text.lock().unwrap();
        let last = text.get(text.len().saturating_sub(512 << 10)..).unwrap();
        String::from_utf8_lossy(last).contains(wanted)
    }
}

struct Scene {
    clock: Arc<FixedClock>,
    table: Arc<FaultyTable>,
    output: Output,
    audit_writer: AuditWriter,
}

const SETTINGS: AuditWriterSettings = AuditWriterSettings {
    strictness: Strictness::Required,
    contexts: Contexts::Names,
    retention_days: 90,
    flushing: Flushing::ByRequest,
    batch_age: Duration::from_millis(250),
};

fn scene(settings: AuditWriterSettings) -> Scene {
    let clock = Arc::new(FixedClock::new("2026-01-02T03:59:58Z".parse().unwrap()));
    // A process has been up for a while before it is asked for anything.
    clock.advance(Duration::from_secs(1));
    let table = Arc::new(faults::table(clock.clone()));
    let output = Output::default();
    let audit_writer = AuditWriter::new(
        Box::new(output.clone()),
        AuditTable::new(table.clone()),
        clock.clone(),
        Arc::new(SeededRandom::new(3)),
        settings,
    );
    Scene {
        clock,
        table,
        output,
        audit_writer: audit_writer.unwrap(),
    }
}

fn known(key: &str) -> Subject {
    Subject {
        principal: Some("alice".into()),
        is_known: true,
        key_id: Some(key.to_owned()),
        key_version: Some(2),
        context: Some(Context::Pairs(vec![(
            "tenant".to_owned(),
            "canary-value".to_owned(),
        )])),
        ..Subject::default()
    }
}

const READ: Class = Class::Read;
const CHANGE: Class = Class::Mutation;
const KEY: Class = Class::DataKey;

impl Scene {
    async fn tell(&self, class: Class, subject: &Subject, status: u16) -> Result<(), Unrecorded> {
        self.told(class, subject, status, async |told| {
            self.audit_writer.answered(told).await
        })
        .await
    }

    async fn told<T>(
        &self,
        class: Class,
        subject: &Subject,
        status: u16,
        then: impl AsyncFnOnce(&Answered<'_>) -> T,
    ) -> T {
        let told = Answered {
            request_id: "r",
            dialect: "rustfs",
            operation: Operation {
                name: "kms:Anything",
                class,
            },
            method: &Method::POST,
            raw_path: "/a",
            route: Some("/a"),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            traces: TraceHeaders::default(),
            status: StatusCode::from_u16(status).unwrap(),
            elapsed: Duration::from_micros(7),
            subject,
            error: (status >= 400).then_some("refused"),
        };
        self.audit_writer.began(told.dialect);
        then(&told).await
    }

    async fn may(&self, class: Class) -> bool {
        self.audit_writer.may_proceed(class).await.is_ok()
    }

    fn printed(&self) -> Vec<String> {
        let text = self.output.text.lock().unwrap();
        let text = std::str::from_utf8(&text).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    async fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let log = TableLog::new(self.table.clone(), self.clock.clone());
        log.records(Kind::Audit, None, None, |record| records.push(record))
            .await
            .unwrap();
        records
    }

    /// Every line of the log in the table.
    async fn kept(&self) -> Vec<String> {
        faults::lines(&self.records().await)
    }

    fn writes(&self) -> usize {
        self.table.interceptor().writes()
    }
}

fn verified(lines: &[String]) -> Verified {
    let mut verifier = Verifier::new(false);
    lines.iter().for_each(|line| verifier.line(line));
    verifier.finish()
}

fn event(line: &str) -> Event<'_> {
    serde_json::from_str(line).unwrap()
}

#[tokio::test]
async fn event_has_caller_and_operation_and_no_secret() {
    let scene = scene(SETTINGS);
    scene.tell(CHANGE, &known("k"), 200).await.unwrap();
    let printed = scene.printed();
    assert_eq!(printed.len(), 1);
    let event = event(&printed[0]);
    let writer = event.writer.as_ref();
    assert_eq!(writer.len(), 16);
    let expected = format!(
        concat!(
            r#"{{"audit":2,"time":"2026-01-02T03:59:59Z","writer":"{}","seq":0,"prev":"{}","request_id":"r","#,
            r#""dialect":"rustfs","operation":"kms:Anything","class":"mutation","method":"POST","path":"/a","#,
            r#""principal":"alice","key_id":"k","key_version":2,"context":["tenant"],"address":"127.0.0.1","#,
            r#""status":200,"duration_us":7,"hash":"{}"}}"#
        ),
        writer,
        "A".repeat(43),
        event.hash.as_ref().unwrap(),
    );
    assert_eq!(printed[0], expected);

    let scene = self::scene(AuditWriterSettings {
        contexts: Contexts::Values,
        ..SETTINGS
    });
    scene.tell(CHANGE, &known("k"), 200).await.unwrap();
    let printed = scene.printed();
    assert_eq!(
        self::event(&printed[0]).context_values,
        Some(BTreeMap::from([(
            "tenant".to_owned(),
            "canary-value".to_owned()
        )]))
    );
}

#[tokio::test]
async fn path_too_long_or_with_line_breaks_is_one_short_line() {
    let scene = scene(SETTINGS);
    let path = format!("/\n\"{}", "ä".repeat(400));
    let subject = known("k");
    scene
        .told(READ, &subject, 404, async |told| {
            let told = Answered {
                raw_path: &path,
                ..*told
            };
            scene.audit_writer.began(told.dialect);
            scene.audit_writer.answered(&told).await.unwrap();
        })
        .await;
    let printed = scene.printed();
    assert_eq!(printed.len(), 1);
    let path = event(&printed[0]).path.unwrap().into_owned();
    assert!(path.starts_with("/\n\"ä") && path.len() <= 300, "{path}");
    assert_eq!(verified(&printed).findings, []);
}

#[tokio::test]
async fn mutation_or_refusal_of_a_known_caller_flushes_the_batch() {
    let scene = scene(SETTINGS);
    for (class, status) in [(READ, 200), (KEY, 200)] {
        scene.tell(class, &known("k"), status).await.unwrap();
    }
    assert_eq!((scene.writes(), scene.printed().len()), (0, 2));
    scene.tell(CHANGE, &known("k"), 200).await.unwrap();
    assert_eq!((scene.writes(), scene.kept().await), (1, scene.printed()));
    scene.tell(KEY, &known("k"), 200).await.unwrap();
    for class in [READ, KEY, CHANGE] {
        scene.tell(class, &known("k"), 403).await.unwrap();
        assert_eq!(scene.kept().await, scene.printed());
    }
    assert_eq!(scene.writes(), 4);
    assert_eq!(verified(&scene.kept().await).findings, []);
}

#[tokio::test]
async fn data_key_events_reach_the_table_in_batches() {
    let scene = scene(SETTINGS);
    for _ in 0..399 {
        scene.tell(KEY, &known("k"), 200).await.unwrap();
    }
    assert_eq!(scene.writes(), 0);
    scene.tell(KEY, &known("k"), 200).await.unwrap();
    assert_eq!(scene.kept().await, scene.printed());
    assert_eq!(scene.writes(), 1);
    scene.tell(KEY, &known("k"), 200).await.unwrap();
    scene.clock.advance(Duration::from_millis(249));
    scene.tell(KEY, &known("k"), 200).await.unwrap();
    assert_eq!(scene.writes(), 1);
    scene.clock.advance(Duration::from_millis(1));
    scene.tell(KEY, &known("k"), 200).await.unwrap();
    assert_eq!((scene.writes(), scene.kept().await), (2, scene.printed()));
}

#[tokio::test]
async fn verification_finds_the_events_lost_in_a_broken_record() {
    let scene = scene(SETTINGS);
    for _ in 0..400 {
        scene.tell(KEY, &known("k"), 200).await.unwrap();
    }
    scene.tell(CHANGE, &known("k"), 200).await.unwrap();
    let mut records = scene.records().await;
    assert_eq!(verified(&faults::lines(&records)).findings, []);
    let whole = &mut records[0].value;
    assert!(whole.len() * 3 < 400 * 500, "compressed: {}", whole.len());
    whole.truncate(whole.len() / 2);
    // The findings are the broken record and its lost events; the record is found also where none follows it.
    let findings = verified(&faults::lines(&records)).findings;
    assert!(findings.contains(&Finding::Unreadable { line: 1 }));
    assert!(findings.len() > 1, "{findings:?}");
    let findings = verified(&faults::lines(&records[..1])).findings;
    assert_eq!(findings, [Finding::Unreadable { line: 1 }]);
}

#[tokio::test]
async fn events_wait_as_long_as_the_settings_say() {
    let scene = scene(AuditWriterSettings {
        batch_age: Duration::from_secs(10),
        ..SETTINGS
    });
    scene.tell(KEY, &known("k"), 200).await.unwrap();
    scene.clock.advance(Duration::from_millis(9999));
    scene.tell(KEY, &known("k"), 200).await.unwrap();
    assert_eq!(scene.writes(), 0);
    scene.clock.advance(Duration::from_millis(1));
    scene.tell(KEY, &known("k"), 200).await.unwrap();
    assert_eq!(scene.writes(), 1);
    assert_eq!(scene.kept().await, scene.printed());
}

#[tokio::test]
async fn background_task_writes_pending_events() {
    let settings = AuditWriterSettings {
        flushing: Flushing::ByTask,
        ..SETTINGS
    };
    let scene = scene(settings);
    let told = async {
        scene.tell(KEY, &known("k"), 200).await.unwrap();
        scene.clock.advance(Duration::from_secs(1));
        scene.tell(KEY, &known("k"), 200).await.unwrap();
        assert_eq!(scene.writes(), 0, "nobody waits for it");
        while scene.kept().await.len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let both = async {
        tokio::select! {
            () = scene.audit_writer.keep_flushing() => {}
            () = told => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(30), both)
        .await
        .expect("it is written");
    assert_eq!(scene.kept().await, scene.printed());
}

#[tokio::test]
async fn flood_of_unauthenticated_requests_is_counted_in_few_writes() {
    let scene = scene(SETTINGS);
    let unauthenticated = Subject::default();
    let with_certificate = Subject {
        principal: Some("anybody".into()),
        ..Subject::default()
    };
    for second in 0..60 {
        for _ in 0..100 {
            scene.tell(CHANGE, &unauthenticated, 401).await.unwrap();
            scene.tell(READ, &with_certificate, 403).await.unwrap();
            scene.tell(READ, &unauthenticated, 200).await.unwrap();
        }
        scene.clock.advance(Duration::from_secs(1));
        assert!(scene.writes() <= second + 2, "{}", scene.writes());
    }
    scene.audit_writer.finish().await;
    assert!(scene.writes() <= 61, "{}", scene.writes());
    let printed = scene.printed();
    let requests = printed.iter().filter(|line| event(line).is_of_request());
    assert_eq!(requests.count(), 60 * 300, "each is on standard output");
    assert_eq!(verified(&printed).findings, []);
    let kept = scene.kept().await;
    assert_eq!(verified(&kept).findings, [], "the table has no gap");
    let (mut sampled, mut counted, mut summaries) = (0, BTreeMap::new(), 0);
    for line in &kept {
        let event = event(line);
        if event.is_of_request() {
            sampled += 1;
        } else {
            assert_eq!(event.operation, "audit:Strangers");
            summaries += 1;
            for (outcome, count) in event.counts.unwrap() {
                *counted.entry(outcome).or_insert(0) += count;
            }
        }
    }
    assert!((55..=60).contains(&sampled), "{sampled}");
    assert!((5..=7).contains(&summaries), "{summaries}");
    let counts: Vec<_> = counted.keys().map(String::as_str).collect();
    assert_eq!(counts, ["answered", "refused"]);
    assert_eq!(counted.values().sum::<u64>() + sampled, 60 * 300);
}

#[tokio::test]
async fn request_while_the_table_fails_is_refused_and_recorded_later() {
    let scene = scene(SETTINGS);
    scene
        .table
        .interceptor()
        .fails
        .store(true, Ordering::Relaxed);
    // Not even the first, though nothing has failed yet.
    assert!(!scene.may(CHANGE).await && !scene.may(KEY).await);
    let tried = scene.writes();
    for _ in 0..10 {
        assert!(!scene.may(KEY).await);
        // A refusal does not wait for the failed write either.
        assert_eq!(scene.tell(KEY, &known("k"), 403).await, Err(Unrecorded));
    }
    assert_eq!(scene.writes(), tried);
    scene.clock.advance(Duration::from_secs(1));
    assert!(!scene.may(KEY).await);
    assert_eq!(scene.writes(), tried + 1, "it is tried again");
    let failures = scene.audit_writer.metrics().failures;
    assert_eq!(failures, u64::try_from(scene.writes()).unwrap());
    scene
        .table
        .interceptor()
        .fails
        .store(false, Ordering::Relaxed);
    scene.clock.advance(Duration::from_secs(1));
    assert!(scene.may(KEY).await && scene.may(CHANGE).await);
    assert_eq!(scene.kept().await, scene.printed());
    assert_eq!(verified(&scene.kept().await).findings, []);

    // A request that began before is not answered.
    scene
        .table
        .interceptor()
        .fails
        .store(true, Ordering::Relaxed);
    assert_eq!(scene.tell(CHANGE, &known("k"), 200).await, Err(Unrecorded));
    assert!(!scene.may(CHANGE).await);
}

#[tokio::test]
async fn request_while_standard_output_fails_is_refused() {
    let scene = scene(SETTINGS);
    assert!(scene.may(KEY).await);
    scene.output.fails.store(true, Ordering::Relaxed);
    assert_eq!(scene.tell(KEY, &known("k"), 200).await, Err(Unrecorded));
    assert!(!scene.may(KEY).await && !scene.may(CHANGE).await);
    assert_eq!(scene.audit_writer.metrics().failures, 1);
    scene.output.fails.store(false, Ordering::Relaxed);
    assert!(!scene.may(KEY).await, "it has just failed");
    scene.clock.advance(Duration::from_secs(1));
    assert!(scene.may(KEY).await && scene.may(CHANGE).await);
    scene.audit_writer.finish().await;
    // The table has events that standard output lacks.
    assert_eq!(verified(&scene.kept().await).findings, []);
    let missing = &verified(&scene.printed()).findings;
    assert!(
        matches!(
            missing[..],
            [Finding::Missing {
                first: 1,
                last: 1,
                ..
            }]
        ),
        "{missing:?}"
    );
}

#[tokio::test]
async fn concurrent_requests_share_one_write_and_its_failure() {
    let scene = scene(SETTINGS);
    assert!(scene.may(KEY).await);
    // A slow request of another caller.
    scene.audit_writer.began("rustfs");
    let subjects: Vec<_> = (0..32).map(|n| known(&format!("key-{n}"))).collect();
    let all = || join_all(subjects.iter().map(|subject| scene.tell(KEY, subject, 200)));
    let before = scene.output.writes.load(Ordering::Relaxed);
    assert_eq!(all().await, vec![Ok(()); 32]);
    assert_eq!(scene.output.writes.load(Ordering::Relaxed), before + 1);
    let printed = scene.printed().concat();
    assert!((0..32).all(|n| printed.contains(&format!("\"key-{n}\""))));

    scene.output.fails.store(true, Ordering::Relaxed);
    assert_eq!(all().await, vec![Err(Unrecorded); 32]);
    scene.output.fails.store(false, Ordering::Relaxed);
    // A later request does not count as one of those.
    assert_eq!(all().await, vec![Ok(()); 32]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_of_many_threads_form_one_chain() {
    const THREADS: u64 = 8;
    const EACH: u64 = 500;
    let scene = Arc::new(scene(SETTINGS));
    assert!(scene.may(KEY).await);
    let tasks: Vec<_> = (0..THREADS)
        .map(|thread| {
            let scene = Arc::clone(&scene);
            tokio::spawn(async move {
                for n in 0..EACH {
                    let subject = known(&format!("key-{thread}-{n}"));
                    // Some requests flush all events before their own.
                    let class = if n % 10 == 0 { CHANGE } else { KEY };
                    scene.tell(class, &subject, 200).await.unwrap();
                    assert!(scene.output.has(&format!("\"key-{thread}-{n}\"")));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    scene.audit_writer.finish().await;
    for lines in [scene.printed(), scene.kept().await] {
        let verified = verified(&lines);
        assert_eq!(verified.findings, []);
        // One event is about the log itself.
        assert_eq!(u64::try_from(lines.len()).unwrap(), THREADS * EACH + 1);
    }
}

#[tokio::test]
async fn answer_dropped_before_it_is_recorded_leaves_its_line() {
    let scene = scene(SETTINGS);
    assert!(scene.may(KEY).await);
    scene.audit_writer.began("rustfs");
    let subject = known("left");
    let mut telling = Box::pin(scene.tell(KEY, &subject, 200));
    assert!(telling.as_mut().now_or_never().is_none());
    assert!(!scene.printed().concat().contains("left"));
    drop(telling);
    assert!(scene.printed().concat().contains("left"));
    assert_eq!(verified(&scene.printed()).findings, []);
}

#[tokio::test]
async fn best_effort_mode_refuses_no_request() {
    let scene = scene(AuditWriterSettings {
        strictness: Strictness::BestEffort,
        ..SETTINGS
    });
    scene
        .table
        .interceptor()
        .fails
        .store(true, Ordering::Relaxed);
    scene.output.fails.store(true, Ordering::Relaxed);
    for class in [READ, KEY, CHANGE] {
        assert!(scene.may(class).await);
        assert_eq!(scene.tell(class, &known("k"), 200).await, Ok(()));
    }
    assert!(scene.writes() > 0);
}

#[tokio::test]
async fn chain_in_the_table_counts_the_events_it_lacks() {
    let scene = scene(AuditWriterSettings {
        strictness: Strictness::BestEffort,
        ..SETTINGS
    });
    scene
        .table
        .interceptor()
        .fails
        .store(true, Ordering::Relaxed);
    for _ in 0..17_000 {
        scene.tell(KEY, &known("k"), 200).await.unwrap();
    }
    scene
        .table
        .interceptor()
        .fails
        .store(false, Ordering::Relaxed);
    scene.clock.advance(Duration::from_secs(1));
    scene.tell(CHANGE, &known("k"), 200).await.unwrap();
    scene.tell(CHANGE, &known("k"), 200).await.unwrap();
    scene.audit_writer.finish().await;
    assert_eq!(verified(&scene.printed()).findings, []);
    let kept = scene.kept().await;
    let Verified {
        writers, findings, ..
    } = verified(&kept);
    assert_eq!(findings, []);
    assert!(writers[0].lost > 0);
    assert_eq!(
        writers[0].count + writers[0].lost,
        scene.printed().len() as u64
    );
    // A removed event makes this count wrong.
    let cut: Vec<String> = [&kept[..5], &kept[6..]].concat();
    assert_eq!(verified(&cut).findings.len(), 1);
}

#[tokio::test]
async fn request_dropped_during_its_write_loses_no_event() {
    let scene = scene(SETTINGS);
    scene
        .table
        .interceptor()
        .hangs
        .store(true, Ordering::Relaxed);
    let subject = known("k");
    let dropped = scene.tell(CHANGE, &subject, 200).now_or_never();
    assert!(dropped.is_none(), "it waited for the table");
    scene
        .table
        .interceptor()
        .hangs
        .store(false, Ordering::Relaxed);
    scene.tell(CHANGE, &subject, 200).await.unwrap();
    assert_eq!(scene.kept().await, scene.printed());
    assert_eq!(scene.printed().len(), 2);
}

#[tokio::test]
async fn abandoned_request_is_recorded() {
    let scene = scene(SETTINGS);
    let subject = known("k");
    scene
        .told(CHANGE, &subject, 499, async |told| {
            scene.audit_writer.abandoned(told);
        })
        .await;
    assert_eq!(event(&scene.printed()[0]).status, Some(499));
    scene.audit_writer.finish().await;
    assert_eq!(scene.kept().await, scene.printed());
}

#[tokio::test]
async fn records_expire_after_the_retention() {
    for (retention_days, kept_for) in [(90, Some(90)), (1, Some(1)), (0, None)] {
        let scene = scene(AuditWriterSettings {
            retention_days,
            ..SETTINGS
        });
        scene.tell(CHANGE, &known("k"), 200).await.unwrap();
        let record = &scene.records().await[0];
        let begun: Timestamp = "2026-01-02T03:59:59Z".parse().unwrap();
        let expected = kept_for.map(|days| begun + Duration::from_secs(days * 24 * 3600));
        assert_eq!(record.expires_at, expected);
        assert!(
            record.id.starts_with("20260102T035959.000000Z."),
            "{}",
            record.id
        );
    }
}

/// Several records on both sides of an hour.
async fn some() -> Scene {
    let scene = scene(SETTINGS);
    for n in 0..20 {
        let subject = known(if n % 2 == 0 { "even" } else { "odd" });
        let class = if n % 5 == 4 { CHANGE } else { KEY };
        scene.tell(class, &subject, 200).await.unwrap();
        scene.clock.advance(Duration::from_millis(100));
    }
    scene.audit_writer.finish().await;
    scene
}

#[tokio::test]
async fn verification_finds_events_removed_altered_or_moved() {
    let scene = some().await;
    let whole = scene.kept().await;
    assert_eq!(whole.len(), 20);
    let writer = event(&whole[0]).writer.into_owned();
    let all_well = verified(&whole);
    assert_eq!(all_well.findings, []);
    assert_eq!(all_well.writers[0].last, 19);
    let of = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = whole.clone();
        change(&mut lines);
        verified(&lines).findings
    };
    let missing = |first, last| Finding::Missing {
        writer: writer.clone(),
        first,
        last,
    };
    let altered = |seq| Finding::Altered {
        writer: writer.clone(),
        seq,
    };
    assert_eq!(of(&|lines| drop(lines.remove(7))), [missing(7, 7)]);
    assert_eq!(of(&|lines| drop(lines.drain(3..6))), [missing(3, 5)]);
    assert_eq!(of(&|lines| drop(lines.remove(0))), [missing(0, 0)]);
    for (from, to) in [
        ("alice", "mallory"),
        ("\"status\":200", "\"status\":403"),
        ("\"key_version\":2,", ""),
        ("03:59", "03:58"),
        ("\"class\":", "\"error\":\"x\",\"class\":"),
    ] {
        let found = of(&|lines| lines[1] = lines[1].replace(from, to));
        assert_eq!(found, [altered(1)], "{from} {to}");
    }
    let found = of(&|lines| lines[4] = lines[4].replace("\"status\"", "\"other\""));
    assert_eq!(found, [Finding::Unreadable { line: 5 }, missing(4, 4)]);
    let moved = of(&|lines| lines.swap(8, 9));
    assert_eq!(
        moved,
        [Finding::Reordered {
            writer: writer.clone(),
            seq: 8
        }]
    );
    let twice = of(&|lines| lines.insert(3, lines[2].clone()));
    assert_eq!(
        twice,
        [Finding::Repeated {
            writer: writer.clone(),
            seq: 2
        }]
    );
    // A new hash of an event changes the hashes of all that follow.
    let forged = of(&|lines| {
        let altered = lines[9].replace("alice", "mallory");
        let (bare, _) = altered.split_once(",\"hash\"").unwrap();
        let hash = keyway_crypto::sha256(&[format!("{bare}}}").as_bytes()]);
        let hash = URL_SAFE_NO_PAD.encode(hash);
        lines[9] = format!("{bare},\"hash\":\"{hash}\"}}");
    });
    assert_eq!(forged, [altered(10)]);
    // Fields in another order, as a collector may write them, are the same event.
    let other_order = of(&|lines| {
        let (start, end) = lines[6].split_once(",\"status\":200").unwrap();
        lines[6] = format!(
            "{}{end}",
            start.replacen("{\"audit\":2", "{\"audit\":2,\"status\":200", 1)
        );
    });
    assert_eq!(other_order, []);
}

#[tokio::test]
async fn verification_with_a_known_head_finds_a_truncated_log() {
    let scene = some().await;
    let whole = scene.kept().await;
    let (last, cut) = whole.split_last().unwrap();
    assert_eq!(verified(cut).findings, [], "the chain alone cannot show it");
    let last = event(last);
    let with = |lines: &[String], hash: &str| {
        let mut verifier = Verifier::new(false);
        verifier.expect(
            format!("{}:{}:{hash}", last.writer, last.seq)
                .parse()
                .unwrap(),
        );
        lines.iter().for_each(|line| verifier.line(line));
        verifier.finish().findings
    };
    let hash = last.hash.as_deref().unwrap();
    assert_eq!(with(&whole, hash), []);
    assert!(matches!(
        with(cut, hash)[..],
        [Finding::CutOff { seq: 19, .. }]
    ));
    assert!(matches!(
        with(&whole, "0")[..],
        [Finding::Altered { seq: 19, .. }]
    ));
    // A log that begins in the middle verifies from there on.
    let mut verifier = Verifier::new(true);
    whole[5..].iter().for_each(|line| verifier.line(line));
    assert_eq!(verifier.finish().findings, []);
}

/// A log in whose middle the clock was set back by this much.
async fn set_back(by: Duration) -> Scene {
    let scene = scene(SETTINGS);
    let setting = [7, 12];
    for n in 0..20 {
        if setting.contains(&n) {
            scene.clock.set(scene.clock.now() - by);
        }
        let class = if n % 5 == 4 { CHANGE } else { KEY };
        scene.tell(class, &known("k"), 200).await.unwrap();
        scene.clock.advance(Duration::from_millis(100));
    }
    scene.audit_writer.finish().await;
    scene
}

#[tokio::test]
async fn clock_set_back_is_no_finding_and_hides_none() {
    for by in [1, 2, 3600, 2 * 3600 + 1, 26 * 3600, 400 * 24 * 3600] {
        let scene = set_back(Duration::from_secs(by)).await;
        let kept = scene.kept().await;
        assert_eq!(kept.len(), 20, "{by}");
        let verify = |lines: &[String]| {
            let mut verifier = Verifier::new(false).in_any_order();
            lines.iter().for_each(|line| verifier.line(line));
            verifier.finish()
        };
        let Verified {
            writers, findings, ..
        } = verify(&kept);
        assert_eq!(findings, [], "{by}");
        assert_eq!((writers[0].first, writers[0].last), (0, 19));
        // Standard output has them as they were written.
        assert_eq!(verified(&scene.printed()).findings, []);
        for cut in 0..19 {
            let mut lines = kept.clone();
            lines.retain(|line| event(line).seq != cut);
            assert!(
                matches!(verify(&lines).findings[..], [Finding::Missing { first, last, .. }] if first == cut && last == cut),
                "{by} {cut}"
            );
            let mut lines = kept.clone();
            for line in &mut lines {
                if event(line).seq == cut {
                    *line = line.replace("alice", "mallory");
                }
            }
            assert!(
                matches!(verify(&lines).findings[..], [Finding::Altered { seq, .. }] if seq == cut),
                "{by} {cut}"
            );
        }
    }
}

#[tokio::test]
async fn clock_set_back_hides_no_event_from_pages() {
    for by in [2, 3600] {
        let scene = set_back(Duration::from_secs(by)).await;
        let times: Vec<Timestamp> = (scene.printed().iter())
            .map(|line| event(line).time.parse().unwrap())
            .collect();
        let log = TableLog::new(scene.table.clone(), scene.clock.clone());
        let (first, last) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
        for (since, until) in [
            (Some(first), None),
            (Some(first), Some(last)),
            (Some(times[7]), Some(times[9])),
            (Some(times[12]), Some(times[3])),
            (Some(times[5]), Some(last)),
        ] {
            let mut found = Vec::new();
            let mut marker = None;
            loop {
                let query = EventQuery {
                    since,
                    until,
                    marker,
                    limit: 3,
                    ..EventQuery::default()
                };
                let page = log.page(&query).await.unwrap();
                found.extend(page.events.iter().map(|line| event(line).seq));
                marker = page.next;
                if marker.is_none() {
                    break;
                }
            }
            found.sort_unstable();
            let expected: Vec<u64> = (0_u64..)
                .zip(&times)
                .filter(|(_, time)| {
                    since.is_none_or(|since| **time >= since)
                        && until.is_none_or(|until| **time < until)
                })
                .map(|(seq, _)| seq)
                .collect();
            assert_eq!(found, expected, "{by} {since:?} {until:?}");
        }
    }
}

fn item(key: &str, error: Option<&'static str>) -> Item {
    Item {
        key_id: Some(key.to_owned()),
        key_version: Some(3),
        source_key: Some(("old".to_owned(), Some(1))),
        context: Some(Context::Pairs(vec![(
            "tenant".to_owned(),
            "canary-value".to_owned(),
        )])),
        error,
    }
}

#[tokio::test]
async fn bulk_request_is_split_into_events_of_bounded_length() {
    let scene = scene(SETTINGS);
    let items: Vec<Item> = (0..1000)
        .map(|n| item(&format!("{n:03}-{}", "k".repeat(100)), None))
        .collect();
    let subject = Subject {
        items: items.clone(),
        ..known("k")
    };
    scene.tell(KEY, &subject, 200).await.unwrap();
    let printed = scene.printed();
    assert!(printed.len() > 10 && printed.iter().all(|line| line.len() < 16 << 10));
    let mut told = Vec::new();
    for line in &printed {
        let event = event(line);
        assert_eq!(event.first_item, Some(told.len() as u64));
        assert_eq!(event.item_count, Some(1000));
        assert_eq!(event.goes_on(), !told.is_empty());
        for item in event.items.unwrap() {
            assert_eq!(item.source_key_id.as_deref(), Some("old"));
            assert_eq!(
                (item.key_version, item.source_key_version),
                (Some(3), Some(1))
            );
            assert_eq!(item.context.as_deref(), Some(&["tenant".into()][..]));
            assert!(item.context_values.is_none());
            told.push(item.key_id.unwrap().into_owned());
        }
    }
    let expected: Vec<String> = items
        .iter()
        .filter_map(|item| item.key_id.clone())
        .collect();
    assert_eq!(told, expected);
    assert_eq!(verified(&printed).findings, []);
    scene.audit_writer.finish().await;
    assert_eq!(scene.kept().await, printed);
    assert!(
        scene
            .records()
            .await
            .iter()
            .all(|record| record.value.len() <= 300 << 10)
    );
}

#[tokio::test]
async fn pages_hold_the_events_asked_for() {
    let scene = some().await;
    let whole = scene.kept().await;
    let log = TableLog::new(scene.table.clone(), scene.clock.clone());
    for limit in [1, 3, 7, 1000] {
        for (query, expected) in [
            (EventQuery::default(), whole.clone()),
            (
                EventQuery {
                    key_id: Some("odd".to_owned()),
                    ..EventQuery::default()
                },
                whole.iter().skip(1).step_by(2).cloned().collect(),
            ),
            (
                EventQuery {
                    since: Some("2026-01-02T04:00:00Z".parse().unwrap()),
                    until: Some("2026-01-02T04:00:00.5Z".parse().unwrap()),
                    ..EventQuery::default()
                },
                whole[10..15].to_vec(),
            ),
            (
                EventQuery {
                    principal: Some("bob".to_owned()),
                    ..EventQuery::default()
                },
                Vec::new(),
            ),
        ] {
            let (mut found, mut marker) = (Vec::new(), None);
            loop {
                let page = log
                    .page(&EventQuery {
                        limit,
                        marker,
                        ..query.clone()
                    })
                    .await
                    .unwrap();
                assert!(page.events.len() <= limit);
                found.extend(page.events.iter().map(|line| line.to_string()));
                marker = page.next;
                if marker.is_none() {
                    break;
                }
            }
            assert_eq!(found, expected, "{limit} {query:?}");
        }
    }
    for marker in [
        "",
        "x",
        "20260102T0",
        "20261302T03",
        "20260102T03/x",
        "äääääääääää",
    ] {
        let query = EventQuery {
            limit: 1,
            marker: Some(marker.to_owned()),
            ..EventQuery::default()
        };
        assert!(log.page(&query).await.is_err(), "{marker}");
    }
}
