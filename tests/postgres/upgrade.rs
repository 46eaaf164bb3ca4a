//! A rolling upgrade: nodes of an older build and of this one over one database. `make test-upgrade` builds the older one;
//! `KEYWAY_TEST_OLDER_BINARY` names it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyway_tests::{Postgres, Server, ServerOptions, Signer, skipped, variable};
use serde_json::{Value, json};

use crate::failover::Clients;
use crate::nodes::{copied, create, folder, generate, node, obeyed, set_enabled};
use crate::shared;

/// The program of the older build.
fn older() -> Option<PathBuf> {
    let Some(program) = variable("KEYWAY_TEST_OLDER_BINARY") else {
        skipped("KEYWAY_TEST_OLDER_BINARY names no older build; run make test-upgrade");
        return None;
    };
    let program = PathBuf::from(program);
    assert!(program.exists(), "there is no {}", program.display());
    Some(program)
}

/// The options of two nodes with a keyring each, of the older build and of this one.
struct Builds {
    older: ServerOptions,
    newer: ServerOptions,
    keyring: PathBuf,
}

impl Builds {
    /// Starts the first node, of the older build, which makes the deployment.
    async fn first(program: &Path, url: &str, folder: &Path) -> (Self, Arc<Server>) {
        let keyring = folder.join("older");
        let older = node(url, &keyring).installed(program);
        let first = Arc::new(older.start(folder).await);
        let newer = node(url, &copied(&keyring, &folder.join("newer")));
        let builds = Self {
            older,
            newer,
            keyring,
        };
        (builds, first)
    }
}

async fn data_key(server: &Server, id: &str) -> (String, String) {
    let body = json!({ "key_id": id }).to_string();
    let made = server.call("POST", "/kms/generate-data-key", &body).await;
    (made.text("ciphertext_blob"), made.text("plaintext_key"))
}

async fn opens(server: &Server, (blob, plaintext): &(String, String)) {
    let body = json!({ "ciphertext_blob": blob }).to_string();
    let opened = server.call("POST", "/kms/decrypt", &body).await;
    assert_eq!(opened.text("plaintext"), *plaintext);
}

async fn run(options: &ServerOptions, command: &[&str]) -> String {
    let (code, stdout, stderr) = options.run(command).await;
    assert_eq!(code, Some(0), "{command:?}: {stdout}{stderr}");
    stdout
}

/// What one build makes and changes, the other one uses and obeys.
async fn understand_each_other(one: (&Server, &ServerOptions), other: &Server, name: &str) {
    let (server, options) = one;
    let id = format!("of-{name}");
    create(server, &id).await;
    let first = data_key(server, &id).await;
    opens(other, &first).await;
    set_enabled(server, &id, false).await;
    obeyed(other, &id, 409).await;
    set_enabled(server, &id, true).await;
    obeyed(other, &id, 200).await;
    let rotate = json!({ "key_id": id }).to_string();
    server.call("POST", "/kms/keys/rotate", &rotate).await.ok();
    let second = data_key(other, &id).await;
    for opened in [&first, &second] {
        opens(server, opened).await;
        opens(other, opened).await;
    }
    let policy = [
        "access-key",
        "create",
        "--policy",
        "kms-key-user",
        "--output",
        "json",
    ];
    let made: Value = serde_json::from_str(&run(options, &policy).await).unwrap();
    let text = |name: &str| made[name].as_str().unwrap();
    let signer = Signer::new(text("access_key_id"), text("secret_access_key"));
    let path = "/kms/generate-data-key";
    let answer = other.call_as(&signer, "POST", path, &rotate).await;
    answer.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_two_builds_serve_one_deployment_until_the_older_ones_are_gone() {
    let (Some(program), Some(postgres)) = (older(), shared().await) else {
        return;
    };
    let (folder, url) = (folder(), postgres.database());
    let (builds, old) = Builds::first(&program, &url, folder.path()).await;
    let made_before = {
        create(&old, "before").await;
        data_key(&old, "before").await
    };
    let keyring_before = fs::read(builds.keyring.join("root-keyring.secret")).unwrap();
    let second_old = Arc::new(builds.older.start(folder.path()).await);
    let mut clients = Clients::new();
    clients.of(&[Arc::clone(&old), Arc::clone(&second_old)]);
    clients.go_on(20).await;

    // One node after the other is replaced, while clients call.
    let new = Arc::new(builds.newer.start(folder.path()).await);
    clients.of(&[Arc::clone(&new), Arc::clone(&second_old)]);
    old.signal("TERM");
    clients.go_on(20).await;
    opens(&new, &made_before).await;
    understand_each_other((&new, &builds.newer), &second_old, "newer").await;
    understand_each_other((&second_old, &builds.older), &new, "older").await;
    for options in [&builds.older, &builds.newer] {
        run(options, &["table", "verify"]).await;
        run(options, &["audit", "verify"]).await;
    }
    // The way back: nothing was used that only the newer build knows.
    let back = Arc::new(builds.older.start(folder.path()).await);
    opens(&back, &made_before).await;
    for copy in [&builds.keyring, &folder.path().join("newer")] {
        let now = fs::read(copy.join("root-keyring.secret")).unwrap();
        assert!(
            now == keyring_before,
            "the keyring stays as the older build made it"
        );
    }

    let second_new = Arc::new(builds.newer.start(folder.path()).await);
    clients.of(&[Arc::clone(&new), Arc::clone(&second_new)]);
    for old in [&second_old, &back] {
        old.signal("TERM");
    }
    clients.go_on(20).await;
    let done = clients.end().await;
    let nodes = [&*new, &*second_new];
    let made = done.iter().flat_map(|done| &done.made);
    for (id, node) in made.zip(nodes.into_iter().cycle()) {
        assert_eq!(
            generate(node, id).await,
            200,
            "the acknowledged {id} is lost"
        );
    }
    run(&builds.newer, &["table", "verify"]).await;
    run(&builds.newer, &["audit", "verify"]).await;
}

/// The rotation of the root gives the keyring a format that releases up to 0.1.0 do not know. A build that knows it goes
/// on; another one refuses, and says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn older_build_reads_or_refuses_a_rotated_root_and_overwrites_nothing() {
    let (Some(program), Some(postgres)) = (older(), Postgres::start().await) else {
        return;
    };
    let (folder, url) = (folder(), postgres.database());
    let (builds, old) = Builds::first(&program, &url, folder.path()).await;
    create(&old, "before").await;
    let made_before = data_key(&old, "before").await;
    old.signal("TERM");
    let new = builds.newer.start(folder.path()).await;
    run(&builds.newer, &["root", "rotate"]).await;
    opens(&new, &made_before).await;
    let rotated = folder.path().join("newer").join("root-keyring.secret");
    let newest = fs::read(&rotated).unwrap();
    fs::copy(&rotated, builds.keyring.join("root-keyring.secret")).unwrap();
    let (code, _, stderr) = builds.older.run(&["table", "verify"]).await;
    match code {
        Some(0) => {}
        _ => assert!(stderr.contains("release"), "{stderr}"),
    }
    let kept = fs::read(builds.keyring.join("root-keyring.secret")).unwrap();
    assert!(kept == newest, "the older build changes no keyring");
    opens(&new, &made_before).await;
    new.stop().await;
}
