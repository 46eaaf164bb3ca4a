//! The rotation of the root: processes notice it, records are put under the new root, and older roots are retired.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;
mod rotating;

use std::sync::Arc;
use std::time::Duration;

use fixture::{id, named, root};
use keyway_domain::datakey::{DataKeyRequest, DataKeySpec};
use keyway_domain::keyring::{KEYRING_SECRET, KeyWrapper, KeyringOnDemand, WrapError};
use keyway_domain::policy::Policy;
use keyway_domain::ports::{
    Consistency, Kind, Record, Revision, SecretStore, StoreError, TableWriter,
};
use keyway_domain::records::Forgery;
use keyway_domain::roots::{Retired, RootError};
use keyway_domain::{EncryptionContext, OpenError, SecretBytes};
use rotating::{BINDING, Deployment, Killer, MINUTE, STATE_TTL, mortal};

/// Waits by the deployment's clock.
async fn retire(deployment: &Deployment, id: &str) -> Result<Retired, RootError> {
    let clock = deployment.clock.clone();
    let wait = async |time| clock.advance(time);
    let process = deployment.process().await;
    process.roots.retire(id, STATE_TTL, wait).await
}

async fn rewrap(deployment: &Deployment) -> (u64, Vec<String>) {
    let process = deployment.process().await;
    let clock = deployment.clock.clone();
    let wait = async |time| clock.advance(time);
    let outcome = process.roots.rewrap(async || {}, wait, |_| {}).await;
    let outcome = outcome.unwrap();
    let failed = outcome.failed.into_iter().map(|(name, _)| name);
    (outcome.changed, failed.collect())
}

#[tokio::test]
async fn rotation_then_rewrap_then_retirement_keeps_everything_open() {
    let deployment = Deployment::with_records().await;
    let before = deployment.process().await;
    let context = EncryptionContext::default();
    let request = DataKeyRequest::new(id("k1"), &context);
    let caller = root();
    let generated = before
        .data_keys
        .generate(&caller, &request, DataKeySpec::Aes256);
    let blob = generated.await.unwrap().1.blob;

    let operator = deployment.process().await;
    assert_eq!(operator.roots.rotate().await.unwrap(), "r2");
    let status = operator.roots.status().await.unwrap();
    let counts: Vec<_> = status
        .roots
        .iter()
        .map(|root| (root.id.as_str(), root.records))
        .collect();
    let all = counts[0].1;
    assert!(all > 6, "{counts:?}");
    assert_eq!(counts, [("r1", all), ("r2", 0)]);
    assert!(matches!(
        retire(&deployment, "r1").await,
        Err(RootError::InUse { records, .. }) if records == all
    ));

    assert_eq!(rewrap(&deployment).await, (all, vec![]));
    assert_eq!(
        rewrap(&deployment).await,
        (0, vec![]),
        "finished records are skipped"
    );
    assert_eq!(retire(&deployment, "r1").await.unwrap(), Retired::Now);
    assert_eq!(retire(&deployment, "r1").await.unwrap(), Retired::Before);

    for process in [&before, &deployment.process().await] {
        let request = DataKeyRequest::of_ciphertext(None, &context);
        process
            .data_keys
            .decrypt(&root(), &request, &blob)
            .await
            .unwrap();
        let found = process
            .credentials
            .find(&deployment.access_key)
            .await
            .unwrap();
        assert!(found.is_some());
    }
    let stored = String::from_utf8(deployment.keyring().await.expose().to_vec()).unwrap();
    let stored: serde_json::Value = serde_json::from_str(&stored).unwrap();
    assert_eq!(stored["roots"].as_array().unwrap().len(), 1);
    assert_eq!(stored["retired"], serde_json::json!(["r1"]));
    let ring = String::from_utf8(deployment.all_records().await).unwrap();
    assert!(
        !ring.contains("KW1 r1 "),
        "something is signed under the retired root"
    );
}

#[tokio::test]
async fn process_of_before_a_rotation_opens_what_the_new_root_wrapped() {
    let deployment = Deployment::with_records().await;
    let before = deployment.process().await;
    deployment.process().await.roots.rotate().await.unwrap();
    let after = deployment.process().await;
    after.keys.create(&root(), named("new")).await.unwrap();
    // It reads the record, verifies its signature and unwraps its key, although it has never seen the new root.
    let context = EncryptionContext::default();
    let request = DataKeyRequest::new(id("new"), &context);
    before
        .data_keys
        .generate(&root(), &request, DataKeySpec::Aes256)
        .await
        .unwrap();
    assert_eq!(before.keyring.keyring().await.unwrap().newest_root(), "r2");
}

