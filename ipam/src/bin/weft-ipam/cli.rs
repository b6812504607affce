//! What people run.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod claim;
mod error;
mod export;
mod host_local;
mod import;
mod lease;
mod list;
mod place;
mod reclaim;
mod release;
mod show;
mod text;

use error::Error;
use place::Place;

/// Shows and changes the addresses that Weft has assigned.
///
/// Without a command and with CNI_COMMAND in the environment it is a CNI IPAM plugin.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  failed: the leases could not be read or changed
  2  wrong usage
  3  nobody holds what was asked for
  4  refused, and nothing was changed: a pod lives on the lease; or, by import, some leases conflict
     with what stands, and the others were taken over

Examples:
  weft-ipam list                         who holds what, and how full the ranges are
  weft-ipam show 10.244.0.7              who holds this address
  weft-ipam show shop/cart-7d9f          what this pod holds
  weft-ipam reclaim --dry-run            which leases have outlived their pods
  weft-ipam release 3f2a9c51d0e4         end the leases of a container that is gone
  weft-ipam export > leases.json         all of it, for weft-ipam import leases.json elsewhere
  weft-ipam import --from-host-local /var/lib/cni/networks/pods --conf new.conflist";

#[derive(Subcommand)]
enum Command {
    /// Lists leases, network by network, and how full each range is
    List(Place),
    /// Shows everything about the leases of a container, a pod or an address
    Show(show::Arguments),
    /// Ends the leases of a container, a pod or an address
    Release(release::Arguments),
    /// Ends the leases whose network namespace is gone, or that are of an earlier boot
    Reclaim(reclaim::Arguments),
    /// Makes this machine the node of its name, in place of one that is gone for good
    Claim(claim::Arguments),
    /// Prints leases, ranges and the order of reuse as a JSON document that `import` reads
    Export(Place),
    /// Takes over the leases of an export, or of the reference plugin host-local
    Import(import::Arguments),
}

/// What a command has to say on standard output, and the code it ends with.
struct Answer {
    text: String,
    exit: Exit,
}

/// The codes of [`AFTER_HELP`]; 2 is clap's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Exit {
    Done = 0,
    Failed = 1,
    NotFound = 3,
    Refused = 4,
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self { text, exit: Exit::Done }
    }
}

/// Runs the command that the arguments name.
pub(crate) fn run() -> ExitCode {
    let exit = match answer(Arguments::parse().command).and_then(print) {
        Ok(exit) => exit,
        Err(error) => error.warn(),
    };
    ExitCode::from(exit as u8)
}

fn answer(command: Command) -> Result<Answer, Error> {
    match command {
        Command::List(place) => list::run(&place),
        Command::Show(arguments) => show::run(&arguments),
        Command::Release(arguments) => release::run(&arguments),
        Command::Reclaim(arguments) => reclaim::run(&arguments),
        Command::Claim(arguments) => claim::run(&arguments),
        Command::Export(place) => export::run(&place),
        Command::Import(arguments) => import::run(&arguments),
    }
}

fn print(answer: Answer) -> Result<Exit, Error> {
    match io::stdout().write_all(answer.text.as_bytes()) {
        // Whoever reads the list may stop reading it.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(answer.exit),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_sound() {
        Arguments::command().debug_assert();
    }
}
