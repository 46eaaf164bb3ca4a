//! The root keyring's file: no accepted call loses it, whatever the folder's name, and a missing file is reported.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use keyway_tests::{Server, ServerOptions};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{create, data_dir, decrypt, eventually, folder, generate, is_set};

const FILE: &str = "root-keyring.secret";
const PASSPHRASE: &str = "correct horse battery staple";

fn protections() -> [ServerOptions; 2] {
    let sealed = ServerOptions::default().variable("KEYWAY_PASSPHRASE", PASSPHRASE);
    [ServerOptions::default(), sealed]
}

async fn post(server: &Server, path: &str, body: &Value) -> keyway_tests::Answer {
    server.call("POST", path, &body.to_string()).await
}

/// The files in a folder of secrets, but the lock.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != ".lock").collect()
}

#[tokio::test]
async fn configuration_naming_the_keyrings_own_folder_keeps_the_keyring() {
    for options in protections() {
        let root = folder();
        let data = data_dir(&root);
        let server = options.start(&data).await;
        create(&server, "k").await;
        let blob = generate(&server, "k").await.text("ciphertext_blob");
        let secrets = data.join("secrets");
        let text = fs::read(secrets.join(FILE)).unwrap();
        let link = root.path().join("link");
        std::os::unix::fs::symlink(root.path(), &link).unwrap();
        let spellings = [
            secrets.display().to_string(),
            format!("{}/", secrets.display()),
            format!("{}///", secrets.display()),
            format!("{}//secrets", data.display()),
            link.join("data/secrets").display().to_string(),
            link.join("link/data//secrets/").display().to_string(),
        ];
        let mut accepted = 0;
        for spelling in &spellings {
            for (field, call) in [
                ("key_directory", "reconfigure"),
                ("key_dir", "reconfigure"),
                ("key_directory", "configure"),
                ("key_dir", "configure"),
            ] {
                let mut body = json!({"backend_type": "local"});
                body[field] = json!(spelling);
                if call == "configure" {
                    post(&server, "/kms/stop", &json!({})).await.ok();
                }
                let answer = post(&server, &format!("/kms/{call}"), &body).await;
                post(&server, "/kms/start", &json!({"force": true}))
                    .await
                    .ok();
                assert!([200, 400].contains(&answer.status.as_u16()), "{spelling}");
                accepted += usize::from(answer.status == 200);
                assert_eq!(
                    names(&secrets),
                    BTreeSet::from([FILE.to_owned()]),
                    "{spelling}"
                );
                assert_eq!(fs::read(secrets.join(FILE)).unwrap(), text, "{spelling}");
            }
        }
        assert!(accepted >= 12, "{accepted} spellings were accepted");
        // Without a folder in the configuration, it is the same folder again.
        post(&server, "/kms/reconfigure", &json!({"key_directory": null}))
            .await
            .ok();
        assert_eq!(fs::read(secrets.join(FILE)).unwrap(), text);
        server.stop().await;
        let server = options.start(&data).await;
        decrypt(&server, &blob).await.ok();
    }
}

#[tokio::test]
async fn key_directory_relative_to_the_data_folder_keeps_the_keyring() {
    let root = folder();
    let here = std::env::current_dir().unwrap();
    let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    let relative = up.join(root.path().strip_prefix("/").unwrap()).join("data");
    let server = ServerOptions::default().start(&relative).await;
    create(&server, "k").await;
    let blob = generate(&server, "k").await.text("ciphertext_blob");
    let secrets = data_dir(&root).join("secrets");
    let body = json!({"key_directory": secrets});
    post(&server, "/kms/reconfigure", &body).await.ok();
    assert_eq!(names(&secrets), BTreeSet::from([FILE.to_owned()]));
    server.stop().await;
    let server = ServerOptions::default().start(&relative).await;
    decrypt(&server, &blob).await.ok();
}

