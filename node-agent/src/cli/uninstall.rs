//! `weft-node uninstall`.

use std::error::Error;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use super::{Directories, Outcome, warn};
use crate::alone::{self, Alone};
use crate::conflist::List;
use crate::repair::unmasqueraded;
use crate::status::Board;
use crate::{Removed, Uninstalled, admin, directory, discovery, leases, network, uninstall};

#[derive(Debug, Args)]
pub(super) struct Uninstall {
    #[command(flatten)]
    directories: Directories,
    /// Where an agent that runs may keep its lock; one of this network namespace is noticed whatever its directory. Beside an
    /// agent nothing is removed, for it would install everything again
    #[arg(long, value_name = "DIR", default_value = "/run/weft")]
    state_dir: PathBuf,
    /// Also takes away the routes to other nodes, the tunnel, what keeps pods' own addresses on those ways, and, where no pod
    /// is attached, what is in --state-dir. It takes CAP_NET_ADMIN
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "always")]
    network: Option<When>,
    /// The files for sidecars, which are removed with the routes
    #[arg(long, value_name = "DIR", requires = "network")]
    discovery_dir: Option<PathBuf>,
    /// Then says at --admin that it is ready, until SIGTERM: for who has to see that it is done, as a DaemonSet does
    #[arg(long)]
    wait: bool,
    /// Where health is served, with --wait
    #[arg(long, value_name = "ADDRESS", default_value = admin::ADDRESS)]
    admin: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum When {
    /// Also where pods run, which lose their way to those of other nodes
    Always,
    /// Only where no pod is attached any more
    Unused,
}

impl Uninstall {
    pub(super) fn execute(self) -> Outcome {
        let Directories { bin_dir, conf_dir } = &self.directories;
        Alone::expect_nobody(&self.state_dir, alone::SOCKET)?;
        let attached = attached(conf_dir);
        let mut removed = report(&uninstall(bin_dir, conf_dir)?)?;
        if attached > 0 {
            warn(&format!(
                "{attached} addresses are held by pods: they stay connected, but their end needs weft-cni; drain a node before this"
            ));
        }
        if let Some(when) = self.network {
            removed += self.take_down(when)?;
        }
        if removed == 0 {
            say("nothing", &self.nothing())?;
        }
        if self.wait { wait(self.admin) } else { Ok(()) }
    }

    /// Where it was looked, in case that was the wrong place.
    fn nothing(&self) -> String {
        let Directories { bin_dir, conf_dir } = &self.directories;
        let elsewhere =
            if self.network.is_some() { "" } else { "; the network was not asked for (--network)" };
        format!(
            "was to be removed: no file in {} or {} is ours{elsewhere}",
            bin_dir.display(),
            conf_dir.display()
        )
    }

    fn take_down(&self, when: When) -> Result<usize, Box<dyn Error>> {
        let is_unused = network::is_unused()?;
        if when == When::Unused && !is_unused {
            warn(
                "pods are attached here, so their routes to other nodes stay; do this again when the node is drained",
            );
            return Ok(0);
        }
        let mut removed = remove_network()?;
        if let Some(dir) = &self.discovery_dir {
            let files = discovery::remove(dir)?;
            say("removed", &format!("{files} files of {}", dir.display()))?;
            removed += 1;
        }
        // With leases another installation goes on where this one ends.
        Ok(removed + if is_unused { remove_state(&self.state_dir)? } else { 0 })
    }
}

fn remove_network() -> Result<usize, Box<dyn Error>> {
    let taken = network::remove()?;
    for change in &taken.changes {
        say("removed", &format!("{} {}", change.kind.name(), change.of))?;
    }
    let networks = unmasqueraded::remove()?;
    for network in &networks {
        say("removed", &format!("unmasqueraded {network}"))?;
    }
    let removed = taken.changes.len() + networks.len();
    taken.problems.first().map_or(Ok(removed), |problem| Err(problem.clone().into()))
}

/// Of the folder only what Weft's programs make there: it may be somebody's own.
fn remove_state(dir: &Path) -> Result<usize, Box<dyn Error>> {
    let mut count = 0;
    for name in ["ipam", "tuning", alone::NAME] {
        let path = dir.join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(format!("cannot remove {}: {error}", path.display()).into()),
            Ok(()) => {
                say("removed", &path.display().to_string())?;
                count += 1;
            }
        }
    }
    Ok(count)
}

/// How many addresses the network has given to pods that are still there.
fn attached(conf_dir: &Path) -> u64 {
    let names = directory::owned_in(conf_dir).into_iter().filter(|name| name.ends_with(".conflist"));
    let list = |name: String| {
        let path = conf_dir.join(name);
        List::parse(&path, &fs::read(&path).ok()?).ok()
    };
    names.filter_map(list).flat_map(|list| leases::ranges(&list)).map(|range| range.held).sum()
}

/// The pod of a DaemonSet is ready when this says so, and is seen no earlier.
fn wait(address: SocketAddr) -> Outcome {
    let board = Board::default();
    board.write(|status| status.uninstalled = true);
    let served = async {
        let mut end = signal(SignalKind::terminate())?;
        let listener = admin::bind(address).await?;
        tokio::select! {
            Err(never) = admin::serve(listener, board, Arc::new(|_| {})) => match never {},
            _ = end.recv() => Ok(()),
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(served))
}

fn say(what: &str, of: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{what:9}  {of}")
}

fn report(uninstalled: &Uninstalled) -> Result<usize, Box<dyn Error>> {
    for (path, removed) in &uninstalled.files {
        let what = match removed {
            Removed::Removed => "removed",
            Removed::Absent => "gone",
            Removed::Kept => "kept",
        };
        say(what, &path.display().to_string())?;
        if *removed == Removed::Kept {
            warn(&format!("{} was changed since it was installed, and stays", path.display()));
        }
    }
    Ok(uninstalled.files.len())
}
