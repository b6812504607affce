//! The node-local store: one append-only log per network, shared by any number of processes.
//!
//! # Files
//!
//! For a network `NAME` in the data directory `DIR` (by default [`DEFAULT_DIR`], a tmpfs: a lease and its namespace both
//! end with the boot):
//!
//! | path | mode | what it is |
//! |---|---|---|
//! | `DIR/NAME/` | 0700 | everything of the network |
//! | `DIR/NAME/leases.log` | 0600 | the log; [`log`] has its format, byte by byte |
//! | `DIR/NAME/leases.lock` | 0600 | empty; whoever holds its `flock` owns the log |
//! | `DIR/NAME/leases.new` | 0600 | a log in the making; renamed over `leases.log` when it is whole. What a killed process left of it is overwritten by the next |
//!
//! # What may be relied on
//!
//! - **A transaction is one line, written by one `write` and covered by one checksum.** A process killed at any byte of it
//!   leaves an unfinished line at the end of the log. Readers pass over it; the next writer, who holds the lock and so
//!   knows that nobody is still writing, cuts it off and reports it through [`Store::take_notices`].
//! - **Nothing else is ever cut.** A line that is whole but does not match its checksum is damage, not a crash: every
//!   operation fails with the file and the offset, and the file stays as it is.
//! - **A failed write changes nothing.** On a full disk the log is cut back to its former length, which needs no space.
//! - **On a disk the log is synced before a transaction is answered**; on tmpfs and ramfs there is nothing to sync to.
//! - **Waiting for the lock ends.** After the timeout the error names the process that holds it, if the kernel tells.
//!
//! # Cost
//!
//! A handle remembers the state and how far it has read, so within a process a transaction reads only what others
//! appended. The first use reads the log once. The log is rewritten when more than a third of it is history.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use nix::sys::statfs::{self, FsType};

use crate::lease::{self, NameError};
use crate::state::{Change, Conflict, State};
use crate::store::{self, Decide, Look, Store};

pub mod lock;
pub mod log;

/// Where leases are kept unless the configuration says otherwise.
pub const DEFAULT_DIR: &str = "/run/weft/ipam";

/// How long a transaction waits for the others. They take well under a millisecond each.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The networks that have a log below `dir`, by name. A data directory that does not exist has none.
///
/// # Errors
/// Where the directory cannot be read.
pub fn networks_in(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.path().join("leases.log").exists() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names)
}

/// The store of one network below a data directory.
#[derive(Debug)]
pub struct LocalStore {
    files: Files,
    timeout: Duration,
    inner: Mutex<Inner>,
}

/// Something that was put right, or could not be, without the transaction failing for it.
#[derive(Debug, thiserror::Error)]
enum Notice {
    #[error(
        "cut {bytes} bytes from byte {offset} of {}: a process ended in the middle of a transaction, which \
         was never answered", path.display()
    )]
    Cut { path: PathBuf, offset: u64, bytes: u64 },
    #[error("the log goes on growing: {}", crate::chain(.0))]
    NotCompacted(Error),
}

/// Why the node-local store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The network's name cannot be a directory's.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A call to the system failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Others held the lock for too long.
    #[error("the leases in {} were locked for {}{}", path.display(), describe(*timeout), by(holder))]
    Locked {
        /// The lock.
        path: PathBuf,
        /// How long this one waited.
        timeout: Duration,
        /// The process that holds it, where the kernel tells.
        holder: Option<lock::Process>,
    },
    /// The file is not a log of leases.
    #[error("{} is not a log of leases: it does not begin with {:?}", path.display(), log::MAGIC)]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A later release of Weft has written it.
    #[error("{} is of format {found}; this release reads formats up to {}", path.display(), log::FORMAT)]
    Newer {
        /// The log.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A whole line is not what was written. Nothing was changed.
    #[error("{} is damaged at byte {offset} (line {line})", path.display())]
    Damaged {
        /// The log.
        path: PathBuf,
        /// Where the line begins.
        offset: u64,
        /// Its number, counted from one.
        line: u64,
        /// What is wrong with it.
        source: log::Flaw,
    },
    /// A line is whole, but its change cannot follow the ones before it. Nothing was changed.
    #[error("{} contradicts itself at byte {offset} (line {line})", path.display())]
    Contradiction {
        /// The log.
        path: PathBuf,
        /// Where the line begins.
        offset: u64,
        /// Its number, counted from one.
        line: u64,
        /// The contradiction.
        source: Conflict,
    },
}