#[tokio::test]
async fn process_of_before_a_rotation_wraps_under_the_new_root_within_the_state_ttl() {
    let deployment = Deployment::with_records().await;
    let before = deployment.process().await;
    before.keys.create(&root(), named("first")).await.unwrap();
    deployment.process().await.roots.rotate().await.unwrap();
    assert_eq!(deployment.root_of(Kind::Key, "first").await, "r1");
    deployment
        .clock
        .advance(STATE_TTL - Duration::from_millis(1));
    before.keys.create(&root(), named("second")).await.unwrap();
    assert_eq!(
        deployment.root_of(Kind::Key, "second").await,
        "r1",
        "it looked a moment ago"
    );
    deployment.clock.advance(Duration::from_millis(1));
    before.keys.create(&root(), named("third")).await.unwrap();
    assert_eq!(deployment.root_of(Kind::Key, "third").await, "r2");
    assert_eq!(rewrap(&deployment).await.1, Vec::<String>::new());
    assert_eq!(deployment.root_of(Kind::Key, "second").await, "r2");
}

#[tokio::test]
async fn process_that_cannot_look_at_the_newest_root_writes_nothing() {
    let deployment = Deployment::with_records().await;
    let before = deployment.process().await;
    before.keyring.wrap(&BINDING, b"secret").await.unwrap();
    deployment.clock.advance(STATE_TTL);
    deployment.stored.set_away(true);
    let wrapped = before.keyring.wrap(&BINDING, b"secret").await;
    assert!(matches!(wrapped, Err(WrapError::Unavailable(_))));
    deployment.stored.set_away(false);
    before.keyring.wrap(&BINDING, b"secret").await.unwrap();
}

#[tokio::test]
async fn unknown_root_makes_one_read_of_the_keyring_a_second() {
    let deployment = Deployment::with_records().await;
    let process = deployment.process().await;
    let forged = |n: u8| Record {
        kind: Kind::Policy,
        id: format!("forged-{n}"),
        revision: Revision([n; 16]),
        value: format!("KW1 r9 {}\n{{}}", "A".repeat(43)).into_bytes(),
        expires_at: None,
    };
    for n in 0..20 {
        deployment.stored.put_new(&forged(n)).await.unwrap();
    }
    let read = async || {
        let begun = deployment.secrets.reads();
        for n in 0..20 {
            let id = format!("forged-{n}");
            let found = process
                .table
                .get(Kind::Policy, &id, Consistency::Strong)
                .await;
            assert!(
                matches!(
                    found,
                    Err(StoreError::Refused {
                        why: Forgery::UnknownRoot,
                        ..
                    })
                ),
                "{found:?}"
            );
        }
        deployment.secrets.reads() - begun
    };
    assert_eq!(read().await, 1);
    assert_eq!(read().await, 0);
    deployment.clock.advance(Duration::from_secs(1));
    assert_eq!(read().await, 1);
}

#[tokio::test]
async fn retired_root_is_refused_by_a_process_that_still_holds_it() {
    let deployment = Deployment::with_records().await;
    let before = deployment.process().await;
    let wrapped = before.keyring.wrap(&BINDING, b"secret").await.unwrap();
    let signed = deployment.record(Kind::Policy, "p").await;
    deployment.process().await.roots.rotate().await.unwrap();
    rewrap(&deployment).await;
    retire(&deployment, "r1").await.unwrap();
    let newer = deployment.record(Kind::Policy, "p").await;
    // It has met nothing under the new root, so only its periodic work tells it.
    deployment.clock.advance(MINUTE);
    before.keyring.look_at_store().await.unwrap();
    let unwrapped = before.keyring.unwrap(&BINDING, &wrapped).await;
    assert!(matches!(unwrapped, Err(WrapError::UnknownRoot)));
    // Whoever has the retired root forges nothing with it.
    deployment
        .stored
        .remove(Kind::Policy, "p", newer.revision)
        .await
        .unwrap();
    deployment.stored.put_new(&signed).await.unwrap();
    let found = before
        .table
        .get(Kind::Policy, "p", Consistency::Strong)
        .await;
    assert!(matches!(
        found,
        Err(StoreError::Refused {
            why: Forgery::UnknownRoot,
            ..
        })
    ));
}

