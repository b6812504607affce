//! A cgroup that runtimes put their containers below.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::wait;

const TREES: &str = "/sys/fs/cgroup";
const OURS: &str = "weft-e2e-";

/// How long the kernel may take to bury what was in it.
const BURIAL: Duration = Duration::from_secs(10);

/// A parent of this test alone. What is below it goes when this is dropped; what a killed test has left of its own, the
/// next one sweeps away.
#[derive(Debug)]
pub(crate) struct Cgroup(String);

impl Cgroup {
    pub(crate) fn unique() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep();
        Self(format!("/{OURS}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// As runtimes are told: from the root of every tree.
    pub(crate) fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel is still burying the containers; their cgroups can be removed when it is done.
        drop(wait::until("the cgroups to be free", BURIAL, || remove(&self.0)));
    }
}

/// Removes the cgroups of tests that are no more: a killed test cannot do it itself.
fn sweep() {
    for cgroup in trees().iter().flat_map(std::fs::read_dir).flatten().flatten() {
        let name = cgroup.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(OURS).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            remove_tree(&cgroup.path());
        }
    }
}

/// Where cgroups may be: the one tree of version 2, or the controllers' trees of version 1.
fn trees() -> Vec<PathBuf> {
    let controllers = std::fs::read_dir(TREES).into_iter().flatten().flatten().map(|entry| entry.path());
    std::iter::once(TREES.into()).chain(controllers.filter(|path| path.is_dir())).collect()
}

fn remove(name: &str) -> Result<(), String> {
    let left = trees().into_iter().map(|tree| tree.join(name.trim_start_matches('/')));
    let left: Vec<_> = left.filter(|path| path.exists()).inspect(|path| remove_tree(path)).collect();
    match left.into_iter().find(|path| path.exists()) {
        None => Ok(()),
        Some(path) => Err(format!("{} is in use", path.display())),
    }
}

fn remove_tree(cgroup: &Path) {
    let children = std::fs::read_dir(cgroup).into_iter().flatten().flatten();
    children.filter(|entry| entry.path().is_dir()).for_each(|entry| remove_tree(&entry.path()));
    // Busy until its last process is buried; the caller looks again.
    drop(std::fs::remove_dir(cgroup));
}
