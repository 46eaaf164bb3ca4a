//! The commands that call a server over HTTP.

mod data_key;
mod key;
mod printing;
mod server;
mod service;
mod tail;

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use keyway_client::{Class, Error};
use keyway_domain::keys::KeyId;

pub(crate) use data_key::{
    DataKeyCommand, Decrypt, Encrypt, decrypt, encrypt, no_repeats, pair, run as data_key,
};
pub(crate) use key::{KeyCommand, run as key};
pub(crate) use server::Server;
pub(crate) use service::{ServiceCommand, run as service};
pub(crate) use tail::{Tail, run as tail};

/// Exit codes of the commands that call a server, for their help.
pub(crate) const EXIT_CODES: &str = "Exit codes:
  0  done
  1  failed
  2  the options, the variables or the profile are wrong, or the API cannot do it; nothing was sent
  3  the key is not there
  4  the server does not know the caller, or does not permit the call
  5  the state of the key or of the service does not permit the call, or the key exists already
  6  the server cannot be reached, or does not serve now";

/// The exit code of a failed command.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    let class = error.downcast_ref::<Error>().map(Error::class);
    match class {
        None | Some(Class::Failed) => ExitCode::FAILURE,
        Some(Class::Usage) => ExitCode::from(2),
        Some(Class::NotFound) => ExitCode::from(3),
        Some(Class::NotAllowed) => ExitCode::from(4),
        Some(Class::Conflict) => ExitCode::from(5),
        Some(Class::Unreachable) => ExitCode::from(6),
    }
}

/// Runs one of these commands. A reader of the output that leaves early, such as `head`, is no failure.
pub(crate) async fn run(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    command.await.or_else(|error| {
        let io = error.downcast_ref::<io::Error>();
        match io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) {
            true => Ok(()),
            false => Err(error),
        }
    })
}

/// An error of the command line.
pub(crate) fn usage(text: &str) -> anyhow::Error {
    Error::Settings(text.to_owned()).into()
}

/// Parses a key's id in an argument.
pub(crate) fn key_id(text: &str) -> Result<KeyId, &'static str> {
    KeyId::parse("key", text).map_err(|error| error.reason)
}

/// The commands below this one that call a server. A command is named in place of its subcommands if all of them do.
pub(crate) fn callers(command: &clap::Command) -> Vec<String> {
    let mut found = Vec::new();
    for below in command.get_subcommands() {
        let name = below.get_name();
        let deeper = callers(below);
        // The options of `Server` are there.
        let calls = below
            .get_arguments()
            .any(|argument| argument.get_id() == "profiles_file");
        if calls || (!deeper.is_empty() && deeper.len() == below.get_subcommands().count()) {
            found.push(name.to_owned());
        } else {
            found.extend(deeper.iter().map(|deeper| format!("{name} {deeper}")));
        }
    }
    found
}
