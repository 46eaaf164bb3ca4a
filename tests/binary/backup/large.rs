//! Backups of many records. The work on them takes no more memory for more of them.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use keyway_tests::{ServerOptions, binary};
use serde_json::json;

use super::{Scene, fill, run};
use crate::is_set;

/// Runs a command that succeeds. Returns the most memory that it had, in KiB, as far as it can be seen from outside.
async fn peak_of(arguments: &[&str]) -> u64 {
    let mut child = Command::new(binary("keyway"))
        .args(arguments)
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut most = 0;
    loop {
        most = most.max(peak(&child).unwrap_or_default());
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{arguments:?}");
            return most;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The most memory that the process had so far; `None` when it has ended.
fn peak(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Imports this many keys into the folder.
async fn import(options: &ServerOptions, data: &str, keys: usize) {
    let kes = tempfile::tempdir().unwrap();
    let value = r#"{"bytes":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","algorithm":"AES256"}"#;
    for number in 0..keys {
        fs::write(kes.path().join(format!("key-{number:06}")), value).unwrap();
    }
    let from = kes.path().to_str().unwrap();
    let import = ["import", "kes", "--from-dir", from, "--data-dir", data];
    let report = run(options, &import).await;
    assert_eq!(report["imported"].as_array().unwrap().len(), keys);
}

/// Backs a folder with this many keys and 250 KB records of the log up, and restores it. Returns the memory of both.
async fn moved(keys: usize, log_records: u32) -> [u64; 2] {
    let scene = Scene::new();
    let plain = ServerOptions::default();
    plain.start(&scene.data).await.stop().await;
    import(&plain, scene.data(), keys).await;
    fill(&scene.data, log_records);
    let create = [
        "backup",
        "create",
        "--data-dir",
        scene.data(),
        "--to",
        scene.file(),
    ];
    let backed_up = peak_of(&create).await;
    let to = scene.other("new");
    copy_keyring(&scene.data, &to);
    let restored = peak_of(&scene.restore(&to, &[])).await;
    let dry = run(&plain, &scene.restore(&to, &["--dry-run"])).await;
    for list in ["new", "changed", "repaired", "only_here", "refused"] {
        assert_eq!(dry[list], json!([]), "{list}");
    }
    assert!(
        dry["equal"].as_u64().unwrap() >= keys as u64,
        "{}",
        dry["equal"]
    );
    [backed_up, restored]
}

fn copy_keyring(from: &Path, to: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(to.join("secrets"))
        .unwrap();
    let file = "secrets/root-keyring.secret";
    fs::copy(from.join(file), to.join(file)).unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn memory_does_not_grow_with_the_backup() {
    /// The names of the records that were written are kept for the report.
    const OF_A_NAME: u64 = 256;
    /// What is read ahead and waits to be written differs by so much from run to run. The difference in data is 75 MB.
    const OF_WORK: u64 = 24 << 20;
    let (keys, log_records) = match is_set("KEYWAY_TORTURE") {
        true => (100_000, 2_000),
        false => (2_000, 500),
    };
    let (small, large) = tokio::join!(moved(10, 200), moved(keys, log_records));
    let more = (keys as u64 * OF_A_NAME + OF_WORK) >> 10;
    for (small, large) in small.into_iter().zip(large) {
        eprintln!("with few records {small} KiB, with many {large} KiB");
        assert!(large < small + more, "{small} KiB, then {large} KiB");
    }
}
