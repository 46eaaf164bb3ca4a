use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};

use super::{alb, alb_multi, answer, echo, event_of, http_api, ingress, rest_api, with, without};
use crate::{EventSource, Ingress};

/// Answers an event and asserts that the answer has its source's shape.
fn answered(ingress: &Ingress, event: &str) -> (u64, Value) {
    let answer = answer(&echo::site(), ingress, event);
    let status = answer["statusCode"].as_u64().unwrap();
    assert!((200..600).contains(&status), "{answer}");
    let members: Vec<_> = answer
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    const OF_HTTP_APIS: &[&str] = &[
        "body",
        "cookies",
        "headers",
        "isBase64Encoded",
        "statusCode",
    ];
    const OF_REST_APIS: &[&str] = &["body", "isBase64Encoded", "multiValueHeaders", "statusCode"];
    let expected: &[&[&str]] = match ingress.source {
        EventSource::HttpApi | EventSource::FunctionUrl => &[OF_HTTP_APIS],
        EventSource::RestApi => &[OF_REST_APIS],
        EventSource::ApiGateway => &[OF_HTTP_APIS, OF_REST_APIS],
        EventSource::Alb => &[
            &[
                "body",
                "headers",
                "isBase64Encoded",
                "statusCode",
                "statusDescription",
            ],
            &[
                "body",
                "isBase64Encoded",
                "multiValueHeaders",
                "statusCode",
                "statusDescription",
            ],
        ],
    };
    assert!(expected.contains(&members.as_slice()), "{answer}");
    assert!(answer["isBase64Encoded"].is_boolean());
    let body = answer["body"].as_str().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// Asserts that the event is refused, and returns why.
fn refused(source: &str, event: &str) -> String {
    let (status, body) = answered(&ingress(source), event);
    assert_eq!(status, 400, "{source} let in {event:.200}");
    body["message"].as_str().unwrap().to_owned()
}

fn events() -> impl Iterator<Item = (&'static str, Value)> {
    let of = |source| (source, event_of(ingress(source).source));
    super::SOURCES
        .into_iter()
        .map(of)
        .chain([("alb", alb_multi())])
}

fn named(source: &str) -> &'static str {
    match source {
        "http-api" => "HTTP API",
        "rest-api" => "REST API",
        "alb" => "load balancer",
        "api-gateway" => "HTTP API (payload format 2.0) or REST API",
        _ => "function URL",
    }
}

#[test]
fn event_of_another_source_is_refused() {
    for (source, _) in events() {
        for (other, event) in events() {
            // Some sources share a payload format, so their events look the same.
            let shapes = |source| match source {
                "http-api" | "function-url" => &["2.0"][..],
                "rest-api" => &["1.0"],
                "alb" => &["alb"],
                _ => &["2.0", "1.0"],
            };
            let of_event = match other {
                "api-gateway" => "1.0",
                other => shapes(other)[0],
            };
            if shapes(source).contains(&of_event) {
                continue;
            }
            let message = refused(source, &event.to_string());
            assert!(message.contains(named(source)), "{message}");
        }
    }
}

