//! `keyway kms-plugin`, by a client that follows the rules of Kubernetes' API server.

mod api_server;
mod process;

use std::path::{Path, PathBuf};

use keyway_tests::{Server, ServerOptions};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::clients::{REPOSITORY, clients, run};
use crate::{access_key, create, data_dir, folder, on};
use api_server::{
    ApiServer, FAILED_PRECONDITION, INVALID_ARGUMENT, NOT_FOUND, Nothing, OUT_OF_RANGE,
    PERMISSION_DENIED, Plaintext, Refused, Status, Stored, UNAVAILABLE, UNIMPLEMENTED,
};

const SEED: [u8; 32] = *b"the seed of a cluster's secrets.";

/// A plugin's options: a socket of its own in this folder, the key `cluster`, and root's access key.
fn plugin(folder: &Path, endpoint: &str) -> ServerOptions {
    plugin_by(&root(), folder, endpoint)
}

fn root() -> Value {
    json!({"access_key_id": "test-root", "secret_access_key": "test-root-secret"})
}

fn plugin_by(key: &Value, folder: &Path, endpoint: &str) -> ServerOptions {
    let text = |name: &str| key[name].as_str().unwrap();
    ServerOptions::function("keyway")
        .without_root()
        .argument("kms-plugin")
        .argument("--key")
        .argument("cluster")
        .variable("XDG_CONFIG_HOME", folder.to_str().unwrap())
        .variable("KEYWAY_KMS_PLUGIN_SOCKET", socket(folder).to_str().unwrap())
        .variable("KEYWAY_ENDPOINT", &format!("http://{endpoint}"))
        .variable("AWS_ACCESS_KEY_ID", text("access_key_id"))
        .variable("AWS_SECRET_ACCESS_KEY", text("secret_access_key"))
        .variable("AWS_SESSION_TOKEN", "")
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("kms.sock")
}

/// A server with the key `cluster`, and a plugin of it.
struct Cluster {
    server: Server,
    plugin: Server,
    api: ApiServer,
    folder: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        Self::start_with(&ServerOptions::default()).await
    }

    async fn start_with(options: &ServerOptions) -> Self {
        let folder = folder();
        let server = options.start(&data_dir(&folder)).await;
        create(&server, "cluster").await;
        let plugin = plugin(folder.path(), &server.address)
            .start_in_place()
            .await;
        assert_eq!(Path::new(&plugin.address), socket(folder.path()));
        let api = ApiServer::connect(&socket(folder.path())).await;
        Self {
            server,
            plugin,
            api,
            folder,
        }
    }

    /// Changes the key, such as by `disable`.
    async fn change(&self, operation: &str) {
        let path = format!("/kms/keys/{operation}");
        self.server.call("POST", &path, &on("cluster")).await.ok();
    }
}

#[tokio::test]
async fn secrets_of_a_cluster_outlive_a_rotation_and_a_plugin() {
    let cluster = Cluster::start().await;
    let first = cluster.api.rotated(&SEED).await;
    assert!(first.key_id.starts_with("cluster/1/2"), "{}", first.key_id);
    // Nothing has changed, so the key id has not.
    assert_eq!(cluster.api.healthy().await, first.key_id);

    cluster.change("rotate").await;
    let second = cluster.api.rotated(&[7; 32]).await;
    assert!(
        second.key_id.starts_with("cluster/2/2"),
        "{}",
        second.key_id
    );
    assert_eq!(cluster.api.decrypt(&first).await.unwrap(), SEED);

    // Another API server has a plugin of its own, which answers alike.
    let other = folder();
    let options = plugin(other.path(), &cluster.server.address);
    let plugin = options.start_in_place().await;
    let api = ApiServer::connect(&socket(other.path())).await;
    assert_eq!(api.healthy().await, second.key_id);
    assert_eq!(api.decrypt(&first).await.unwrap(), SEED);
    assert_eq!(api.decrypt(&second).await.unwrap(), [7; 32]);
    assert_eq!(plugin.stop().await.0, Some(0));
    assert_eq!(cluster.plugin.stop().await.0, Some(0));
}

