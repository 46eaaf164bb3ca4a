//! The checks of a deployment through its ports.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use fixture::{Fixture, Process, id, move_to, named, root};
use jiff::Timestamp;
use keyway_domain::access::{
    AccessKeyName, AccessKeys, Credentials, RootAccessKey, WantedAccessKey,
};
use keyway_domain::doctor::{Code, Doctor, Finding, Severity, compare_clocks, worst};
use keyway_domain::keyring::KeyringOnDemand;
use keyway_domain::keys::DeletionWindow;
use keyway_domain::policy::Policy;
use keyway_domain::ports::{
    Clock, Consistency, Kind, Record, Revision, SecretStore, TableReader, TableWriter,
};
use keyway_domain::records::SignedTable;
use keyway_domain::roots::Roots;
use keyway_domain::service::{BackendType, Service};
use keyway_testkit::{MemorySecrets, MemoryTable};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A signed table over the fixture's, and its doctor.
struct Examined {
    fixture: Fixture,
    table: Arc<SignedTable<MemoryTable>>,
    keyring: Arc<KeyringOnDemand>,
}

impl Examined {
    async fn build() -> Self {
        Self::with(Fixture::build().await, None)
    }

    fn with(fixture: Fixture, secrets: Option<Arc<dyn SecretStore>>) -> Self {
        let keyring = Arc::new(KeyringOnDemand::opening(
            fixture.table.clone(),
            secrets.unwrap_or_else(|| fixture.secrets.clone()),
            fixture.clock.clone(),
            fixture.random.clone(),
        ));
        let table = SignedTable::new(fixture.table.clone(), Arc::clone(&keyring));
        Self {
            table: Arc::new(table),
            fixture,
            keyring,
        }
    }

    /// `table`: whose records are taken as verified.
    async fn examine_by(&self, table: Arc<dyn TableReader>) -> Vec<Finding> {
        let fixture = &self.fixture;
        let clock: Arc<dyn Clock> = fixture.clock.clone();
        let service = Service::new(Arc::clone(&table), Arc::clone(&clock), Duration::ZERO);
        let doctor = Doctor {
            table,
            stored: fixture.table.clone(),
            keyring: Arc::clone(&self.keyring),
            wrappers: fixture.process(false).wrappers,
            service: Arc::new(service),
            clock,
        };
        // A check that wrote would fail.
        fixture.table.fail_writes(true);
        let findings = doctor.examine(None).await;
        fixture.table.fail_writes(false);
        findings
    }

    async fn examine(&self) -> Vec<Finding> {
        self.examine_by(self.table.clone()).await
    }

    /// The findings about the records that the fixture's own processes write, which sign none.
    async fn examine_unsigned(&self) -> Vec<Finding> {
        self.examine_by(self.fixture.table.clone()).await
    }

    fn access_keys(&self) -> AccessKeys {
        let fixture = &self.fixture;
        AccessKeys::new(
            self.table.clone(),
            fixture.wrapper.clone(),
            fixture.clock.clone(),
            fixture.random.clone(),
        )
    }

    /// Makes an access key of this name, which a server then sees used.
    async fn used_key(&self, name: &str) -> keyway_domain::access::NewAccessKey {
        let policy = Policy::canned("kms-auditor").unwrap();
        let wanted = WantedAccessKey {
            name: Some(AccessKeyName::parse(name).unwrap()),
            ..WantedAccessKey::new(policy)
        };
        let key = self.access_keys().create_with(wanted).await.unwrap();
        self.use_key(key.id.as_str()).await;
        key
    }

    async fn use_key(&self, id: &str) {
        let fixture = &self.fixture;
        let credentials = Credentials::new(
            self.table.clone(),
            fixture.wrapper.clone(),
            fixture.clock.clone(),
            Duration::ZERO,
            RootAccessKey::InTable,
        );
        let recorder = credentials.record_uses(self.table.clone(), fixture.random.clone());
        credentials.used(&credentials.find(id).await.unwrap().unwrap());
        recorder.record().await.unwrap();
    }
}

