//! The fronts of the functions: APIs, function URL and load balancer.

use std::collections::{BTreeMap, BTreeSet};

use keyway_dialect_minio as minio;
use keyway_dialect_rustfs::{BUCKET_PREFIXES, PREFIXES};
use keyway_tests::{MemorySite, project};
use serde_json::{Value, json};

use crate::deployments::{Deployment, deployments, deployments_of, function_of_alias, reference};
use crate::made::routes_of_http_api;

/// A route as `POST /path`, and the function that it calls.
pub(crate) fn routes(deployment: &Deployment) -> BTreeMap<String, String> {
    called(operations(deployment))
}

/// Like [`routes`], for KES's API.
fn kes_routes(deployment: &Deployment) -> BTreeMap<String, String> {
    called(operations_of(deployment, "KesApi"))
}

fn called(operations: BTreeMap<String, &Value>) -> BTreeMap<String, String> {
    let mut routes = BTreeMap::new();
    for (route, operation) in operations {
        let uri = operation["x-amazon-apigateway-integration"]["uri"]["Fn::Sub"]
            .as_str()
            .unwrap();
        let (_, function) = uri.split_once("/functions/${").unwrap();
        let alias = function.strip_suffix("}/invocations").unwrap();
        routes.insert(route, function_of_alias(alias));
    }
    routes
}

/// The routes without authentication, by GET and HEAD: the probes, and the description of the API.
pub(crate) const PAGES: [&str; 11] = [
    "/health",
    "/health/live",
    "/health/ready",
    "/health/cluster",
    "/health/cluster/read",
    "/minio/health",
    "/minio/health/live",
    "/minio/health/ready",
    "/minio/health/cluster",
    "/minio/health/cluster/read",
    "/openapi.json",
];

/// How an API's document names a route of every method.
const ANY: &str = "X-AMAZON-APIGATEWAY-ANY-METHOD";
/// The routes of S3's objects. OPTIONS is not one: an API answers browsers itself if it has no such route.
pub(crate) const OBJECTS: [&str; 5] = [
    "DELETE /{bucket}/{proxy+}",
    "GET /{bucket}/{proxy+}",
    "HEAD /{bucket}/{proxy+}",
    "POST /{bucket}/{proxy+}",
    "PUT /{bucket}/{proxy+}",
];

fn operations(deployment: &Deployment) -> BTreeMap<String, &Value> {
    operations_of(deployment, "Api")
}

fn operations_of<'d>(deployment: &'d Deployment, api: &str) -> BTreeMap<String, &'d Value> {
    let mut operations = BTreeMap::new();
    for (path, methods) in deployment.properties(api)["Body"]["paths"]
        .as_object()
        .unwrap()
    {
        for (method, operation) in methods.as_object().unwrap() {
            operations.insert(format!("{} {path}", method.to_uppercase()), operation);
        }
    }
    operations
}

fn http_apis() -> impl Iterator<Item = &'static Deployment> {
    deployments()
        .iter()
        .filter(|deployment| deployment.is_http_api())
}

fn function_urls() -> impl Iterator<Item = &'static Deployment> {
    deployments()
        .iter()
        .filter(|deployment| !deployment.is_http_api() && !deployment.is_alb())
}

fn kes_apis() -> impl Iterator<Item = &'static Deployment> {
    http_apis().filter(|deployment| deployment.has_kes_api())
}

#[test]
fn consoles_may_call_from_the_origins_that_are_listed() {
    for deployment in http_apis() {
        let cors = &deployment.properties("Api")["Body"]["x-amazon-apigateway-cors"];
        if deployment.given("CorsOrigins").is_empty() {
            assert!(cors.is_null(), "{cors}");
        } else {
            assert!(cors["allowOrigins"]["Fn::Split"].is_array(), "{cors}");
            assert!(cors["allowCredentials"].is_null(), "{cors}");
        }
    }
    for deployment in function_urls() {
        let (_, function) = deployment.functions()["keyway-fn-all"];
        let variables = Deployment::variables(function);
        let given = !deployment.given("CorsOrigins").is_empty();
        assert_eq!(variables.contains_key("KEYWAY_CORS_ORIGINS"), given);
    }
}

