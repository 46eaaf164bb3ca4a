//! A settings file in TOML whose keys are the options of one command, the file's owner.
//!
//! The options say everything: names, types, defaults and help exist only in the command line's definitions. The command
//! line wins over variables, variables win over the file, and the file wins over defaults. Other commands take from the
//! file the options that they share with the owner.
//!
//! The file has no sections. It holds no secrets: it names the variable or the file of each.

mod example;
mod file;
mod mistake;
mod option;
mod parse;
#[cfg(test)]
mod tests;

pub use example::example;
pub use mistake::Mistake;
pub use parse::{InForce, Origin, Parsed, Program};

use std::path::PathBuf;

use clap::Args;

/// The id of the option that names the settings file.
pub(crate) const FILE_OPTION: &str = "settings_file";

/// The option that names the settings file. [`Program::parse`] reads the file before the command runs.
#[derive(Debug, Clone, Args)]
pub struct SettingsFile {
    /// Settings file in TOML; options and variables win over it
    #[arg(id = FILE_OPTION, long = "config", env = "KEYWAY_CONFIG", value_name = "FILE")]
    pub path: Option<PathBuf>,
}