fn of(findings: &[Finding], code: Code) -> Vec<&Finding> {
    let found = findings.iter().filter(|finding| finding.code == code);
    found.collect()
}

fn subjects(findings: &[Finding], code: Code) -> Vec<&str> {
    let found = of(findings, code).into_iter();
    found.map(|finding| finding.subject.as_str()).collect()
}

fn codes(findings: &[Finding]) -> Vec<Code> {
    findings.iter().map(|finding| finding.code).collect()
}

#[tokio::test]
async fn new_deployment_has_nothing_above_a_notice() {
    let examined = Examined::build().await;
    examined.used_key("auditor").await;
    let findings = examined.examine().await;
    assert_eq!(
        codes(&findings),
        [
            Code::KeyringOk,
            Code::RootAgeOk,
            Code::RecordsOk,
            Code::ServiceNotConfigured,
            Code::KeysOk,
            Code::WrappersOk,
            Code::AccessKeysOk,
            Code::ClockOk,
        ],
        "{findings:#?}"
    );
    assert_eq!(worst(&findings), Severity::Notice);
    examined.fixture.clock.advance(DAY * 367);
    let findings = examined.examine().await;
    assert_eq!(subjects(&findings, Code::RootOld), ["root key r1"]);
}

#[tokio::test]
async fn root_that_was_rotated_away_is_a_notice_with_its_records() {
    let examined = Examined::build().await;
    examined.used_key("auditor").await;
    let (fixture, clock) = (&examined.fixture, examined.fixture.clock.clone());
    let service = Service::new(examined.table.clone(), clock.clone(), Duration::ZERO);
    let roots = Roots::new(
        fixture.table.clone(),
        examined.table.clone(),
        Arc::clone(&examined.keyring),
        Arc::new(service),
        fixture.process(false).wrappers,
        clock,
        fixture.random.clone(),
    );
    assert_eq!(roots.rotate().await.unwrap(), "r2");
    let findings = examined.examine().await;
    assert_eq!(subjects(&findings, Code::RootFormer), ["root key r1"]);
    assert_eq!(subjects(&findings, Code::RootAgeOk), ["root key r2"]);
    let former = of(&findings, Code::RootFormer);
    let seen = "r2 wraps now; 3 records refer to this one";
    assert_eq!(former.first().unwrap().seen, seen);
}

#[tokio::test]
async fn record_that_was_changed_or_does_not_decode_is_an_error() {
    let examined = Examined::build().await;
    let key = examined.used_key("auditor").await;
    let table = &examined.fixture.table;
    let kind = Kind::AccessKey;
    let seen = table.get(kind, key.id.as_str(), Consistency::Strong).await;
    let seen = seen.unwrap().unwrap();
    let mut forged = Record {
        revision: Revision([9; 16]),
        ..seen.clone()
    };
    forged.value.push(b' ');
    table.replace(&forged, seen.revision).await.unwrap();
    let odd = Record {
        kind: Kind::Key,
        id: "odd".to_owned(),
        revision: Revision([8; 16]),
        value: br#"{"format":9}"#.to_vec(),
        expires_at: None,
    };
    examined.table.put_new(&odd).await.unwrap();
    let findings = examined.examine().await;
    let subject = format!("access-key/{}", key.id.as_str());
    assert_eq!(subjects(&findings, Code::RecordRefused), [subject]);
    assert_eq!(subjects(&findings, Code::RecordUnreadable), ["key/odd"]);
    assert_eq!(worst(&findings), Severity::Error);
}

#[tokio::test]
async fn many_findings_of_one_code_are_counted() {
    let examined = Examined::build().await;
    for number in 0..23 {
        let odd = Record {
            kind: Kind::Key,
            id: format!("odd-{number:02}"),
            revision: Revision([8; 16]),
            value: b"{}".to_vec(),
            expires_at: None,
        };
        examined.fixture.table.put_new(&odd).await.unwrap();
    }
    let findings = examined.examine().await;
    let refused = of(&findings, Code::RecordRefused);
    assert_eq!(refused.len(), 21);
    assert_eq!(refused.last().unwrap().seen, "and 3 more");
}

