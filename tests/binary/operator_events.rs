//! Commands that change a deployment, or let secrets out of it, are in its audit log.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use keyway_audit::OperatorAction;
use keyway_tests::{ServerOptions, project};
use serde_json::{Value, json};

use crate::{create, data_dir, folder};

/// The commands that write events.
const RECORDED: [&str; 20] = [
    "access-key-create",
    "access-key-revoke",
    "access-key-rotate",
    "backup-create",
    "change-passphrase",
    "import-kes",
    "import-kes-config",
    "import-minio-static",
    "reencrypt",
    "restore",
    "restore-keys",
    "rewrap-keys",
    "root-give-up",
    "root-retire",
    "root-rewrap",
    "root-rotate",
    "root-save",
    "root-vault-retire",
    "root-vault-rewrap",
    "root-vault-rotate",
];

/// The command that writes events unless it is a dry run.
const SIGNING: &str = "table-sign";

/// The commands that write none: they only read, they work on files that are no deployment, or they call a server, which
/// records the requests.
const UNRECORDED: [&str; 39] = [
    "access-key-list",
    "audit-export",
    "audit-tail",
    "audit-verify",
    "backup-list",
    "backup-verify",
    "completions",
    "config-check",
    "config-example",
    "data-key-decrypt",
    "data-key-generate",
    "decrypt",
    "decrypt-file",
    "doctor",
    "encrypt",
    "encrypt-file",
    "healthcheck",
    "identity-new",
    "identity-of",
    "key-cancel-deletion",
    "key-create",
    "key-delete",
    "key-disable",
    "key-enable",
    "key-list",
    "key-rotate",
    "key-show",
    "key-tag",
    "key-untag",
    "kms-plugin",
    "man",
    "policy-check",
    "root-status",
    "root-vault-status",
    "serve",
    "service-configure",
    "service-start",
    "service-status",
    "service-stop",
];

/// The names of all commands that have no commands of their own, from the manual pages.
async fn commands() -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    let options = ServerOptions::default();
    let (code, _, stderr) = options.run(&["man", "--to", pages.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{stderr}");
    let names = fs::read_dir(&pages).unwrap().map(|page| {
        let name = page.unwrap().file_name().into_string().unwrap();
        name.trim_end_matches(".1").to_owned()
    });
    let names: BTreeSet<String> = names.collect();
    let is_group = |name: &String| {
        let text = fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
        text.contains(".SH SUBCOMMANDS")
    };
    let leaves = names.iter().filter(|name| !is_group(name));
    leaves
        .map(|name| name.trim_start_matches("keyway-").to_owned())
        .collect()
}

#[tokio::test]
async fn command_that_changes_a_deployment_is_known_to_write_events() {
    let listed = RECORDED.iter().chain(&UNRECORDED).chain([&SIGNING]);
    let mut listed: BTreeSet<String> = listed.map(|&name| name.to_owned()).collect();
    listed.insert("table-verify".to_owned());
    assert_eq!(commands().await, listed);
}

#[test]
fn every_operation_of_commands_is_documented() {
    let page = fs::read_to_string(project().join("docs/audit.md")).unwrap();
    for action in OperatorAction::ALL {
        let operation = format!("`{}`", action.as_str());
        assert!(page.contains(&operation), "{operation}");
    }
}

/// What the events tell: operation, resource or key, counts, error. An event that a command begins has the operation
/// that begins.
fn told(events: &[Value]) -> Vec<String> {
    let text = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
    events
        .iter()
        .map(|event| {
            let object = text(event, "resource") + &text(event, "key_id");
            let (operation, error) = (text(event, "operation"), text(event, "error"));
            let told = format!("{operation} {object} {error}");
            match event["counts"].as_object() {
                Some(counts) => format!("{told}{}", json!(counts)),
                None => told.trim_end().to_owned(),
            }
        })
        .collect()
}

fn started(operation: &str) -> String {
    format!("audit:Started {operation}")
}

/// Runs commands on one folder and compares the events of each.
struct Scene<'a> {
    options: ServerOptions,
    data: &'a str,
    seen: usize,
}

impl Scene<'_> {
    /// Runs a command. Returns its output, and what its events tell.
    async fn run(&mut self, arguments: &[&str], code: i32) -> (String, Vec<String>) {
        let place = ["--data-dir", self.data];
        let all = [arguments, &place].concat();
        let (ended, stdout, stderr) = self.options.run(&all).await;
        assert_eq!(ended, Some(code), "{arguments:?}: {stdout} {stderr}");
        let events = self.options.operator_events(&place).await;
        let new = told(events.get(self.seen..).unwrap());
        self.seen = events.len();
        (stdout, new)
    }

    /// Runs a command that succeeds, whose events tell this.
    async fn tells(&mut self, arguments: &[&str], expected: &[&str]) {
        let (_, told) = self.run(arguments, 0).await;
        let operation = expected[0].split(' ').next().unwrap();
        let begin = started(operation);
        let expected: Vec<&str> = [begin.as_str()]
            .into_iter()
            .chain(expected.iter().copied())
            .collect();
        assert_eq!(told, expected, "{arguments:?}");
    }
}

