//! Reading a whole log from a table whose logs are divided by the hour.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use keyway_audit::TableLog;
use keyway_domain::ports::{
    Clock, InterceptedTable, Kind, Random, Record, Revision, SecretStore, StoreError, TableCall,
    TableInterceptor, TableWriter,
};
use keyway_testkit::{FixedClock, MemorySecrets, MemoryTable, SeededRandom, signed_table};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Counts the pages that are read.
#[derive(Default)]
struct Pages(AtomicUsize);

impl TableInterceptor for Pages {
    async fn intercept<T: Send>(
        &self,
        call: TableCall<'_>,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.0.fetch_add(
            usize::from(matches!(call, TableCall::Page)),
            Ordering::Relaxed,
        );
        run.await
    }
}

struct Scene {
    clock: Arc<FixedClock>,
    table: Arc<MemoryTable>,
}

fn scene() -> Scene {
    let clock = Arc::new(FixedClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
    let table = Arc::new(MemoryTable::in_parts(clock.clone()));
    Scene { clock, table }
}

impl Scene {
    async fn make_deployment(&self) {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(5));
        let secrets: Arc<dyn SecretStore> = Arc::new(MemorySecrets::new());
        let made = signed_table(&self.table, secrets, &clock, &random).await;
        made.unwrap();
    }

    /// Writes a record of the log that has the present time.
    async fn put(&self) -> String {
        let now = self.clock.now();
        let id = now.strftime("%Y%m%dT%H%M%S.000000Z.w.000000000000");
        let record = Record {
            kind: Kind::Audit,
            id: id.to_string(),
            revision: Revision([1; 16]),
            value: Vec::new(),
            expires_at: None,
        };
        self.table.put_new(&record).await.unwrap();
        record.id
    }

    /// The ids of the records in the span, and how many pages were read for them.
    async fn read(&self, until: Option<Timestamp>) -> (Vec<String>, usize) {
        let watched = InterceptedTable::new(self.table.clone(), Pages::default());
        let watched = Arc::new(watched);
        let mut ids = Vec::new();
        let log = TableLog::new(watched.clone(), self.clock.clone());
        let each = |record: Record| ids.push(record.id);
        log.records(Kind::Audit, None, until, each).await.unwrap();
        let pages = watched.interceptor().0.load(Ordering::Relaxed);
        (ids, pages)
    }
}

#[tokio::test]
async fn whole_log_of_a_new_deployment_is_read_in_few_queries() {
    let scene = scene();
    scene.make_deployment().await;
    let id = scene.put().await;
    let (ids, pages) = scene.read(None).await;
    assert_eq!(ids, [id]);
    // 25 hours before, as many after, the hours at both ends, the deployment's record, and a try to read all at once.
    assert!(pages <= 54, "{pages}");
}

#[tokio::test]
async fn whole_log_goes_back_to_the_beginning_of_the_deployment() {
    let scene = scene();
    scene.make_deployment().await;
    // A process whose clock is behind.
    let made = scene.clock.now();
    scene.clock.set(made - Duration::from_secs(24 * 3600));
    let mut expected = vec![scene.put().await];
    scene.clock.set(made);
    expected.push(scene.put().await);
    scene.clock.advance(900 * DAY);
    expected.push(scene.put().await);
    assert_eq!(scene.read(None).await.0, expected);
    let until = Some(made + DAY);
    assert_eq!(scene.read(until).await.0, expected[..2]);
}

#[tokio::test]
async fn whole_log_of_a_table_without_a_deployment_goes_back_a_year() {
    let scene = scene();
    let expired = scene.put().await;
    scene.clock.advance(30 * DAY);
    let id = scene.put().await;
    scene.clock.advance(350 * DAY);
    let (ids, _) = scene.read(None).await;
    assert_eq!(ids, [id]);
    assert!(!ids.contains(&expired));
}
