//! The plugin's process: its socket, its log, its start and its end.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use keyway_tests::ServerOptions;
use tokio::net::UnixDatagram;

use super::api_server::ApiServer;
use super::{Cluster, SEED, plugin, socket};
use crate::folder;

/// It is nobody's.
const API_KEY: &str = "kes:v1:AD9E7FSYWrMD+VjhI6q545cYT9YOyFxZb7UnjEepYDRc";

/// What a start that must fail says.
async fn fails(options: &ServerOptions, arguments: &[&str]) -> (Option<i32>, String) {
    let all = [&["kms-plugin", "--key", "cluster"], arguments].concat();
    let (code, _, stderr) = options.run(&all).await;
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    (code, stderr)
}

#[tokio::test]
async fn socket_is_its_owners_and_goes_with_the_process() {
    let cluster = Cluster::start().await;
    let path = socket(cluster.folder.path());
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A connection that stays open does not keep the process.
    cluster.api.healthy().await;
    let (code, log, stderr) = cluster.plugin.stop().await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(log.contains("keyway has stopped"), "{log}");
    assert!(!path.exists());
}

#[tokio::test]
async fn socket_of_a_process_that_was_killed_is_replaced() {
    let cluster = Cluster::start().await;
    let path = socket(cluster.folder.path());
    let stored = cluster.api.rotated(&SEED).await;
    let options = plugin(cluster.folder.path(), &cluster.server.address);

    let (code, stderr) = fails(&options, &[]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("another process listens on it"), "{stderr}");
    assert_eq!(cluster.api.healthy().await, stored.key_id);

    cluster.plugin.kill().await;
    assert!(path.exists());
    let again = options.start_in_place().await;
    let api = ApiServer::connect(&path).await;
    assert_eq!(api.decrypt(&stored).await.unwrap(), SEED);
    assert_eq!(again.stop().await.0, Some(0));
}

#[tokio::test]
async fn place_in_which_others_could_put_a_socket_is_refused() {
    let folder = folder();
    let options = plugin(folder.path(), "127.0.0.1:1");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let (code, stderr) = fails(&options, &[]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("chmod 755"), "{stderr}");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let file = socket(folder.path());
    fs::write(&file, "text").unwrap();
    let (code, stderr) = fails(&options, &[]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("it is not a socket"), "{stderr}");
    assert_eq!(fs::read(&file).unwrap(), b"text");
}

#[tokio::test]
async fn settings_that_cannot_work_end_the_start() {
    let folder = folder();
    let options = plugin(folder.path(), "127.0.0.1:1");
    let file = folder.path().join("api-key");
    fs::write(&file, API_KEY).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let kes = ["--api", "kes", "--endpoint", "https://127.0.0.1:1"];
    let kes = [&kes[..], &["--api-key-file", file.to_str().unwrap()]].concat();
    for (arguments, told) in [
        (&kes[..], "does not tell versions of keys"),
        (&["--context", "a=1", "--context", "a=2"], "given twice"),
        (&["--profile", "nobody"], "config.toml: No such file"),
        (&["--endpoint", "http://192.0.2.1"], "plain HTTP"),
    ] {
        let (code, stderr) = fails(&options, arguments).await;
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(told), "{stderr}");
        assert!(!socket(folder.path()).exists());
    }
}

#[tokio::test]
async fn log_names_requests_and_holds_no_plaintext() {
    let cluster = Cluster::start().await;
    let stored = cluster.api.rotated(&SEED).await;
    let (_, log, _) = cluster.plugin.stop().await;
    for uid in ["uid-of-encrypt", "uid-of-decrypt"] {
        let line = log.lines().find(|line| line.contains(uid));
        assert!(
            line.is_some_and(|line| line.contains(&stored.key_id)),
            "{log}"
        );
    }
    assert!(!log.contains(std::str::from_utf8(&SEED).unwrap()), "{log}");
}

#[tokio::test]
async fn manager_is_told_of_readiness_and_of_the_stop() {
    let folder = folder();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let told = async || {
        let mut buffer = [0; 4096];
        let received = manager.recv(&mut buffer);
        let received = tokio::time::timeout(Duration::from_secs(20), received).await;
        String::from_utf8(buffer[..received.unwrap().unwrap()].to_vec()).unwrap()
    };
    let options = plugin(folder.path(), "127.0.0.1:1");
    let options = options.variable("NOTIFY_SOCKET", path.to_str().unwrap());
    let plugin = options.start_in_place().await;
    let ready = format!("READY=1\nSTATUS=serving on {}\n", plugin.address);
    assert_eq!(told().await, ready);
    plugin.signal("TERM");
    assert_eq!(told().await, "STOPPING=1\n");
    assert_eq!(plugin.ended().await.0, Some(0));
}
