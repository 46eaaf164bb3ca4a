//! The OpenAPI document: made from the mounts, and compared with requests and answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use http::{Method, Request};
use jsonschema::Validator;
use keyway_http::{BasePath, Dialect, Mount};
use keyway_openapi::{DOCUMENT, Document};
use keyway_sites::Mounts;
use serde_json::{Value, json};

use crate::Answer;
use crate::routes::matches;

/// The document of these mounts.
///
/// # Errors
/// The routes that are not described, or are described and not mounted.
pub(crate) fn made(mounts: &Mounts) -> Result<String, Vec<String>> {
    let mut document = Document::new();
    if let Some(rustfs) = &mounts.rustfs {
        document.mount(rustfs, keyway_dialect_rustfs::description());
    }
    if let Some(buckets) = &mounts.buckets {
        document.mount(buckets, keyway_dialect_rustfs::bucket_description());
    }
    if let Some(minio) = &mounts.minio {
        document.mount(minio, keyway_dialect_minio::description());
    }
    // The document has one operation for `POST /`: STS's, which names the other one.
    for aws in &mounts.aws {
        match aws.prefixes() {
            ["/aws"] => document.mount(aws, keyway_dialect_aws::keys_description()),
            ["/aws/data"] => document.mount(aws, keyway_dialect_aws::data_description()),
            _ => {}
        }
    }
    if let Some(sts) = &mounts.sts {
        document.mount(sts, keyway_dialect_sts::description());
    }
    if let Some(s3) = &mounts.s3 {
        document.mount(s3, keyway_dialect_s3::description());
    }
    if let Some(kes) = &mounts.kes {
        document.mount(kes, keyway_dialect_kes::description());
    }
    if let Some(health) = &mounts.health {
        document.mount(health, keyway_health::description());
    }
    if let Some(own) = &mounts.document {
        document.mount(own, keyway_openapi::own_description());
    }
    document.finish(env!("CARGO_PKG_VERSION"))
}

/// Dialect, method and whole path of every route that is mounted.
pub(crate) fn mounted(mounts: &Mounts) -> Vec<(&'static str, String, String)> {
    fn of<D: Dialect>(
        dialect: &'static str,
        mount: Option<&Mount<D>>,
    ) -> Vec<(&'static str, String, String)> {
        let mount = mount.expect("every group");
        let mut found = Vec::new();
        for prefix in mount.prefixes() {
            for route in mount.routes() {
                let path = format!("{prefix}{}", route.path);
                found.push((dialect, route.method.to_string(), path));
            }
        }
        found
    }
    [
        of("rustfs", mounts.rustfs.as_deref()),
        of("rustfs", mounts.buckets.as_deref()),
        of("minio", mounts.minio.as_deref()),
        of("kes", mounts.kes.as_deref()),
        of("s3", mounts.s3.as_deref()),
        (mounts.aws.iter())
            .flat_map(|aws| of("aws", Some(aws)))
            .collect(),
        of("sts", mounts.sts.as_deref()),
        of("health", mounts.health.as_deref()),
        of("openapi", mounts.document.as_deref()),
    ]
    .concat()
}

/// The committed document, to compare requests and answers with.
pub struct Described {
    document: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

/// The document's operation for a method and path.
enum Match<'d> {
    /// The operation and its place in the document.
    Operation(String, &'d Value),
    OtherMethods,
    Nothing,
}

impl Described {
    /// The document that binaries serve.
    pub fn committed() -> &'static Self {
        static COMMITTED: OnceLock<Described> = OnceLock::new();
        COMMITTED.get_or_init(|| Self {
            document: serde_json::from_slice(DOCUMENT).expect("it is JSON"),
            validators: Mutex::default(),
        })
    }

    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Checks that the document describes this answer to this request, and the request too if it was accepted.
    ///
    /// # Errors
    /// The difference from the description.
    pub fn check(&self, request: &Request<Bytes>, answer: &Answer) -> Result<(), String> {
        let said = self.said(request, answer);
        with_both(said, request, answer)
    }

    /// Like [`Self::check`], for a listener of KES's API alone.
    ///
    /// # Errors
    /// The difference from the description.
    pub fn check_kes(&self, request: &Request<Bytes>, answer: &Answer) -> Result<(), String> {
        let said = match self.find_kes(request.method(), request.uri().path()) {
            // KES's releases answer unknown paths with these statuses.
            Match::Nothing if matches!(answer.status.as_u16(), 404 | 501) => Ok(()),
            Match::OtherMethods if answer.status == 405 => Ok(()),
            Match::Nothing => Err("no such path is described".to_owned()),
            Match::OtherMethods => Err("no such method is described".to_owned()),
            Match::Operation(pointer, operation) => {
                self.as_described(&pointer, operation, request, answer)
            }
        };
        with_both(said, request, answer)
    }

