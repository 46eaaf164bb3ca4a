//! `scripts/deploy` and `scripts/rollback` over an account that a test describes, with a program in place of SAM.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use keyway_tests::{Aws, project};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::deployments::tool;

/// The names of the template's functions.
fn functions() -> Vec<String> {
    let template = std::fs::read_to_string(project().join("template.yaml")).unwrap();
    let names = template
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Binary: "));
    names.map(str::to_owned).collect()
}

fn python() -> Option<Command> {
    tool("../venv/bin/python")
}

/// An account with at most one stack, and a folder for what its operator has.
struct Account {
    folder: TempDir,
    api: Child,
    endpoint: String,
}

impl Drop for Account {
    fn drop(&mut self) {
        self.api.kill().unwrap();
        self.api.wait().unwrap();
    }
}

/// What a command answered: exit code, and both outputs.
struct Said(Option<i32>, String);

impl Said {
    #[track_caller]
    fn refuses(&self, texts: &[&str]) {
        assert_eq!(self.0, Some(1), "{}", self.1);
        for text in texts {
            assert!(self.1.contains(text), "{text} is not in: {}", self.1);
        }
    }

    #[track_caller]
    fn succeeds(&self) -> &str {
        assert_eq!(self.0, Some(0), "{}", self.1);
        &self.1
    }
}

