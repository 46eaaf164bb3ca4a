//! The real functions with the environments that the template gives them.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::OnceLock;

use bytes::Bytes;
use http::{Response, StatusCode};
use keyway_dialect_minio as minio;
use keyway_tests::{RuntimeApi, binary};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::deployments::{Deployment, deployments, reference};
use crate::fronts::{OBJECTS, PAGES, routes};

/// The variables that functions know, as their help lists them.
fn known() -> &'static BTreeSet<String> {
    static KNOWN: OnceLock<BTreeSet<String>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let help = std::process::Command::new(binary("keyway-fn-keys"))
            .arg("--help")
            .env_clear()
            .output()
            .unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let names = help
            .split("[env: ")
            .skip(1)
            .map(|rest| rest.split(['=', ']']).next().unwrap());
        let names: BTreeSet<String> = names.map(str::to_owned).collect();
        assert!(names.contains("KEYWAY_TABLE"), "{help}");
        names
    })
}

#[test]
fn functions_know_their_variables() {
    for deployment in deployments() {
        let mut given = BTreeSet::new();
        for (package, (_, function)) in deployment.functions() {
            let variables = Deployment::variables(function);
            for (name, value) in variables {
                assert!(known().contains(name), "{package} does not know {name}");
                assert!(
                    value.is_string() || reference(value).is_some() || value["Fn::Sub"].is_string(),
                    "{package}: {name} is {value}"
                );
                given.insert(name.as_str());
            }
            assert!(deployment.is_table(&variables["KEYWAY_TABLE"]));
            // Two stacks of an account are two sets of metrics.
            assert_eq!(
                variables["KEYWAY_METRICS_NAMESPACE"]["Fn::Sub"],
                "Keyway/${AWS::StackName}"
            );
            for (parameter, variable, default) in [
                ("Audit", "KEYWAY_AUDIT", "required"),
                ("AuditContext", "KEYWAY_AUDIT_CONTEXT", "names"),
            ] {
                let expected = match deployment.given(parameter) {
                    "" => default,
                    given => given,
                };
                assert_eq!(variables[variable], expected, "{package}");
            }
            let days = variables["KEYWAY_AUDIT_RETENTION_DAYS"].as_str().unwrap();
            match deployment.given("AuditRetentionDays") {
                "" => assert!(days.parse::<u32>().is_ok()),
                given => assert_eq!(days, given),
            }
        }
        for (parameter, variable) in [
            ("Auth", "KEYWAY_AUTH"),
            ("DefaultKeyId", "KEYWAY_DEFAULT_KEY_ID"),
            ("SigningRegion", "KEYWAY_SIGNING_REGION"),
            ("S3Endpoint", "KEYWAY_S3_ENDPOINT"),
            ("VaultCaLayerArn", "KEYWAY_VAULT_CA_FILE"),
        ] {
            assert_eq!(
                given.contains(variable),
                !deployment.given(parameter).is_empty(),
                "{variable}"
            );
        }
        assert_eq!(given.contains("KEYWAY_IAM_POLICY"), deployment.is_iam());
        // ARNs of AWS KMS's API name the account, and its ciphertexts follow the parameter.
        for (package, (_, function)) in deployment.functions() {
            let variables = Deployment::variables(function);
            let serves_aws = matches!(
                package,
                "keyway-fn-keys" | "keyway-fn-datakey" | "keyway-fn-all"
            );
            let account = variables.get("KEYWAY_AWS_ACCOUNT_ID").and_then(reference);
            assert_eq!(account.is_some(), serves_aws, "{package}");
            let ciphertext = variables
                .get("KEYWAY_AWS_CIPHERTEXT")
                .and_then(Value::as_str);
            assert_eq!(ciphertext, serves_aws.then_some("auto"), "{package}");
        }
    }
}

/// How a route answers an unauthenticated caller.
fn unverified(route: &str) -> StatusCode {
    if is_of_aws(route) {
        StatusCode::BAD_REQUEST
    } else if route.contains(minio::PREFIXES[0]) {
        StatusCode::FORBIDDEN
    } else {
        StatusCode::UNAUTHORIZED
    }
}

/// Whether it is a route of AWS KMS's API.
fn is_of_aws(route: &str) -> bool {
    matches!(route, "POST /aws" | "POST /aws/data")
}

/// A function as the template sets it up, without the other resources of the deployment.
struct Function {
    api: RuntimeApi,
    _killed_when_dropped: Child,
}

