//! Finds out what a decoder accepts by running it on a deserializer that records its calls instead of on JSON.
//!
//! The derived `JsonSchema` knows neither other spellings of a field nor what a `deserialize_with` makes of it, and a schema
//! that is written by hand says only what it should accept. The decoder's calls and errors show everything: which names it
//! knows, which of them are the same field, and which fields it requires.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::{MapDeserializer, StrDeserializer, UnitDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value, json};

/// The keyword for the other names of a property.
pub(super) const SPELLINGS: &str = "x-spellings";

/// The schema of what `T` decodes. A property's other names are in its `x-spellings`.
///
/// # Errors
/// The reason why the decoder cannot be observed.
pub(super) fn observed<T: DeserializeOwned>() -> Result<Value, String> {
    Observer::<T>::new().schema(&mut Vec::new())
}

#[derive(Clone, Copy)]
enum Step {
    Field(&'static str),
    Item,
    Entry,
}

/// The type that the decoder asks for at the end of the path.
#[derive(Clone, Copy)]
enum Seen {
    Text,
    Flag,
    Number,
    Integer { least: i64, most: Option<u64> },
    Words(&'static [&'static str]),
    Fields(&'static [&'static str]),
    List,
    Entries,
    Anything,
}

struct Observer<T>(std::marker::PhantomData<T>);

impl<T: DeserializeOwned> Observer<T> {
    const fn new() -> Self {
        Self(std::marker::PhantomData)
    }

    fn schema(&self, path: &mut Vec<Step>) -> Result<Value, String> {
        let notes = RefCell::new(Notes::default());
        // Always an error, whatever it finds.
        drop(T::deserialize(Question {
            path,
            names: None,
            notes: &notes,
        }));
        let Notes { seen, nullable, .. } = notes.into_inner();
        let seen = seen.ok_or("the decoder asks for nothing")?;
        let mut schema = match seen {
            Seen::Text => json!({"type": "string"}),
            Seen::Flag => json!({"type": "boolean"}),
            Seen::Number => json!({"type": "number"}),
            Seen::Integer { least, most } => {
                let mut schema = json!({"type": "integer"});
                if least == 0 {
                    schema = json!({"type": "integer", "minimum": 0});
                }
                if let (Some(most), Some(schema)) = (most, schema.as_object_mut()) {
                    schema.insert("maximum".to_owned(), most.into());
                }
                schema
            }
            Seen::Words(words) => json!({"type": "string", "enum": words}),
            Seen::List => {
                json!({"type": "array", "items": self.below(path, Step::Item)?})
            }
            Seen::Entries => {
                json!({"type": "object", "additionalProperties": self.below(path, Step::Entry)?})
            }
            Seen::Anything => return Ok(json!({})),
            Seen::Fields(names) => self.object(path, names)?,
        };
        if nullable {
            super::schema::make_nullable(&mut schema);
        }
        Ok(schema)
    }

    fn below(&self, path: &mut Vec<Step>, step: Step) -> Result<Value, String> {
        path.push(step);
        let schema = self.schema(path);
        path.pop();
        schema
    }