#[derive(Debug)]
struct Files {
    dir: PathBuf,
    log: PathBuf,
    new: PathBuf,
    lock: PathBuf,
}

#[derive(Debug, Default)]
struct Inner {
    /// The log as far as it was read. `None` before the first use and after any failure.
    log: Option<OpenLog>,
    notices: Vec<Notice>,
}

/// An open log and the state that its lines up to `read` make.
#[derive(Debug)]
struct OpenLog {
    file: File,
    read: u64,
    lines: u64,
    state: State,
    durable: bool,
}

impl LocalStore {
    /// The store of `network` below `dir`. Nothing is read or made before the first use; what is only read is never made.
    pub fn new(dir: &Path, network: &str) -> Result<Self, Error> {
        lease::check_network(network)?;
        let dir = dir.join(network);
        let [log, new, lock] = ["leases.log", "leases.new", "leases.lock"].map(|name| dir.join(name));
        Ok(Self { files: Files { dir, log, new, lock }, timeout: LOCK_TIMEOUT, inner: Mutex::default() })
    }

    /// Waits at most so long for other transactions.
    pub fn lock_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// A panic in a transaction leaves `log` empty, so what it was about is read again.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn try_update(&self, decide: Decide<'_>) -> Result<(), store::Error> {
        let mut inner = self.inner();
        self.files.create_dir()?;
        let _lock = lock::exclusive(&self.files.lock, self.timeout)?;
        let mut log = match self.files.catch_up(inner.log.take())? {
            Some(log) => log,
            None => self.files.write_new(State::default())?,
        };
        inner.notices.extend(log.cut_unfinished(&self.files.log)?);
        let changes = decide(&log.state)?;
        log.commit(&self.files.log, changes)?;
        inner.log = Some(self.compact_if_due(log, &mut inner.notices));
        Ok(())
    }

    fn compact_if_due(&self, log: OpenLog, notices: &mut Vec<Notice>) -> OpenLog {
        if !log.is_due_for_compaction() {
            return log;
        }
        match self.files.write_new(log.state.clone()) {
            Ok(compacted) => compacted,
            Err(error) => {
                notices.push(Notice::NotCompacted(error));
                log
            }
        }
    }
}

impl Store for LocalStore {
    fn update(&self, decide: Decide<'_>) -> Result<(), store::Error> {
        self.try_update(decide)
    }

    fn read(&self, look: Look<'_>) -> Result<(), store::Error> {
        let mut inner = self.inner();
        let Some(_lock) = lock::shared(&self.files.lock, self.timeout)? else {
            return look(&State::default());
        };
        match self.files.catch_up(inner.log.take())? {
            Some(log) => look(&inner.log.insert(log).state),
            None => look(&State::default()),
        }
    }

    fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().notices).iter().map(Notice::to_string).collect()
    }
}

impl Files {
    /// Only the network's own directory is closed to others: what is above it may hold more than leases.
    fn create_dir(&self) -> Result<(), Error> {
        if self.dir.is_dir() {
            return Ok(());
        }
        let parent = self.dir.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(io_error("create", &self.dir)(error)),
            Ok(()) => sync_dir(parent),
        }
    }

    /// The log with everything that was appended to it, or `None` when there is none yet. Call it with the lock held.
    fn catch_up(&self, known: Option<OpenLog>) -> Result<Option<OpenLog>, Error> {
        let mut log = match known {
            Some(log) if log.is_still(&self.log)? => log,
            _ => match self.open()? {
                Some(log) => log,
                None => return Ok(None),
            },
        };
        log.read_on(&self.log)?;
        Ok((log.read > 0).then_some(log))
    }

    /// On a file system that became read-only the log can still be looked at; a transaction does not come this far,
    /// for it cannot have the lock.
    fn open(&self) -> Result<Option<OpenLog>, Error> {
        let opened = match OpenOptions::new().read(true).append(true).open(&self.log) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(&self.log),
            opened => opened,
        };
        match opened {
            Ok(file) => OpenLog::unread(file, &self.log).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("open", &self.log)(error)),
        }
    }

    /// Makes a log of nothing but `state` and puts it in the place of the old one.
    fn write_new(&self, state: State) -> Result<OpenLog, Error> {
        let text = log::snapshot(&state);
        let made = self.write_aside(text.as_bytes());
        let (file, durable) = made.inspect_err(|_| drop(fs::remove_file(&self.new)))?;
        fs::rename(&self.new, &self.log).map_err(io_error("replace", &self.log))?;
        if durable {
            sync_dir(&self.dir)?;
        }
        let lines = text.lines().count() as u64;
        Ok(OpenLog { file, read: text.len() as u64, lines, state, durable })
    }

    fn write_aside(&self, text: &[u8]) -> Result<(File, bool), Error> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let mut file = options.open(&self.new).map_err(io_error("create", &self.new))?;
        file.set_len(0).map_err(io_error("empty", &self.new))?;
        file.write_all(text).map_err(io_error("write", &self.new))?;
        let durable = outlives_the_boot(&file, &self.new)?;
        if durable {
            file.sync_all().map_err(io_error("sync", &self.new))?;
        }
        Ok((file, durable))
    }
}