#[test]
fn event_of_no_source_is_refused() {
    let others = [
        json!({ "version": "0", "id": "0", "detail-type": "Scheduled Event", "source": "aws.events",
            "account": "123456789012", "time": "2026-01-02T03:04:05Z", "region": "eu-central-1",
            "resources": ["arn:aws:events:eu-central-1:123456789012:rule/janitor"], "detail": {} }),
        json!({ "Records": [{ "eventSource": "aws:sqs", "body": "{}", "messageId": "0" }] }),
        json!({ "Records": [{ "eventSource": "aws:s3", "s3": { "bucket": { "name": "b" } } }] }),
        json!({ "requestContext": { "routeKey": "$connect", "eventType": "CONNECT", "connectionId": "0",
            "identity": { "sourceIp": "203.0.113.7" } }, "isBase64Encoded": false }),
        json!({ "version": "2.0", "type": "REQUEST", "routeArn": "arn:aws:execute-api:x", "identitySource": [] }),
        json!({ "type": "TOKEN", "authorizationToken": "x", "methodArn": "arn:aws:execute-api:x" }),
        json!({ "test": "event", "key1": "value1" }),
        json!({ "version": "2.0" }),
        json!({ "httpMethod": "GET", "path": "/", "requestContext": {} }),
        json!({ "httpMethod": "GET", "path": "/", "requestContext": { "elb": null } }),
        json!({ "httpMethod": "GET", "path": "/", "requestContext": { "elb": {} } }),
        json!({ "httpMethod": "GET", "path": "/", "requestContext": { "identity": null } }),
        json!({ "version": "2.0", "rawPath": "/", "requestContext": { "http": null } }),
        json!({}),
        json!([]),
        json!([{}]),
        json!(null),
        json!(true),
        json!(0),
        json!(-1.5e300),
        json!(""),
        json!("GET / HTTP/1.1"),
    ];
    for source in super::SOURCES {
        for event in &others {
            let message = refused(source, &event.to_string());
            assert!(message.contains(named(source)), "{message}");
        }
        // The runtime passes on no invalid JSON. If it did, it would be refused too.
        let deep = "[".repeat(100_000);
        for event in [
            "",
            "{",
            "nul",
            "\u{feff}{}",
            "{}{}",
            "{\"a\":\"\\ud800\"}",
            &deep,
        ] {
            refused(source, event);
        }
    }
}

#[test]
fn member_of_another_type_is_refused() {
    let junk = [
        json!(0),
        json!(1.5),
        json!([0]),
        json!({ "a": 0 }),
        json!([null]),
    ];
    let cases: [(&str, &[&str]); 3] = [
        (
            "http-api",
            &[
                "/version",
                "/rawPath",
                "/rawQueryString",
                "/cookies",
                "/headers",
                "/body",
                "/isBase64Encoded",
                "/requestContext",
                "/requestContext/http",
                "/requestContext/http/method",
                "/requestContext/http/sourceIp",
                "/requestContext/authentication",
                "/requestContext/authorizer",
                "/headers/host",
            ],
        ),
        (
            "rest-api",
            &[
                "/httpMethod",
                "/path",
                "/headers",
                "/multiValueHeaders",
                "/queryStringParameters",
                "/multiValueQueryStringParameters",
                "/body",
                "/isBase64Encoded",
                "/requestContext",
                "/requestContext/path",
                "/requestContext/identity",
                "/requestContext/identity/sourceIp",
                "/requestContext/identity/userArn",
                "/multiValueHeaders/Host",
                "/multiValueQueryStringParameters/a",
            ],
        ),
        (
            "alb",
            &[
                "/httpMethod",
                "/path",
                "/headers",
                "/multiValueHeaders",
                "/queryStringParameters",
                "/multiValueQueryStringParameters",
                "/body",
                "/isBase64Encoded",
                "/requestContext",
                "/requestContext/elb",
                "/requestContext/elb/targetGroupArn",
                "/headers/host",
            ],
        ),
    ];
    let mut count = 0;
    for (source, pointers) in cases {
        let event = event_of(ingress(source).source);
        for pointer in pointers {
            for junk in &junk {
                // Objects whose members are all optional accept an empty one.
                let says_nothing = matches!(
                    *pointer,
                    "/requestContext/authentication"
                        | "/requestContext/authorizer"
                        | "/requestContext/identity"
                ) && (junk.is_object() || *junk == json!([null]));
                if says_nothing {
                    continue;
                }
                refused(source, &with(&event, pointer, junk.clone()).to_string());
                count += 1;
            }
        }
    }
    assert!(count > 190, "{count}");
    for (source, pointer) in [
        ("http-api", "/version"),
        ("http-api", "/rawPath"),
        ("http-api", "/requestContext"),
        ("http-api", "/requestContext/http"),
        ("http-api", "/requestContext/http/method"),
        ("http-api", "/headers/host"),
        ("rest-api", "/httpMethod"),
        ("rest-api", "/path"),
        ("rest-api", "/requestContext"),
        ("rest-api", "/requestContext/identity"),
        ("rest-api", "/multiValueHeaders/Host"),
        ("rest-api", "/multiValueQueryStringParameters/a"),
        ("alb", "/httpMethod"),
        ("alb", "/path"),
        ("alb", "/requestContext"),
        ("alb", "/requestContext/elb"),
        ("alb", "/requestContext/elb/targetGroupArn"),
        ("alb", "/headers/host"),
    ] {
        let event = event_of(ingress(source).source);
        refused(source, &with(&event, pointer, Value::Null).to_string());
        if !pointer.contains("ost") && !pointer.ends_with("/a") {
            refused(source, &without(&event, pointer).to_string());
        }
    }
}