#[tokio::test]
async fn the_api_has_the_routes_that_the_functions_mount() {
    let site = MemorySite::not_configured(false).await;
    let mut mounted = BTreeMap::new();
    for (function, routes) in [
        ("KeysFunction", site.routes_of("keys")),
        ("DatakeyFunction", site.routes_of("datakey")),
        ("ServiceFunction", site.routes_of("service")),
    ] {
        for (method, path) in routes {
            for prefix in PREFIXES {
                mounted.insert(format!("{method} {prefix}{path}"), function.to_owned());
            }
        }
    }
    for (function, method, path) in site.minio_routes() {
        let function = match *function {
            "keys" => "KeysFunction",
            "datakey" => "DatakeyFunction",
            _ => "ServiceFunction",
        };
        let route = format!("{method} {}{path}", minio::PREFIXES[0]);
        mounted.insert(route, function.to_owned());
    }
    for (method, path) in site.routes_of("bucket-encryption") {
        for prefix in BUCKET_PREFIXES {
            let route = format!("{method} {prefix}{path}");
            mounted.insert(route, "BucketsFunction".to_owned());
        }
    }
    for (method, path) in site.s3_routes() {
        // An API cannot have two routes that differ only by a slash at the end.
        if path == "/" || !path.ends_with('/') {
            mounted.insert(format!("{method} {path}"), "BucketsFunction".to_owned());
        }
    }
    for (prefix, function) in [("/aws", "KeysFunction"), ("/aws/data", "DatakeyFunction")] {
        mounted.insert(format!("POST {prefix}"), function.to_owned());
    }
    for path in PAGES {
        for method in ["GET", "HEAD"] {
            mounted.insert(format!("{method} {path}"), "ServiceFunction".to_owned());
        }
    }
    // The function of buckets refuses S3's other operations, in S3's format.
    for route in OBJECTS.into_iter().chain(["POST /{bucket}"]) {
        mounted.insert(route.to_owned(), "BucketsFunction".to_owned());
    }
    for deployment in http_apis() {
        let routes = routes(deployment);
        assert_eq!(routes, mounted);
        let apis: Vec<_> = deployment
            .of_type("AWS::ApiGatewayV2::Api")
            .into_keys()
            .collect();
        assert_eq!(apis, ["Api"]);
        // Another greedy route would call a function for paths that it does not mount.
        let greedy: Vec<_> = routes
            .keys()
            .filter(|route| route.contains(['+', '$', '*']))
            .collect();
        assert_eq!(greedy, OBJECTS);
        // The API calls each function by one permission.
        let allowed = called_by(deployment, "Api");
        let called: BTreeSet<String> = routes.values().cloned().collect();
        assert_eq!(allowed, Vec::from_iter(called));
    }
    for deployment in function_urls() {
        assert!(deployment.of_type("AWS::ApiGatewayV2::Api").is_empty());
    }
}

/// The functions that an API may call, by one permission for each.
fn called_by(deployment: &Deployment, api: &str) -> Vec<String> {
    let whole_api = format!(
        "arn:${{AWS::Partition}}:execute-api:${{AWS::Region}}:${{AWS::AccountId}}:${{{api}}}/*"
    );
    let permissions = deployment.of_type("AWS::Lambda::Permission");
    let mut called: Vec<_> = permissions
        .into_values()
        .filter(|permission| permission["SourceArn"]["Fn::Sub"] == whole_api)
        .map(|permission| {
            assert_eq!(permission["Action"], "lambda:InvokeFunction");
            assert_eq!(permission["Principal"], "apigateway.amazonaws.com");
            function_of_alias(reference(&permission["FunctionName"]).unwrap())
        })
        .collect();
    called.sort_unstable();
    called
}

/// A policy may have 20 KB. A permission for each route would use most of it, and more with a long stack name.
#[test]
fn no_gateway_has_a_permission_for_a_single_route() {
    for deployment in http_apis() {
        let permissions = deployment.of_type("AWS::Lambda::Permission");
        let of_gateways = permissions
            .values()
            .filter(|permission| permission["Principal"] == "apigateway.amazonaws.com");
        let known = called_by(deployment, "Api").len() + called_by(deployment, "KesApi").len();
        assert_eq!(of_gateways.count(), known);
    }
}

