//! Reads the settings file, and checks each key and value by the option's definition.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use clap::Arg;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::mistake::Mistake;
use crate::option::{Shape, check, has_key, key};

/// Far more than every option with a comment needs.
const MAX_BYTES: u64 = 256 * 1024;

/// Keys that differ more than this have nothing to do with each other. 1 is for equal keys.
const LEAST_SIMILARITY: f64 = 0.8;

/// One setting of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The option's id.
    pub(crate) id: String,
    /// The option's long name.
    pub(crate) key: String,
    pub(crate) line: usize,
    pub(crate) values: Vec<String>,
}

/// The file's valid settings, and all mistakes, in the order of their lines.
pub(crate) fn read(path: &Path, options: &[Arg], secrets: &[&str]) -> (Vec<Setting>, Vec<Mistake>) {
    match text(path) {
        Ok(text) => {
            let mut reader = Reader {
                path,
                options,
                secrets,
                text: &text,
                is_toml: true,
                settings: Vec::new(),
                mistakes: Vec::new(),
            };
            reader.document();
            reader.mistakes.sort_by_key(|mistake| mistake.line);
            (reader.settings, reader.mistakes)
        }
        Err(text) => {
            let mistake = Mistake {
                file: Some(path.to_owned()),
                line: None,
                name: None,
                text,
            };
            (Vec::new(), vec![mistake])
        }
    }
}

fn text(path: &Path) -> Result<String, String> {
    let failed = |error: io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    if is_writable_by_all(&metadata) {
        return Err("every user may write this file: run chmod o-w on it".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("is longer than {MAX_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

#[cfg(unix)]
fn is_writable_by_all(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o002 != 0
}

#[cfg(not(unix))]
fn is_writable_by_all(_: &std::fs::Metadata) -> bool {
    false
}

struct Reader<'a> {
    path: &'a Path,
    options: &'a [Arg],
    secrets: &'a [&'a str],
    text: &'a str,
    is_toml: bool,
    settings: Vec<Setting>,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn document(&mut self) {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        self.is_toml = errors.is_empty();
        // The parser's messages name what it expected, and nothing of the text.
        for error in errors {
            let line = error.span().map_or(1, |span| self.line(span.start));
            self.mistake(line, None, format!("is not TOML: {}", error.message()));
        }
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            self.entry(key, value);
        }
    }

    fn entry(&mut self, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) {
        let line = self.line(key.span().start);
        let name = key.get_ref().as_ref();
        let is_known = self.options.iter().any(|option| has_key(option, name));
        let is_told = if is_known {
            // The value of a line that is not TOML says nothing.
            self.mistakes.iter().all(|made| made.line != Some(line))
        } else {
            // A file that is not TOML may be a secret's, and its words must not be repeated.
            self.is_toml || self.secret(name).is_some()
        };
        if !is_told {
            return;
        }
        match self.setting(name, line, value.get_ref()) {
            Ok(setting) => self.settings.push(setting),
            Err(text) => self.mistake(line, Some(name), text),
        }
    }

    fn setting(&self, name: &str, line: usize, value: &DeValue<'_>) -> Result<Setting, String> {
        let Some(option) = self.options.iter().find(|option| has_key(option, name)) else {
            return Err(self.unknown(name, value));
        };
        let id = option.get_id().as_str();
        if let Some(earlier) = self.settings.iter().find(|setting| setting.id == id) {
            return Err(format!("is the setting of line {} again", earlier.line));
        }
        let values = Shape::of(option).values(value)?;
        check(option, &values)?;
        Ok(Setting {
            id: id.to_owned(),
            key: key(option).unwrap_or(name).to_owned(),
            line,
            values,
        })
    }

    /// The variable of the secret that a key of this name would hold.
    fn secret(&self, name: &str) -> Option<&str> {
        let variable = format!("KEYWAY_{}", name.replace('-', "_").to_ascii_uppercase());
        self.secrets
            .iter()
            .copied()
            .find(|known| *known == variable)
    }

    /// What to say of a key that is no option's.
    fn unknown(&self, name: &str, value: &DeValue<'_>) -> String {
        if let DeValue::Table(_) = value {
            return "is a section, and this file has none: write each option's name in full, such as kes-listen, above \
                    all sections"
                .to_owned();
        }
        if let Some(variable) = self.secret(name) {
            let file = format!("{}-file", name.replace('_', "-"));
            return if self.options.iter().any(|option| has_key(option, &file)) {
                format!(
                    "is a secret, which this file must not hold: put it into a file of its own and name that by {file}, or set \
                     the variable {variable}"
                )
            } else {
                format!("is a secret, which this file must not hold: set the variable {variable}")
            };
        }
        let nearest = self
            .options
            .iter()
            .filter_map(key)
            .map(|known| (strsim::jaro_winkler(name, known), known))
            .filter(|(similarity, _)| *similarity >= LEAST_SIMILARITY)
            .max_by(|(one, _), (other, _)| one.total_cmp(other));
        match nearest {
            Some((_, nearest)) => format!("is no setting: is {nearest} meant?"),
            None => "is no setting".to_owned(),
        }
    }

    fn mistake(&mut self, line: usize, name: Option<&str>, text: String) {
        self.mistakes.push(Mistake {
            file: Some(self.path.to_owned()),
            line: Some(line),
            name: name.map(str::to_owned),
            text,
        });
    }

    fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}