#[test]
fn event_of_another_version_is_refused() {
    for version in ["1.0", "2", "2.1", "", "3.0"] {
        refused(
            "http-api",
            &with(&http_api(), "/version", json!(version)).to_string(),
        );
    }
    for version in ["2.0", "", "0"] {
        refused(
            "rest-api",
            &with(&rest_api(), "/version", json!(version)).to_string(),
        );
    }
    let emulated = with(&rest_api(), "/version", json!("1.0"));
    assert_eq!(answered(&ingress("rest-api"), &emulated.to_string()).0, 200);
}

#[test]
fn member_repeated_is_refused() {
    for (source, event) in events() {
        let twice = event.to_string().replacen('{', r#"{"body":"other","#, 1);
        refused(source, &twice);
    }
}

#[test]
fn header_with_an_invalid_name_is_refused() {
    for name in ["", " ", "a b", "a:b", "é", "a\r\nb", "\u{0}", "(", "host "] {
        for (source, object) in [("http-api", "headers"), ("alb", "headers")] {
            let mut event = event_of(ingress(source).source);
            event[object][name] = json!("secret-value");
            let message = refused(source, &event.to_string());
            assert!(message.contains("header has the name"), "{message}");
            assert!(!message.contains("secret-value"));
            assert!(!message.contains(['\r', '\n', '\0']));
        }
    }
    let long = "(".repeat(1 << 20);
    let event = with(&http_api(), "/headers", json!({ long: "x" }));
    assert!(refused("http-api", &event.to_string()).len() < 200);
    for value in ["a\nb", "a\rb", "\u{0}", "\u{7f}", "secret-value\u{1}"] {
        for (source, pointer, value) in [
            ("http-api", "/headers/authorization", json!(value)),
            ("http-api", "/headers/Host", json!(value)),
            ("http-api", "/cookies", json!([value])),
            ("rest-api", "/multiValueHeaders/X-A", json!(["fine", value])),
            ("alb", "/headers/x-a", json!(value)),
        ] {
            let event = with(&event_of(ingress(source).source), pointer, value);
            let message = refused(source, &event.to_string());
            let name = pointer.rsplit('/').next().unwrap().to_lowercase();
            let name = name.trim_end_matches('s').to_owned();
            assert!(message.contains(&format!("header {name} ")), "{message}");
            assert!(!message.contains("secret-value"));
        }
    }
}

#[test]
fn host_of_any_header_value_is_taken() {
    let long = "a".repeat(100 << 10);
    for host in [
        "",
        " ",
        "a b",
        "@",
        "a@b",
        "user:password@host",
        ":",
        ":99999",
        "[",
        "[::1",
        "é",
        "/",
        "a/b?c#d",
        "http://host/",
        "%zz",
        "..",
        "\t",
        "host,host",
        &long,
    ] {
        for (source, object) in [
            ("http-api", "headers"),
            ("function-url", "headers"),
            ("alb", "headers"),
        ] {
            let ingress = ingress(source);
            let event = with(
                &event_of(ingress.source),
                &format!("/{object}/host"),
                json!(host),
            );
            let (status, facts) = answered(&ingress, &event.to_string());
            assert_eq!(status, 200, "{host:.20}");
            assert!(
                facts["headers"]
                    .as_array()
                    .unwrap()
                    .contains(&json!(["host", host]))
            );
        }
    }
    let hosts = with(
        &rest_api(),
        "/multiValueHeaders/Host",
        json!(["a", "b c", ""]),
    );
    assert_eq!(answered(&ingress("rest-api"), &hosts.to_string()).0, 200);
}

#[test]
fn event_out_of_bounds_is_refused() {
    let headers: Map<_, _> = (0..40_000).map(|n| (format!("x-{n}"), json!(""))).collect();
    let event = with(&http_api(), "/headers", Value::Object(headers));
    assert!(refused("http-api", &event.to_string()).contains("too many headers"));
    let values = vec![json!(""); 40_000];
    let event = with(&rest_api(), "/multiValueHeaders", json!({ "a": values }));
    answered(&ingress("rest-api"), &event.to_string());
    let long = "/".repeat(70_000);
    for (source, pointer) in [
        ("http-api", "/rawPath"),
        ("http-api", "/rawQueryString"),
        ("rest-api", "/path"),
        ("rest-api", "/multiValueQueryStringParameters/a"),
        ("alb", "/path"),
        ("alb", "/queryStringParameters/a"),
    ] {
        let long = if pointer.starts_with("/multi") {
            json!([long])
        } else {
            json!(long)
        };
        let event = with(&event_of(ingress(source).source), pointer, long);
        assert!(refused(source, &event.to_string()).contains("path and query"));
    }
    let body = with(&http_api(), "/body", json!("a".repeat(6 << 20)));
    assert_eq!(answered(&ingress("http-api"), &body.to_string()).0, 200);
}

#[test]
fn invalid_method_is_refused() {
    for method in ["", " ", "GET ", "G T", "GET\r\n", "é", "GET/", "(", "\u{0}"] {
        for (source, pointer) in [
            ("http-api", "/requestContext/http/method"),
            ("function-url", "/requestContext/http/method"),
            ("rest-api", "/httpMethod"),
            ("alb", "/httpMethod"),
        ] {
            let event = with(&event_of(ingress(source).source), pointer, json!(method));
            assert!(refused(source, &event.to_string()).contains("method"));
        }
    }
    let long = with(
        &http_api(),
        "/requestContext/http/method",
        json!("A".repeat(1 << 20)),
    );
    answered(&ingress("http-api"), &long.to_string());
}

#[test]
fn invalid_path_is_refused() {
    for path in [
        "",
        "*",
        "a",
        "?",
        "#",
        "http://host/",
        "host:80",
        "\\",
        " /",
        "é",
        "%2F",
    ] {
        for (source, pointer) in [
            ("http-api", "/rawPath"),
            ("function-url", "/rawPath"),
            ("rest-api", "/path"),
            ("alb", "/path"),
        ] {
            let event = with(&event_of(ingress(source).source), pointer, json!(path));
            assert!(
                refused(source, &event.to_string()).contains("path"),
                "{path}"
            );
        }
    }
    // A context's path that ends in the event's is believed, and still has to be a path.
    for signed in ["prod/echo/facts", "http://host/echo/facts", "*/echo/facts"] {
        let event = with(&rest_api(), "/requestContext/path", json!(signed));
        assert!(
            refused("rest-api", &event.to_string()).contains("path"),
            "{signed}"
        );
    }
}

#[test]
fn base64_malformed_is_refused() {
    for body in [
        "A", "AA", "AA=", "AB==", "AA==\n", " AA==", "AA==AA==", "_-8=", "é", "AA====", "A A=",
    ] {
        for (source, event) in events() {
            let event = with(&event, "/body", json!(body));
            let event = with(&event, "/isBase64Encoded", json!(true));
            assert!(
                refused(source, &event.to_string()).contains("base64"),
                "{body}"
            );
        }
    }
}

/// Texts with a special meaning in some format.
const TEXTS: [&str; 25] = [
    "",
    " ",
    "/",
    "//",
    "/..",
    "/%",
    "/%00",
    "\\",
    "?",
    "#",
    "*",
    "é",
    "\u{0}",
    "\r\n",
    "2.0",
    "1.0",
    "GET",
    "127.0.0.1",
    "::1",
    "https",
    "AA==",
    "http://user@host:1/",
    "/echo/facts",
    "/echo/panic",
    "\u{10ffff}",
];

/// Replacement values.
fn junk() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        select(&TEXTS[..]).prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        (select(&TEXTS[..]), 0..70_000_usize)
            .prop_map(|(text, times)| json!(text.repeat(times / (text.len() + 1)))),
        Just(json!([])),
        Just(json!({})),
        select(&TEXTS[..]).prop_map(|text| json!([text, text])),
        select(&TEXTS[..]).prop_map(|text| json!({ text: text })),
        Just(json!({ "a": [null] })),
    ]
}