impl Account {
    /// None where the tools are missing.
    fn with(state: &Value) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("state.json"), state.to_string()).unwrap();
        let mut api = python()?
            .args(["-I", "-B", "tests/deployment/fake_aws.py"])
            .arg(folder.path().join("state.json"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut endpoint = String::new();
        BufReader::new(api.stdout.take().unwrap())
            .read_line(&mut endpoint)
            .unwrap();
        Some(Self {
            folder,
            api,
            endpoint: endpoint.trim().to_owned(),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn state(&self) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.path("state.json")).unwrap()).unwrap()
    }

    /// The program runs in place of SAM: it keeps its arguments and the template, and gives the account this state.
    fn sam_leaves(&self, state: &Value) {
        let (sam, after) = (self.path("sam"), self.path("after.json"));
        std::fs::write(&after, state.to_string()).unwrap();
        let folder = self.folder.path().display();
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$@\" >{folder}/arguments\n/bin/cp \"$3\" {folder}/released.yaml\n/bin/cp {folder}/after.json {folder}/state.json\n"
        );
        std::fs::write(&sam, script).unwrap();
        std::fs::set_permissions(&sam, PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Said {
        let output = python()
            .unwrap()
            .args(["-B", &format!("scripts/deployment/{script}.py")])
            .args(arguments)
            .env("PATH", self.folder.path())
            .env("HOME", self.folder.path())
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_ACCESS_KEY_ID", "operator")
            .env("AWS_SECRET_ACCESS_KEY", "operator")
            .env("AWS_REGION", "us-east-1")
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        Said(output.status.code(), String::from_utf8(said).unwrap())
    }

    /// Checks a deployment, with a configuration that the operator has saved.
    fn check(&self, arguments: &[&str]) -> Said {
        let config = self.path("samconfig.toml").display().to_string();
        let all = [&["--check", "--config-file", &config], arguments].concat();
        self.run("deploy", &all)
    }

    /// An archive of programs for this architecture, in a template for another one if that is `told`.
    fn archive(&self, architecture: &str, told: &str) -> String {
        self.archive_of("0123456789abcdef", architecture, told)
    }

    fn archive_of(&self, commit: &str, architecture: &str, told: &str) -> String {
        let packages = self.path("packages");
        for name in functions() {
            package(&packages.join(&name), &name, architecture);
        }
        let archive = self.path("functions.tar");
        let written = python()
            .unwrap()
            .args(["-I", "-B", "scripts/deployment/package.py", "template.yaml"])
            .arg(&packages)
            .args([told, "0.1.0", commit])
            .arg(self.path("written"))
            .arg(&archive)
            .output()
            .unwrap();
        let said = String::from_utf8(written.stderr).unwrap();
        assert_eq!(written.status.success(), architecture == told, "{said}");
        assert_eq!(
            said.contains("is built for"),
            architecture != told,
            "{said}"
        );
        archive.display().to_string()
    }
}

/// Writes a package with the head of an ELF program.
fn package(folder: &Path, name: &str, architecture: &str) {
    std::fs::create_dir_all(folder).unwrap();
    let machine = if architecture == "arm64" { 183 } else { 62 };
    let code = format!(
        "import zipfile; elf = b'\\x7fELF' + bytes(14) + bytes([{machine}, 0]) + b'{name}'; \
         zipfile.ZipFile('bootstrap.zip', 'w').writestr('bootstrap', elf)"
    );
    let written = python()
        .unwrap()
        .args(["-I", "-c", &code])
        .current_dir(folder)
        .status();
    assert!(written.unwrap().success());
}

fn new_account(limit: u32) -> Value {
    json!({"quota": [limit, limit], "stack": null, "functions": {}})
}

/// A stack whose functions have these versions, of which the last is live.
fn stack(architecture: &str, versions: u32) -> Value {
    let numbers: serde_json::Map<_, _> = (1..=versions)
        .map(|number| (number.to_string(), json!(format!("release {number}"))))
        .collect();
    let function = json!({"architecture": architecture, "reserved": 16, "deployed": versions, "versions": numbers,
        "aliases": {"live": versions.to_string()}});
    json!({"quota": [132, 100], "stack": "UPDATE_COMPLETE", "functions": {"Keys": function, "Datakey": function}})
}

#[test]
fn deployment_without_credentials_says_how_to_sign_in() {
    let state = json!({"caller": false, "quota": [1000, 1000], "stack": null, "functions": {}});
    let Some(account) = Account::with(&state) else {
        return;
    };
    let said = account.check(&[]);
    said.refuses(&[
        "deploy: AWS accepts no credentials",
        "expired",
        "aws sso login",
    ]);
    account
        .run("rollback", &[])
        .refuses(&["rollback: AWS accepts no credentials"]);
}

#[test]
fn account_that_cannot_be_reached_is_no_matter_of_credentials() {
    let Some(mut account) = Account::with(&new_account(1000)) else {
        return;
    };
    account.api.kill().unwrap();
    account.api.wait().unwrap();
    let said = account.check(&[]);
    said.refuses(&["deploy: AWS cannot be reached"]);
    assert!(!said.1.contains("Sign in"), "{}", said.1);
}

#[test]
fn deployment_above_the_quota_names_the_parameters_that_reserve() {
    let Some(account) = Account::with(&new_account(10)) else {
        return;
    };
    let none = "DataKeyConcurrency=0 KeysConcurrency=0 ServiceConcurrency=0";
    account.check(&[]).refuses(&[
        "quota in us-east-1 is 10 concurrent executions, which is 122 too few",
        "reserves 32 (Buckets 5, Datakey 20, Keys 5, Service 2)",
        "Ask for 132",
        none,
    ]);
    let said = account.check(&["--parameters", none]);
    assert!(
        said.succeeds()
            .contains("makes the stack keyway in us-east-1 for arm64")
    );
    // One function has every route.
    let url = "Front=function-url DataKeyConcurrency=3";
    let one = account.check(&["--parameters", url]);
    one.refuses(&["reserves 3 (All 3)", "Ask for 103"]);
}

#[test]
fn quota_counts_what_the_stack_reserves_already() {
    let Some(account) = Account::with(&stack("arm64", 1)) else {
        return;
    };
    account.check(&[]).succeeds();
    let more = account.check(&["--parameters", "DataKeyConcurrency=21"]);
    more.refuses(&["which is 1 too few", "Ask for 133"]);
}

#[test]
fn stack_that_cannot_be_updated_is_refused_before_a_build() {
    for (status, advice) in [
        ("UPDATE_IN_PROGRESS", "cancel-update-stack"),
        ("ROLLBACK_COMPLETE", "sam delete"),
    ] {
        let mut state = stack("arm64", 1);
        state["stack"] = json!(status);
        let Some(account) = Account::with(&state) else {
            return;
        };
        account.check(&[]).refuses(&[advice]);
    }
}

#[test]
fn wrong_parameters_are_refused_before_a_build() {
    let Some(account) = Account::with(&new_account(1000)) else {
        return;
    };
    for (wrong, text) in [
        ("Architecture=arm64", "there is no parameter"),
        ("Front=elsewhere", "Front cannot be 'elsewhere'"),
        (
            "DomainName=kms.example.com",
            "DomainName needs CertificateArn",
        ),
    ] {
        account.check(&["--parameters", wrong]).refuses(&[text]);
    }
}

#[test]
fn architecture_is_the_one_of_the_stack_unless_another_is_asked_for() {
    let Some(account) = Account::with(&stack("x86_64", 1)) else {
        return;
    };
    assert!(account.check(&[]).succeeds().contains("for x86_64"));
    let changed = account.check(&["--architecture", "arm64"]);
    assert!(changed.succeeds().contains("for arm64"));
    let archive = account.archive("arm64", "arm64");
    let other = account.check(&["--from", &archive]);
    other.refuses(&[
        "is built for arm64",
        "run on x86_64",
        "make deploy ARCHITECTURE=arm64",
    ]);
    let changed = account.check(&["--from", &archive, "--architecture", "arm64"]);
    assert!(changed.succeeds().contains("for arm64"));
    let contrary = account.check(&["--from", &archive, "--architecture", "x86_64"]);
    contrary.refuses(&["ARCHITECTURE asks for x86_64"]);
}

#[test]
fn programs_of_another_architecture_are_no_build() {
    let Some(account) = Account::with(&new_account(1000)) else {
        return;
    };
    account.archive("x86_64", "arm64");
}

#[test]
fn build_of_changed_files_does_not_pass_for_its_commit() {
    let Some(account) = Account::with(&new_account(1000)) else {
        return;
    };
    account.sam_leaves(&account.state());
    let archive = account.archive_of("0123456789abcdef-dirty", "arm64", "arm64");
    let said = account.run("deploy", &["--from", &archive]);
    let said = said.succeeds();
    assert!(said.contains("Keyway 0.1.0 (0123456789ab-dirty)"), "{said}");
    assert!(release_in(said).starts_with("0.1.0 0123456789ab-dirty "));
}

#[test]
fn changed_or_unreadable_archive_is_refused() {
    let Some(account) = Account::with(&new_account(1000)) else {
        return;
    };
    let archive = account.archive("arm64", "arm64");
    let mut bytes = std::fs::read(&archive).unwrap();
    let place = bytes
        .windows(7)
        .position(|window| window == b"\x7fELF\0\0\0")
        .unwrap();
    bytes[place + 6] = 1;
    std::fs::write(&archive, &bytes).unwrap();
    let changed = account.check(&["--from", &archive]);
    changed.refuses(&["is not the one in its SHA256SUMS"]);
    std::fs::write(&archive, "no tar").unwrap();
    account
        .check(&["--from", &archive])
        .refuses(&["is no archive of the functions"]);
}

#[test]
fn saved_parameters_are_kept_beside_those_of_the_command() {
    let Some(account) = Account::with(&new_account(1000)) else {
        return;
    };
    let saved = "[default.deploy.parameters]\nstack_name = \"second\"\n\
                 parameter_overrides = \"LogLevel=\\\"debug\\\" Start=\\\"true\\\"\"\n";
    std::fs::write(account.path("samconfig.toml"), saved).unwrap();
    account.sam_leaves(&new_account(1000));
    let archive = account.archive("arm64", "arm64");
    let config = account.path("samconfig.toml").display().to_string();
    let schedule = "Start=false JanitorSchedule='cron(0 3 * * ? *)'";
    let said = account.run(
        "deploy",
        &[
            "--config-file",
            &config,
            "--from",
            &archive,
            "--parameters",
            schedule,
            "--no-confirm-changeset",
        ],
    );
    assert!(said.succeeds().contains("makes the stack second"));
    let arguments = std::fs::read_to_string(account.path("arguments")).unwrap();
    let arguments: Vec<&str> = arguments.lines().collect();
    for expected in [
        &["--stack-name", "second"][..],
        &["--region", "us-east-1"],
        &["--no-confirm-changeset"],
        &[
            "LogLevel=\"debug\"",
            "Start=\"false\"",
            "JanitorSchedule=\"cron(0 3 * * ? *)\"",
        ],
    ] {
        let found = arguments
            .windows(expected.len())
            .any(|window| window == expected);
        assert!(found, "{expected:?} is not in {arguments:?}");
    }
}

/// The release in the output of a deployment.
fn release(said: &Said) -> String {
    release_in(said.succeeds())
}

fn release_in(said: &str) -> String {
    let (_, rest) = said.split_once("versions \"").unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

#[test]
fn versions_are_new_when_the_build_or_a_parameter_is() {
    let Some(account) = Account::with(&stack("arm64", 1)) else {
        return;
    };
    account.sam_leaves(&account.state());
    let archive = account.archive("arm64", "arm64");
    let deploy = |more: &[&str]| {
        let all = [&["--from", &*archive], more].concat();
        release(&account.run("deploy", &all))
    };
    let first = deploy(&[]);
    assert!(first.starts_with("0.1.0 0123456789ab "), "{first}");
    assert_eq!(deploy(&[]), first);
    assert_ne!(deploy(&["--parameters", "LogLevel=debug"]), first);
    // SAM asks for parameters after the release is chosen.
    assert_ne!(deploy(&["--guided"]), first);
    let template = std::fs::read_to_string(account.path("released.yaml")).unwrap();
    assert!(template.contains("      Release: 0.1.0 0123456789ab "));
    assert!(template.contains("  KeysVersion") && !template.contains("Unreleased:"));
}

#[test]
fn deployment_remembers_the_version_before_and_keeps_five() {
    let Some(account) = Account::with(&stack("arm64", 7)) else {
        return;
    };
    account.sam_leaves(&stack("arm64", 8));
    let archive = account.archive("arm64", "arm64");
    let said = account.run("deploy", &["--from", &archive]);
    assert!(
        said.succeeds().contains("deleted 6 old versions"),
        "{}",
        said.1
    );
    for name in ["Keys", "Datakey"] {
        let function = &account.state()["functions"][name];
        assert_eq!(function["aliases"], json!({"live": "8", "before": "7"}));
        let kept: Vec<&String> = function["versions"].as_object().unwrap().keys().collect();
        assert_eq!(kept, ["4", "5", "6", "7", "8"]);
    }
    let back = account.run("rollback", &[]);
    assert!(
        back.succeeds()
            .contains("Keys: version 8 (release 8) -> 7 (release 7)")
    );
    let live =
        |account: &Account| account.state()["functions"]["Datakey"]["aliases"]["live"].clone();
    assert_eq!(live(&account), "7");
    let again = account.run("rollback", &[]);
    assert!(
        again
            .succeeds()
            .contains("Keys: version 7 (release 7) is live already")
    );
    // CodeDeploy begins at the version that the stack deployed.
    let gradual = ["--parameters", "GradualDeployment=Canary10Percent10Minutes"];
    account
        .check(&gradual)
        .refuses(&["was rolled back", "GradualDeployment=off"]);
    account.run("rollback", &["--undo"]).succeeds();
    assert_eq!(live(&account), "8");
    account.check(&gradual).succeeds();
}

#[test]
fn rollback_without_a_version_before_is_refused() {
    let Some(account) = Account::with(&stack("arm64", 1)) else {
        return;
    };
    account
        .run("rollback", &[])
        .refuses(&["has a version before the last make deploy"]);
    let mut unversioned = stack("arm64", 1);
    for name in ["Keys", "Datakey"] {
        unversioned["functions"][name]
            .as_object_mut()
            .unwrap()
            .remove("deployed");
    }
    let Some(account) = Account::with(&unversioned) else {
        return;
    };
    let gradual = ["--parameters", "GradualDeployment=Canary10Percent10Minutes"];
    account.check(&gradual).refuses(&["has no version yet"]);
    account
        .run("rollback", &["--undo"])
        .refuses(&["that make deploy published"]);
    let Some(account) = Account::with(&new_account(1000)) else {
        return;
    };
    account
        .run("rollback", &[])
        .refuses(&["there is no stack keyway in us-east-1"]);
}

/// The script itself with the real SAM, at a service that plays CloudFormation. There is no compiler on its path.
#[test]
fn archive_is_deployed_without_a_compiler() {
    let Some(aws) = Aws::here() else { return };
    if !aws.makes_change_sets() {
        return;
    }
    let Some(account) = Account::with(&new_account(1000)) else {
        return;
    };
    let archive = account.archive("x86_64", "x86_64");
    let stack = format!("keyway-{}", std::process::id());
    let output = Command::new(project().join("scripts/deploy"))
        .args(["--from", &archive, "--stack-name", &stack])
        .args(["--parameters", "JanitorSchedule='cron(0 3 * * ? *)'"])
        .args(["--no-execute-changeset", "--no-confirm-changeset"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", account.folder.path())
        .env("LANG", "C.UTF-8")
        .env("AWS_ENDPOINT_URL", &aws.endpoint)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_REGION", "us-east-1")
        .output()
        .unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{said}");
    let makes = format!("makes the stack {stack} in us-east-1 for x86_64");
    let built = "Keyway 0.1.0 (0123456789ab) for x86_64, versions \"0.1.0 0123456789ab ";
    for text in [
        &*makes,
        built,
        "Changeset created successfully",
        "KeysVersion",
        "KeysAlias",
    ] {
        assert!(said.contains(text), "{text} is not in: {said}");
    }
}
