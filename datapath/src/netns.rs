//! Network namespaces.
#![expect(unsafe_code, reason = "a namespace is asked for by `ioctl`")]

use std::fs::{File, FileType, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process;

use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{FsType, statfs};

use crate::error::Doing;
use crate::{Error, Rtnl};

/// Where a thread sees the namespace that it is in.
const OWN: &str = "/proc/thread-self/ns/net";

nix::ioctl_none_bad! {
    /// `SIOCGSKNS` of `linux/sockios.h`.
    namespace_of, 0x894C
}

/// `NSFS_MAGIC` of `linux/magic.h`; libc knows only `/proc`'s.
const NSFS: FsType = FsType(0x6e73_6673);

/// A network namespace that is held open: it cannot go away while this lives.
#[derive(Debug)]
pub struct NetNs {
    path: PathBuf,
    handle: File,
}

/// What tells one namespace from every other that lives at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetNsIdentity {
    /// Device of the namespace file system.
    pub device: u64,
    /// Inode within it. It can be given again after the namespace is gone.
    pub inode: u64,
}

impl NetNs {
    /// Opens the namespace that is bound to `path`.
    ///
    /// # Errors
    /// Where there is no such file, or where it is no namespace: a runtime that died between making the file and
    /// mounting the namespace over it leaves an empty one.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let doing = || format!("open the network namespace {}", path.display());
        // Looked at first: a pipe would be waited for, and a device might do something.
        if statfs(path).doing(doing)?.filesystem_type() != NSFS {
            let kind = path.metadata().doing(doing)?.file_type();
            return Err(io::Error::other(format!("{} is {}", path.display(), describe(kind)))).doing(doing);
        }
        let handle = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).doing(doing)?;
        Ok(Self { path: path.to_owned(), handle })
    }

    /// The namespace that the calling thread is in.
    ///
    /// # Errors
    /// Where `/proc` is not mounted.
    pub fn current() -> Result<Self, Error> {
        let socket = UnixDatagram::unbound().doing(|| "open a socket")?;
        // Kernels before 4.10 do not tell, nor do later ones tell everybody.
        if let Ok(found) = Self::of(&socket) {
            return Ok(found);
        }
        // It cannot be anything else, so there is nothing to look at first.
        let path = PathBuf::from(OWN);
        let handle = File::open(&path).doing(|| format!("open the network namespace {OWN}"))?;
        Ok(Self { path, handle })
    }

    /// The namespace that `socket` was opened in: by its path it takes the kernel ten times as long, which makes a directory of
    /// `/proc` for the process and one for the thread.
    ///
    /// # Errors
    /// Where the kernel does not tell, which takes `CAP_NET_ADMIN`.
    pub(crate) fn of(socket: &impl AsRawFd) -> Result<Self, Error> {
        let doing = || "ask a socket for its network namespace";
        // SAFETY: the request has no argument.
        let number = unsafe { namespace_of(socket.as_raw_fd()) }.doing(doing)?;
        // SAFETY: the kernel has just made the descriptor, for whoever asks.
        let handle = unsafe { OwnedFd::from_raw_fd(number) };
        Ok(Self { path: OWN.into(), handle: handle.into() })
    }

    /// Where it was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its identity.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn identity(&self) -> Result<NetNsIdentity, Error> {
        let meta = self.handle.metadata().doing(|| format!("identify {}", self.path.display()))?;
        Ok(NetNsIdentity { device: meta.dev(), inode: meta.ino() })
    }

    /// An rtnetlink socket inside. A socket stays in the namespace it was opened in, so all further work happens
    /// from outside.
    ///
    /// # Errors
    /// Where the namespace cannot be entered or the socket not be opened.
    pub fn rtnl(&self) -> Result<Rtnl, Error> {
        self.run(Rtnl::open)?
    }

    /// Runs `work` inside the namespace, on the calling thread, which is back where it was when this returns, whatever `work`
    /// does. A thread of its own would cost a tenth of an ADD.
    ///
    /// # Errors
    /// Where the namespace cannot be entered, which takes `CAP_SYS_ADMIN`.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        let doing = || format!("enter the network namespace {}", self.path.display());
        let back = Return::to(Self::current()?).doing(doing)?;
        setns(&self.handle, CloneFlags::CLONE_NEWNET).map_err(explain).doing(doing)?;
        let result = work();
        drop(back);
        Ok(result)
    }
}

/// Brings the thread back when it is dropped, also by a panic.
struct Return(NetNs);

impl Return {
    /// Enters `home`, where the thread is already: who may not do that must not leave.
    fn to(home: NetNs) -> Result<Self, io::Error> {
        setns(&home.handle, CloneFlags::CLONE_NEWNET).map_err(explain)?;
        Ok(Self(home))
    }
}

impl Drop for Return {
    fn drop(&mut self) {
        if setns(&self.0.handle, CloneFlags::CLONE_NEWNET).is_err() {
            // Whatever would be done next would be done to the pod instead of the node. The kernel has allowed the very
            // same a moment ago, so it takes a kernel out of memory to come here.
            process::abort();
        }
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

fn describe(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "an ordinary file"
    }
}

/// `setns` answers EINVAL to a namespace of another kind, which says nothing to a person.
fn explain(errno: Errno) -> io::Error {
    match errno {
        Errno::EINVAL => io::Error::other("it is a namespace, but not one of the network"),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use nix::sched::unshare;

    use super::*;

    #[test]
    fn what_is_no_network_namespace_is_refused_with_the_reason() {
        let error = NetNs::open(Path::new("/nowhere")).unwrap_err();
        assert_eq!(error.errno(), Errno::ENOENT);
        let error = NetNs::open(Path::new("/proc/self/status")).unwrap_err();
        assert!(error.refusal.to_string().contains("is an ordinary file"), "{}", error.refusal);
        for (path, what) in [("/proc", "is a directory"), ("/dev/zero", "is a device")] {
            let error = NetNs::open(Path::new(path)).unwrap_err();
            assert!(error.refusal.to_string().contains(what), "{}", error.refusal);
        }
        let uts = NetNs::open(Path::new("/proc/self/ns/uts")).unwrap();
        let error = uts.run(|| ()).unwrap_err();
        assert!(error.refusal.to_string().contains("not one of the network"), "{}", error.refusal);
    }

    #[test]
    fn the_calling_thread_stays_where_it_is() {
        let own = || NetNs::current().unwrap().identity().unwrap();
        let (pod, home) = (new_namespace(), own());
        assert_eq!(pod.run(own).unwrap(), pod.identity().unwrap());
        assert_ne!(pod.identity().unwrap(), home);
        assert_eq!(own(), home);
        // Within one as well.
        pod.run(|| NetNs::current().unwrap().run(own).unwrap()).unwrap();
        assert_eq!(own(), home);
        std::panic::catch_unwind(|| pod.run(|| panic!("inside"))).unwrap_err();
        assert_eq!(own(), home);
    }

    /// Held by its handle alone.
    fn new_namespace() -> NetNs {
        let unshared = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            NetNs::current().unwrap()
        };
        std::thread::spawn(unshared).join().unwrap()
    }
}
