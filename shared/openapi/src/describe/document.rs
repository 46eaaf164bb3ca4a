//! Mounts and descriptions together: a route without a description is a fault, and so is a description without a route.

use std::collections::BTreeSet;

use keyway_http::{Dialect, Mount};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use serde_json::{Map, Serializer, Value, json};

use super::operation::{Answer, Operation, Parameter};
use super::schema::Schema;

/// What a dialect says of its routes.
pub struct Description<D: Dialect> {
    tags: Vec<(&'static str, &'static str)>,
    operations: Vec<Operation>,
    words: Vec<(&'static str, Value)>,
    schemas: Vec<Schema>,
    suffixes: Vec<(&'static str, &'static str)>,
    permission: fn(D::Action) -> Option<&'static str>,
    security: Option<(&'static str, Value)>,
    anonymous: bool,
}

impl<D: Dialect> Description<D> {
    /// With the tag of its operations.
    pub fn new(tag: &'static str, text: &'static str) -> Self {
        Self {
            tags: vec![(tag, text)],
            operations: Vec::new(),
            words: Vec::new(),
            schemas: Vec::new(),
            suffixes: Vec::new(),
            permission: |_| None,
            security: None,
            anonymous: false,
        }
    }

    /// With another tag, which operations name.
    #[must_use]
    pub fn tag(mut self, tag: &'static str, text: &'static str) -> Self {
        self.tags.push((tag, text));
        self
    }

    /// With an operation.
    #[must_use]
    pub fn operation(mut self, operation: Operation) -> Self {
        self.operations.push(operation);
        self
    }

    /// With these operations.
    #[must_use]
    pub fn operations(mut self, operations: impl IntoIterator<Item = Operation>) -> Self {
        self.operations.extend(operations);
        self
    }

    /// What a field's name means, wherever it stands in a body: keywords for those that do not say it themselves.
    #[must_use]
    pub fn word(mut self, field: &'static str, keywords: Value) -> Self {
        self.words.push((field, keywords));
        self
    }

    /// A schema that others refer to.
    #[must_use]
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schemas.push(schema);
        self
    }

    /// What the ids of operations below this prefix end in. Each prefix but one needs such a word.
    #[must_use]
    pub fn suffix(mut self, prefix: &'static str, suffix: &'static str) -> Self {
        self.suffixes.push((prefix, suffix));
        self
    }

    /// How a route's action is named in policies; none, when no permission is needed.
    #[must_use]
    pub fn permission(mut self, name: fn(D::Action) -> Option<&'static str>) -> Self {
        self.permission = name;
        self
    }

    /// How callers prove who they are.
    #[must_use]
    pub fn security(mut self, name: &'static str, scheme: Value) -> Self {
        self.security = Some((name, scheme));
        self
    }

    /// Nobody has to say who they are.
    #[must_use]
    pub const fn anonymous(mut self) -> Self {
        self.anonymous = true;
        self
    }
}

/// The document in the making.
#[derive(Default)]
pub struct Document {
    paths: Map<String, Value>,
    tags: Vec<Value>,
    schemas: Map<String, Value>,
    responses: Map<String, Value>,
    parameters: Map<String, Value>,
    headers: Map<String, Value>,
    security: Map<String, Value>,
    ids: BTreeSet<String>,
    faults: Vec<String>,
}

const ABOUT: &str = "A key management service for object stores.

Every answer has an `x-request-id`. The routes of KES's API are not described here: `GET /v1/api` lists them. A described \
path by another method is answered 405 with `Allow`, and any other path 404; what could be a bucket's or an object's is \
answered as S3 answers it. Bodies are JSON objects: unknown and repeated fields are refused, and a field that has several \
names may be there under one of them.";

impl Document {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Describes what is mounted.
    pub fn mount<D: Dialect>(&mut self, mount: &Mount<D>, description: Description<D>) {
        let Description {
            tags,
            operations,
            words,
            schemas,
            suffixes,
            permission,
            security,
            anonymous,
        } = description;
        let first_tag = tags.first().map_or("", |(tag, _)| tag);
        for (name, text) in &tags {
            self.tags.push(json!({"name": name, "description": text}));
        }
        match (&security, anonymous) {
            (Some((name, scheme)), false) => {
                self.security.insert((*name).to_owned(), scheme.clone());
            }
            (None, true) => {}
            _ => self
                .faults
                .push(format!("{first_tag}: say how callers are known")),
        }
        let mut used = Vec::new();
        for schema in schemas {
            self.content(schema, &words, &mut used);
        }
        let mut described = vec![false; operations.len()];
        for route in mount.routes() {
            for prefix in mount.prefixes() {
                let place = format!("{} {prefix}{}", route.method, route.path);
                let fits = |operation: &Operation, below: Option<&str>| {
                    operation.method == route.method
                        && operation.path == route.path
                        && operation.only_below == below
                };
                let found = [Some(*prefix), None].iter().find_map(|below| {
                    operations
                        .iter()
                        .position(|operation| fits(operation, *below))
                });
                let Some((index, operation)) =
                    found.and_then(|index| Some((index, operations.get(index)?)))
                else {
                    self.faults.push(format!("{place} is not described"));
                    continue;
                };
                if let Some(described) = described.get_mut(index) {
                    *described = true;
                }
                let suffix = suffixes
                    .iter()
                    .find(|(below, _)| below == prefix)
                    .map_or("", |(_, suffix)| suffix);
                let id = format!("{}{suffix}", operation.id);
                if !self.ids.insert(id.clone()) {
                    self.faults.push(format!("{place}: the id {id} is taken"));
                }
                let mut value = self.operation(operation, route.body_limit, &words, &mut used);
                if let Some(value) = value.as_object_mut() {
                    let tag = operation.tag.unwrap_or(first_tag);
                    if !tags.iter().any(|(known, _)| *known == tag) {
                        self.faults.push(format!("{place}: there is no tag {tag}"));
                    }
                    value.insert("tags".to_owned(), json!([tag]));
                    value.insert("operationId".to_owned(), id.into());
                    let security = match &security {
                        Some((name, _)) => json!([{ (*name): [] }]),
                        None => json!([]),
                    };
                    value.insert("security".to_owned(), security);
                    if let Some(name) = permission(route.action) {
                        value.insert("x-permission".to_owned(), name.into());
                    }
                }
                self.named_in_path(&place, route.path, operation);
                let paths = self
                    .paths
                    .entry(format!("{prefix}{}", route.path))
                    .or_insert_with(|| json!({}));
                if let Some(path) = paths.as_object_mut() {
                    let method = route.method.as_str().to_ascii_lowercase();
                    if path.insert(method, value).is_some() {
                        self.faults.push(format!("{place} is mounted twice"));
                    }
                }
            }
        }
        for (operation, described) in operations.iter().zip(described) {
            if !described {
                let (method, path) = (&operation.method, operation.path);
                self.faults
                    .push(format!("{method} {path} is described and not mounted"));
            }
        }
        for (word, _) in words {
            if !used.contains(&word) {
                self.faults.push(format!("no body has a field `{word}`"));
            }
        }
    }

