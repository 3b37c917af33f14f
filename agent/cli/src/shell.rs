//! What shells and `man` want to know of this program, made from the one definition of its arguments.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::{Shell, generate};

/// Prints the completions of a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  source <(sidestep completions bash)
  sidestep completions zsh >\"${fpath[1]}/_sidestep\"
  sidestep completions fish >~/.config/fish/completions/sidestep.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run<C: CommandFactory>(&self) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        generate(self.shell, &mut C::command(), "sidestep", &mut script);
        match io::stdout().write_all(&script) {
            // Who reads may have read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            written => Ok(written.map(|()| ExitCode::SUCCESS)?),
        }
    }
}

/// Writes the manual pages into a folder: sidestep.1, and one for each command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidestep man /usr/local/share/man/man1 && man sidestep-check")]
pub(crate) struct Man {
    /// The folder, which must exist
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Man {
    pub(crate) fn run<C: CommandFactory>(&self) -> anyhow::Result<ExitCode> {
        let folder = &self.folder;
        clap_mangen::generate_to(C::command(), folder)
            .with_context(|| folder.display().to_string())?;
        Ok(ExitCode::SUCCESS)
    }
}
