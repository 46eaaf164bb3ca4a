//! Finds events in what log drivers and collectors make of lines: prefixes, JSON around them, and long lines in parts.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The longest prefix before an event, in bytes.
const LONGEST_PREFIX: usize = 512;
/// The longest line that is joined from parts, in bytes.
const LONGEST_LINE: usize = 8 << 20;
/// The most wrappings around a line, such as Kubernetes' around a collector's.
const MOST_WRAPPINGS: usize = 4;
/// The beginning of this log's events.
const BEGIN: &str = "{\"audit\":";
/// Fields in which collectors keep a line.
const LINE_FIELDS: [&str; 6] = ["message", "@message", "textPayload", "line", "body", "msg"];
/// Fields in which collectors keep the parsed line.
const OBJECT_FIELDS: [&str; 3] = ["jsonPayload", "log", "log_processed"];

/// Finds events in a log, line by line.
#[derive(Default)]
pub(crate) struct Unwrapping {
    /// The beginnings of lines that were cut, by stream.
    parts: BTreeMap<String, String>,
    /// An object over several lines, as `jq` prints it.
    spread: Option<String>,
}

impl Unwrapping {
    /// Calls `each` with the events that end with this line: as JSON, or the rest of one that was damaged.
    pub(crate) fn line(&mut self, line: &str, each: &mut dyn FnMut(&str)) {
        let line = line.trim_end_matches(['\r', '\n']);
        if let Some(mut spread) = self.spread.take() {
            let is_end = line == "}";
            // The lines of an object are indented. Another line without indentation means that it was no event.
            if is_end || line.starts_with([' ', '\t']) && spread.len() <= LONGEST_LINE {
                spread.push_str(line);
                spread.push('\n');
                if is_end {
                    self.text(&spread, 0, each);
                } else {
                    self.spread = Some(spread);
                }
                return;
            }
        }
        if line == "{" {
            self.spread = Some("{\n".to_owned());
            return;
        }
        self.text(line.trim_start_matches('\u{feff}'), 0, each);
    }

    /// Calls `each` with what is left of events that do not end.
    pub(crate) fn finish(&mut self, each: &mut dyn FnMut(&str)) {
        let parts = std::mem::take(&mut self.parts);
        let rest = parts.into_values().chain(self.spread.take());
        for part in rest.filter(|part| is_of_event(part)) {
            each(&part);
        }
    }

    fn text(&mut self, text: &str, depth: usize, each: &mut dyn FnMut(&str)) {
        if text.starts_with(BEGIN) {
            each(text);
            return;
        }
        if depth > MOST_WRAPPINGS {
            return;
        }
        if let Some(cri) = Cri::parse(text) {
            if let Some(whole) = self.joined(cri.stream, cri.text, cri.is_whole) {
                self.text(&whole, depth + 1, each);
            }
            return;
        }
        let Some(begin) = text.find('{') else {
            return;
        };
        let (prefix, rest) = text.split_at(begin);
        // A line of the ordinary log that mentions a request is no prefix.
        if prefix.len() > LONGEST_PREFIX || prefix.contains(['"', '=']) {
            return;
        }
        let rest = rest.trim_end().trim_end_matches("\u{1b}[0m");
        if rest.starts_with(BEGIN) {
            each(rest);
            return;
        }
        match serde_json::from_str::<Map<String, Value>>(rest) {
            Ok(object) => self.object(object, rest, depth, each),
            Err(_) => match rest.find(BEGIN) {
                Some(begin) => each(rest.get(begin..).unwrap_or_default()),
                None if is_of_event(rest) => each(rest),
                None => {}
            },
        }
    }

    fn object(
        &mut self,
        mut object: Map<String, Value>,
        text: &str,
        depth: usize,
        each: &mut dyn FnMut(&str),
    ) {
        if is_event(&object) {
            each(text);
            return;
        }
        // Docker's json-file, and collectors of the same shape.
        if let Some(Value::String(log)) = object.get("log") {
            let stream = object.get("stream").and_then(Value::as_str);
            let stream = format!("log/{}", stream.unwrap_or_default());
            if let Some(whole) = self.joined(&stream, log, log.ends_with('\n')) {
                self.text(whole.trim_end(), depth + 1, each);
            }
            return;
        }
        // The journal's JSON. It writes text that it considers binary as an array of bytes.
        if let Some(message) = object.get("MESSAGE").and_then(of_journal) {
            let of = |name| object.get(name).and_then(Value::as_str).unwrap_or_default();
            let stream = format!("journal/{}/{}", of("_STREAM_ID"), of("_PID"));
            let is_whole = of("_LINE_BREAK") != "line-max";
            if let Some(whole) = self.joined(&stream, &message, is_whole) {
                self.text(&whole, depth + 1, each);
            }
            return;
        }
        for field in OBJECT_FIELDS {
            if let Some(Value::Object(inner)) = object.get(field)
                && is_event(inner)
                && let Ok(text) = serde_json::to_string(inner)
            {
                each(&text);
                return;
            }
        }
        for field in LINE_FIELDS {
            if let Some(Value::String(line)) = object.remove(field)
                && line.contains('{')
            {
                self.text(&line, depth + 1, each);
                return;
            }
        }
    }

    /// The text joined with its earlier parts; `None` while more is to come. Some collectors leave out the end of a line.
    /// Then the line is whole once its JSON is.
    fn joined(&mut self, stream: &str, text: &str, is_whole: bool) -> Option<String> {
        let before = self.parts.remove(stream);
        let whole = before.unwrap_or_default() + text;
        let is_json = |text: &str| {
            text.trim_end().ends_with('}')
                && text
                    .find('{')
                    .and_then(|begin| text.get(begin..))
                    .is_some_and(|json| serde_json::from_str::<Value>(json).is_ok())
        };
        if is_whole || is_json(&whole) {
            return Some(whole);
        }
        // The earlier parts belong to another line.
        if text.starts_with('{') && is_json(text) {
            return Some(text.to_owned());
        }
        if whole.contains('{') && whole.len() <= LONGEST_LINE {
            self.parts.insert(stream.to_owned(), whole);
        }
        None
    }
}

/// A line of the container runtime interface: `TIME STREAM F|P TEXT`, where `P` is a part of a line and not its last.
struct Cri<'a> {
    stream: &'a str,
    is_whole: bool,
    text: &'a str,
}

impl<'a> Cri<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (time, rest) = line.split_once(' ')?;
        let (stream, rest) = rest.split_once(' ')?;
        let (tags, text) = rest.split_once(' ')?;
        let tag = tags.split(':').next()?;
        let is_cri = time.starts_with(|first: char| first.is_ascii_digit())
            && time.contains('T')
            && matches!(stream, "stdout" | "stderr")
            && matches!(tag, "F" | "P");
        is_cri.then_some(Self {
            stream,
            is_whole: tag == "F",
            text,
        })
    }
}

fn of_journal(message: &Value) -> Option<String> {
    match message {
        Value::String(text) => Some(text.clone()),
        Value::Array(bytes) => {
            let bytes: Option<Vec<u8>> = bytes
                .iter()
                .map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()))
                .collect();
            Some(String::from_utf8_lossy(&bytes?).into_owned())
        }
        _ => None,
    }
}

fn is_event(object: &Map<String, Value>) -> bool {
    ["audit", "writer", "seq"]
        .iter()
        .all(|field| object.contains_key(*field))
}

/// Whether the text is a part of an event.
fn is_of_event(text: &str) -> bool {
    text.contains("\"audit\":") && text.contains("\"writer\":")
}
