//! Imports into a deployment in memory: what is new, what is here already, what is refused, and that a dry run writes nothing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_domain::KmsError;
use keyway_domain::identity::{Identities, IdentityControl};
use keyway_domain::keyring::{KeyWrapper, RootKeyring};
use keyway_domain::keys::{KeyReader, Keys};
use keyway_domain::migration::Progress;
use keyway_domain::ports::{Clock, Kind, Random, SecretStore, TableReader, TableWriter};
use keyway_domain::service::Service;
use keyway_domain::wrappers::Wrappers;
use keyway_import::{
    ConfigImport, ImportError, KesConfig, KeyDetails, KeyImport, KeyReport, NotImported, static_key,
};
use keyway_testkit::{
    FixedClock, MemorySecrets, MemoryTable, MemoryVault, MemoryVaults, SeededRandom,
};

/// A deployment in memory.
struct Deployment {
    table: Arc<MemoryTable>,
    wrapper: Arc<dyn KeyWrapper>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl Deployment {
    async fn new() -> Self {
        let clock: Arc<dyn Clock> =
            Arc::new(FixedClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(7));
        let table = Arc::new(MemoryTable::new(clock.clone()));
        let keyring = RootKeyring::establish(
            table.as_ref(),
            &MemorySecrets::new(),
            clock.as_ref(),
            random.clone(),
        )
        .await;
        Self {
            table,
            wrapper: Arc::new(keyring.ok().unwrap()),
            clock,
            random,
        }
    }

    /// One whose service runs.
    async fn running() -> Self {
        let deployment = Self::new().await;
        deployment
            .service()
            .start_if_new(deployment.table.as_ref(), deployment.random.as_ref(), None)
            .await
            .unwrap();
        deployment
    }

    fn service(&self) -> Arc<Service> {
        Arc::new(Service::new(
            self.table.clone(),
            self.clock.clone(),
            Duration::ZERO,
        ))
    }

    fn keys(&self) -> Keys {
        let vaults = Arc::new(MemoryVaults::new(Arc::new(MemoryVault::new(9))));
        let wrappers = Arc::new(Wrappers::new(self.wrapper.clone(), vaults));
        let reader: Arc<dyn TableReader> = self.table.clone();
        let writer: Arc<dyn TableWriter> = self.table.clone();
        let reader = KeyReader::new(reader, wrappers.clone(), self.clock.clone(), Duration::ZERO);
        Keys::new(
            writer,
            Arc::new(reader),
            self.service(),
            wrappers,
            self.clock.clone(),
            self.random.clone(),
            false,
        )
    }

    async fn folder(&self, folder: &Path, prefix: &str, dry_run: bool) -> KeyReport {
        let mut import = KeyImport::new(self.keys(), dry_run, |_| {});
        import.folder(folder, prefix).await.unwrap();
        import.into_report()
    }

    fn config_import(&self, dry_run: bool) -> ConfigImport {
        let identities = Arc::new(Identities::new(
            self.table.clone(),
            self.clock.clone(),
            Duration::ZERO,
            None,
        ));
        let control =
            IdentityControl::new(self.table.clone(), identities.clone(), self.random.clone());
        ConfigImport {
            identities,
            control: Arc::new(control),
            dry_run,
        }
    }
}

/// A key as KES keeps it.
fn kept(byte: u8) -> String {
    format!("{{\"bytes\":\"{}\"}}", STANDARD.encode([byte; 32]))
}

fn left(left: &[NotImported]) -> Vec<(&str, &str)> {
    left.iter()
        .map(|left| (left.name.as_str(), left.reason.as_str()))
        .collect()
}

#[tokio::test]
async fn folder_is_imported_once_and_nothing_is_overwritten() {
    let deployment = Deployment::running().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("my-a"), kept(1)).unwrap();
    fs::write(path("my-b"), kept(2)).unwrap();
    fs::write(path("other"), kept(3)).unwrap();

    let dry = deployment.folder(folder.path(), "my-", true).await;
    assert_eq!(dry.imported, ["my-a", "my-b"]);
    let details = |name: &str| KeyDetails {
        name: name.to_owned(),
        algorithm: "AES256",
        has_hmac_key: false,
    };
    assert_eq!(dry.details, ["my-a", "my-b"].map(details));
    assert_eq!(deployment.table.count(Kind::Key, "").await.unwrap(), 0);

    let first = deployment.folder(folder.path(), "my-", false).await;
    assert_eq!(first.imported, ["my-a", "my-b"]);
    assert_eq!(deployment.table.count(Kind::Key, "").await.unwrap(), 2);

    fs::write(path("my-b"), kept(4)).unwrap();
    let again = deployment.folder(folder.path(), "", false).await;
    assert_eq!(again.imported, ["other"]);
    assert_eq!(again.already_there, ["my-a"]);
    let conflicts = left(&again.conflicts);
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].0, "my-b");
    let json = serde_json::to_value(&again).unwrap();
    assert_eq!(json["imported"], serde_json::json!(["other"]));
    assert_eq!(json.get("details"), None);
}