/// The function that KES's API calls for a path, by the most specific of its routes.
fn called_for<'r>(routes: &'r BTreeMap<String, String>, path: &str) -> Option<&'r str> {
    let fits = |route: &str| match route.split_once('{') {
        Some((before, _)) => path.len() > before.len() && path.starts_with(before),
        None => path == route,
    };
    routes
        .iter()
        .map(|(route, function)| (route.split_once(' ').unwrap().1, function))
        .filter(|(route, _)| fits(route))
        .max_by_key(|(route, _)| route.split('{').next().map(str::len))
        .map(|(_, function)| function.as_str())
}

#[tokio::test]
async fn kes_s_api_calls_the_functions_that_mount_its_routes() {
    let site = MemorySite::not_configured(false).await;
    for deployment in kes_apis() {
        let routes = kes_routes(deployment);
        assert!(routes.keys().all(|route| {
            let (method, path) = route.split_once(' ').unwrap();
            // The function gets every method, and refuses wrong ones itself.
            let is_page = path.contains("/health") || path == "/openapi.json";
            method == ANY && (is_page || path == "/version" || path.starts_with("/v1/"))
        }));
        for path in PAGES {
            assert_eq!(called_for(&routes, path), Some("ServiceFunction"), "{path}");
        }
        for (function, _, path) in site.kes_routes() {
            // API Gateway ignores a slash at the end.
            let path = path.replace("{*name}", "some/name");
            let called = called_for(&routes, path.trim_end_matches('/'));
            let package = deployment
                .functions()
                .into_iter()
                .find(|(_, (name, _))| Some(*name) == called)
                .map(|(package, _)| package);
            assert_eq!(package, Some(&*format!("keyway-fn-{function}")), "{path}");
        }
        // The API calls each of them by one statement of its policy, and by nothing else.
        let allowed = called_by(deployment, "KesApi");
        let called: BTreeSet<String> = routes.values().cloned().collect();
        assert_eq!(allowed, Vec::from_iter(called));
        let names: Vec<_> = deployment
            .of_type("AWS::ApiGateway::RestApi")
            .into_keys()
            .collect();
        assert_eq!(names, ["KesApi"]);
    }
    for deployment in deployments() {
        let apis = deployment.of_type("AWS::ApiGateway::RestApi").len();
        assert_eq!(apis, usize::from(deployment.has_kes_api()));
    }
}

/// Clients compare status and message, and would misunderstand a gateway's own answers.
#[test]
fn kes_s_api_speaks_as_kes_does() {
    for deployment in kes_apis() {
        let said =
            &deployment.properties("KesApi")["Body"]["x-amazon-apigateway-gateway-responses"];
        for (kind, status, message) in [
            (
                "ACCESS_DENIED",
                403,
                "not authorized: insufficient permissions",
            ),
            (
                "WAF_FILTERED",
                403,
                "not authorized: insufficient permissions",
            ),
            ("MISSING_AUTHENTICATION_TOKEN", 501, "not implemented"),
            ("RESOURCE_NOT_FOUND", 501, "not implemented"),
            ("REQUEST_TOO_LARGE", 400, "invalid request body"),
            ("UNSUPPORTED_MEDIA_TYPE", 400, "invalid request body"),
            ("THROTTLED", 503, "too many requests"),
            ("QUOTA_EXCEEDED", 503, "too many requests"),
            ("DEFAULT_5XX", 503, "key store is not reachable"),
        ] {
            assert_eq!(said[kind]["statusCode"], status.to_string(), "{kind}");
            let body = said[kind]["responseTemplates"]["application/json"].as_str();
            let body: Value = serde_json::from_str(body.unwrap()).unwrap();
            assert_eq!(body, json!({ "message": message }), "{kind}");
        }
        assert_eq!(said.as_object().unwrap().len(), 9);
    }
}