#[tokio::test]
async fn keyring_moved_leaves_its_old_file_renamed_and_can_move_back() {
    for options in protections() {
        let root = folder();
        let (data, keys) = (data_dir(&root), root.path().join("keys"));
        let server = options.start(&data).await;
        create(&server, "k").await;
        let blob = generate(&server, "k").await.text("ciphertext_blob");
        let text = fs::read(data.join("secrets").join(FILE)).unwrap();
        for round in 1..=3 {
            for (folder, to, from) in [
                (json!(keys), &keys, &data.join("secrets")),
                (json!(null), &data.join("secrets"), &keys),
            ] {
                let body = json!({"key_directory": folder});
                post(&server, "/kms/reconfigure", &body).await.ok();
                assert_eq!(fs::read(to.join(FILE)).unwrap(), text);
                assert!(!from.join(FILE).exists());
                let aside = names(from);
                assert_eq!(aside.len(), round, "{aside:?}");
                for name in aside {
                    assert!(name.starts_with("root-keyring.secret.moved-20"), "{name}");
                    assert_eq!(fs::read(from.join(name)).unwrap(), text);
                }
            }
        }
        server.stop().await;
        let server = options.start(&data).await;
        decrypt(&server, &blob).await.ok();
        server.stop().await;
    }
}