#[derive(Debug, Clone)]
enum Change {
    Replace(Index, Value),
    Remove(Index),
    Rename(Index, String),
    Add(Index, String, Value),
    Copy(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<Index>(), junk()).prop_map(|(at, value)| Change::Replace(at, value)),
        1 => any::<Index>().prop_map(Change::Remove),
        1 => (any::<Index>(), ".{0,10}").prop_map(|(at, name)| Change::Rename(at, name)),
        1 => (any::<Index>(), ".{0,10}", junk()).prop_map(|(at, name, value)| Change::Add(at, name, value)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Copy(from, to)),
    ]
}

fn pointers(value: &Value, at: &str, into: &mut Vec<String>) {
    into.push(at.to_owned());
    let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                pointers(member, &format!("{at}/{}", escaped(name)), into);
            }
        }
        Value::Array(members) => {
            for (n, member) in members.iter().enumerate() {
                pointers(member, &format!("{at}/{n}"), into);
            }
        }
        _ => {}
    }
}

fn apply(event: &mut Value, change: Change) {
    let mut places = Vec::new();
    pointers(event, "", &mut places);
    let place = |at: Index| at.get(&places).clone();
    match change {
        Change::Replace(at, value) => *event.pointer_mut(&place(at)).unwrap() = value,
        Change::Copy(from, to) => {
            let copy = event.pointer(&place(from)).unwrap().clone();
            *event.pointer_mut(&place(to)).unwrap() = copy;
        }
        Change::Remove(at) => {
            if let Some(members) = event.pointer_mut(&place(at)).and_then(Value::as_object_mut) {
                let first = members.keys().next().cloned();
                first.and_then(|name| members.remove(&name));
            }
        }
        Change::Rename(at, name) => {
            if let Some(members) = event.pointer_mut(&place(at)).and_then(Value::as_object_mut) {
                let last = members.keys().next_back().cloned();
                let member = last.and_then(|name| members.remove(&name));
                members.extend(member.map(|member| (name, member)));
            }
        }
        Change::Add(at, name, value) => {
            if let Some(members) = event.pointer_mut(&place(at)).and_then(Value::as_object_mut) {
                members.insert(name, value);
            }
        }
    }
}

fn any_ingress() -> impl Strategy<Value = Ingress> {
    let stage = select(vec![None, Some("prod"), Some("/"), Some("")]);
    (select(&super::SOURCES[..]), stage).prop_map(|(source, stage)| Ingress {
        stage: stage.map(str::to_owned),
        ..ingress(source)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn event_changed_anywhere_is_answered(
        ingress in any_ingress(),
        is_multi in any::<bool>(),
        changes in prop::collection::vec(change(), 1..4),
    ) {
        let mut event = match ingress.source {
            EventSource::Alb if is_multi => alb_multi(),
            EventSource::Alb => alb(),
            source => event_of(source),
        };
        for change in changes {
            apply(&mut event, change);
        }
        let event = event.to_string();
        answered(&ingress, &event);
        if let Ok((_, peer)) = ingress.read(&event).request {
            prop_assert!(!peer.address.is_loopback());
        }
    }

    #[test]
    fn event_with_changed_bytes_is_answered(
        ingress in any_ingress(),
        at in any::<Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut event = event_of(ingress.source).to_string().into_bytes();
        let at = at.index(event.len());
        if cut {
            event.truncate(at);
        } else {
            event[at] = byte;
        }
        answered(&ingress, &String::from_utf8_lossy(&event));
    }
}
