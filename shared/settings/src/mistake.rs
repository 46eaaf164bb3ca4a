//! What is wrong with a setting.

use std::fmt;
use std::path::PathBuf;

/// What is wrong with one setting, and where. The text never holds a secret's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The settings file; none for a variable.
    pub file: Option<PathBuf>,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The key in the file, or the variable.
    pub name: Option<String>,
    /// What is wrong and what to do.
    pub text: String,
}

impl Mistake {
    pub(crate) fn of_variable(name: String, text: String) -> Self {
        Self {
            file: None,
            line: None,
            name: Some(name),
            text,
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
        }
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if self.file.is_some() {
            f.write_str(" ")?;
        }
        if let Some(name) = &self.name {
            write!(f, "{name}: ")?;
        }
        f.write_str(&self.text)
    }
}
