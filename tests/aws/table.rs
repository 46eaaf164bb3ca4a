//! The Table port on DynamoDB: the contract, without faults and with lost requests and answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use keyway_deployment_assembly::{SystemClock, SystemRandom};
use keyway_domain::ports::{
    Clock, Consistency, Kind, Random, Record, Revision, StoreError, TableReader, TableWriter,
};
use keyway_store_dynamodb::DynamoTable;
use keyway_testkit::table_contract;
use keyway_tests::{Aws, Fate, Proxy};
use tokio::task::JoinSet;

fn table(aws: &Aws, endpoint: &str, name: &str) -> Arc<DynamoTable> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    Arc::new(DynamoTable::new(&aws.config_at(endpoint), name, clock))
}

#[tokio::test(flavor = "multi_thread")]
async fn table_keeps_the_contract() {
    let Some(aws) = Aws::here() else { return };
    let name = aws.table().await;
    table_contract::run_all_up_to(
        aws.largest_value(),
        async |clock| Arc::new(DynamoTable::new(&aws.config(), name.as_str(), clock)) as _,
        &SystemRandom::default(),
    )
    .await;
}

/// Among this many requests there is one of each fault: throttling, failure, lost request, lost answer, delay.
fn faults(among: u64) -> impl Fn(u64, &str) -> Fate {
    move |number, _| match number % among {
        1 => Fate::Throttle,
        6 => Fate::LoseAnswer,
        9 => Fate::LoseRequest,
        11 => Fate::Fail,
        13 => Fate::Delay(Duration::from_millis(20)),
        _ => Fate::Pass,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn table_under_faults_keeps_the_contract() {
    let Some(aws) = Aws::here() else { return };
    let name = aws.table().await;
    let proxy = Proxy::before(&aws.endpoint).await;
    // The contract tolerates no failure, so there are no more faults than the SDK's retries can absorb.
    proxy.judge(faults(97));
    table_contract::run_all_up_to(
        aws.largest_value(),
        async |clock| {
            Arc::new(DynamoTable::new(
                &aws.config_at(&proxy.endpoint),
                name.as_str(),
                clock,
            )) as _
        },
        &SystemRandom::default(),
    )
    .await;
    assert!(proxy.count() > 300, "the weather was there");
}

/// Sixteen writers each add their own words to one record. A write that acts twice adds a word twice; an acknowledged write
/// that is lost leaves a word out.
#[tokio::test(flavor = "multi_thread")]
async fn writers_under_faults_act_once_each() {
    const WRITERS: usize = 16;
    const WORDS: usize = 8;
    let Some(aws) = Aws::here() else { return };
    let name = aws.table().await;
    let proxy = Proxy::before(&aws.endpoint).await;
    let calm = table(&aws, &aws.endpoint, &name);
    calm.put_new(&record("words", String::new())).await.unwrap();
    proxy.judge(faults(15));
    let unknown = Arc::new(AtomicUsize::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let table = table(&aws, &proxy.endpoint, &name);
        let unknown = Arc::clone(&unknown);
        writers.spawn(async move {
            for word in 0..WORDS {
                add(&table, &format!("{writer}-{word}"), &unknown).await;
            }
        });
    }
    writers.join_all().await;
    let last = read(&calm).await;
    let words: Vec<&str> = last.split_whitespace().collect();
    let different: BTreeSet<&str> = words.iter().copied().collect();
    assert_eq!(words.len(), different.len(), "a write was done twice");
    assert_eq!(different.len(), WRITERS * WORDS, "a write was lost");
    let unknown = unknown.load(Ordering::Relaxed);
    assert!(
        unknown * 20 < WRITERS * WORDS,
        "{unknown} outcomes were unknown"
    );
}

/// Adds a word. If the table cannot tell whether it did, reads the record to find out.
async fn add(table: &DynamoTable, word: &str, unknown: &AtomicUsize) {
    loop {
        let current = match table.get(Kind::Key, "words", Consistency::Strong).await {
            Ok(current) => current.unwrap(),
            Err(StoreError::Throttled | StoreError::Failed { .. } | StoreError::Away(_)) => {
                continue;
            }
            Err(error) => panic!("{error:?}"),
        };
        let text = String::from_utf8(current.value.clone()).unwrap();
        let next = record("words", format!("{text} {word}"));
        match table.replace(&next, current.revision).await {
            Ok(()) => return,
            Err(StoreError::Conflict | StoreError::Throttled) => {}
            Err(
                error @ (StoreError::Refused { .. }
                | StoreError::Unavailable(_)
                | StoreError::Busy(_)),
            ) => {
                panic!("{error}")
            }
            Err(error @ (StoreError::Failed { .. } | StoreError::Away(_))) => {
                // The others are requests that failed in every try of the SDK.
                if matches!(error, StoreError::Failed { what, .. } if what == "tell whether a write took place")
                {
                    unknown.fetch_add(1, Ordering::Relaxed);
                }
                loop {
                    if let Ok(Some(now)) = table.get(Kind::Key, "words", Consistency::Strong).await
                    {
                        if String::from_utf8(now.value)
                            .unwrap()
                            .split(' ')
                            .any(|w| w == word)
                        {
                            return;
                        }
                        break;
                    }
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn read(table: &DynamoTable) -> String {
    let record = table.get(Kind::Key, "words", Consistency::Strong).await;
    String::from_utf8(record.unwrap().unwrap().value).unwrap()
}

fn record(id: &str, value: String) -> Record {
    let mut revision = [0; 16];
    SystemRandom::default().fill(&mut revision).unwrap();
    Record {
        kind: Kind::Key,
        id: id.to_owned(),
        revision: Revision(revision),
        value: value.into_bytes(),
        expires_at: None,
    }
}

/// The answer to a write is lost, others write, and the SDK sends the write again: it must not act twice.
#[tokio::test(flavor = "multi_thread")]
async fn write_with_a_lost_answer_is_recognised_after_later_writes() {
    let Some(aws) = Aws::here() else { return };
    for others in [0_usize, 1, 15, 17] {
        let name = aws.table().await;
        let proxy = Proxy::before(&aws.endpoint).await;
        let calm = table(&aws, &aws.endpoint, &name);
        let first = record("words", "0".to_owned());
        calm.put_new(&first).await.unwrap();
        let lost = record("words", "lost".to_owned());
        // The answer to the first try is lost; later tries wait until the others are done.
        let is_lost = Arc::new(AtomicBool::new(false));
        let is_over = Arc::new(AtomicBool::new(false));
        let (first_lost, others_done) = (Arc::clone(&is_lost), Arc::clone(&is_over));
        proxy.judge(move |number, _| match number {
            0 => Fate::LoseAnswer,
            _ => {
                first_lost.store(true, Ordering::SeqCst);
                match others_done.load(Ordering::SeqCst) {
                    true => Fate::Pass,
                    false => Fate::Again(Duration::from_millis(10)),
                }
            }
        });
        let hindered = table(&aws, &proxy.endpoint, &name);
        let (outcome, ()) = tokio::join!(hindered.replace(&lost, first.revision), async {
            while !is_lost.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let mut seen = lost.revision;
            for n in 0..others {
                let next = record("words", format!("{n}"));
                calm.replace(&next, seen).await.unwrap();
                seen = next.revision;
            }
            is_over.store(true, Ordering::SeqCst);
        });
        match others {
            ..=16 => outcome.unwrap(),
            _ => assert!(
                matches!(outcome, Err(StoreError::Failed { .. })),
                "{outcome:?}"
            ),
        }
        let expected = others
            .checked_sub(1)
            .map_or("lost".to_owned(), |last| last.to_string());
        assert_eq!(read(&calm).await, expected, "nothing was written over");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_without_end_is_reported_and_changes_nothing() {
    let Some(aws) = Aws::here() else { return };
    let name = aws.table().await;
    let proxy = Proxy::before(&aws.endpoint).await;
    let (calm, throttled) = (
        table(&aws, &aws.endpoint, &name),
        table(&aws, &proxy.endpoint, &name),
    );
    let first = record("words", "first".to_owned());
    calm.put_new(&first).await.unwrap();
    proxy.judge(|_, _| Fate::Throttle);
    let next = record("words", "next".to_owned());
    let is_throttled =
        |result: Result<(), StoreError>| matches!(result, Err(StoreError::Throttled));
    assert!(is_throttled(throttled.replace(&next, first.revision).await));
    assert!(is_throttled(
        throttled.put_new(&record("new", String::new())).await
    ));
    assert!(is_throttled(
        throttled.remove(Kind::Key, "words", first.revision).await
    ));
    let read = throttled.get(Kind::Key, "words", Consistency::Strong).await;
    assert!(is_throttled(read.map(|_| ())));
    let page = throttled.page(Kind::Key, "", None, 10).await;
    assert!(is_throttled(page.map(|_| ())));
    proxy.judge(|_, _| Fate::Pass);
    let page = throttled.page(Kind::Key, "", None, 10).await.unwrap();
    assert_eq!(page.records, [first]);
}

#[tokio::test(flavor = "multi_thread")]
async fn table_that_does_not_answer_times_out() {
    let Some(aws) = Aws::here() else { return };
    let name = aws.table().await;
    let proxy = Proxy::before(&aws.endpoint).await;
    proxy.judge(|_, _| Fate::Delay(Duration::from_secs(60)));
    let silent = table(&aws, &proxy.endpoint, &name);
    let read = silent.get(Kind::Key, "words", Consistency::Strong);
    let timeout = keyway_aws::OPERATION_TIMEOUT + Duration::from_secs(5);
    let outcome = tokio::time::timeout(timeout, read).await.unwrap();
    assert!(matches!(outcome, Err(StoreError::Away(_))), "{outcome:?}");
}

/// Pages are whole although DynamoDB ends its own at one megabyte.
#[tokio::test(flavor = "multi_thread")]
async fn large_records_are_paged_over() {
    let Some(aws) = Aws::here() else { return };
    let table = table(&aws, &aws.endpoint, &aws.table().await);
    for n in 0..8 {
        let large = "x".repeat(aws.largest_value());
        table
            .put_new(&record(&format!("k{n}"), large))
            .await
            .unwrap();
    }
    let page = table.page(Kind::Key, "k", None, 7).await.unwrap();
    assert_eq!((page.records.len(), page.more), (7, true));
    let page = table.page(Kind::Key, "k", Some("k6"), 7).await.unwrap();
    assert_eq!((page.records.len(), page.more), (1, false));
}
