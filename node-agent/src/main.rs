//! `weft-node`: puts Weft on a node, and takes it off.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use weft_node::{Installation, Placed, Removed, install, uninstall};

/// Puts Weft's plugins and network configuration where the container runtime of this node looks for them, and takes them
/// away again.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs plugins and then the configuration; each file is replaced in one step, so this is safe on a node that is
    /// in use
    Install {
        #[command(flatten)]
        directories: Directories,
        /// The network configuration list; it keeps its name
        #[arg(long, value_name = "FILE")]
        conf: PathBuf,
        /// A plugin to install; may be given several times [default: weft-cni and weft-ipam beside weft-node]
        #[arg(long = "plugin", value_name = "FILE")]
        plugins: Vec<PathBuf>,
    },
    /// Removes what was installed, as far as nobody has changed it since
    Uninstall {
        #[command(flatten)]
        directories: Directories,
    },
}

#[derive(Args)]
struct Directories {
    /// Where the runtime looks for plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// Where the runtime looks for configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-node: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Install { directories: Directories { bin_dir, conf_dir }, conf, plugins } => {
            let plugins = if plugins.is_empty() { own_plugins()? } else { plugins };
            report_installed(&install(&Installation { plugins, bin_dir, conf, conf_dir })?)
        }
        Command::Uninstall { directories: Directories { bin_dir, conf_dir } } => {
            report_uninstalled(&uninstall(&bin_dir, &conf_dir)?)
        }
    }
}

fn own_plugins() -> io::Result<Vec<PathBuf>> {
    let executable = std::env::current_exe()?;
    let dir = executable.parent().unwrap_or(Path::new("/"));
    Ok(["weft-cni", "weft-ipam"].map(|name| dir.join(name)).into())
}

fn report_installed(installed: &weft_node::Installed) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    for (path, placed) in &installed.files {
        let what = match placed {
            Placed::New => "installed",
            Placed::Replaced => "replaced",
            Placed::Unchanged => "unchanged",
        };
        writeln!(out, "{what:9}  {}", path.display())?;
    }
    for warning in &installed.warnings {
        eprintln!("weft-node: warning: {warning}");
    }
    Ok(())
}

fn report_uninstalled(uninstalled: &weft_node::Uninstalled) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    for (path, removed) in &uninstalled.files {
        let what = match removed {
            Removed::Removed => "removed",
            Removed::Absent => "gone",
            Removed::Kept => "kept",
        };
        writeln!(out, "{what:9}  {}", path.display())?;
        if *removed == Removed::Kept {
            eprintln!("weft-node: warning: {} was changed since it was installed, and stays", path.display());
        }
    }
    Ok(())
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
