//! The commands of docs/disaster-recovery.md and docs/after-a-leak.md, as they stand there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use keyway_tests::{Answer, Aws, Deployment, Function, Signer, binary, project};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use crate::cli_json;
use crate::setup::set_up;

const ROOT: (&str, &str) = ("test-root", "test-root-secret");

/// A shell in a folder of its own, in which the blocks of one page run one after another.
struct Drill {
    folder: TempDir,
    page: String,
    deployment: Deployment,
}

fn executable(path: PathBuf, text: &str) {
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Drill {
    /// A drill over a new deployment; none where nothing plays AWS with AWS's CLI beside it.
    async fn new(page: &str) -> Option<(Aws, Self)> {
        let aws = Aws::here()?;
        let python = aws.python_with_cli()?;
        let deployment = aws.new_stack().await;
        set_up(&deployment, &[]).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let script = project().join("tests/aws/aws_cli.py");
        executable(
            bin.join("aws"),
            &format!(
                "#!/bin/sh\nexec {} -I {} \"$@\"\n",
                python.display(),
                script.display()
            ),
        );
        // The stand-ins run no functions; `adopted` does what the deployment would.
        executable(
            bin.join("sam"),
            "#!/bin/sh\nprintf '%s\\n' \"$@\" > sam-arguments\n",
        );
        symlink(binary("keyway"), bin.join("keyway")).unwrap();
        let page = fs::read_to_string(project().join(page)).unwrap();
        let drill = Self {
            folder,
            page,
            deployment,
        };
        drill.set(&[
            ("STACK", "keyway-drill"),
            ("REGION", "us-east-1"),
            ("TABLE", &drill.deployment.table),
            ("KEYRING", &drill.deployment.keyring),
            ("ROOT", &drill.deployment.root),
        ]);
        Some((aws, drill))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sets variables of the shell.
    fn set(&self, variables: &[(&str, &str)]) {
        let mut text = fs::read_to_string(self.path("variables")).unwrap_or_default();
        for (name, value) in variables {
            text.push_str(&format!("{name}='{value}'\n"));
        }
        fs::write(self.path("variables"), text).unwrap();
    }

    /// The block below the mark of this name.
    fn block(&self, name: &str) -> &str {
        let mark = format!("<!-- drill: {name} -->\n```sh\n");
        let (_, rest) = self
            .page
            .split_once(&mark)
            .unwrap_or_else(|| panic!("{name}"));
        rest.split_once("```").unwrap().0
    }

    /// Runs the block of this name: its standard output, or what it said as it failed.
    async fn run(&self, name: &str) -> Result<String, String> {
        let script = format!(
            "set -euo pipefail\n. ./variables\nSINCE=$(date -u -d '2 hours ago' +%FT%TZ)\n{}\n\
             for name in STACK REGION TABLE KEYRING ROOT RESTORED LEAKED SINCE; do\n\
             [ -z \"${{!name+x}}\" ] || printf \"%s='%s'\\n\" \"$name\" \"${{!name}}\"\ndone > variables.new\n\
             mv variables.new variables\n",
            self.block(name)
        );
        let path = std::env::join_paths([
            self.path("bin").as_path(),
            Path::new("/usr/bin"),
            Path::new("/bin"),
        ]);
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(self.folder.path())
            .env_clear()
            .envs(
                self.deployment
                    .variables()
                    .into_iter()
                    .filter(|(name, _)| name.starts_with("AWS_")),
            )
            .env("PATH", path.unwrap())
            .env("HOME", self.folder.path())
            .output()
            .await
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stdout) + &text(output.stderr))
        }
    }

    /// A variable of the shell.
    fn variable(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path("variables")).unwrap();
        let line = text
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix(&format!("{name}='")));
        line.unwrap_or_else(|| panic!("{name}"))
            .trim_end_matches('\'')
            .to_owned()
    }

    /// The deployment that the shell's variables name.
    fn named(&self) -> Deployment {
        let mut named = self.deployment.clone();
        named.table = self.variable("TABLE");
        named.keyring = self.variable("KEYRING");
        named.root = self.variable("ROOT");
        named
    }

    /// Runs the page's `sam deploy`, and does what CloudFormation would: calls the setup function of a stack with these
    /// parameters.
    async fn adopt(&self) -> Result<Deployment, String> {
        self.run("adopt").await.unwrap();
        let arguments = fs::read_to_string(self.path("sam-arguments")).unwrap();
        let template = fs::read_to_string(project().join("template.yaml")).unwrap();
        let mut adopted = self.deployment.clone();
        let (_, parameters) = arguments.split_once("--parameter-overrides\n").unwrap();
        for parameter in parameters.lines() {
            let (name, value) = parameter.split_once('=').unwrap();
            assert!(
                template.contains(&format!("\n  {name}:\n    Type: String\n")),
                "there is no parameter {name}"
            );
            match name {
                "ExistingTable" => adopted.table = value.to_owned(),
                "ExistingRootKeyring" => adopted.keyring = value.to_owned(),
                "ExistingRootAccessKey" => adopted.root = value.to_owned(),
                _ => panic!("{name}"),
            }
        }
        set_up(&adopted, &[]).await.map(|()| adopted)
    }
}

