//! Certificates that are exchanged while they are served with.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use keyway_runtime_hyper::{Bounds, Clients, Tls};
use tempfile::TempDir;

use crate::Server;
use crate::certificates::{Authority, Credential};
use crate::client::Client;

struct Files {
    _folder: TempDir,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new((certificate, key): (String, String)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Self {
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
            _folder: folder,
        };
        files.write(&certificate, &key);
        files
    }

    fn write(&self, certificate: &str, key: &str) {
        std::fs::write(&self.certificate, certificate).unwrap();
        std::fs::write(&self.key, key).unwrap();
    }

    async fn serve(&self, authority: Authority, reload: Duration) -> Server {
        let tls = Tls::from_files(&self.certificate, &self.key, Clients::Asked).unwrap();
        let bounds = Bounds {
            reload,
            ..Bounds::default()
        };
        Server::with(tls, bounds, authority).await
    }
}

/// What the server shows of itself.
async fn shown(server: &Server) -> Vec<u8> {
    let client = Client::new(&server.authority, None);
    let stream = client.connect(server.tls).await.unwrap();
    let (_, connection) = stream.get_ref();
    connection.peer_certificates().unwrap()[0].to_vec()
}

async fn until_it_shows_another(server: &Server, than: &[u8]) -> Vec<u8> {
    let changed = async {
        loop {
            let now = shown(server).await;
            if now != than {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let changed = tokio::time::timeout(Duration::from_secs(30), changed);
    changed.await.expect("the new one is served with")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_succeed_while_certificates_change() {
    let authority = Authority::new("servers");
    let files = Files::new(authority.server_pem());
    let others: Vec<_> = (0..5).map(|_| authority.server_pem()).collect();
    let server = files.serve(authority, Duration::from_millis(20)).await;
    let (over, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let credential = Credential::of(&rcgen::KeyPair::generate().unwrap());
    let load: Vec<_> = (0..4)
        .map(|_| {
            let client = Client::new(&server.authority, Some(&credential)).alpn(&["h2"]);
            let (over, asked) = (Arc::clone(&over), Arc::clone(&asked));
            let (address, identity) = (server.tls, credential.identity());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(client.whoami(address).await.unwrap(), identity);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut now = shown(&server).await;
    for (certificate, key) in &others {
        // Between the two writes the pair does not fit, and the one before is kept.
        files.write(certificate, key);
        now = until_it_shows_another(&server, &now).await;
    }
    over.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    assert!(asked.load(Ordering::Relaxed) > others.len());
    server.stop().await;
}

#[tokio::test]
async fn unusable_certificate_leaves_the_old_one() {
    let authority = Authority::new("servers");
    let files = Files::new(authority.server_pem());
    let (certificate, key) = authority.server_pem();
    let (_, wrong_key) = authority.server_pem();
    let server = files.serve(authority, Duration::from_millis(10)).await;
    let first = shown(&server).await;
    for (bad_certificate, bad_key) in [
        (certificate.as_str(), wrong_key.as_str()),
        ("", ""),
        ("nonsense", "nonsense"),
        (&certificate[..certificate.len() / 2], &key),
    ] {
        files.write(bad_certificate, bad_key);
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert_eq!(shown(&server).await, first);
        }
    }
    std::fs::remove_file(&files.key).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(shown(&server).await, first);
    files.write(&certificate, &key);
    until_it_shows_another(&server, &first).await;
    server.stop().await;
}

#[tokio::test]
async fn certificate_behind_a_link_is_reloaded_at_intervals_and_on_sighup() {
    let authority = Authority::new("servers");
    let files = Files::new(authority.server_pem());
    let next = Files::new(authority.server_pem());
    let last = authority.server_pem();
    // As mounted secrets are exchanged: what is served from is a link.
    let folder = tempfile::tempdir().unwrap();
    let linked = |name: &str| folder.path().join(name);
    let link = |files: &Files| {
        for (name, target) in [("c", &files.certificate), ("k", &files.key)] {
            std::os::unix::fs::symlink(target, linked("new")).unwrap();
            std::fs::rename(linked("new"), linked(name)).unwrap();
        }
    };
    link(&files);
    let tls = Tls::from_files(&linked("c"), &linked("k"), Clients::Asked).unwrap();
    let bounds = Bounds {
        reload: Duration::from_millis(10),
        ..Bounds::default()
    };
    let server = Server::with(tls, bounds, authority).await;
    let first = shown(&server).await;
    link(&next);
    until_it_shows_another(&server, &first).await;
    let Server { authority, .. } = server;

    // Nothing is polled here for an hour.
    next.write(&last.0, &last.1);
    let third = Files::new(authority.server_pem());
    let server = third.serve(authority, Duration::from_secs(3600)).await;
    let before = shown(&server).await;
    third.write(&last.0, &last.1);
    let this = std::process::id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-HUP", &this])
        .status();
    assert!(sent.unwrap().success());
    until_it_shows_another(&server, &before).await;
    server.stop().await;
}