    fn object(
        &self,
        path: &mut Vec<Step>,
        names: &'static [&'static str],
    ) -> Result<Value, String> {
        let mut fields: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
        for &name in names {
            let own = self.own_name(path, names, name)?;
            match fields.iter_mut().find(|(field, _)| *field == own) {
                Some((_, spellings)) => spellings.push(name),
                None => fields.push((own, vec![name])),
            }
        }
        let mut properties = Map::new();
        let mut required: Vec<&str> = Vec::new();
        for (field, spellings) in &fields {
            let mut schema = self.below(path, Step::Field(field))?;
            let others: Vec<&str> = spellings
                .iter()
                .copied()
                .filter(|name| name != field)
                .collect();
            if let (false, Some(schema)) = (others.is_empty(), schema.as_object_mut()) {
                schema.insert(SPELLINGS.to_owned(), json!(others));
            }
            properties.insert((*field).to_owned(), schema);
            let all_others: Vec<&'static str> = fields
                .iter()
                .map(|(other, _)| *other)
                .filter(|other| other != field)
                .collect();
            if self.complaint(path, &all_others)? == format!("missing field `{field}`") {
                required.push(field);
            }
        }
        let mut schema = json!({"type": "object", "properties": properties});
        if let Some(schema) = schema.as_object_mut() {
            if !required.is_empty() {
                schema.insert("required".to_owned(), json!(required));
            }
            if self.complaint(path, &["\0"])?.starts_with("unknown field") {
                schema.insert("additionalProperties".to_owned(), false.into());
            }
        }
        Ok(schema)
    }

    /// The field's own name, from the decoder's error about a repeated field. A decoder that accepts repeated fields has
    /// one name for each.
    fn own_name(
        &self,
        path: &[Step],
        names: &'static [&'static str],
        name: &'static str,
    ) -> Result<&'static str, String> {
        let complaint = self.complaint(path, &[name, name])?;
        if complaint.is_empty() {
            return Ok(name);
        }
        complaint
            .strip_prefix("duplicate field `")
            .and_then(|rest| rest.split('`').next())
            .and_then(|own| names.iter().find(|name| **name == own))
            .copied()
            .ok_or_else(|| format!("`{name}` given twice: {complaint}"))
    }

    /// The error of the struct at this path for an object with these names; empty if it accepts the object.
    fn complaint(&self, path: &[Step], names: &[&'static str]) -> Result<String, String> {
        let notes = RefCell::new(Notes::default());
        drop(T::deserialize(Question {
            path,
            names: Some(names),
            notes: &notes,
        }));
        notes
            .into_inner()
            .complaint
            .ok_or_else(|| "the struct was not reached".to_owned())
    }
}

#[derive(Default)]
struct Notes {
    seen: Option<Seen>,
    nullable: bool,
    complaint: Option<String>,
}

/// A deserializer that follows the path. At its end it records what the decoder asks for, or, if there are names, gives an
/// object with them and records the error.
#[derive(Clone, Copy)]
struct Question<'q> {
    path: &'q [Step],
    names: Option<&'q [&'static str]>,
    notes: &'q RefCell<Notes>,
}

#[derive(Debug)]
struct Stop(String);

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self(message.to_string())
    }
}

impl Question<'_> {
    fn found<V>(self, seen: Seen) -> Result<V, Stop> {
        if self.path.is_empty() && self.names.is_none() {
            self.notes.borrow_mut().seen = Some(seen);
        }
        Err(Stop(String::new()))
    }

    /// The same, one step down the path.
    fn down(self) -> Self {
        Self {
            path: self.path.get(1..).unwrap_or_default(),
            ..self
        }
    }
}

macro_rules! found {
    ($($method:ident => $seen:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
            self.found($seen)
        })*
    };
}

const SIGNED: Seen = Seen::Integer {
    least: i64::MIN,
    most: None,
};

const fn unsigned(most: Option<u64>) -> Seen {
    Seen::Integer { least: 0, most }
}

impl<'de> Deserializer<'de> for Question<'_> {
    type Error = Stop;

    found! {
        deserialize_any => Seen::Anything;
        deserialize_ignored_any => Seen::Anything;
        deserialize_bool => Seen::Flag;
        deserialize_i8 => SIGNED;
        deserialize_i16 => SIGNED;
        deserialize_i32 => SIGNED;
        deserialize_i64 => SIGNED;
        deserialize_u8 => unsigned(Some(u8::MAX.into()));
        deserialize_u16 => unsigned(Some(u16::MAX.into()));
        deserialize_u32 => unsigned(Some(u32::MAX.into()));
        deserialize_u64 => unsigned(None);
        deserialize_f32 => Seen::Number;
        deserialize_f64 => Seen::Number;
        deserialize_char => Seen::Text;
        deserialize_str => Seen::Text;
        deserialize_string => Seen::Text;
        deserialize_identifier => Seen::Text;
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        if self.path.is_empty() {
            self.notes.borrow_mut().nullable = true;
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.path.first() {
            Some(Step::Item) => visitor.visit_seq(self.down()),
            _ => self.found(Seen::List),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.path.first() {
            Some(Step::Entry) => visitor.visit_map(Entry("", self.down())),
            _ => self.found(Seen::Entries),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        match (self.path.first(), self.names) {
            (Some(Step::Field(name)), _) => visitor.visit_map(Entry(name, self.down())),
            (None, Some(names)) => {
                let entries = names.iter().map(|&name| (name, Filler));
                let said = visitor.visit_map(MapDeserializer::new(entries));
                let complaint = said.err().map_or_else(String::new, |stop: Stop| stop.0);
                self.notes.borrow_mut().complaint = Some(complaint);
                Err(Stop(String::new()))
            }
            _ => self.found(Seen::Fields(fields)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Stop> {
        self.found(Seen::Words(variants))
    }

    forward_to_deserialize_any! {
        i128 u128 bytes byte_buf unit unit_struct tuple tuple_struct
    }
}

impl<'de> SeqAccess<'de> for Question<'_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Stop> {
        seed.deserialize(*self).map(Some)
    }
}

/// An object with one entry.
struct Entry<'q>(&'static str, Question<'q>);

impl<'de> MapAccess<'de> for Entry<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Stop> {
        let name: StrDeserializer<'_, Stop> = self.0.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        seed.deserialize(self.1)
    }
}

/// A deserializer that returns the smallest value of whatever type is asked for.
#[derive(Clone, Copy)]
struct Filler;

impl IntoDeserializer<'_, Stop> for Filler {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Filler {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_none()
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_bool(false)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_u64(0)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_i64(0)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_u32(0)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_str("")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_str("")
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_seq(Nothing)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_map(Nothing)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_map(Nothing)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_enum(Word(variants.first().copied().unwrap_or_default()))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
        ignored_any
    }
}