#[tokio::test]
async fn keyring_that_is_missing_is_an_error_and_the_other_checks_say_so() {
    let empty: Arc<dyn SecretStore> = Arc::new(MemorySecrets::new());
    let examined = Examined::with(Fixture::build().await, Some(empty));
    let findings = examined.examine().await;
    assert_eq!(of(&findings, Code::KeyringUnusable).len(), 1);
    let failed = subjects(&findings, Code::CheckFailed);
    assert_eq!(failed, ["records", "backend", "keys", "access keys"]);
    assert_eq!(findings.last().unwrap().code, Code::ClockOk, "they go on");
}

#[tokio::test]
async fn table_that_is_away_fails_the_checks_and_nothing_else() {
    let examined = Examined::build().await;
    examined.used_key("auditor").await;
    examined.fixture.table.set_away(true);
    let findings = examined.examine().await;
    assert_eq!(of(&findings, Code::KeyringUnusable).len(), 1);
    assert!(of(&findings, Code::CheckFailed).len() >= 4, "{findings:#?}");
}

#[tokio::test]
async fn access_key_without_a_use_for_90_days_is_unused() {
    let examined = Examined::build().await;
    let (used, unused) = (
        examined.used_key("used").await,
        examined.used_key("old").await,
    );
    let clock = &examined.fixture.clock;
    clock.advance(DAY * 89);
    let findings = examined.examine().await;
    assert!(of(&findings, Code::AccessKeyUnused).is_empty());
    assert_eq!(of(&findings, Code::AccessKeysOk).len(), 1, "{findings:#?}");
    clock.advance(DAY);
    examined.use_key(used.id.as_str()).await;
    let findings = examined.examine().await;
    let subject = format!("{} (old)", unused.id.as_str());
    assert_eq!(subjects(&findings, Code::AccessKeyUnused), [subject]);
}

#[tokio::test]
async fn access_keys_of_a_table_without_recorded_uses_are_not_called_unused() {
    let examined = Examined::build().await;
    let policy = Policy::canned("kms-auditor").unwrap();
    let key = examined.access_keys().create(policy, None).await.unwrap();
    examined.fixture.clock.advance(DAY * 200);
    let findings = examined.examine().await;
    assert_eq!(of(&findings, Code::AccessKeyUsesUnknown).len(), 1);
    assert!(of(&findings, Code::AccessKeyUnused).is_empty());
    // A newer release records uses from now on.
    let other = examined.used_key("other").await;
    examined.fixture.clock.advance(DAY * 90);
    examined.use_key(other.id.as_str()).await;
    let findings = examined.examine().await;
    assert_eq!(
        subjects(&findings, Code::AccessKeyUnused),
        [key.id.as_str()]
    );
}

#[tokio::test]
async fn access_key_that_expires_or_was_replaced_is_listed() {
    let examined = Examined::build().await;
    let keys = examined.access_keys();
    let policy = || Policy::canned("kms-auditor").unwrap();
    let brief = keys.create(policy(), Some(DAY)).await.unwrap();
    let old = examined.used_key("node").await;
    keys.rotate(&old.id, DAY * 2).await.unwrap();
    let findings = examined.examine().await;
    let named = format!("{} (node)", old.id.as_str());
    assert_eq!(subjects(&findings, Code::AccessKeyReplacedInUse), [&named]);
    assert_eq!(
        subjects(&findings, Code::AccessKeyExpires),
        [brief.id.as_str()]
    );
    examined.fixture.clock.advance(DAY);
    let findings = examined.examine().await;
    assert!(
        of(&findings, Code::AccessKeyReplacedInUse).is_empty(),
        "not used any more"
    );
    assert_eq!(subjects(&findings, Code::AccessKeyExpires), [&named]);
    assert_eq!(
        subjects(&findings, Code::AccessKeyExpired),
        [brief.id.as_str()]
    );
}

