//! `keyway man`: a manual page of each command, made from its definition.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};

use crate::{Arguments, print};

#[derive(Args)]
#[command(after_help = "To read one:
  man ./DIR/keyway-serve.1
For every user of this machine:
  keyway man --to /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// The folder for the pages, keyway.1 and keyway-COMMAND.1; made if it is missing
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

pub(crate) fn run(Man { to }: &Man) -> anyhow::Result<()> {
    let cannot = || format!("the folder {} cannot be written", to.display());
    fs::create_dir_all(to).with_context(cannot)?;
    clap_mangen::generate_to(Arguments::command(), to).with_context(cannot)?;
    print(&to.display().to_string());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::{Arg, Command};

    use super::*;

    /// The text of a page, without the escapes of its dashes.
    fn page(folder: &Path, name: &str) -> String {
        let page = fs::read_to_string(folder.join(format!("{name}.1")));
        page.unwrap_or_else(|error| panic!("{name}: {error}"))
            .replace("\\-", "-")
    }

    /// Looks at the page of a command, and of each below it. Returns how many pages there are.
    fn look(folder: &Path, name: &str, command: &Command) -> usize {
        let text = page(folder, name);
        let arguments = command.get_arguments().filter(|one| !one.is_hide_set());
        for argument in arguments.filter(|one| one.get_id() != "help") {
            let shown = match argument.get_long() {
                Some(long) => format!("--{long}"),
                None => argument.get_value_names().unwrap()[0].to_string(),
            };
            assert!(text.contains(&shown), "{name}: {shown}");
            let variable = argument.get_env().map(|name| name.to_str().unwrap());
            assert!(
                text.contains(variable.unwrap_or_default()),
                "{name}: {shown}"
            );
        }
        if let Some(help) = command.get_after_help() {
            let first = help.to_string().lines().next().unwrap().replace('\'', "");
            assert!(
                text.replace("\\*(Aq", "").contains(&first),
                "{name}: {first}"
            );
        }
        let below = command.get_subcommands().filter(|one| !one.is_hide_set());
        let below = below.filter(|one| one.get_name() != "help");
        1 + below
            .map(|one| look(folder, &format!("{name}-{}", one.get_name()), one))
            .sum::<usize>()
    }

    #[test]
    fn page_of_every_command_shows_every_option() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("man1");
        run(&Man { to: to.clone() }).unwrap();
        let mut command = Arguments::command();
        command.build();
        let pages = look(&to, "keyway", &command);
        assert_eq!(fs::read_dir(&to).unwrap().count(), pages);
        assert!(pages > 25, "{pages}");
    }

    /// A default would be printed by pages, help and completions. A secret is read from a variable or file, which has none.
    #[test]
    fn argument_with_a_secret_has_no_default() {
        fn look(command: &Command) {
            let is_secret = |argument: &&Arg| {
                let id = argument.get_id().as_str();
                ["secret", "passphrase", "token", "password"]
                    .iter()
                    .any(|word| id.contains(word))
            };
            for argument in command.get_arguments().filter(is_secret) {
                assert!(argument.get_default_values().is_empty(), "{argument}");
            }
            command.get_subcommands().for_each(look);
        }
        look(&Arguments::command());
    }
}
