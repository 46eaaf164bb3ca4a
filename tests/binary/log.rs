//! The log's lines.

use serde_json::{Value, json};

use crate::{data_dir, folder};

#[tokio::test]
async fn line_that_is_logged_for_a_request_names_the_request() {
    // The level of the pipeline's own lines does not matter.
    for filter in ["info", "info,keyway_http=error"] {
        let folder = folder();
        let data_dir = data_dir(&folder);
        let options = crate::kes::options().argument("--log").argument(filter);
        let server = options.start(&data_dir).await;
        let admin = crate::kes::admin(&server, &data_dir);
        // Its pattern matches no path, of which the log warns.
        let policy = json!({"allow": {"/v1/key/*": {}}, "deny": {"v1/key/delete/*": {}}});
        let path = "/v1/policy/write/of-test";
        let answer = admin.call("POST", path, Some(&policy)).await;
        assert_eq!(answer.status, 200);
        let (_, log, _) = server.stop().await;
        let lines: Vec<Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let warns = |line: &&Value| {
            let message = line["message"].as_str().unwrap_or_default();
            message.contains("match no path")
        };
        let warning = lines.iter().find(warns).unwrap();
        assert_eq!(
            warning["span"],
            json!({
                "name": "request",
                "request_id": answer.header("x-request-id").unwrap(),
                "dialect": "kes",
                "operation": "kms:ManageAccess",
            }),
            "{warning}"
        );
        // Other lines have no request.
        let serving = |line: &&Value| line["message"] == "keyway is serving";
        assert_eq!(lines.iter().find(serving).unwrap()["span"], Value::Null);
    }
}
