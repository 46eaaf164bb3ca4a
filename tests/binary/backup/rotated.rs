//! Backups from before a rotation of the root, restored after it.

use std::fs;
use std::path::Path;

use keyway_tests::ServerOptions;
use serde_json::json;

use super::{Scene, fails, run, with_passphrase};
use crate::{create, decrypt, folder, generate};

/// A deployment whose root was rotated after it was backed up.
struct Rotated {
    scene: Scene,
    options: ServerOptions,
    /// A ciphertext of before the backup.
    blob: String,
    /// A copy of the root keyring of before the rotation.
    copy: std::path::PathBuf,
}

impl Rotated {
    /// `more` are options of the backup.
    async fn new(more: &[&str]) -> Self {
        let scene = Scene::new();
        let options = ServerOptions::default();
        let server = options.start(&scene.data).await;
        create(&server, "k").await;
        let blob = generate(&server, "k").await.text("ciphertext_blob");
        server.stop().await;
        scene.backup(&with_passphrase(&options), more).await;
        let copy = scene.other("copy");
        let rotated = Self {
            scene,
            options,
            blob,
            copy,
        };
        let to = rotated.copy.to_str().unwrap();
        let (code, _, stderr) = rotated.root(&["save", "--to", to]).await;
        assert_eq!(code, Some(0), "{stderr}");
        let (code, _, stderr) = rotated.root(&["rotate"]).await;
        assert_eq!(code, Some(0), "{stderr}");
        rotated
    }

    async fn root(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let all = [&["root"], arguments, &["--data-dir", self.scene.data()]].concat();
        self.options.run(&all).await
    }

    /// A server over this folder opens what was encrypted before the backup.
    async fn opens(&self, folder: &Path) {
        let server = self.options.start(folder).await;
        decrypt(&server, &self.blob).await.ok();
        let made = generate(&server, "k").await.text("ciphertext_blob");
        decrypt(&server, &made).await.ok();
        server.stop().await;
        let verify = ["table", "verify", "--data-dir", folder.to_str().unwrap()];
        let verified = run(&self.options, &verify).await;
        assert_eq!(verified["ok"], true, "{verified}");
    }
}

#[tokio::test]
async fn backup_of_before_a_rotation_restored_while_the_old_root_is_held_can_be_rewrapped() {
    let rotated = Rotated::new(&[]).await;
    let (scene, plain) = (&rotated.scene, &rotated.options);
    let done = run(plain, &scene.restore(&scene.data, &["--overwrite"])).await;
    assert_eq!(
        done["changed"][0],
        json!({"kind": "key", "id": "k"}),
        "{done}"
    );
    assert_eq!(done["refused"], json!([]));
    rotated.opens(&scene.data).await;
    let (code, _, stderr) = rotated.root(&["retire", "r1"]).await;
    assert!(code == Some(1) && stderr.contains("r1"), "{stderr}");
    let (code, stdout, stderr) = rotated.root(&["rewrap"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("nothing refers to the root r1"), "{stdout}");
    rotated.opens(&scene.data).await;
}

#[tokio::test]
async fn backup_with_the_root_restored_after_a_rotation_into_an_empty_folder_has_the_old_root() {
    let rotated = Rotated::new(&["--with-root"]).await;
    let (scene, options) = (&rotated.scene, with_passphrase(&rotated.options));
    let to = scene.other("new");
    let done = run(&options, &scene.restore(&to, &[])).await;
    assert_eq!(
        (&done["root_keyring"], &done["refused"]),
        (&json!("new"), &json!([]))
    );
    rotated.opens(&to).await;
    let status = ["root", "status", "--data-dir", to.to_str().unwrap()];
    let status = run(&options, &status).await;
    assert_eq!(
        (&status["current"], &status["lost"]),
        (&json!("r1"), &json!([]))
    );
}

#[tokio::test]
async fn backup_without_the_root_restored_after_a_rotation_needs_a_keyring_with_the_old_root() {
    let rotated = Rotated::new(&[]).await;
    let (scene, plain) = (&rotated.scene, &rotated.options);
    let bare = scene.other("bare");
    let said = fails(plain, &scene.restore(&bare, &[]), 1).await;
    assert!(said.contains("there is no root keyring"), "{said}");

    // The keyring of now holds both roots, and a copy of before the first one.
    let of_now = scene.data.join("secrets");
    for (name, keyring) in [("now", of_now.as_path()), ("before", &rotated.copy)] {
        let to = scene.other(name);
        with_keyring(&to, keyring);
        let done = run(plain, &scene.restore(&to, &[])).await;
        assert_eq!(
            (&done["root_keyring"], &done["refused"]),
            (&json!("kept"), &json!([]))
        );
        rotated.opens(&to).await;
    }
}

/// Makes a data folder that has this root keyring and no table.
fn with_keyring(folder: &Path, keyring: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    let secrets = folder.join("secrets");
    let mut builder = fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(&secrets)
        .unwrap();
    let file = "root-keyring.secret";
    fs::copy(keyring.join(file), secrets.join(file)).unwrap();
}

#[tokio::test]
async fn backup_of_before_a_retired_root_is_refused_and_changes_nothing() {
    let rotated = Rotated::new(&["--with-root"]).await;
    let (scene, options) = (&rotated.scene, with_passphrase(&rotated.options));
    let (code, _, stderr) = rotated.root(&["retire", "r1"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    let table = fs::read(scene.data.join("keyway.db")).unwrap();
    let into_own = scene.restore(&scene.data, &["--overwrite"]);
    let said = fails(&options, &into_own, 1).await;
    let told = "under the root r1, which the root keyring does not hold";
    assert!(said.contains(told) && said.contains("empty"), "{said}");
    assert!(fs::read(scene.data.join("keyway.db")).unwrap() == table);
    let to = scene.other("new");
    with_keyring(&to, &scene.data.join("secrets"));
    let said = fails(&rotated.options, &scene.restore(&to, &[]), 1).await;
    assert!(said.contains(told), "{said}");
    let verify = ["backup", "verify", scene.file(), "--data-dir", scene.data()];
    let said = fails(&rotated.options, &verify, 1).await;
    assert!(said.contains(told), "{said}");

    // The backup has its own root keyring.
    let elsewhere = folder();
    let to = elsewhere.path().join("data");
    run(&options, &scene.restore(&to, &[])).await;
    rotated.opens(&to).await;
}
