//! `keyway config`.

use std::path::Path;

use clap::{Args, Command, Subcommand};
use keyway_deployment_assembly::{SECRETS, secret};
use keyway_settings::{InForce, Mistake, Origin, Parsed, example};
use serde_json::{Value, json};

use crate::migration::Output;
use crate::serve::Serve;
use crate::{SERVE, print, tell};

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting that `keyway serve` would have with these options, these variables and this settings file, and
    /// where it comes from; the exit code is 2 if one is wrong
    Check(Box<Check>),
    /// Print a settings file with every option of `keyway serve`, all of them commented out
    Example,
}

#[derive(Args)]
pub(crate) struct Check {
    #[command(flatten)]
    serve: Serve,

    /// How to print the settings
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Whether all settings are right.
pub(crate) fn run(command: &ConfigCommand, parsed: &Parsed) -> anyhow::Result<bool> {
    match command {
        ConfigCommand::Check(check) => check.run(parsed),
        ConfigCommand::Example => {
            print(example_file().trim_end());
            Ok(true)
        }
    }
}

const HEAD: &str = "\
# Settings of `keyway serve`, for `keyway serve --config FILE`. `keyway config check --config FILE` checks them.
# Each key is the name of an option. Options and variables win over this file, and this file wins over defaults.
# Secrets must not stand here: name their files, or set their variables.
";

fn example_file() -> String {
    format!(
        "{HEAD}\n{}",
        example(&Serve::augment_args(Command::new(SERVE)))
    )
}

impl Check {
    fn run(&self, parsed: &Parsed) -> anyhow::Result<bool> {
        let mut mistakes: Vec<Mistake> = parsed.mistakes.clone();
        mistakes.extend(self.serve.mistakes().into_iter().map(|text| Mistake {
            file: None,
            line: None,
            name: None,
            text: with_places(&text, &parsed.in_force),
        }));
        let secrets = secrets_in_force(&mut mistakes);
        match self.output {
            Output::Json => print(&json(parsed, &secrets, &mistakes).to_string()),
            Output::Text => {
                show(&parsed.in_force, &secrets);
                for mistake in &mistakes {
                    tell(&mistake.to_string());
                }
            }
        }
        Ok(mistakes.is_empty())
    }
}

/// The text, with the line of each option that it names and that is in the settings file.
fn with_places(text: &str, in_force: &[InForce]) -> String {
    let places = in_force.iter().filter_map(|setting| match &setting.origin {
        Origin::File(file, line) if names(text, &setting.key) => {
            Some(format!("{} is in {}:{line}", setting.key, file.display()))
        }
        _ => None,
    });
    let places: Vec<String> = places.collect();
    if places.is_empty() {
        return text.to_owned();
    }
    format!("{text}; {}", places.join(", "))
}

/// Whether the text names the option of this key.
fn names(text: &str, key: &str) -> bool {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
    words
        .into_iter()
        .any(|word| word.strip_prefix("--") == Some(key))
}

/// The variables of the secrets that are set.
fn secrets_in_force(mistakes: &mut Vec<Mistake>) -> Vec<&'static str> {
    let of_serve = SECRETS.into_iter().filter(|name| {
        ![
            "KEYWAY_API_KEY",
            "KEYWAY_BACKUP_PASSPHRASE",
            "KEYWAY_NEW_PASSPHRASE",
        ]
        .contains(name)
    });
    let set = of_serve.filter(|name| match secret(name) {
        Ok(value) => value.is_some(),
        Err(error) => {
            mistakes.push(Mistake {
                file: None,
                line: None,
                name: None,
                text: error.to_string(),
            });
            false
        }
    });
    set.collect()
}

/// What stands for the value of a secret.
const MASK: &str = "(secret)";

/// The value without a password in an address, such as `https://user:password@host`.
fn masked(value: &str) -> String {
    let parts = value.split_once("://").and_then(|(scheme, rest)| {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (_, host) = authority.rsplit_once('@')?;
        Some(format!("{scheme}://{MASK}@{host}{path}"))
    });
    parts.unwrap_or_else(|| value.to_owned())
}

/// The name of a secret, as an option would have it.
fn secret_name(variable: &str) -> String {
    let name = variable.trim_start_matches("KEYWAY_");
    name.to_ascii_lowercase().replace('_', "-")
}

fn show(in_force: &[InForce], secrets: &[&str]) {
    let mut rows: Vec<[String; 3]> = in_force
        .iter()
        .map(|setting| {
            let values: Vec<String> = setting.values.iter().map(|value| masked(value)).collect();
            let value = if values.is_empty() {
                "-".to_owned()
            } else {
                values.join(", ")
            };
            let place = match &setting.origin {
                Origin::CommandLine => "command line".to_owned(),
                Origin::Variable(name) => name.clone(),
                Origin::File(file, line) => format!("{}:{line}", file.display()),
                Origin::Default => "default".to_owned(),
            };
            [setting.key.clone(), value, place]
        })
        .collect();
    let secret = |name: &&str| [secret_name(name), MASK.to_owned(), (*name).to_owned()];
    rows.extend(secrets.iter().map(secret));
    let widest = |column: fn(&[String; 3]) -> &String| {
        let widths = rows.iter().map(|row| column(row).chars().count());
        widths.max().unwrap_or_default()
    };
    let (keys, values) = (widest(|[key, ..]| key), widest(|[_, value, _]| value));
    for [key, value, place] in &rows {
        print(&format!("{key:keys$}  {value:values$}  {place}"));
    }
}

fn json(parsed: &Parsed, secrets: &[&str], mistakes: &[Mistake]) -> Value {
    let path = |path: &Path| path.display().to_string();
    let mut settings: Vec<Value> = parsed.in_force.iter().map(setting_json).collect();
    settings.extend(secrets.iter().map(|name| {
        json!({
            "name": secret_name(name), "values": [MASK], "secret": true,
            "origin": "variable", "variable": name,
        })
    }));
    let mistakes = mistakes.iter().map(|mistake| {
        json!({
            "file": mistake.file.as_deref().map(path),
            "line": mistake.line,
            "name": mistake.name,
            "text": mistake.text,
        })
    });
    let mistakes: Vec<Value> = mistakes.collect();
    json!({
        "ok": mistakes.is_empty(),
        "file": parsed.file.as_deref().map(path),
        "settings": settings,
        "mistakes": mistakes,
    })
}

fn setting_json(setting: &InForce) -> Value {
    let values: Vec<String> = setting.values.iter().map(|value| masked(value)).collect();
    let (name, values) = (&setting.key, values);
    match &setting.origin {
        Origin::CommandLine => json!({"name": name, "values": values, "origin": "command-line"}),
        Origin::Variable(variable) => {
            json!({"name": name, "values": values, "origin": "variable", "variable": variable})
        }
        Origin::File(file, line) => json!({
            "name": name, "values": values, "origin": "file",
            "file": file.display().to_string(), "line": line,
        }),
        Origin::Default => json!({"name": name, "values": values, "origin": "default"}),
    }
}