struct Nothing;

impl<'de> SeqAccess<'de> for Nothing {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        _: T,
    ) -> Result<Option<T::Value>, Stop> {
        Ok(None)
    }
}

impl<'de> MapAccess<'de> for Nothing {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, _: K) -> Result<Option<K::Value>, Stop> {
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        seed.deserialize(UnitDeserializer::new())
    }
}

struct Word(&'static str);

impl<'de> EnumAccess<'de> for Word {
    type Error = Stop;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Stop> {
        let name: StrDeserializer<'_, Stop> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Word {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Stop> {
        seed.deserialize(Filler)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_seq(Nothing)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_map(Nothing)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "decoded, and that is all")]
    struct Outer {
        #[serde(alias = "keyId", alias = "name")]
        key_id: Option<String>,
        count: u32,
        #[serde(default)]
        flag: bool,
        kind: Option<Kind>,
        items: Vec<Inner>,
        pairs: Option<std::collections::BTreeMap<String, String>>,
        big: Option<u64>,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "decoded, and that is all")]
    struct Inner {
        #[serde(alias = "Days")]
        days: i64,
    }

    #[derive(Deserialize)]
    enum Kind {
        #[serde(rename = "local", alias = "Local")]
        Local,
        Vault,
    }

    #[test]
    fn decoder_reports_the_fields_it_takes() {
        let expected = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["count", "items"],
            "properties": {
                "key_id": {"type": ["string", "null"], "x-spellings": ["keyId", "name"]},
                "count": {"type": "integer", "minimum": 0, "maximum": u32::MAX},
                "flag": {"type": "boolean"},
                "kind": {"type": ["string", "null"], "enum": ["Local", "local", "Vault", null]},
                "items": {"type": "array", "items": {
                    "type": "object",
                    "required": ["days"],
                    "properties": {"days": {"type": "integer", "x-spellings": ["Days"]}},
                }},
                "pairs": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
                "big": {"type": ["integer", "null"], "minimum": 0},
            },
        });
        assert_eq!(observed::<Outer>().unwrap(), expected);
    }

    /// A decoder that accepts repeated and unknown fields, and an absent object too.
    #[derive(Default)]
    struct Lenient;

    impl<'de> Deserialize<'de> for Lenient {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_option(Self)
        }
    }

    impl<'de> Visitor<'de> for Lenient {
        type Value = Self;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_none<E: de::Error>(self) -> Result<Self, E> {
            Ok(self)
        }

        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_struct("Lenient", &["flag", "text"], self)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
            while let Some(name) = map.next_key::<String>()? {
                match name.as_str() {
                    "flag" => drop(map.next_value::<bool>()?),
                    "text" => drop(map.next_value::<String>()?),
                    _ => drop(map.next_value::<de::IgnoredAny>()?),
                }
            }
            Ok(self)
        }
    }

    #[test]
    fn decoder_that_takes_repeated_fields_has_each_under_its_name() {
        let expected = json!({
            "type": ["object", "null"],
            "properties": {"flag": {"type": "boolean"}, "text": {"type": "string"}},
        });
        assert_eq!(observed::<Lenient>().unwrap(), expected);
    }
}