#[test]
fn kes_s_api_is_reached_with_certificates_alone() {
    for deployment in kes_apis() {
        let endpoint = &deployment.properties("KesApi")["Body"]["servers"][0];
        let endpoint = &endpoint["x-amazon-apigateway-endpoint-configuration"];
        assert_eq!(endpoint["disableExecuteApiEndpoint"], true);
        let domain = deployment.properties("KesDomain");
        assert_eq!(domain["DomainName"], deployment.given("KesDomainName"));
        assert_eq!(domain["SecurityPolicy"], "TLS_1_2");
        assert_eq!(
            domain["MutualTlsAuthentication"]["TruststoreUri"],
            deployment.given("KesTruststoreUri")
        );
        let mapping = deployment.properties("KesDomainMapping");
        assert_eq!(reference(&mapping["DomainName"]), Some("KesDomain"));
        assert_eq!(reference(&mapping["RestApiId"]), Some("KesApi"));
        assert_eq!(
            mapping.get("BasePath"),
            None,
            "policies have no such prefix"
        );
        let stages = deployment.of_type("AWS::ApiGateway::Stage");
        assert_eq!(stages.len(), 1);
        for stage in stages.values() {
            let limits = &stage["MethodSettings"][0];
            assert_eq!(
                (&limits["HttpMethod"], &limits["ResourcePath"]),
                (&json!("*"), &json!("/*"))
            );
            assert!(limits["ThrottlingRateLimit"].is_string(), "{limits}");
            assert!(limits["ThrottlingBurstLimit"].is_string(), "{limits}");
        }
    }
}

/// The function believes the header of every caller. So only the load balancer may call it, and must demand
/// certificates.
#[test]
fn a_load_balancer_demands_certificates_and_is_alone() {
    for deployment in deployments()
        .iter()
        .filter(|deployment| deployment.is_alb())
    {
        let listeners = deployment.of_type("AWS::ElasticLoadBalancingV2::Listener");
        assert_eq!(listeners.len(), 1);
        let listener = listeners["AlbListener"];
        assert_eq!(listener["Protocol"], "HTTPS");
        assert_eq!(
            listener["LoadBalancerArn"],
            deployment.given("LoadBalancerArn")
        );
        let mutual = &listener["MutualAuthentication"];
        assert_eq!(mutual["Mode"], "verify");
        assert_eq!(mutual["TrustStoreArn"], deployment.given("TrustStoreArn"));
        let group = deployment.properties("AlbTargetGroup");
        assert_eq!(
            group["TargetGroupAttributes"],
            json!([{"Key": "lambda.multi_value_headers.enabled", "Value": "true"}]),
            "else a second value of the header would not be seen"
        );
        let permissions = deployment.of_type("AWS::Lambda::Permission");
        let callers: Vec<_> = permissions
            .values()
            .filter(|permission| reference(&permission["FunctionName"]) == Some("AllAlias"))
            .map(|permission| {
                (
                    &permission["Principal"],
                    &permission["SourceArn"]["Fn::Sub"],
                )
            })
            .collect();
        let arn = "arn:${AWS::Partition}:elasticloadbalancing:${AWS::Region}:${AWS::AccountId}:targetgroup/${AWS::StackName}/*";
        let principal = "elasticloadbalancing.amazonaws.com";
        assert_eq!(callers, [(&json!(principal), &json!(arn))]);
        assert_eq!(reference(&group["Name"]), Some("AWS::StackName"));
        let (_, function) = deployment.functions()["keyway-fn-all"];
        let variables = Deployment::variables(function);
        assert_eq!(variables["KEYWAY_EVENT_SOURCE"], "alb");
        assert_eq!(
            variables["KEYWAY_KES_PROXY_HEADER"],
            "X-Amzn-Mtls-Clientcert-Leaf"
        );
        assert!(deployment.of_type("AWS::Lambda::Url").is_empty());
    }
    // No other deployment believes the header.
    for deployment in deployments()
        .iter()
        .filter(|deployment| !deployment.is_alb())
    {
        for (package, (_, function)) in deployment.functions() {
            let variables = Deployment::variables(function);
            assert_eq!(variables.get("KEYWAY_KES_PROXY_HEADER"), None, "{package}");
            assert_eq!(variables.get("KEYWAY_KES_PROXIES"), None, "{package}");
        }
    }
}