#[tokio::test]
async fn key_pending_deletion_is_a_notice_and_an_overdue_one_a_warning() {
    let examined = Examined::build().await;
    let process = examined.fixture.running().await;
    process.keys.create(&root(), named("k")).await.unwrap();
    let window = DeletionWindow::DEFAULT;
    let keys = &process.keys;
    keys.schedule_deletion(&root(), &id("k"), window)
        .await
        .unwrap();
    let findings = examined.examine_unsigned().await;
    assert_eq!(subjects(&findings, Code::KeyPendingDeletion), ["k"]);
    assert_eq!(of(&findings, Code::BackendOk).len(), 1);
    examined.fixture.clock.advance(DAY * 32);
    let findings = examined.examine_unsigned().await;
    assert_eq!(subjects(&findings, Code::KeyDeletionOverdue), ["k"]);
}

async fn with_vault() -> (Examined, Process) {
    let examined = Examined::build().await;
    let process = examined.fixture.running().await;
    process.keys.create(&root(), named("k")).await.unwrap();
    move_to(&process, BackendType::Vault).await;
    (examined, process)
}

#[tokio::test]
async fn keys_of_another_backend_are_a_warning_until_they_are_moved() {
    let (examined, process) = with_vault().await;
    let findings = examined.examine_unsigned().await;
    let elsewhere = of(&findings, Code::KeyWrappedElsewhere);
    assert_eq!(elsewhere.first().unwrap().seen, "1 of 1 keys, among them k");
    let backend = of(&findings, Code::BackendOk);
    assert_eq!(
        backend.first().unwrap().subject,
        "Vault at https://vault.example"
    );
    move_to(&process, BackendType::Local).await;
    let findings = examined.examine_unsigned().await;
    assert_eq!(of(&findings, Code::WrappersOk).len(), 1);
}

#[tokio::test]
async fn backend_that_is_slow_or_down_is_told() {
    let (examined, _) = with_vault().await;
    let clock = &examined.fixture.clock;
    examined
        .fixture
        .vault
        .set_slow(clock, Duration::from_millis(1500));
    let findings = examined.examine_unsigned().await;
    assert_eq!(of(&findings, Code::BackendSlow).len(), 1, "{findings:#?}");
    examined.fixture.vault.set_down(true);
    let findings = examined.examine_unsigned().await;
    assert_eq!(of(&findings, Code::BackendUnavailable).len(), 1);
    assert_eq!(
        of(&findings, Code::KeyWrappedElsewhere).len(),
        1,
        "the others go on"
    );
}

#[tokio::test]
async fn clock_behind_the_newest_date_of_the_table_is_wrong() {
    let examined = Examined::build().await;
    examined.used_key("auditor").await;
    let clock = &examined.fixture.clock;
    let now = clock.now();
    let back = |seconds| {
        now.checked_sub(jiff::SignedDuration::from_secs(seconds))
            .unwrap()
    };
    for (seconds, code) in [
        (30, Code::ClockOk),
        (31, Code::ClockDiffers),
        (301, Code::ClockWrong),
    ] {
        clock.set(back(seconds));
        let findings = examined.examine().await;
        assert_eq!(findings.last().unwrap().code, code, "{findings:#?}");
    }
}

#[test]
fn clock_that_differs_from_a_date_either_way_is_told() {
    let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    for (date, code) in [
        ("2026-01-02T03:04:35Z", Code::ClockOk),
        ("2026-01-02T03:04:36Z", Code::ClockDiffers),
        ("2026-01-02T03:03:34Z", Code::ClockDiffers),
        ("2026-01-02T03:09:06Z", Code::ClockWrong),
        ("2026-01-02T02:59:04Z", Code::ClockWrong),
    ] {
        assert_eq!(
            compare_clocks("x", date.parse().unwrap(), now).code,
            code,
            "{date}"
        );
    }
}
