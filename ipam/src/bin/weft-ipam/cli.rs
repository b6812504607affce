//! What people run.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Parser, Subcommand};
use weft_ipam::store::local::{DEFAULT_DIR, networks_in};

mod list;

/// Shows the addresses that Weft has assigned on this node.
///
/// Without a command and with CNI_COMMAND in the environment it is a CNI IPAM plugin.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists leases, network by network
    List {
        /// Where the leases are: `dataDir` of the network configuration
        #[arg(long, default_value = DEFAULT_DIR, value_name = "DIR")]
        data_dir: PathBuf,
        /// Only these networks
        #[arg(value_name = "NETWORK")]
        networks: Vec<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot list the networks in {}", dir.display())]
    Networks { dir: PathBuf, source: io::Error },
    #[error("cannot read the leases of {network}")]
    Leases { network: String, source: Box<weft_ipam::Error> },
    #[error("cannot write the list")]
    Output(#[from] io::Error),
}

/// Runs the command that the arguments name.
pub(crate) fn run() -> ExitCode {
    let Args { command: Command::List { data_dir, networks, json } } = Args::parse();
    match list(&data_dir, networks, json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-ipam: {}", weft_ipam::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn list(dir: &Path, networks: Vec<String>, json: bool) -> Result<(), Error> {
    let networks = if networks.is_empty() {
        networks_in(dir).map_err(|source| Error::Networks { dir: dir.into(), source })?
    } else {
        networks
    };
    let networks = networks.into_iter().map(|name| read(dir, name)).collect::<Result<Vec<_>, _>>()?;
    let text = if json { list::json(&networks) } else { list::table(&networks, SystemTime::now()) };
    let written = io::Write::write_all(&mut io::stdout(), text.as_bytes());
    // Whoever reads the list may stop reading it.
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(error.into());
    }
    Ok(())
}

fn read(dir: &Path, name: String) -> Result<list::Network, Error> {
    list::Network::read(&name, dir).map_err(|source| Error::Leases { network: name, source: source.into() })
}
