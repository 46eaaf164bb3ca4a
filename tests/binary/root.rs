//! `keyway root` on a folder that servers use at the same time.

use std::fs;
use std::path::Path;
use std::time::Duration;

use keyway_tests::{Server, ServerOptions};
use serde_json::{Value, json};

use crate::{access_key, create, data_dir, decrypt, eventually, folder, generate, signer};

const PASSPHRASE: &str = "correct horse battery staple";
const KEYRING: &str = "root-keyring.secret";

/// Runs `keyway root` on this folder; returns its exit code, its JSON and what it says.
async fn root(
    options: &ServerOptions,
    data_dir: &Path,
    arguments: &[&str],
) -> (Option<i32>, Value, String) {
    let folder = data_dir.to_str().unwrap();
    let options_of_all = &["--data-dir", folder, "--output", "json"];
    let all = [&["root"], arguments, options_of_all].concat();
    let (code, stdout, stderr) = options.run(&all).await;
    (
        code,
        serde_json::from_str(&stdout).unwrap_or_default(),
        stderr,
    )
}

async fn status(options: &ServerOptions, data_dir: &Path) -> Value {
    let (code, status, stderr) = root(options, data_dir, &["status"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    status
}

/// How many records refer to each root.
fn counts(status: &Value) -> Vec<(&str, u64)> {
    let roots = status["roots"].as_array().unwrap();
    let count = |root: &'_ Value| root["records"].as_u64().unwrap();
    roots
        .iter()
        .map(|root| (root["id"].as_str().unwrap(), count(root)))
        .collect()
}

/// Makes data keys of these keys.
async fn blobs(server: &Server, keys: usize) -> Vec<String> {
    let mut blobs = Vec::new();
    for n in 0..keys {
        let name = format!("k{n}");
        create(server, &name).await;
        blobs.push(generate(server, &name).await.text("ciphertext_blob"));
    }
    blobs
}

async fn all_open(server: &Server, blobs: &[String]) {
    for blob in blobs {
        decrypt(server, blob).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_rotated_and_retired_under_two_servers_keeps_everything_open() {
    let (folder, keys) = (folder(), 12);
    let data = data_dir(&folder);
    let options = ServerOptions::default().variable("KEYWAY_PASSPHRASE", PASSPHRASE);
    let (a, b) = (options.start(&data).await, options.start(&data).await);
    let mut blobs = blobs(&a, keys).await;
    all_open(&b, &blobs).await;
    // The keyring's folder moves while the servers run, and they must find it there.
    let moved = folder.path().join("moved");
    let body = json!({"key_directory": moved}).to_string();
    a.call("POST", "/kms/reconfigure", &body).await.ok();

    let rotation = root(&options, &data, &["rotate"]);
    let traffic = async {
        let mut made = Vec::new();
        for n in 0..20 {
            let (server, name) = (if n % 2 == 0 { &a } else { &b }, format!("during{n}"));
            create(server, &name).await;
            made.push(generate(server, &name).await.text("ciphertext_blob"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        made
    };
    let ((code, done, stderr), made) = tokio::join!(rotation, traffic);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(
        (&done["current"], &done["failed"]),
        (&json!("r2"), &json!([])),
        "{done}"
    );
    blobs.extend(made);
    let found = status(&options, &data).await;
    assert_eq!(found["current"], "r2");
    assert!(
        found["roots"][1]["created_at"]
            .as_str()
            .unwrap()
            .ends_with('Z'),
        "{found}"
    );
    let counted = counts(&found);
    assert!(
        matches!(counted[..], [("r1", 0), ("r2", more)] if more > 30),
        "{found}"
    );

    let (code, _, stderr) = root(&options, &data, &["retire", "r2"]).await;
    assert!(
        code == Some(1) && stderr.contains("r2 is the newest root"),
        "{stderr}"
    );
    let (code, done, stderr) = root(&options, &data, &["retire", "r1"]).await;
    assert_eq!((code, &done["now"]), (Some(0), &json!(true)), "{stderr}");
    assert!(stderr.contains("waiting 15 seconds"), "{stderr}");
    let (code, done, _) = root(&options, &data, &["retire", "r1"]).await;
    assert_eq!((code, &done["now"]), (Some(0), &json!(false)));
    assert_eq!(counts(&status(&options, &data).await).len(), 1);
    let events = options
        .operator_events(&["--data-dir", data.to_str().unwrap()])
        .await;
    let retired = events
        .iter()
        .filter(|event| event["operation"] == "kms:RetireRoot");
    let retired: Vec<_> = retired
        .map(|event| (&event["resource"], &event["error"]))
        .collect();
    let done = (&json!("root/r1"), &Value::Null);
    assert_eq!(retired, [(&Value::Null, &json!("failed")), done, done]);
    create(&a, "after").await;
    all_open(&a, &blobs).await;
    generate(&b, "after").await.ok();
    all_open(&b, &blobs).await;
    for server in [a, b] {
        let health = server.call("GET", "/kms/service-status", "").await.ok();
        assert_eq!(health["healthy"], true, "{health}");
        server.stop().await;
    }
    let fresh = options.start(&data).await;
    all_open(&fresh, &blobs).await;
    fresh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_killed_at_any_moment_loses_nothing_and_goes_on() {
    let options = ServerOptions::default();
    let killed = async |after: u64| {
        let folder = folder();
        let data = data_dir(&folder);
        let server = options.start(&data).await;
        let mut blobs = blobs(&server, 20).await;
        let key = access_key(&data, &["--policy", "kms-admin"]).await;
        let rotation = root(&options, &data, &["rotate", "--rate", "40"]);
        // When this time has passed, the process is killed.
        let ended = tokio::time::timeout(Duration::from_millis(after), rotation).await;
        assert!(ended.is_err(), "it ended in {after} ms");
        create(&server, "meanwhile").await;
        blobs.push(generate(&server, "meanwhile").await.text("ciphertext_blob"));
        all_open(&server, &blobs).await;
        let signed = server.call_as(&signer(&key), "GET", "/kms/keys", "").await;
        signed.ok();
        server.kill().await;
        let server = options.start(&data).await;
        all_open(&server, &blobs).await;
        let found = status(&options, &data).await;
        assert_eq!(found["lost"], json!([]));
        let command = if found["current"] == "r1" {
            "rotate"
        } else {
            "rewrap"
        };
        let (code, done, stderr) = root(&options, &data, &[command]).await;
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(
            (&done["current"], &done["failed"]),
            (&json!("r2"), &json!([]))
        );
        assert_eq!(counts(&status(&options, &data).await)[0], ("r1", 0));
        all_open(&server, &blobs).await;
        server
            .call_as(&signer(&key), "GET", "/kms/keys", "")
            .await
            .ok();
        let (code, verified) = verify(&data).await;
        assert_eq!(code, Some(0), "{verified}");
        server.stop().await;
    };
    tokio::join!(killed(15), killed(40), killed(90), killed(200), killed(450));
}

async fn verify(data_dir: &Path) -> (Option<i32>, String) {
    let folder = data_dir.to_str().unwrap();
    let arguments = ["table", "verify", "--data-dir", folder];
    let (code, stdout, stderr) = ServerOptions::default().run(&arguments).await;
    (code, format!("{stdout}{stderr}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_at_once_one_wins_and_the_others_say_so() {
    let folder = folder();
    let data = data_dir(&folder);
    let options = ServerOptions::default();
    let server = options.start(&data).await;
    blobs(&server, 2).await;
    let run = || root(&options, &data, &["rotate"]);
    let (a, b, c) = tokio::join!(run(), run(), run());
    let mut codes = [a.0, b.0, c.0];
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(1), Some(1)], "{a:?} {b:?} {c:?}");
    for (code, _, stderr) in [a, b, c] {
        let says = [
            "changed the root keyring at the same time",
            "was rotated to r2 a moment ago",
        ];
        assert!(
            code == Some(0) || says.iter().any(|says| stderr.contains(says)),
            "{stderr}"
        );
    }
    assert_eq!(counts(&status(&options, &data).await).len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn older_copy_of_the_keyring_put_back_is_refused_with_what_to_do() {
    let folder = folder();
    let data = data_dir(&folder);
    let options = ServerOptions::default();
    let server = options.start(&data).await;
    let blobs = blobs(&server, 1).await;
    let file = data.join("secrets").join(KEYRING);
    let old = fs::read(&file).unwrap();
    let (code, _, stderr) = root(&options, &data, &["rotate"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    all_open(&server, &blobs).await;
    let new = fs::read(&file).unwrap();
    fs::write(&file, &old).unwrap();
    eventually("the status tells", async || {
        let status = server.call("GET", "/kms/service-status", "").await.ok();
        (status["healthy"] == false).then_some(())
    })
    .await;
    create(&server, "later").await;
    server.stop().await;
    let (code, stderr) = options.fail(&data).await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("is an older copy: it does not hold the root r2"),
        "{stderr}"
    );
    let (code, _, stderr) = root(&options, &data, &["rotate"]).await;
    assert!(
        code == Some(1) && stderr.contains("put back the newest copy"),
        "{stderr}"
    );
    fs::write(&file, &new).unwrap();
    let server = options.start(&data).await;
    all_open(&server, &blobs).await;
    server.stop().await;
}

#[tokio::test]
async fn root_given_up_loses_what_it_signed_and_its_id_is_not_used_again() {
    let folder = folder();
    let data = data_dir(&folder);
    let options = ServerOptions::default();
    let server = options.start(&data).await;
    let blobs = blobs(&server, 1).await;
    server.stop().await;
    let backup = folder.path().join("backup");
    let backup = backup.to_str().unwrap();
    let place = data.to_str().unwrap();
    let create = ["backup", "create", "--data-dir", place, "--to", backup];
    let (code, _, stderr) = options.run(&create).await;
    assert_eq!(code, Some(0), "{stderr}");
    let file = data.join("secrets").join(KEYRING);
    let old = fs::read(&file).unwrap();
    let (code, _, stderr) = root(&options, &data, &["rotate"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    let give_up = async |root: &str| {
        let command = ["root", "give-up", "--data-dir", place, root];
        options.run(&command).await
    };
    let (code, _, stderr) = give_up("r2").await;
    assert!(code == Some(1) && stderr.contains("r2"), "{stderr}");

    // The machine with the newest keyring is gone, and a copy of before the rotation is left.
    fs::write(&file, &old).unwrap();
    let (code, stderr) = options.fail(&data).await;
    assert!(code == Some(1) && stderr.contains("r2"), "{stderr}");
    let (code, _, stderr) = give_up("r7").await;
    assert!(code == Some(1) && stderr.contains("r7"), "{stderr}");
    let (code, stdout, stderr) = give_up("r2").await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("the root r2 is given up"), "{stdout}");

    let found = status(&options, &data).await;
    assert_eq!(found["current"], "r1");
    let names = found["lost"].as_array().unwrap();
    assert!(names.contains(&json!("key/k0")), "{found}");
    // The configuration is lost too. No start makes another one in its place.
    let (code, stderr) = options.fail(&data).await;
    assert!(
        code == Some(1)
            && stderr.contains("config/service")
            && stderr.contains("`keyway restore --from BACKUP`"),
        "{stderr}"
    );
    // A rotation soon after another change of the keyring is refused for ten seconds.
    let mut rotated = root(&options, &data, &["rotate"]).await;
    for _ in 0..60 {
        if !rotated.2.contains("wait 10 seconds") {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        rotated = root(&options, &data, &["rotate"]).await;
    }
    let (code, done, stderr) = rotated;
    assert_eq!(done["current"], "r3", "{stderr}");
    // The lost records stay as they are.
    assert!(code == Some(1) && stderr.contains("key/k0"), "{stderr}");
    let events = options.operator_events(&["--data-dir", place]).await;
    let given_up = events
        .iter()
        .filter(|event| event["operation"] == "kms:GiveUpRoot");
    let results: Vec<&Value> = given_up.map(|event| &event["error"]).collect();
    assert_eq!(results, [&json!("failed"), &json!("failed"), &Value::Null]);

    // A backup of before the lost root was made writes again what that root signed.
    let restore = ["restore", "--data-dir", place, "--from", backup];
    let restore = [&restore[..], &["--output", "json"]].concat();
    let (code, stdout, stderr) = options.run(&restore).await;
    assert_eq!(code, Some(0), "{stderr}");
    let done: Value = serde_json::from_str(&stdout).unwrap();
    let repaired = done["repaired"].to_string();
    for name in ["k0", "service"] {
        assert!(repaired.contains(&format!("\"{name}\"")), "{repaired}");
    }
    assert_eq!(status(&options, &data).await["lost"], json!([]));
    let server = options.start(&data).await;
    all_open(&server, &blobs).await;
    server.stop().await;
}
