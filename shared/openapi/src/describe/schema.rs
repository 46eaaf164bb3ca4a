//! Schemas of bodies, with facts about their fields.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::observed::{SPELLINGS, observed};

/// The schema of a body or a parameter.
#[derive(Debug, Clone)]
pub struct Schema {
    pub(super) name: Option<&'static str>,
    value: Value,
    facts: Vec<(&'static str, Value)>,
    faults: Vec<String>,
}

impl Schema {
    /// The derived schema of an encoded type: its fields and no others.
    pub fn encoded<T: JsonSchema>(name: &'static str) -> Self {
        let settings = SchemaSettings::draft2020_12()
            .for_serialize()
            .with(|settings| {
                settings.inline_subschemas = true;
                settings.meta_schema = None;
            });
        let schema = settings.into_generator().into_root_schema_for::<T>();
        let mut value = schema.to_value();
        close(&mut value);
        Self {
            name: Some(name),
            ..Self::of(value)
        }
    }

    /// The observed schema of a decoded type.
    pub fn decoded<T: DeserializeOwned>(name: &'static str) -> Self {
        let (value, faults) = match observed::<T>() {
            Ok(value) => (value, Vec::new()),
            Err(fault) => (Value::Null, vec![format!("the decoder of {name}: {fault}")]),
        };
        Self {
            name: Some(name),
            value,
            facts: Vec::new(),
            faults,
        }
    }

    /// A choice of schemas.
    pub fn any_of(name: &'static str, schemas: impl IntoIterator<Item = Self>) -> Self {
        let mut whole = Self {
            name: Some(name),
            ..Self::of(Value::Null)
        };
        let mut each = Vec::new();
        for schema in schemas {
            let Self {
                value,
                facts,
                faults,
                ..
            } = schema.said();
            each.push(value);
            whole.facts.extend(facts);
            whole.faults.extend(faults);
        }
        whole.value = json!({ "anyOf": each });
        whole
    }

