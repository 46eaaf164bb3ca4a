//! Formats the fields of spans. Every request has a span, but most are never read, because no line is logged in them.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, FormattedFields};

/// Writes a span's fields one after the other as a JSON object. `tracing-subscriber` itself builds a tree of values first.
pub(crate) struct SpanFields;

impl<'w> FormatFields<'w> for SpanFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        Object::begin().finish(fields, &mut writer)
    }

    fn add_fields(
        &self,
        current: &'w mut FormattedFields<Self>,
        fields: &Record<'_>,
    ) -> fmt::Result {
        if current.fields.pop().is_none() {
            return self.format_fields(current.as_writer(), fields);
        }
        let separator = if current.fields.ends_with('{') {
            ""
        } else {
            ","
        };
        Object::after(String::new(), separator).finish(fields, &mut current.as_writer())
    }
}

/// A span's fields so far, in one text, because each write to the writer is a dynamic call.
struct Object {
    text: String,
    separator: &'static str,
    written: fmt::Result,
}

/// Enough for the fields of most requests' spans.
const FIELDS_BYTES: usize = 192;

impl Object {
    fn begin() -> Self {
        let mut text = String::with_capacity(FIELDS_BYTES);
        text.push('{');
        Self::after(text, "")
    }

    fn after(text: String, separator: &'static str) -> Self {
        Self {
            text,
            separator,
            written: Ok(()),
        }
    }

    fn finish(mut self, fields: impl RecordFields, writer: &mut Writer<'_>) -> fmt::Result {
        fields.record(&mut self);
        self.written?;
        self.text.push('}');
        writer.write_str(&self.text)
    }

    fn write(&mut self, field: &Field, value: impl FnOnce(&mut String) -> fmt::Result) {
        if self.written.is_err() {
            return;
        }
        self.text.push_str(self.separator);
        // Field names are literals in the source and need no escaping.
        self.text.push('"');
        self.text.push_str(field.name());
        self.text.push_str("\":");
        self.separator = ",";
        self.written = value(&mut self.text);
    }
}

/// Writes a JSON string. Most need no escaping.
fn push(out: &mut String, text: &str) -> fmt::Result {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        out.push('"');
        out.push_str(text);
        out.push('"');
        return Ok(());
    }
    out.push_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?);
    Ok(())
}

impl Visit for Object {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, |out| push(out, value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, |out| write!(out, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, |out| write!(out, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, |out| write!(out, "{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, |out| push(out, &format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// The span in a line that is logged within it.
    fn logged(act: impl FnOnce()) -> Value {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .fmt_fields(SpanFields)
            .with_writer(lines.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, act);
        let text = lines.0.lock().unwrap();
        let line: Value = serde_json::from_slice(&text).unwrap();
        line["span"].clone()
    }

    #[test]
    fn line_has_the_fields_of_its_span() {
        let nothing: Option<&str> = None;
        let span = logged(|| {
            let span = tracing::info_span!(
                "request",
                text = "a \"quoted\"\n\u{1}é",
                number = -3,
                large = u64::MAX,
                truth = true,
                shown = %"x y",
                debugged = ?Some(1),
                nothing
            );
            span.in_scope(|| tracing::info!("here"));
        });
        assert_eq!(
            span,
            json!({
                "name": "request", "text": "a \"quoted\"\n\u{1}é", "number": -3, "large": u64::MAX, "truth": true,
                "shown": "x y", "debugged": "Some(1)"
            })
        );
    }

    #[test]
    fn span_fields_can_be_recorded_later() {
        for first in [None, Some("a")] {
            let span = logged(|| {
                let span = tracing::info_span!("request", first, second = tracing::field::Empty);
                span.record("second", "b");
                span.in_scope(|| tracing::info!("here"));
            });
            let mut expected = json!({"name": "request", "second": "b"});
            if let Some(first) = first {
                expected["first"] = first.into();
            }
            assert_eq!(span, expected);
        }
    }

    #[test]
    fn span_without_fields_is_logged() {
        let span = logged(|| tracing::info_span!("bare").in_scope(|| tracing::info!("here")));
        assert_eq!(span, json!({"name": "bare"}));
    }
}
