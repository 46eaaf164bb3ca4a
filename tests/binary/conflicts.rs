//! Options of which one would be ignored beside the other are refused.

use keyway_tests::ServerOptions;

use crate::{eventually, folder};

const IDENTITY: &str = "54f9cbe5cfa204bd7eb2c9ed4cfaad7aaeb85e43e06f428525fac5a1d35631cb";

/// Runs the command, which must end with an error that has each of these parts.
async fn assert_refused(options: &ServerOptions, arguments: &[&str], parts: &[&str]) {
    let (code, _, stderr) = options.run(arguments).await;
    assert!(matches!(code, Some(1 | 2)), "{arguments:?}: {stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{arguments:?}: {part}: {stderr}");
    }
}

#[tokio::test]
async fn options_of_a_folder_and_of_a_table_are_refused_together() {
    let none = ServerOptions::default();
    let table = none.clone().variable("KEYWAY_TABLE", "keys");
    let folder = none.clone().variable("KEYWAY_DATA_DIR", "/nowhere");
    let both = table.clone().variable("KEYWAY_DATA_DIR", "/nowhere");
    let conflict = &["--data-dir", "cannot be used with", "--table"];
    for command in [
        &["serve"][..],
        &["access-key", "list"],
        &["audit", "verify"],
        &["table", "verify"],
        &["rewrap-keys"],
        &["import", "minio-static"],
    ] {
        let by_argument = |name, value| [command, &[name, value]].concat();
        assert_refused(&both, command, conflict).await;
        assert_refused(&table, &by_argument("--data-dir", "/nowhere"), conflict).await;
        assert_refused(&folder, &by_argument("--table", "keys"), conflict).await;
        let file = by_argument("--passphrase-file", "/nowhere");
        // An import reads its own input first.
        if command[0] != "import" {
            assert_refused(&table, &file, &["--passphrase-file", "--table"]).await;
        }
        for option in [
            "--root-keyring-secret",
            "--root-keyring-vault",
            "--root-access-key-secret",
            "--root-keyring-file",
        ] {
            let parts = [option, "--table", "--postgres"];
            assert_refused(&none, &by_argument(option, "x"), &parts).await;
        }
        let endpoint = by_argument("--table-endpoint", "http://127.0.0.1:1");
        assert_refused(&none, &endpoint, &["--table-endpoint", "--table"]).await;
    }
    let postgres = none
        .clone()
        .variable("KEYWAY_POSTGRES", "postgres://kms@127.0.0.1:1/keyway");
    for command in [&["serve"][..], &["access-key", "list"], &["rewrap-keys"]] {
        let with = |more: &[&'static str]| [command, more].concat();
        let keyring = with(&[
            "--root-keyring-file",
            "/nowhere",
            "--root-keyring-secret",
            "x",
        ]);
        for (arguments, parts) in [
            (
                with(&["--data-dir", "/nowhere"]),
                ["--data-dir", "--postgres"],
            ),
            (with(&["--table", "keys"]), ["--table", "--postgres"]),
            (
                with(&["--passphrase-file", "/nowhere"]),
                ["--passphrase-file", "--postgres"],
            ),
            (keyring, ["--root-keyring-file", "--root-keyring-secret"]),
            (with(&[]), ["--root-keyring-file", "--root-keyring-secret"]),
        ] {
            assert_refused(&postgres, &arguments, &parts).await;
        }
    }
    let on_aws = table
        .variable("KEYWAY_ROOT_KEYRING_SECRET", "keyring")
        .variable("AWS_REGION", "eu-west-1")
        .variable("AWS_ACCESS_KEY_ID", "id")
        .variable("AWS_SECRET_ACCESS_KEY", "secret")
        .variable("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        .variable("KEYWAY_PASSPHRASE", "a passphrase");
    for command in [&["serve"][..], &["access-key", "list"]] {
        assert_refused(&on_aws, command, &["KEYWAY_PASSPHRASE", "--table"]).await;
    }
    let region = ["access-key", "list", "--region", "eu-west-1"];
    assert_refused(&none, &region, &["--region", "there is no --table"]).await;
}

#[tokio::test]
async fn options_of_serve_that_would_be_ignored_are_refused() {
    let folder = folder();
    let data_dir = folder.path().to_str().unwrap();
    let serve = |arguments: &'static [&'static str]| {
        let place = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir];
        [&place[..], arguments].concat()
    };
    let none = ServerOptions::default();
    for (arguments, parts) in [
        (
            &["--default-key-id", "k"][..],
            ["--default-key-id", "--start"],
        ),
        (
            &["--s3-region", "eu-west-1"],
            ["--s3-endpoint", "--s3-region"],
        ),
        (
            &["--kes-client-ca", "ca.pem"],
            ["--kes-listen", "--kes-client-ca"],
        ),
        (
            &["--kes-cert", "cert.pem", "--kes-key", "key.pem"],
            ["--kes-listen", "--kes-cert"],
        ),
        (
            &["--kes-admin-identity", IDENTITY],
            ["--kes-listen", "--kes-admin-identity"],
        ),
        (&["--kes-open", "/v1/ready"], ["--kes-listen", "--kes-open"]),
        (
            &["--kes-delete", "schedule"],
            ["--kes-listen", "--kes-delete"],
        ),
        (
            &[
                "--insecure-http",
                "--tls-cert",
                "c.pem",
                "--tls-key",
                "k.pem",
            ],
            ["--insecure-http", "--tls-cert"],
        ),
    ] {
        assert_refused(&none, &serve(arguments), &parts).await;
    }
    let credentials = none
        .variable("KEYWAY_S3_ACCESS_KEY_ID", "id")
        .variable("KEYWAY_S3_SECRET_ACCESS_KEY", "secret");
    let parts = ["KEYWAY_S3_ACCESS_KEY_ID", "--s3-endpoint"];
    assert_refused(&credentials, &serve(&[]), &parts).await;
}

