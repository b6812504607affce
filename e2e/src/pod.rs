//! A pod: a network namespace pinned under `/run/netns`, as a runtime makes it before it calls a plugin.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::error::{Doing, Result};
use crate::node::{Node, own_namespace, split};
use crate::process::{self, Process};

/// A pod's network namespace on a node. Clones are handles to the same one; with the last of them the namespace
/// goes, if the pod was made here.
#[derive(Debug, Clone)]
pub struct Pod(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: Node,
    name: String,
    path: PathBuf,
    net: File,
    pinned: bool,
}

impl Pod {
    /// Makes a namespace and pins it at `/run/netns/NAME`; `lo` is up, as a runtime has it.
    pub fn create(node: &Node, name: &str) -> Result<Self> {
        let path = Path::new("/run/netns").join(name);
        let net = node.run(|| pin(&path))??;
        let inner = Inner { node: node.clone(), name: name.to_owned(), path, net, pinned: true };
        let pod = Self(Arc::new(inner));
        pod.sh("ip link set lo up")?;
        Ok(pod)
    }

    /// The node's own network, as a pod with `hostNetwork` has it.
    pub fn host(node: &Node) -> Result<Self> {
        Self::at(node, "/proc/thread-self/ns/net")
    }

    /// A namespace that another runtime has pinned.
    pub fn at(node: &Node, path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let net = node.run(|| File::open(&path))?.doing(|| format!("open {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self(Arc::new(Inner { node: node.clone(), name, path, net, pinned: false })))
    }

    /// Its name, which serves as the container id, too.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The path of its namespace, for `CNI_NETNS`.
    pub fn netns(&self) -> &Path {
        &self.0.path
    }

    /// The node it is on.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// Runs `work` on a thread inside the pod's network. Sockets opened and threads started there belong to the pod.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.0.node.run_in(&self.0.net, work)
    }

    /// Runs a command line (words between blanks, no quoting) in the pod and returns its stdout.
    pub fn sh(&self, line: &str) -> Result<String> {
        self.run(|| process::output(&mut split(line)))?
    }

    /// Keeps a program running in the pod until the guard or the node is dropped.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        self.0.node.keep_in(Some(&self.0.net), command)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.pinned {
            // Best effort: the node's mount table ends soon after.
            drop(self.node.run(|| unpin(&self.path)));
        }
    }
}

fn pin(path: &Path) -> Result<File> {
    File::create_new(path).doing(|| format!("create {}", path.display()))?;
    unshare(CloneFlags::CLONE_NEWNET).doing(|| "make a network namespace".to_owned())?;
    mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .doing(|| format!("pin a namespace at {}", path.display()))?;
    own_namespace("net")
}

/// Takes a namespace's name away, as a runtime does when the pod ends. What still holds a descriptor keeps it alive.
pub fn unpin(path: &Path) -> Result<()> {
    umount2(path, MntFlags::MNT_DETACH).doing(|| format!("unmount {}", path.display()))?;
    std::fs::remove_file(path).doing(|| format!("remove {}", path.display()))
}
