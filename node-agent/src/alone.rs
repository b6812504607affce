//! One agent a node: the second finds the first and ends.
//!
//! What two agents would fight over is the network, so the lock is an abstract Unix socket: there is one of its name in each network
//! namespace, whatever directories the agents use, and the kernel says whose it is (unix(7), `SO_PEERCRED`). It ends with the process.
//! Beside it is a file in the state directory, for who shares that from another network.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;

/// The lock's name in the state directory.
pub(crate) const NAME: &str = "node.lock";
/// The socket's name in the network namespace.
pub(crate) const SOCKET: &str = "weft-node";

/// How long the next agent waits for the one before it.
///
/// An agent that was ended may have had a child between fork(2) and execve(2), which has a copy of every descriptor until then, the locks
/// among them: the likely reason why, on a busy machine, an upgrade's new agent was refused in the name of a process that was no more.
/// A service manager that starts the next one a little early is helped as well.
const HANDOVER: Duration = Duration::from_secs(5);
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// Held for as long as the agent runs. The kernel ends it with the process, whatever ends that; the file stays.
#[derive(Debug)]
pub(crate) struct Alone {
    _lock: File,
    _socket: Option<UnixListener>,
}

/// This is not the node's only agent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another one is at work.
    #[error("another weft-node runs on this node{}; it holds {}: stop it first", of(pid), path.display())]
    Taken {
        /// Its process id, as its own pid namespace has it; empty where it did not say.
        pid: String,
        /// The lock.
        path: PathBuf,
    },
    /// Another one is at work in this network, with whatever state directory.
    #[error(
        "another weft-node runs on this node{}; it holds the socket @{name} of this network namespace: stop it first",
        of(pid)
    )]
    InNetwork {
        /// Its process id; empty where it is in another pid namespace.
        pid: String,
        /// The socket.
        name: String,
    },
    /// The lock cannot be had.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Alone {
    /// Takes the lock in `dir`, and that of the network. Blocks for five seconds at most, where somebody has one of them.
    ///
    /// # Errors
    /// Where somebody has one of them, and keeps it.
    pub(crate) fn take(dir: &Path, name: &str) -> Result<Self, Error> {
        patiently(|| Self::try_take(dir, name))
    }

    /// Whether nobody has the lock in `dir`, or that of the network, asked as patiently. Nothing is made there: who only takes something
    /// away may have no right to.
    ///
    /// # Errors
    /// Where somebody has it, and keeps it.
    pub(crate) fn expect_nobody(dir: &Path, name: &str) -> Result<(), Error> {
        patiently(|| Self::is_nobodys(dir, name))
    }

    fn try_take(dir: &Path, name: &str) -> Result<Self, Error> {
        let socket = in_network(name)?;
        let path = dir.join(NAME);
        let failed = |source| Error::Lock { path: path.clone(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let mut options = OpenOptions::new();
        let mut lock =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                lock.read_to_string(&mut pid).map_err(failed)?;
                return Err(Error::Taken { pid: pid.trim().to_owned(), path: path.clone() });
            }
        }
        lock.set_len(0).and_then(|()| lock.rewind()).map_err(failed)?;
        // Only for the message of another one, so a full disk is no reason not to run.
        writeln!(lock, "{}", std::process::id()).ok();
        Ok(Self { _lock: lock, _socket: socket })
    }

    fn is_nobodys(dir: &Path, name: &str) -> Result<(), Error> {
        if let Some(Holder::Agent(pid)) = holder(name) {
            return Err(Error::InNetwork { pid, name: name.to_owned() });
        }
        let path = dir.join(NAME);
        let Ok(mut lock) = File::open(&path) else { return Ok(()) };
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                lock.read_to_string(&mut pid).ok();
                Err(Error::Taken { pid: pid.trim().to_owned(), path })
            }
            _ => Ok(()),
        }
    }
}

fn patiently<T>(mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let deadline = Instant::now() + HANDOVER;
    loop {
        match attempt() {
            Err(Error::Taken { .. } | Error::InNetwork { .. }) if Instant::now() < deadline => {
                thread::sleep(BETWEEN_TRIES);
            }
            outcome => return outcome,
        }
    }
}

