use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use keyway_tests::{KES_ADMIN, aws_tool, project};
use serde_json::{Map, Value, json};

/// The deployment that one set of parameters makes.
pub(crate) struct Deployment {
    parameters: BTreeMap<String, String>,
    broken_rules: Vec<String>,
    resources: Map<String, Value>,
}

impl Deployment {
    /// A parameter that was given; empty if none was.
    pub(crate) fn given(&self, parameter: &str) -> &str {
        self.parameters.get(parameter).map_or("", String::as_str)
    }

    pub(crate) fn is_http_api(&self) -> bool {
        self.given("Front") == "http-api"
    }

    pub(crate) fn is_alb(&self) -> bool {
        self.given("Front") == "alb"
    }

    /// Whether KES's API has a domain of its own beside the HTTP API.
    pub(crate) fn has_kes_api(&self) -> bool {
        !self.given("KesDomainName").is_empty()
    }

    /// Whether the deployment takes over what a former stack left.
    pub(crate) fn is_adopting(&self) -> bool {
        !self.given("ExistingTable").is_empty()
    }

    /// Whether the value names the deployment's table: the stack's own, or the adopted one.
    pub(crate) fn is_table(&self, value: &Value) -> bool {
        match self.given("ExistingTable") {
            "" => reference(value) == Some("Table"),
            adopted => value == adopted,
        }
    }

    /// Whether the value is the ARN of the deployment's table.
    pub(crate) fn is_table_arn(&self, value: &Value) -> bool {
        match self.given("ExistingTable") {
            "" => arn_of(value) == Some("Table"),
            adopted => {
                let region = "arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}";
                value["Fn::Sub"] == format!("{region}:table/{adopted}")
            }
        }
    }

    /// The name of the secret that the value names: the stack's own, or an adopted one.
    pub(crate) fn secret(&self, value: &Value) -> Option<&'static str> {
        ["RootKeyring", "RootAccessKey"].into_iter().find(|name| {
            match self.given(&format!("Existing{name}")) {
                "" => reference(value) == Some(name),
                adopted => value == adopted,
            }
        })
    }

    pub(crate) fn has_root_access_key(&self) -> bool {
        self.given("RootAccessKeySecret") != "false"
    }

    pub(crate) fn is_iam(&self) -> bool {
        self.given("Auth") == "iam"
    }

    /// The rules that the parameters break.
    pub(crate) fn broken_rules(&self) -> &[String] {
        &self.broken_rules
    }

    /// The parameters that were given.
    pub(crate) fn parameters(&self) -> &BTreeMap<String, String> {
        &self.parameters
    }

    /// All resources, by their names.
    pub(crate) fn resources(&self) -> impl Iterator<Item = (&str, &Value)> {
        let named = |(name, resource)| -> (&str, &Value) { (String::as_str(name), resource) };
        self.resources.iter().map(named)
    }

    pub(crate) fn resource(&self, name: &str) -> &Value {
        let found = self.resources.get(name);
        found.unwrap_or_else(|| panic!("there is no {name} with {:?}", self.parameters))
    }

    pub(crate) fn properties(&self, name: &str) -> &Value {
        &self.resource(name)["Properties"]
    }

    /// The resources of a type, by their names.
    pub(crate) fn of_type(&self, kind: &str) -> BTreeMap<&str, &Value> {
        self.resources
            .iter()
            .filter(|(_, resource)| resource["Type"] == kind)
            .map(|(name, resource)| (name.as_str(), &resource["Properties"]))
            .collect()
    }

    /// The functions by the package that each of them runs.
    pub(crate) fn functions(&self) -> BTreeMap<&str, (&str, &Value)> {
        self.of_type("AWS::Lambda::Function")
            .into_iter()
            .map(|(name, properties)| {
                let build = &self.resource(name)["Metadata"];
                assert_eq!(build["BuildMethod"], "rust-cargolambda");
                let package = build["BuildProperties"]["Binary"].as_str().unwrap();
                (package, (name, properties))
            })
            .collect()
    }

    /// A function's variables: texts, or references to what is deployed.
    pub(crate) fn variables(function: &Value) -> &Map<String, Value> {
        function["Environment"]["Variables"].as_object().unwrap()
    }
}

/// The name in `{"Ref": name}`.
pub(crate) fn reference(value: &Value) -> Option<&str> {
    value["Ref"].as_str()
}

