//! Joins mounts and descriptions. A route without a description is a fault, and so is a description without a route.

use std::collections::BTreeSet;
use std::time::Duration;

use keyway_http::{Dialect, Mount, Route};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use serde_json::{Map, Serializer, Value, json};

use super::operation::{Answer, Operation, Parameter};
use super::schema::Schema;

/// A dialect's description of its routes.
pub struct Description<D: Dialect> {
    tags: Vec<(&'static str, &'static str)>,
    operations: Vec<Operation>,
    words: Vec<(&'static str, Value)>,
    schemas: Vec<Schema>,
    suffixes: Vec<(&'static str, &'static str)>,
    permission: fn(D::Action) -> Option<&'static str>,
    timeout: fn(D::Action) -> Option<Duration>,
    security: Option<(&'static str, Value)>,
    anonymous: bool,
}

impl<D: Dialect> Description<D> {
    /// A description with the default tag of its operations.
    pub fn new(tag: &'static str, text: &'static str) -> Self {
        Self {
            tags: vec![(tag, text)],
            operations: Vec::new(),
            words: Vec::new(),
            schemas: Vec::new(),
            suffixes: Vec::new(),
            permission: |_| None,
            timeout: |_| None,
            security: None,
            anonymous: false,
        }
    }

    /// Adds a tag that operations can name.
    #[must_use]
    pub fn tag(mut self, tag: &'static str, text: &'static str) -> Self {
        self.tags.push((tag, text));
        self
    }

    /// Adds an operation.
    #[must_use]
    pub fn operation(mut self, operation: Operation) -> Self {
        self.operations.push(operation);
        self
    }

    /// Adds operations.
    #[must_use]
    pub fn operations(mut self, operations: impl IntoIterator<Item = Operation>) -> Self {
        self.operations.extend(operations);
        self
    }

    /// Describes a field by its name, wherever a body has it: adds these keywords unless the field has them itself.
    #[must_use]
    pub fn word(mut self, field: &'static str, keywords: Value) -> Self {
        self.words.push((field, keywords));
        self
    }

    /// Adds a schema that others refer to.
    #[must_use]
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schemas.push(schema);
        self
    }

    /// Sets the suffix of operation ids below this prefix. All prefixes but one need a suffix.
    #[must_use]
    pub fn suffix(mut self, prefix: &'static str, suffix: &'static str) -> Self {
        self.suffixes.push((prefix, suffix));
        self
    }

    /// Sets how policies name a route's action; `None` when it needs no permission.
    #[must_use]
    pub fn permission(mut self, name: fn(D::Action) -> Option<&'static str>) -> Self {
        self.permission = name;
        self
    }

    /// Sets the longest time that a route with this action may take, for `x-timeout-seconds`.
    #[must_use]
    pub fn timeout(mut self, timeout: fn(D::Action) -> Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how callers authenticate.
    #[must_use]
    pub fn security(mut self, name: &'static str, scheme: Value) -> Self {
        self.security = Some((name, scheme));
        self
    }

    /// Callers need not authenticate.
    #[must_use]
    pub const fn anonymous(mut self) -> Self {
        self.anonymous = true;
        self
    }

    fn first_tag(&self) -> &'static str {
        self.tags.first().map_or("", |(tag, _)| tag)
    }

    /// The suffix of operation ids below this prefix.
    fn suffix_below(&self, prefix: &str) -> &'static str {
        let mut suffixes = self.suffixes.iter();
        let found = suffixes.find(|(below, _)| *below == prefix);
        found.map_or("", |(_, suffix)| suffix)
    }

    /// The operation of a route below this prefix. One for this prefix alone takes precedence.
    fn of(&self, route: &Route<D>, prefix: &str) -> Option<(usize, &Operation)> {
        [Some(prefix), None].iter().find_map(|below| {
            let mut operations = self.operations.iter().enumerate();
            operations.find(|(_, operation)| {
                operation.method == route.method
                    && operation.only_below == *below
                    && (operation.path == route.path || operation.other_paths.contains(&route.path))
            })
        })
    }
}

