//! Both runtimes give the same answers to the same requests, over sites with the same random bytes.

use std::time::SystemTime;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use keyway_domain::ports::Clock;
use keyway_runtime_lambda::{EventSource, serve};
use keyway_tests::{Answer, MemorySite, Target, every_route, http_api_event};

use crate::{Function, ingress};

const HOST: &str = "keyway.test";
const ROOT: (&str, &str) = ("root", "root-secret");

async fn site() -> MemorySite {
    MemorySite::running_with(Some("default"), true).await
}

#[tokio::test]
#[ignore = "a function, which another test starts"]
async fn memory_function() {
    let ingress = ingress(EventSource::HttpApi, false);
    serve(site().await.site(), ingress).await.unwrap();
}

struct Lambda {
    function: Function,
    now: SystemTime,
}

impl Target for Lambda {
    fn host(&self) -> String {
        HOST.to_owned()
    }

    fn now(&self) -> SystemTime {
        self.now
    }

    async fn send(&self, request: Request<Bytes>) -> Answer {
        let invocation = self.function.api.invoke(&http_api_event(&request)).await;
        invocation.http().into()
    }
}

struct Socket {
    address: String,
    client: Client<HttpConnector, Full<Bytes>>,
    now: SystemTime,
}

impl Target for Socket {
    fn host(&self) -> String {
        HOST.to_owned()
    }

    fn now(&self) -> SystemTime {
        self.now
    }

    async fn send(&self, request: Request<Bytes>) -> Answer {
        let (mut parts, body) = request.into_parts();
        parts.uri = format!("http://{}{}", self.address, parts.uri)
            .parse()
            .unwrap();
        let request = Request::from_parts(parts, Full::new(body));
        let (parts, body) = self.client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        http::Response::from_parts(parts, body).into()
    }
}

#[tokio::test]
async fn both_runtimes_answer_with_the_same_bytes() {
    let site = site().await;
    let now = SystemTime::from(site.clock.now());
    let listener = keyway_runtime_hyper::listen(
        "127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap(),
        false,
    );
    let listener = listener.await.unwrap();
    let socket = Socket {
        address: listener.local_addr().unwrap().to_string(),
        client: Client::builder(TokioExecutor::new()).build_http(),
        now,
    };
    let server = keyway_runtime_hyper::serve(listener, site.site(), std::future::pending());
    let server = tokio::spawn(server);
    let lambda = Lambda {
        function: Function::start("same::memory_function").await,
        now,
    };
    let over_socket = every_route(&socket, ROOT, "same").await;
    let over_lambda = every_route(&lambda, ROOT, "same").await;
    assert!(over_socket.len() > 50, "the suite was there");
    assert_eq!(over_socket.len(), over_lambda.len());
    for (socket, lambda) in over_socket.iter().zip(&over_lambda) {
        assert_eq!(socket.status, lambda.status);
        // A function's requests come over TLS, so an answer with its own address says https.
        let lambda_body = String::from_utf8_lossy(&lambda.body)
            .replace(&format!("https://{HOST}"), &format!("http://{HOST}"));
        assert_eq!(String::from_utf8_lossy(&socket.body), lambda_body);
        // The gateway adds the headers that HTTP adds on a socket.
        let mut headers = socket.headers.clone();
        for hop in ["date", "content-length", "connection"] {
            headers.remove(hop);
        }
        let mut others = lambda.headers.clone();
        others.remove("content-length");
        assert_eq!(headers, others);
    }
    server.abort();
    lambda.function.stop().await;
}