    /// A schema as written.
    pub fn of(value: Value) -> Self {
        Self {
            name: None,
            value,
            facts: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// A schema as written, with a name that others can refer to.
    pub fn named(name: &'static str, value: Value) -> Self {
        Self {
            name: Some(name),
            ..Self::of(value)
        }
    }

    /// Adds keywords to a field, or removes those that are `null`. `path` has dots between names and `[]` for the items of a
    /// list; the empty path is the whole schema.
    #[must_use]
    pub fn fact(mut self, path: &'static str, keywords: Value) -> Self {
        self.facts.push((path, keywords));
        self
    }

    /// Requires at least one of these fields, by any of its names.
    #[must_use]
    pub fn needs_one_of(mut self, fields: &[&str]) -> Self {
        let mut choices = Vec::new();
        for field in fields {
            let property = self.value.pointer(&format!("/properties/{field}"));
            if property.is_none() {
                self.faults.push(format!("there is no field `{field}`"));
            }
            choices.push(json!({ "required": [field] }));
            for name in property.map(spellings).unwrap_or_default() {
                choices.push(json!({ "required": [name] }));
            }
        }
        if let Some(schema) = self.value.as_object_mut() {
            schema.insert("anyOf".to_owned(), choices.into());
        }
        self
    }

    /// Requires these fields, and not as `null`, although the type does not: the handler checks it.
    #[must_use]
    pub fn required(mut self, fields: &[&'static str]) -> Self {
        for field in fields {
            match at(&mut self.value, field) {
                Some(property) => make_certain(property),
                None => self.faults.push(format!("there is no field `{field}`")),
            }
        }
        if let Some(schema) = self.value.as_object_mut() {
            let required = schema.entry("required").or_insert_with(|| json!([]));
            if let Some(required) = required.as_array_mut() {
                required.extend(fields.iter().map(|field| json!(field)));
            }
        }
        self
    }

    /// Removes optional fields that are always left out here.
    #[must_use]
    pub fn without(mut self, fields: &[&'static str]) -> Self {
        for field in fields {
            let properties = self.value.get_mut("properties");
            let properties = properties.and_then(Value::as_object_mut);
            if properties
                .and_then(|properties| properties.remove(*field))
                .is_none()
            {
                self.faults.push(format!("there is no field `{field}`"));
            }
        }
        self
    }

    /// Applies the facts to their fields.
    fn said(mut self) -> Self {
        for (path, keywords) in std::mem::take(&mut self.facts) {
            match at(&mut self.value, path) {
                Some(schema) => merge(schema, &keywords, true),
                None => self.faults.push(format!("there is no field `{path}`")),
            }
        }
        self
    }

    /// Returns the finished schema, with the dialect's keywords for its fields; adds the used ones to `used`.
    pub(super) fn finish(
        self,
        words: &[(&'static str, Value)],
        used: &mut Vec<&'static str>,
        faults: &mut Vec<String>,
    ) -> Value {
        let mut named = self;
        tell(&mut named.value, words, used);
        let mut said = named.said();
        faults.append(&mut said.faults);
        spell(&mut said.value);
        said.value
    }
}

/// Also allows `null`.
pub(super) fn make_nullable(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else {
        return;
    };
    if let Some(kind @ Value::String(_)) = schema.get_mut("type") {
        *kind = json!([kind.take(), "null"]);
    }
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.push(Value::Null);
    }
}

/// No longer allows `null`.
fn make_certain(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else {
        return;
    };
    if let Some(kind @ Value::Array(_)) = schema.get_mut("type")
        && let Some(certain) = kind.as_array().and_then(|kinds| kinds.first()).cloned()
    {
        *kind = certain;
    }
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
}

fn is_nullable(schema: &Map<String, Value>) -> bool {
    matches!(schema.get("type"), Some(Value::Array(kinds)) if kinds.iter().any(|kind| kind == "null"))
}

/// Adds keywords and replaces existing ones. Without `replace` an `enum` stays, because the decoder's is more precise than
/// the dialect's.
fn merge(schema: &mut Value, keywords: &Value, replace: bool) {
    let (Some(schema), Some(keywords)) = (schema.as_object_mut(), keywords.as_object()) else {
        return;
    };
    let nullable = is_nullable(schema);
    for (keyword, value) in keywords {
        if !replace && keyword == "enum" && schema.contains_key(keyword) {
            continue;
        }
        if value.is_null() {
            schema.remove(keyword);
            continue;
        }
        let mut value = value.clone();
        if let ("enum", true, Some(words)) = (keyword.as_str(), nullable, value.as_array_mut()) {
            words.push(Value::Null);
        }
        schema.insert(keyword.clone(), value);
    }
}

/// The field at a path; in an `anyOf`, the first schema that has it.
fn at<'s>(schema: &'s mut Value, path: &str) -> Option<&'s mut Value> {
    if path.is_empty() {
        return Some(schema);
    }
    if let Some(rest) = path.strip_prefix("[]") {
        return at(schema.get_mut("items")?, rest.trim_start_matches('.'));
    }
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (name, rest) = path.split_at_checked(end)?;
    let rest = rest.trim_start_matches('.');
    if schema.pointer(&format!("/properties/{name}")).is_some() {
        return at(schema.get_mut("properties")?.get_mut(name)?, rest);
    }
    let choices = schema.get_mut("anyOf")?.as_array_mut()?;
    choices.iter_mut().find_map(|choice| at(choice, path))
}

/// Calls `see` with this schema and every schema within it.
fn each(schema: &mut Value, see: &mut impl FnMut(&mut Map<String, Value>)) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    see(object);
    for keyword in ["anyOf", "oneOf", "allOf"] {
        if let Some(Value::Array(choices)) = object.get_mut(keyword) {
            choices.iter_mut().for_each(|choice| each(choice, see));
        }
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(keyword) {
            each(inner, see);
        }
    }
    for keyword in ["properties", "patternProperties"] {
        if let Some(Value::Object(properties)) = object.get_mut(keyword) {
            properties
                .values_mut()
                .for_each(|property| each(property, see));
        }
    }
}

/// Allows no fields but the encoded ones, and removes what schemars adds for Rust's own types.
fn close(schema: &mut Value) {
    each(schema, &mut |schema| {
        schema.remove("title");
        if schema
            .get("format")
            .and_then(Value::as_str)
            .is_some_and(|format| format.starts_with("uint"))
        {
            schema.remove("format");
        }
        if schema.contains_key("properties") && !schema.contains_key("additionalProperties") {
            schema.insert("additionalProperties".to_owned(), false.into());
        }
    });
}

/// Adds the dialect's keywords to every field that has one of these names.
fn tell(schema: &mut Value, words: &[(&'static str, Value)], used: &mut Vec<&'static str>) {
    each(schema, &mut |schema| {
        let Some(Value::Object(properties)) = schema.get_mut("properties") else {
            return;
        };
        for (name, keywords) in words {
            if let Some(property) = properties.get_mut(*name) {
                merge(property, keywords, false);
                used.push(name);
            }
        }
    });
}

fn spellings(property: &Value) -> Vec<String> {
    let names = property.get(SPELLINGS).and_then(Value::as_array);
    let names = names.into_iter().flatten();
    names.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Adds the other names of properties as properties.
fn spell(schema: &mut Value) {
    each(schema, &mut |schema| {
        let mut choices = Vec::new();
        let Some(Value::Object(properties)) = schema.get_mut("properties") else {
            return;
        };
        let mut others = Vec::new();
        for (name, property) in properties.iter_mut() {
            let names = spellings(property);
            if names.is_empty() {
                continue;
            }
            let mut other = property.clone();
            if let (Some(property), Some(other)) = (property.as_object_mut(), other.as_object_mut())
            {
                property.remove(SPELLINGS);
                other.remove(SPELLINGS);
                other.remove("examples");
                other.insert(
                    "description".to_owned(),
                    format!("Another name of `{name}`; only one of them may be there.").into(),
                );
            }
            let mut all = vec![name.clone()];
            for name in names {
                others.push((name.clone(), other.clone()));
                all.push(name);
            }
            choices.push((name.clone(), all));
        }
        properties.extend(others);
        let mut wanted = Vec::new();
        if let Some(Value::Array(required)) = schema.get_mut("required") {
            for (name, all) in choices {
                if required.iter().any(|required| *required == name) {
                    required.retain(|required| *required != name);
                    let any: Vec<Value> = all
                        .iter()
                        .map(|name| json!({ "required": [name] }))
                        .collect();
                    wanted.push(json!({ "anyOf": any }));
                }
            }
            if required.is_empty() {
                schema.remove("required");
            }
        }
        if !wanted.is_empty() {
            schema.insert("allOf".to_owned(), wanted.into());
        }
    });
}
