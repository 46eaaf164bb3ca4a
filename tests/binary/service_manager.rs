//! What `keyway serve` tells systemd.

use std::path::Path;
use std::time::Duration;

use keyway_tests::ServerOptions;
use tokio::net::UnixDatagram;

use crate::{data_dir, folder};

/// The socket of a unit of `Type=notify`.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        Self(UnixDatagram::bind(path).unwrap())
    }

    /// The next message.
    async fn told(&self) -> String {
        let mut buffer = [0; 4096];
        let received = tokio::time::timeout(Duration::from_secs(20), self.0.recv(&mut buffer));
        let length = received.await.expect("a message comes").unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }
}

#[tokio::test]
async fn manager_is_told_of_readiness_and_of_the_stop() {
    let folder = folder();
    let path = folder.path().join("notify");
    let manager = Manager::at(&path);
    let server = ServerOptions::default()
        .variable("NOTIFY_SOCKET", path.to_str().unwrap())
        .start(&data_dir(&folder))
        .await;
    let ready = format!("READY=1\nSTATUS=serving on {}\n", server.address);
    assert_eq!(manager.told().await, ready);
    server.signal("TERM");
    assert_eq!(manager.told().await, "STOPPING=1\n");
    let (code, _, stderr) = server.ended().await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn watchdog_is_told_while_the_server_runs() {
    let folder = folder();
    let path = folder.path().join("notify");
    let manager = Manager::at(&path);
    let server = ServerOptions::default()
        .variable("NOTIFY_SOCKET", path.to_str().unwrap())
        .variable("WATCHDOG_USEC", "100000")
        .start(&data_dir(&folder))
        .await;
    assert!(manager.told().await.starts_with("READY=1\n"));
    for _ in 0..3 {
        assert_eq!(manager.told().await, "WATCHDOG=1\n");
    }
    assert_eq!(server.stop().await.0, Some(0));
}

#[tokio::test]
async fn start_that_fails_does_not_tell_of_readiness() {
    let folder = folder();
    let path = folder.path().join("notify");
    let manager = Manager::at(&path);
    let (code, stderr) = ServerOptions::default()
        .variable("NOTIFY_SOCKET", path.to_str().unwrap())
        .argument("--listen")
        .argument("0.0.0.0:0")
        .fail(&data_dir(&folder))
        .await;
    assert_eq!(code, Some(1), "{stderr}");
    let told = manager.0.try_recv(&mut [0; 64]);
    assert_eq!(told.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

/// A socket that is gone must not stop a server.
#[tokio::test]
async fn manager_that_cannot_be_told_is_logged() {
    let folder = folder();
    let path = folder.path().join("nobody");
    let server = ServerOptions::default()
        .variable("NOTIFY_SOCKET", path.to_str().unwrap())
        .start(&data_dir(&folder))
        .await;
    let (code, log, _) = server.stop().await;
    assert_eq!(code, Some(0));
    assert!(log.contains("systemd was not told"), "{log}");
}
