//! `keyway completions`: a shell's completions of every command and option, made from their definitions.

use std::io::{self, Write};

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::Arguments;

#[derive(Args)]
#[command(after_help = "For this shell only:
  source <(keyway completions bash)
For every shell of this user:
  bash  keyway completions bash > ~/.local/share/bash-completion/completions/keyway
  zsh   keyway completions zsh > DIR/_keyway, where DIR is a folder of $fpath
  fish  keyway completions fish > ~/.config/fish/completions/keyway.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(Completions { shell }: &Completions) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut Arguments::command(), "keyway", &mut script);
    (io::stdout().write_all(&script)).context("the completions cannot be printed")
}
