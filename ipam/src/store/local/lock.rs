//! `flock` with an end to the waiting.
//!
//! The kernel frees the lock when its holder dies, however it dies, so there is no stale lock to break.
//!
//! It wakes all who wait, and whoever comes first has it: there is no queue. A plugin takes the lock once or twice and ends, so
//! everybody comes to it. 64 processes on two cores that did nothing but lock again at once, for 1 ms each time, kept one of
//! them waiting for 5 s; who waits longer than the timeout gets an answer that runtimes try again.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;

use crate::store::local::disk::NO_LINK;
use crate::store::local::{Error, inspect, io_error, names, refuse_exposed};

/// A process that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name, where `/proc` has it.
    pub name: Option<String>,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} (process {})", self.pid),
            None => write!(f, "process {}", self.pid),
        }
    }
}

/// Whether others may hold the lock at the same time.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Exclusive,
    Shared,
}

/// Takes the lock alone, making its file where there is none. It is held until the file is dropped.
pub(super) fn exclusive(path: &Path, timeout: Duration) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(NO_LINK);
    loop {
        let file = options.open(path).map_err(io_error("open", path))?;
        let file = acquire(file, Kind::Exclusive, path, timeout)?;
        if is_the_lock(&file, path)? {
            return Ok(file);
        }
    }
}

/// Takes the lock together with other readers; `None` where there is no lock.
pub(super) fn shared(path: &Path, timeout: Duration) -> Result<Option<File>, Error> {
    // Nobody may ever open the other end of a pipe.
    let flags = NO_LINK | OFlag::O_NONBLOCK.bits();
    loop {
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(io_error("open", path))?,
        };
        let file = acquire(file, Kind::Shared, path, timeout)?;
        if is_the_lock(&file, path)? {
            return Ok(Some(file));
        }
    }
}

/// Takes the lock of the directory itself, with the other one held. Who has a lock whose file is removed meanwhile does not
/// keep out whoever makes it anew; a directory with files in it is not removed so easily.
pub(super) fn directory(path: &Path, kind: Kind, timeout: Duration) -> Result<File, Error> {
    loop {
        let dir = File::open(path).map_err(io_error("open", path))?;
        let dir = acquire(dir, kind, path, timeout)?;
        let found = inspect(&dir, path)?;
        if names(path, &found)? {
            refuse_exposed(path, &found)?;
            return Ok(dir);
        }
    }
}

/// Somebody may have removed the file while this process waited, and then its lock keeps nobody out.
fn is_the_lock(file: &File, path: &Path) -> Result<bool, Error> {
    let found = inspect(file, path)?;
    if !found.is_file() {
        return Err(io_error("lock", path)(io::Error::other("it is no regular file")));
    }
    names(path, &found)
}

fn acquire(file: File, kind: Kind, path: &Path, timeout: Duration) -> Result<File, Error> {
    let free = match kind {
        Kind::Exclusive => file.try_lock(),
        Kind::Shared => file.try_lock_shared(),
    };
    match free {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => wait(file, kind, path, timeout),
        Err(TryLockError::Error(error)) => Err(io_error("lock", path)(error)),
    }
}

/// Waits in a thread of its own, because `flock` has no deadline and polling would make the last of many processes
/// wait for its turn to look. A thread that gets the lock too late finds nobody to give it to, and so gives it back.
fn wait(file: File, kind: Kind, path: &Path, timeout: Duration) -> Result<File, Error> {
    let inode = file.metadata().map_err(io_error("inspect", path))?.ino();
    let (locked, waiting) = mpsc::sync_channel(0);
    let waiter = thread::Builder::new().name("lease lock".into()).stack_size(64 * 1024);
    let blocking = move || {
        let result = match kind {
            Kind::Exclusive => file.lock(),
            Kind::Shared => file.lock_shared(),
        };
        drop(locked.send(result.map(|()| file)));
    };
    drop(waiter.spawn(blocking).map_err(io_error("wait for", path))?);
    match waiting.recv_timeout(timeout) {
        Ok(result) => result.map_err(io_error("lock", path)),
        Err(_) => Err(Error::Locked { path: path.into(), timeout, holder: holder_of(inode) }),
    }
}

fn holder_of(inode: u64) -> Option<Process> {
    let pid = find_holder(&fs::read_to_string("/proc/locks").ok()?, inode)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    Some(Process { pid, name: name.map(|name| name.trim_end().into()) })
}

/// Lines are `1: FLOCK  ADVISORY  WRITE 708 00:13:1021 0 EOF`; a waiter's has `->` after the number (proc_locks(5)).
fn find_holder(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let is_held = fields.next()? == "FLOCK";
        let pid = fields.nth(2)?.parse().ok()?;
        let named: u64 = fields.next()?.rsplit(':').next()?.parse().ok()?;
        (is_held && named == inode && pid != 0).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_holder_is_found_by_inode_and_waiters_are_not_it() {
        let locks = "1: -> FLOCK  ADVISORY  WRITE 12 00:13:77 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 13 00:13:77 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 14 00:13:78 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 708 00:13:77 0 EOF\n";
        assert_eq!(find_holder(locks, 77), Some(708));
        assert_eq!(find_holder(locks, 79), None);
    }

    #[test]
    fn waiting_ends_at_the_timeout_and_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = exclusive(&path, Duration::ZERO).unwrap();
        let Err(Error::Locked { holder, .. }) = exclusive(&path, Duration::from_millis(20)) else {
            panic!("two own the lock");
        };
        assert_eq!(holder.map(|process| process.pid), Some(std::process::id()));
        drop(held);
        exclusive(&path, Duration::from_secs(5)).expect("a free lock is taken, late waiters give it back");
    }

    /// Until somebody waits for the lock of this file.
    fn await_waiter(inode: u64) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let waits = |line: &str| line.contains("-> FLOCK") && line.contains(&format!(":{inode} "));
        while !fs::read_to_string("/proc/locks").unwrap().lines().any(waits) {
            assert!(Instant::now() < deadline, "nobody waits");
            thread::yield_now();
        }
    }

    #[test]
    fn who_waited_for_a_file_that_was_replaced_takes_the_one_that_is_there_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let removed = exclusive(&path, Duration::ZERO).unwrap();
        let (locked, waiting) = mpsc::channel();
        let waiter = thread::spawn({
            let path = path.clone();
            move || locked.send(exclusive(&path, Duration::from_secs(10))).unwrap()
        });
        await_waiter(removed.metadata().unwrap().ino());
        fs::remove_file(&path).unwrap();
        let current = exclusive(&path, Duration::ZERO).unwrap();
        drop(removed);
        await_waiter(current.metadata().unwrap().ino());
        assert!(waiting.try_recv().is_err(), "two own the lock");
        drop(current);
        waiting.recv().unwrap().unwrap();
        waiter.join().unwrap();
    }

    #[test]
    fn readers_share_and_a_writer_waits_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(shared(&path, Duration::ZERO).unwrap().is_none(), "reading makes no file");
        drop(exclusive(&path, Duration::ZERO).unwrap());
        let one = shared(&path, Duration::ZERO).unwrap();
        let two = shared(&path, Duration::ZERO).unwrap();
        assert!(exclusive(&path, Duration::from_millis(5)).is_err());
        drop((one, two));
        exclusive(&path, Duration::from_secs(5)).unwrap();
    }
}
