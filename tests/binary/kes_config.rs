//! `keyway import kes-config` beside a server that runs.

use std::fs;

use keyway_tests::ServerOptions;
use serde_json::{Value, json};

use crate::folder;

const ADMIN: &str = "3ecfcdf38fcbe141ae26a1030f81e96b753365a46760ae6b578698a97c59fd22";
const APP: &str = "413c35cb06a9e1aa142ccebf829c96cbfd16162131a92f5ec8c9006f6fc5c9dc";

#[tokio::test]
async fn a_configuration_is_taken_over_once_and_may_be_again() {
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