impl Function {
    async fn start(package: &str, properties: &Value) -> Self {
        let api = RuntimeApi::start().await;
        let variables = Deployment::variables(properties)
            .iter()
            // There is no layer here with that file.
            .filter(|(name, _)| *name != "KEYWAY_VAULT_CA_FILE")
            .map(|(name, value)| {
                let name_of_deployed = reference(value).map(|name| match name {
                    "AWS::AccountId" => "123456789012".to_owned(),
                    name => format!("deployed-{name}"),
                });
                let value = name_of_deployed
                    .or_else(|| value["Fn::Sub"].as_str().map(str::to_owned))
                    .unwrap_or_else(|| value.as_str().unwrap().to_owned());
                (name, value)
            });
        let process = Command::new(binary(package))
            .env_clear()
            .envs(variables)
            .envs(api.environment())
            // Lambda sets these variables. The endpoint answers at once that it knows nothing.
            .env("AWS_ENDPOINT_URL", format!("http://{}", api.address()))
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "role")
            .env("AWS_SECRET_ACCESS_KEY", "role")
            .env("AWS_SESSION_TOKEN", "role")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        api.first_next().await;
        Self {
            api,
            _killed_when_dropped: process,
        }
    }

    /// Its answer to a caller without a certificate, in an event of `source`.
    async fn kes_status(&self, source: &str, route: &str) -> StatusCode {
        self.answer(source, route).await.status()
    }

    /// Its answer to a request without a body, in an event of `source`.
    async fn answer(&self, source: &str, route: &str) -> Response<Bytes> {
        let (method, path) = route.split_once(' ').unwrap();
        let event = match source {
            "alb" => json!({
                "httpMethod": method,
                "path": path,
                "multiValueHeaders": {"host": ["keyway.test"], "x-forwarded-proto": ["https"]},
                "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:x"}},
            }),
            "http-api" => json!({
                "version": "2.0",
                "rawPath": path.replace("{key_id}", "reports").replace("{bucket}", "photos"),
                "rawQueryString": "",
                "headers": {"host": "keyway.test"},
                "requestContext": {"http": {"method": method, "sourceIp": "192.0.2.1"}},
            }),
            _ => json!({
                "httpMethod": method,
                "path": path,
                "multiValueHeaders": {"host": ["keyway.test"]},
                "requestContext": {"path": path, "identity": {"sourceIp": "192.0.2.1"}},
            }),
        };
        self.api.invoke(&event).await.http()
    }

    /// Its answer to an unsigned request.
    async fn status(&self, route: &str) -> StatusCode {
        self.answer("http-api", route).await.status()
    }
}

/// For each dialect: an unknown path, a path with a wrong method, and an operation that is not implemented, each with
/// the status and a part of the error's text.
const REFUSED: [(&str, &str, u16, &str); 11] = [
    (
        "rustfs",
        "GET /rustfs/admin/v3/kms/keys/k/nothing",
        404,
        "\"success\":false",
    ),
    (
        "rustfs",
        "PATCH /rustfs/admin/v3/kms/keys",
        405,
        "\"success\":false",
    ),
    ("minio", "GET /minio/kms/v1/nothing", 404, "\"Code\":"),
    ("minio", "PATCH /minio/kms/v1/key/list", 405, "\"Code\":"),
    ("kes", "GET /v1/nothing", 404, "404 page not found"),
    ("kes", "PATCH /v1/key/create/k", 405, "\"message\":"),
    ("kes", "POST /v1/enclave/create/e", 501, "\"message\":"),
    ("aws", "POST /aws/nothing", 400, "UnknownOperationException"),
    ("aws", "PATCH /aws/data", 400, "UnknownOperationException"),
    ("s3", "PATCH /photos", 405, "<Code>MethodNotAllowed</Code>"),
    (
        "s3",
        "GET /photos/object",
        501,
        "<Code>NotImplemented</Code>",
    ),
];

#[tokio::test]
async fn each_dialect_of_a_function_refuses_what_is_its_own_in_its_own_shape() {
    let mut seen = BTreeSet::new();
    for deployment in deployments() {
        // Older releases of KES do not know unimplemented routes.
        let is_latest = matches!(deployment.given("KesGeneration"), "" | "latest");
        for (package, (_, properties)) in deployment.functions() {
            let (dialects, source): (&[&str], _) = match package {
                "keyway-fn-all" if deployment.is_alb() => {
                    (&["rustfs", "minio", "kes", "aws", "s3"], "alb")
                }
                "keyway-fn-all" => (&["rustfs", "minio", "aws", "s3"], "http-api"),
                "keyway-fn-keys" if deployment.has_kes_api() => {
                    (&["rustfs", "minio", "kes", "aws"], "rest-api")
                }
                "keyway-fn-keys" => (&["rustfs", "minio", "aws"], "http-api"),
                "keyway-fn-bucket-encryption" => (&["s3"], "http-api"),
                _ => continue,
            };
            if !seen.insert((package.to_owned(), dialects, is_latest)) {
                continue;
            }
            let function = Function::start(package, properties).await;
            for (dialect, route, status, word) in REFUSED {
                if !dialects.contains(&dialect) || (status == 501 && !is_latest) {
                    continue;
                }
                let answer = function.answer(source, route).await;
                let body = String::from_utf8_lossy(answer.body());
                assert_eq!(answer.status(), status, "{route} at {package}: {body}");
                assert!(body.contains(word), "{route} at {package}: {body}");
            }
        }
    }
}

