//! The constraints of AWS's model on the members of a request. A request is refused with every constraint that it
//! violates, in one error, before the service looks at what it names.

use std::ops::RangeInclusive;

use keyway_domain::keys::Tags;
use serde::de::DeserializeOwned;

use crate::ErrorResponse;
use crate::error_response::validation;
use crate::members::Blob;

/// The members of a request's body.
pub(crate) trait Input: DeserializeOwned {
    /// Checks the members in the order of AWS's model. AWS's own order is not known: no recording has two faults.
    fn check(&self, faults: &mut Faults);
}

/// What a text must match.
pub(crate) struct Pattern {
    /// The regular expression, as AWS shows it.
    pub(crate) shown: &'static str,
    pub(crate) matches: fn(&str) -> bool,
}

/// The longest id or ARN of a key, in characters.
const LONGEST_KEY_ID: usize = 2048;

const KEY_ID: Pattern = Pattern {
    shown: r"^\p{ASCII}+$",
    matches: |text| !text.is_empty() && text.is_ascii(),
};

const MARKER: Pattern = Pattern {
    shown: r"[\u0020-\u00FF]*",
    matches: |text| text.chars().all(|c| ('\u{20}'..='\u{ff}').contains(&c)),
};

/// The longest value that an error repeats, in characters. The client chooses the value, so the answer's length needs a
/// bound.
const LONGEST_SHOWN: usize = LONGEST_KEY_ID + 1;

/// The most tags whose faults are listed, for the same reason. The service refuses a longer list.
const MOST_TAGS: usize = Tags::MOST;

/// The constraints that a request violates.
#[derive(Default)]
pub(crate) struct Faults(Vec<String>);

fn quoted(value: &str) -> String {
    let shown: String = value.chars().take(LONGEST_SHOWN).collect();
    format!(" '{shown}'")
}

impl Faults {
    /// Refuses the request if there are faults.
    pub(crate) fn result(self) -> Result<(), ErrorResponse> {
        let errors = match self.0.len() {
            0 => return Ok(()),
            1 => "1 validation error".to_owned(),
            count => format!("{count} validation errors"),
        };
        Err(validation(format!(
            "{errors} detected: {}",
            self.0.join("; ")
        )))
    }

    /// `value` is empty or begins with a space.
    fn add(&mut self, value: &str, member: &str, rule: &str) {
        self.0.push(format!(
            "Value{value} at '{member}' failed to satisfy constraint: Member must {rule}"
        ));
    }

    pub(crate) fn required<T>(&mut self, member: &str, value: Option<&T>) {
        if value.is_none() {
            self.add(" null", member, "not be null");
        }
    }

    /// As [`Faults::required`], for a member that AWS's model calls sensitive: errors say nothing of its value.
    pub(crate) fn required_secret<T>(&mut self, member: &str, value: Option<&T>) {
        if value.is_none() {
            self.add("", member, "not be null");
        }
    }

    fn length(&mut self, value: &str, member: &str, size: usize, lengths: &RangeInclusive<usize>) {
        let (least, most) = (lengths.start(), lengths.end());
        if size < *least {
            let rule = format!("have length greater than or equal to {least}");
            self.add(value, member, &rule);
        } else if size > *most {
            let rule = format!("have length less than or equal to {most}");
            self.add(value, member, &rule);
        }
    }

    /// Checks the number of bytes. Errors do not repeat them.
    pub(crate) fn blob(&mut self, member: &str, blob: Option<&Blob>, longest: usize) {
        if let Some(blob) = blob {
            self.length("", member, blob.expose().len(), &(1..=longest));
        }
    }

    /// Checks the number of characters.
    pub(crate) fn text(
        &mut self,
        member: &str,
        text: Option<&str>,
        lengths: RangeInclusive<usize>,
    ) {
        if let Some(text) = text {
            let size = text.chars().count();
            if !lengths.contains(&size) {
                self.length(&quoted(text), member, size, &lengths);
            }
        }
    }