    fn said(&self, request: &Request<Bytes>, answer: &Answer) -> Result<(), String> {
        let status = answer.status.as_u16();
        let path = request.uri().path();
        let base = request.extensions().get::<BasePath>();
        let below = base.map_or(Some(path), |base| path.strip_prefix(base.0.as_str()));
        let place = below.map_or(Match::Nothing, |path| self.find(request.method(), path));
        match place {
            _ if request.method() == Method::OPTIONS => Ok(()),
            Match::Nothing if status == 404 => Ok(()),
            Match::OtherMethods if status == 405 => Ok(()),
            // A path of no other dialect is an operation of S3 that is not served.
            Match::Nothing | Match::OtherMethods
                if status == 501 && answer.header("x-amz-request-id").is_some() =>
            {
                Ok(())
            }
            // A literal segment of one mount precedes a parameter of another, whatever the method.
            Match::Operation(pointer, _) if status == 405 && pointer.contains('{') => Ok(()),
            Match::Nothing => Err("no such path is described".to_owned()),
            Match::OtherMethods => Err("no such method is described".to_owned()),
            Match::Operation(pointer, operation) => {
                self.as_described(&pointer, operation, request, answer)
            }
        }
    }

    fn as_described(
        &self,
        pointer: &str,
        operation: &Value,
        request: &Request<Bytes>,
        answer: &Answer,
    ) -> Result<(), String> {
        self.answered(pointer, operation, request.method(), answer)?;
        if answer.status.is_success() {
            self.taken(pointer, operation, request)
        } else {
            Ok(())
        }
    }

    fn find(&self, method: &Method, path: &str) -> Match<'_> {
        let paths = self.document["paths"].as_object().expect("paths");
        let mut fits: Vec<&String> = paths
            .iter()
            .filter(|(known, operations)| !is_of_kes(operations) && matches(known, path))
            .map(|(known, _)| known)
            .collect();
        // A literal segment precedes a parameter.
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

    /// A parameter at the end of KES's paths takes the rest of a path, and operations have other spellings.
    fn find_kes(&self, method: &Method, path: &str) -> Match<'_> {
        let paths = self.document["paths"].as_object().expect("paths");
        let name = method.as_str().to_ascii_lowercase();
        let mut is_known = false;
        for (known, operations) in paths.iter().filter(|(_, of)| is_of_kes(of)) {
            let fits = |operation: &Value| {
                let others = operation["x-other-paths"].as_array().into_iter().flatten();
                let own = match known.split_once('{') {
                    Some((start, _)) => path.starts_with(start),
                    None => path == known,
                };
                own || others.into_iter().any(|other| other == path)
            };
            is_known |= operations
                .as_object()
                .expect("operations")
                .values()
                .any(fits);
            let operation = &operations[&name];
            if operation.is_object() && fits(operation) {
                return Match::Operation(format!("/paths/{}/{name}", escaped(known)), operation);
            }
        }
        if is_known {
            Match::OtherMethods
        } else {
            Match::Nothing
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
        let schema = format!("{at}/content/{}/schema", escaped(media_type));
        let values: Vec<&[u8]> = match media_type {
            "application/json" | "application/json; charset=utf-8" => vec![&answer.body],
            "application/x-ndjson" => answer
                .body
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .collect(),
            "application/x-amz-json-1.1" if !answer.body.is_empty() => vec![&answer.body],
            _ => Vec::new(),
        };
        for value in values {
            let value = serde_json::from_slice(value).map_err(|error| error.to_string())?;
            self.valid(&schema, &value)?;
        }
        Ok(())
    }

    /// An accepted request must be described, else the document rejects a request that works.
    fn taken(
        &self,
        operation_at: &str,
        operation: &Value,
        request: &Request<Bytes>,
    ) -> Result<(), String> {
        // KES's API ignores parameters that it does not know.
        if !has_tag_of_kes(operation) {
            self.taken_query(operation, request)?;
        }
        self.taken_body(operation_at, operation, request)
    }

    fn taken_query(&self, operation: &Value, request: &Request<Bytes>) -> Result<(), String> {
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
        Ok(())
    }

    fn taken_body(
        &self,
        operation_at: &str,
        operation: &Value,
        request: &Request<Bytes>,
    ) -> Result<(), String> {
        let body = request.body().trim_ascii();
        let content = &operation["requestBody"]["content"];
        if body.is_empty() || content["application/json"].is_null() {
            return Ok(());
        }
        // KES's API takes the first value of a body.
        let body = serde_json::Deserializer::from_slice(keyway_http::without_bom(body))
            .into_iter()
            .next()
            .ok_or("the body that was taken has no value")?
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
    /// The place that does not fit.
    pub fn valid(&self, at: &str, value: &Value) -> Result<(), String> {
        let validators = self.validators.lock();
        let mut validators = validators.unwrap_or_else(PoisonError::into_inner);
        let validator = validators.entry(at.to_owned()).or_insert_with(|| {
            let mut schema = self.document.clone();
            // A reference is a URI, which has neither braces nor blanks.
            let reference = at.replace('{', "%7B").replace('}', "%7D");
            let reference = reference.replace(' ', "%20");
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

/// The message, with the request and its answer.
fn with_both(
    said: Result<(), String>,
    request: &Request<Bytes>,
    answer: &Answer,
) -> Result<(), String> {
    said.map_err(|said| {
        let (method, uri, status) = (request.method(), request.uri(), answer.status);
        let body = String::from_utf8_lossy(&answer.body);
        format!("{method} {uri}: {status} {body}: {said}")
    })
}

/// Whether these are operations of KES's API, which has a listener of its own.
fn is_of_kes(operations: &Value) -> bool {
    let operations = operations.as_object().expect("operations");
    operations.values().any(has_tag_of_kes)
}

fn has_tag_of_kes(operation: &Value) -> bool {
    let tag = operation["tags"][0].as_str();
    tag.is_some_and(|tag| tag.starts_with("kes"))
}

/// A name in a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
