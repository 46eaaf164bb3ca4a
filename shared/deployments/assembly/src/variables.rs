//! The command line and the environment of a process: parses arguments, reads variables, and finds those that nothing reads.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use anyhow::{Context, bail};
use clap::builder::Resettable;
use clap::{Arg, Command, Parser};
use zeroize::Zeroizing;

/// Keyway's variables begin so.
const PREFIX: &str = "KEYWAY_";

/// Variables of Keyway that hold secrets, or belong to one. They have no option, because other users can see arguments.
pub const SECRETS: [&str; 12] = [
    "KEYWAY_API_KEY",
    "KEYWAY_BACKUP_PASSPHRASE",
    "KEYWAY_NEW_PASSPHRASE",
    "KEYWAY_PASSPHRASE",
    "KEYWAY_POSTGRES_PASSWORD",
    "KEYWAY_ROOT_ACCESS_KEY",
    "KEYWAY_ROOT_KEYRING_VAULT_SECRET_ID",
    "KEYWAY_ROOT_KEYRING_VAULT_TOKEN",
    "KEYWAY_ROOT_SECRET_KEY",
    "KEYWAY_S3_ACCESS_KEY_ID",
    "KEYWAY_S3_SECRET_ACCESS_KEY",
    "KEYWAY_S3_SESSION_TOKEN",
];

/// The build reads it, and `make run` leaves it to the server.
const OF_BUILD: &str = "KEYWAY_COMMIT";

/// Variables of older releases, each with the one that replaces it.
const RENAMED: [(&str, &str); 1] = [("KEYWAY_REGION", "KEYWAY_SIGNING_REGION")];

/// Others set these: Kubernetes for a service of the name `keyway`, and this project's tests.
const OF_OTHERS: [&str; 3] = ["KEYWAY_SERVICE_", "KEYWAY_PORT", "KEYWAY_TEST_"];

/// Names that differ more than this have nothing to do with each other. 1 is for equal names.
const LEAST_SIMILARITY: f64 = 0.8;

/// The arguments of this process, with variables in place of arguments that are not given. An empty variable counts as
/// not set: compose files and templates pass an empty text for what was left out. `commit` is what the program was built
/// from, for `--version`.
pub fn arguments<A: Parser>(commit: Option<&'static str>) -> A {
    let mut matches = command::<A>(commit).get_matches();
    A::from_arg_matches_mut(&mut matches)
        .unwrap_or_else(|error| error.format(&mut A::command()).exit())
}

/// The command line of this process, with its variables as [`arguments`] reads them.
pub fn command<A: Parser>(commit: Option<&'static str>) -> Command {
    with_variables(A::command().version(version(commit)))
}

/// Keyway's version and the commit, as `--version` prints them. A process makes this text once.
fn version(commit: Option<&str>) -> &'static str {
    let version = env!("CARGO_PKG_VERSION");
    let text = match commit.filter(|commit| !commit.is_empty()) {
        Some(commit) => format!("{version} (commit {commit})"),
        None => format!("{version} (commit unknown)"),
    };
    text.leak()
}

/// Ignores empty variables, and reads the former name of a variable that is not set.
fn with_variables(command: Command) -> Command {
    command
        .mut_args(|argument| {
            let value = argument.get_env().and_then(variable);
            if value.as_ref().is_some_and(|value| !value.is_empty()) {
                return argument;
            }
            match former_name(&argument) {
                Some(former) => argument.env(former),
                None if value.is_some() => argument.env(Resettable::Reset),
                None => argument,
            }
        })
        .mut_subcommands(with_variables)
}

/// The former name of the argument's variable, if that is set.
fn former_name(argument: &Arg) -> Option<&'static str> {
    let name = argument.get_env()?;
    let (former, _) = RENAMED.iter().find(|(_, new)| name == OsStr::new(new))?;
    variable(OsStr::new(former)).filter(|value| !value.is_empty())?;
    Some(former)
}

/// A line for each variable of this process that has Keyway's prefix and that nothing reads: it is misspelt, or of another
/// release.
pub fn unread_variables<A: Parser>() -> Vec<String> {
    let known = known(&A::command());
    let found = names()
        .into_iter()
        .filter_map(|name| name.into_string().ok());
    found.filter_map(|name| unread(&name, &known)).collect()
}

fn known(command: &Command) -> BTreeSet<String> {
    let mut known = BTreeSet::from(SECRETS.map(str::to_owned));
    known.insert(OF_BUILD.to_owned());
    add_variables(command, &mut known);
    known
}

fn add_variables(command: &Command, known: &mut BTreeSet<String>) {
    let variables = command.get_arguments().filter_map(Arg::get_env);
    known.extend(variables.filter_map(|name| Some(name.to_str()?.to_owned())));
    for subcommand in command.get_subcommands() {
        add_variables(subcommand, known);
    }
}