#[test]
fn functions_are_told_of_kes_where_it_is_served() {
    for deployment in deployments() {
        let served = deployment.has_kes_api() || deployment.is_alb();
        for (package, (_, function)) in deployment.functions() {
            let variables = Deployment::variables(function);
            let of = |groups: &[&str]| {
                let group = package.trim_start_matches("keyway-fn-");
                served && (group == "all" || groups.contains(&group))
            };
            for (variable, parameter, groups) in [
                (
                    "KEYWAY_KES_ADMIN",
                    "KesAdmin",
                    &["keys", "datakey", "service", "access"][..],
                ),
                ("KEYWAY_KES_OPEN", "KesOpen", &["service"]),
                ("KEYWAY_KES_DELETE", "KesDelete", &["keys"]),
                (
                    "KEYWAY_KES_GENERATION",
                    "KesGeneration",
                    &["keys", "datakey", "service", "access"],
                ),
            ] {
                let told = of(groups).then(|| match deployment.given(parameter) {
                    "" if parameter == "KesDelete" => "destroy",
                    "" if parameter == "KesGeneration" => "latest",
                    given => given,
                });
                let found = variables.get(variable).and_then(Value::as_str);
                assert_eq!(found, told, "{package}: {variable}");
            }
        }
    }
}

/// `scripts/lambda` gives `cargo lambda watch` a file that says which function to call.
#[test]
fn the_local_gateway_calls_the_same_functions() {
    let file = std::fs::read_to_string(project().join("scripts/lambda.toml")).unwrap();
    let local: BTreeSet<(String, String)> = file
        .lines()
        .filter(|line| line.starts_with('"'))
        .map(|line| {
            let (path, package) = line.split_once(" = ").unwrap();
            // Its router distinguishes a slash at the end.
            let path = path.trim_matches('"').replace("{*object}", "{proxy+}");
            let path = path
                .strip_suffix('/')
                .filter(|path| !path.is_empty())
                .unwrap_or(&path)
                .to_owned();
            (path, package.trim_matches('"').to_owned())
        })
        .collect();
    for deployment in http_apis() {
        let mut deployed = BTreeSet::new();
        for (route, called) in routes(deployment) {
            let (_, path) = route.split_once(' ').unwrap();
            let functions = deployment.functions();
            let found = functions.iter().find(|(_, (name, _))| *name == called);
            let (package, _) = found.unwrap();
            deployed.insert((path.to_owned(), (*package).to_owned()));
        }
        assert_eq!(local, deployed);
    }
}

#[test]
fn events_have_the_shape_that_functions_expect() {
    for deployment in http_apis() {
        for (route, operation) in operations(deployment) {
            let version = &operation["x-amazon-apigateway-integration"]["payloadFormatVersion"];
            assert_eq!(version, "2.0", "{route}");
        }
        // The paths of a named stage would contain its name.
        assert_eq!(stage(deployment)["StageName"], "$default");
        for package in [
            "keyway-fn-keys",
            "keyway-fn-datakey",
            "keyway-fn-service",
            "keyway-fn-bucket-encryption",
        ] {
            let (_, function) = deployment.functions()[package];
            let variables = Deployment::variables(function);
            // Both APIs call the functions that KES's API calls.
            let source = match package {
                "keyway-fn-bucket-encryption" => "http-api",
                _ if deployment.has_kes_api() => "api-gateway",
                _ => "http-api",
            };
            assert_eq!(variables["KEYWAY_EVENT_SOURCE"], source);
            assert_eq!(variables.get("KEYWAY_RESPONSE_STREAMING"), None);
        }
        if deployment.has_kes_api() {
            let (_, access) = deployment.functions()["keyway-fn-access"];
            assert_eq!(
                Deployment::variables(access)["KEYWAY_EVENT_SOURCE"],
                "rest-api"
            );
        }
    }
    for deployment in function_urls() {
        let urls = deployment.of_type("AWS::Lambda::Url");
        assert_eq!(urls.keys().copied().collect::<Vec<_>>(), ["AllFunctionUrl"]);
        assert_eq!(urls["AllFunctionUrl"]["InvokeMode"], "RESPONSE_STREAM");
        assert_eq!(
            reference(&urls["AllFunctionUrl"]["TargetFunctionArn"]),
            Some("AllAlias")
        );
        let (_, function) = deployment.functions()["keyway-fn-all"];
        let variables = Deployment::variables(function);
        assert_eq!(variables["KEYWAY_EVENT_SOURCE"], "function-url");
        assert_eq!(variables["KEYWAY_RESPONSE_STREAMING"], "true");
    }
}