/// Who has the socket.
enum Holder {
    /// Somebody with our rights.
    Agent(String),
    /// Somebody without, who can be no agent: any process may take a name, and shall not keep the agent from running.
    Stranger(u32, String),
}

fn address(name: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
}

fn in_network(name: &str) -> Result<Option<UnixListener>, Error> {
    let failed = |source| Error::Lock { path: format!("@{name}").into(), source };
    match address(name).and_then(|address| UnixListener::bind_addr(&address)) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match holder(name) {
            Some(Holder::Stranger(user, pid)) => {
                tracing::warn!(
                    "user {user} holds the socket @{name}{}; another agent on this node would not be noticed",
                    of(&pid)
                );
                Ok(None)
            }
            Some(Holder::Agent(pid)) => Err(Error::InNetwork { pid, name: name.to_owned() }),
            None => Err(Error::InNetwork { pid: String::new(), name: name.to_owned() }),
        },
        Err(error) => Err(failed(error)),
    }
}

/// `None` where nobody has it, and where nobody can tell.
fn holder(name: &str) -> Option<Holder> {
    let connection = UnixStream::connect_addr(&address(name).ok()?).ok()?;
    let peer = getsockopt(&connection, PeerCredentials).ok()?;
    // A process of another pid namespace is told as 0.
    let pid = if peer.pid() > 0 { peer.pid().to_string() } else { String::new() };
    let has_our_rights = peer.uid() == geteuid().as_raw();
    Some(if has_our_rights { Holder::Agent(pid) } else { Holder::Stranger(peer.uid(), pid) })
}

fn of(pid: &str) -> String {
    if pid.is_empty() { String::new() } else { format!(" (process {pid})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of this test's own: there is one network for all tests.
    fn name() -> String {
        let unique = tempfile::tempdir().unwrap();
        format!("weft-node-test-{}", unique.path().display())
    }

    #[test]
    fn the_second_is_told_of_the_first_and_may_follow_it() {
        let (dir, name) = (tempfile::tempdir().unwrap(), name());
        let first = Alone::try_take(dir.path(), &name).unwrap();
        // Of another network, as far as the name goes.
        let refusal = Alone::try_take(dir.path(), &self::name()).unwrap_err().to_string();
        assert!(refusal.contains(&format!("(process {})", std::process::id())), "{refusal}");
        assert_eq!(Alone::is_nobodys(dir.path(), &self::name()).unwrap_err().to_string(), refusal);
        drop(first);
        Alone::is_nobodys(dir.path(), &name).unwrap();
        Alone::is_nobodys(&dir.path().join("missing"), &name).unwrap();
        Alone::try_take(dir.path(), &name).unwrap();
    }

    #[test]
    fn the_second_in_the_same_network_is_told_of_the_first_whatever_its_directory() {
        let (dirs, name) = ([0, 1].map(|_| tempfile::tempdir().unwrap()), name());
        let first = Alone::try_take(dirs[0].path(), &name).unwrap();
        let refusal = Alone::try_take(dirs[1].path(), &name).unwrap_err().to_string();
        assert!(
            refusal.contains(&format!("(process {}); it holds the socket @{name}", std::process::id())),
            "{refusal}"
        );
        assert_eq!(Alone::is_nobodys(dirs[1].path(), &name).unwrap_err().to_string(), refusal);
        assert!(!dirs[1].path().join(NAME).exists(), "nothing was made");
        drop(first);
        Alone::try_take(dirs[1].path(), &name).unwrap();
    }

    #[test]
    fn the_next_waits_while_the_locks_of_an_ended_one_are_given_up() {
        let (dir, name) = (tempfile::tempdir().unwrap(), name());
        let first = Alone::try_take(dir.path(), &name).unwrap();
        let (begun, has_begun) = std::sync::mpsc::channel();
        let mut tries = 0;
        let giving_up = thread::spawn(move || {
            has_begun.recv().unwrap();
            drop(first);
        });
        let next = patiently(|| {
            let tried = Alone::try_take(dir.path(), &name);
            tries += 1;
            begun.send(()).ok();
            tried
        });
        giving_up.join().unwrap();
        next.unwrap();
        assert!(tries > 1, "nobody had it at the first");
    }
}
