use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde_json::Value;

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl From<Response<Bytes>> for Answer {
    fn from(response: Response<Bytes>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!(
                "{}: {error}: {:?}",
                self.status,
                String::from_utf8_lossy(&self.body)
            )
        })
    }

    /// The JSON body of a 200.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// A string of a 200's JSON body.
    pub fn text(&self, field: &str) -> String {
        self.ok()[field]
            .as_str()
            .unwrap_or_else(|| panic!("no string `{field}` in {}", self.json()))
            .to_owned()
    }

    /// Status and error code of a refusal, whose shape is checked on the way.
    pub fn refusal(&self) -> (u16, String) {
        let body = self.json();
        assert_eq!(body["success"], false, "{body}");
        assert_eq!(body["code"], body["error"]["code"], "{body}");
        assert_eq!(body["message"], body["error"]["message"], "{body}");
        assert_eq!(
            self.headers["x-request-id"],
            body["error"]["request_id"].as_str().unwrap(),
            "{body}"
        );
        (
            self.status.as_u16(),
            body["code"].as_str().unwrap().to_owned(),
        )
    }

    /// The message of a refusal.
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}