#[tokio::test]
async fn each_function_starts_and_knows_the_routes_that_call_it() {
    for deployment in deployments() {
        let mut functions = Vec::new();
        for (package, (name, properties)) in deployment.functions() {
            let function = Function::start(package, properties).await;
            if ["keyway-fn-janitor", "keyway-fn-setup"].contains(&package) {
                // There is no table, and nowhere to answer, so it fails the invocation.
                function.api.invoke(&Value::Null).await.result.unwrap_err();
            } else {
                functions.push((name, function));
            }
        }
        let of_kes = [
            ("KeysFunction", "POST /v1/key/create/k"),
            ("DatakeyFunction", "POST /v1/key/generate/k"),
            ("ServiceFunction", "GET /v1/status"),
            ("AccessFunction", "GET /v1/policy/list/*"),
        ];
        if deployment.is_alb() {
            let (_, all) = functions.pop().unwrap();
            for (_, route) in of_kes {
                let status = all.kes_status("alb", route).await;
                let open = deployment.given("KesOpen").contains("/v1/status");
                let expected = if route == "GET /v1/status" && open {
                    // The answer says that there is no table.
                    StatusCode::OK
                } else {
                    StatusCode::BAD_REQUEST
                };
                assert_eq!(status, expected, "{route}");
            }
            continue;
        }
        if deployment.has_kes_api() {
            for (called, route) in of_kes {
                for (name, function) in &functions {
                    let status = function.kes_status("rest-api", route).await;
                    let expected = match *name {
                        // It accepts no such events, and mounts no route of KES's API.
                        "BucketsFunction" => StatusCode::BAD_REQUEST,
                        name if name != called => StatusCode::NOT_FOUND,
                        _ if route == "GET /v1/status"
                            && deployment.given("KesOpen").contains("/v1/status") =>
                        {
                            StatusCode::OK
                        }
                        _ => StatusCode::BAD_REQUEST,
                    };
                    assert_eq!(status, expected, "{route} at {name}");
                }
            }
            // It has no route of the HTTP API.
            functions.retain(|(name, _)| *name != "AccessFunction");
        }
        if !deployment.is_http_api() {
            let (_, all) = functions.pop().unwrap();
            for route in [
                "GET /rustfs/admin/v3/kms/keys",
                "POST /minio/admin/v3/kms/rewrap",
                "GET /rustfs/admin/v3/kms/service-status",
                "GET /minio/kms/v1/key/status",
                "GET /api/v1/buckets",
                "POST /aws",
                "POST /aws/data",
            ] {
                assert_eq!(all.status(route).await, unverified(route), "{route}");
            }
            assert_eq!(all.status("GET /").await, StatusCode::FORBIDDEN);
            continue;
        }
        for (route, called) in routes(deployment) {
            if route == "POST /{bucket}" || OBJECTS.contains(&route.as_str()) {
                // S3's other operations.
                let buckets = functions.iter().find(|(name, _)| *name == called);
                let (_, buckets) = buckets.unwrap();
                for object in ["2026/q4.tar", "2026/"] {
                    let route = route.replace("{proxy+}", object);
                    let status = buckets.status(&route).await;
                    assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{route}");
                }
                // Unknown paths of the other APIs are not buckets.
                for route in [
                    "GET /rustfs/admin/v3/kms/nothing",
                    "PUT /minio/kms/v1/status",
                ] {
                    assert_eq!(
                        buckets.status(route).await,
                        StatusCode::NOT_FOUND,
                        "{route}"
                    );
                }
                continue;
            }
            for (name, function) in &functions {
                // An unsigned caller is refused before anything else.
                let (_, path) = route.split_once(' ').unwrap();
                let is_of_s3 = path == "/" || path == "/{bucket}";
                let is_page = PAGES.contains(&path);
                // For this function they are paths of buckets and objects; the API does not send them.
                if is_page && *name == "BucketsFunction" {
                    continue;
                }
                let expected = if called == *name {
                    if path.ends_with("/ready") || path.contains("/cluster") {
                        // There is no table.
                        StatusCode::SERVICE_UNAVAILABLE
                    } else if is_page {
                        StatusCode::OK
                    } else if is_of_s3 {
                        StatusCode::FORBIDDEN
                    } else {
                        unverified(&route)
                    }
                } else if is_of_aws(&route) && *name == "BucketsFunction" {
                    // For this function it is a bucket; the API does not send it.
                    StatusCode::NOT_IMPLEMENTED
                } else if route == "POST /aws/data" && *name == "KeysFunction" {
                    // Refused in the API's own shape: the path is below `/aws`.
                    StatusCode::BAD_REQUEST
                } else {
                    StatusCode::NOT_FOUND
                };
                assert_eq!(function.status(&route).await, expected, "{route} at {name}");
            }
        }
    }
}