    /// The document as JSON.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn finish(self, version: &str) -> Result<String, Vec<String>> {
        if !self.faults.is_empty() {
            return Err(self.faults);
        }
        let whole = json!({
            "openapi": "3.1.0",
            "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
            "info": {
                "title": "Keyway",
                "version": version,
                "description": ABOUT,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "tags": self.tags,
            "paths": self.paths,
            "components": {
                "headers": self.headers,
                "parameters": self.parameters,
                "responses": self.responses,
                "schemas": self.schemas,
                "securitySchemes": self.security,
            },
        });
        // Lines are for those who read a change of it; what is served has none.
        let mut text = Vec::new();
        let written = whole.serialize(&mut Serializer::with_formatter(
            &mut text,
            PrettyFormatter::with_indent(b" "),
        ));
        text.push(b'\n');
        match (written, String::from_utf8(text)) {
            (Ok(()), Ok(text)) => Ok(text),
            _ => Err(vec!["it cannot be encoded".to_owned()]),
        }
    }

    fn operation(
        &mut self,
        operation: &Operation,
        body_limit: usize,
        words: &[(&'static str, Value)],
        used: &mut Vec<&'static str>,
    ) -> Value {
        let mut value = Map::new();
        value.insert("summary".to_owned(), operation.summary.into());
        if !operation.text.is_empty() {
            value.insert("description".to_owned(), operation.text.into());
        }
        if operation.deprecated {
            value.insert("deprecated".to_owned(), true.into());
        }
        value.insert("x-body-limit".to_owned(), body_limit.into());
        if !operation.parameters.is_empty() {
            let parameters: Vec<Value> = operation
                .parameters
                .iter()
                .map(|parameter| self.parameter(parameter))
                .collect();
            value.insert("parameters".to_owned(), parameters.into());
        }
        if let Some(body) = &operation.body {
            let schema = self.content(body.schema.clone(), words, used);
            let mut content = json!({ "schema": schema });
            if let (false, Some(content)) = (body.examples.is_empty(), content.as_object_mut()) {
                let examples: Map<String, Value> = body
                    .examples
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), json!({ "value": value })))
                    .collect();
                content.insert("examples".to_owned(), examples.into());
            }
            value.insert(
                "requestBody".to_owned(),
                json!({"required": body.required, "content": {(body.media_type): content}}),
            );
        }
        let mut answers = Map::new();
        for (status, answer) in &operation.answers {
            let answer = self.answer(answer, words, used);
            if answers.insert(status.to_string(), answer).is_some() {
                self.faults
                    .push(format!("{} has two answers {status}", operation.id));
            }
        }
        value.insert("responses".to_owned(), answers.into());
        value.into()
    }

