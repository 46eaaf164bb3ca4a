use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use keyway_ownership::Unfit;
use keyway_testkit::{SeededRandom, secret_store_contract};
use tempfile::TempDir;

use super::*;

mod moves;
pub(crate) use moves::kill_point;

const SECRET: &[u8] = b"the secret that nobody may find!";

#[tokio::test(flavor = "multi_thread")]
async fn file_in_the_clear_keeps_the_contract() {
    keeps_the_contract(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn file_under_a_passphrase_keeps_the_contract() {
    keeps_the_contract(Some("correct horse")).await;
}

async fn keeps_the_contract(passphrase: Option<&str>) {
    let folder = private_folder();
    let random = SeededRandom::new(1);
    secret_store_contract::run_all(
        async || {
            let inner = folder.path().join(random_digits(&random).unwrap());
            Arc::new(FileSecrets::open(&inner, passphrase.map(secret), seeded(3)).unwrap()) as _
        },
        &SeededRandom::new(2),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creations_by_sixteen_processes_have_one_winner() {
    for (passphrase, folder) in [("", private_folder()), ("correct horse", private_folder())] {
        let children: Vec<Child> = (0..16)
            .map(|seed| child(&folder, seed, passphrase))
            .collect();
        let mut winners = 0;
        let mut values = Vec::new();
        for mut child in children {
            for line in BufReader::new(child.stdout.take().unwrap()).lines() {
                let line = line.unwrap();
                winners += usize::from(line == "created");
                values.extend(line.strip_prefix("read ").map(str::to_owned));
            }
            assert!(child.wait().unwrap().success());
        }
        values.dedup();
        assert_eq!((winners, values.len()), (1, 1), "{values:?}");
    }
}

/// Starts this test binary again to run the test below, which reads its work from standard input.
fn child(folder: &TempDir, seed: u64, passphrase: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "tests::child_creates",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(
        child.stdin.take().unwrap(),
        "{seed}\t{}\t{passphrase}",
        folder.path().display()
    )
    .unwrap();
    child
}

#[tokio::test]
#[ignore = "run by creations_by_sixteen_processes_have_one_winner"]
async fn child_creates() {
    let mut line = String::new();
    io::stdin().read_line(&mut line).unwrap();
    let mut work = line.trim_end_matches('\n').split('\t');
    let (Some(seed), Some(folder), Some(passphrase)) = (work.next(), work.next(), work.next())
    else {
        return;
    };
    let passphrase = Some(passphrase)
        .filter(|passphrase| !passphrase.is_empty())
        .map(secret);
    let store =
        FileSecrets::open(Path::new(folder), passphrase, seeded(seed.parse().unwrap())).unwrap();
    match store
        .put("root", &secret(&format!("by {seed}")), None)
        .await
    {
        // The harness prints its own text before on the same line.
        Ok(_) => println!("\ncreated"),
        Err(StoreError::Conflict) => {}
        Err(error) => panic!("{error:?}"),
    }
    let (value, version) = store.get("root").await.unwrap().unwrap();
    println!(
        "\nread {} {}",
        str::from_utf8(value.expose()).unwrap(),
        version.0
    );
}

#[tokio::test]
async fn file_has_the_documented_form() {
    let folder = private_folder();
    let version = open(&folder, None)
        .put("root", &secret("abc"), None)
        .await
        .unwrap()
        .0;
    let text = fs::read_to_string(folder.path().join("root.secret")).unwrap();
    assert_eq!(
        text,
        format!("{{\"format\":1,\"version\":\"{version}\",\"value\":\"YWJj\"}}\n")
    );
    assert!(version.starts_with("1."), "{version}");

    let version = open(&folder, Some("p"))
        .put("sealed", &secret("abc"), None)
        .await
        .unwrap()
        .0;
    let text = fs::read(folder.path().join("sealed.secret")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let keys: Vec<_> = json.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["argon2id", "format", "sealed", "version"]);
    assert_eq!(json["version"], version);
    assert_eq!(json["argon2id"]["memory_kib"], 65_536);
    assert_eq!(json["argon2id"]["passes"], 3);
    assert_eq!(json["argon2id"]["lanes"], 1);
    assert_eq!(
        STANDARD
            .decode(json["argon2id"]["salt"].as_str().unwrap())
            .unwrap()
            .len(),
        16
    );
    let sealed = STANDARD.decode(json["sealed"].as_str().unwrap()).unwrap();
    assert!(sealed.starts_with(&[0xc7, 0x50]));
}

#[tokio::test]
async fn file_under_a_passphrase_holds_no_secret_in_the_clear() {
    let folder = private_folder();
    let store = open(&folder, Some("correct horse"));
    let version = store
        .put("root", &SecretBytes::from(SECRET.to_vec()), None)
        .await
        .unwrap();
    store
        .put("root", &SecretBytes::from(SECRET.to_vec()), Some(&version))
        .await
        .unwrap();

    let hex: String = SECRET.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut traces = vec![
        SECRET.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        b"correct horse".to_vec(),
    ];
    // Base64 of the middle, at each of its three alignments.
    for skipped in 0..3 {
        let whole = SECRET[skipped..].len() / 3 * 3;
        traces.push(
            STANDARD_NO_PAD
                .encode(&SECRET[skipped..skipped + whole])
                .into_bytes(),
        );
    }
    let files: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 2, "the secret and the lock: {files:?}");
    for file in files {
        let mut texts = vec![fs::read(&file).unwrap()];
        if let Ok(json) = serde_json::from_slice::<serde_json::Value>(&texts[0]) {
            texts.push(STANDARD.decode(json["sealed"].as_str().unwrap()).unwrap());
        }
        for (text, trace) in texts
            .iter()
            .flat_map(|text| traces.iter().map(move |trace| (text, trace)))
        {
            assert!(
                !text.windows(trace.len()).any(|window| window == trace),
                "{}",
                file.display()
            );
        }
    }
}

#[tokio::test]
async fn passphrase_wrong_missing_or_unneeded_is_refused() {
    let folder = private_folder();
    let right = open(&folder, Some("right"));
    let version = right.put("sealed", &secret("x"), None).await.unwrap();
    let none = open(&folder, None);
    let clear_version = none.put("clear", &secret("x"), None).await.unwrap();
    let wrong = open(&folder, Some("wrong"));

    for (store, name, version, expected) in [
        (
            &wrong,
            "sealed",
            &version,
            "the passphrase is wrong, or the file was altered",
        ),
        (&none, "sealed", &version, "give the passphrase"),
        (&right, "clear", &clear_version, "start without it"),
    ] {
        let path = folder.path().join(format!("{name}.secret"));
        let before = fs::read(&path).unwrap();
        for text in [
            failure(store.get(name).await.map(drop)),
            failure(
                store
                    .put(name, &secret("new"), Some(version))
                    .await
                    .map(drop),
            ),
            failure(
                store
                    .change_passphrase(name, Some(secret("new").into()))
                    .await
                    .map(drop),
            ),
        ] {
            assert!(
                text.contains(expected) && text.contains(path.to_str().unwrap()),
                "{text}"
            );
        }
        assert!(
            fs::read(&path).unwrap() == before,
            "nobody replaces what they cannot read"
        );
    }
    let empty = FileSecrets::open(folder.path(), Some(secret("")), seeded(1)).unwrap_err();
    assert!(matches!(empty, OpenError::EmptyPassphrase));
}

#[tokio::test]
async fn passphrase_can_change() {
    let folder = private_folder();
    let mut version = open(&folder, None)
        .put("root", &secret("kept"), None)
        .await
        .unwrap();
    for (old, new) in [
        (None, Some("first")),
        (Some("first"), Some("second")),
        (Some("second"), None),
    ] {
        let store = open(&folder, old);
        let changed = store
            .change_passphrase("root", new.map(|new| secret(new).into()))
            .await
            .unwrap();
        assert_ne!(changed, version);
        failure(store.get("root").await.map(drop));
        let (value, found) = open(&folder, new).get("root").await.unwrap().unwrap();
        assert!(value.ct_eq(b"kept"));
        assert_eq!(found, changed);
        version = changed;
    }
    assert!(version.0.starts_with("4."), "{version:?}");
    failure(
        open(&folder, None)
            .change_passphrase("absent", None)
            .await
            .map(drop),
    );
    failure(
        open(&folder, None)
            .change_passphrase("root", Some(secret("").into()))
            .await
            .map(drop),
    );
}

fn under(folder: &TempDir, given: &str) -> FileSecrets {
    FileSecrets::open_under(folder.path(), Some(Passphrase::read(given)), seeded(7)).unwrap()
}

#[tokio::test]
async fn passphrase_with_a_line_break_or_byte_order_mark_equals_the_one_without() {
    let read = |given: &str| {
        let passphrase = Passphrase::read(given);
        let usable = passphrase.usable().map(|text| text.expose().to_vec());
        usable.map(|text| String::from_utf8(text).unwrap())
    };
    for given in ["p", "p\n", "p\r\n", "\u{feff}p", "\u{feff}p\r\n"] {
        assert_eq!(read(given).as_deref(), Some("p"), "{given:?}");
        assert_eq!(Passphrase::read(given).exact().is_some(), given != "p");
    }
    for (given, text) in [
        ("p ", "p "),
        (" p", " p"),
        ("\u{feff}\u{feff}p", "\u{feff}p"),
        ("p\u{feff}", "p\u{feff}"),
    ] {
        assert_eq!(read(given).as_deref(), Some(text), "{given:?}");
    }
    for nothing in ["", "\n", "\r\n", "\u{feff}", "\u{feff}\n"] {
        let folder = private_folder();
        let opened =
            FileSecrets::open_under(folder.path(), Some(Passphrase::read(nothing)), seeded(7));
        assert!(
            matches!(opened, Err(OpenError::EmptyPassphrase)),
            "{nothing:?}"
        );
    }
    let folder = private_folder();
    let first = under(&folder, "\u{feff}p\r\n");
    first.put("root", &secret("kept"), None).await.unwrap();
    let (value, _) = under(&folder, "p\n").get("root").await.unwrap().unwrap();
    assert!(value.ct_eq(b"kept"));
    let text = failure(under(&folder, "p \n").get("root").await.map(drop));
    assert!(text.contains("the passphrase is wrong"), "{text}");
}

#[tokio::test]
async fn passphrase_with_another_control_character_is_refused_and_not_shown() {
    for given in [
        "canary\tcanary",
        "canary\r",
        "\rcanary",
        "canary\n\n",
        "canary\ncanary",
        "canary\0",
        "\u{7f}canary",
        "canary\u{85}",
    ] {
        assert!(Passphrase::read(given).usable().is_none(), "{given:?}");
        let folder = private_folder();
        let store = under(&folder, given);
        let text = failure(store.put("root", &secret("kept"), None).await.map(drop));
        assert!(
            text.contains("control character") && !text.contains("canary"),
            "{text}"
        );
        assert!(store.get("root").await.unwrap().is_none());
        let plain = open(&folder, None);
        plain.put("root", &secret("kept"), None).await.unwrap();
        let changed = plain
            .change_passphrase("root", Some(Passphrase::read(given)))
            .await;
        assert_eq!(failure(changed.map(drop)), text);
        assert!(plain.get("root").await.unwrap().is_some());
    }
}

#[tokio::test]
async fn secret_sealed_under_a_passphrase_as_it_was_given_still_opens_and_moves_on() {
    for given in ["p\n", "p\tp"] {
        let folder = private_folder();
        // Earlier releases used every byte.
        let exact = || open(&folder, Some(given));
        let version = exact().put("root", &secret("kept"), None).await.unwrap();
        let store = under(&folder, given);
        for _ in 0..2 {
            let (value, _) = store.get("root").await.unwrap().unwrap();
            assert!(value.ct_eq(b"kept"), "{given:?}");
        }
        // A write seals it under today's reading of the passphrase, or fails.
        let written = store.put("root", &secret("new"), Some(&version)).await;
        if given.contains('\t') {
            assert!(failure(written.map(drop)).contains("control character"));
            assert!(exact().get("root").await.unwrap().is_some());
            store
                .change_passphrase("root", Some(Passphrase::read("q\n")))
                .await
                .unwrap();
            assert!(
                open(&folder, Some("q"))
                    .get("root")
                    .await
                    .unwrap()
                    .is_some()
            );
        } else {
            written.unwrap();
            let (value, _) = open(&folder, Some("p")).get("root").await.unwrap().unwrap();
            assert!(value.ct_eq(b"new"));
            assert!(store.get("root").await.unwrap().is_some());
            failure(exact().get("root").await.map(drop));
        }
    }
}

#[tokio::test]
async fn sealed_files_can_be_neither_swapped_nor_altered() {
    let folder = private_folder();
    let store = open(&folder, Some("p"));
    store.put("one", &secret("1"), None).await.unwrap();
    store.put("other", &secret("2"), None).await.unwrap();
    let path = folder.path().join("one.secret");
    let original = fs::read_to_string(&path).unwrap();
    let json: serde_json::Value = serde_json::from_str(&original).unwrap();

    let mut sealed = STANDARD.decode(json["sealed"].as_str().unwrap()).unwrap();
    *sealed.last_mut().unwrap() ^= 1;
    let altered = [
        fs::read_to_string(folder.path().join("other.secret")).unwrap(),
        original.replace("\"1.", "\"2."),
        original.replace("\"passes\":3", "\"passes\":2"),
        original.replace(
            json["argon2id"]["salt"].as_str().unwrap(),
            &STANDARD.encode([7; 16]),
        ),
        original.replace(json["sealed"].as_str().unwrap(), &STANDARD.encode(sealed)),
        original.replace(json["sealed"].as_str().unwrap(), "AAAA"),
    ];
    for altered in altered {
        assert_ne!(altered, original);
        fs::write(&path, altered).unwrap();
        let text = failure(store.get("one").await.map(drop));
        assert!(
            text.contains("the passphrase is wrong, or the file was altered"),
            "{text}"
        );
    }
    fs::write(&path, original).unwrap();
    assert!(store.get("one").await.unwrap().is_some());
}

#[tokio::test]
async fn malformed_file_is_refused_without_its_content() {
    let folder = private_folder();
    let (clear, sealing) = (open(&folder, None), open(&folder, Some("p")));
    let path = folder.path().join("root.secret");
    let salted = |memory: u32, salt: &str| {
        format!(
            r#"{{"format":1,"version":"1.a","argon2id":{{"memory_kib":{memory},"passes":3,"lanes":1,"salt":"{salt}"}},"sealed":"c2VjcmV0"}}"#
        )
    };
    let texts = [
        String::new(),
        "c2VjcmV0".to_owned(),
        "\"c2VjcmV0\"".to_owned(),
        r#"{"format":"c2VjcmV0"}"#.to_owned(),
        r#"{"format":1}"#.to_owned(),
        r#"{"format":1,"version":"1.a"}"#.to_owned(),
        r#"{"format":1,"version":1,"value":"c2VjcmV0"}"#.to_owned(),
        r#"{"format":1,"version":"1.a","value":"c2VjcmV0","sealed":"c2VjcmV0"}"#.to_owned(),
        r#"{"format":1,"version":"1.a","value":"c2VjcmV0","value":"c2VjcmV0"}"#.to_owned(),
        r#"{"format":1,"version":"1.a","value":"c2VjcmV0","c2VjcmV0":1}"#.to_owned(),
        r#"{"format":1,"version":"1.a","value":"c2VjcmV0!"}"#.to_owned(),
        r#"{"format":1,"version":"1.a","value":"c2VjcmV"}"#.to_owned(),
        r#"{"format":1,"version":"1.a","value":"c2VjcmV0"#.to_owned(),
        r#"{"format":1,"version":"1.a","sealed":"c2VjcmV0"}"#.to_owned(),
        salted(4_000_000_000, "c2VjcmV0c2VjcmV0c2VjcmV0"),
        salted(65_536, "c2VjcmV0"),
        " ".repeat(folder::MAX_FILE_BYTES + 1),
    ];
    for text in texts {
        fs::write(&path, &text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        for store in [&clear, &sealing] {
            let error = failure(store.get("root").await.map(drop));
            assert!(
                error.contains("root.secret is not a secret's file: "),
                "{error}"
            );
            assert!(
                !error.contains("c2V") && !error.contains("secret0"),
                "{error}"
            );
            let put = store.put("root", &secret("new"), None).await;
            assert!(matches!(put, Err(StoreError::Conflict)));
            let seen = SecretVersion("1.a".to_owned());
            failure(
                store
                    .put("root", &secret("new"), Some(&seen))
                    .await
                    .map(drop),
            );
        }
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            text,
            "never overwritten"
        );
    }
    fs::write(&path, r#"{"format":2,"what":"ever"}"#).unwrap();
    let error = failure(clear.get("root").await.map(drop));
    assert!(error.contains("run the later release"), "{error}");

    // Readable, but no version can follow it.
    for version in ["", "a.b", "18446744073709551615.0"] {
        fs::write(
            &path,
            format!(r#"{{"format":1,"version":"{version}","value":""}}"#),
        )
        .unwrap();
        let (_, seen) = clear.get("root").await.unwrap().unwrap();
        failure(
            clear
                .put("root", &secret("new"), Some(&seen))
                .await
                .map(drop),
        );
    }
}

#[tokio::test]
async fn names_and_sizes_are_bounded() {
    let folder = private_folder();
    let store = open(&folder, None);
    for name in [
        "",
        ".",
        "..",
        "A",
        "a/b",
        "a.b",
        "a b",
        "é",
        "../a",
        &"x".repeat(65),
    ] {
        failure(store.get(name).await.map(drop));
        failure(store.put(name, &secret("x"), None).await.map(drop));
    }
    let large = SecretBytes::from(vec![0; MAX_SECRET_BYTES + 1]);
    failure(store.put("root", &large, None).await.map(drop));
    assert!(store.get("root").await.unwrap().is_none());
}

#[tokio::test]
async fn files_and_folder_are_the_owners_alone() {
    let outer = private_folder();
    let inner = outer.path().join("made").join("here");
    let store = FileSecrets::open(&inner, None, seeded(1)).unwrap();
    store.put("root", &secret("x"), None).await.unwrap();
    assert_eq!(mode(&inner), 0o700);
    assert_eq!(mode(&outer.path().join("made")), 0o700);
    assert_eq!(mode(&inner.join("root.secret")), 0o600);
    assert_eq!(mode(&inner.join(".lock")), 0o600);
    assert_eq!(
        fs::metadata(inner.join("root.secret")).unwrap().nlink(),
        1,
        "no temporary name is left"
    );
}

#[tokio::test]
async fn file_open_to_others_is_refused_with_a_remedy() {
    let folder = private_folder();
    let store = open(&folder, None);
    let version = store.put("root", &secret("x"), None).await.unwrap();
    let path = folder.path().join("root.secret");
    for loose in [0o640, 0o604, 0o620, 0o644, 0o700] {
        fs::set_permissions(&path, Permissions::from_mode(loose)).unwrap();
        for text in [
            failure(store.get("root").await.map(drop)),
            failure(
                store
                    .put("root", &secret("new"), Some(&version))
                    .await
                    .map(drop),
            ),
        ] {
            assert!(text.contains(&format!("has mode {loose:04o}")), "{text}");
            assert!(
                text.contains(&format!("chmod 600 '{}'", path.display())),
                "{text}"
            );
        }
    }
    for loose in [0o750, 0o701, 0o755] {
        fs::set_permissions(folder.path(), Permissions::from_mode(loose)).unwrap();
        let text = FileSecrets::open(folder.path(), None, seeded(1))
            .unwrap_err()
            .to_string();
        assert!(
            text.contains(&format!("chmod 700 '{}'", folder.path().display())),
            "{text}"
        );
    }
}

#[tokio::test]
async fn link_or_other_kind_of_file_is_refused() {
    let folder = private_folder();
    let inner = folder.path().join("inner");
    drop(FileSecrets::open(&inner, None, seeded(1)).unwrap());
    let link = folder.path().join("link");
    symlink(&inner, &link).unwrap();
    for name in ["link", "link/"] {
        let refused = FileSecrets::open(&folder.path().join(name), None, seeded(1));
        assert!(
            matches!(refused, Err(OpenError::Folder(FileError::NotPlain { .. }))),
            "{name}"
        );
    }
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = FileSecrets::open(&file, None, seeded(1));
    assert!(matches!(
        refused,
        Err(OpenError::Folder(FileError::NotPlain { .. }))
    ));

    let store = FileSecrets::open(&inner, None, seeded(1)).unwrap();
    symlink(&file, inner.join("root.secret")).unwrap();
    assert!(failure(store.get("root").await.map(drop)).contains("is not a plain file"));
    failure(
        store
            .put("root", &secret("x"), Some(&SecretVersion("1.a".to_owned())))
            .await
            .map(drop),
    );
    assert!(matches!(
        store.put("root", &secret("x"), None).await,
        Err(StoreError::Conflict)
    ));
}

#[tokio::test]
async fn folder_of_another_user_is_refused() {
    let folder = private_folder();
    let store = open(&folder, None);
    store.put("root", &secret("x"), None).await.unwrap();
    // Only root may give files away.
    if chown(folder.path().join("root.secret"), Some(12_345), None).is_err() {
        return;
    }
    let text = failure(store.get("root").await.map(drop));
    assert!(
        text.contains("belongs to user 12345") && text.contains("run: chown "),
        "{text}"
    );
    chown(folder.path(), Some(12_345), None).unwrap();
    let refused = FileSecrets::open(folder.path(), None, seeded(1));
    assert!(matches!(
        refused,
        Err(OpenError::Folder(FileError::Unfit(Unfit::Owner {
            owner: 12_345,
            ..
        })))
    ));
}

#[tokio::test]
async fn temporary_file_of_a_crash_is_removed_and_never_read() {
    let folder = private_folder();
    let store = open(&folder, None);
    let version = store.put("root", &secret("kept"), None).await.unwrap();
    // What a process leaves that dies before its file has its name, or right after.
    let half = folder.path().join(".root.0123456789abcdef.tmp");
    fs::write(&half, r#"{"format":1,"version":"2.a","val"#).unwrap();
    let linked = folder.path().join(".root.fedcba9876543210.tmp");
    fs::hard_link(folder.path().join("root.secret"), &linked).unwrap();
    let (value, found) = store.get("root").await.unwrap().unwrap();
    assert!(value.ct_eq(b"kept"));
    assert_eq!(found, version);

    let reopened = open(&folder, None);
    assert!(!half.exists() && !linked.exists());
    assert!(
        reopened
            .get("root")
            .await
            .unwrap()
            .unwrap()
            .0
            .ct_eq(b"kept")
    );
}

#[tokio::test]
async fn temporary_file_of_a_live_writer_is_left_alone() {
    let folder = private_folder();
    let store = open(&folder, None);
    let lock = store.inner.folder.lock().unwrap();
    let temporary = folder.path().join(".root.0123456789abcdef.tmp");
    fs::write(&temporary, "").unwrap();
    drop(open(&folder, None));
    assert!(temporary.exists());
    drop(lock);
    drop(open(&folder, None));
    assert!(!temporary.exists());
}

fn private_folder() -> TempDir {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .unwrap()
}

fn open(folder: &TempDir, passphrase: Option<&str>) -> FileSecrets {
    FileSecrets::open(folder.path(), passphrase.map(secret), seeded(7)).unwrap()
}

fn seeded(seed: u64) -> Arc<dyn Random> {
    Arc::new(SeededRandom::new(seed))
}

fn secret(text: &str) -> SecretBytes {
    SecretBytes::from(text.as_bytes().to_vec())
}

/// The text that a failure leaves in the log.
fn failure(result: Result<(), StoreError>) -> String {
    match result {
        Err(StoreError::Failed { source, .. }) => source.to_string(),
        other => panic!("a failure was due: {other:?}"),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
