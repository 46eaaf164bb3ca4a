//! The root keyring in the KV engine: the contract of secret stores, deployments over PostgreSQL whose nodes share it, and
//! data folders without a keyring of their own.

use std::path::Path;
use std::sync::Arc;

use keyway_deployment_assembly::SystemRandom;
use keyway_domain::ports::{SecretStore, SecretVersion, StoreError};
use keyway_domain::vault::{VaultAddress, VaultAuth, VaultRetryPolicy};
use keyway_secrets_vault::{SecretsPlace, VaultSecrets};
use keyway_testkit::secret_store_contract;
use keyway_tests::{Bao, Fate, Postgres, Proxy, Server, ServerOptions, project};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::service::folder;
use crate::{RETRY_POLICY, Setup, path, secret, shared, system_clock, vaults};

/// The policy of `docs/vault.md` for the root keyring, for this mount.
fn policy(place: &Setup) -> String {
    let text = std::fs::read_to_string(project().join("docs/vault.md")).unwrap();
    let mut blocks = text.split("```hcl\n").skip(1);
    let block = blocks
        .find(|block| block.contains("secret/data/keyway-root/"))
        .unwrap();
    let (block, _) = block.split_once("```").unwrap();
    block.replace("\"secret/", &format!("\"{}/", place.kv))
}

/// A token with only that policy.
async fn token(bao: &Bao, place: &Setup) -> String {
    let policy = place.policy(bao, &policy(place)).await;
    bao.token(&policy, json!({"period": "24h"})).await
}

