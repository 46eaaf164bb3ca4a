use std::net::{IpAddr, Ipv4Addr};

use keyway_http::{BasePath, ClientCertificate, IamCaller};
use serde_json::{Value, json};

use super::{
    alb, alb_multi, event_of, function_url, http_api, ingress, read, rest_api, with, without,
};
use crate::{EventSource, Ingress, UnknownEventSource};

const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn staged(source: &str, stage: &str) -> Ingress {
    Ingress {
        stage: Some(stage.to_owned()),
        ..ingress(source)
    }
}

#[test]
fn source_is_parsed_from_its_name() {
    for name in super::SOURCES {
        let source: EventSource = name.parse().unwrap();
        assert_eq!(source.to_string(), name);
    }
    for name in ["", "HTTP-API", "http_api", "alb ", "websocket"] {
        let error: UnknownEventSource = name.parse::<EventSource>().unwrap_err();
        let error = error.to_string();
        for allowed in super::SOURCES {
            assert!(error.contains(allowed), "{error}");
        }
    }
}

#[test]
fn http_api_event_is_read() {
    let read = read(&ingress("http-api"), &http_api()).unwrap();
    assert_eq!(read.line, "POST /echo/facts?b=2&a=%2f&a=1");
    assert_eq!(read.base, None);
    assert_eq!(read.header("x-twice"), ["one,two"]);
    assert_eq!(read.header("cookie"), ["c=1; d=2"]);
    assert_eq!(read.headers.len(), 11);
    assert_eq!(read.body, b"{\"key\":\"a b\"}");
    assert_eq!(read.peer.address.to_string(), "203.0.113.7");
    assert!(read.peer.encrypted);
    assert_eq!(read.peer.client_certificate, None);
    assert_eq!(read.peer.iam_caller, None);
}

#[test]
fn function_url_event_is_read() {
    let read = read(&ingress("function-url"), &function_url()).unwrap();
    assert_eq!(read.line, "POST /echo/facts?a=1");
    assert_eq!(read.body, b"{\"key\":\"a\"}");
    assert_eq!(read.header("cookie"), [""; 0]);
    assert_eq!(read.peer.address.to_string(), "2001:db8::7");
    assert!(read.peer.encrypted);
    assert_eq!(
        read.peer.iam_caller,
        Some(IamCaller {
            arn: "arn:aws:iam::111122223333:user/alice".to_owned(),
            account_id: "111122223333".to_owned(),
            access_key_id: "AKIDEXAMPLE".to_owned(),
        })
    );
}

#[test]
fn rest_api_event_is_read() {
    let read = read(&ingress("rest-api"), &rest_api()).unwrap();
    assert!(read.line.starts_with("POST /prod/echo/facts?"));
    let (_, query) = read.line.split_once('?').unwrap();
    let mut pairs: Vec<_> = query.split('&').collect();
    let values: Vec<_> = pairs.iter().filter(|pair| pair.starts_with("a=")).collect();
    assert_eq!(values, [&"a=%2F%20%2B%C3%A9~%2A", &"a=1"]);
    pairs.sort_unstable();
    assert_eq!(pairs, ["a=%2F%20%2B%C3%A9~%2A", "a=1", "b=2"]);
    assert_eq!(read.base.as_deref(), Some("/prod"));
    assert_eq!(read.header("x-twice"), ["one", "two"]);
    assert_eq!(read.header("accept"), ["*/*"]);
    assert_eq!(read.body, b"{\"key\":\"a b\"}");
    assert_eq!(read.peer.address.to_string(), "203.0.113.7");
    assert!(read.peer.encrypted);
    assert_eq!(read.peer.iam_caller, None);
}

