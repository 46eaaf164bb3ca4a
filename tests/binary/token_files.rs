//! Files with a token for Vault: only in the operator's folders, which are checked before anything is sent.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyway_tests::{Answer, Server, ServerOptions};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::folder;

/// A listener that counts connections.
async fn counter() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let refusal = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(refusal).await.ok();
        }
    });
    (address, count)
}

async fn configure(server: &Server, route: &str, address: &str, path: &Path) -> Answer {
    let body = json!({
        "backend_type": "vault",
        "address": address,
        "timeout_seconds": 2,
        "retry_attempts": 0,
        "auth_method": {"TokenFile": {"path": path}},
    });
    server.call("POST", route, &body.to_string()).await
}

#[tokio::test]
async fn token_file_not_allowed_by_the_operator_is_refused_before_any_request() {
    const LINE: &str = "canary-in-one-line";
    let root = folder();
    let at = |name: &str| root.path().join(name);
    for name in ["tokens", "elsewhere", "ring"] {
        fs::create_dir(at(name)).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o700)).unwrap();
    }
    for name in ["tokens/token", "elsewhere/passphrase", "tokens/spaced"] {
        fs::write(at(name), format!("{LINE}\n")).unwrap();
    }
    fs::write(at("tokens/spaced"), format!("{LINE} {LINE}\n")).unwrap();
    symlink(at("elsewhere/passphrase"), at("tokens/link")).unwrap();
    symlink(at("elsewhere"), at("tokens/folder")).unwrap();
    let (address, count) = counter().await;
    let keyring = at("data/secrets/root-keyring.secret");
    // The operator names no folder, one folder, and one that is above everything.
    for (number, named) in ["", "tokens", "."].into_iter().enumerate() {
        let named_folder = match named {
            "" => String::new(),
            "." => root.path().to_str().unwrap().to_owned(),
            name => at(name).to_str().unwrap().to_owned(),
        };
        let server = ServerOptions::default()
            .variable("KEYWAY_VAULT_TOKEN_DIR", &named_folder)
            .start(&at("data"))
            .await;
        // A file of one line below the data folder, and one below the keyring's folder.
        fs::write(at("data/line"), LINE).unwrap();
        fs::write(at("data/secrets/line"), LINE).unwrap();
        let refused = [
            keyring.clone(),
            at("data/line"),
            at("data/secrets/line"),
            at("tokens/link"),
            at("tokens/folder/passphrase"),
            at("tokens/spaced"),
            at("tokens/missing"),
            at("tokens"),
            "/etc/hostname".into(),
            "/proc/self/environ".into(),
            "/dev/stdin".into(),
        ];
        for path in refused {
            for route in ["/kms/reconfigure", "/kms/configure"] {
                if route == "/kms/configure" {
                    server.call("POST", "/kms/stop", "").await.ok();
                }
                let answer = configure(&server, route, &address, &path).await;
                let refusal = (400, "InvalidRequest".to_owned());
                assert_eq!(answer.refusal(), refusal, "{named}: {}", path.display());
                let message = answer.message();
                assert!(message.contains("auth_method.TokenFile.path"), "{message}");
                assert!(!message.contains("canary"), "{message}");
                if named.is_empty() {
                    assert!(message.contains("--vault-token-dir"), "{message}");
                }
            }
        }
        let passphrase = at("elsewhere/passphrase");
        let passphrase = configure(&server, "/kms/configure", &address, &passphrase).await;
        if named != "." {
            assert_eq!(passphrase.status, 400, "{passphrase:?}");
        }
        if number < 2 {
            assert_eq!(count.load(Ordering::SeqCst), 0, "{named}");
        }
        let token = configure(&server, "/kms/configure", &address, &at("tokens/token")).await;
        if named.is_empty() {
            assert_eq!(token.status, 400, "{token:?}");
        } else {
            // The token is tried, and the listener is no Vault.
            assert_eq!(token.status, 503, "{token:?}");
            assert!(count.swap(0, Ordering::SeqCst) > 0);
        }
        let (code, log, stderr) = server.stop().await;
        assert_eq!(code, Some(0), "{stderr}");
        assert!(
            !log.contains(LINE) && !stderr.contains(LINE),
            "{log}{stderr}"
        );
    }
}

#[tokio::test]
async fn keyring_moved_below_a_named_folder_keeps_its_folder_from_token_files() {
    let root = folder();
    let at = |name: &str| root.path().join(name);
    let server = ServerOptions::default()
        .argument("--vault-token-dir")
        .argument(root.path().to_str().unwrap())
        .start(&at("data"))
        .await;
    let body = json!({"key_directory": at("moved")}).to_string();
    server.call("POST", "/kms/reconfigure", &body).await.ok();
    fs::write(at("moved/line"), "s.token").unwrap();
    let (address, count) = counter().await;
    let answer = configure(&server, "/kms/reconfigure", &address, &at("moved/line")).await;
    assert_eq!(answer.refusal(), (400, "InvalidRequest".to_owned()));
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn file_without_a_token_is_refused_and_sent_nowhere() {
    let root = folder();
    let server = ServerOptions::default()
        .start(&root.path().join("data"))
        .await;
    let (address, count) = counter().await;
    let long = "x".repeat(513);
    for token in [
        "two words",
        "s.to/ken",
        "s.token\n",
        "s.token=",
        "s.tökén",
        "{\"format\":1}",
        long.as_str(),
        "s.token\r\nX-Canary: 1",
    ] {
        for auth in [
            json!({ "token": token }),
            json!({"Token": { "token": token }}),
        ] {
            let body = json!({"backend_type": "vault", "address": address, "auth_method": auth});
            let answer = server
                .call("POST", "/kms/reconfigure", &body.to_string())
                .await;
            let refusal = (400, "InvalidRequest".to_owned());
            assert_eq!(answer.refusal(), refusal, "{token:?}");
            assert!(!answer.message().contains(token), "{}", answer.message());
        }
    }
    for secret_id in ["two words", "id\n", long.as_str()] {
        let auth = json!({"AppRole": {"role_id": "r", "secret_id": secret_id}});
        let body = json!({"backend_type": "vault", "address": address, "auth_method": auth});
        let answer = server
            .call("POST", "/kms/reconfigure", &body.to_string())
            .await;
        let refusal = (400, "InvalidRequest".to_owned());
        assert_eq!(answer.refusal(), refusal, "{secret_id:?}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
}
