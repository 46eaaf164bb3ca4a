//! Encodes events as `serde_json` would, into one text. Every request waits for its own event.

use itoa::Integer;
use keyway_domain::audit::Event;
use serde::Serialize;

/// Enough for most events without another allocation.
const EVENT_BYTES: usize = 768;

/// The end of an event's line: all fields that do not depend on its place in a chain, each after a comma, and the brace.
///
/// # Errors
/// If serde_json cannot encode a value. Strings and numbers always can be.
pub(crate) fn unplaced(event: &Event<'_>) -> Result<String, serde_json::Error> {
    // Every field is named, so that a new one cannot be forgotten here.
    let Event {
        audit: _,
        time: _,
        writer: _,
        seq: _,
        prev: _,
        request_id,
        dialect,
        operation,
        class,
        method,
        path,
        route,
        principal,
        key_id,
        key_version,
        source_key_id,
        source_key_version,
        resource,
        context,
        context_values,
        context_bytes,
        items,
        first_item,
        item_count,
        address,
        status,
        duration_us,
        error,
        counts,
        hash: _,
    } = event;
    let mut end = End(String::with_capacity(EVENT_BYTES));
    end.text(",\"request_id\":", request_id.as_deref())?;
    end.text(",\"dialect\":", Some(dialect))?;
    end.text(",\"operation\":", Some(operation))?;
    end.text(",\"class\":", class.as_deref())?;
    end.text(",\"method\":", method.as_deref())?;
    end.text(",\"path\":", path.as_deref())?;
    end.text(",\"route\":", route.as_deref())?;
    end.text(",\"principal\":", principal.as_deref())?;
    end.text(",\"key_id\":", key_id.as_deref())?;
    end.number(",\"key_version\":", *key_version);
    end.text(",\"source_key_id\":", source_key_id.as_deref())?;
    end.number(",\"source_key_version\":", *source_key_version);
    end.text(",\"resource\":", resource.as_deref())?;
    if let Some(names) = context {
        end.0.push_str(",\"context\":[");
        for (at, name) in names.iter().enumerate() {
            end.text(if at == 0 { "" } else { "," }, Some(name))?;
        }
        end.0.push(']');
    }
    end.json(",\"context_values\":", context_values.as_ref())?;
    end.number(",\"context_bytes\":", *context_bytes);
    end.json(",\"items\":", items.as_ref())?;
    end.number(",\"first_item\":", *first_item);
    end.number(",\"item_count\":", *item_count);
    end.text(",\"address\":", address.as_deref())?;
    end.number(",\"status\":", *status);
    end.number(",\"duration_us\":", *duration_us);
    end.text(",\"error\":", error.as_deref())?;
    end.json(",\"counts\":", counts.as_ref())?;
    end.0.push('}');
    Ok(end.0)
}

/// An event's encoded fields. `before` is the text between the last value and this one.
struct End(String);

impl End {
    fn text(&mut self, before: &str, value: Option<&str>) -> Result<(), serde_json::Error> {
        let Some(value) = value else {
            return Ok(());
        };
        if is_escaped(value) {
            return self.json(before, Some(value));
        }
        self.0.push_str(before);
        self.0.push('"');
        self.0.push_str(value);
        self.0.push('"');
        Ok(())
    }

    fn number(&mut self, before: &str, value: Option<impl Integer>) {
        if let Some(value) = value {
            self.0.push_str(before);
            self.0.push_str(itoa::Buffer::new().format(value));
        }
    }

    fn json<T: Serialize + ?Sized>(
        &mut self,
        before: &str,
        value: Option<&T>,
    ) -> Result<(), serde_json::Error> {
        if let Some(value) = value {
            self.0.push_str(before);
            self.0.push_str(&serde_json::to_string(value)?);
        }
        Ok(())
    }
}

/// Returns whether JSON must escape any of the text, which is rare.
fn is_escaped(text: &str) -> bool {
    // No branch for each byte, so that the compiler can vectorise the loop.
    (text.bytes()).fold(false, |is_escaped, byte| {
        is_escaped | (byte < b' ') | (byte == b'"') | (byte == b'\\')
    })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeMap;

    use keyway_domain::audit::{EventItem, FORMAT};

    use super::*;

    fn as_serde_writes(event: &Event<'_>) -> String {
        let placed = Event {
            audit: FORMAT,
            hash: None,
            ..event.clone()
        };
        let line = serde_json::to_string(&placed).unwrap();
        let begin = r#"{"audit":2,"time":"","writer":"","seq":0,"prev":"""#;
        line.strip_prefix(begin).unwrap().to_owned()
    }

    fn full(text: &str) -> Event<'_> {
        let some = || Some(Cow::Borrowed(text));
        let values = BTreeMap::from([(text.to_owned(), text.to_owned())]);
        Event {
            request_id: some(),
            dialect: Cow::Borrowed(text),
            operation: Cow::Borrowed(text),
            class: some(),
            method: some(),
            path: some(),
            route: some(),
            principal: some(),
            key_id: some(),
            key_version: Some(u32::MAX),
            source_key_id: some(),
            source_key_version: Some(0),
            resource: some(),
            context: Some(vec![Cow::Borrowed(text), Cow::Borrowed("second")]),
            context_values: Some(values),
            context_bytes: Some(17),
            items: Some(vec![EventItem {
                key_id: some(),
                ..EventItem::default()
            }]),
            first_item: Some(0),
            item_count: Some(u64::MAX),
            address: some(),
            status: Some(200),
            duration_us: Some(1234),
            error: some(),
            counts: Some(BTreeMap::from([(text.to_owned(), 3)])),
            ..Event::default()
        }
    }

    #[test]
    fn event_is_written_as_serde_writes_it() {
        let every_control: String = ('\0'..='\u{1f}').collect();
        for text in [
            "plain",
            "",
            "é\u{7f}\u{2028}",
            "a\"b",
            "a\\b",
            &every_control,
        ] {
            for event in [full(text), Event::default()] {
                assert_eq!(unplaced(&event).unwrap(), as_serde_writes(&event), "{text}");
            }
        }
        let nobody = Event {
            context: Some(Vec::new()),
            ..full("a")
        };
        assert_eq!(unplaced(&nobody).unwrap(), as_serde_writes(&nobody));
    }
}