impl OpenLog {
    fn unread(file: File, path: &Path) -> Result<Self, Error> {
        let durable = outlives_the_boot(&file, path)?;
        Ok(Self { file, read: 0, lines: 0, state: State::default(), durable })
    }

    /// Whether this is the file that `path` names. Our descriptor keeps its inode from being used again.
    fn is_still(&self, path: &Path) -> Result<bool, Error> {
        let ours = self.file.metadata().map_err(io_error("inspect", path))?;
        match fs::metadata(path) {
            Ok(named) => {
                let same = (named.dev(), named.ino()) == (ours.dev(), ours.ino());
                Ok(same && named.len() >= self.read)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("inspect", path)(error)),
        }
    }

    fn read_on(&mut self, path: &Path) -> Result<(), Error> {
        let mut text = Vec::new();
        self.file.seek(SeekFrom::Start(self.read)).map_err(io_error("read", path))?;
        self.file.read_to_end(&mut text).map_err(io_error("read", path))?;
        self.state.expect_leases(text.len() / log::USUAL_LINE);
        let mut lines = log::Lines::new(&text, self.read, self.lines);
        lines.check_header(path)?;
        while let Some(transaction) = lines.next_transaction(path)? {
            transaction.apply(&mut self.state, path)?;
        }
        (self.read, self.lines) = (lines.offset(), lines.number());
        Ok(())
    }

    /// Call it with the exclusive lock held: then nobody is in the middle of the last line any more.
    fn cut_unfinished(&mut self, path: &Path) -> Result<Option<Notice>, Error> {
        let length = self.file.metadata().map_err(io_error("inspect", path))?.len();
        if length <= self.read {
            return Ok(None);
        }
        self.file.set_len(self.read).map_err(io_error("cut", path))?;
        Ok(Some(Notice::Cut { path: path.into(), offset: self.read, bytes: length - self.read }))
    }

    fn commit(&mut self, path: &Path, changes: Vec<Change>) -> Result<(), store::Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let line = log::transaction(&changes);
        changes.into_iter().try_for_each(|change| self.state.apply(change))?;
        self.append(line.as_bytes()).map_err(io_error("write", path))?;
        (self.read, self.lines) = (self.read + line.len() as u64, self.lines + 1);
        Ok(())
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(line);
        let synced = written.and_then(|()| if self.durable { self.file.sync_data() } else { Ok(()) });
        if synced.is_err() {
            self.file.set_len(self.read)?;
        }
        synced
    }

    fn is_due_for_compaction(&self) -> bool {
        let needed = (self.state.len() + self.state.remembered()) as u64;
        self.lines > needed + needed / 2 + 128
    }
}

fn sync_dir(path: &Path) -> Result<(), Error> {
    let dir = File::open(path).map_err(io_error("open", path))?;
    dir.sync_all().map_err(io_error("sync", path))
}

fn outlives_the_boot(file: &File, path: &Path) -> Result<bool, Error> {
    // linux/magic.h: RAMFS_MAGIC, which nix has no name for.
    const RAMFS: FsType = FsType(0x8584_58f6);
    let found = statfs::fstatfs(file).map_err(|errno| io_error("inspect", path)(errno.into()))?;
    Ok(!matches!(found.filesystem_type(), statfs::TMPFS_MAGIC | RAMFS))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { action, path: path.into(), source }
}

fn describe(timeout: Duration) -> String {
    format!("{} ms", timeout.as_millis())
}

fn by(holder: &Option<lock::Process>) -> String {
    holder.as_ref().map_or_else(String::new, |process| format!(" by {process}"))
}