/// The name in `{"Fn::GetAtt": [name, "Arn"]}`.
pub(crate) fn arn_of(value: &Value) -> Option<&str> {
    let [name, attribute] = value["Fn::GetAtt"].as_array()?.as_slice() else {
        return None;
    };
    (attribute == "Arn").then(|| name.as_str())?
}

/// A tool of `scripts/aws-tools`, run in the project without the user's environment.
pub(crate) fn tool(name: &str) -> Option<Command> {
    let program = aws_tool(name)?;
    let mut command = Command::new(&program);
    command
        .current_dir(project())
        .env_clear()
        .env("PATH", program.parent().unwrap())
        .env("LANG", "C.UTF-8")
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    Some(command)
}

const TEMPLATE: &str = "template.yaml";

const CERTIFICATE: &str =
    "arn:aws:acm:us-east-1:123456789012:certificate/00000000-0000-4000-8000-000000000000";

const KMS_KEY: &str = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-4000-8000-000000000000";
const ADOPTED_KEYRING: &str =
    "arn:aws:secretsmanager:us-east-1:123456789012:secret:RootKeyring-a1b2c3-d4e5f6";
const ADOPTED_ROOT: &str =
    "arn:aws:secretsmanager:us-east-1:123456789012:secret:RootAccessKey-a1b2c3-d4e5f6";
const LOAD_BALANCER: &str =
    "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/keyway/0123456789abcdef";
const TRUST_STORE: &str =
    "arn:aws:elasticloadbalancing:us-east-1:123456789012:truststore/clients/0123456789abcdef";

/// Values of parameters that have none by default, or another.
const MORE: &[(&str, &str)] = &[
    ("KesAdmin", KES_ADMIN),
    ("KesOpen", "/v1/ready,/v1/status"),
    ("KesDelete", "schedule"),
    ("KesGeneration", "0.17"),
    ("DefaultKeyId", "reports"),
    ("SigningRegion", "us-east-1"),
    ("AlarmTopicArn", "arn:aws:sns:us-east-1:123456789012:alarms"),
    ("GradualDeployment", "Canary10Percent10Minutes"),
    ("IamPolicy", "kms-key-user"),
    ("AllowImmediateDeletion", "true"),
    ("Start", "false"),
    (
        "CorsOrigins",
        "https://console.example.com,http://localhost:3000",
    ),
    ("S3Endpoint", "aws"),
    ("KmsKeyArn", KMS_KEY),
    ("KeyringReplicaRegion", "eu-west-1"),
    (
        "SecretReaders",
        "arn:aws:iam::123456789012:role/deployer,arn:aws:iam::123456789012:role/sso/*",
    ),
    ("SubnetIds", "subnet-0a,subnet-0b"),
    ("SecurityGroupIds", "sg-0a"),
    (
        "VaultCaLayerArn",
        "arn:aws:lambda:us-east-1:123456789012:layer:ca:1",
    ),
    (
        "PermissionsBoundaryArn",
        "arn:aws:iam::123456789012:policy/boundary",
    ),
    ("RolePath", "/keyway/"),
    ("Audit", "best-effort"),
    ("AuditContext", "values"),
    ("AuditRetentionDays", "400"),
    ("ApiAccessLogs", "on"),
    ("AlarmEmail", "operator@example.com"),
    ("JanitorSilentHours", "25"),
];

