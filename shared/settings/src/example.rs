//! An example of the settings file, made from the options' definitions.

use clap::{Arg, Command};

use crate::option::{Shape, key, variable};

/// The longest line of a comment.
const WIDTH: usize = 100;

/// A settings file for this command in which every option is commented out: its help, its variable, and its default or
/// the kind of value that it takes.
pub fn example(command: &Command) -> String {
    let mut text = String::new();
    let options = command.get_arguments();
    for (key, option) in options.filter_map(|option| Some((key(option)?, option))) {
        if !text.is_empty() {
            text.push('\n');
        }
        comment(&mut text, &about(option));
        if let Some(variable) = variable(option) {
            comment(&mut text, &format!("Variable: {variable}"));
        }
        line(&mut text, &format!("#{key} = {}", value(option)));
    }
    text
}

fn about(option: &Arg) -> String {
    let mut about = option
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let known: Vec<String> = option
        .get_possible_values()
        .iter()
        .filter(|value| Shape::of(option) == Shape::Text && !value.is_hide_set())
        .map(|value| match value.get_help() {
            Some(help) => format!("{} ({help})", value.get_name()),
            None => value.get_name().to_owned(),
        })
        .collect();
    if !known.is_empty() {
        about = format!("{about}: {}", known.join(", "));
    }
    about
}

fn value(option: &Arg) -> String {
    let default = option.get_default_values().first();
    let default = default.map(|value| value.to_string_lossy().into_owned());
    let default = default.filter(|value| !value.is_empty());
    let named = || {
        let names = option.get_value_names().unwrap_or_default();
        names.first().map(ToString::to_string).unwrap_or_default()
    };
    match (Shape::of(option), default) {
        (Shape::Switch, default) => default.unwrap_or_else(|| "false".to_owned()),
        (Shape::Number, Some(number)) if number.parse::<u64>().is_ok() => number,
        (Shape::List, default) => format!("[\"{}\"]", default.unwrap_or_else(named)),
        (_, default) => format!("\"{}\"", default.unwrap_or_else(named)),
    }
}

fn comment(text: &mut String, words: &str) {
    let mut current = String::from("#");
    for word in words.split_whitespace() {
        if current.len() + 1 + word.len() > WIDTH && current.len() > 1 {
            line(text, &current);
            current = String::from("#");
        }
        current.push(' ');
        current.push_str(word);
    }
    line(text, &current);
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
