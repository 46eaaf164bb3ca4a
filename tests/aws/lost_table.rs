//! A table that is empty or another deployment's, while the root keyring is there.

use keyway_tests::{Aws, Deployment, Function, ServerOptions};
use serde_json::json;

use crate::setup::set_up;

fn on_table(deployment: &Deployment) -> ServerOptions {
    let mut options = ServerOptions::default().without_root();
    for (name, value) in deployment.variables() {
        options = options.variable(&name, &value);
    }
    options
}

/// The same root keyring beside another table.
fn with_table(deployment: &Deployment, table: String) -> Deployment {
    let mut other = deployment.clone();
    other.table = table;
    other
}

fn on(id: &str) -> String {
    json!({ "key_id": id }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_or_foreign_table_is_refused_until_the_operator_consents() {
    let Some(aws) = Aws::here() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (deployment, other) = (aws.deployment().await, aws.deployment().await);
    for deployment in [&deployment, &other] {
        let server = on_table(deployment).start(folder.path()).await;
        server.call("POST", "/kms/keys", &on("k")).await.ok();
        server.stop().await;
    }
    let empty = with_table(&deployment, aws.table().await);
    let foreign = with_table(&deployment, other.table.clone());
    let lost = "the table is empty or gone";
    for (place, words) in [(&empty, lost), (&foreign, "belongs to another deployment")] {
        let (code, stderr) = on_table(place).fail(folder.path()).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
        for program in ["keyway-fn-keys", "keyway-fn-all"] {
            let function = Function::start(program, place, &[]).await;
            let answer = function.call("POST", "/kms/keys", &on("new")).await;
            assert_eq!(answer.status, 503, "{program}: {}", answer.message());
            assert!(function.log().contains(words), "{}", function.log());
        }
    }
    let function = Function::start("keyway-fn-datakey", &empty, &[]).await;
    let answer = function
        .call("POST", "/kms/generate-data-key", &on("k"))
        .await;
    assert_eq!(answer.status, 503);
    // Consent admits an empty table, but not another deployment's, and only where the stack is set up.
    let consent = [("KEYWAY_ACCEPT_EMPTY_TABLE", "true")];
    let function = Function::start("keyway-fn-keys", &empty, &consent).await;
    let answer = function.call("POST", "/kms/keys", &on("new")).await;
    assert_eq!(answer.status, 503);
    let refused = set_up(&foreign, &consent).await.unwrap_err();
    assert!(
        refused.contains("belongs to another deployment"),
        "{refused}"
    );
    set_up(&empty, &consent).await.unwrap();
    let function = Function::start("keyway-fn-keys", &empty, &[]).await;
    function.call("POST", "/kms/keys", &on("new")).await.ok();
    let server = on_table(&empty).start(folder.path()).await;
    server.call("GET", "/kms/keys/new", "").await.ok();
    server.stop().await;

    let empty = with_table(&deployment, aws.table().await);
    let options = on_table(&empty).argument("--accept-empty-table");
    let server = options.start(folder.path()).await;
    server.call("POST", "/kms/keys", &on("new")).await.ok();
}
