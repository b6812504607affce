//! What the plugins weigh, on disk and at work.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use weft_e2e::{Result, binaries};

use crate::contestant::Contestant;
use crate::reference::{Backend, Reference};
use crate::{doing, shape};

#[derive(Debug)]
pub(crate) struct Weight {
    pub(crate) plugin: String,
    pub(crate) bytes: u64,
    /// The most that it, or a program that it waited for, had resident in an ADD.
    pub(crate) resident_kib: u64,
}

/// Of `weft-cni`, then of each of the reference's plugins.
pub(crate) fn measure(reference: &Reference) -> Result<Vec<Weight>> {
    let weft = binaries::weft_dir();
    let mut weights = weigh(&["weft-cni"], &weft, |dir| Contestant::weft_in(dir).map(drop))?;
    weights.extend(weigh(&Reference::PLUGINS, reference.dir(), |dir| {
        Contestant::reference(Backend::Iptables, dir).map(drop)
    })?);
    Ok(weights)
}

/// `attach` attaches a pod with the plugins of the folder that it is given.
fn weigh(plugins: &[&str], dir: &Path, attach: impl Fn(&Path) -> Result<()>) -> Result<Vec<Weight>> {
    let wrappers = tempfile::tempdir().map_err(doing("make a folder"))?;
    plugins.iter().try_for_each(|plugin| wrap(plugin, dir, wrappers.path()))?;
    attach(wrappers.path())?;
    let weight = |plugin: &&str| {
        let bytes = fs::metadata(dir.join(plugin)).map_err(doing("measure a plugin"))?.len();
        let account =
            fs::read_to_string(account(wrappers.path(), plugin)).map_err(doing("read an account"))?;
        let most = account.lines().filter_map(|line| line.trim().parse().ok()).max();
        let resident_kib = most.ok_or_else(|| shape("what time says", &account))?;
        Ok(Weight { plugin: (*plugin).to_owned(), bytes, resident_kib })
    };
    plugins.iter().map(weight).collect()
}

/// Puts a script under the plugin's name that has it measured.
fn wrap(plugin: &str, dir: &Path, wrappers: &Path) -> Result<()> {
    let (time, account) = (binaries::system("time")?, account(wrappers, plugin));
    let (wrapper, real) = (wrappers.join(plugin), dir.join(plugin));
    let measured = format!("{} --append --format %M --output {}", time.display(), account.display());
    fs::write(&wrapper, format!("#!/bin/sh\nexec {measured} {}\n", real.display()))
        .and_then(|()| fs::set_permissions(&wrapper, Permissions::from_mode(0o755)))
        .map_err(doing("write a wrapper"))
}

fn account(wrappers: &Path, plugin: &str) -> std::path::PathBuf {
    wrappers.join(format!("{plugin}.account"))
}
