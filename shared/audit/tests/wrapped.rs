//! The verifier finds events, and changes to them, in the formats of log drivers and collectors.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::borrow::Cow;
use std::fmt::Write as _;

use keyway_audit::{Finding, Verified, Verifier};
use keyway_domain::audit::{Event, EventItem};
use serde_json::{Value, json};

const EVENTS: u64 = 6;

/// Lines as a process prints them, with those of the ordinary log in between. One event is long, and has all that JSON
/// can write in several ways. They have format 1, of which logs are kept.
fn printed() -> Vec<String> {
    let mut prev = "0".repeat(64);
    let mut lines = Vec::new();
    for seq in 0..EVENTS {
        let item = |n: usize| EventItem {
            key_id: Some(format!("key-{n}-{}", "x".repeat(100)).into()),
            context: Some(vec!["\u{7f}\u{2028}é\"\\/\u{1F511}".into()]),
            ..EventItem::default()
        };
        let mut event = Event {
            audit: 1,
            time: "2026-11-22T12:00:00.123456789Z".into(),
            writer: "5b1e0c44a1d0f7e2".into(),
            seq,
            prev: Cow::Owned(prev),
            request_id: Some("r\t\u{1}".into()),
            dialect: "rustfs".into(),
            operation: "kms:Rewrap".into(),
            items: (seq == 3).then(|| (0..400).map(item).collect()),
            duration_us: Some(u64::from(u32::MAX) + seq),
            status: Some(200),
            ..Event::default()
        };
        let hash = keyway_crypto::sha256(&[&serde_json::to_vec(&event).unwrap()]);
        let hash = hash.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
        event.hash = Some(Cow::Borrowed(&hash));
        lines.push(serde_json::to_string(&event).unwrap());
        lines.push(
            r#"{"timestamp":"2026-11-22T12:00:00Z","level":"INFO","message":"{ no event"}"#.into(),
        );
        lines.push("2026-11-22T12:00:00Z  WARN plain error=\"{\"".into());
        prev = hash;
    }
    lines
}

fn verified(lines: &[String]) -> Verified {
    let mut verifier = Verifier::new(false);
    lines.iter().for_each(|line| verifier.kept_line(line));
    verifier.finish()
}

/// A text in parts of this many bytes, as drivers split it.
fn parts(text: &str, bytes: usize) -> Vec<String> {
    let mut parts = vec![String::new()];
    for char in text.chars() {
        if parts.last().unwrap().len() + char.len_utf8() > bytes {
            parts.push(String::new());
        }
        parts.last_mut().unwrap().push(char);
    }
    parts
}

fn docker(line: &str) -> Vec<String> {
    let other = json!({"log": "of the other stream ", "stream": "stderr", "time": "t"}).to_string();
    let mut lines = vec![other];
    for part in parts(&format!("{line}\n"), 16 << 10) {
        lines.push(
            json!({"log": part, "stream": "stdout", "time": "2026-11-22T12:00:00.1Z"}).to_string(),
        );
        lines.push(json!({"log": "more\n", "stream": "stderr", "time": "t"}).to_string());
    }
    lines
}

fn cri(line: &str) -> Vec<String> {
    let parts = parts(line, 16 << 10);
    let last = parts.len() - 1;
    let of = |(n, part): (usize, String)| {
        let tag = if n == last { "F" } else { "P" };
        [
            format!("2016-10-06T00:17:09.669794202Z stdout {tag} {part}"),
            format!("2016-10-06T00:17:09.669794202Z stderr {tag} {{other"),
        ]
    };
    parts.into_iter().enumerate().flat_map(of).collect()
}

fn audit_writer(line: &str) -> Vec<String> {
    let parts = parts(line, 48 << 10);
    let last = parts.len() - 1;
    let of = |(n, part): (usize, String)| {
        // No event has the word `none`; the verifier skips it like any other word.
        let end = if n == last { "none" } else { "line-max" };
        json!({"MESSAGE": part, "_PID": "7", "_STREAM_ID": "a", "_LINE_BREAK": end}).to_string()
    };
    parts.into_iter().enumerate().map(of).collect()
}