/// The variables of Keyway that a source file reads by this function.
fn read_by(function: &str, source: &str) -> Vec<String> {
    let call = format!("{function}(\"KEYWAY_");
    let calls = source.split(&call).skip(1);
    let names = calls.filter_map(|rest| rest.split('"').next());
    names.map(|name| format!("KEYWAY_{name}")).collect()
}

/// Every source file of the programs.
fn sources() -> Vec<String> {
    let mut folders = vec![
        keyway_tests::project().join("shared"),
        keyway_tests::project().join("functions"),
    ];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    sources
}

#[tokio::test]
async fn variable_that_a_program_reads_is_known() {
    let mut options = ServerOptions::default();
    let sources = sources();
    let read: Vec<String> = ["environment", "secret", "passphrase"]
        .iter()
        .flat_map(|function| sources.iter().flat_map(|source| read_by(function, source)))
        .collect();
    assert!(read.len() >= 8, "{read:?}");
    for name in read {
        options = options.variable(&name, "x");
    }
    let (code, _, stderr) = options.run(&["identity", "new"]).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn misspelt_variable_is_told_with_the_nearest_name() {
    let folder = folder();
    let text = "KEYWAY_PASSFRASE is set, but nothing reads it: is KEYWAY_PASSPHRASE meant?";
    let options = ServerOptions::default().variable("KEYWAY_PASSFRASE", "a canary");
    let (code, _, stderr) = options.run(&["identity", "new"]).await;
    assert_eq!(code, Some(0));
    assert_eq!(stderr, format!("keyway: warning: {text}\n"));
    let server = options.start(folder.path()).await;
    eventually("the log has it", async || {
        server.log().contains(text).then_some(())
    })
    .await;
    let (_, log, stderr) = server.stop().await;
    assert!(!log.contains("a canary") && stderr.is_empty(), "{log}");
    // A function has settings of its own.
    let function = ServerOptions::function("keyway-fn-keys").variable("KEYWAY_TLS_CERT", "x");
    let (code, log, _) = function.run(&[]).await;
    assert_eq!(code, Some(1));
    assert!(
        log.contains("KEYWAY_TLS_CERT is set, but nothing reads it"),
        "{log}"
    );
}

#[tokio::test]
async fn function_without_settings_says_what_is_missing_in_one_line() {
    let of_deployment = "KEYWAY_TABLE, KEYWAY_ROOT_KEYRING_SECRET";
    let of_lambda =
        "AWS_LAMBDA_FUNCTION_NAME, AWS_LAMBDA_FUNCTION_MEMORY_SIZE, AWS_LAMBDA_FUNCTION_VERSION";
    for program in ["keyway-fn-keys", "keyway-fn-janitor"] {
        let bare = ServerOptions::function(program).variable("RUST_BACKTRACE", "1");
        let (code, _, stderr) = bare.run(&[]).await;
        assert_eq!(code, Some(1));
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(of_deployment), "{stderr}");
        assert!(!stderr.contains(of_lambda), "{stderr}");
        // Without its variables the runtime would panic.
        let on_lambda = bare.variable("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1");
        let (code, _, stderr) = on_lambda.run(&[]).await;
        assert_eq!(code, Some(1));
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(of_lambda), "{stderr}");
    }
}

#[tokio::test]
async fn durations_have_units() {
    let folder = folder();
    let ttl = |text| {
        ServerOptions::default()
            .argument("--state-ttl")
            .argument(text)
    };
    for text in ["1m", "60", "1 minute"] {
        let server = ttl(text).start(folder.path()).await;
        let status = server.call("GET", "/kms/service-status", "").await;
        let found = String::from_utf8_lossy(&status.body).into_owned();
        assert!(found.contains(r#""state_ttl_seconds":60"#), "{found}");
        server.stop().await;
    }
    for (text, why) in [("2h", "longer than 1h"), ("soon", "30s, 30m, 1h or 7d")] {
        let (code, stderr) = ttl(text).fail(folder.path()).await;
        assert_eq!(code, Some(2));
        assert!(stderr.contains(why), "{stderr}");
    }
    let data_dir = folder.path().to_str().unwrap();
    let create = |life| {
        [
            "access-key",
            "create",
            "--policy",
            "kms-auditor",
            "--output",
            "json",
            "--data-dir",
            data_dir,
            "--expires-in",
            life,
        ]
    };
    let keyway = ServerOptions::default();
    for life in ["7d", "1h30m", "3600"] {
        let (code, stdout, stderr) = keyway.run(&create(life)).await;
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.contains("expiration"), "{stdout}");
    }
    for life in ["0", "500ms", "1y"] {
        let (code, _, stderr) = keyway.run(&create(life)).await;
        assert_eq!(code, Some(2), "{life}: {stderr}");
    }
}
