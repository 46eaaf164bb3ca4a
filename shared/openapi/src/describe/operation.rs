//! A dialect's description of one of its routes.

use http::Method;
use serde_json::{Value, json};

use super::schema::Schema;

/// The description of one route.
#[derive(Debug, Clone)]
pub struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) only_below: Option<&'static str>,
    pub(super) other_paths: Vec<&'static str>,
    pub(super) segments: &'static [&'static str],
    pub(super) anonymous: bool,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) text: &'static str,
    pub(super) tag: Option<&'static str>,
    pub(super) deprecated: bool,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<RequestBody>,
    pub(super) answers: Vec<(u16, Answer)>,
}

impl Operation {
    /// Describes the route with this method and path. `id` is its name in generated clients.
    pub const fn new(
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
    ) -> Self {
        Self {
            method,
            path,
            only_below: None,
            other_paths: Vec::new(),
            segments: &[],
            anonymous: false,
            id,
            summary,
            text: "",
            tag: None,
            deprecated: false,
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
        }
    }

    /// Describes the route below this prefix alone, where it differs.
    #[must_use]
    pub const fn below(mut self, prefix: &'static str) -> Self {
        self.only_below = Some(prefix);
        self
    }

    /// Routes with the same method and these paths do the same, or refuse the request because it lacks a parameter. They are
    /// listed in `x-other-paths` and have no operation of their own.
    #[must_use]
    pub fn other_paths(mut self, paths: impl IntoIterator<Item = &'static str>) -> Self {
        self.other_paths.extend(paths);
        self
    }

    /// Describes the route's last parameter, which takes the rest of the path, as these segments. By default it is one
    /// segment with its own name.
    #[must_use]
    pub const fn segments(mut self, names: &'static [&'static str]) -> Self {
        self.segments = names;
        self
    }

    /// Callers need no credentials, unlike those of the dialect's other operations.
    #[must_use]
    pub const fn anonymous(mut self) -> Self {
        self.anonymous = true;
        self
    }

    /// The route's path in OpenAPI's syntax, which has no parameter for the rest of a path.
    pub(super) fn template(&self) -> String {
        let Some((start, name)) = self.path.split_once("{*") else {
            return self.path.to_owned();
        };
        if self.segments.is_empty() {
            return format!("{start}{{{name}");
        }
        let segments: Vec<String> = self
            .segments
            .iter()
            .map(|name| format!("{{{name}}}"))
            .collect();
        format!("{start}{}", segments.join("/"))
    }

    /// Sets the longer text.
    #[must_use]
    pub const fn text(mut self, text: &'static str) -> Self {
        self.text = text;
        self
    }

    /// Replaces the dialect's default tag.
    #[must_use]
    pub const fn tag(mut self, tag: &'static str) -> Self {
        self.tag = Some(tag);
        self
    }

    /// Marks a route that is kept for old clients.
    #[must_use]
    pub const fn deprecated(mut self) -> Self {
        self.deprecated = true;
        self
    }

    /// Adds parameters.
    #[must_use]
    pub fn parameters(mut self, parameters: impl IntoIterator<Item = Parameter>) -> Self {
        self.parameters.extend(parameters);
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: RequestBody) -> Self {
        self.body = Some(body);
        self
    }

    /// Adds an answer.
    #[must_use]
    pub fn answer(mut self, status: u16, answer: Answer) -> Self {
        self.answers.push((status, answer));
        self
    }
}

/// A parameter of the path or the query, or a header.
#[derive(Debug, Clone)]
pub struct Parameter {
    pub(super) name: &'static str,
    pub(super) place: &'static str,
    pub(super) text: String,
    pub(super) required: bool,
    pub(super) schema: Value,
    pub(super) example: Option<Value>,
}

impl Parameter {
    /// A parameter of the query; optional.
    pub fn query(name: &'static str, text: &str, schema: Value) -> Self {
        Self {
            name,
            place: "query",
            text: text.to_owned(),
            required: false,
            schema,
            example: None,
        }
    }

    /// A header; optional.
    pub fn header(name: &'static str, text: &str, schema: Value) -> Self {
        Self {
            place: "header",
            ..Self::query(name, text, schema)
        }
    }

    /// A parameter of the path.
    pub fn path(name: &'static str, text: &str, schema: Value) -> Self {
        Self {
            place: "path",
            required: true,
            ..Self::query(name, text, schema)
        }
    }

    /// Makes the parameter required.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Adds an example.
    #[must_use]
    pub fn example(mut self, example: Value) -> Self {
        self.example = Some(example);
        self
    }

    pub(super) fn value(&self) -> Value {
        let mut value = json!({
            "name": self.name,
            "in": self.place,
            "description": self.text,
            "required": self.required,
            "schema": self.schema,
        });
        if let (Some(example), Some(value)) = (&self.example, value.as_object_mut()) {
            value.insert("example".to_owned(), example.clone());
        }
        value
    }
}

/// The body of a request.
#[derive(Debug, Clone)]
pub struct RequestBody {
    pub(super) media_type: &'static str,
    pub(super) schema: Schema,
    pub(super) required: bool,
    pub(super) examples: Vec<(&'static str, Value)>,
}

impl RequestBody {
    /// A required JSON body.
    pub const fn json(schema: Schema) -> Self {
        Self {
            media_type: "application/json",
            schema,
            required: true,
            examples: Vec::new(),
        }
    }

    /// An optional JSON body.
    pub fn json_or_none(schema: Schema) -> Self {
        Self {
            required: false,
            ..Self::json(schema)
        }
    }

    /// Replaces the media type JSON.
    #[must_use]
    pub const fn media_type(mut self, media_type: &'static str) -> Self {
        self.media_type = media_type;
        self
    }

    /// Adds an example with this name.
    #[must_use]
    pub fn example(mut self, name: &'static str, value: Value) -> Self {
        self.examples.push((name, value));
        self
    }
}

/// One of the answers of a route.
#[derive(Debug, Clone)]
pub struct Answer {
    pub(super) name: Option<&'static str>,
    pub(super) text: String,
    pub(super) contents: Vec<(&'static str, Schema)>,
    pub(super) or_empty: bool,
    pub(super) headers: Vec<(&'static str, Value)>,
}

impl Answer {
    /// An answer without a body.
    pub fn empty(text: &str) -> Self {
        Self {
            name: None,
            text: text.to_owned(),
            contents: Vec::new(),
            or_empty: false,
            headers: Vec::new(),
        }
    }

    /// An answer in JSON.
    pub fn json(text: &str, schema: Schema) -> Self {
        Self::with(text, "application/json", schema)
    }

    /// An answer with a body of this type.
    pub fn with(text: &str, media_type: &'static str, schema: Schema) -> Self {
        Self {
            contents: vec![(media_type, schema)],
            ..Self::empty(text)
        }
    }

    /// Adds another type of body. The schema of `application/x-ndjson` is that of each line.
    #[must_use]
    pub fn or(mut self, media_type: &'static str, schema: Schema) -> Self {
        self.contents.push((media_type, schema));
        self
    }

    /// Adds a header that is always present.
    #[must_use]
    pub fn header(mut self, name: &'static str, text: &str, schema: &Value) -> Self {
        let value = json!({"description": text, "required": true, "schema": schema});
        self.headers.push((name, value));
        self
    }

    /// For some requests the body is empty text.
    #[must_use]
    pub const fn or_empty(mut self) -> Self {
        self.or_empty = true;
        self
    }

    /// Shares the answer among routes under this name.
    #[must_use]
    pub const fn shared(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }
}
