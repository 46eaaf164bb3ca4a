//! The service's calls of the root keyring's folder, and their order.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must stop"
)]

mod fixture;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use fixture::{Fixture, root};
use keyway_domain::control::ServiceControl;
use keyway_domain::ports::{
    Consistency, KeyringFolder, KeyringMove, Kind, LockedKeyring, Record, Revision, TableReader,
    TableWriter,
};
use keyway_domain::service::{
    Change, ConfigChanges, Degraded, KeyringFile, keep_keyring, key_directory,
};
use keyway_domain::{Fault, KmsError};
use keyway_testkit::MemoryTable;

/// The keyrings of folders that exist by name only. `~x` is another name of `x`.
#[derive(Default)]
struct Folders {
    holding: BTreeSet<String>,
    said: Vec<String>,
    /// Runs once during the next move, as another process does.
    meanwhile: Option<Meanwhile>,
}

enum Meanwhile {
    /// Another process writes the record, so that the move's own write meets a conflict.
    Touch,
    /// The keyring moves here, and the move does not find it in the old folder.
    MoveTo(&'static str),
}

#[derive(Clone)]
struct Fake {
    folders: Arc<Mutex<Folders>>,
    table: Arc<MemoryTable>,
}

fn plain(folder: Option<&str>) -> String {
    folder.unwrap_or("own").trim_start_matches('~').to_owned()
}

impl Fake {
    fn lock(&self) -> MutexGuard<'_, Folders> {
        self.folders.lock().unwrap()
    }

    fn say(&self, what: String) {
        self.lock().said.push(what);
    }

    /// The calls since the last question.
    fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().said)
    }

    /// Writes the record with this folder, as another process does.
    async fn name(&self, folder: Option<&str>) {
        let record = self
            .table
            .get(Kind::Config, "service", Consistency::Strong)
            .await;
        let record = record.unwrap().unwrap();
        let mut config: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
        if let Some(folder) = folder {
            config["key_directory"] = folder.into();
        }
        let changed = Record {
            value: serde_json::to_vec(&config).unwrap(),
            revision: Revision([99; 16]),
            ..record.clone()
        };
        self.table.replace(&changed, record.revision).await.unwrap();
    }
}

struct FakeMove {
    fake: Fake,
    from: String,
}

struct Locked {
    fake: Fake,
    folder: String,
}

