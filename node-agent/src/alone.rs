//! One agent a node: the second finds the first's lock and ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The lock's name in the state directory.
pub(crate) const NAME: &str = "node.lock";

/// Held for as long as the agent runs. The kernel ends it with the process, whatever ends that; the file stays.
#[derive(Debug)]
pub(crate) struct Alone {
    _lock: File,
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
    /// Takes the lock in `dir`.
    ///
    /// # Errors
    /// Where somebody has it.
    pub(crate) fn in_directory(dir: &Path) -> Result<Self, Error> {
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
        Ok(Self { _lock: lock })
    }

    /// Whether nobody has the lock in `dir`. Nothing is made there: who only takes something away may have no right to.
    ///
    /// # Errors
    /// Where somebody has it.
    pub(crate) fn expect_nobody(dir: &Path) -> Result<(), Error> {
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

fn of(pid: &str) -> String {
    if pid.is_empty() { String::new() } else { format!(" (process {pid})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_of_the_first_and_may_follow_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Alone::in_directory(dir.path()).unwrap();
        let refusal = Alone::in_directory(dir.path()).unwrap_err().to_string();
        assert!(refusal.contains(&format!("(process {})", std::process::id())), "{refusal}");
        assert_eq!(Alone::expect_nobody(dir.path()).unwrap_err().to_string(), refusal);
        drop(first);
        Alone::expect_nobody(dir.path()).unwrap();
        Alone::expect_nobody(&dir.path().join("missing")).unwrap();
        Alone::in_directory(dir.path()).unwrap();
    }
}