#[tokio::test]
async fn key_that_is_disabled_makes_the_plugin_unhealthy_until_it_is_enabled() {
    let cluster = Cluster::start().await;
    let stored = cluster.api.rotated(&SEED).await;
    cluster.change("disable").await;
    let reason = cluster.api.unhealthy().await;
    assert!(reason.contains("disabled"), "{reason}");
    for refused in [
        cluster.api.encrypt(&SEED).await.map(drop),
        cluster.api.decrypt(&stored).await.map(drop),
    ] {
        let Refused(code, text) = refused.unwrap_err();
        assert_eq!(code, FAILED_PRECONDITION, "{text}");
    }
    cluster.change("enable").await;
    assert_eq!(cluster.api.healthy().await, stored.key_id);
    assert_eq!(cluster.api.decrypt(&stored).await.unwrap(), SEED);
    let (_, log, _) = cluster.plugin.stop().await;
    let told = |text: &str| log.matches(text).count();
    assert_eq!(told("does not encrypt and decrypt"), 1, "{log}");
    assert_eq!(told("the server encrypts and decrypts"), 2, "{log}");
}

/// The API server must not go on with a seed that the destroyed key encrypted.
#[tokio::test]
async fn key_that_is_made_again_has_another_key_id() {
    let options = ServerOptions::default().variable("KEYWAY_ALLOW_IMMEDIATE_DELETION", "true");
    let cluster = Cluster::start_with(&options).await;
    let lost = cluster.api.rotated(&SEED).await;
    let body = r#"{"key_id":"cluster","force_immediate":true,"confirm_key_id":"cluster"}"#;
    let server = &cluster.server;
    server.call("DELETE", "/kms/keys/delete", body).await.ok();
    let reason = cluster.api.unhealthy().await;
    assert!(reason.contains("KeyNotFound"), "{reason}");
    let Refused(code, text) = cluster.api.encrypt(&SEED).await.unwrap_err();
    assert_eq!(code, NOT_FOUND, "{text}");
    let Refused(code, text) = cluster.api.decrypt(&lost).await.unwrap_err();
    assert_eq!(code, INVALID_ARGUMENT, "{text}");
    create(server, "cluster").await;
    let now = cluster.api.rotated(&SEED).await;
    assert!(now.key_id.starts_with("cluster/1/"), "{}", now.key_id);
    assert_ne!(now.key_id, lost.key_id);
    let Refused(code, text) = cluster.api.decrypt(&lost).await.unwrap_err();
    assert_eq!(code, INVALID_ARGUMENT, "{text}");
}

#[tokio::test]
async fn server_that_is_away_makes_the_plugin_unavailable_until_it_is_back() {
    let folder = folder();
    let data = data_dir(&folder);
    let server = ServerOptions::default().start(&data).await;
    create(&server, "cluster").await;
    let address = server.address.clone();
    server.stop().await;
    // The plugin starts without the server.
    let plugin = plugin(folder.path(), &address).start_in_place().await;
    let api = ApiServer::connect(&socket(folder.path())).await;
    let away = async || {
        let reason = api.unhealthy().await;
        assert!(reason.contains("cannot be reached"), "{reason}");
        let Refused(code, text) = api.encrypt(&SEED).await.unwrap_err();
        assert_eq!(code, UNAVAILABLE, "{text}");
    };
    away().await;
    let back = async || {
        let options = ServerOptions::default().argument("--listen");
        options.argument(&address).start(&data).await
    };
    let server = back().await;
    let stored = api.rotated(&SEED).await;
    server.stop().await;
    away().await;
    let Refused(code, text) = api.decrypt(&stored).await.unwrap_err();
    assert_eq!(code, UNAVAILABLE, "{text}");
    let _server = back().await;
    assert_eq!(api.healthy().await, stored.key_id);
    assert_eq!(api.decrypt(&stored).await.unwrap(), SEED);
    assert_eq!(plugin.stop().await.0, Some(0));
}

/// A server that accepts connections and never answers.
#[tokio::test]
async fn server_that_does_not_answer_is_given_up_before_the_api_server_gives_up() {
    let folder = folder();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let plugin = plugin(folder.path(), &address).argument("--timeout");
    let plugin = plugin.argument("1s").start_in_place().await;
    let api = ApiServer::connect(&socket(folder.path())).await;
    let reason = api.unhealthy().await;
    assert!(reason.contains("did not answer within 1 s"), "{reason}");
    let Refused(code, text) = api.encrypt(&SEED).await.unwrap_err();
    assert_eq!(code, UNAVAILABLE, "{text}");
    assert_eq!(plugin.stop().await.0, Some(0));
}

