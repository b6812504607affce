//! `weft-node install`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use super::{Directories, Outcome, own_plugins, warn};
use crate::{Installation, Installed, Placed, install};

#[derive(Debug, Args)]
pub(super) struct Install {
    #[command(flatten)]
    directories: Directories,
    /// The network configuration list; it keeps its name
    #[arg(long, value_name = "FILE")]
    conf: PathBuf,
    /// A plugin to install; may be given several times [default: weft-cni and weft-ipam beside weft-node]
    #[arg(long = "plugin", value_name = "FILE")]
    plugins: Vec<PathBuf>,
}

impl Install {
    pub(super) fn execute(self) -> Outcome {
        let Directories { bin_dir, conf_dir } = self.directories;
        let plugins = if self.plugins.is_empty() { own_plugins()? } else { self.plugins };
        report(&install(&Installation { plugins, bin_dir, conf: self.conf, conf_dir })?)
    }
}

fn report(installed: &Installed) -> Outcome {
    let mut out = io::stdout().lock();
    for (path, placed) in &installed.files {
        let what = match placed {
            Placed::New => "installed",
            Placed::Replaced => "replaced",
            Placed::Unchanged => "unchanged",
        };
        writeln!(out, "{what:9}  {}", path.display())?;
    }
    installed.warnings.iter().for_each(|warning| warn(&warning.to_string()));
    Ok(())
}