    /// A reference to the parameter, or itself where another has its name.
    fn parameter(&mut self, parameter: &Parameter) -> Value {
        let value = parameter.value();
        let known = self
            .parameters
            .entry(parameter.name)
            .or_insert_with(|| value.clone());
        if *known == value {
            json!({"$ref": format!("#/components/parameters/{}", parameter.name)})
        } else {
            value
        }
    }

    fn answer(
        &mut self,
        answer: &Answer,
        words: &[(&'static str, Value)],
        used: &mut Vec<&'static str>,
    ) -> Value {
        let mut headers = Map::new();
        let request_id = json!({
            "description": "Names the request, in the log too.",
            "required": true,
            "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        });
        for (name, header) in answer.headers.iter().chain([&("x-request-id", request_id)]) {
            let known = self.headers.entry(*name).or_insert_with(|| header.clone());
            let header = if known == header {
                json!({"$ref": format!("#/components/headers/{name}")})
            } else {
                header.clone()
            };
            headers.insert((*name).to_owned(), header);
        }
        let mut value = json!({"description": answer.text, "headers": headers});
        if let Some((media_type, schema)) = &answer.content {
            let schema = self.content(schema.clone(), words, used);
            if let Some(value) = value.as_object_mut() {
                let mut content = json!({(*media_type): {"schema": schema}});
                if answer.or_empty
                    && let Some(content) = content.as_object_mut()
                {
                    let empty = json!({"schema": {"type": "string", "maxLength": 0}});
                    content.insert("text/plain".to_owned(), empty);
                }
                value.insert("content".to_owned(), content);
            }
        }
        let Some(name) = answer.name else {
            return value;
        };
        let known = self.responses.entry(name).or_insert_with(|| value.clone());
        if *known != value {
            self.faults
                .push(format!("there are two answers named {name}"));
        }
        json!({"$ref": format!("#/components/responses/{name}")})
    }

    /// A reference to the schema where it has a name, else itself.
    fn content(
        &mut self,
        schema: Schema,
        words: &[(&'static str, Value)],
        used: &mut Vec<&'static str>,
    ) -> Value {
        let name = schema.name;
        let value = schema.finish(words, used, &mut self.faults);
        let Some(name) = name else {
            return value;
        };
        let known = self.schemas.entry(name).or_insert_with(|| value.clone());
        if *known != value {
            self.faults
                .push(format!("there are two schemas named {name}"));
        }
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    /// The parameters of the path are those that the route has.
    fn named_in_path(&mut self, place: &str, path: &str, operation: &Operation) {
        let of_route: BTreeSet<&str> = path
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        let described: BTreeSet<&str> = operation
            .parameters
            .iter()
            .filter(|parameter| parameter.place == "path")
            .map(|parameter| parameter.name)
            .collect();
        if of_route != described {
            self.faults.push(format!(
                "{place}: the path has other parameters than {described:?}"
            ));
        }
    }
}
