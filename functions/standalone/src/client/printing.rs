//! Prints results: tables for people, JSON for programs.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;
use zeroize::Zeroizing;

/// Writes to standard output, and fails when nobody reads it any more.
pub(crate) fn write(bytes: &[u8]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(bytes)?;
    output.flush()
}

/// Prints a line.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.write_all(b"\n")?;
    output.flush()
}

/// Prints one JSON object. `room` is at least its length if it holds a secret: a buffer that grows leaves copies behind.
pub(crate) fn json(value: &impl Serialize, room: usize) -> anyhow::Result<()> {
    let mut text = Zeroizing::new(Vec::with_capacity(room + 1));
    serde_json::to_writer(&mut *text, value)?;
    text.push(b'\n');
    Ok(write(&text)?)
}

/// Prints names and values, one pair a line, without absent ones.
pub(crate) fn fields(pairs: &[(&str, Option<&str>)]) -> io::Result<()> {
    let present = || {
        let pairs = pairs.iter();
        pairs.filter_map(|(name, value)| Some((*name, (*value)?)))
    };
    let width = present().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in present() {
        let mut text = Zeroizing::new(String::with_capacity(width + value.len() + 2));
        text.push_str(name);
        text.extend(std::iter::repeat_n(' ', width + 2 - name.len()));
        text.push_str(value);
        line(&text)?;
    }
    Ok(())
}

/// A table, of which the rows come in parts. The first part sets the width of the columns.
pub(crate) struct Table<const N: usize> {
    widths: Option<[usize; N]>,
    names: [&'static str; N],
}

impl<const N: usize> Table<N> {
    pub(crate) const fn new(names: [&'static str; N]) -> Self {
        Self {
            widths: None,
            names,
        }
    }

    /// Prints these rows, at least one, below the names of the columns if they are the first.
    pub(crate) fn rows(&mut self, rows: &[[String; N]]) -> io::Result<()> {
        let widths = match self.widths {
            Some(widths) => widths,
            None => {
                let mut widths = self.names.map(str::len);
                for row in rows {
                    for (width, cell) in widths.iter_mut().zip(row) {
                        *width = (*width).max(cell.chars().count());
                    }
                }
                self.widths = Some(widths);
                line(&aligned(self.names.iter().copied(), &widths))?;
                widths
            }
        };
        let rows = rows.iter();
        let lines: Vec<String> = rows
            .map(|row| aligned(row.iter().map(String::as_str), &widths))
            .collect();
        line(&lines.join("\n"))
    }
}

fn aligned<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let mut text = String::new();
    for (cell, width) in cells.zip(widths) {
        let spaces = width.saturating_sub(cell.chars().count()) + 2;
        text.push_str(cell);
        text.extend(std::iter::repeat_n(' ', spaces));
    }
    text.truncate(text.trim_end().len());
    text
}

/// A text of the server for a terminal: characters that would control it are escaped.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unsafe(character) {
            // Writing to a string does not fail.
            write!(shown, "{}", character.escape_unicode()).unwrap_or_default();
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Whether the character moves the cursor, or changes the direction of the text around it.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_the_server_are_escaped() {
        assert_eq!(
            shown("a\u{1b}[2Jb\n\u{202e}c"),
            "a\\u{1b}[2Jb\\u{a}\\u{202e}c"
        );
        assert_eq!(shown("é ü"), "é ü");
    }

    #[test]
    fn rows_are_aligned_without_spaces_at_the_end() {
        assert_eq!(aligned(["a", "b", ""].into_iter(), &[3, 1, 5]), "a    b");
    }
}
