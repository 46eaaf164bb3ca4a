//! The OpenAPI document: made from what is mounted, and held against what is asked and answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use http::{Method, Request};
use jsonschema::Validator;
use keyway_dialect_minio::Minio;
use keyway_dialect_rustfs::RustFs;
use keyway_dialect_s3::S3;
use keyway_dialect_sts::Sts;
use keyway_http::{BasePath, Mount, Page};
use keyway_openapi::{DOCUMENT, Document};
use serde_json::{Value, json};

use crate::Answer;

/// The document of these mounts.
///
/// # Errors
/// What is not described, or described and not there.
pub(crate) fn made(
    rustfs: &Mount<RustFs>,
    buckets: &Mount<RustFs>,
    minio: &Mount<Minio>,
    sts: &Mount<Sts>,
    s3: &Mount<S3>,
    health: &Mount<Page>,
) -> Result<String, Vec<String>> {
    let mut document = Document::new();
    document.mount(rustfs, keyway_dialect_rustfs::description());
    document.mount(buckets, keyway_dialect_rustfs::bucket_description());
    document.mount(minio, keyway_dialect_minio::description());
    document.mount(sts, keyway_dialect_sts::description());
    document.mount(s3, keyway_dialect_s3::description());
    document.mount(health, keyway_health::description());
    let own = keyway_openapi::mount().expect("two routes");
    document.mount(&own, keyway_openapi::own_description());
    document.finish(env!("CARGO_PKG_VERSION"))
}

/// The committed document, to hold requests and answers against.
pub struct Described {
    document: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

/// What the document says of a method and path.
enum Match<'d> {
    /// Where the operation is in the document, and itself.
    Operation(String, &'d Value),
    OtherMethods,
    Nothing,
}

impl Described {
    /// The one that binaries serve.
    pub fn committed() -> &'static Self {
        static COMMITTED: OnceLock<Described> = OnceLock::new();
        COMMITTED.get_or_init(|| Self {
            document: serde_json::from_slice(DOCUMENT).expect("it is JSON"),
            validators: Mutex::default(),
        })
    }

    /// The document.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Whether this answer to this request is one that is described, and the request, if it was taken, as well.
    ///
    /// # Errors
    /// What is not as described.
    pub fn check(&self, request: &Request<Bytes>, answer: &Answer) -> Result<(), String> {
        let status = answer.status.as_u16();
        let path = request.uri().path();
        let base = request.extensions().get::<BasePath>();
        let below = base.map_or(Some(path), |base| path.strip_prefix(base.0.as_str()));
        let place = below.map_or(Match::Nothing, |path| self.find(request.method(), path));
        let said = match place {
            _ if request.method() == Method::OPTIONS => Ok(()),
            Match::Nothing if status == 404 => Ok(()),
            Match::OtherMethods if status == 405 => Ok(()),
            // What no other dialect has is an operation of S3 that is not served.
            Match::Nothing | Match::OtherMethods
                if status == 501 && answer.header("x-amz-request-id").is_some() =>
            {
                Ok(())
            }
            // A word of one mount goes before a parameter of another, whatever the method.
            Match::Operation(pointer, _) if status == 405 && pointer.contains('{') => Ok(()),
            Match::Nothing => Err("no such path is described".to_owned()),
            Match::OtherMethods => Err("no such method is described".to_owned()),
            Match::Operation(pointer, operation) => self
                .answered(&pointer, operation, request.method(), answer)
                .and_then(|()| {
                    if answer.status.is_success() {
                        self.taken(&pointer, operation, request)
                    } else {
                        Ok(())
                    }
                }),
        };
        said.map_err(|said| {
            let body = String::from_utf8_lossy(&answer.body);
            format!(
                "{} {}: {status} {body}: {said}",
                request.method(),
                request.uri()
            )
        })
    }