/// Moves from both processes in both directions at once; with `kill`, one of them is killed in between.
async fn move_from_both(data: &Path, keys: &Path, blob: &str, kill: Option<u32>) {
    let options = ServerOptions::default();
    let (a, b) = tokio::join!(options.start(data), options.start(data));
    let (a, b) = (Arc::new(a), Arc::new(b));
    let mut moves = JoinSet::new();
    for (server, folder) in [
        (&a, json!(keys)),
        (&b, json!(null)),
        (&a, json!(data.join("secrets"))),
        (&b, json!(format!("{}/", keys.display()))),
    ] {
        let server = Arc::clone(server);
        moves.spawn(async move {
            for _ in 0..4 {
                let body = json!({"key_directory": folder}).to_string();
                let path = "/kms/reconfigure";
                let Ok(answer) = server.try_call(server.root(), "POST", path, &body).await else {
                    return;
                };
                assert!(
                    [200, 409, 429].contains(&answer.status.as_u16()),
                    "{}",
                    answer.message()
                );
            }
        });
    }
    if let Some(after) = kill {
        // The moment of the kill does not matter: the same must hold after each.
        tokio::time::sleep(std::time::Duration::from_millis(after.into())).await;
        a.signal("KILL");
    }
    while let Some(moved) = moves.join_next().await {
        moved.unwrap();
    }
    for server in [a, b] {
        let server = Arc::into_inner(server).unwrap();
        server.signal("KILL");
        server.ended().await;
    }
    let server = options.start(data).await;
    decrypt(&server, blob).await.ok();
    let status = server.call("GET", "/kms/service-status", "").await.ok();
    assert_eq!(status["healthy"], true, "{status}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_in_opposite_directions_with_kills_lose_no_keyring() {
    let rounds = if is_set("KEYWAY_TORTURE") { 300 } else { 6 };
    let root = folder();
    let (data, keys) = (data_dir(&root), root.path().join("keys"));
    let server = ServerOptions::default().start(&data).await;
    create(&server, "k").await;
    let blob = generate(&server, "k").await.text("ciphertext_blob");
    let text = fs::read(data.join("secrets").join(FILE)).unwrap();
    server.stop().await;
    for round in 0..rounds {
        let kill = (round % 2 == 1).then_some(round * 7 % 90);
        move_from_both(&data, &keys, &blob, kill).await;
        let found = [&data.join("secrets"), &keys].map(|folder| fs::read(folder.join(FILE)).ok());
        for found in found.iter().flatten() {
            assert_eq!(*found, text);
        }
        assert!(found.iter().any(Option::is_some));
    }
    let moved: usize = [&data.join("secrets"), &keys]
        .map(|folder| names(folder).len())
        .iter()
        .sum();
    assert!(
        moved > usize::try_from(rounds).unwrap(),
        "{moved} files: it hardly moved"
    );
}

#[tokio::test]
async fn keyring_file_removed_is_reported_by_the_status_and_restored() {
    for options in protections() {
        let root = folder();
        let (data, keys) = (data_dir(&root), root.path().join("keys"));
        let server = options.start(&data).await;
        create(&server, "k").await;
        let blob = generate(&server, "k").await.text("ciphertext_blob");
        for folder in [data.join("secrets"), keys] {
            let body = json!({"key_directory": folder});
            post(&server, "/kms/reconfigure", &body).await.ok();
            let status = server.call("GET", "/kms/service-status", "").await.ok();
            assert_eq!(status["healthy"], true, "{status}");
            assert!(status.get("error").is_none());
            let file = folder.join(FILE);
            let text = fs::read(&file).unwrap();
            fs::remove_file(&file).unwrap();
            // The status or the process's own check, whichever comes first, restores the file and logs it.
            let status = server.call("GET", "/kms/service-status", "").await.ok();
            if status["healthy"] == false {
                assert_eq!(status["status"], "Error");
                let reason = status["error"].as_str().unwrap();
                assert!(
                    reason.contains("was gone and has been written again"),
                    "{reason}"
                );
            }
            assert_eq!(fs::read(&file).unwrap(), text);
            let status = server.call("GET", "/kms/service-status", "").await.ok();
            assert_eq!(status["healthy"], true, "{status}");
            assert!(server.log().contains("was gone and has been written again"));

            // An unfit file is reported and stays as it is.
            fs::write(&file, "not a keyring").unwrap();
            let status = server.call("GET", "/kms/service-status", "").await.ok();
            assert_eq!(
                (&status["healthy"], &status["status"]),
                (&json!(false), &json!("Error"))
            );
            assert!(status["error"].as_str().unwrap().contains("cannot be used"));
            // The process has the keyring in memory, and serves.
            let request = http::Request::get("/health/ready").body(Bytes::new());
            let ready = server.send(request.unwrap()).await.unwrap();
            assert_eq!(ready.status, 200);
            generate(&server, "k").await.ok();
            assert_eq!(fs::read(&file).unwrap(), b"not a keyring");
            fs::write(&file, &text).unwrap();
        }
        server.stop().await;
        let server = options.start(&data).await;
        decrypt(&server, &blob).await.ok();
        server.stop().await;
    }
}

#[tokio::test]
async fn keyring_file_removed_is_restored_without_a_request() {
    let root = folder();
    let data = data_dir(&root);
    let server = ServerOptions::default().start(&data).await;
    let secrets = data.join("secrets");
    let text = fs::read(secrets.join(FILE)).unwrap();
    fs::remove_dir_all(&secrets).unwrap();
    eventually("the keyring is written again", async || {
        fs::read(secrets.join(FILE))
            .ok()
            .filter(|found| *found == text)
    })
    .await;
    eventually("the log says so", async || {
        let log = server.log();
        log.lines()
            .any(|line| line.contains("written again") && line.contains("WARN"))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn saved_copy_of_the_keyring_equals_it_and_replaces_it() {
    for options in protections() {
        let root = folder();
        let (data, copies) = (data_dir(&root), root.path().join("copies/of/keyring"));
        let server = options.start(&data).await;
        create(&server, "k").await;
        let blob = generate(&server, "k").await.text("ciphertext_blob");
        let keys = root.path().join("keys");
        let body = json!({"key_directory": keys});
        post(&server, "/kms/reconfigure", &body).await.ok();
        let text = fs::read(keys.join(FILE)).unwrap();
        // The command copies the file as it is, also from another folder, and needs no passphrase.
        let plain = ServerOptions::default();
        let save = async |to: &Path| {
            let to = to.to_str().unwrap();
            let arguments = [
                "root",
                "save",
                "--data-dir",
                data.to_str().unwrap(),
                "--to",
                to,
            ];
            plain.run(&arguments).await
        };
        for _ in 0..2 {
            let (code, stdout, stderr) = save(&copies).await;
            assert_eq!(code, Some(0), "{stderr}");
            let copy = copies.join(FILE);
            assert_eq!(stdout.trim_end(), copy.to_str().unwrap());
            assert_eq!(fs::read(&copy).unwrap(), text);
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
            assert_eq!((mode(&copy), mode(&copies)), (0o600, 0o700));
        }
        fs::write(copies.join(FILE), "another").unwrap();
        for to in [&copies, &keys] {
            let (code, _, stderr) = save(to).await;
            assert_eq!(code, Some(1), "{stderr}");
            assert!(stderr.contains("name another folder"), "{stderr}");
        }
        assert_eq!(fs::read(copies.join(FILE)).unwrap(), b"another");
        assert_eq!(fs::read(keys.join(FILE)).unwrap(), text);
        fs::remove_file(copies.join(FILE)).unwrap();
        save(&copies).await;
        server.signal("KILL");
        server.ended().await;

        fs::rename(copies.join(FILE), keys.join(FILE)).unwrap();
        let server = options.start(&data).await;
        decrypt(&server, &blob).await.ok();
        fs::remove_file(keys.join(FILE)).unwrap();
        server.signal("KILL");
        server.ended().await;
        let (code, _, stderr) = save(&copies).await;
        assert_eq!(code, Some(1));
        assert!(stderr.contains("does not exist"), "{stderr}");
    }
}