#[test]
fn load_balancer_event_is_read() {
    for event in [alb(), alb_multi()] {
        let read = read(&ingress("alb"), &event).unwrap();
        assert_eq!(read.line, "POST /echo/facts?a=%2f+%C3%A9&b=2");
        assert_eq!(read.base, None);
        assert_eq!(read.header("host"), ["keyway.example.com"]);
        assert_eq!(read.headers.len(), 6);
        assert_eq!(read.peer.address.to_string(), "203.0.113.7");
        assert!(read.peer.encrypted);
        assert_eq!(read.peer.client_certificate, None);
        assert_eq!(read.peer.iam_caller, None);
    }
    let repeated = with(
        &alb_multi(),
        "/multiValueHeaders/x-twice",
        json!(["one", "two"]),
    );
    let repeated = with(
        &repeated,
        "/multiValueQueryStringParameters/a",
        json!(["2", "", "1"]),
    );
    let read = read(&ingress("alb"), &repeated).unwrap();
    assert_eq!(read.header("x-twice"), ["one", "two"]);
    assert_eq!(read.line, "POST /echo/facts?a=2&a=&a=1&b=2");
}

#[test]
fn load_balancer_health_check_is_read() {
    let event = json!({
        "requestContext": { "elb": { "targetGroupArn": "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/keyway/0" } },
        "httpMethod": "GET",
        "path": "/",
        "queryStringParameters": {},
        "headers": { "user-agent": "ELB-HealthChecker/2.0" },
        "body": "",
        "isBase64Encoded": false
    });
    let read = read(&ingress("alb"), &event).unwrap();
    assert_eq!(read.line, "GET /");
    assert_eq!(read.peer.address, NOWHERE);
    assert!(!read.peer.encrypted);
    assert!(!read.peer.is_private());
}

