//! `weft-node uninstall`.

use std::io::{self, Write};

use clap::Args;

use super::{Directories, Outcome, warn};
use crate::{Removed, Uninstalled, uninstall};

#[derive(Debug, Args)]
pub(super) struct Uninstall {
    #[command(flatten)]
    directories: Directories,
}

impl Uninstall {
    pub(super) fn execute(self) -> Outcome {
        let Directories { bin_dir, conf_dir } = self.directories;
        report(&uninstall(&bin_dir, &conf_dir)?)
    }
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
