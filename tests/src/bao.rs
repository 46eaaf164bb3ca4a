//! OpenBao as a real server on loopback, installed by `scripts/bao`.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Ends OpenBao and removes its folder when its stdin closes, which every end of the test does. `stop` ends it and keeps
/// the data.
const KEEPER: &str = r#"
"$0" server -config="$1/config.json" </dev/null >"$1/log" 2>&1 &
bao=$!
trap 'kill "$bao" 2>/dev/null' INT TERM
read -r word
if [ "$word" = stop ]; then
    kill "$bao" 2>/dev/null
    wait "$bao"
else
    kill -KILL "$bao" 2>/dev/null
    wait "$bao"
    rm -rf -- "$1"
fi
"#;

/// The number of tries to find a free port.
const PORTS: u32 = 8;

/// One server with one unseal key, its data in a folder of its own. It ends with this value.
pub struct Bao {
    /// Where it listens in plain.
    pub address: String,
    /// The token that may do everything.
    pub root: String,
    port: u16,
    unseal_key: String,
    program: PathBuf,
    folder: TempDir,
    tls_port: Mutex<Option<u16>>,
    process: Mutex<Option<Child>>,
}

impl Bao {
    /// A new server, unsealed. Without OpenBao a test cannot run: in CI that is a failure, elsewhere a printed line.
    pub async fn start() -> Option<Self> {
        let program = crate::project().join(".cache/bao/bin/bao");
        if !program.exists() {
            assert!(
                crate::aws::variable("CI").is_none(),
                "OpenBao is not installed: run scripts/bao"
            );
            crate::aws::skipped("OpenBao is not installed; run scripts/bao");
            return None;
        }
        for _ in 0..PORTS {
            let port = free_port();
            let mut bao = Self {
                address: format!("http://127.0.0.1:{port}"),
                root: String::new(),
                port,
                unseal_key: String::new(),
                program: program.clone(),
                folder: tempfile::tempdir().expect("a folder"),
                tls_port: Mutex::default(),
                process: Mutex::default(),
            };
            std::fs::create_dir(bao.folder.path().join("raft")).expect("a folder");
            if !bao.launch().await {
                continue;
            }
            let shares = json!({"secret_shares": 1, "secret_threshold": 1});
            let (status, made) = bao.call(Method::POST, "sys/init", Some(shares)).await;
            assert_eq!(status, 200, "{made}");
            bao.root = text(&made["root_token"]);
            bao.unseal_key = text(&made["keys_base64"][0]);
            bao.unseal().await;
            return Some(bao);
        }
        panic!("OpenBao does not start: {PORTS} ports were taken");
    }

    /// Also listens on TLS, with a certificate of an unknown authority. Returns the address and the authority's
    /// certificate. OpenBao issues both itself, and restarts to use them.
    pub async fn with_tls(&self) -> (String, String) {
        self.mount("pki", "pki", json!({})).await;
        let root = json!({"common_name": "Test Authority", "ttl": "24h"});
        let root = self.post("pki/root/generate/internal", root).await;
        let role = json!({"allow_any_name": true, "allow_ip_sans": true, "max_ttl": "12h"});
        self.post("pki/roles/test", role).await;
        let wanted = json!({"common_name": "localhost", "ip_sans": "127.0.0.1", "ttl": "6h"});
        let issued = self.post("pki/issue/test", wanted).await;
        for (file, field) in [("cert.pem", "certificate"), ("key.pem", "private_key")] {
            let content = text(&issued["data"][field]);
            std::fs::write(self.folder.path().join(file), content).expect("a file");
        }
        let port = free_port();
        *self.tls_port.lock().unwrap() = Some(port);
        self.stop();
        self.start_again().await;
        let address = format!("https://127.0.0.1:{port}");
        (address, text(&root["data"]["certificate"]))
    }

    /// Starts the process; returns whether it listens.
    async fn launch(&self) -> bool {
        let folder = self.folder.path();
        let config = folder.join("config.json");
        std::fs::write(&config, self.config().to_string()).expect("a file");
        let log = folder.join("log");
        let child = Command::new("sh")
            .args(["-c", KEEPER])
            .arg(&self.program)
            .arg(folder)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        *self.process.lock().unwrap() = Some(child);
        for _ in 0..600 {
            if self.status("sys/health").await.is_some() {
                return true;
            }
            let told = std::fs::read_to_string(&log).unwrap_or_default();
            if told.contains("address already in use") {
                self.stop();
                return false;
            }
            pause().await;
        }
        panic!("OpenBao does not come up: {}", read(&log));
    }