#[tokio::test]
async fn access_key_made_rotated_and_revoked_is_in_the_audit_log() {
    let folder = folder();
    let data = data_dir(&folder);
    let options = ServerOptions::default();
    let server = options.start(&data).await;
    let data = data.to_str().unwrap();
    let mut scene = Scene {
        options,
        data,
        seen: 0,
    };
    let create = [
        "access-key",
        "create",
        "--policy",
        "kms-admin",
        "--output",
        "json",
    ];
    let (made, told) = scene.run(&create, 0).await;
    let id = |made: &str| {
        let made: Value = serde_json::from_str(made).unwrap();
        made["access_key_id"].as_str().unwrap().to_owned()
    };
    let old = id(&made);
    let event = format!("kms:CreateAccessKey access-key/{old}");
    assert_eq!(told, [started("kms:CreateAccessKey"), event]);
    let rotate = ["access-key", "rotate", &old, "--output", "json"];
    let (made, told) = scene.run(&rotate, 0).await;
    let new = id(&made);
    let event = format!("kms:RotateAccessKey access-key/{old}/{new}");
    assert_eq!(told, [started("kms:RotateAccessKey"), event]);
    let event = format!("kms:RevokeAccessKey access-key/{new}");
    scene
        .tells(&["access-key", "revoke", &new], &[&event])
        .await;
    let (_, told) = scene.run(&["access-key", "revoke", &new], 1).await;
    let failed = "kms:RevokeAccessKey  failed".to_owned();
    assert_eq!(told, [started("kms:RevokeAccessKey"), failed]);
    let (_, told) = scene.run(&["access-key", "list"], 0).await;
    assert_eq!(told, [""; 0], "it only reads");
    server.stop().await;
}

/// Keys of KES in a folder.
fn kes_folder(keys: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let value = r#"{"bytes":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","algorithm":"AES256"}"#;
    for number in 0..keys {
        fs::write(folder.path().join(format!("imported-{number:03}")), value).unwrap();
    }
    folder
}

