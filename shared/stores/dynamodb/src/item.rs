//! Converts records to items and back.

use std::collections::HashMap;
use std::sync::LazyLock;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use keyway_domain::ports::{Kind, Record, Revision, StoreError};

pub(crate) type Item = HashMap<String, AttributeValue>;

pub(crate) const KIND: &str = "kind";
pub(crate) const ID: &str = "id";
pub(crate) const REVISION: &str = "revision";
const VALUE: &str = "value";
/// Microseconds since 1970. Conditions and reads use this one.
pub(crate) const EXPIRES_AT: &str = "expires_at";
/// Seconds since 1970, rounded up. DynamoDB's own TTL removes items by it, up to days later.
const TTL: &str = "ttl";

/// How many earlier revisions an item holds, in the attributes `past_1` (the newest) and so on.
pub(crate) const PAST: usize = 16;

/// The partition of an item: its kind, and for kinds with parts also the part, which is the id's first bytes.
pub(crate) fn partition(kind: Kind, id: &str) -> String {
    match kind.part_bytes() {
        None => kind.as_str().to_owned(),
        Some(bytes) => {
            let part = id.get(..bytes).unwrap_or(id);
            format!("{}#{part}", kind.as_str())
        }
    }
}

/// The primary key of an item.
pub(crate) fn key(kind: Kind, id: &str) -> Item {
    HashMap::from([
        (KIND.to_owned(), AttributeValue::S(partition(kind, id))),
        (ID.to_owned(), AttributeValue::S(id.to_owned())),
    ])
}

pub(crate) fn micros(time: Timestamp) -> AttributeValue {
    AttributeValue::N(time.as_microsecond().to_string())
}

fn ttl(time: Timestamp) -> AttributeValue {
    AttributeValue::N(time.as_second().saturating_add(1).to_string())
}

pub(crate) fn revision(revision: Revision) -> AttributeValue {
    AttributeValue::B(Blob::new(revision.0))
}

/// The item of a new record, without earlier revisions.
pub(crate) fn item(record: &Record) -> Item {
    let mut item = key(record.kind, &record.id);
    item.insert(REVISION.to_owned(), revision(record.revision));
    item.insert(
        VALUE.to_owned(),
        AttributeValue::B(Blob::new(record.value.clone())),
    );
    if let Some(expiry) = record.expires_at {
        item.insert(EXPIRES_AT.to_owned(), micros(expiry));
        item.insert(TTL.to_owned(), ttl(expiry));
    }
    item
}

/// Replaces an item's value and moves its revisions by one place. The oldest is set first, so that the result is
/// the same in services that do not read all attributes before they set any, as DynamoDB does.
pub(crate) fn replacement(expires: bool) -> &'static str {
    static EXPRESSIONS: LazyLock<[String; 2]> = LazyLock::new(|| {
        let mut sets: Vec<String> = (1..PAST)
            .rev()
            .map(|n| format!("past_{} = if_not_exists(past_{n}, :none)", n + 1))
            .collect();
        sets.push("past_1 = #revision, #revision = :new, #value = :value".to_owned());
        let sets = sets.join(", ");
        [
            format!("SET {sets} REMOVE #expires, #ttl"),
            format!("SET {sets}, #expires = :expires, #ttl = :ttl"),
        ]
    });
    let [lasting, expiring] = &*EXPRESSIONS;
    if expires { expiring } else { lasting }
}

pub(crate) fn replacement_names() -> HashMap<String, String> {
    [
        ("#revision", REVISION),
        ("#value", VALUE),
        ("#expires", EXPIRES_AT),
        ("#ttl", TTL),
    ]
    .map(|(name, attribute)| (name.to_owned(), attribute.to_owned()))
    .into()
}

pub(crate) fn replacement_values(record: &Record) -> Item {
    let mut values = HashMap::from([
        (":none".to_owned(), AttributeValue::Bool(false)),
        (":new".to_owned(), revision(record.revision)),
        (
            ":value".to_owned(),
            AttributeValue::B(Blob::new(record.value.clone())),
        ),
    ]);
    if let Some(expiry) = record.expires_at {
        values.insert(":expires".to_owned(), micros(expiry));
        values.insert(":ttl".to_owned(), ttl(expiry));
    }
    values
}

/// The attributes of an existing item that writes need.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) revision: Revision,
    /// The revisions before it, the newest first. Fewer than [`PAST`] means that these are all since the item was made.
    pub(crate) past: Vec<Revision>,
    pub(crate) expires_at: Option<Timestamp>,
}