    fn config(&self) -> Value {
        let mut listeners = vec![json!({"tcp": {
            "address": format!("127.0.0.1:{}", self.port),
            "cluster_address": "127.0.0.1:0",
            "tls_disable": true,
        }})];
        let file = |name: &str| self.folder.path().join(name);
        if let Some(port) = *self.tls_port.lock().unwrap() {
            listeners.push(json!({"tcp": {
                "address": format!("127.0.0.1:{port}"),
                "cluster_address": "127.0.0.1:0",
                "tls_cert_file": file("cert.pem"),
                "tls_key_file": file("key.pem"),
            }}));
        }
        json!({
            "storage": {"raft": {
                "path": file("raft"),
                "node_id": "test",
                "performance_multiplier": 1,
            }},
            "listener": listeners,
            "api_addr": self.address,
            // The cluster has no other member.
            "cluster_addr": "https://127.0.0.1:1",
        })
    }

    /// Ends the process; its data stay.
    pub fn stop(&self) {
        let Some(mut child) = self.process.lock().unwrap().take() else {
            return;
        };
        let mut stdin = child.stdin.take().expect("a pipe");
        // It may have ended already.
        stdin.write_all(b"stop\n").ok();
        drop(stdin);
        child.wait().expect("the process ends");
    }

    /// Starts it again on the same port, unsealed.
    pub async fn start_again(&self) {
        // Another process may have the port for a moment.
        for _ in 0..PORTS {
            if self.launch().await {
                return self.unseal().await;
            }
            pause().await;
        }
        panic!("OpenBao does not start again: its port is taken");
    }

    pub async fn seal(&self) {
        self.post("sys/seal", json!({})).await;
    }

    /// Unseals it, and waits until it serves.
    pub async fn unseal(&self) {
        let key = json!({"key": self.unseal_key});
        let (status, answer) = self.call(Method::POST, "sys/unseal", Some(key)).await;
        assert_eq!(status, 200, "{answer}");
        for _ in 0..600 {
            if self.status("sys/health").await == Some(200) {
                return;
            }
            pause().await;
        }
        panic!("OpenBao does not come to serve");
    }

    /// Mounts an engine, and waits until it can be used.
    pub async fn mount(&self, path: &str, kind: &str, options: Value) {
        let mount = json!({"type": kind, "options": options});
        self.post(&format!("sys/mounts/{path}"), mount).await;
        if kind == "kv" {
            // The second version of the engine becomes ready some time after the mount.
            for _ in 0..600 {
                if self.status(&format!("{path}/config")).await != Some(400) {
                    return;
                }
                pause().await;
            }
            panic!("{path} does not get ready");
        }
    }

    /// Writes a policy.
    pub async fn policy(&self, name: &str, hcl: &str) {
        let policy = json!({"policy": hcl});
        self.post(&format!("sys/policies/acl/{name}"), policy).await;
    }

    /// A token with only this policy, not even the default one.
    pub async fn token(&self, policy: &str, mut options: Value) -> String {
        options["policies"] = json!([policy]);
        options["no_default_policy"] = json!(true);
        let made = self.post("auth/token/create", options).await;
        text(&made["auth"]["client_token"])
    }

    /// A role with only this policy: its id and a secret id.
    pub async fn app_role(
        &self,
        mount: &str,
        policy: &str,
        mut options: Value,
    ) -> (String, String) {
        let method = json!({"type": "approle"});
        self.post(&format!("sys/auth/{mount}"), method).await;
        options["token_policies"] = json!([policy]);
        options["token_no_default_policy"] = json!(true);
        let role = format!("auth/{mount}/role/test");
        self.post(&role, options).await;
        let (status, id) = self
            .call(Method::GET, &format!("{role}/role-id"), None)
            .await;
        assert_eq!(status, 200, "{id}");
        let secret = self.post(&format!("{role}/secret-id"), json!({})).await;
        (
            text(&id["data"]["role_id"]),
            text(&secret["data"]["secret_id"]),
        )
    }

    /// Revokes a token.
    pub async fn revoke(&self, token: &str) {
        self.post("auth/token/revoke", json!({"token": token}))
            .await;
    }

    /// Calls as the root; the call must succeed.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(Method::POST, path, Some(body)).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// Calls as the root; returns status and body.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let answer = self.try_call(method, path, body).await;
        answer.unwrap_or_else(|| panic!("OpenBao does not answer {path}"))
    }

    async fn status(&self, path: &str) -> Option<u16> {
        let (status, _) = self.try_call(Method::GET, path, None).await?;
        Some(status)
    }

    async fn try_call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Option<(u16, Value)> {
        // A new client for each call: tests share a server, but not a runtime.
        let client = Client::builder(TokioExecutor::new()).build_http();
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/v1/{path}", self.address))
            .header("x-vault-token", &self.root)
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        let (head, body) = client.request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Some((head.status.as_u16(), body))
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
