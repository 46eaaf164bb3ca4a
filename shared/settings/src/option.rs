//! What an option's definition says of a setting: its key, its type in TOML, and whether a value is valid.

use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command};
use toml::de::DeValue;

use crate::FILE_OPTION;

/// The type that an option's value has in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Switch,
    /// A number, or a duration, which is a number or a text.
    Number,
    Text,
    List,
}

impl Shape {
    pub(crate) fn of(option: &Arg) -> Self {
        let parser = option.get_value_parser();
        let is_number = is::<Duration>(parser)
            || is::<u16>(parser)
            || is::<u32>(parser)
            || is::<u64>(parser)
            || is::<usize>(parser);
        match option.get_action() {
            ArgAction::Append => Self::List,
            _ if is::<bool>(parser) => Self::Switch,
            _ if is_number => Self::Number,
            _ => Self::Text,
        }
    }

    const fn wanted(self) -> &'static str {
        match self {
            Self::Switch => "true or false",
            Self::Number => "a number, or a text in quotes such as \"30s\"",
            Self::Text => "a text in quotes",
            Self::List => "a list of texts, such as [\"a\", \"b\"]",
        }
    }

    /// The values of the option, as its parser takes them.
    pub(crate) fn values(self, value: &DeValue<'_>) -> Result<Vec<String>, String> {
        let refused = || format!("is {}; expected {}", found(value), self.wanted());
        let values = match (self, value) {
            (Self::Switch, DeValue::Boolean(is_on)) => vec![is_on.to_string()],
            (Self::Number, DeValue::Integer(number)) if number.radix() == 10 => {
                vec![number.as_str().to_owned()]
            }
            (Self::Number | Self::Text | Self::List, DeValue::String(text)) => {
                vec![text.clone().into_owned()]
            }
            (Self::List, DeValue::Array(list)) => {
                let texts = list.iter().map(|one| one.get_ref().as_str());
                let texts: Option<Vec<String>> =
                    texts.map(|text| text.map(str::to_owned)).collect();
                texts.ok_or_else(refused)?
            }
            _ => return Err(refused()),
        };
        if values.iter().any(String::is_empty) {
            return Err("is empty; leave the line out instead".to_owned());
        }
        Ok(values)
    }
}

fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(number) if number.radix() != 10 => "a number that is not decimal",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a decimal point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list of other values",
        DeValue::Table(_) => "a section",
    }
}

/// Whether the parser makes values of this type.
fn is<T: Clone + Send + Sync + 'static>(parser: &ValueParser) -> bool {
    let never = |_: &str| -> Result<T, String> { Err(String::new()) };
    ValueParser::new(never).type_id() == parser.type_id()
}

/// The key of this option in the file: its long name. `None` for an option that cannot stand there.
pub(crate) fn key(option: &Arg) -> Option<&str> {
    let is_setting = matches!(option.get_action(), ArgAction::Set | ArgAction::Append);
    option
        .get_long()
        .filter(|_| is_setting && option.get_id() != FILE_OPTION)
}

/// Whether this is the option's key. `_` is as good as `-`.
pub(crate) fn has_key(option: &Arg, name: &str) -> bool {
    let name = name.replace('_', "-");
    let aliases = option.get_visible_aliases().unwrap_or_default();
    key(option).is_some_and(|key| key == name || aliases.contains(&name.as_str()))
}

/// The option's variable.
pub(crate) fn variable(option: &Arg) -> Option<String> {
    Some(option.get_env()?.to_string_lossy().into_owned())
}

/// Parses these values as the option's parser does, and no other option with them.
pub(crate) fn check<S: AsRef<OsStr>>(option: &Arg, values: &[S]) -> Result<(), String> {
    let given = values.iter().map(|value| {
        let mut argument = OsString::from("--value=");
        argument.push(value);
        argument
    });
    let command = Command::new("setting")
        .no_binary_name(true)
        .disable_help_flag(true)
        .arg(alone(option));
    match command.try_get_matches_from(given) {
        Ok(_) => Ok(()),
        Err(error) => Err(reason(&error)),
    }
}

fn reason(error: &clap::Error) -> String {
    if let Some(ContextValue::Strings(known)) = error.get(ContextKind::ValidValue)
        && !known.is_empty()
    {
        let given = match error.get(ContextKind::InvalidValue) {
            Some(ContextValue::String(given)) => format!("{given:?} "),
            _ => String::new(),
        };
        return format!("{given}is none of {}", known.join(", "));
    }
    match error.source() {
        Some(source) => source.to_string(),
        None => error.kind().to_string(),
    }
}

/// The option without its name, its default and its relations to other options.
fn alone(option: &Arg) -> Arg {
    let mut alone = Arg::new("value")
        .long("value")
        .action(option.get_action().clone())
        .value_parser(option.get_value_parser().clone());
    if let Some(number) = option.get_num_args() {
        alone = alone.num_args(number);
    }
    if let Some(delimiter) = option.get_value_delimiter() {
        alone = alone.value_delimiter(delimiter);
    }
    alone
}