/// A data key that is made before the disaster: its ciphertext and its plaintext.
struct DataKey {
    blob: String,
    plaintext: String,
}

async fn key_and_data_key(deployment: &Deployment, id: &str) -> DataKey {
    let keys = Function::start("keyway-fn-keys", deployment, &[]).await;
    let on = json!({"key_id": id}).to_string();
    keys.call("POST", "/kms/keys", &on).await.ok();
    let datakey = Function::start("keyway-fn-datakey", deployment, &[]).await;
    let made = datakey.call("POST", "/kms/generate-data-key", &on).await;
    DataKey {
        blob: made.text("ciphertext_blob"),
        plaintext: made.text("plaintext_key"),
    }
}

async fn opened(deployment: &Deployment, data_key: &DataKey) -> Answer {
    let datakey = Function::start("keyway-fn-datakey", deployment, &[]).await;
    let body = json!({"ciphertext_blob": data_key.blob}).to_string();
    datakey.call("POST", "/kms/decrypt", &body).await
}

async fn opens(deployment: &Deployment, data_key: &DataKey) {
    let opened = opened(deployment, data_key).await;
    assert_eq!(opened.text("plaintext"), data_key.plaintext);
}

const RECOVERY: &str = "docs/disaster-recovery.md";
const NONE_IS_REFUSED: &str = "0 have no signature, 0 are refused";

