//! `weft-node uninstall`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{Directories, Outcome, warn};
use crate::alone::Alone;
use crate::conflist::List;
use crate::repair::unmasqueraded;
use crate::{Removed, Uninstalled, directory, leases, network, uninstall};

#[derive(Debug, Args)]
pub(super) struct Uninstall {
    #[command(flatten)]
    directories: Directories,
    /// Where an agent that runs would keep its lock: it would install everything again
    #[arg(long, value_name = "DIR", default_value = "/run/weft")]
    state_dir: PathBuf,
    /// Also takes away the routes to other nodes, the tunnel, and what keeps pods' own addresses on those ways, which takes
    /// CAP_NET_ADMIN; pods lose their way to other nodes
    #[arg(long)]
    network: bool,
    /// Then waits for SIGTERM, for who has to see that it is done before it ends, as a DaemonSet does
    #[arg(long)]
    wait: bool,
}

impl Uninstall {
    pub(super) fn execute(self) -> Outcome {
        let Directories { bin_dir, conf_dir } = self.directories;
        Alone::expect_nobody(&self.state_dir)?;
        let attached = attached(&conf_dir);
        report(&uninstall(&bin_dir, &conf_dir)?)?;
        if attached > 0.0 {
            warn(&format!(
                "{attached} addresses are held by pods: they stay connected, but their end needs weft-cni; drain a node before this"
            ));
        }
        if self.network {
            take_down()?;
        }
        if self.wait { wait() } else { Ok(()) }
    }
}

fn take_down() -> Outcome {
    let taken = network::remove()?;
    let mut out = io::stdout().lock();
    for change in &taken.changes {
        writeln!(out, "removed    {} {}", change.kind.name(), change.of)?;
    }
    for network in unmasqueraded::remove()? {
        writeln!(out, "removed    unmasqueraded {network}")?;
    }
    taken.problems.first().map_or(Ok(()), |problem| Err(problem.clone().into()))
}

/// How many addresses the network has given to pods that are still there.
fn attached(conf_dir: &Path) -> f64 {
    let names = directory::owned_in(conf_dir).into_iter().filter(|name| name.ends_with(".conflist"));
    let list = |name: String| {
        let path = conf_dir.join(name);
        List::parse(&path, &std::fs::read(&path).ok()?).ok()
    };
    names.filter_map(list).flat_map(|list| leases::ranges(&list)).map(|range| range.held).sum()
}

fn wait() -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        signal(SignalKind::terminate())?.recv().await;
        Ok(())
    })
}

fn report(uninstalled: &Uninstalled) -> Outcome {
    let mut out = io::stdout().lock();
    for (path, removed) in &uninstalled.files {
        let what = match removed {
            Removed::Removed => "removed",
            Removed::Absent => "gone",
            Removed::Kept => "kept",
        };
        writeln!(out, "{what:9}  {}", path.display())?;
        if *removed == Removed::Kept {
            warn(&format!("{} was changed since it was installed, and stays", path.display()));
        }
    }
    Ok(())
}