#[tokio::test]
async fn imported_keys_and_policies_are_in_the_audit_log() {
    let folder = folder();
    let data = data_dir(&folder);
    let options = ServerOptions::default();
    let server = options.start(&data).await;
    let place = data.to_str().unwrap().to_owned();
    let mut scene = Scene {
        options: options.clone(),
        data: &place,
        seen: 0,
    };
    let kes = kes_folder(70);
    let from = kes.path().to_str().unwrap();
    let (_, told) = scene
        .run(&["import", "kes", "--from-dir", from, "--dry-run"], 0)
        .await;
    assert_eq!(told, [""; 0], "a dry run changes nothing");
    let counts = r#"{"already_there":0,"conflicts":0,"imported":70,"refused":0}"#;
    scene
        .tells(
            &["import", "kes", "--from-dir", from],
            &[&format!("kms:ImportKeys  {counts}"), "kms:ImportKeys"],
        )
        .await;
    let events = options.operator_events(&["--data-dir", &place]).await;
    let items = events.iter().flat_map(|event| event["items"].as_array());
    let items: Vec<&Value> = items.flatten().map(|item| &item["key_id"]).collect();
    assert_eq!((items.len(), items[69]), (70, &json!("imported-069")));

    let file = folder.path().join("static");
    fs::write(&file, "old:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    let counts = r#"{"already_there":0,"conflicts":0,"imported":1,"refused":0}"#;
    scene
        .tells(
            &["import", "minio-static", "--file", file.to_str().unwrap()],
            &[&format!("kms:ImportKeys old {counts}")],
        )
        .await;

    let identity = "413c35cb06a9e1aa142ccebf829c96cbfd16162131a92f5ec8c9006f6fc5c9dc";
    let file = folder.path().join("server-config.yaml");
    let text = format!(
        "policy:\n  app:\n    allow:\n    - /v1/key/*\n    identities:\n    - {identity}\n"
    );
    fs::write(&file, text).unwrap();
    let import = ["import", "kes-config", file.to_str().unwrap()];
    let read = r#"kms:ImportPolicy  {"policies":1}"#;
    let assigned = format!("kms:ImportIdentity policy/app/{identity}");
    scene
        .tells(&import, &[read, "kms:ImportPolicy policy/app", &assigned])
        .await;
    scene.tells(&import, &[read]).await;
    server.stop().await;
}

#[tokio::test]
async fn keyring_rotated_saved_and_backed_up_is_in_the_audit_log() {
    let folder = folder();
    let data = data_dir(&folder);
    let options = ServerOptions::default()
        .variable("KEYWAY_PASSPHRASE", "a passphrase")
        .variable("KEYWAY_NEW_PASSPHRASE", "another one")
        .variable("KEYWAY_BACKUP_PASSPHRASE", "a passphrase of the backup");
    let server = options.start(&data).await;
    create(&server, "k").await;
    server.stop().await;
    let place = data.to_str().unwrap().to_owned();
    let mut scene = Scene {
        options,
        data: &place,
        seen: 0,
    };
    let (_, told) = scene.run(&["root", "rotate"], 0).await;
    let [begun, rotated, rewrapped] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(
        (begun, rotated.as_str()),
        (&started("kms:RotateRoot"), "kms:RotateRoot root/r2")
    );
    assert!(
        rewrapped.starts_with(r#"kms:RewrapRoot  {"changed":"#),
        "{rewrapped}"
    );
    let (_, told) = scene.run(&["root", "rewrap"], 0).await;
    assert_eq!(told[0], started("kms:RewrapRoot"));
    assert!(told[1].contains(r#""changed":0,"failed":0"#), "{told:?}");
    let (_, told) = scene.run(&["root", "retire", "r2"], 1).await;
    assert_eq!(
        told,
        [
            started("kms:RetireRoot"),
            "kms:RetireRoot  failed".to_owned()
        ]
    );
    let (_, told) = scene.run(&["root", "give-up", "r9"], 1).await;
    assert_eq!(
        told,
        [
            started("kms:GiveUpRoot"),
            "kms:GiveUpRoot  failed".to_owned()
        ]
    );
    scene
        .tells(
            &["rewrap-keys"],
            &[r#"kms:RewrapKeys  {"changed":0,"failed":0,"unchanged":1}"#],
        )
        .await;
    let (_, told) = scene.run(&["restore-keys"], 1).await;
    assert_eq!(
        told,
        [
            started("kms:RestoreKeys"),
            "kms:RestoreKeys  failed".to_owned()
        ]
    );

    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (copy, backup) = (path("copy"), path("backup"));
    scene
        .tells(&["root", "save", "--to", &copy], &["kms:SaveRootKeyring"])
        .await;
    let create = [
        "backup",
        "create",
        "--to",
        &backup,
        "--with-root",
        "--output",
        "json",
    ];
    let (made, told) = scene.run(&create, 0).await;
    let made: Value = serde_json::from_str(&made).unwrap();
    let id = made["backup"].as_str().unwrap();
    assert_eq!(told[0], started("kms:CreateBackup"));
    assert!(
        told[1].starts_with(&format!("kms:CreateBackup backup/{id} ")),
        "{told:?}"
    );
    assert!(told[1].ends_with(r#""root_keyrings":1}"#), "{told:?}");
    let (_, told) = scene.run(&["restore", "--from", &backup], 0).await;
    assert_eq!(told, [""; 0], "nothing differs");
    scene
        .tells(&["change-passphrase"], &["kms:ChangePassphrase"])
        .await;
}

fn execute(data: &Path, statement: &str) {
    let table = rusqlite::Connection::open(data.join("keyway.db")).unwrap();
    table.execute_batch(statement).unwrap();
}

#[tokio::test]
async fn signed_records_are_in_the_audit_log_and_accepted_ones_by_name() {
    let folder = folder();
    let data = data_dir(&folder);
    let options = ServerOptions::default();
    let server = options.start(&data).await;
    create(&server, "k").await;
    server.stop().await;
    let place = data.to_str().unwrap().to_owned();
    let mut scene = Scene {
        options,
        data: &place,
        seen: 0,
    };
    let (_, told) = scene.run(&["table", "sign", "--dry-run"], 0).await;
    assert_eq!(told, [""; 0]);
    let none = r#"kms:SignTable  {"refused":0,"signed":0,"unsigned":0}"#;
    scene
        .tells(
            &["table", "sign", "--accept", "key/k"],
            &[none, "kms:SignTable key/k"],
        )
        .await;
}

#[tokio::test]
async fn command_whose_event_cannot_be_written_changes_nothing() {
    let folder = folder();
    let data = data_dir(&folder);
    let options = ServerOptions::default();
    options.start(&data).await.stop().await;
    // The table takes records of every other kind.
    execute(
        &data,
        "CREATE TRIGGER no_audit BEFORE INSERT ON logs WHEN NEW.kind = 'audit' BEGIN SELECT RAISE(ABORT, 'full'); END",
    );
    let place = data.to_str().unwrap();
    let create = [
        "access-key",
        "create",
        "--policy",
        "kms-admin",
        "--data-dir",
        place,
    ];
    let (code, stdout, stderr) = options.run(&create).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("nothing was changed"), "{stderr}");
    let list = [
        "access-key",
        "list",
        "--output",
        "json",
        "--data-dir",
        place,
    ];
    let (_, listed, _) = options.run(&list).await;
    assert_eq!(listed.trim_end(), "[]");
}
