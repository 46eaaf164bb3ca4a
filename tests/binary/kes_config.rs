//! `keyway import kes-config` beside a server that runs.

use std::fs;

use keyway_tests::ServerOptions;
use serde_json::{Value, json};

use crate::folder;

const ADMIN: &str = "3ecfcdf38fcbe141ae26a1030f81e96b753365a46760ae6b578698a97c59fd22";
const APP: &str = "413c35cb06a9e1aa142ccebf829c96cbfd16162131a92f5ec8c9006f6fc5c9dc";

#[tokio::test]
async fn configuration_of_kes_is_imported_and_can_be_again() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    let file = folder.path().join("server-config.yaml");
    fs::write(
        &file,
        format!(
            "admin:\n  identity: {ADMIN}\npolicy:\n  my-app:\n    allow:\n    - /v1/key/generate/my-app*\n    - /v1/key/*\n    identities:\n    - ${{MY_APP}}\n    - ${{NOT_SET}}\n"
        ),
    )
    .unwrap();
    let import = async |more: &[&str]| -> Value {
        let (file, folder) = (file.to_str().unwrap(), folder.path().to_str().unwrap());
        let arguments = [
            &[
                "import",
                "kes-config",
                file,
                "--output",
                "json",
                "--data-dir",
                folder,
            ],
            more,
        ]
        .concat();
        let (code, stdout, stderr) = ServerOptions::default()
            .variable("MY_APP", APP)
            .run(&arguments)
            .await;
        assert_eq!(code, Some(0), "{stderr}");
        serde_json::from_str(&stdout).unwrap()
    };
    let results = |done: &Value| {
        let policy = &done["policies"][0];
        json!([policy["result"], policy["identities"]])
    };
    let expected = |result: &str| json!([result, [{"identity": APP, "result": result}]]);
    let dry = import(&["--dry-run"]).await;
    assert_eq!(
        (&dry["dry_run"], &dry["admin"]),
        (&json!(true), &json!(ADMIN))
    );
    assert_eq!(dry["warnings"].as_array().unwrap().len(), 2, "{dry}");
    assert_eq!(results(&dry), expected("created"));
    assert_eq!(results(&import(&[]).await), expected("created"));
    assert_eq!(results(&import(&[]).await), expected("unchanged"));
    assert_eq!(
        results(&import(&["--dry-run"]).await),
        expected("unchanged")
    );
    server.stop().await;
}

#[tokio::test]
async fn deny_pattern_that_matches_no_path_is_named_and_imported() {
    let folder = folder();
    let data_dir = folder.path().join("data");
    let server = crate::kes::options().start(&data_dir).await;
    let file = folder.path().join("server-config.yaml");
    let text = "policy:\n  p:\n    allow: [/v1/key/create/a]\n    deny: [v1/key/delete/*, \"/v1/key/delete/a \", /v1/key/x]\n";
    fs::write(&file, text).unwrap();
    let (file, data) = (file.to_str().unwrap(), data_dir.to_str().unwrap());
    let (code, _, stderr) = ServerOptions::default()
        .run(&["import", "kes-config", file, "--data-dir", data])
        .await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stderr.contains("policy p: deny pattern 1 denies nothing"),
        "{stderr}"
    );
    assert_eq!(stderr.matches("denies nothing").count(), 1, "{stderr}");

    // For a policy over the API, the log has the warning.
    let admin = crate::kes::admin(&server, &data_dir);
    for deny in ["/v1/key/delete/*", "v1/key/delete/*"] {
        let policy = json!({"allow": {"/v1/key/*": {}}, "deny": {deny: {}}});
        let answer = admin.call("POST", "/v1/policy/write/of-test", Some(&policy));
        assert_eq!(answer.await.status, 200);
    }
    let (_, log, _) = server.stop().await;
    assert_eq!(
        log.matches("match no path, and deny nothing").count(),
        1,
        "{log}"
    );
}
