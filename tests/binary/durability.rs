//! Acknowledged changes survive every end of the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyway_tests::{Server, ServerOptions};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{folder, generate, is_set};

const WRITERS: usize = 50;
const KEYS_EACH: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_loses_no_acknowledged_key_and_leaves_none_incomplete() {
    let moments = if is_set("KEYWAY_TORTURE") { 40 } else { 3 };
    for moment in 1..=moments {
        let folder = folder();
        let server = ServerOptions::default().start(folder.path()).await;
        let kill_at = moment * WRITERS * KEYS_EACH / (moments + 1);
        let acknowledged = create_until_killed(server, kill_at).await;
        let server = ServerOptions::default().start(folder.path()).await;
        check(&server, &acknowledged).await;
        assert_eq!(server.stop().await.0, Some(0));
    }
}

fn id(writer: usize, number: usize) -> String {
    format!("writer-{writer}.{number}")
}

fn body(writer: usize, number: usize) -> String {
    format!(
        r#"{{"key_id":"{}","description":"the {number}th","tags":{{"writer":"{writer}"}}}}"#,
        id(writer, number)
    )
}

/// Creates keys from many connections until the process is killed; returns the acknowledged ones.
async fn create_until_killed(server: Server, kill_at: usize) -> BTreeMap<String, Value> {
    let server = Arc::new(server);
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (server, acknowledged) = (Arc::clone(&server), Arc::clone(&acknowledged));
        writers.spawn(async move {
            let mut keys = Vec::new();
            for number in 0..KEYS_EACH {
                let body = body(writer, number);
                let answer = server
                    .try_call(server.root(), "POST", "/kms/keys", &body)
                    .await;
                let Ok(answer) = answer else { break };
                keys.push((id(writer, number), answer.ok()["key_metadata"].clone()));
                if acknowledged.fetch_add(1, Ordering::Relaxed) + 1 == kill_at {
                    server.signal("KILL");
                }
            }
            keys
        });
    }
    let keys: BTreeMap<String, Value> = writers.join_all().await.into_iter().flatten().collect();
    let server = Arc::into_inner(server).unwrap();
    assert_eq!(server.ended().await.0, None, "it was killed");
    assert!(keys.len() >= kill_at);
    assert!(keys.len() < WRITERS * KEYS_EACH, "it was killed in between");
    keys
}

async fn check(server: &Server, acknowledged: &BTreeMap<String, Value>) {
    let mut listed = BTreeSet::new();
    let mut marker = String::new();
    loop {
        let page = server
            .call("GET", &format!("/kms/keys?limit=97{marker}"), "")
            .await
            .ok();
        for key in page["keys"].as_array().unwrap() {
            let id = key["key_id"].as_str().unwrap().to_owned();
            assert!(Some(&id) > listed.last(), "{id} comes once, in its order");
            listed.insert(id);
        }
        match page["next_marker"].as_str() {
            Some(next) => marker = format!("&marker={next}"),
            None => break,
        }
    }
    for (id, metadata) in acknowledged {
        assert!(listed.contains(id), "{id} was acknowledged");
        let answer = server.call("GET", &format!("/kms/keys/{id}"), "").await;
        assert_eq!(answer.ok()["key_metadata"], *metadata);
    }
    for writer in 0..WRITERS {
        for number in 0..KEYS_EACH {
            let id = id(writer, number);
            // A key that was not acknowledged is complete or missing.
            if !acknowledged.contains_key(&id) {
                let answer = server
                    .call("POST", "/kms/keys", &body(writer, number))
                    .await;
                let expected = if listed.contains(&id) { 409 } else { 200 };
                assert_eq!(answer.status, expected, "{id}");
            }
            generate(server, &id).await.ok();
        }
    }
}