#[tokio::test]
async fn older_copy_of_the_keyring_is_refused_at_a_start_and_ignored_by_a_running_process() {
    let deployment = Deployment::with_records().await;
    let old = deployment.keyring().await;
    let running = deployment.process().await;
    running.roots.rotate().await.unwrap();
    rewrap(&deployment).await;
    deployment.put_keyring(&old).await;

    let opened = deployment.try_process().await.map(drop);
    assert!(matches!(opened, Err(OpenError::KeyringOld(root)) if root == "r2"));
    assert!(matches!(
        running.roots.rotate().await,
        Err(RootError::Keyring(OpenError::KeyringOld(root))) if root == "r2"
    ));
    // It keeps what it holds, and goes on.
    running.keys.create(&root(), named("later")).await.unwrap();
    deployment.clock.advance(MINUTE);
    running
        .keys
        .create(&root(), named("even-later"))
        .await
        .unwrap();
    assert_eq!(deployment.root_of(Kind::Key, "even-later").await, "r2");
    assert!(matches!(
        running.roots.rotate().await,
        Err(RootError::Keyring(OpenError::KeyringOld(_)))
    ));
}

#[tokio::test]
async fn root_that_is_lost_can_be_given_up_and_its_id_is_not_used_again() {
    let deployment = Deployment::with_records().await;
    let old = deployment.keyring().await;
    let first = deployment.process().await;
    first.roots.rotate().await.unwrap();
    first.keys.create(&root(), named("lost")).await.unwrap();
    deployment.put_keyring(&old).await;
    assert!(deployment.try_process().await.is_err());
    let give_up = async |root: &str| {
        let (table, secrets) = (deployment.stored.clone(), deployment.secrets.clone());
        let process = deployment.process_over(table.clone(), secrets);
        process.keyring.give_up(table.as_ref(), root).await
    };
    assert!(matches!(give_up("r1").await, Err(RootError::Held { .. })));
    assert!(matches!(
        give_up("r3").await,
        Err(RootError::Unknown { .. })
    ));
    give_up("r2").await.unwrap();
    give_up("r2").await.unwrap();
    let process = deployment.process().await;
    process.keys.describe(&root(), &id("k1")).await.unwrap();
    assert!(process.keys.describe(&root(), &id("lost")).await.is_err());
    let status = process.roots.status().await.unwrap();
    assert_eq!(
        (status.current.as_str(), &*status.lost),
        ("r1", &["key/lost".to_owned()][..])
    );
    deployment.clock.advance(MINUTE);
    assert_eq!(process.roots.rotate().await.unwrap(), "r3");
}

#[tokio::test]
async fn types_with_wrapped_secrets_are_those_that_are_wrapped_anew() {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&source).unwrap().display().to_string();
            let text = std::fs::read_to_string(&path).unwrap();
            for line in text.lines().map(str::trim) {
                let field = line
                    .rsplit("pub(super) ")
                    .next()
                    .unwrap()
                    .rsplit("pub(crate) ")
                    .next();
                let (field, kind) = field.unwrap().split_once(": ").unwrap_or_default();
                if ["Wrapped,", "Option<Wrapped>,"].contains(&kind) && !field.contains('(') {
                    found.push(format!("{name} {field}"));
                }
            }
        }
    }
    found.sort_unstable();
    // The list of `HoldsSecrets` and the credential of `Roots::renewed`. The transit key wraps `probe`; a cache holds
    // `wrapped`.
    let known = [
        "access.rs secret",
        "access.rs session_token",
        "access/sessions.rs parent_secret",
        "keys.rs hmac",
        "keys.rs material",
        "keys/reader.rs wrapped",
        "service.rs credential",
        "service.rs probe",
    ];
    assert_eq!(found, known);
}

#[tokio::test]
async fn rotations_at_once_one_wins_and_the_others_change_nothing() {
    let deployment = Deployment::with_records().await;
    let mut operators = Vec::new();
    for _ in 0..4 {
        operators.push(deployment.process().await);
    }
    let all = futures_util::future::join_all(operators.iter().map(|one| one.roots.rotate())).await;
    assert_eq!(all.iter().filter(|done| done.is_ok()).count(), 1, "{all:?}");
    for lost in all.into_iter().filter_map(Result::err) {
        assert!(
            matches!(lost, RootError::Overtaken | RootError::JustRotated { .. }),
            "{lost}"
        );
    }
    let status = deployment.process().await.roots.status().await.unwrap();
    assert_eq!(status.roots.len(), 2);
    deployment.clock.advance(MINUTE);
    assert_eq!(operators[0].roots.rotate().await.unwrap(), "r3");
}