fn stage(deployment: &Deployment) -> &Value {
    let stages = deployment.of_type("AWS::ApiGatewayV2::Stage");
    assert_eq!(stages.len(), 1);
    stages.into_values().next().unwrap()
}

#[test]
fn strangers_are_throttled() {
    let number = |value: &Value| -> u32 {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        text.parse().unwrap()
    };
    for deployment in http_apis() {
        let stage = stage(deployment);
        let known = routes(deployment);
        let mut limits = vec![&stage["DefaultRouteSettings"]];
        for (route, limit) in stage["RouteSettings"].as_object().unwrap() {
            assert!(known.contains_key(route), "{route} has limits and is none");
            limits.push(limit);
        }
        // The owner pays for the traffic of the description, which is large.
        let document = &stage["RouteSettings"]["GET /openapi.json"];
        assert_eq!(number(&document["ThrottlingRateLimit"]), 1);
        for limit in limits {
            // API Gateway takes a limit of zero as no limit; ten thousand is the account's limit.
            assert!(
                (1..1000).contains(&number(&limit["ThrottlingRateLimit"])),
                "{limit}"
            );
            assert!(
                (1..1000).contains(&number(&limit["ThrottlingBurstLimit"])),
                "{limit}"
            );
        }
        let data_keys = known
            .iter()
            .filter(|(_, function)| *function == "DatakeyFunction");
        for (route, _) in data_keys {
            let limits = &stage["RouteSettings"][route];
            assert!(limits.is_object(), "{route} has limits of its own");
        }
    }
    for deployment in deployments() {
        for (package, (_, function)) in deployment.functions() {
            if ["keyway-fn-janitor", "keyway-fn-setup"].contains(&package) {
                // Only its schedule calls it.
                continue;
            }
            let most = number(&function["ReservedConcurrentExecutions"]);
            assert!((1..=50).contains(&most), "{package}");
            assert!(
                (1..30).contains(&number(&function["Timeout"])),
                "API Gateway waits for 30 s"
            );
        }
    }
}

#[test]
fn callers_are_verified_by_whom_the_parameters_say() {
    for deployment in http_apis() {
        let security = deployment.is_iam().then(|| json!([{"AWS_IAM": []}]));
        for (route, operation) in operations(deployment) {
            let (_, path) = route.split_once(' ').unwrap();
            let is_page = PAGES.contains(&path);
            let security = security.as_ref().filter(|_| !is_page);
            assert_eq!(operation.get("security"), security, "{route}");
        }
        let schemes = &deployment.properties("Api")["Body"]["components"]["securitySchemes"];
        assert_eq!(
            schemes["AWS_IAM"]["x-amazon-apigateway-authtype"],
            "awsSigv4"
        );
    }
    for deployment in function_urls() {
        let url = deployment.properties("AllFunctionUrl");
        assert_eq!(
            url["AuthType"],
            if deployment.is_iam() {
                "AWS_IAM"
            } else {
                "NONE"
            }
        );
    }
    for deployment in deployments() {
        let mut public: Vec<_> = deployment
            .of_type("AWS::Lambda::Permission")
            .into_values()
            .filter(|permission| permission["Principal"] == "*")
            .map(|permission| {
                assert_eq!(reference(&permission["FunctionName"]), Some("AllAlias"));
                // Either condition limits the permission to calls through the URL.
                assert!(
                    permission["FunctionUrlAuthType"] == "NONE"
                        || permission["InvokedViaFunctionUrl"] == true
                );
                permission["Action"].as_str().unwrap()
            })
            .collect();
        public.sort_unstable();
        if deployment.is_http_api() || deployment.is_alb() || deployment.is_iam() {
            assert_eq!(public, [""; 0]);
        } else {
            assert_eq!(
                public,
                ["lambda:InvokeFunction", "lambda:InvokeFunctionUrl"]
            );
        }
    }
}