impl Found {
    pub(crate) fn parse(item: &Item) -> Result<Self, StoreError> {
        let past = (1..=PAST)
            .map_while(|n| revision_of(item.get(&format!("past_{n}"))))
            .collect();
        let expires_at = match item.get(EXPIRES_AT) {
            None => None,
            Some(AttributeValue::N(micros)) => Some(
                micros
                    .parse()
                    .ok()
                    .and_then(|micros| Timestamp::from_microsecond(micros).ok())
                    .ok_or_else(|| garbled(EXPIRES_AT))?,
            ),
            Some(_) => return Err(garbled(EXPIRES_AT)),
        };
        Ok(Self {
            revision: revision_of(item.get(REVISION)).ok_or_else(|| garbled(REVISION))?,
            past,
            expires_at,
        })
    }

    pub(crate) fn expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expiry| expiry <= now)
    }
}

/// The record that an item holds.
pub(crate) fn record(kind: Kind, mut item: Item, found: &Found) -> Result<Record, StoreError> {
    let Some(AttributeValue::S(id)) = item.remove(ID) else {
        return Err(garbled(ID));
    };
    let Some(AttributeValue::B(value)) = item.remove(VALUE) else {
        return Err(garbled(VALUE));
    };
    Ok(Record {
        kind,
        id,
        revision: found.revision,
        value: value.into_inner(),
        expires_at: found.expires_at,
    })
}

fn revision_of(attribute: Option<&AttributeValue>) -> Option<Revision> {
    match attribute {
        Some(AttributeValue::B(bytes)) => bytes.as_ref().try_into().ok().map(Revision),
        _ => None,
    }
}

fn garbled(attribute: &'static str) -> StoreError {
    StoreError::Failed {
        what: "read an item",
        source: format!("its attribute `{attribute}` is not one that keyway writes").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_record(expires_at: Option<Timestamp>) -> Record {
        Record {
            kind: Kind::AccessKey,
            id: "id".to_owned(),
            revision: Revision([7; 16]),
            value: b"value".to_vec(),
            expires_at,
        }
    }

    #[test]
    fn records_survive() {
        for expires_at in [
            None,
            Some(Timestamp::from_microsecond(1_234_567_890_123_456).unwrap()),
        ] {
            let wanted = a_record(expires_at);
            let item = item(&wanted);
            let found = Found::parse(&item).unwrap();
            assert!(found.past.is_empty());
            assert_eq!(record(Kind::AccessKey, item, &found).unwrap(), wanted);
        }
    }

    #[test]
    fn ttl_is_never_before_the_expiry() {
        let item = item(&a_record(Some(
            Timestamp::from_microsecond(1_999_999).unwrap(),
        )));
        assert_eq!(item[TTL], AttributeValue::N("2".to_owned()));
        assert_eq!(item[EXPIRES_AT], AttributeValue::N("1999999".to_owned()));
    }

    #[test]
    fn foreign_items_are_refused() {
        let good = item(&a_record(None));
        for (attribute, value) in [
            (REVISION, AttributeValue::B(Blob::new([1; 15]))),
            (REVISION, AttributeValue::S("x".to_owned())),
            (EXPIRES_AT, AttributeValue::N("1.5".to_owned())),
            (EXPIRES_AT, AttributeValue::N("9".repeat(30))),
            (EXPIRES_AT, AttributeValue::S("1".to_owned())),
            (VALUE, AttributeValue::S("text".to_owned())),
            (ID, AttributeValue::N("1".to_owned())),
        ] {
            let mut item = good.clone();
            item.insert(attribute.to_owned(), value);
            let read = Found::parse(&item).and_then(|found| record(Kind::Key, item, &found));
            assert!(
                matches!(read, Err(StoreError::Failed { .. })),
                "{attribute}"
            );
        }
    }

    #[test]
    fn past_ends_at_a_value_of_another_type() {
        let mut item = item(&a_record(None));
        item.insert("past_1".to_owned(), revision(Revision([1; 16])));
        item.insert("past_2".to_owned(), revision(Revision([2; 16])));
        item.insert("past_3".to_owned(), AttributeValue::Bool(false));
        let past = Found::parse(&item).unwrap().past;
        assert_eq!(past, [Revision([1; 16]), Revision([2; 16])]);
    }
}
