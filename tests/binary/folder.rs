//! The data folder: its owner and modes, its content, and its passphrase.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use keyway_tests::ServerOptions;

use crate::{create, data_dir, decrypt, folder, generate};

/// Mode and content of everything below `folder`, itself included; a folder has no content.
fn everything(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    let mut found = BTreeMap::from([(folder.to_owned(), (mode(folder), Vec::new()))]);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything(&path));
        } else {
            let content = fs::read(&path).unwrap();
            found.insert(path.clone(), (mode(&path), content));
        }
    }
    found
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

const KEYRING: &str = "secrets/root-keyring.secret";

#[tokio::test]
async fn data_folder_under_any_umask_is_its_owners_alone() {
    for umask in ["000", "022", "077"] {
        let folder = folder();
        let data_dir = folder.path().join("above").join("data");
        let options = ServerOptions::default().umask(umask);
        let server = options.start(&data_dir).await;
        create(&server, "k").await;
        let check = |when: &str, files: &[&str]| {
            let found = everything(folder.path());
            for (path, (mode, _)) in &found {
                let wanted = if path.is_dir() { 0o700 } else { 0o600 };
                assert_eq!(*mode, wanted, "{when}, umask {umask}: {}", path.display());
            }
            for file in files {
                assert!(found.contains_key(&data_dir.join(file)), "{when}: {file}");
            }
        };
        let files = ["keyway.db", "keyway.db-wal", "keyway.db-shm", KEYRING];
        check("while it runs", &files);
        server.signal("KILL");
        server.ended().await;
        check("after a kill", &files);
        let server = options.start(&data_dir).await;
        server.stop().await;
        check("after a stop", &["keyway.db", KEYRING]);
    }
}

#[tokio::test]
async fn data_folder_open_to_others_is_refused_with_a_remedy() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let options = ServerOptions::default();
    options.start(&data_dir).await.stop().await;
    let before = everything(&data_dir);
    for (name, modes, right) in [
        ("", [0o750, 0o701, 0o777], 0o700),
        ("keyway.db", [0o640, 0o604, 0o666], 0o600),
        ("secrets", [0o750, 0o701, 0o777], 0o700),
        (KEYRING, [0o640, 0o604, 0o666], 0o600),
    ] {
        let path: PathBuf = data_dir.join(name).components().collect();
        for mode in modes {
            set_mode(&path, mode);
            let (code, stderr) = options.fail(&data_dir).await;
            assert_eq!(code, Some(1), "{stderr}");
            let told: String = stderr.chars().filter(|&c| c != '\'').collect();
            let remedy = format!("chmod {right:o} {}", path.display());
            assert!(told.contains(&remedy), "no {remedy:?} in {stderr}");
        }
        set_mode(&path, right);
        assert_eq!(everything(&data_dir), before, "{name}");
    }
    options.start(&data_dir).await.stop().await;
}

/// Kubernetes leaves a volume with fsGroup like this at each mount: the group owns everything too.
fn mount_with_group(folder: &Path) {
    for (path, (mode, _)) in everything(folder) {
        let group = if path.is_dir() { 0o2070 } else { 0o060 };
        set_mode(&path, mode | group);
    }
}

#[tokio::test]
async fn volume_with_fs_group_starts_again_and_stays_as_it_is() {
    let folder = folder();
    let data_dir = folder.path().join("volume");
    fs::create_dir(&data_dir).unwrap();
    set_mode(&data_dir, 0o2770);
    let options = ServerOptions::default();
    let server = options.start(&data_dir).await;
    create(&server, "k").await;
    let blob = generate(&server, "k").await.text("ciphertext_blob");
    server.stop().await;
    for mount in 0..2 {
        mount_with_group(&data_dir);
        let keyring = data_dir.join(KEYRING);
        assert_eq!(everything(&data_dir)[&keyring].0, 0o660, "mount {mount}");
        let server = options.start(&data_dir).await;
        decrypt(&server, &blob).await.ok();
        generate(&server, "k").await.ok();
        server.stop().await;
        assert_eq!(everything(&data_dir)[&keyring].0, 0o660, "mount {mount}");
    }

    for (name, mode, right) in [
        (KEYRING, 0o664, 0o600),
        ("keyway.db", 0o662, 0o600),
        ("secrets", 0o2775, 0o700),
        ("", 0o2777, 0o700),
    ] {
        let path: PathBuf = data_dir.join(name).components().collect();
        let before = everything(&data_dir)[&path].0;
        set_mode(&path, mode);
        let (code, stderr) = options.fail(&data_dir).await;
        assert_eq!(code, Some(1), "{stderr}");
        let told: String = stderr.chars().filter(|&c| c != '\'').collect();
        let remedy = format!("chmod {right:o} {}", path.display());
        assert!(told.contains(&remedy), "no {remedy:?} in {stderr}");
        set_mode(&path, before);
    }
    // Without set-group-ID it is no such volume, so the group's access is a mistake.
    set_mode(&data_dir, 0o770);
    let (code, stderr) = options.fail(&data_dir).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("chmod 700"), "{stderr}");
}