/// What is wrong with this variable, if it is one of Keyway's.
fn unread(name: &str, known: &BTreeSet<String>) -> Option<String> {
    let is_of_others = OF_OTHERS.iter().any(|prefix| name.starts_with(prefix));
    if !name.starts_with(PREFIX) || known.contains(name) || is_of_others {
        return None;
    }
    let renamed = RENAMED.iter().find(|(old, _)| *old == name);
    if let Some((_, new)) = renamed.filter(|(_, new)| known.contains(*new)) {
        return Some(format!("{name} is an older name of {new}"));
    }
    let end = |name: &str| name.trim_start_matches(PREFIX).to_owned();
    let nearest = known
        .iter()
        .map(|known| (strsim::jaro_winkler(&end(name), &end(known)), known))
        .filter(|(similarity, _)| *similarity >= LEAST_SIMILARITY)
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    Some(match nearest {
        Some((_, nearest)) => format!("{name} is set, but nothing reads it: is {nearest} meant?"),
        None => format!("{name} is set, but nothing reads it"),
    })
}

fn names() -> Vec<OsString> {
    let mut names: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).collect();
    names.sort();
    names
}

/// A variable of this process, as it is.
#[expect(
    clippy::disallowed_methods,
    reason = "this crate is part of every composition root"
)]
pub fn variable(name: &OsStr) -> Option<OsString> {
    std::env::var_os(name)
}

/// A variable that holds a secret, or names one, if it is set. An empty one is an error: a secret that failed to be
/// injected must not lead to a deployment without it.
///
/// # Errors
/// When it is empty, or is not UTF-8.
pub fn secret(name: &str) -> anyhow::Result<Option<Zeroizing<String>>> {
    if variable(name.as_ref()).is_some_and(|value| value.is_empty()) {
        bail!("{name} is set and empty: give it a value, or unset it");
    }
    environment(name)
}

/// A secret from the variable, or from the first line of the file if one is given. An option names the file, and a
/// variable of the same name with `_FILE` behind it.
///
/// # Errors
/// When both are given, when the file cannot be read, and when what is given is empty.
pub fn secret_line(name: &str, file: Option<&Path>) -> anyhow::Result<Option<Zeroizing<String>>> {
    let from_environment = secret(name)?;
    let Some(file) = file else {
        // Fails if the file's variable is empty: a file was meant, and the secret would protect something.
        secret(&format!("{name}_FILE"))?;
        return Ok(from_environment);
    };
    if from_environment.is_some() {
        bail!("both {name} and a file are given; give one of them");
    }
    let text = Zeroizing::new(
        std::fs::read_to_string(file)
            .with_context(|| format!("{name}_FILE: {} cannot be read", file.display()))?,
    );
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Some(Zeroizing::new(line.to_owned()))),
        _ => bail!("{name}_FILE: the first line of {} is empty", file.display()),
    }
}

/// A variable that is set and not empty.
///
/// # Errors
/// When it is not UTF-8.
#[expect(
    clippy::disallowed_methods,
    reason = "this crate is part of every composition root"
)]
pub fn environment(name: &str) -> anyhow::Result<Option<Zeroizing<String>>> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(Zeroizing::new(value))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => bail!("{name} is not UTF-8"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::{Settings, VaultFiles};

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        vault: VaultFiles,

        #[command(subcommand)]
        command: Subcommand,
    }

    #[derive(clap::Subcommand)]
    enum Subcommand {
        Serve(Box<Settings>),
    }

    fn known() -> BTreeSet<String> {
        super::known(&Program::command())
    }

    #[test]
    fn variables_of_the_program_and_its_commands_are_known() {
        for name in [
            "KEYWAY_VAULT_TOKEN_DIR",
            "KEYWAY_STATE_TTL_SECONDS",
            "KEYWAY_PASSPHRASE",
            "KEYWAY_SERVICE_PORT",
            "KEYWAY_PORT_9000_TCP_ADDR",
            "KEYWAY_TEST_AWS",
            "AWS_REGION",
            "XKEYWAY_STATE",
        ] {
            assert_eq!(unread(name, &known()), None, "{name}");
        }
    }

    #[test]
    fn misspelt_variable_is_told_with_the_nearest_name() {
        for (name, nearest) in [
            ("KEYWAY_STATE_TTL", "KEYWAY_STATE_TTL_SECONDS"),
            ("KEYWAY_STAET_TTL_SECONDS", "KEYWAY_STATE_TTL_SECONDS"),
            ("KEYWAY_PASSFRASE", "KEYWAY_PASSPHRASE"),
            ("KEYWAY_AUDIT_RETENTION", "KEYWAY_AUDIT_RETENTION_DAYS"),
            ("KEYWAY_CORS_ORIGIN", "KEYWAY_CORS_ORIGINS"),
        ] {
            let told = unread(name, &known()).unwrap();
            assert_eq!(
                told,
                format!("{name} is set, but nothing reads it: is {nearest} meant?")
            );
        }
        let told = unread("KEYWAY_ZZZZ_QQQQ_ZZZZ_QQQQ", &known()).unwrap();
        assert!(told.ends_with("nothing reads it"), "{told}");
    }

    #[test]
    fn renamed_variable_is_told_with_its_new_name() {
        let told = unread("KEYWAY_REGION", &known()).unwrap();
        assert_eq!(
            told,
            "KEYWAY_REGION is an older name of KEYWAY_SIGNING_REGION"
        );
    }

    #[test]
    fn version_names_the_commit() {
        let own = env!("CARGO_PKG_VERSION");
        assert_eq!(version(Some("abc")), format!("{own} (commit abc)"));
        for none in [None, Some("")] {
            assert_eq!(version(none), format!("{own} (commit unknown)"));
        }
    }
}