/// The document while it is being made.
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

Every answer has an `x-request-id`. A described path by another method is answered 405 with `Allow`, and any other path 404; \
what could be a bucket's or an object's is answered as S3 answers it. Bodies are JSON objects: unknown and repeated fields are \
refused, and a field that has several names may be there under one of them. KES's API, which has a listener of its own, differs; \
its tag says how.";

impl Document {
    /// An empty document.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the routes of a mount with their descriptions.
    pub fn mount<D: Dialect>(&mut self, mount: &Mount<D>, mut description: Description<D>) {
        self.tags_and_security(&description);
        let mut used = Vec::new();
        for schema in std::mem::take(&mut description.schemas) {
            self.content(schema, &description.words, &mut used);
        }
        let mut mounted = BTreeSet::new();
        for route in mount.routes() {
            for prefix in mount.prefixes() {
                let Some((index, operation)) = description.of(route, prefix) else {
                    let (method, path) = (&route.method, route.path);
                    self.faults
                        .push(format!("{method} {prefix}{path} is not described"));
                    continue;
                };
                mounted.insert((index, route.path));
                if operation.path == route.path {
                    self.route(route, prefix, operation, &description, &mut used);
                }
            }
        }
        for (index, operation) in description.operations.iter().enumerate() {
            for path in [&operation.path].into_iter().chain(&operation.other_paths) {
                if !mounted.contains(&(index, *path)) {
                    let method = &operation.method;
                    self.faults
                        .push(format!("{method} {path} is described and not mounted"));
                }
            }
        }
        for (word, _) in &description.words {
            if !used.contains(word) {
                self.faults.push(format!("no body has a field `{word}`"));
            }
        }
    }

    fn tags_and_security<D: Dialect>(&mut self, description: &Description<D>) {
        for (name, text) in &description.tags {
            self.tags.push(json!({"name": name, "description": text}));
        }
        match (&description.security, description.anonymous) {
            (Some((name, scheme)), false) => {
                self.security.insert((*name).to_owned(), scheme.clone());
            }
            (None, true) => {}
            _ => {
                let tag = description.first_tag();
                self.faults
                    .push(format!("{tag}: say how callers are known"));
            }
        }
    }

    /// Adds a route below a prefix with its operation.
    fn route<D: Dialect>(
        &mut self,
        route: &Route<D>,
        prefix: &str,
        operation: &Operation,
        description: &Description<D>,
        used: &mut Vec<&'static str>,
    ) {
        let place = format!("{} {prefix}{}", route.method, route.path);
        let id = format!("{}{}", operation.id, description.suffix_below(prefix));
        if !self.ids.insert(id.clone()) {
            self.faults.push(format!("{place}: the id {id} is taken"));
        }
        let tag = operation.tag.unwrap_or_else(|| description.first_tag());
        if !description.tags.iter().any(|(known, _)| *known == tag) {
            self.faults.push(format!("{place}: there is no tag {tag}"));
        }
        let mut value = self.operation(operation, route.body_limit, &description.words, used);
        value.insert("tags".to_owned(), json!([tag]));
        value.insert("operationId".to_owned(), id.into());
        let security = match &description.security {
            Some((name, _)) if !operation.anonymous => json!([{ (*name): [] }]),
            _ => json!([]),
        };
        value.insert("security".to_owned(), security);
        if let Some(name) = (description.permission)(route.action) {
            value.insert("x-permission".to_owned(), name.into());
        }
        if let Some(timeout) = (description.timeout)(route.action) {
            value.insert("x-timeout-seconds".to_owned(), timeout.as_secs().into());
        }
        if !operation.other_paths.is_empty() {
            let paths = operation.other_paths.iter();
            let paths: Vec<String> = paths.map(|path| format!("{prefix}{path}")).collect();
            value.insert("x-other-paths".to_owned(), paths.into());
        }
        let template = format!("{prefix}{}", operation.template());
        self.named_in_path(&place, &template, operation);
        let paths = self.paths.entry(template).or_insert_with(|| json!({}));
        if let Some(path) = paths.as_object_mut() {
            let method = route.method.as_str().to_ascii_lowercase();
            if path.insert(method, value.into()).is_some() {
                self.faults.push(format!("{place} is mounted twice"));
            }
        }
    }