fn secrets(place: &Setup, address: &str, token: &str, retries: u32) -> VaultSecrets {
    let place = SecretsPlace {
        address: VaultAddress::parse("address", address).unwrap(),
        namespace: None,
        auth: VaultAuth::Token,
        mount: path(&place.kv),
        path: path("keyway-root"),
    };
    let retry_policy = VaultRetryPolicy {
        retries,
        ..RETRY_POLICY
    };
    let vaults = vaults(system_clock());
    let secrets = vaults.secrets(place, Some(&secret(token)), retry_policy);
    secrets.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_with_the_documented_policy_keep_the_contract() {
    let Some(bao) = shared().await else { return };
    let place = Setup::new(bao).await;
    let token = token(bao, &place).await;
    let store: Arc<dyn SecretStore> = Arc::new(secrets(&place, &bao.address, &token, 3));
    let factory = async || Arc::clone(&store);
    secret_store_contract::run_all(factory, &SystemRandom::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_under_faults_keep_the_contract() {
    let Some(bao) = shared().await else { return };
    let place = Setup::new(bao).await;
    let proxy = Proxy::before(&bao.address).await;
    let store = secrets(&place, &proxy.endpoint, &bao.root, 9);
    let store: Arc<dyn SecretStore> = Arc::new(store);
    proxy.judge(|number, _| match number % 17 {
        2 => Fate::LoseAnswer,
        5 => Fate::Fail,
        9 => Fate::LoseRequest,
        _ => Fate::Pass,
    });
    let factory = async || Arc::clone(&store);
    secret_store_contract::run_all(factory, &SystemRandom::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn write_whose_answer_is_lost_is_one_write() {
    let Some(bao) = shared().await else { return };
    let place = Setup::new(bao).await;
    let proxy = Proxy::before(&bao.address).await;
    let store = secrets(&place, &proxy.endpoint, &bao.root, 3);
    // The first request looks the token up, the second one writes.
    proxy.judge(|number, _| match number {
        1 => Fate::LoseAnswer,
        _ => Fate::Pass,
    });
    let first = store.put("root-keyring", &secret("one"), None).await;
    let first = first.unwrap();
    assert!(proxy.count() >= 4, "{}", proxy.count());
    assert_eq!(first, SecretVersion("1".to_owned()));
    let late = store.put("root-keyring", &secret("two"), None).await;
    assert!(matches!(late, Err(StoreError::Conflict)), "{late:?}");
    let second = store
        .put("root-keyring", &secret("two"), Some(&first))
        .await;
    assert_eq!(second.unwrap(), SecretVersion("2".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_whose_newest_version_is_deleted_is_refused_until_it_is_restored() {
    let Some(bao) = shared().await else { return };
    let place = Setup::new(bao).await;
    let store = secrets(&place, &bao.address, &bao.root, 3);
    let put = store.put("root-keyring", &secret("one"), None).await;
    put.unwrap();
    let data = format!("{}/data/keyway-root/root-keyring", place.kv);
    let (status, answer) = bao.call(http::Method::DELETE, &data, None).await;
    assert_eq!(status, 204, "{answer}");
    let Err(StoreError::Failed { source, .. }) = store.get("root-keyring").await else {
        panic!("a deleted secret is no missing one");
    };
    assert!(source.to_string().contains("undelete"), "{source}");
    let anew = store.put("root-keyring", &secret("two"), None).await;
    assert!(matches!(anew, Err(StoreError::Conflict)), "{anew:?}");
    let undelete = format!("{}/undelete/keyway-root/root-keyring", place.kv);
    bao.post(&undelete, json!({"versions": [1]})).await;
    let (value, _) = store.get("root-keyring").await.unwrap().unwrap();
    assert!(value.ct_eq(b"one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn token_without_rights_and_wrong_engine_are_failures_and_a_stopped_vault_is_away() {
    let Some(bao) = Bao::start().await else {
        return;
    };
    let place = Setup::new(&bao).await;
    let nothing = place
        .policy(&bao, "path \"elsewhere/*\" { capabilities = [\"read\"] }")
        .await;
    let token = bao.token(&nothing, json!({})).await;
    let denied = secrets(&place, &bao.address, &token, 0);
    let Err(StoreError::Failed { source, .. }) = denied.get("root-keyring").await else {
        panic!("it may not read");
    };
    let text = source.to_string();
    assert!(text.contains(&bao.address), "{text}");
    assert!(!text.contains(&token), "{text}");

    let first = format!("{}-one", place.kv.replace('/', "-"));
    bao.mount(&first, "kv", json!({"version": "1"})).await;
    let kv = Setup {
        kv: first,
        ..place.clone()
    };
    let store = secrets(&kv, &bao.address, &bao.root, 0);
    let put = store.put("root-keyring", &secret("one"), None).await;
    let Err(StoreError::Failed { source, .. }) = put else {
        panic!("version 1 has no check-and-set");
    };
    assert!(source.to_string().contains("KV version 2"), "{source}");

    let store = secrets(&place, &bao.address, &bao.root, 0);
    bao.seal().await;
    let sealed = store.get("root-keyring").await;
    let is_away = matches!(&sealed, Err(StoreError::Away(text)) if text.contains("it is sealed"));
    assert!(is_away, "{:?}", sealed.err());
    bao.stop();
    let stopped = store.put("root-keyring", &secret("one"), None).await;
    assert!(matches!(&stopped, Err(StoreError::Away(_))), "{stopped:?}");
}

/// The PostgreSQL that the tests of this file share.
async fn postgres() -> Option<&'static Postgres> {
    static POSTGRES: OnceCell<Option<Postgres>> = OnceCell::const_new();
    POSTGRES.get_or_init(Postgres::start).await.as_ref()
}

/// A node over this database whose keyring is in this place.
fn node(url: &str, bao: &Bao, place: &Setup) -> ServerOptions {
    ServerOptions::default()
        .variable("KEYWAY_POSTGRES", url)
        .variable("KEYWAY_ROOT_KEYRING_VAULT", &bao.address)
        .variable("KEYWAY_ROOT_KEYRING_VAULT_MOUNT", &place.kv)
}

fn with_token(options: ServerOptions, token: &str) -> ServerOptions {
    options.variable("KEYWAY_ROOT_KEYRING_VAULT_TOKEN", token)
}

async fn create(server: &Server, id: &str) {
    let body = json!({ "key_id": id }).to_string();
    server.call("POST", "/kms/keys", &body).await.ok();
}

async fn generated(server: &Server, id: &str) -> String {
    let body = json!({ "key_id": id }).to_string();
    let answer = server.call("POST", "/kms/generate-data-key", &body).await;
    answer.text("ciphertext_blob")
}

async fn opens(server: &Server, blob: &str) {
    let body = json!({ "ciphertext_blob": blob }).to_string();
    server.call("POST", "/kms/decrypt", &body).await.ok();
}

async fn run(options: &ServerOptions, command: &[&str]) -> String {
    let (code, stdout, stderr) = options.run(command).await;
    assert!(matches!(code, Some(0 | 3)), "{command:?}: {stdout}{stderr}");
    stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_share_the_keyring_in_vault_through_a_rotation_of_the_root() {
    let (Some(bao), Some(postgres)) = (shared().await, postgres().await) else {
        return;
    };
    let place = Setup::new(bao).await;
    let token = token(bao, &place).await;
    let (folder, url) = (folder(), postgres.database());
    let options = with_token(node(&url, bao, &place), &token);
    let one = options.start(folder.path()).await;
    create(&one, "k").await;
    let before = generated(&one, "k").await;
    // Another node needs nothing but the settings.
    let two = options.start(folder.path()).await;
    opens(&two, &before).await;

    let rotated = run(&options, &["root", "rotate"]).await;
    let status = run(&options, &["root", "status", "--output", "json"]).await;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(
        status["roots"].as_array().unwrap().len(),
        2,
        "{rotated}{status}"
    );
    for (server, id) in [(&one, "later-1"), (&two, "later-2")] {
        create(server, id).await;
        opens(server, &before).await;
    }
    let versions = format!("{}/metadata/keyway-root/root-keyring", place.kv);
    let (_, metadata) = bao.call(http::Method::GET, &versions, None).await;
    assert_eq!(metadata["data"]["current_version"], 2, "{metadata}");

    let backup = folder.path().join("backup");
    let with_passphrase = options
        .clone()
        .variable("KEYWAY_BACKUP_PASSPHRASE", "of a backup");
    let to = [
        "backup",
        "create",
        "--with-root",
        "--to",
        backup.to_str().unwrap(),
    ];
    run(&with_passphrase, &to).await;
    run(
        &with_passphrase,
        &["backup", "verify", backup.to_str().unwrap()],
    )
    .await;
    run(&options, &["access-key", "create", "--policy", "kms-admin"]).await;
    run(&options, &["table", "verify"]).await;
    let found = run(&options, &["doctor", "--output", "json"]).await;
    assert!(found.contains("keyring-ok"), "{found}");
    assert!(
        found.contains(&bao.address),
        "the clock is compared: {found}"
    );
    retire_first(&options).await;
    let three = options.start(folder.path()).await;
    for server in [one, two, three] {
        opens(&server, &before).await;
        let (code, log, stderr) = server.stop().await;
        assert_eq!(code, Some(0));
        assert!(!format!("{log}{stderr}").contains(&token));
    }
}

/// Takes the first root out of the keyring, to which no record refers any more.
async fn retire_first(options: &ServerOptions) {
    run(options, &["root", "retire", "r1"]).await;
    let status = run(options, &["root", "status", "--output", "json"]).await;
    let status: Value = serde_json::from_str(&status).unwrap();
    let roots = status["roots"].as_array().unwrap();
    assert_eq!(
        (roots.len(), &roots[0]["id"]),
        (1, &json!("r2")),
        "{status}"
    );
}

/// A server whose table is in this folder and whose keyring is in this place.
fn in_folder(data: &Path, bao: &Bao, place: &Setup) -> ServerOptions {
    ServerOptions::default()
        .variable("KEYWAY_DATA_DIR", data.to_str().unwrap())
        .variable("KEYWAY_ROOT_KEYRING_VAULT", &bao.address)
        .variable("KEYWAY_ROOT_KEYRING_VAULT_MOUNT", &place.kv)
}

#[tokio::test(flavor = "multi_thread")]
async fn data_folder_with_the_keyring_in_vault_is_rotated_backed_up_and_restored() {
    let Some(bao) = shared().await else { return };
    let place = Setup::new(bao).await;
    let token = token(bao, &place).await;
    let folder = folder();
    let data = folder.path().join("data");
    let options = with_token(in_folder(&data, bao, &place), &token)
        .variable("KEYWAY_BACKUP_PASSPHRASE", "of a backup");
    let nothing = options.run(&["root", "status"]).await;
    assert!(nothing.2.contains("makes one"), "{}", nothing.2);
    assert!(!data.exists());
    let server = options.start(folder.path()).await;
    create(&server, "k").await;
    let before = generated(&server, "k").await;
    assert!(data.join("keyway.db").exists() && !data.join("secrets").exists());

    run(&options, &["root", "rotate"]).await;
    run(&options, &["root", "rewrap"]).await;
    create(&server, "later").await;
    retire_first(&options).await;
    opens(&server, &before).await;
    let found = run(&options, &["doctor", "--output", "json"]).await;
    for wanted in ["keyring-ok", "files-ok", "log-ok", bao.address.as_str()] {
        assert!(found.contains(wanted), "{wanted}: {found}");
    }
    assert!(!found.contains("\"severity\":\"error\""), "{found}");
    let backup = folder.path().join("backup");
    let backup = backup.to_str().unwrap();
    run(
        &options,
        &["backup", "create", "--with-root", "--to", backup],
    )
    .await;
    run(&options, &["backup", "verify", backup]).await;
    let (code, log, stderr) = server.stop().await;
    assert_eq!(code, Some(0));
    assert!(!format!("{log}{stderr}").contains(&token));

    // Into another folder and another place in Vault, and from there into a folder that has its own keyring.
    let moved = Setup::new(bao).await;
    let other = folder.path().join("other");
    let whole = folder.path().join("whole");
    let passphrase = "of a backup";
    let alone = ServerOptions::default()
        .variable("KEYWAY_DATA_DIR", whole.to_str().unwrap())
        .variable("KEYWAY_BACKUP_PASSPHRASE", passphrase);
    let elsewhere = with_token(in_folder(&other, bao, &moved), &bao.root)
        .variable("KEYWAY_BACKUP_PASSPHRASE", passphrase);
    for options in [elsewhere, alone] {
        run(&options, &["restore", "--from", backup, "--dry-run"]).await;
        run(&options, &["restore", "--from", backup]).await;
        let server = options.start(folder.path()).await;
        opens(&server, &before).await;
        server.stop().await;
        run(&options, &["audit", "verify"]).await;
    }
    assert!(!other.join("secrets").exists() && whole.join("secrets").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn data_folder_opens_with_its_own_keyring_alone() {
    let Some(bao) = shared().await else { return };
    let (place, other) = (Setup::new(bao).await, Setup::new(bao).await);
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let of = |name: &str, place: &Setup| with_token(in_folder(&path(name), bao, place), &bao.root);
    of("one", &place).start(folder.path()).await.stop().await;
    of("two", &other).start(folder.path()).await.stop().await;
    let own = |name: &str| {
        ServerOptions::default().variable("KEYWAY_DATA_DIR", path(name).to_str().unwrap())
    };
    own("own").start(folder.path()).await.stop().await;
    let nowhere = Setup::new(bao).await;
    let passphrase = of("one", &place).variable("KEYWAY_PASSPHRASE", "x");
    for (options, says) in [
        (of("one", &other), "belongs to another deployment"),
        (of("one", &nowhere), "restore the keyring"),
        (own("one"), "restore the keyring"),
        (of("own", &nowhere), "restore the keyring"),
        (of("own", &place), "belongs to another deployment"),
        (of("new", &place), "--accept-empty-table"),
        (passphrase, "it would protect nothing"),
    ] {
        let (code, stderr) = options.fail(folder.path()).await;
        assert_eq!(code, Some(1), "{says}: {stderr}");
        assert!(stderr.contains(says), "{says}: {stderr}");
    }
    let (code, stdout, _) = of("one", &other).run(&["doctor"]).await;
    assert!(
        code == Some(1) && stdout.contains("belongs to another deployment"),
        "{stdout}"
    );
    // A lost table with a keyring in the folder gets no keyring elsewhere.
    std::fs::remove_file(path("own").join("keyway.db")).unwrap();
    let (code, stderr) = of("own", &nowhere).fail(folder.path()).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("its table keyway.db is gone"), "{stderr}");
    assert!(!path("own").join("keyway.db").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn keyring_of_another_deployment_and_a_missing_one_are_refused() {
    let (Some(bao), Some(postgres)) = (shared().await, postgres().await) else {
        return;
    };
    let (place, other) = (Setup::new(bao).await, Setup::new(bao).await);
    let folder = folder();
    let (url, foreign) = (postgres.database(), postgres.database());
    let of = |url: &str, place: &Setup| with_token(node(url, bao, place), &bao.root);
    of(&url, &place).start(folder.path()).await.stop().await;
    of(&foreign, &other).start(folder.path()).await.stop().await;
    let refusal = async |options: ServerOptions| {
        let (code, stderr) = options.fail(folder.path()).await;
        assert_eq!(code, Some(1), "{stderr}");
        stderr
    };
    let stderr = refusal(of(&url, &other)).await;
    assert!(stderr.contains("belongs to another deployment"), "{stderr}");
    let stderr = refusal(of(&postgres.database(), &place)).await;
    assert!(stderr.contains("--accept-empty-table"), "{stderr}");
    let stderr = refusal(of(&url, &Setup::new(bao).await)).await;
    assert!(stderr.contains("restore the keyring"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn start_fails_while_vault_is_sealed_and_a_running_node_goes_on() {
    let (Some(bao), Some(postgres)) = (Bao::start().await, postgres().await) else {
        return;
    };
    let place = Setup::new(&bao).await;
    let (folder, url) = (folder(), postgres.database());
    let options = with_token(node(&url, &bao, &place), &bao.root);
    let server = options.start(folder.path()).await;
    create(&server, "k").await;
    bao.seal().await;
    let (code, stderr) = options.fail(folder.path()).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("it is sealed; unseal it"), "{stderr}");
    // The root is in memory.
    let blob = generated(&server, "k").await;
    create(&server, "made-meanwhile").await;
    bao.unseal().await;
    let other = options.start(folder.path()).await;
    opens(&other, &blob).await;
    other.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn login_is_a_token_a_token_file_or_an_app_role_and_exactly_one_of_them() {
    let (Some(bao), Some(postgres)) = (shared().await, postgres().await) else {
        return;
    };
    let place = Setup::new(bao).await;
    let token = token(bao, &place).await;
    let (role_id, secret_id) = bao
        .app_role(&place.transit, &place.transit, json!({}))
        .await;
    let (folder, url) = (folder(), postgres.database());
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("{content}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let token_file = file("token", &token);
    // As a volume of Kubernetes has it.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&token_file, &link).unwrap();
    let link = link.to_str().unwrap();
    let secret_file = file("secret-id", &secret_id);
    let bare = node(&url, bao, &place);
    let role = bare
        .clone()
        .variable("KEYWAY_ROOT_KEYRING_VAULT_ROLE_ID", &role_id)
        .variable("KEYWAY_ROOT_KEYRING_VAULT_ROLE_MOUNT", &place.transit);
    for options in [
        with_token(bare.clone(), &token),
        bare.clone()
            .variable("KEYWAY_ROOT_KEYRING_VAULT_TOKEN_FILE", link),
        role.clone()
            .variable("KEYWAY_ROOT_KEYRING_VAULT_SECRET_ID", &secret_id),
        role.clone()
            .variable("KEYWAY_ROOT_KEYRING_VAULT_SECRET_ID_FILE", &secret_file),
    ] {
        options.start(folder.path()).await.stop().await;
    }
    for (options, says) in [
        (bare.clone(), "needs one login"),
        (role.clone(), "needs one login"),
        (with_token(role, &token), "needs one login"),
        (with_token(bare.clone(), ""), "set and empty"),
        (with_token(bare.clone(), "not a token"), "there is no token"),
        (with_token(bare.clone(), "s.unknown"), "permission denied"),
        (
            with_token(bare.clone(), &token)
                .variable("KEYWAY_ROOT_KEYRING_VAULT_MOUNT", "no mount"),
            "--root-keyring-vault-mount must be segments",
        ),
        (
            with_token(bare.clone(), &token)
                .variable("KEYWAY_ROOT_KEYRING_VAULT", "http://192.0.2.1"),
            "must be https://",
        ),
    ] {
        let (code, stderr) = options.fail(folder.path()).await;
        assert!(matches!(code, Some(1 | 2)), "{stderr}");
        assert!(stderr.contains(says), "{says}: {stderr}");
        assert!(
            !stderr.contains(&token) && !stderr.contains(&secret_id),
            "{stderr}"
        );
    }
    let file = Path::new("/nowhere").to_str().unwrap();
    let both = with_token(bare, &token).variable("KEYWAY_ROOT_KEYRING_FILE", file);
    let (code, stderr) = both.fail(folder.path()).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains("cannot be used with"), "{stderr}");
}