#[test]
fn a_domain_is_the_only_way_in_and_may_demand_certificates() {
    for deployment in deployments() {
        let domains = deployment.of_type("AWS::ApiGatewayV2::DomainName");
        let has_domain = !deployment.given("DomainName").is_empty();
        assert_eq!(domains.len(), usize::from(has_domain));
        if deployment.is_http_api() {
            let servers = &deployment.properties("Api")["Body"]["servers"];
            let endpoint = &servers[0]["x-amazon-apigateway-endpoint-configuration"];
            assert_eq!(
                endpoint["disableExecuteApiEndpoint"], has_domain,
                "else mTLS could be gone round"
            );
        }
        for domain in domains.values() {
            assert_eq!(domain["DomainName"], deployment.given("DomainName"));
            assert_eq!(
                domain["DomainNameConfigurations"][0]["CertificateArn"],
                deployment.given("CertificateArn")
            );
            assert_eq!(
                domain["DomainNameConfigurations"][0]["SecurityPolicy"],
                "TLS_1_2"
            );
            let truststore = domain["MutualTlsAuthentication"]["TruststoreUri"].as_str();
            assert_eq!(
                truststore.unwrap_or_default(),
                deployment.given("TruststoreUri")
            );
            let mapping = deployment.properties("DomainMapping");
            assert_eq!(reference(&mapping["ApiId"]), Some("Api"));
            assert_eq!(reference(&mapping["DomainName"]), Some("Domain"));
        }
    }
}

#[test]
fn parameters_that_contradict_each_other_are_refused() {
    let contradictions = [
        json!({"Front": "function-url", "DomainName": "kms.example.com", "CertificateArn":
            "arn:aws:acm:us-east-1:123456789012:certificate/c"}),
        json!({"DomainName": "kms.example.com"}),
        json!({"TruststoreUri": "s3://bucket/truststore.pem"}),
        json!({"GradualDeployment": "Canary10Percent10Minutes", "Alarms": "off"}),
        json!({"KesDomainName": "kes.example.com", "KesCertificateArn":
            "arn:aws:acm:us-east-1:123456789012:certificate/c"}),
        json!({"KesDomainName": "kes.example.com", "KesTruststoreUri": "s3://bucket/kes.pem"}),
        json!({"Front": "function-url", "KesDomainName": "kes.example.com", "KesTruststoreUri": "s3://bucket/kes.pem",
            "KesCertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/c"}),
        json!({"Front": "alb", "Auth": "iam", "CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/c",
            "LoadBalancerArn": "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/b/0",
            "TrustStoreArn": "arn:aws:elasticloadbalancing:us-east-1:123456789012:truststore/t/0"}),
        json!({"Front": "alb", "CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/c", "TrustStoreArn":
            "arn:aws:elasticloadbalancing:us-east-1:123456789012:truststore/t/0"}),
        json!({"Front": "alb", "CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/c", "LoadBalancerArn":
            "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/b/0"}),
    ];
    let contradictions = contradictions.map(|set| serde_json::from_value(set).unwrap());
    for deployment in deployments_of(&contradictions).unwrap_or_default() {
        assert_eq!(
            deployment.broken_rules().len(),
            1,
            "{:?}",
            deployment.broken_rules()
        );
    }
}

#[test]
fn cost_page_counts_the_routes_of_the_http_api() {
    let Some(deployment) = deployments().iter().find(|one| one.is_http_api()) else {
        return;
    };
    let stages = deployment.of_type("AWS::ApiGatewayV2::Stage");
    let stage = stages.values().next().unwrap();
    let with_rates = stage["RouteSettings"].as_object().unwrap().len();
    let others = routes(deployment).len() - with_rates;
    let [counted, described, rest] = routes_of_http_api();
    assert_eq!((counted + described, rest), (with_rates, others));
}
