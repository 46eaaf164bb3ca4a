//! Scheduled deletions are carried out: once, by whichever janitor comes first, and never a key that is spared.

use std::sync::Arc;

use keyway_audit::TableLog;
use keyway_deployment_assembly::{SystemClock, SystemRandom};
use keyway_domain::audit::{AuditLog as _, EventQuery};
use keyway_domain::ports::{Consistency, Kind, Random, Record, Revision, TableReader, TableWriter};
use keyway_domain::records::SignedTable;
use keyway_store_dynamodb::DynamoTable;
use keyway_tests::{Aws, Function};
use serde_json::{Value, json};

/// Moves the deletion dates of these keys, and the times at which they were found due, into the past. A test cannot wait
/// for seven days or an hour.
async fn make_due(table: &SignedTable<DynamoTable>, ids: &[String]) {
    make(table, ids, |state| {
        assert!(state["at"].is_string(), "{state}");
        state["at"] = "2026-01-01T00:00:00Z".into();
    })
    .await;
}

async fn make_found_due(table: &SignedTable<DynamoTable>, ids: &[String]) {
    make(table, ids, |state| {
        assert!(
            state["found_due"].is_string(),
            "a sweep has found it due: {state}"
        );
        state["found_due"] = "2026-01-01T00:00:00Z".into();
    })
    .await;
}

async fn make(table: &SignedTable<DynamoTable>, ids: &[String], change: impl Fn(&mut Value)) {
    for id in ids {
        let seen = table
            .get(Kind::Key, id, Consistency::Strong)
            .await
            .unwrap()
            .unwrap();
        let mut key: Value = serde_json::from_slice(&seen.value).unwrap();
        change(&mut key["state"]["pending_deletion"]);
        let mut revision = [0; 16];
        SystemRandom::default().fill(&mut revision).unwrap();
        let due = Record {
            value: serde_json::to_vec(&key).unwrap(),
            revision: Revision(revision),
            ..seen.clone()
        };
        table.replace(&due, seen.revision).await.unwrap();
    }
}

async fn sweep(janitor: &Function) -> u64 {
    let event = json!({"version": "0", "source": "aws.events", "detail-type": "Scheduled Event"});
    let report = janitor.api.invoke(&event).await.json();
    assert_eq!(report["referenced"], 0, "{report}");
    report["destroyed"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn janitors_at_once_destroy_each_due_key_once() {
    const KEYS: usize = 24;
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let keys = Arc::new(Function::start("keyway-fn-keys", &deployment, &[]).await);
    let datakey = Function::start("keyway-fn-datakey", &deployment, &[]).await;
    let ids: Vec<String> = (0..KEYS).map(|n| format!("due-{n:02}")).collect();
    let mut blobs = Vec::new();
    for id in ids.iter().map(String::as_str).chain(["kept"]) {
        let on = json!({"key_id": id}).to_string();
        keys.call("POST", "/kms/keys", &on).await.ok();
        let sealed = datakey.call("POST", "/kms/generate-data-key", &on).await;
        blobs.push(sealed.text("ciphertext_blob"));
        if id != "kept" {
            keys.call("DELETE", "/kms/keys/delete", &on).await.ok();
        }
    }
    let clock = Arc::new(SystemClock::start());
    let table = deployment.signed_table(&aws);
    // A janitor has the table and the root keyring, and no event source.
    let bare = [("KEYWAY_ROOT_ACCESS_KEY_SECRET", "")];
    let (a, b, c) = tokio::join!(
        Function::start("keyway-fn-janitor", &deployment, &bare),
        Function::start("keyway-fn-janitor", &deployment, &bare),
        Function::start("keyway-fn-janitor", &deployment, &bare),
    );
    assert_eq!(sweep(&a).await, 0, "none is due yet");
    make_due(&table, &ids).await;
    for janitor in [&a, &b] {
        assert_eq!(sweep(janitor).await, 0, "an hour has not passed");
    }
    make_found_due(&table, &ids).await;

    let spare = {
        let (keys, ids) = (Arc::clone(&keys), ids.clone());
        async move {
            let mut spared = Vec::new();
            for id in ids.into_iter().rev() {
                let on = json!({"key_id": id}).to_string();
                let answer = keys.call("POST", "/kms/keys/cancel-deletion", &on).await;
                match answer.status.as_u16() {
                    200 => spared.push(id),
                    404 => {}
                    other => panic!("{other}: {answer:?}"),
                }
            }
            spared
        }
    };
    let (x, y, z, spared) = tokio::join!(sweep(&a), sweep(&b), sweep(&c), spare);
    let destroyed = usize::try_from(x + y + z).unwrap() + usize::try_from(sweep(&a).await).unwrap();
    assert_eq!(
        destroyed + spared.len(),
        KEYS,
        "{x} + {y} + {z} and {} spared",
        spared.len()
    );
    assert!(x + y + z > 0, "the janitors were there");
    for id in &ids {
        let status = keys
            .call("GET", &format!("/kms/keys/{id}"), "")
            .await
            .status;
        let expected = if spared.contains(id) { 200 } else { 404 };
        assert_eq!(status.as_u16(), expected, "{id}");
    }
    keys.call("GET", "/kms/keys/kept", "").await.ok();

    // Each deletion is in the audit log once, whichever janitor made it, and while the janitors still run.
    let log = TableLog::new(table.clone(), clock);
    let query = EventQuery {
        limit: 1000,
        ..EventQuery::default()
    };
    let events = log.page(&query).await.unwrap().events;
    let mut told: Vec<String> = events
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["operation"] == "kms:DestroyKey")
        .inspect(|event| assert!(event.get("error").is_none(), "{event}"))
        .map(|event| event["key_id"].as_str().unwrap().to_owned())
        .collect();
    told.sort();
    let gone = ids.iter().filter(|id| !spared.contains(id));
    assert_eq!(told, gone.cloned().collect::<Vec<_>>());

    // A new key of the same name does not open ciphertexts of the destroyed one.
    let (n, gone) = ids
        .iter()
        .enumerate()
        .find(|(_, id)| !spared.contains(id))
        .unwrap();
    keys.call("POST", "/kms/keys", &json!({"key_id": gone}).to_string())
        .await
        .ok();
    let fresh = Function::start("keyway-fn-datakey", &deployment, &[]).await;
    for opener in [&datakey, &fresh] {
        let body = json!({"ciphertext_blob": blobs[n]}).to_string();
        let opened = opener.call("POST", "/kms/decrypt", &body).await;
        assert_ne!(opened.status, 200);
    }
    let body = json!({"ciphertext_blob": blobs[n]}).to_string();
    let opened = fresh.call("POST", "/kms/decrypt", &body).await;
    assert_eq!(opened.refusal(), (400, "DecryptionFailed".to_owned()));
}
