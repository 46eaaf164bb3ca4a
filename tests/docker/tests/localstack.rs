//! The contracts of the table and of the secret store over LocalStack in a container of its own.

use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use keyway_deployment_assembly::SystemRandom;
use keyway_secrets_secretsmanager::SecretsManager;
use keyway_store_dynamodb::DynamoTable;
use keyway_testkit::{secret_store_contract, table_contract};
use testcontainers_modules::localstack::LocalStack;
use testcontainers_modules::testcontainers::ImageExt;
use testcontainers_modules::testcontainers::runners::AsyncRunner;

/// The time limit until the container's services answer.
const START: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn stores_over_localstack_keep_their_contracts() {
    let container = LocalStack::default()
        .with_startup_timeout(START)
        .start()
        .await
        .expect("LocalStack starts in a container");
    let port = container
        .get_host_port_ipv4(4566)
        .await
        .expect("its port is mapped");
    let credentials = Credentials::new("test", "test", None, None, "test");
    let config = keyway_aws::config(
        "us-east-1",
        Some(format!("http://127.0.0.1:{port}")),
        SharedCredentialsProvider::new(credentials),
    );
    let dynamodb = aws_sdk_dynamodb::Client::new(&config);
    // LocalStack starts DynamoDB at the first call, after it reports that it is ready.
    let up = async {
        while dynamodb.list_tables().send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(START, up)
        .await
        .expect("DynamoDB comes up in it");
    let mut create = dynamodb
        .create_table()
        .table_name("keyway")
        .billing_mode(BillingMode::PayPerRequest);
    for (attribute, key) in [("kind", KeyType::Hash), ("id", KeyType::Range)] {
        create = create
            .attribute_definitions(
                AttributeDefinition::builder()
                    .attribute_name(attribute)
                    .attribute_type(ScalarAttributeType::S)
                    .build()
                    .expect("an attribute"),
            )
            .key_schema(
                KeySchemaElement::builder()
                    .attribute_name(attribute)
                    .key_type(key)
                    .build()
                    .expect("a key"),
            );
    }
    create.send().await.expect("the table is made");
    table_contract::run_all(
        async |clock| Arc::new(DynamoTable::new(&config, "keyway", clock)) as _,
        &SystemRandom::default(),
    )
    .await;
    secret_store_contract::run_all(
        async || Arc::new(SecretsManager::new(&config)) as _,
        &SystemRandom::default(),
    )
    .await;
}