#[tokio::test]
async fn retirement_of_the_newest_or_an_unknown_root_is_refused() {
    let deployment = Deployment::with_records().await;
    assert!(matches!(
        retire(&deployment, "r1").await,
        Err(RootError::Newest { .. })
    ));
    assert!(matches!(
        retire(&deployment, "r7").await,
        Err(RootError::Unknown { .. })
    ));
}

#[tokio::test]
async fn retirement_looks_again_after_the_wait() {
    let deployment = Deployment::with_records().await;
    let slow = deployment.process().await;
    slow.keys.create(&root(), named("late")).await.unwrap();
    let late = deployment.record(Kind::Key, "late").await;
    let removed = (deployment.stored).remove(Kind::Key, "late", late.revision);
    removed.await.unwrap();
    let operator = deployment.process().await;
    operator.roots.rotate().await.unwrap();
    rewrap_without_waiting(&deployment).await;
    // A write that was under way at the rotation arrives while the retirement waits.
    let wait = async |time: Duration| {
        deployment.stored.put_new(&late).await.unwrap();
        deployment.clock.advance(time);
    };
    let retired = operator.roots.retire("r1", STATE_TTL, wait).await;
    assert!(
        matches!(retired, Err(RootError::InUse { records: 1, .. })),
        "{retired:?}"
    );
    let not_waited = operator.roots.retire("r1", STATE_TTL, async |_| {}).await;
    assert!(matches!(not_waited, Err(RootError::InUse { .. })));
    rewrap(&deployment).await;
    let not_waited = operator.roots.retire("r1", STATE_TTL, async |_| {}).await;
    assert!(matches!(not_waited, Err(RootError::NotWaited)));
    assert_eq!(retire(&deployment, "r1").await.unwrap(), Retired::Now);
}

async fn rewrap_without_waiting(deployment: &Deployment) {
    let process = deployment.process().await;
    let done = process
        .roots
        .rewrap(async || {}, async |_| {}, |_| {})
        .await;
    assert!(done.unwrap().failed.is_empty());
}

#[tokio::test]
async fn forged_record_is_not_signed_anew_and_does_not_hinder_a_retirement() {
    let deployment = Deployment::with_records().await;
    let mut forged = deployment.record(Kind::Policy, "p").await;
    let last = forged.value.len() - 2;
    forged.value[last] ^= 1;
    forged.id = "forged".to_owned();
    deployment.stored.put_new(&forged).await.unwrap();
    deployment.process().await.roots.rotate().await.unwrap();
    assert_eq!(rewrap(&deployment).await.1, Vec::<String>::new());
    assert_eq!(deployment.record(Kind::Policy, "forged").await, forged);
    assert_eq!(retire(&deployment, "r1").await.unwrap(), Retired::Now);
}

#[tokio::test]
async fn vault_credential_and_sealed_copies_are_put_under_the_new_root() {
    let deployment = Deployment::with_records().await;
    let process = deployment.process().await;
    // The keys stay wrapped by the root while the backend is Vault, and their next change makes a sealed copy.
    deployment.use_vault(&process).await;
    process.keys.disable(&root(), &id("k1")).await.unwrap();
    process.roots.rotate().await.unwrap();
    assert_eq!(rewrap(&deployment).await.1, Vec::<String>::new());
    deployment.vault.set_down(true);
    assert!(
        retire(&deployment, "r1").await.is_err(),
        "copies cannot be counted"
    );
    deployment.vault.set_down(false);
    assert_eq!(retire(&deployment, "r1").await.unwrap(), Retired::Now);
    deployment.process().await.renew_vault().await;
    let credential = deployment.vaults.opened().pop().unwrap().credential;
    assert_eq!(credential.as_deref(), Some(b"token".as_slice()));
}

#[tokio::test]
async fn keyring_of_a_rotated_root_is_of_another_format() {
    let deployment = Deployment::with_records().await;
    let format = async || {
        let stored = deployment.keyring().await;
        let stored: serde_json::Value = serde_json::from_slice(stored.expose()).unwrap();
        stored["format"].clone()
    };
    assert_eq!(format().await, 1, "an older release may open it");
    deployment.process().await.roots.rotate().await.unwrap();
    assert_eq!(
        format().await,
        2,
        "an older release would not notice rotations"
    );
}

