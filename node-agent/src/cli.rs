//! The command line of `weft-node`.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage. The result goes to stdout, everything about it to stderr.

mod install;
mod network;
mod run;
mod setup;
mod status;
mod uninstall;

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Puts Weft on a node, joins the pods of all nodes, and takes Weft off the node again
#[derive(Debug, Parser)]
#[command(name = "weft-node", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs on a node for as long as it has pods: joins them with those of the other nodes
    Run(Box<run::Run>),
    /// Installs plugins and then the configuration; each file is replaced in one step, so this is safe on a node that is
    /// in use
    Install(install::Install),
    /// Shows this node, the ways to the others, and what is wrong
    Status(status::Show),
    /// Removes what was installed, as far as nobody has changed it since
    Uninstall(uninstall::Uninstall),
}

/// Where a runtime looks.
#[derive(Debug, Args)]
struct Directories {
    /// Where the runtime looks for plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// Where the runtime looks for configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
}

/// What a command ends with.
type Outcome = Result<(), Box<dyn Error>>;

/// Does what `args` say, the program's name being the first of them.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let outcome = match Cli::try_parse_from(args) {
        Ok(cli) => cli.command.execute(),
        Err(usage) => {
            let code = if usage.exit_code() == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) };
            return usage.print().map_or(ExitCode::FAILURE, |()| code);
        }
    };
    outcome.map_or_else(|error| complain(&*error), |()| ExitCode::SUCCESS)
}

impl Command {
    fn execute(self) -> Outcome {
        match self {
            Self::Run(run) => run.execute(),
            Self::Install(install) => install.execute(),
            Self::Status(status) => status.execute(),
            Self::Uninstall(uninstall) => uninstall.execute(),
        }
    }
}

/// The plugins that come with this program.
fn own_plugins() -> io::Result<Vec<PathBuf>> {
    let executable = std::env::current_exe()?;
    let dir = executable.parent().unwrap_or(Path::new("/"));
    Ok(["weft-cni", "weft-ipam"].map(|name| dir.join(name)).into())
}

fn complain(error: &dyn Error) -> ExitCode {
    writeln!(io::stderr().lock(), "weft-node: {}", with_causes(error)).ok();
    ExitCode::FAILURE
}

fn warn(text: &str) {
    writeln!(io::stderr().lock(), "weft-node: warning: {text}").ok();
}

fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
