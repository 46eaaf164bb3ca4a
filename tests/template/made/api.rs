//! The two APIs: their routes, their limits, and who may call which function.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use keyway_http::Group;
use keyway_sites::inventory;
use keyway_tests::function_of_group;

use crate::fronts::OBJECTS;

/// A route of an API, and the function that it calls.
pub(super) struct Route {
    pub(super) method: String,
    pub(super) path: String,
    /// As [`function_of_group`] names it.
    pub(super) function: &'static str,
    /// Whether it is for callers without authentication.
    pub(super) is_page: bool,
}

/// The common start of the names of a function's resources.
pub(super) fn resource(function: &str) -> &'static str {
    match function {
        "keys" => "Keys",
        "datakey" => "Datakey",
        "service" => "Service",
        "bucket-encryption" => "Buckets",
        "access" => "Access",
        other => panic!("{other} is behind no API"),
    }
}

/// Every route of the HTTP API.
pub(super) fn of_http_api() -> Vec<Route> {
    let mut routes = Vec::new();
    for entry in inventory() {
        let (function, path) = (function_of_group(entry.group), entry.whole_path());
        let is_left_out = entry.dialect == "kes"
            || function == "all"
            // An API cannot have two routes that differ only by a slash at the end.
            || matches!(entry.dialect, "s3" | "aws") && path != "/" && path.ends_with('/');
        if !is_left_out {
            routes.push(Route {
                method: entry.method.to_string(),
                path,
                function,
                is_page: is_page(entry.group),
            });
        }
    }
    // The function of buckets refuses S3's other operations, in S3's format.
    for route in OBJECTS.into_iter().chain(["POST /{bucket}"]) {
        let (method, path) = route.split_once(' ').unwrap();
        routes.push(Route {
            method: method.to_owned(),
            path: path.to_owned(),
            function: "bucket-encryption",
            is_page: false,
        });
    }
    routes
}

fn is_page(group: Group) -> bool {
    matches!(group, Group::Health | Group::Document)
}

/// Every path of KES's API and of the pages. KES's API has few, greedy routes: in an area (`/v1/key`), one function has the greedy route,
/// and the others have routes for single paths.
fn of_kes_api() -> Vec<(String, &'static str)> {
    let mut areas: BTreeMap<String, &'static str> = BTreeMap::new();
    let mut paths: Vec<(String, &'static str)> = Vec::new();
    let kes = inventory()
        .into_iter()
        .filter(|entry| entry.dialect == "kes");
    for entry in kes {
        let function = function_of_group(entry.group);
        let path = entry.path.trim_end_matches("{*name}").trim_end_matches('/');
        let mut segments = path.splitn(4, '/').skip(1);
        let (first, second, third) = (segments.next(), segments.next(), segments.next());
        let routes = match (first, second, third) {
            (Some(first), Some(second), Some(_)) => {
                let area = format!("/{first}/{second}");
                // The first group of the inventory has the greedy route.
                let owner = *areas.entry(area.clone()).or_insert(function);
                if owner == function {
                    vec![format!("{area}/{{route+}}")]
                } else {
                    vec![path.to_owned(), format!("{path}/{{name+}}")]
                }
            }
            _ => vec![path.to_owned()],
        };
        for route in routes {
            if !paths.iter().any(|(known, _)| *known == route) {
                paths.push((route, function));
            }
        }
    }
    // API Gateway prefers a literal path to a greedy one.
    let mut pages: Vec<&str> = Vec::new();
    for entry in inventory().into_iter().filter(|entry| is_page(entry.group)) {
        if !pages.contains(&entry.prefix) {
            pages.push(entry.prefix);
            paths.push((entry.prefix.to_owned(), function_of_group(entry.group)));
            if entry.group == Group::Health {
                let below = format!("{}/{{route+}}", entry.prefix);
                paths.push((below, function_of_group(entry.group)));
            }
        }
    }
    paths
}

fn uri(function: &str) -> String {
    let function = resource(function);
    format!(
        "arn:${{AWS::Partition}}:apigateway:${{AWS::Region}}:lambda:path/2015-03-31/functions/${{{function}Alias}}/invocations"
    )
}

/// The rates of the routes of data keys, each for itself, and of the description: everybody may read it, and it has
/// hundreds of KB, for which the owner pays.
fn limits(routes: &[Route]) -> String {
    let mut text = String::new();
    for route in routes {
        let Route { method, path, .. } = route;
        let (rate, burst) = match route.function {
            "datakey" => ("!Ref DataKeyRateLimit", "!Ref DataKeyBurstLimit"),
            _ if path == keyway_openapi::PATH => ("1", "5"),
            _ => continue,
        };
        write!(
            text,
            "        \"{method} {path}\":\n          ThrottlingRateLimit: {rate}\n          ThrottlingBurstLimit: {burst}\n"
        )
        .unwrap();
    }
    text
}

/// The parameters in a path, which OpenAPI wants to be declared.
fn parameters(path: &str) -> String {
    let names = path
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next());
    let declared: Vec<String> = names
        .map(|name| format!("{{name: {name}, in: path, required: true}}"))
        .collect();
    if declared.is_empty() {
        return String::new();
    }
    format!("              parameters: [{}]\n", declared.join(", "))
}