#[tokio::test]
async fn process_without_the_table_reads_the_keyring_before_it_signs() {
    let deployment = Deployment::with_records().await;
    let secrets: Arc<dyn SecretStore> = deployment.secrets.clone();
    let signer =
        KeyringOnDemand::signing(secrets, deployment.clock.clone(), deployment.random.clone());
    assert_eq!(signer.newest_keyring().await.unwrap().newest_root(), "r1");
    deployment.process().await.roots.rotate().await.unwrap();
    deployment.clock.advance(STATE_TTL);
    assert_eq!(signer.newest_keyring().await.unwrap().newest_root(), "r2");
}

#[tokio::test]
async fn damaged_keyring_in_the_store_stops_no_process_that_holds_it() {
    let deployment = Deployment::with_records().await;
    let running = deployment.process().await;
    running.keyring.wrap(&BINDING, b"secret").await.unwrap();
    deployment
        .put_keyring(&SecretBytes::from(b"{".to_vec()))
        .await;
    deployment.clock.advance(MINUTE);
    running.keys.create(&root(), named("later")).await.unwrap();
    assert!(running.roots.rotate().await.is_err());
    let (value, _) = deployment
        .secrets
        .get(KEYRING_SECRET)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(value.expose(), b"{");
}

#[tokio::test]
async fn access_key_of_a_session_works_across_a_rotation() {
    let deployment = Deployment::with_records().await;
    let process = deployment.process().await;
    let made = process
        .access_keys
        .create(Policy::canned("kms-admin").unwrap(), Some(MINUTE))
        .await
        .unwrap();
    process.roots.rotate().await.unwrap();
    rewrap(&deployment).await;
    let fresh = deployment.process().await;
    let found = fresh
        .credentials
        .find(made.id.as_str())
        .await
        .unwrap()
        .unwrap();
    assert!(made.secret.ct_eq(found.secret.expose()));
    assert!(found.session_token.is_some());
}

/// Rotates, rewraps and retires as far as it gets.
async fn whole_rotation(deployment: &Deployment, process: &rotating::Process) {
    let wait = async |time| deployment.clock.advance(time);
    if process.roots.rotate().await.is_err() {
        return;
    }
    if process
        .roots
        .rewrap(async || {}, wait, |_| {})
        .await
        .is_err()
    {
        return;
    }
    process.roots.retire("r1", STATE_TTL, wait).await.ok();
}

#[tokio::test]
async fn kill_at_every_write_loses_nothing_and_the_next_run_goes_on() {
    let mut kills = 0;
    for is_after in [false, true] {
        for write in 0.. {
            let deployment = Deployment::with_records().await;
            let context = EncryptionContext::default();
            let server = deployment.process().await;
            let request = DataKeyRequest::new(id("k1"), &context);
            let caller = root();
            let generated = server
                .data_keys
                .generate(&caller, &request, DataKeySpec::Aes256);
            let blob = generated.await.unwrap().1.blob;
            let killer = Killer::at(write, is_after);
            let (table, secrets) = mortal(&deployment, &killer);
            whole_rotation(&deployment, &deployment.process_over(table, secrets)).await;
            if !killer.has_killed() {
                assert!(write > 8, "{write}");
                break;
            }
            kills += 1;

            let opens = async |process: &rotating::Process| {
                let request = DataKeyRequest::of_ciphertext(None, &context);
                process
                    .data_keys
                    .decrypt(&root(), &request, &blob)
                    .await
                    .unwrap();
                process.keys.describe(&root(), &id("k2")).await.unwrap();
                let found = process.credentials.find(&deployment.access_key).await;
                assert!(found.unwrap().is_some());
            };
            opens(&server).await;
            server
                .keys
                .create(&root(), named("meanwhile"))
                .await
                .unwrap();
            opens(&deployment.process().await).await;
            deployment.clock.advance(MINUTE);
            let process = deployment.process().await;
            let status = process.roots.status().await.unwrap();
            assert!(status.lost.is_empty(), "{status:?}");
            if status.current == "r1" {
                process.roots.rotate().await.unwrap();
            }
            assert_eq!(rewrap(&deployment).await.1, Vec::<String>::new());
            retire(&deployment, "r1").await.unwrap();
            opens(&server).await;
            let fresh = deployment.process().await;
            opens(&fresh).await;
            fresh
                .keys
                .describe(&root(), &id("meanwhile"))
                .await
                .unwrap();
            let status = fresh.roots.status().await.unwrap();
            assert_eq!((status.current.as_str(), status.roots.len()), ("r2", 1));
        }
    }
    assert!(kills > 16, "{kills}");
}
