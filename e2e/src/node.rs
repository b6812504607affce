//! A node: a machine's network and mount table in a pair of namespaces, private to one test.
//!
//! Nothing that happens in it can be seen outside, and nothing survives it: the namespaces are held by file
//! descriptors of this process alone, and whatever runs in them dies with the node's keeper thread.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Doing, Error, Result};
use crate::inventory::Inventory;
use crate::process::{self, Process};

/// The node's own folder. It lives in the node's private `/run`, so only what runs in the node sees it.
pub const DIR: &str = "/run/node";

/// A node. Clones are handles to the same one; it ends with the last of them.
///
/// - `/run` and `/var/lib` are fresh tmpfs: neither network namespaces, leases nor caches of the host are seen, and
///   none is left. `/run` is a shared mount, so that namespaces which a daemon with a mount namespace of its own
///   (containerd) pins there are visible in the node as well.
/// - The network has `lo`, up, and nothing else.
#[derive(Debug, Clone)]
pub struct Node(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    spaces: Namespaces,
    jobs: Mutex<Option<Sender<Job>>>,
    keeper: Option<thread::JoinHandle<()>>,
}

/// What a thread enters: a mount table and a network.
#[derive(Debug)]
struct Namespaces {
    mount: File,
    net: File,
}

type Job = Box<dyn FnOnce() + Send>;

impl Node {
    /// Makes a node.
    pub fn start() -> Result<Self> {
        let (ready, outcome) = channel();
        let (jobs, queue) = channel::<Job>();
        let keeper = thread::Builder::new()
            .name("weft-node-keep".to_owned())
            .spawn(move || keep(&ready, &queue))
            .doing(|| "start a node's thread".to_owned())?;
        let spaces = outcome.recv().map_err(|_ended| ended())??;
        let node = Self(Arc::new(Inner { spaces, jobs: Mutex::new(Some(jobs)), keeper: Some(keeper) }));
        node.sh("ip link set lo up")?;
        Ok(node)
    }

    /// Runs `work` on a thread inside the node. What it panics with, the caller panics with: an assertion may stand
    /// in there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.run_in(&self.0.spaces.net, work)
    }

    /// Runs `work` on a thread in this node's mount table and the network `net`.
    pub(crate) fn run_in<T: Send>(&self, net: &File, work: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = || {
            enter_mounts(&self.0.spaces.mount)?;
            enter_net(net)?;
            Ok(work())
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Runs a command line (words between blanks, no quoting) in the node and returns its stdout.
    pub fn sh(&self, line: &str) -> Result<String> {
        self.run(|| process::output(&mut split(line)))?
    }

    /// Keeps a program running in the node until the guard or the node is dropped.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        self.keep_in(None, command)
    }

    /// The same, in another network. The parent is the keeper thread, which lives as long as the node: the program's
    /// death is bound to that of its parent *thread*.
    pub(crate) fn keep_in(&self, net: Option<&File>, command: Command) -> Result<Process> {
        let home = self.0.spaces.net.try_clone().doing(|| "duplicate a descriptor".to_owned())?;
        let net = net.map(File::try_clone).transpose().doing(|| "duplicate a descriptor".to_owned())?;
        let (answer, outcome) = channel();
        let job = move || {
            let started = start_in(net.as_ref(), &home, &command);
            // Nobody listens when the caller has panicked meanwhile; the process ends with the answer then.
            drop(answer.send(started));
        };
        let jobs = self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = jobs.as_ref().ok_or_else(ended)?;
        jobs.send(Box::new(job)).map_err(|_ended| ended())?;
        outcome.recv().map_err(|_ended| ended())?
    }

    /// The node's own folder, [`DIR`].
    pub fn dir(&self) -> &'static Path {
        Path::new(DIR)
    }

    /// Writes a file of the node as an editor or a kubelet would: complete under another name, then renamed over.
    pub fn write(&self, path: impl AsRef<Path>, text: &str) -> Result<()> {
        let path = path.as_ref();
        self.run(|| {
            let scratch = path.with_extension("new");
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(&scratch, text)?;
            std::fs::rename(&scratch, path)
        })?
        .doing(|| format!("write {}", path.display()))
    }

    /// Where a program that this process starts finds the node's network, such as `ip link … netns`.
    pub fn net_path(&self) -> PathBuf {
        let descriptor = self.0.spaces.net.as_raw_fd();
        format!("/proc/{}/fd/{descriptor}", std::process::id()).into()
    }

    /// Everything of the node that a pod could leave behind.
    pub fn inventory(&self) -> Result<Inventory> {
        Inventory::of(self)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The keeper ends when its queue does, and what it started ends with it.
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.keeper.take().map(thread::JoinHandle::join));
    }
}

fn keep(ready: &Sender<Result<Namespaces>>, queue: &Receiver<Job>) {
    if ready.send(leave_the_host()).is_ok() {
        queue.iter().for_each(|job| job());
    }
}

fn leave_the_host() -> Result<Namespaces> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .doing(|| "make a node's namespaces".to_owned())?;
    remount("/", MsFlags::MS_PRIVATE | MsFlags::MS_REC)?;
    // The machine's own, where `ip netns` has made one: hidden below the new `/run`, containerd would still take it for ours.
    match umount2("/run/netns", MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(error) => return Err(error).doing(|| "leave the machine's /run/netns".to_owned()),
    }
    for dir in ["/run", "/var/lib"] {
        mount(Some("weft-node"), dir, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
            .doing(|| format!("mount a tmpfs on {dir}"))?;
    }
    remount("/run", MsFlags::MS_SHARED)?;
    for dir in [DIR, "/run/netns"] {
        std::fs::create_dir(dir).doing(|| format!("create {dir}"))?;
    }
    Ok(Namespaces { mount: own_namespace("mnt")?, net: own_namespace("net")? })
}

fn remount(dir: &str, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, dir, None::<&str>, flags, None::<&str>)
        .doing(|| format!("change the propagation of {dir}"))
}

/// A descriptor of a namespace of the calling thread.
pub(crate) fn own_namespace(kind: &str) -> Result<File> {
    let path = format!("/proc/thread-self/ns/{kind}");
    File::open(&path).doing(|| format!("open {path}"))
}

fn enter_mounts(mounts: &File) -> Result<()> {
    // A thread that shares its root and working directory with others may not change the mount table under them.
    unshare(CloneFlags::CLONE_FS).doing(|| "give a thread a working directory of its own".to_owned())?;
    setns(mounts.as_fd(), CloneFlags::CLONE_NEWNS).doing(|| "enter a node's mount table".to_owned())
}

fn enter_net(net: &File) -> Result<()> {
    setns(net.as_fd(), CloneFlags::CLONE_NEWNET).doing(|| "enter a network namespace".to_owned())
}

fn start_in(net: Option<&File>, home: &File, command: &Command) -> Result<Process> {
    let Some(net) = net else { return Process::start(command) };
    enter_net(net)?;
    let started = Process::start(command);
    enter_net(home)?;
    started
}

pub(crate) fn split(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("true"));
    command.args(words);
    command
}

fn ended() -> Error {
    Error::Io { doing: "use a node".to_owned(), source: std::io::Error::other("it has ended") }
}