#[tokio::test(flavor = "multi_thread")]
async fn lost_keyring_is_restored_from_its_backup_and_adopted() {
    let Some((aws, drill)) = Drill::new(RECOVERY).await else {
        return;
    };
    let data_key = key_and_data_key(&drill.deployment, "reports").await;
    let said = drill.run("back up the root keyring").await.unwrap();
    assert_eq!(said, "this is a root keyring\n");
    let backup = fs::metadata(drill.path("root-keyring.json")).unwrap();
    assert_eq!(backup.permissions().mode() & 0o777, 0o600);

    // The stack is deleted, and another one adopts what it has left.
    opens(&drill.adopt().await.unwrap(), &data_key).await;

    let client = aws_sdk_secretsmanager::Client::new(&aws.config());
    let deleted = client
        .delete_secret()
        .secret_id(drill.variable("KEYRING"))
        .force_delete_without_recovery(true);
    deleted.send().await.unwrap();
    let refused = drill.adopt().await.unwrap_err();
    assert!(
        refused.contains("missing from the secret store"),
        "{refused}"
    );
    let said = drill.run("restore the root keyring").await.unwrap();
    assert!(said.contains(NONE_IS_REFUSED), "{said}");
    opens(&drill.adopt().await.unwrap(), &data_key).await;

    // What `--query SecretString` would have written.
    let spoiled = client
        .put_secret_value()
        .secret_id(drill.variable("KEYRING"))
        .secret_string("None\n");
    spoiled.send().await.unwrap();
    let refused = drill.adopt().await.unwrap_err();
    assert!(refused.contains("the root keyring is damaged"), "{refused}");
    drill.run("put the backup into the secret").await.unwrap();
    opens(&drill.adopt().await.unwrap(), &data_key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_table_is_restored_and_adopted_with_its_audit_log() {
    let Some((aws, drill)) = Drill::new(RECOVERY).await else {
        return;
    };
    let data_key = key_and_data_key(&drill.deployment, "reports").await;
    let lost = drill.variable("TABLE");
    let said = drill.run("restore the table").await.unwrap();
    assert!(said.contains(NONE_IS_REFUSED), "{said}");
    assert_ne!(drill.variable("TABLE"), lost);
    let client = aws_sdk_dynamodb::Client::new(&aws.config());
    let unprotected = client
        .update_table()
        .table_name(&lost)
        .deletion_protection_enabled(false);
    unprotected.send().await.unwrap();
    let deleted = client.delete_table().table_name(&lost);
    deleted.send().await.unwrap();
    let refused = set_up(&drill.deployment, &[]).await.unwrap_err();
    assert!(refused.contains("table"), "{refused}");

    let adopted = drill.adopt().await.unwrap();
    assert_eq!(adopted.table, drill.variable("RESTORED"));
    opens(&adopted, &data_key).await;
    let described = client.describe_table().table_name(&adopted.table);
    let table = described.send().await.unwrap().table.unwrap();
    assert_eq!(table.deletion_protection_enabled, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn destroyed_key_is_copied_from_the_restored_table_once() {
    let Some((_, drill)) = Drill::new(RECOVERY).await else {
        return;
    };
    let data_key = key_and_data_key(&drill.deployment, "reports").await;
    let live = drill.variable("TABLE");
    drill.set(&[("STACK", "keyway-drill-of-one-key")]);
    drill.run("restore the table").await.unwrap();
    drill.set(&[("TABLE", &live)]);
    let keys = Function::start("keyway-fn-keys", &drill.deployment, &[]).await;
    let now = json!({"key_id": "reports", "force_immediate": true, "confirm_key_id": "reports"})
        .to_string();
    keys.call("DELETE", "/kms/keys/delete", &now).await.ok();
    assert_ne!(opened(&drill.named(), &data_key).await.status, 200);
    drill.run("copy a key").await.unwrap();
    opens(&drill.named(), &data_key).await;
    let refused = drill.run("copy a key").await.unwrap_err();
    assert!(refused.contains("condition"), "{refused}");
}

const LEAK: &str = "docs/after-a-leak.md";

#[tokio::test(flavor = "multi_thread")]
async fn leaked_access_key_is_revoked_and_its_events_are_found() {
    let Some((_, drill)) = Drill::new(LEAK).await else {
        return;
    };
    let data_key = key_and_data_key(&drill.deployment, "reports").await;
    let made = cli_json(&drill.deployment, &["create", "--policy", "kms-key-user"]).await;
    let id = made["access_key_id"].as_str().unwrap();
    let holder = Signer::new(id, made["secret_access_key"].as_str().unwrap());
    let decrypt = async || {
        // The table has each event at once, not with those of the next seconds.
        let at_once = [("KEYWAY_AUDIT_BATCH_MILLISECONDS", "0")];
        let datakey = Function::start("keyway-fn-datakey", &drill.deployment, &at_once).await;
        let body = json!({"ciphertext_blob": data_key.blob}).to_string();
        let answer = datakey
            .call_as(&holder, "POST", "/kms/decrypt", &body)
            .await;
        answer.status.as_u16()
    };
    assert_eq!(decrypt().await, 200);
    drill.set(&[("LEAKED", id)]);
    let said = drill.run("revoke").await.unwrap();
    let (revoked, list) = said.split_once('\n').unwrap();
    assert_eq!(revoked, format!("revoked {id}"));
    assert!(!list.contains(id), "it is still listed: {said}");
    assert_eq!(decrypt().await, 401);
    drill.run("read the log").await.unwrap();
    let events = fs::read_to_string(drill.path("leaked-events.jsonl")).unwrap();
    assert!(
        events.contains("kms:Decrypt") && events.contains("reports"),
        "{events}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn leaked_root_access_key_is_replaced() {
    let Some((aws, drill)) = Drill::new(LEAK).await else {
        return;
    };
    let call = async |signer: &Signer| {
        let keys = Function::start("keyway-fn-keys", &drill.deployment, &[]).await;
        let answer = keys.call_as(signer, "GET", "/kms/keys", "").await;
        answer.status.as_u16()
    };
    let leaked = Signer::new(ROOT.0, ROOT.1);
    assert_eq!(call(&leaked).await, 200);
    drill.run("replace the root access key").await.unwrap();
    assert!(!drill.path("root.json").exists());
    assert_eq!(call(&leaked).await, 401);
    let client = aws_sdk_secretsmanager::Client::new(&aws.config());
    let read = client.get_secret_value().secret_id(drill.variable("ROOT"));
    let text = read.send().await.unwrap().secret_string.unwrap();
    let root: serde_json::Value = serde_json::from_str(&text).unwrap();
    let field = |name: &str| root[name].as_str().unwrap();
    let own = Signer::new(field("access_key_id"), field("secret_access_key"));
    assert_eq!(call(&own).await, 200);
}