    pub(crate) fn pattern(&mut self, member: &str, text: Option<&str>, pattern: &Pattern) {
        if let Some(text) = text
            && !(pattern.matches)(text)
        {
            let rule = format!("satisfy regular expression pattern: {}", pattern.shown);
            self.add(&quoted(text), member, &rule);
        }
    }

    /// Checks the id or ARN of a key or an alias.
    pub(crate) fn key_id(&mut self, member: &str, text: Option<&str>) {
        self.text(member, text, 1..=LONGEST_KEY_ID);
        self.pattern(member, text, &KEY_ID);
    }

    /// As [`Faults::key_id`], for a required member.
    pub(crate) fn required_key_id(&mut self, member: &str, text: Option<&String>) {
        self.required(member, text);
        self.key_id(member, text.map(String::as_str));
    }

    pub(crate) fn number(&mut self, member: &str, value: Option<i64>, values: RangeInclusive<i64>) {
        let Some(value) = value else { return };
        let (least, most) = (values.start(), values.end());
        let rule = if value < *least {
            format!("have value greater than or equal to {least}")
        } else if value > *most {
            format!("have value less than or equal to {most}")
        } else {
            return;
        };
        self.add(&format!(" '{value}'"), member, &rule);
    }

    /// Checks that the text is one of these words.
    pub(crate) fn word(&mut self, member: &str, text: Option<&str>, words: &[&str]) {
        if let Some(text) = text
            && !words.contains(&text)
        {
            let text: String = text.chars().take(64).collect();
            let rule = format!("satisfy enum value set: [{}]", words.join(", "));
            self.add(&quoted(&text), member, &rule);
        }
    }

    /// Checks the number of characters of each text of a list. AWS names the list and not the text.
    fn texts(
        &mut self,
        value: &str,
        member: &str,
        texts: &[String],
        lengths: &RangeInclusive<usize>,
    ) {
        let fits = |text: &String| lengths.contains(&text.chars().count());
        if !texts.iter().all(fits) {
            let (least, most) = (lengths.start(), lengths.end());
            let rule = format!(
                "satisfy constraint: [Member must have length less than or equal to {most}, \
                 Member must have length greater than or equal to {least}]"
            );
            self.add(value, member, &rule);
        }
    }

    /// Checks the tokens, which have no effect: there are no grants. Errors do not repeat them.
    pub(crate) fn grant_tokens(&mut self, tokens: Option<&[String]>) {
        if let Some(tokens) = tokens {
            let member = "grantTokens";
            self.length("", member, tokens.len(), &(0..=10));
            self.texts("", member, tokens, &(1..=8192));
        }
    }

    /// Checks the keys of tags to remove.
    pub(crate) fn tag_keys(&mut self, member: &str, keys: &[String]) {
        let list = format!("[{}]", keys.join(", "));
        self.texts(&quoted(&list), member, keys, &TAG_KEYS);
    }

    /// Checks tags, each a key with its value.
    pub(crate) fn tags<'t>(
        &mut self,
        member: &str,
        tags: impl Iterator<Item = (Option<&'t String>, Option<&'t String>)>,
    ) {
        for (number, (key, value)) in (1..).zip(tags.take(MOST_TAGS)) {
            let member = |name: &str| format!("{member}.{number}.member.{name}");
            let (of_key, of_value) = (member("tagKey"), member("tagValue"));
            self.required(&of_key, key);
            self.text(&of_key, key.map(String::as_str), TAG_KEYS);
            self.required(&of_value, value);
            self.text(&of_value, value.map(String::as_str), 0..=256);
        }
    }

    /// Checks the members of a request for a page.
    pub(crate) fn page(&mut self, limit: Option<i64>, most: i64, marker: Option<&str>) {
        self.number("limit", limit, 1..=most);
        self.text("marker", marker, 1..=1024);
        self.pattern("marker", marker, &MARKER);
    }
}

/// The length of a tag's key, in characters.
const TAG_KEYS: RangeInclusive<usize> = 1..=128;