/// Every front with every way to authenticate callers and every domain that it can have, each with the fewest and with
/// the most parameters possible.
pub(crate) fn sets_of_parameters() -> Vec<BTreeMap<String, String>> {
    let none: &[(&str, &str)] = &[];
    let domain = &[
        ("DomainName", "kms.example.com"),
        ("CertificateArn", CERTIFICATE),
    ][..];
    let mtls = [domain, &[("TruststoreUri", "s3://bucket/truststore.pem")]].concat();
    let kes = &[
        ("KesDomainName", "kes.example.com"),
        ("KesCertificateArn", CERTIFICATE),
        ("KesTruststoreUri", "s3://bucket/kes.pem"),
    ][..];
    let balancer = &[
        ("CertificateArn", CERTIFICATE),
        ("LoadBalancerArn", LOAD_BALANCER),
        ("TrustStoreArn", TRUST_STORE),
    ][..];
    // What a former stack left, and the class of logs from which CloudWatch makes no metrics.
    let adopted = [
        ("ExistingTable", "keyway-restored"),
        ("ExistingRootKeyring", ADOPTED_KEYRING),
        ("ExistingRootAccessKey", ADOPTED_ROOT),
        ("LogClass", "INFREQUENT_ACCESS"),
        ("Metrics", "off"),
    ];
    // The cheapest deployment.
    let lean = [("RootAccessKeySecret", "false")];
    let mut sets = Vec::new();
    for (front, domains) in [
        ("http-api", &[none, domain, &mtls, kes][..]),
        ("function-url", &[none]),
        ("alb", &[balancer]),
    ] {
        for auth in ["sigv4", "iam"] {
            if (front, auth) == ("alb", "iam") {
                // The load balancer verifies no IAM callers.
                continue;
            }
            for domain in domains {
                for more in [none, MORE, &adopted, &lean] {
                    let is_first = *domain == domains[0] && auth == "sigv4";
                    if (more == adopted || more == lean) && !is_first {
                        continue;
                    }
                    let set = [&[("Front", front), ("Auth", auth)], *domain, more].concat();
                    sets.push(
                        set.into_iter()
                            .map(|(name, value)| (name.to_owned(), value.to_owned()))
                            .collect(),
                    );
                }
            }
        }
    }
    sets
}

/// The function that an alias of the stack names.
pub(crate) fn function_of_alias(alias: &str) -> String {
    let function = alias.strip_suffix("Alias");
    format!(
        "{}Function",
        function.unwrap_or_else(|| panic!("{alias} is no alias"))
    )
}

/// The deployments that these sets of parameters make.
pub(crate) fn deployments_of(sets: &[BTreeMap<String, String>]) -> Option<Vec<Deployment>> {
    deployments_by(Path::new(TEMPLATE), sets)
}

/// The deployments of every set of parameters by the template as a build writes it, with versions of this release.
pub(crate) fn released(release: &str) -> Option<Vec<Deployment>> {
    let template = std::fs::read_to_string(project().join("template.yaml")).unwrap();
    let (unreleased, released) = ("Release: unreleased", format!("Release: {release}"));
    assert_eq!(template.matches(unreleased).count(), 1);
    let (_, hash) = release.rsplit_once(' ').unwrap();
    let template = template.replace(unreleased, &released);
    let template = template.replace("VersionUnreleased", &format!("Version{hash}"));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(template.as_bytes()).unwrap();
    deployments_by(file.path(), &sets_of_parameters())
}

/// What a template makes of these sets of parameters, and how the console shows its parameters.
fn transformed(template: &Path, sets: &[BTreeMap<String, String>]) -> Option<Value> {
    let mut transform = tool("../venv/bin/python")?
        .args(["-I", "-B", "tests/template/transform.py"])
        .arg(template)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = transform.stdin.take().unwrap();
    input.write_all(json!(sets).to_string().as_bytes()).unwrap();
    drop(input);
    let output = transform.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "the template could not be transformed"
    );
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// The template's parameters, and the groups in which CloudFormation's console shows them.
pub(crate) fn parameters_and_groups() -> Option<(Vec<String>, Vec<Vec<String>>)> {
    let console = &transformed(Path::new(TEMPLATE), &[])?["console"];
    let list = |name: &str| console[name].clone();
    Some((
        serde_json::from_value(list("parameters")).unwrap(),
        serde_json::from_value(list("groups")).unwrap(),
    ))
}

fn deployments_by(template: &Path, sets: &[BTreeMap<String, String>]) -> Option<Vec<Deployment>> {
    let mut made = transformed(template, sets)?;
    let made: Vec<Value> = serde_json::from_value(made["deployments"].take()).unwrap();
    assert_eq!(made.len(), sets.len());
    let deployments = sets.iter().zip(made).map(|(parameters, made)| Deployment {
        parameters: parameters.clone(),
        broken_rules: serde_json::from_value(made["broken_rules"].clone()).unwrap(),
        resources: made["resources"].as_object().unwrap().clone(),
    });
    Some(deployments.collect())
}

/// Every deployment that the parameters can ask for; none where the tools are missing.
pub(crate) fn deployments() -> &'static [Deployment] {
    static MADE: OnceLock<Option<Vec<Deployment>>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let made = deployments_of(&sets_of_parameters())?;
        for deployment in &made {
            assert_eq!(deployment.broken_rules(), [""; 0]);
        }
        Some(made)
    });
    made.as_deref().unwrap_or_default()
}
