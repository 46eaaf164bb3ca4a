//! Services that speak AWS's protocols on loopback, as `scripts/with-aws` starts them, and deployments on them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use aws_types::SdkConfig;
use keyway_deployment_assembly::{SystemClock, SystemRandom};
use keyway_domain::keyring::{KEYRING_SECRET, KeyringOnDemand};
use keyway_domain::ports::Clock;
use keyway_domain::records::SignedTable;
use keyway_secrets_secretsmanager::SecretsManager;
use keyway_store_dynamodb::DynamoTable;
use keyway_testkit::table_contract;

/// The stand-in for AWS in this run.
#[derive(Debug, Clone)]
pub struct Aws {
    /// `external`, `docker`, `host` or `moto`.
    pub backend: String,
    /// Where all its services are.
    pub endpoint: String,
}

impl Aws {
    /// The services that `scripts/with-aws` has started. Without them a test cannot run: in CI that is a failure, elsewhere
    /// a printed line.
    pub fn here() -> Option<Self> {
        let backend = variable("KEYWAY_TEST_AWS_BACKEND");
        let endpoint = variable("AWS_ENDPOINT_URL");
        if let (Some(backend), Some(endpoint)) = (backend, endpoint) {
            return Some(Self { backend, endpoint });
        }
        assert!(
            variable("CI").is_none(),
            "nothing plays AWS: run the tests through scripts/with-aws"
        );
        skipped("nothing plays AWS here; run the tests through scripts/with-aws");
        None
    }

    /// The settings by which Keyway's own crates reach it.
    pub fn config(&self) -> SdkConfig {
        self.config_at(&self.endpoint)
    }

    /// As [`Aws::config`], through a proxy.
    pub fn config_at(&self, endpoint: &str) -> SdkConfig {
        keyway_aws::config(
            "us-east-1",
            Some(endpoint.to_owned()),
            SharedCredentialsProvider::new(Credentials::new("test", "test", None, None, "test")),
        )
    }

    /// The largest value that a record can have here, in bytes. Moto counts bytes as their base64.
    pub fn largest_value(&self) -> usize {
        match self.backend.as_str() {
            "moto" => 200 * 1024,
            _ => table_contract::LARGEST_VALUE,
        }
    }

    /// Whether it plays CloudFormation well enough to make change sets of serverless templates.
    pub fn makes_change_sets(&self) -> bool {
        let makes = self.backend != "moto";
        if !makes {
            skipped("moto makes no change sets of serverless templates");
        }
        makes
    }

    /// The Python that has AWS's CLI, which comes with LocalStack.
    pub fn python_with_cli(&self) -> Option<PathBuf> {
        let folder = crate::project().join(".cache/aws/localstack/bin");
        let has_cli = self.backend == "host" && folder.join("aws").exists();
        if !has_cli {
            skipped("AWS's CLI comes with LocalStack in host mode, which does not play AWS here");
        }
        has_cli.then(|| folder.join("python"))
    }

    /// A new table in the shape that the template gives it.
    pub async fn table(&self) -> String {
        let name = unique("table");
        let client = aws_sdk_dynamodb::Client::new(&self.config());
        let mut create = client
            .create_table()
            .table_name(&name)
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
        // On a busy machine an answer can time out. The name is unique, so the first try has made an existing table.
        match create.send().await.map_err(SdkError::into_service_error) {
            Ok(_) | Err(CreateTableError::ResourceInUseException(_)) => name,
            Err(error) => panic!("the table is not made: {error:?}"),
        }
    }

    /// A new secret, with no value unless one is given.
    pub async fn secret(&self, value: Option<&str>) -> String {
        let name = unique("secret");
        let client = aws_sdk_secretsmanager::Client::new(&self.config());
        let made = client
            .create_secret()
            .name(&name)
            .set_secret_string(value.map(str::to_owned))
            .send()
            .await;
        made.expect("the secret is made");
        name
    }

    /// A new deployment in the shape that the template gives it, established as its setup function does.
    pub async fn deployment(&self) -> Deployment {
        let deployment = self.new_stack().await;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let keyring = KeyringOnDemand::establishing(
            Arc::new(DynamoTable::new(
                &self.config(),
                deployment.table.as_str(),
                Arc::clone(&clock),
            )),
            Arc::new(SecretsManager::new(&self.config()).with(KEYRING_SECRET, &deployment.keyring)),
            clock,
            Arc::new(SystemRandom::default()),
        );
        let established = keyring.must_be_own().await;
        established.expect("the deployment is established");
        deployment
    }

    /// The table and the secrets of a new deployment before its setup function has run: the keyring has no value.
    pub async fn new_stack(&self) -> Deployment {
        let root = r#"{"access_key_id":"test-root","secret_access_key":"test-root-secret"}"#;
        Deployment {
            table: self.table().await,
            keyring: self.secret(None).await,
            root: self.secret(Some(root)).await,
            endpoint: self.endpoint.clone(),
        }
    }
}

/// Where a deployment is.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The table's name.
    pub table: String,
    /// The root keyring's secret.
    pub keyring: String,
    /// The root access key's secret.
    pub root: String,
    endpoint: String,
}

impl Deployment {
    /// The deployment through a proxy.
    #[must_use]
    pub fn through(&self, endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            ..self.clone()
        }
    }

    /// The table, as a process with the root keyring uses it.
    pub fn signed_table(&self, aws: &Aws) -> Arc<SignedTable<DynamoTable>> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let table = Arc::new(DynamoTable::new(
            &aws.config(),
            self.table.as_str(),
            Arc::clone(&clock),
        ));
        let secrets = SecretsManager::new(&aws.config()).with(KEYRING_SECRET, &self.keyring);
        let keyring = KeyringOnDemand::opening(
            Arc::clone(&table) as _,
            Arc::new(secrets),
            clock,
            Arc::new(SystemRandom::default()),
        );
        Arc::new(SignedTable::new(table, Arc::new(keyring)))
    }

    /// The variables that a function of this deployment has, as the template gives them.
    pub fn variables(&self) -> Vec<(String, String)> {
        [
            ("KEYWAY_TABLE", self.table.as_str()),
            ("KEYWAY_ROOT_KEYRING_SECRET", &self.keyring),
            ("KEYWAY_ROOT_ACCESS_KEY_SECRET", &self.root),
            ("KEYWAY_START", "true"),
            ("KEYWAY_ALLOW_IMMEDIATE_DELETION", "true"),
            ("KEYWAY_EVENT_SOURCE", "http-api"),
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}

/// A name that no other test and no other run has.
fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut random = [0; 8];
    aws_lc_random(&mut random);
    format!("keyway-{what}-{count}-{:016x}", u64::from_be_bytes(random))
}

fn aws_lc_random(buffer: &mut [u8]) {
    use keyway_domain::ports::Random;
    SystemRandom::default().fill(buffer).expect("random bytes");
}

/// A variable of this test run. An empty one counts as not set.
#[expect(
    clippy::disallowed_methods,
    reason = "scripts/with-aws tells the tests by variables what it has started"
)]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Says why a test is skipped.
#[expect(clippy::print_stderr, reason = "what is skipped is said aloud")]
pub fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}
