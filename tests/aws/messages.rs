//! Errors about a backend that is unreachable or wrong: one line with what, where, why, and what to do.

use std::sync::Arc;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::SdkConfig;
use keyway_deployment_assembly::SystemClock;
use keyway_domain::ports::{Consistency, Kind, SecretStore, StoreError, TableReader};
use keyway_domain::{KmsError, one_line};
use keyway_secrets_secretsmanager::SecretsManager;
use keyway_store_dynamodb::DynamoTable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers every request with this; returns its endpoint.
async fn answering(status: &'static str, content_type: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 8192];
            if socket.read(&mut request).await.is_err() {
                continue;
            }
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            socket.write_all(answer.as_bytes()).await.ok();
        }
    });
    endpoint
}

/// An address without a listener.
async fn refusing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn config(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new("id", "secret", None, None, "test");
    let credentials = SharedCredentialsProvider::new(credentials);
    keyway_aws::config("eu-west-1", Some(endpoint.to_owned()), credentials)
}

async fn of_table(endpoint: &str) -> StoreError {
    let table = DynamoTable::new(&config(endpoint), "keys", Arc::new(SystemClock::start()));
    let read = table.get(Kind::Key, "k", Consistency::Strong).await;
    read.unwrap_err()
}

async fn of_secret(endpoint: &str) -> StoreError {
    let secrets = SecretsManager::new(&config(endpoint)).with("s", "keyring");
    secrets.get("s").await.err().unwrap()
}

const DENIED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#AccessDeniedException","message":"not authorized to perform it"}"#;
const NO_TABLE: &str =
    r#"{"__type":"x#ResourceNotFoundException","message":"Requested resource not found"}"#;
const PAGE: &str = "<html><body>502 CANARY</body></html>";

#[tokio::test(flavor = "multi_thread")]
async fn failure_of_a_backend_is_one_line_that_names_place_and_cause() {
    let json = "application/x-amz-json-1.0";
    let refused = refusing().await;
    let page = answering("502 Bad Gateway", "text/html", PAGE).await;
    let denied = answering("400 Bad Request", json, DENIED).await;
    let no_table = answering("400 Bad Request", json, NO_TABLE).await;
    for (endpoint, away, words) in [
        (&refused, true, "no connection: "),
        (
            &page,
            true,
            "the answer, of status 502, is not one of this service",
        ),
        (
            &denied,
            false,
            "status 400, AccessDeniedException: not authorized to perform it; give",
        ),
        (
            &no_table,
            false,
            "status 400, ResourceNotFoundException: Requested resource not found; check",
        ),
    ] {
        let mut places = vec![(of_table(endpoint).await, "DynamoDB's table `keys` at ")];
        // A secret that is not there is no failure.
        if *endpoint != no_table {
            places.push((of_secret(endpoint).await, "Secrets Manager at "));
        }
        for (error, place) in places {
            assert_eq!(matches!(error, StoreError::Away(_)), away, "{error:?}");
            for text in [one_line(&error), KmsError::from(error).for_operator()] {
                for part in [place, endpoint.as_str(), words] {
                    assert_eq!(text.matches(part).count(), 1, "{part:?} in {text}");
                }
                assert!(!text.contains('\n') && !text.contains("CANARY"), "{text}");
                assert!(
                    !text.contains("dispatch failure") && !text.contains("unexpected token"),
                    "{text}"
                );
            }
        }
    }
}