#[test]
fn path_stays_as_signed() {
    for (raw, line) in [
        ("/", "/"),
        ("/a%20b", "/a%20b"),
        ("/a b", "/a%20b"),
        ("/a\"b", "/a%22b"),
        ("/é", "/%C3%A9"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a%2fb", "/a%2fb"),
        ("/a%", "/a%"),
        ("/a%zz%252F", "/a%zz%252F"),
        ("/a/../b/./c", "/a/../b/./c"),
        ("//a//b//", "//a//b//"),
        ("/a\\b", "/a\\b"),
        ("/a?b#c", "/a%3Fb%23c"),
        ("/a;b=c,d:e@f!$&'()*+", "/a;b=c,d:e@f!$&'()*+"),
        ("/<>^`{|}", "/%3C%3E%5E%60%7B%7C%7D"),
        ("/[a]~-._", "/[a]~-._"),
        ("/\u{0}\n\u{7f}", "/%00%0A%7F"),
        ("/http://host/", "/http://host/"),
    ] {
        for (source, pointer) in [
            ("http-api", "/rawPath"),
            ("function-url", "/rawPath"),
            ("alb", "/path"),
            ("rest-api", "/path"),
        ] {
            let ingress = ingress(source);
            let event = with(&event_of(ingress.source), pointer, json!(raw));
            let read = read(&ingress, &event).unwrap();
            let (_, target) = read.line.split_once(' ').unwrap();
            let (path, _) = target.split_once('?').unwrap();
            assert_eq!(path, line, "{source}");
        }
    }
}

#[test]
fn query_stays_as_signed() {
    for (raw, target) in [
        ("", "/echo/facts"),
        ("a", "/echo/facts?a"),
        ("a=1&b&&c==?/", "/echo/facts?a=1&b&&c==?/"),
        ("z=1&a=%2f%2F%zz+", "/echo/facts?z=1&a=%2f%2F%zz+"),
        ("a=é \"#<>", "/echo/facts?a=%C3%A9%20%22%23%3C%3E"),
        ("a={}|\\^`[]'", "/echo/facts?a={}|\\^`[]'"),
    ] {
        for source in ["http-api", "function-url"] {
            let ingress = ingress(source);
            let event = with(&event_of(ingress.source), "/rawQueryString", json!(raw));
            assert_eq!(
                read(&ingress, &event).unwrap().line,
                format!("POST {target}")
            );
        }
        // A load balancer's values are raw, too.
        if let Some((name, value)) = raw.split_once('=').filter(|(name, _)| name.len() == 1) {
            let event = with(&alb(), "/queryStringParameters", json!({ name: value }));
            let read = read(&ingress("alb"), &event).unwrap();
            assert_eq!(read.line, format!("POST {target}"));
        }
    }
    let absent = read(
        &ingress("http-api"),
        &without(&http_api(), "/rawQueryString"),
    );
    assert_eq!(absent.unwrap().line, "POST /echo/facts");
}

#[test]
fn rest_api_query_is_encoded_as_signed() {
    let line = |event: &Value| read(&ingress("rest-api"), event).unwrap().line;
    let multi = "/multiValueQueryStringParameters";
    let single = "/queryStringParameters";
    for (value, encoded) in [
        ("", ""),
        ("a b", "a%20b"),
        ("a+b", "a%2Bb"),
        ("a/b?c&d=e#f", "a%2Fb%3Fc%26d%3De%23f"),
        ("100%", "100%25"),
        ("%2F", "%252F"),
        ("!*'()", "%21%2A%27%28%29"),
        ("-._~", "-._~"),
        ("é\u{0}", "%C3%A9%00"),
    ] {
        let event = with(&rest_api(), multi, json!({ "a": [value], value: ["x"] }));
        let expected = [format!("a={encoded}"), format!("{encoded}=x")];
        let line = line(&event);
        let (_, query) = line.split_once('?').unwrap();
        let pairs: Vec<_> = query.split('&').collect();
        assert_eq!(pairs.len(), 2);
        assert!(
            expected.iter().all(|pair| pairs.contains(&pair.as_str())),
            "{query}"
        );
    }
    let fallback = with(&rest_api(), multi, Value::Null);
    assert_eq!(line(&fallback), "POST /prod/echo/facts?a=1&b=2");
    let neither = with(&fallback, single, Value::Null);
    assert_eq!(line(&neither), "POST /prod/echo/facts");
    assert_eq!(
        line(&without(&without(&rest_api(), multi), single)),
        "POST /prod/echo/facts"
    );
}

#[test]
fn stage_is_a_whole_segment() {
    for (stage, path, base) in [
        ("prod", "/prod/echo", Some("/prod")),
        ("/prod/", "/prod/echo", Some("/prod")),
        ("prod", "/prod", Some("/prod")),
        ("a/b", "/a/b/echo", Some("/a/b")),
        ("prod", "/production/echo", None),
        ("prod", "/echo/prod", None),
        ("prod", "//prod/echo", None),
        ("prod", "/pro%64/echo", None),
        ("", "/echo", None),
        ("/", "//echo", None),
    ] {
        for (source, pointer) in [
            ("http-api", "/rawPath"),
            ("function-url", "/rawPath"),
            ("alb", "/path"),
        ] {
            let ingress = staged(source, stage);
            let event = with(&event_of(ingress.source), pointer, json!(path));
            let read = read(&ingress, &event).unwrap();
            assert!(
                read.line.starts_with(&format!("POST {path}?")),
                "{}",
                read.line
            );
            assert_eq!(read.base.as_deref(), base, "{source} {stage} {path}");
        }
    }
}

#[test]
fn rest_api_stage_comes_from_the_context() {
    let case = |ingress: &Ingress, signed: Value, path: &str| {
        let event = with(&rest_api(), "/path", json!(path));
        let event = with(&event, "/requestContext/path", signed);
        let read = read(ingress, &event).unwrap();
        let (target, _) = read.line.split_once('?').unwrap();
        (target.to_owned(), read.base)
    };
    let plain = ingress("rest-api");
    let target = |target: &str, base: Option<&str>| (target.to_owned(), base.map(str::to_owned));
    assert_eq!(
        case(&plain, json!("/a/b/echo/x"), "/echo/x"),
        target("POST /a/b/echo/x", Some("/a/b"))
    );
    assert_eq!(
        case(&plain, json!("/echo/x"), "/echo/x"),
        target("POST /echo/x", None)
    );
    assert_eq!(
        case(&plain, json!("/p q/e f"), "/e f"),
        target("POST /p%20q/e%20f", Some("/p%20q"))
    );
    // The context's path is unrelated, so it gives no base path.
    assert_eq!(
        case(&plain, json!("/prod/other"), "/echo"),
        target("POST /echo", None)
    );
    assert_eq!(
        case(&plain, Value::Null, "/echo"),
        target("POST /echo", None)
    );
    // Behind a custom domain both paths have the base path.
    assert_eq!(
        case(&staged("rest-api", "kms"), json!("/kms/echo"), "/kms/echo"),
        target("POST /kms/echo", Some("/kms"))
    );
    assert_eq!(
        case(
            &staged("rest-api", "kms"),
            json!("/prod/kms/echo"),
            "/kms/echo"
        ),
        target("POST /prod/kms/echo", Some("/prod"))
    );
}

#[test]
fn base_path_reaches_the_site() {
    let (request, _) = ingress("rest-api")
        .read(&rest_api().to_string())
        .request
        .unwrap();
    let BasePath(base) = request.extensions().get().unwrap();
    assert_eq!(
        request.uri().path().strip_prefix(base.as_str()),
        Some("/echo/facts")
    );
}

#[test]
fn headers_are_kept() {
    let event = with(&rest_api(), "/multiValueHeaders", Value::Null);
    let single = read(&ingress("rest-api"), &event).unwrap();
    assert_eq!(single.header("x-twice"), ["two"]);
    let none = read(&ingress("rest-api"), &with(&event, "/headers", Value::Null)).unwrap();
    assert_eq!(none.headers, []);
    let none = read(&ingress("http-api"), &without(&http_api(), "/headers")).unwrap();
    assert_eq!(none.headers.len(), 1, "the cookies are left");
    let none = with(&http_api(), "/cookies", json!([]));
    assert_eq!(read(&ingress("http-api"), &none).unwrap().headers.len(), 10);
    let odd = with(
        &http_api(),
        "/headers",
        json!({ "X-Odd": "\té ", "x-empty": "" }),
    );
    let odd = read(&ingress("http-api"), &odd).unwrap();
    assert_eq!(odd.header("x-odd"), ["\té "]);
    assert_eq!(odd.header("x-empty"), [""]);
    // Two members of one name are two headers, not one of the two.
    let event = http_api().to_string().replace("\"x-twice\"", "\"host\"");
    let (request, _) = ingress("http-api").read(&event).request.unwrap();
    assert_eq!(request.headers().get_all("host").iter().count(), 2);
}

#[test]
fn body_is_what_was_sent() {
    for source in super::SOURCES {
        let ingress = ingress(source);
        let event = event_of(ingress.source);
        let body = |body: Value, flag: Value| {
            let event = with(&event, "/body", body);
            read(&ingress, &with(&event, "/isBase64Encoded", flag))
                .unwrap()
                .body
        };
        assert_eq!(body(Value::Null, json!(false)), b"");
        assert_eq!(body(Value::Null, json!(true)), b"");
        assert_eq!(body(json!(""), json!(true)), b"");
        assert_eq!(body(json!("AP8="), json!(true)), b"\x00\xff");
        assert_eq!(body(json!("AP8="), json!(false)), b"AP8=");
        assert_eq!(body(json!("é\u{0}"), Value::Null), "é\0".as_bytes());
        assert_eq!(read(&ingress, &without(&event, "/body")).unwrap().body, b"");
        let unsaid = without(&with(&event, "/body", json!("x")), "/isBase64Encoded");
        assert_eq!(read(&ingress, &unsaid).unwrap().body, b"x");
    }
}

#[test]
fn method_is_kept() {
    for method in ["GET", "HEAD", "post", "PROPFIND", "a"] {
        for source in super::SOURCES {
            let ingress = ingress(source);
            let pointer = match ingress.source {
                EventSource::HttpApi | EventSource::FunctionUrl => "/requestContext/http/method",
                EventSource::RestApi | EventSource::Alb | EventSource::ApiGateway => "/httpMethod",
            };
            let event = with(&event_of(ingress.source), pointer, json!(method));
            let line = read(&ingress, &event).unwrap().line;
            assert!(line.starts_with(&format!("{method} /")), "{line}");
        }
    }
}

/// The addresses that gateways claim, and how they are read.
const ADDRESSES: [(&str, &str); 14] = [
    ("203.0.113.7", "203.0.113.7"),
    ("2001:db8::7", "2001:db8::7"),
    ("203.0.113.7:49152", "203.0.113.7"),
    ("[2001:db8::7]:49152", "2001:db8::7"),
    ("::ffff:203.0.113.7", "203.0.113.7"),
    ("10.0.0.1", "10.0.0.1"),
    ("127.0.0.1", "0.0.0.0"),
    ("127.8.9.10", "0.0.0.0"),
    ("127.0.0.1:80", "0.0.0.0"),
    ("::1", "0.0.0.0"),
    ("::ffff:127.0.0.1", "0.0.0.0"),
    ("[::1]:443", "0.0.0.0"),
    ("test-invoke-source-ip", "0.0.0.0"),
    ("", "0.0.0.0"),
];

#[test]
fn loopback_address_in_an_event_is_not_taken() {
    for (claimed, address) in ADDRESSES {
        for (source, pointer) in [
            ("http-api", "/requestContext/http/sourceIp"),
            ("function-url", "/requestContext/http/sourceIp"),
            ("rest-api", "/requestContext/identity/sourceIp"),
            ("alb", "/headers/x-forwarded-for"),
        ] {
            let ingress = ingress(source);
            let event = with(&event_of(ingress.source), pointer, json!(claimed));
            let read = read(&ingress, &event).unwrap();
            assert_eq!(read.peer.address.to_string(), address, "{source} {claimed}");
            assert!(!read.peer.address.is_loopback());
        }
    }
    for (source, pointer) in [
        ("http-api", "/requestContext/http/sourceIp"),
        ("rest-api", "/requestContext/identity/sourceIp"),
    ] {
        let ingress = ingress(source);
        let event = event_of(ingress.source);
        let unsaid = read(&ingress, &without(&event, pointer)).unwrap();
        assert_eq!(unsaid.peer.address, NOWHERE);
        let null = read(&ingress, &with(&event, pointer, Value::Null)).unwrap();
        assert_eq!(null.peer.address, NOWHERE);
    }
}

#[test]
fn last_value_of_a_load_balancer_header_counts() {
    let peer = |name: &str, values: Value| {
        let event = with(&alb_multi(), &format!("/multiValueHeaders/{name}"), values);
        read(&ingress("alb"), &event).unwrap().peer
    };
    let address = |values| peer("x-forwarded-for", values).address.to_string();
    assert_eq!(
        address(json!(["192.0.2.1", "192.0.2.2, 192.0.2.3"])),
        "192.0.2.3"
    );
    assert_eq!(address(json!(["192.0.2.1", "127.0.0.1"])), "0.0.0.0");
    assert_eq!(address(json!(["192.0.2.1, "])), "0.0.0.0");
    assert_eq!(address(json!([])), "0.0.0.0");
    assert_eq!(address(json!(["192.0.2.1,é"])), "0.0.0.0");
    let encrypted = |values| peer("x-forwarded-proto", values).encrypted;
    assert!(encrypted(json!(["https"])));
    assert!(encrypted(json!(["http", "https"])));
    for values in [
        json!(["http"]),
        json!(["https", "http"]),
        json!(["http,https"]),
        json!(["https, https"]),
        json!(["HTTPS"]),
        json!([" https"]),
        json!(["wss"]),
        json!([""]),
        json!([]),
    ] {
        assert!(!encrypted(values.clone()), "{values}");
    }
}

const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";

#[test]
fn client_certificates_come_from_the_gateway() {
    let certificate = json!({ "clientCert": {
        "clientCertPem": PEM, "issuerDN": "CN=ca", "serialNumber": "1", "subjectDN": "CN=alice",
        "validity": { "notAfter": "Jan  2 03:04:05 2027 GMT", "notBefore": "Jan  2 03:04:05 2026 GMT" }
    }});
    for (source, event) in [
        (
            "http-api",
            with(
                &http_api(),
                "/requestContext/authentication",
                certificate.clone(),
            ),
        ),
        (
            "rest-api",
            with(
                &rest_api(),
                "/requestContext/identity/clientCert",
                certificate["clientCert"].clone(),
            ),
        ),
    ] {
        let peer = read(&ingress(source), &event).unwrap().peer;
        let shown = ClientCertificate::Pem(PEM.into());
        assert_eq!(peer.client_certificate, Some(shown));
    }
    for nothing in [
        Value::Null,
        json!({}),
        json!({ "clientCert": null }),
        json!({ "clientCert": {} }),
        json!({ "clientCert": { "clientCertPem": null } }),
        json!({ "clientCert": { "clientCertPem": "" } }),
    ] {
        let event = with(&http_api(), "/requestContext/authentication", nothing);
        assert_eq!(
            read(&ingress("http-api"), &event)
                .unwrap()
                .peer
                .client_certificate,
            None
        );
    }
}

#[test]
fn iam_callers_come_from_the_gateway() {
    let arn = "arn:aws:sts::111122223333:assumed-role/operator/alice";
    let mut event = rest_api();
    for (name, value) in [
        ("userArn", arn),
        ("accountId", "111122223333"),
        ("accessKey", "ASIAEXAMPLE"),
    ] {
        let unnamed = read(&ingress("rest-api"), &event).unwrap().peer;
        assert_eq!(unnamed.iam_caller, None, "a part is no caller");
        event = with(
            &event,
            &format!("/requestContext/identity/{name}"),
            json!(value),
        );
    }
    let caller = read(&ingress("rest-api"), &event)
        .unwrap()
        .peer
        .iam_caller
        .unwrap();
    assert_eq!(
        (&*caller.arn, &*caller.account_id, &*caller.access_key_id),
        (arn, "111122223333", "ASIAEXAMPLE")
    );
    let iam = "/requestContext/authorizer/iam";
    for field in ["userArn", "accountId", "accessKey"] {
        for nothing in [Value::Null, json!("")] {
            let event = with(&function_url(), &format!("{iam}/{field}"), nothing);
            assert_eq!(
                read(&ingress("function-url"), &event)
                    .unwrap()
                    .peer
                    .iam_caller,
                None
            );
        }
    }
    for authorizer in [
        Value::Null,
        json!({}),
        json!({ "iam": null }),
        json!({ "jwt": { "claims": { "sub": "alice" }, "scopes": null } }),
        json!({ "lambda": { "userArn": arn } }),
    ] {
        let event = with(&function_url(), "/requestContext/authorizer", authorizer);
        assert_eq!(
            read(&ingress("function-url"), &event)
                .unwrap()
                .peer
                .iam_caller,
            None
        );
    }
}

#[test]
fn headers_name_neither_address_nor_certificate_nor_caller() {
    let lies = json!({
        "forwarded": "for=127.0.0.1;proto=https",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-real-ip": "127.0.0.1",
        "x-amzn-mtls-clientcert": "-----BEGIN%20CERTIFICATE-----%0AMIIB",
        "x-amzn-mtls-clientcert-leaf": "-----BEGIN%20CERTIFICATE-----%0AMIIB",
        "x-client-cert": "MIIB",
        "x-amzn-request-context": "{\"authorizer\":{\"iam\":{\"userArn\":\"a\",\"accountId\":\"b\",\"accessKey\":\"c\"}}}",
        "userarn": "arn:aws:iam::111122223333:root"
    });
    for source in ["http-api", "rest-api"] {
        let ingress = ingress(source);
        let event = with(&event_of(ingress.source), "/headers", lies.clone());
        let event = with(&event, "/multiValueHeaders", Value::Null);
        let peer = read(&ingress, &event).unwrap().peer;
        assert_eq!(peer.address.to_string(), "203.0.113.7");
        assert!(peer.encrypted);
        assert_eq!((peer.client_certificate, peer.iam_caller), (None, None));
    }
    let event = with(&alb(), "/headers", lies);
    let peer = read(&ingress("alb"), &event).unwrap().peer;
    assert_eq!(peer.address, NOWHERE);
    assert!(!peer.is_private());
    assert_eq!((peer.client_certificate, peer.iam_caller), (None, None));
}
