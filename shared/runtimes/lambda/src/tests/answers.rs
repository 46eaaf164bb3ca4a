use serde_json::{Value, json};

use super::{alb, alb_multi, answer, echo, event_of, function_url, ingress, with};
use crate::{EventSource, Ingress};

/// The answer to a request for the path, without the site's request id.
fn get(ingress: &Ingress, event: &Value, path: &str) -> Value {
    let mut event = event.clone();
    match ingress.source {
        EventSource::HttpApi | EventSource::FunctionUrl => {
            event["requestContext"]["http"]["method"] = json!("GET");
            event["rawPath"] = json!(path);
        }
        EventSource::RestApi | EventSource::Alb | EventSource::ApiGateway => {
            event["httpMethod"] = json!("GET");
            event["path"] = json!(path);
        }
    }
    let mut answer = answer(&echo::site(), ingress, &event.to_string());
    for field in ["headers", "multiValueHeaders"] {
        if let Some(headers) = answer.get_mut(field) {
            let id = headers.as_object_mut().unwrap().remove("x-request-id");
            assert!(id.is_some());
        }
    }
    answer
}

#[test]
fn answer_has_the_shape_of_its_source() {
    for source in ["http-api", "function-url"] {
        let ingress = ingress(source);
        assert_eq!(
            get(&ingress, &event_of(ingress.source), "/echo/cookies"),
            json!({
                "statusCode": 202,
                "headers": { "allow": "GET, PUT", "content-type": "application/json" },
                "cookies": ["a=1", "b=2"],
                "body": "\"two\"",
                "isBase64Encoded": false
            })
        );
    }
    let multi = json!({
        "allow": ["GET", "PUT"],
        "content-type": ["application/json"],
        "set-cookie": ["a=1", "b=2"]
    });
    let rest = ingress("rest-api");
    assert_eq!(
        get(&rest, &event_of(rest.source), "/echo/cookies"),
        json!({
            "statusCode": 202,
            "multiValueHeaders": multi,
            "body": "\"two\"",
            "isBase64Encoded": false
        })
    );
    assert_eq!(
        get(&ingress("alb"), &alb_multi(), "/echo/cookies"),
        json!({
            "statusCode": 202,
            "statusDescription": "202 Accepted",
            "multiValueHeaders": multi,
            "body": "\"two\"",
            "isBase64Encoded": false
        })
    );
    assert_eq!(
        get(&ingress("alb"), &alb(), "/echo/cookies"),
        json!({
            "statusCode": 202,
            "statusDescription": "202 Accepted",
            "headers": {
                "allow": "GET, PUT",
                "content-type": "application/json",
                "set-cookie": "b=2"
            },
            "body": "\"two\"",
            "isBase64Encoded": false
        })
    );
}

#[test]
fn answer_with_bytes_is_base64() {
    for source in super::SOURCES {
        let ingress = ingress(source);
        let answer = get(&ingress, &event_of(ingress.source), "/echo/bytes");
        assert_eq!(answer["body"], "/wD+");
        assert_eq!(answer["isBase64Encoded"], true);
    }
}

/// The bytes are the same as from a function that answers only one API.
#[test]
fn answer_has_the_shape_of_the_gateways_api() {
    let both = ingress("api-gateway");
    for (source, path) in [("http-api", "/rawPath"), ("rest-api", "/path")] {
        let ingress = ingress(source);
        let event = with(&event_of(ingress.source), path, json!("/nowhere"));
        let without_id = |mut answer: Value| {
            for headers in ["headers", "multiValueHeaders"] {
                if let Some(headers) = answer.get_mut(headers) {
                    headers.as_object_mut().unwrap().remove("x-request-id");
                }
            }
            answer
        };
        let event = event.to_string();
        let expected = without_id(answer(&echo::site(), &ingress, &event));
        assert_eq!(expected["statusCode"], 404);
        assert_eq!(without_id(answer(&echo::site(), &both, &event)), expected);
    }
}