/// The line with its fields sorted, as `jq -S` has them: over several lines unless it is told to be compact.
fn sorted(line: &str, is_compact: bool) -> Vec<String> {
    let Ok(value) = serde_json::from_str::<Value>(line) else {
        return Vec::new();
    };
    // The object of a `Value` is sorted.
    if is_compact {
        vec![value.to_string()]
    } else {
        let text = serde_json::to_string_pretty(&value).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

type Wrap = fn(&str) -> Vec<String>;

const WRAPPINGS: [(&str, Wrap); 20] = [
    ("as it is", |line| vec![line.to_owned()]),
    ("with a carriage return", |line| vec![format!("{line}\r")]),
    ("docker json-file", docker),
    ("without the end of a line", |line| {
        vec![json!({"log": line, "stream": "stdout"}).to_string()]
    }),
    ("cri", cri),
    ("docker compose", |line| vec![format!("keyway-1  | {line}")]),
    ("docker compose in colour", |line| {
        vec![format!("\u{1b}[36mkeyway-1  | \u{1b}[0m{line}")]
    }),
    ("journald short", |line| {
        vec![format!("Nov 22 12:00:00 host keyway[812]: {line}")]
    }),
    ("journald short-iso", |line| {
        vec![format!("2026-11-22T12:00:00+0000 host keyway[812]: {line}")]
    }),
    ("journald json", audit_writer),
    ("journald json as bytes", |line| {
        vec![json!({"MESSAGE": line.as_bytes(), "_PID": "7"}).to_string()]
    }),
    ("ts", |line| vec![format!("Nov 22 12:00:00 {line}")]),
    ("syslog", |line| {
        vec![format!(
            "<30>1 2026-11-22T12:00:00.1Z host keyway 812 - - {line}"
        )]
    }),
    ("kubectl", |line| {
        vec![format!(
            "[pod/keyway-0/keyway] 2026-11-22T12:00:00.1Z {line}"
        )]
    }),
    ("cloudwatch", |line| {
        vec![json!({"timestamp": 1, "message": line, "ingestionTime": 2}).to_string()]
    }),
    ("a collector that parses", |line| {
        let object = serde_json::from_str::<Value>(line).unwrap_or_else(|_| json!(line));
        vec![json!({"jsonPayload": object, "insertId": "x"}).to_string()]
    }),
    ("jq -S", |line| sorted(line, false)),
    ("jq -cS", |line| sorted(line, true)),
    ("jq -a", |line| {
        let escaped = line.chars().map(|char| match char {
            ' '..='~' => char.to_string(),
            other => {
                let mut units = [0; 2];
                let units = other.encode_utf16(&mut units);
                units.iter().map(|unit| format!("\\u{unit:04x}")).collect()
            }
        });
        vec![escaped.collect()]
    }),
    ("cri around docker", |line| {
        docker(line).iter().flat_map(|line| cri(line)).collect()
    }),
];

#[test]
fn events_verify_in_every_log_drivers_format() {
    for (name, wrap) in WRAPPINGS {
        let lines: Vec<String> = printed().iter().flat_map(|line| wrap(line)).collect();
        let Verified {
            writers, findings, ..
        } = verified(&lines);
        assert_eq!(findings, [], "{name}");
        assert_eq!(writers.len(), 1, "{name}");
        assert_eq!(writers[0].count, EVENTS, "{name}");
    }
}

#[test]
fn event_removed_or_altered_is_found_in_every_format() {
    for (name, wrap) in WRAPPINGS {
        for at in [0, 2, 3] {
            let is_it = |line: &String| line.contains(&format!("\"seq\":{at},"));
            let mut cut = printed();
            cut.retain(|line| !is_it(line));
            let lines: Vec<String> = cut.iter().flat_map(|line| wrap(line)).collect();
            let findings = verified(&lines).findings;
            assert!(
                matches!(findings[..], [Finding::Missing { first, last, .. }] if first == at && last == at),
                "{name} {at}: {findings:?}"
            );
            let altered = printed().into_iter().map(|line| {
                if is_it(&line) {
                    line.replace("\"status\":200", "\"status\":403")
                } else {
                    line
                }
            });
            let lines: Vec<String> = altered.flat_map(|line| wrap(&line)).collect();
            let findings = verified(&lines).findings;
            assert!(
                matches!(findings[..], [Finding::Altered { seq, .. }] if seq == at),
                "{name} {at}: {findings:?}"
            );
        }
    }
}

#[test]
fn event_without_its_end_is_found() {
    for wrap in [cri as Wrap, docker, audit_writer] {
        let mut lines = Vec::new();
        for line in printed() {
            let mut wrapped = wrap(&line);
            if line.contains("\"seq\":3,") {
                wrapped.truncate(wrapped.len() / 2);
                lines.extend(wrapped);
                break;
            }
            lines.extend(wrapped);
        }
        let Verified {
            writers, findings, ..
        } = verified(&lines);
        assert_eq!(writers[0].count, 3);
        assert!(
            matches!(findings[..], [Finding::Unreadable { .. }]),
            "{findings:?}"
        );
    }
}

#[test]
fn line_that_begins_like_another_format_hides_no_event() {
    for other in [
        "{".to_owned(),
        "{\n  \"half\": 1,".to_owned(),
        json!({"log": "half a { line", "stream": "stdout"}).to_string(),
        "2026-11-22T12:00:00.1Z stderr P { half".to_owned(),
        json!({"MESSAGE": "{ half", "_PID": "9", "_LINE_BREAK": "line-max"}).to_string(),
    ] {
        let mut lines: Vec<String> = other.lines().map(str::to_owned).collect();
        for line in printed() {
            lines.push(line);
            lines.extend(other.lines().map(str::to_owned));
        }
        let Verified {
            writers, findings, ..
        } = verified(&lines);
        assert_eq!((findings, writers[0].count), (vec![], EVENTS), "{other}");
    }
}

#[test]
fn line_of_any_content_does_not_panic() {
    let random = keyway_testkit::SeededRandom::new(5);
    let draw = || {
        let mut bytes = [0; 8];
        keyway_domain::ports::Random::fill(&random, &mut bytes).unwrap();
        usize::try_from(u64::from_le_bytes(bytes) >> 1).unwrap()
    };
    let short: Vec<String> = printed()
        .into_iter()
        .filter(|line| line.len() < 2000)
        .collect();
    for _ in 0..50 {
        let (_, wrap) = WRAPPINGS[draw() % WRAPPINGS.len()];
        let mut lines = Vec::new();
        for line in short.iter().flat_map(|line| wrap(line)) {
            let mut bytes = line.into_bytes();
            for _ in 0..draw() % 3 {
                if !bytes.is_empty() {
                    let at = draw() % bytes.len();
                    match draw() % 3 {
                        0 => bytes.truncate(at),
                        1 => bytes[at] = b"{}\"\\ \n0a"[draw() % 8],
                        _ => drop(bytes.remove(at)),
                    }
                }
            }
            lines.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        verified(&lines);
    }
}

#[test]
fn text_without_events_has_none() {
    for lines in [
        vec![],
        vec!["".to_owned()],
        vec!["{".to_owned()],
        vec!["{\"a\":1}".to_owned(), "text".to_owned()],
        vec![json!({"log": "x", "stream": "stdout"}).to_string(); 3],
        // Text that a client may have sent, in a line of the ordinary log.
        vec![
            r#"2026-11-22T12:00:00Z WARN failed error={"audit":1,"writer":"x","seq":0}"#.to_owned(),
        ],
    ] {
        let Verified {
            writers, findings, ..
        } = verified(&lines);
        assert_eq!((writers.len(), findings.len()), (0, 0), "{lines:?}");
    }
}

#[test]
fn event_of_an_unknown_format_is_no_event() {
    let mut line = printed().swap_remove(0);
    line = line.replacen("\"audit\":1", "\"audit\":3", 1);
    assert_eq!(
        verified(&[line]).findings,
        [Finding::Unreadable { line: 1 }]
    );
}