#[tokio::test]
async fn file_that_is_no_key_is_refused_by_name() {
    let deployment = Deployment::running().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("a.b"), kept(1)).unwrap();
    fs::create_dir(path("folder")).unwrap();
    symlink("a.b", path("link")).unwrap();
    fs::write(path("long"), "x".repeat(keyway_import::MAX_VALUE_BYTES + 1)).unwrap();
    fs::write(path("text"), "hunter2").unwrap();
    let report = deployment.folder(folder.path(), "", false).await;
    assert_eq!(
        left(&report.refused),
        [
            ("a.b", "its name is not a key's"),
            ("folder", "it is not a file"),
            ("link", "it is a symbolic link, which is not followed"),
            ("long", "it is longer than any key"),
            ("text", "it is in none of the forms that a key is kept in"),
        ]
    );
    assert!(report.imported.is_empty() && report.skipped.is_empty());

    let nowhere = folder.path().join("nowhere");
    let mut import = KeyImport::new(deployment.keys(), false, |_| {});
    let error = import.folder(&nowhere, "").await.unwrap_err();
    assert!(matches!(error, ImportError::Folder { .. }), "{error}");
}

#[tokio::test]
async fn secret_that_is_no_key_is_skipped_and_a_broken_key_is_refused() {
    let deployment = Deployment::running().await;
    let secrets = MemorySecrets::new();
    let broken = format!("{{\"bytes\":\"{}\"}}", STANDARD.encode([1; 31]));
    for (name, value) in [
        ("app", "hunter2".to_owned()),
        ("broken", broken),
        ("key", kept(1)),
    ] {
        let value = value.into_bytes().into();
        secrets.put(name, &value, None).await.unwrap();
    }
    let names = ["app", "broken", "gone", "key", "no/name"].map(str::to_owned);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let mut import = KeyImport::new(deployment.keys(), false, move |progress: Progress| {
        noted.lock().unwrap().push((progress.done, progress.total));
    });
    import.secrets(&secrets, names.to_vec()).await.unwrap();
    let report = import.into_report();
    assert_eq!(report.imported, ["key"]);
    assert_eq!(
        left(&report.refused),
        [("broken", "a key in it is not 32 bytes long")]
    );
    assert_eq!(
        left(&report.skipped),
        [
            ("app", "it is in none of the forms that a key is kept in"),
            ("gone", "it has no value"),
            ("no/name", "its name is not a key's"),
        ]
    );
    let seen = seen.lock().unwrap();
    assert_eq!((seen.first(), seen.last()), (Some(&(0, 5)), Some(&(5, 5))));
}

#[tokio::test]
async fn import_without_a_configured_service_stops() {
    let deployment = Deployment::new().await;
    let value = format!("minio:{}", STANDARD.encode([7; 32]));
    let mut import = KeyImport::new(deployment.keys(), false, |_| {});
    let error = import.key(static_key(value.as_bytes()).ok().unwrap()).await;
    let error = error.unwrap_err();
    assert!(matches!(
        &error,
        ImportError::Stopped(KmsError::NotConfigured)
    ));
    assert_eq!(
        error.to_string(),
        "stopped; what was done stays done, run it again to go on: the service is not configured"
    );
}

#[tokio::test]
async fn configuration_is_imported_once_and_a_dry_run_writes_nothing() {
    const HOLDER: &str = "413c35cb06a9e1aa142ccebf829c96cbfd16162131a92f5ec8c9006f6fc5c9dc";
    let deployment = Deployment::running().await;
    let parsed = |allow: &str| {
        let text = format!("policy: {{p: {{allow: [{allow}], identities: [{HOLDER}]}}}}");
        KesConfig::parse(&text, |_| Ok::<_, ImportError>(None)).unwrap()
    };
    let config = parsed("/v1/key/create/a");
    for (dry_run, config, policy, holder) in [
        (true, &config, "created", "created"),
        (false, &config, "created", "created"),
        (true, &config, "unchanged", "unchanged"),
        (false, &config, "unchanged", "unchanged"),
        (true, &parsed("/v1/status"), "replaced", "unchanged"),
        (false, &parsed("/v1/status"), "replaced", "unchanged"),
    ] {
        let before = deployment.table.count(Kind::Policy, "").await.unwrap();
        let done = deployment.config_import(dry_run).run(config).await.unwrap();
        let after = deployment.table.count(Kind::Policy, "").await.unwrap();
        assert_eq!(done.policies.len(), 1);
        assert_eq!(done.policies[0].result, policy);
        assert_eq!(done.policies[0].identities[0].identity, HOLDER);
        assert_eq!(done.policies[0].identities[0].result, holder);
        assert!(!dry_run || before == after);
        assert_eq!(done.dry_run, dry_run);
    }
}