#[tokio::test]
async fn keyring_missing_foreign_or_damaged_stops_the_start_and_is_not_replaced() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let options = ServerOptions::default();
    let server = options.start(&data_dir).await;
    create(&server, "k").await;
    let blob = generate(&server, "k").await.text("ciphertext_blob");
    server.stop().await;
    let other = crate::folder();
    options.start(other.path()).await.stop().await;

    let keyring = data_dir.join(KEYRING);
    let right = fs::read(&keyring).unwrap();
    let foreign = fs::read(other.path().join(KEYRING)).unwrap();
    for (content, words) in [
        (None, "root keyring is missing"),
        (Some(&foreign[..]), "belongs to another deployment"),
        (Some(&right[..right.len() / 2]), "not a secret's file"),
    ] {
        match content {
            None => fs::remove_file(&keyring).unwrap(),
            Some(content) => fs::write(&keyring, content).unwrap(),
        }
        set_mode(&data_dir, 0o700);
        if content.is_some() {
            set_mode(&keyring, 0o600);
        }
        let before = everything(&data_dir);
        let (code, stderr) = options.fail(&data_dir).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
        let tool = ["access-key", "list", "--data-dir"];
        let tool = [&tool[..], &[data_dir.to_str().unwrap()]].concat();
        let (code, _, stderr) = options.run(&tool).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert_eq!(everything(&data_dir), before, "{words}");
    }
    // Without the whole folder of secrets, no new keyring is made either.
    fs::remove_dir_all(data_dir.join("secrets")).unwrap();
    let (code, stderr) = options.fail(&data_dir).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("root keyring is missing"), "{stderr}");
    assert!(!keyring.exists());

    fs::write(&keyring, right).unwrap();
    set_mode(&keyring, 0o600);
    let server = options.start(&data_dir).await;
    decrypt(&server, &blob).await.ok();
}

#[tokio::test]
async fn table_of_a_newer_release_or_another_program_is_left_as_it_is() {
    let folder = folder();
    let options = ServerOptions::default();
    options.start(folder.path()).await.stop().await;
    let table = folder.path().join("keyway.db");
    let open = || rusqlite::Connection::open(&table).unwrap();
    let set = |pragma: &str, value: i64| open().pragma_update(None, pragma, value).unwrap();
    for (pragma, wrong, words) in [
        ("user_version", 99, "run the later release"),
        ("application_id", 1, "not a Keyway table"),
    ] {
        let right = open().pragma_query_value(None, pragma, |row| row.get(0));
        let right: i64 = right.unwrap();
        set(pragma, wrong);
        let before = everything(folder.path());
        let (code, stderr) = options.fail(folder.path()).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
        assert_eq!(everything(folder.path()), before, "{pragma}");
        set(pragma, right);
    }
    options.start(folder.path()).await.stop().await;
}

#[tokio::test]
async fn passphrase_comes_from_variable_or_file_and_a_wrong_one_is_refused() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let passphrase = "correct horse battery staple";
    let by_variable =
        |passphrase: &str| ServerOptions::default().variable("KEYWAY_PASSPHRASE", passphrase);
    let file = folder.path().join("passphrase");
    let by_file = |content: &str| {
        fs::write(&file, content).unwrap();
        ServerOptions::default()
            .argument("--passphrase-file")
            .argument(file.to_str().unwrap())
    };
    let server = by_variable(passphrase).start(&data_dir).await;
    create(&server, "k").await;
    let generated = generate(&server, "k").await;
    server.stop().await;

    let before = everything(&data_dir);
    for (options, words) in [
        (by_variable("wrong horse"), "the passphrase is wrong"),
        (
            by_variable(&format!("{passphrase} ")),
            "the passphrase is wrong",
        ),
        (ServerOptions::default(), "give the passphrase"),
        (by_variable(""), "KEYWAY_PASSPHRASE is set and empty"),
    ] {
        let (code, stderr) = options.fail(&data_dir).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
        assert!(!stderr.contains("horse"), "{stderr}");
        assert_eq!(everything(&data_dir), before, "{words}");
    }
    for (content, words) in [
        ("wrong horse\n", "the passphrase is wrong"),
        ("", "is empty"),
        ("\ncorrect horse\n", "is empty"),
    ] {
        let (code, stderr) = by_file(content).fail(&data_dir).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
    let both = by_file(passphrase).variable("KEYWAY_PASSPHRASE", passphrase);
    let (code, stderr) = both.fail(&data_dir).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("one of them"), "{stderr}");
    fs::remove_file(&file).unwrap();
    let absent =
        ServerOptions::default().variable("KEYWAY_PASSPHRASE_FILE", file.to_str().unwrap());
    let (code, stderr) = absent.fail(&data_dir).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("cannot be read"), "{stderr}");
    assert_eq!(everything(&data_dir), before);

    let blob = generated.text("ciphertext_blob");
    for options in [
        by_variable(passphrase),
        by_file(&format!("{passphrase}\nand another line\n")),
    ] {
        let server = options.start(&data_dir).await;
        let opened = decrypt(&server, &blob).await.text("plaintext");
        assert_eq!(opened, generated.text("plaintext_key"));
        server.stop().await;
    }

    // A passphrase for a folder without one is a mistake too.
    let open = crate::folder();
    ServerOptions::default()
        .start(open.path())
        .await
        .stop()
        .await;
    let (code, stderr) = by_variable(passphrase).fail(open.path()).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("start without it"), "{stderr}");
}
