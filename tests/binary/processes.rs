//! Several processes over one data folder.

use std::sync::Arc;
use std::time::Duration;

use keyway_tests::{Answer, Server, ServerOptions, obeys, serves};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::{access_key, create, decrypt, folder, generate, now, on, shown_root, signer};

/// Two servers over one folder.
async fn two(options: &ServerOptions) -> (TempDir, [Arc<Server>; 2]) {
    let folder = folder();
    // Both start at once: one makes the deployment, and both open it.
    let (a, b) = tokio::join!(options.start(folder.path()), options.start(folder.path()));
    (folder, [Arc::new(a), Arc::new(b)])
}

#[tokio::test]
async fn creations_of_one_name_have_one_winner() {
    let (_folder, servers) = two(&ServerOptions::default()).await;
    let mut creations = JoinSet::new();
    for number in 0..64 {
        let server = Arc::clone(&servers[number % 2]);
        creations.spawn(async move {
            let body = format!(r#"{{"key_id":"one","description":"{number}"}}"#);
            server.call("POST", "/kms/keys", &body).await
        });
    }
    let answers = creations.join_all().await;
    let (won, lost): (Vec<Answer>, Vec<Answer>) =
        answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 63));
    for answer in lost {
        assert_eq!(answer.refusal(), (409, "KeyAlreadyExists".to_owned()));
    }
    for server in &servers {
        let answer = server.call("GET", "/kms/keys/one", "").await.ok();
        assert_eq!(answer["key_metadata"], won[0].ok()["key_metadata"]);
    }
}

#[tokio::test]
async fn two_first_starts_show_one_root_access_key() {
    let (_folder, servers) = two(&ServerOptions::default().without_root()).await;
    let root = signer(&shown_root(&[&servers[0], &servers[1]]).await);
    let mut shown = String::new();
    for server in servers {
        server.call_as(&root, "GET", "/kms/keys", "").await.ok();
        shown += &Arc::into_inner(server).unwrap().stop().await.2;
    }
    assert_eq!(
        shown.matches("AWS_SECRET_ACCESS_KEY=").count(),
        1,
        "{shown}"
    );
}

#[tokio::test]
async fn changes_of_two_processes_are_all_kept() {
    const EACH: usize = 10;
    let (_folder, servers) = two(&ServerOptions::default()).await;
    create(&servers[0], "k").await;
    let mut changes = JoinSet::new();
    for (which, server) in servers.iter().enumerate() {
        for number in 0..EACH {
            let server = Arc::clone(server);
            changes.spawn(async move {
                let tag = format!(r#"{{"key_id":"k","tags":{{"{which}-{number}":"x"}}}}"#);
                insist(&server, "/kms/keys/tag", &tag).await;
                insist(&server, "/kms/keys/rotate", &on("k")).await;
                generate(&server, "k").await.text("ciphertext_blob")
            });
        }
    }
    let blobs = changes.join_all().await;
    let key = servers[1].call("GET", "/kms/keys/k", "").await.ok();
    assert_eq!(key["key_metadata"]["key_version"], 2 * EACH + 1);
    let tags = key["key_metadata"]["tags"].as_object().unwrap();
    assert_eq!(tags.len(), 2 * EACH);
    for blob in blobs {
        for server in &servers {
            decrypt(server, &blob).await.ok();
        }
    }
}

/// Repeats a request that lost to other writers.
async fn insist(server: &Server, path: &str, body: &str) {
    for _ in 0..100 {
        let answer = server.call("POST", path, body).await;
        if answer.status == 200 {
            return;
        }
        let refusal = answer.refusal();
        assert!(
            [(409, "Conflict"), (503, "BackendError")].contains(&(refusal.0, &refusal.1)),
            "{refusal:?}"
        );
    }
    panic!("{path} was refused a hundred times");
}

#[tokio::test]
async fn key_made_by_one_process_works_in_the_other_at_once() {
    let (_folder, [a, b]) = two(&ServerOptions::default()).await;
    for id in ["k1", "k2", "k3"] {
        create(&a, id).await;
        generate(&b, id).await.ok();
    }
    let marker = a
        .call("GET", "/kms/keys?limit=1", "")
        .await
        .text("next_marker");
    let next = format!("/kms/keys?limit=1&marker={marker}");
    let page = b.call("GET", &next, "").await;
    assert_eq!(page.ok()["keys"][0]["key_id"], "k2");
    let marker = page.text("next_marker");
    let last = format!("/kms/keys?marker={marker}");
    let page = a.call("GET", &last, "").await;
    assert_eq!(page.ok()["keys"][0]["key_id"], "k3");

    let rotated = a.call("POST", "/kms/keys/rotate", &on("k1")).await;
    assert_eq!(rotated.ok()["key_metadata"]["key_version"], 2);
    let generated = generate(&a, "k1").await;
    let opened = decrypt(&b, &generated.text("ciphertext_blob")).await;
    assert_eq!(opened.ok()["key_version"], 2);
    assert_eq!(opened.text("plaintext"), generated.text("plaintext_key"));
}

#[tokio::test]
async fn state_change_holds_here_at_once_and_elsewhere_within_the_ttl() {
    for seconds in [0, 1] {
        let options =
            ServerOptions::default().variable("KEYWAY_STATE_TTL_SECONDS", &seconds.to_string());
        let (folder, [a, b]) = two(&options).await;
        let ttl = Duration::from_secs(seconds);
        for (id, method, path) in [
            ("disabled", "POST", "/kms/keys/disable"),
            ("deleted", "DELETE", "/kms/keys/delete"),
        ] {
            create(&a, id).await;
            let blob = generate(&b, id).await.text("ciphertext_blob");
            let opens = async |server: &Server| serves(&decrypt(server, &blob).await);
            let seals = async |server: &Server| serves(&generate(server, id).await);
            assert!(opens(&a).await && opens(&b).await);
            a.call(method, path, &on(id)).await.ok();
            let returned = now();
            assert!(
                !opens(&a).await && !seals(&a).await,
                "who answered obeys at once"
            );
            tokio::join!(
                obeys(returned + ttl, async || opens(&b).await),
                obeys(returned + ttl, async || seals(&b).await)
            );
        }

        let key = access_key(folder.path(), &["--policy", "kms-auditor"]).await;
        let holder = signer(&key);
        let admitted = async |server: &Server| {
            let answer = server.call_as(&holder, "GET", "/kms/keys", "").await;
            answer.status != 401
        };
        assert!(admitted(&a).await && admitted(&b).await);
        let data_dir = folder.path().to_str().unwrap();
        let id = key["access_key_id"].as_str().unwrap();
        let revoke = ["access-key", "revoke", "--data-dir", data_dir, id];
        let (code, _, stderr) = options.run(&revoke).await;
        let returned = now();
        assert_eq!(code, Some(0), "{stderr}");
        tokio::join!(
            obeys(returned + ttl, async || admitted(&a).await),
            obeys(returned + ttl, async || admitted(&b).await)
        );
    }
}