#[test]
fn refused_event_is_answered_in_the_shape_of_its_sender() {
    let (v2, rest) = (
        event_of(EventSource::HttpApi),
        event_of(EventSource::RestApi),
    );
    let of_v2 = ["/rawPath", "/requestContext/http/method"];
    let of_others = ["/path", "/httpMethod"];
    for (source, event, [path, method], headers) in [
        ("api-gateway", v2, of_v2, "headers"),
        ("api-gateway", rest, of_others, "multiValueHeaders"),
        ("alb", alb_multi(), of_others, "multiValueHeaders"),
        ("alb", alb(), of_others, "headers"),
    ] {
        for event in [
            with(&event, path, Value::Null),
            with(&event, method, json!("no method")),
        ] {
            let answer = answer(&echo::site(), &ingress(source), &event.to_string());
            assert_eq!(answer["statusCode"], 400, "{answer}");
            let content_type = match headers {
                "headers" => json!("application/json"),
                _ => json!(["application/json"]),
            };
            assert_eq!(answer[headers]["content-type"], content_type, "{answer}");
        }
    }
}

#[test]
fn refusal_of_the_site_is_answered() {
    for source in super::SOURCES {
        let ingress = ingress(source);
        let event = event_of(ingress.source);
        assert_eq!(get(&ingress, &event, "/nowhere")["statusCode"], 404);
        assert_eq!(get(&ingress, &event, "/echo/facts")["statusCode"], 405);
        assert_eq!(get(&ingress, &event, "/echo/panic")["statusCode"], 500);
    }
}

#[test]
fn request_over_its_timeout_is_answered_without_a_body() {
    for source in super::SOURCES {
        let ingress = ingress(source);
        let answer = get(&ingress, &event_of(ingress.source), "/echo/slow");
        assert_eq!(answer["statusCode"], 504);
        assert_eq!(answer["body"], "");
    }
}

#[test]
fn facts_of_the_event_reach_the_site() {
    let event = event_of(EventSource::RestApi);
    let answer = answer(&echo::site(), &ingress("rest-api"), &event.to_string());
    assert_eq!(answer["statusCode"], 200, "the stage is no part of routes");
    let facts: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(facts["path"], "/prod/echo/facts");
    assert_eq!(facts["address"], "203.0.113.7");
    let named = Ingress {
        stage: Some("prod".to_owned()),
        ..ingress("http-api")
    };
    let event = with(
        &event_of(EventSource::HttpApi),
        "/rawPath",
        json!("/prod/echo/facts"),
    );
    let staged = super::answer(&echo::site(), &named, &event.to_string());
    assert_eq!(staged["statusCode"], 200);
    let unstaged = super::answer(&echo::site(), &ingress("http-api"), &event.to_string());
    assert_eq!(unstaged["statusCode"], 404);
}

#[test]
fn function_url_answer_is_streamed() {
    let streaming = |source| Ingress {
        streaming: true,
        ..ingress(source)
    };
    let answer = get(&streaming("function-url"), &function_url(), "/echo/cookies");
    assert_eq!(answer["prelude"]["statusCode"], 202);
    assert_eq!(answer["prelude"]["headers"]["allow"], "GET, PUT");
    assert_eq!(answer["prelude"]["cookies"], json!(["a=1", "b=2"]));
    assert_eq!(answer["body"], json!(b"\"two\""));
    let answer = get(&streaming("function-url"), &function_url(), "/echo/bytes");
    assert_eq!(answer["body"], json!(b"\xff\x00\xfe"), "as they are");
    // Only function URLs accept a stream.
    for source in ["http-api", "rest-api", "alb"] {
        let ingress = streaming(source);
        let answer = get(&ingress, &event_of(ingress.source), "/echo/cookies");
        assert_eq!(answer["statusCode"], 202);
    }
}
