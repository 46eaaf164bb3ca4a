//! A policy's JSON. An error has the kind of the fault and its place, and repeats nothing of the document, which may be
//! a file that was never meant to be a policy.

use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::error::Category;

use super::{Effect, Policy, Statement};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Document {
    version: Option<Value>,
    #[serde(alias = "ID")]
    id: Option<Value>,
    #[serde(deserialize_with = "one_or_many")]
    statement: Vec<Written>,
}

/// A statement as written. Elements that Keyway does not implement are listed, so that the error can name them.
/// RustFS's console writes them empty.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Written {
    sid: Option<Value>,
    effect: Effect,
    #[serde(default, deserialize_with = "some_one_or_many")]
    action: Option<Vec<String>>,
    #[serde(default, deserialize_with = "some_one_or_many")]
    resource: Option<Vec<String>>,
    not_action: Option<Value>,
    not_resource: Option<Value>,
    condition: Option<Value>,
    principal: Option<Value>,
    not_principal: Option<Value>,
}

/// Parses a document. Does not check what its statements mean.
pub(super) fn read(document: &str) -> Result<Policy, String> {
    // Some editors put a byte order mark before the text.
    let document = document.strip_prefix('\u{feff}').unwrap_or(document);
    let Document {
        version,
        id,
        statement,
    } = serde_json::from_str(document).map_err(|error| fault(&error))?;
    let statement = (1..)
        .zip(statement)
        .map(|(number, written)| {
            let read = written.read();
            read.map_err(|reason| format!("statement {number}: {reason}"))
        })
        .collect::<Result<_, _>>()?;
    Ok(Policy {
        version: text("Version", version)?,
        id: text("Id", id)?,
        statement,
    })
}

impl Written {
    fn read(self) -> Result<Statement, String> {
        for (name, value, may_be_empty) in [
            ("NotAction", &self.not_action, true),
            ("NotResource", &self.not_resource, true),
            ("Condition", &self.condition, true),
            ("Principal", &self.principal, false),
            ("NotPrincipal", &self.not_principal, false),
        ] {
            if let Some(value) = value
                && !(may_be_empty && is_empty(value))
            {
                return Err(format!(
                    "`{name}` is not implemented, so it must not be there"
                ));
            }
        }
        Ok(Statement {
            sid: text("Sid", self.sid)?,
            effect: self.effect,
            action: self.action.ok_or("has no `Action`")?,
            resource: self.resource,
        })
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(entries) => entries.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn text(name: &str, value: Option<Value>) -> Result<Option<String>, String> {
    match value {
        None => Ok(None),
        Some(value) if is_empty(&value) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("`{name}` is not text")),
    }
}

/// The parser's own texts quote the input, so only the kind of the fault is taken from them.
fn fault(error: &serde_json::Error) -> String {
    let words = error.to_string();
    let kind = match error.classify() {
        Category::Io | Category::Syntax => "is not JSON",
        Category::Eof => "is not JSON: it ends too early",
        Category::Data if words.starts_with("unknown field") => {
            "has an element that is not known: the policy's are `Version`, `Id` and `Statement`, and a statement's `Sid`, `Effect`, `Action` and `Resource`"
        }
        Category::Data if words.starts_with("unknown variant") => {
            "has an `Effect` that is neither `Allow` nor `Deny`"
        }
        Category::Data if words.starts_with("duplicate field") => "has an element twice",
        Category::Data if words.starts_with("missing field") => {
            "lacks `Statement`, or a statement lacks `Effect`"
        }
        Category::Data => "has an element of another type than it should be",
    };
    let (line, column) = (error.line(), error.column());
    format!("{kind} (line {line}, column {column})")
}

/// One element, or an array of them, as in IAM. An untagged enum would lose the cause of an error.
pub(super) fn one_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct OneOrMany<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("one element or an array of them")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<T>, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(seq))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            T::deserialize(text.into_deserializer()).map(|one| vec![one])
        }
    }

    deserializer.deserialize_any(OneOrMany(PhantomData))
}

pub(super) fn some_one_or_many<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    one_or_many(deserializer).map(Some)
}