#[tokio::test]
async fn wrong_request_is_refused_by_the_name_of_its_field() {
    let cluster = Cluster::start().await;
    let api = &cluster.api;
    let stored = api.rotated(&SEED).await;
    for (length, is_fit) in [(0, false), (1, true), (1023, false), (1024, false)] {
        let sealed = api.encrypt(&vec![1; length]).await;
        let Err(Refused(code, text)) = sealed else {
            assert!(is_fit, "{length}");
            continue;
        };
        assert!(!is_fit && code == INVALID_ARGUMENT, "{length}: {text}");
        assert!(text.starts_with("plaintext: "), "{text}");
    }
    let with_id = |key_id: &str| Stored {
        key_id: key_id.to_owned(),
        ..stored.clone()
    };
    let with_ciphertext = |ciphertext: Vec<u8>| Stored {
        ciphertext,
        ..stored.clone()
    };
    let mut changed = stored.ciphertext.clone();
    *changed.last_mut().unwrap() ^= 1;
    create(&cluster.server, "other").await;
    for (request, code, begin) in [
        (with_id(""), INVALID_ARGUMENT, "key_id: "),
        (with_id("cluster"), INVALID_ARGUMENT, "key_id: "),
        (with_id("cluster/2/2026"), INVALID_ARGUMENT, "key_id: "),
        (with_id("nobody/1/2026"), INVALID_ARGUMENT, ""),
        (with_id("other/1/2026"), INVALID_ARGUMENT, ""),
        (with_ciphertext(vec![]), INVALID_ARGUMENT, "ciphertext: "),
        (
            with_ciphertext(vec![1; 1025]),
            INVALID_ARGUMENT,
            "ciphertext: ",
        ),
        (with_ciphertext(vec![1; 64]), INVALID_ARGUMENT, ""),
        (with_ciphertext(changed), INVALID_ARGUMENT, ""),
    ] {
        let Refused(found, text) = api.decrypt(&request).await.unwrap_err();
        assert_eq!(found, code, "{request:?}: {text}");
        assert!(text.starts_with(begin), "{request:?}: {text}");
    }
    let long = Plaintext {
        plaintext: vec![1; 128 << 10],
        uid: String::new(),
    };
    let method = "v2.KeyManagementService/Encrypt";
    let Refused(code, _) = api.call::<Nothing>(method, &long).await.unwrap_err();
    assert_eq!(code, OUT_OF_RANGE);
    for method in [
        "v2.KeyManagementService/Other",
        "v1beta1.KeyManagementService/Encrypt",
    ] {
        let refused = api.call::<Nothing>(method, &Nothing {}).await;
        assert_eq!(refused.unwrap_err().0, UNIMPLEMENTED, "{method}");
    }
    assert_eq!(api.decrypt(&stored).await.unwrap(), SEED);
}

#[tokio::test]
async fn encryption_context_of_another_cluster_decrypts_nothing() {
    let cluster = Cluster::start().await;
    let stored = cluster.api.rotated(&SEED).await;
    let other = folder();
    let options = plugin(other.path(), &cluster.server.address);
    let options = options.argument("--context").argument("cluster=two");
    let _plugin = options.start_in_place().await;
    let api = ApiServer::connect(&socket(other.path())).await;
    assert_eq!(api.healthy().await, stored.key_id);
    let Refused(code, text) = api.decrypt(&stored).await.unwrap_err();
    assert_eq!(code, INVALID_ARGUMENT, "{text}");
}

#[tokio::test]
async fn access_key_needs_the_policy_of_a_user_of_the_key() {
    let cluster = Cluster::start().await;
    let data = data_dir(&cluster.folder);
    for (policy, key, is_fit) in [
        ("kms-key-user", "cluster", true),
        ("kms-key-user", "other", false),
        ("kms-key-administrator", "cluster", false),
    ] {
        let access = access_key(&data, &["--policy", policy, "--key", key]).await;
        let own = folder();
        let options = plugin_by(&access, own.path(), &cluster.server.address);
        let plugin = options.start_in_place().await;
        let api = ApiServer::connect(&socket(own.path())).await;
        match is_fit {
            true => drop(api.rotated(&SEED).await),
            false => {
                let Status { healthz, .. } = api.status().await;
                assert!(healthz.contains("status 403"), "{healthz}");
                let Refused(code, text) = api.encrypt(&SEED).await.unwrap_err();
                assert_eq!(code, PERMISSION_DENIED, "{text}");
            }
        }
        assert_eq!(plugin.stop().await.0, Some(0));
    }
}

#[tokio::test]
async fn grpc_of_python_calls_the_published_service() {
    let Some(bin) = clients("grpcio") else {
        return;
    };
    let cluster = Cluster::start().await;
    let script = Path::new(REPOSITORY).join("tests/clients/kms_plugin_client.py");
    let path = socket(cluster.folder.path());
    let arguments = [script.to_str().unwrap(), path.to_str().unwrap()];
    let (ended_well, stdout, stderr) = run(&bin.join("python3"), &root(), &arguments).await;
    assert!(ended_well, "{stdout}{stderr}{}", cluster.plugin.log());
    assert_eq!(stdout.lines().count(), 4, "{stdout}");
}