    /// Returns the document as JSON.
    ///
    /// # Errors
    /// All faults of the document.
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
        // The committed document has line breaks, so that its diffs can be read. The served one has none.
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
    ) -> Map<String, Value> {
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
        value
    }

    /// A reference to the parameter, or the parameter itself if another one has its name.
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
        let mut content = Map::new();
        for (media_type, schema) in &answer.contents {
            let schema = self.content(schema.clone(), words, used);
            content.insert((*media_type).to_owned(), json!({ "schema": schema }));
        }
        if answer.or_empty {
            let empty = json!({"schema": {"type": "string", "maxLength": 0}});
            content.insert("text/plain".to_owned(), empty);
        }
        if let (false, Some(value)) = (content.is_empty(), value.as_object_mut()) {
            value.insert("content".to_owned(), content.into());
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

    /// A reference to the schema if it has a name, else the schema itself.
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

    /// Checks that the operation describes exactly the parameters in the route's path.
    fn named_in_path(&mut self, place: &str, template: &str, operation: &Operation) {
        let of_route: BTreeSet<&str> = template
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

#[cfg(test)]
mod tests {
    use http::{Method, Response};
    use keyway_http::Page;

    use super::*;

    fn route(path: &'static str) -> Route<Page> {
        Route {
            method: Method::GET,
            path,
            body_limit: 7,
            action: (),
            run: Box::new(|_| Box::pin(async { Ok(Response::default()) })),
        }
    }

    /// The document with these paths, which have a timeout.
    fn made(paths: &[&'static str], operation: Operation) -> Result<Value, Vec<String>> {
        let routes = paths.iter().map(|path| route(path)).collect();
        let mount = Mount::page("pages", &["/of"], |_| true, routes).unwrap();
        let mut document = Document::new();
        let description = Description::new("pages", "Pages.")
            .anonymous()
            .timeout(|()| Some(Duration::from_secs(15)));
        document.mount(&mount, description.operation(operation));
        let text = document.finish("0")?;
        Ok(serde_json::from_str(&text).unwrap())
    }

    fn greedy() -> Operation {
        let name = |name| Parameter::path(name, "A name.", json!({"type": "string"}));
        Operation::new(Method::GET, "/{*rest}", "get", "Get")
            .segments(&["shelf", "book"])
            .parameters([name("shelf"), name("book")])
            .answer(200, Answer::empty("Got."))
    }

    #[test]
    fn rest_of_a_path_is_described_by_its_segments_and_lists_other_paths() {
        let document = made(&["/{*rest}", "/"], greedy().other_paths(["/"])).unwrap();
        let operation = &document["paths"]["/of/{shelf}/{book}"]["get"];
        assert_eq!(operation["x-other-paths"], json!(["/of/"]));
        assert_eq!(operation["x-body-limit"], 7);
        assert_eq!(operation["x-timeout-seconds"], 15);
    }

    #[test]
    fn routes_and_descriptions_without_each_other_are_faults() {
        let not_described = made(&["/{*rest}", "/"], greedy());
        assert_eq!(
            not_described,
            Err(vec!["GET /of/ is not described".to_owned()])
        );
        let not_mounted = made(&["/{*rest}"], greedy().other_paths(["/"]));
        let expected = "GET / is described and not mounted".to_owned();
        assert_eq!(not_mounted, Err(vec![expected]));
    }
}