#[async_trait]
impl KeyringFolder for Fake {
    async fn begin_move(
        &self,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Option<Box<dyn KeyringMove>>, KmsError> {
        let (from, to) = (plain(from), plain(to));
        if from == to {
            return Ok(None);
        }
        self.say(format!("begin {from} {to}"));
        let meanwhile = self.lock().meanwhile.take();
        match meanwhile {
            None => {}
            Some(Meanwhile::Touch) => self.name(None).await,
            Some(Meanwhile::MoveTo(folder)) => {
                self.name(Some(folder)).await;
                self.lock().holding = BTreeSet::from([folder.to_owned()]);
            }
        }
        if !self.lock().holding.contains(&from) {
            return Err(KmsError::Invalid {
                field: "key_directory",
                reason: "does not exist".to_owned(),
            });
        }
        self.lock().holding.insert(to);
        Ok(Some(Box::new(FakeMove {
            fake: self.clone(),
            from,
        })))
    }

    fn path(&self, folder: Option<&str>) -> String {
        plain(folder)
    }

    async fn holds(&self, folder: Option<&str>) -> Result<bool, KmsError> {
        Ok(self.lock().holding.contains(&plain(folder)))
    }

    async fn lock(&self, folder: Option<&str>) -> Result<Box<dyn LockedKeyring>, KmsError> {
        let meanwhile = Fake::lock(self).meanwhile.take();
        if let Some(Meanwhile::MoveTo(folder)) = meanwhile {
            self.name(Some(folder)).await;
            Fake::lock(self).holding.insert(folder.to_owned());
        }
        Ok(Box::new(Locked {
            fake: self.clone(),
            folder: plain(folder),
        }))
    }
}

#[async_trait]
impl KeyringMove for FakeMove {
    async fn leave(&self, named: Option<&str>) -> Result<(), KmsError> {
        // The record was written before, and is what this is told.
        assert_eq!(
            key_directory(self.fake.table.as_ref())
                .await
                .unwrap()
                .as_deref(),
            named
        );
        let named = plain(named);
        self.fake.say(format!("leave {} for {named}", self.from));
        if named != self.from {
            self.fake.lock().holding.remove(&self.from);
        }
        Ok(())
    }
}

impl Drop for FakeMove {
    fn drop(&mut self) {
        self.fake.say("unlock".to_owned());
    }
}

#[async_trait]
impl LockedKeyring for Locked {
    async fn restore(&self) -> Result<(), KmsError> {
        if self.folder == "z" {
            return Err(KmsError::Unavailable(Fault::plain("the disk is full")));
        }
        self.fake.say(format!("restore {}", self.folder));
        self.fake.lock().holding.insert(self.folder.clone());
        Ok(())
    }
}

async fn service() -> (Fixture, Fake, ServiceControl) {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let fake = Fake {
        folders: Arc::default(),
        table: fixture.table.clone(),
    };
    fake.lock().holding.insert("own".to_owned());
    let control = ServiceControl::new(
        fixture.table.clone(),
        process.service.clone(),
        process.reader.clone(),
        process.wrappers,
        Some(Arc::new(fake.clone())),
        fixture.random.clone(),
    );
    (fixture, fake, control)
}

fn to(folder: Option<&str>) -> ConfigChanges {
    ConfigChanges {
        key_directory: folder.map_or(Change::Clear, |folder| Change::Set(folder.to_owned())),
        ..ConfigChanges::default()
    }
}

#[tokio::test]
async fn move_leaves_the_old_folder_after_the_record_and_before_the_unlock() {
    let (_house, fake, control) = service().await;
    let whole = ["begin own x", "leave own for x", "unlock"];
    control.reconfigure(&root(), &to(Some("x"))).await.unwrap();
    assert_eq!(fake.said(), whole);
    for same in [Some("x"), Some("~x"), Some("~~x")] {
        control.reconfigure(&root(), &to(same)).await.unwrap();
        assert!(fake.said().is_empty());
        let named = key_directory(fake.table.as_ref()).await.unwrap();
        assert_eq!(named.as_deref(), same, "the record has the new spelling");
    }
    control.reconfigure(&root(), &to(None)).await.unwrap();
    assert_eq!(fake.said(), ["begin x own", "leave x for own", "unlock"]);
    assert!(fake.lock().holding.contains("own"));
}

#[tokio::test]
async fn move_whose_record_was_changed_meanwhile_leaves_nothing_and_is_tried_again() {
    let (_house, fake, control) = service().await;
    fake.lock().meanwhile = Some(Meanwhile::Touch);
    control.reconfigure(&root(), &to(Some("x"))).await.unwrap();
    let twice = [
        "begin own x",
        "unlock",
        "begin own x",
        "leave own for x",
        "unlock",
    ];
    assert_eq!(fake.said(), twice);

    // The keyring is in another folder by now.
    fake.lock().meanwhile = Some(Meanwhile::MoveTo("y"));
    control.reconfigure(&root(), &to(Some("w"))).await.unwrap();
    let said = ["begin x w", "begin y w", "leave y for w", "unlock"];
    assert_eq!(fake.said(), said);
    assert_eq!(fake.lock().holding, BTreeSet::from(["w".to_owned()]));

    // A keyring that is lost is reported.
    fake.lock().holding.clear();
    let refused = control.reconfigure(&root(), &to(Some("x"))).await;
    assert!(matches!(
        refused,
        Err(KmsError::Invalid {
            field: "key_directory",
            ..
        })
    ));
}

#[tokio::test]
async fn status_with_the_keyring_gone_is_unhealthy_until_it_is_written_again() {
    let (_house, fake, control) = service().await;
    let status = async || {
        let status = control.status(&root(), "r").await.unwrap();
        let configured = status.configured.unwrap();
        (
            configured.is_healthy(),
            configured
                .degraded
                .iter()
                .any(|reason| matches!(reason, Degraded::KeyringFile | Degraded::KeyringRestored)),
        )
    };
    assert_eq!(status().await, (true, false));
    fake.lock().holding.clear();
    assert_eq!(status().await, (false, true));
    assert_eq!(fake.said(), ["restore own"]);
    assert_eq!(status().await, (true, false));

    // A keyring that cannot be restored stays reported.
    fake.name(Some("z")).await;
    for _ in 0..2 {
        assert_eq!(status().await, (false, true));
    }
    assert!(fake.said().is_empty());
}

#[tokio::test]
async fn keyring_moved_while_missing_is_not_restored_to_its_old_folder() {
    let (_house, fake, _control) = service().await;
    fake.lock().holding.clear();
    fake.lock().meanwhile = Some(Meanwhile::MoveTo("y"));
    let found = keep_keyring(&fake, fake.table.as_ref()).await.unwrap();
    assert_eq!(found, KeyringFile::InPlace);
    assert!(fake.said().is_empty(), "nothing was written");
}