    fn find(&self, method: &Method, path: &str) -> Match<'_> {
        let paths = self.document["paths"].as_object().expect("paths");
        let mut fits: Vec<&String> = paths.keys().filter(|known| matches(known, path)).collect();
        // A word goes before a parameter.
        fits.sort_by_key(|known| known.contains('{'));
        let name = method.as_str().to_ascii_lowercase();
        for known in &fits {
            let operation = &paths[*known][&name];
            if operation.is_object() {
                return Match::Operation(format!("/paths/{}/{name}", escaped(known)), operation);
            }
        }
        if fits.is_empty() {
            Match::Nothing
        } else {
            Match::OtherMethods
        }
    }

    fn answered(
        &self,
        operation_at: &str,
        operation: &Value,
        method: &Method,
        answer: &Answer,
    ) -> Result<(), String> {
        let status = answer.status.as_str();
        let described = operation["responses"]
            .get(status)
            .ok_or("it has no such answer")?;
        let (at, described) =
            self.followed(format!("{operation_at}/responses/{status}"), described);
        for (name, header) in described["headers"].as_object().into_iter().flatten() {
            let (at, _) = self.followed(format!("{at}/headers/{name}"), header);
            let value = answer.header(name).ok_or(format!("it lacks {name}"))?;
            self.valid(&format!("{at}/schema"), &value.into())
                .map_err(|said| format!("{name}: {said}"))?;
        }
        let Some(content) = described["content"].as_object() else {
            return if answer.body.is_empty() {
                Ok(())
            } else {
                Err("it has no body".to_owned())
            };
        };
        if method == Method::HEAD {
            return Ok(());
        }
        let media_type = answer.header("content-type").unwrap_or_default();
        if !content.contains_key(media_type) {
            return Err(format!("it is not of the type {media_type:?}"));
        }
        if media_type != "application/json" {
            return Ok(());
        }
        let body = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        self.valid(
            &format!("{at}/content/{}/schema", escaped(media_type)),
            &body,
        )
    }

    /// What was taken must be described: who reads only the document must not be told that it would be refused.
    fn taken(
        &self,
        operation_at: &str,
        operation: &Value,
        request: &Request<Bytes>,
    ) -> Result<(), String> {
        let parameters = operation["parameters"].as_array();
        let names: Vec<&Value> = parameters
            .into_iter()
            .flatten()
            .map(|parameter| &self.followed(String::new(), parameter).1["name"])
            .collect();
        for pair in request.uri().query().unwrap_or_default().split('&') {
            let name = pair.split('=').next().unwrap_or_default();
            let signature = name.to_ascii_lowercase().starts_with("x-amz-");
            if !name.is_empty() && !signature && !names.iter().any(|known| *known == name) {
                return Err(format!("no parameter {name} is described"));
            }
        }
        let body = request.body().trim_ascii();
        let content = &operation["requestBody"]["content"];
        if body.is_empty() || content["application/json"].is_null() {
            return Ok(());
        }
        let body = serde_json::from_slice(keyway_http::without_bom(body))
            .map_err(|error| error.to_string())?;
        let at = format!("{operation_at}/requestBody/content/application~1json/schema");
        self.valid(&at, &body)
            .map_err(|said| format!("the body that was taken: {said}"))
    }

    /// What a reference refers to.
    fn followed<'d>(&'d self, at: String, value: &'d Value) -> (String, &'d Value) {
        match value["$ref"].as_str() {
            None => (at, value),
            Some(reference) => {
                let at = reference.strip_prefix('#').expect("of this document");
                (
                    at.to_owned(),
                    self.document.pointer(at).expect("it is there"),
                )
            }
        }
    }

    /// Whether the value fits the schema at this place of the document.
    ///
    /// # Errors
    /// Where it does not.
    pub fn valid(&self, at: &str, value: &Value) -> Result<(), String> {
        let validators = self.validators.lock();
        let mut validators = validators.unwrap_or_else(PoisonError::into_inner);
        let validator = validators.entry(at.to_owned()).or_insert_with(|| {
            let mut schema = self.document.clone();
            // A reference is a URI, which has no braces.
            let reference = at.replace('{', "%7B").replace('}', "%7D");
            schema["$ref"] = json!(format!("#{reference}"));
            let built = jsonschema::options()
                .should_validate_formats(true)
                .build(&schema);
            Arc::new(built.unwrap_or_else(|error| panic!("{at}: {error}")))
        });
        let validator = Arc::clone(validator);
        drop(validators);
        let wrong: Vec<String> = validator
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("; "))
        }
    }
}

fn matches(known: &str, path: &str) -> bool {
    let (known, path): (Vec<_>, Vec<_>) = (known.split('/').collect(), path.split('/').collect());
    known.len() == path.len()
        && known.iter().zip(&path).all(|(known, segment)| {
            known == segment || known.starts_with('{') && !segment.is_empty()
        })
}

/// A name in a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