/// The paths of the HTTP API. SAM takes no condition for a default authorizer, so each operation says it; a page has none.
fn paths(routes: &[Route]) -> String {
    let mut by_path: Vec<(&str, Vec<&Route>)> = Vec::new();
    for route in routes {
        match by_path.iter_mut().find(|(path, _)| *path == route.path) {
            Some((_, methods)) => methods.push(route),
            None => by_path.push((&route.path, vec![route])),
        }
    }
    let mut text = String::new();
    for (path, routes) in by_path {
        writeln!(text, "          \"{path}\":").unwrap();
        for route in routes {
            writeln!(text, "            {}:", route.method.to_lowercase()).unwrap();
            text.push_str(&parameters(path));
            if !route.is_page {
                text.push_str(
                    "              security: !If [IamAuth, [{AWS_IAM: []}], !Ref \"AWS::NoValue\"]\n",
                );
            }
            write!(
                text,
                "              x-amazon-apigateway-integration:\n                type: aws_proxy\n                httpMethod: POST\n                payloadFormatVersion: \"2.0\"\n                uri: !Sub \"{}\"\n              responses: {{}}\n",
                uri(route.function)
            )
            .unwrap();
        }
    }
    text
}

/// The paths of KES's API. The function gets every method, and refuses wrong ones itself.
fn kes_paths(paths: &[(String, &'static str)]) -> String {
    let mut text = String::new();
    for (path, function) in paths {
        write!(
            text,
            "          \"{path}\":\n            x-amazon-apigateway-any-method:\n              x-amazon-apigateway-integration:\n                type: aws_proxy\n                httpMethod: POST\n                uri: !Sub \"{}\"\n",
            uri(function)
        )
        .unwrap();
    }
    text
}

/// One permission for each function that an API calls, not for each route: a function's policy may have only 20 KB.
fn permissions<'f>(api: &str, condition: &str, functions: impl Iterator<Item = &'f str>) -> String {
    let functions: BTreeSet<&str> = functions.map(resource).collect();
    let mut text = String::new();
    for function in functions {
        write!(
            text,
            "
  {api}Calls{function}Function:
    Type: AWS::Lambda::Permission
    Condition: {condition}
    Properties:
      FunctionName: !Ref {function}Alias
      Action: lambda:InvokeFunction
      Principal: apigateway.amazonaws.com
      SourceArn: !Sub \"arn:${{AWS::Partition}}:execute-api:${{AWS::Region}}:${{AWS::AccountId}}:${{{api}}}/*\"
"
        )
        .unwrap();
    }
    text
}

/// The blocks of the template that are about APIs.
pub(super) fn blocks() -> Vec<(String, String)> {
    let (http, kes) = (of_http_api(), of_kes_api());
    let called = permissions(
        "Api",
        "HttpApiFront",
        http.iter().map(|route| route.function),
    );
    let called_by_kes = permissions(
        "KesApi",
        "KesApiFront",
        kes.iter().map(|(_, function)| *function),
    );
    [
        ("the rates of single routes", limits(&http)),
        ("the paths of the HTTP API", paths(&http)),
        ("who the HTTP API calls", called),
        ("the paths of KES's API", kes_paths(&kes)),
        ("who KES's API calls", called_by_kes),
    ]
    .map(|(name, text)| (name.to_owned(), text))
    .to_vec()
}
