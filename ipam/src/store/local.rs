//! The node-local store: one append-only log per network, and an index of it, shared by any number of processes.
//!
//! # Files
//!
//! For a network `NAME` in the data directory `DIR` (by default [`DEFAULT_DIR`], a tmpfs: a lease and its namespace both
//! end with the boot):
//!
//! | path | mode | what it is |
//! |---|---|---|
//! | `DIR/NAME/` | 0700 | everything of the network |
//! | `DIR/NAME/leases.log` | 0600 | the log, which is the truth; [`log`] has its format, byte by byte |
//! | `DIR/NAME/leases.index` | 0600 | the index, which is made of the log; [`index`] and [`tree`] have its format |
//! | `DIR/NAME/leases.lock` | 0600 | empty; whoever holds its `flock`, and then that of the directory, owns the others. Bytes of it tell who is at work ([`AtWork`]) |
//! | `DIR/NAME/leases.reserve` | 0600 | [`reserve::SIZE`] zeros: space that is given up where a release finds the disk full |
//! | `DIR/NAME/leases.new` | 0600 | a log in the making; renamed over `leases.log` when it is whole. What a killed process left of it is overwritten by the next |
//!
//! # What may be relied on
//!
//! - **A transaction is one line of the log, written by one `write` and covered by one checksum.** It stands as soon as that
//!   line does; the index follows. A process killed at any byte of the line leaves an unfinished one at the end of the log.
//!   Readers pass over it; the next writer, who holds the lock and so knows that nobody is still writing, cuts it off and
//!   reports it through [`Store::take_notices`].
//! - **The index is believed only where it cannot be wrong.** It names its log and how much of that it covers, says while it
//!   is being changed that it is, and has a checksum on every page. What the log has beyond it is read from the log. Where
//!   there is any doubt, be it a page that is not what was written or, on a disk, another boot, it is made anew from the whole
//!   log, which is checked line by line on the way.
//! - **Nothing else is ever cut.** A line that is whole but does not match its checksum is damage, not a crash, and so is a
//!   log that ends before the index says that it was written. Whatever needs that line fails with the file and the offset, and
//!   the line stays as it is; with a good index that is one lease, and the others are served on. Its addresses stay held.
//! - **Without an index nothing is guessed.** Which addresses a damaged line held nobody knows then: leases are found and end as
//!   ever, but none is made, and neither is an index, so that nobody forgets it. A later line may tell that an earlier lease has
//!   ended: nobody is given what is held.
//! - **A failed write changes nothing.** On a full disk the log is cut back to its former length, which needs no space.
//! - **Leases end on a full disk too.** What ends some may use the reserve, and then the index's space, also to rewrite a log that
//!   is mostly history; what makes some leaves them alone.
//! - **On a disk the log is synced before a transaction is answered**; on tmpfs and ramfs there is nothing to sync to.
//! - **Waiting for the lock ends.** After the timeout the error names the process that holds it, if the kernel tells.
//!
//! # Cost
//!
//! A transaction reads and writes a few pages of the index and one line, however many leases there are. A handle remembers
//! the pages that it has read for as long as nobody else writes. The log is rewritten when more than a third of it is
//! history, so once in as many transactions as half of what is in it.

use std::collections::hash_map::RandomState;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::mem::{self, Discriminant};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use nix::sys::statfs::{self, FsType};

use crate::lease::{self, NameError};
use crate::state::{Change, Conflict};
use crate::store::local::index::{Found, Index, Refusal};
use crate::store::local::lock::Kind;
use crate::store::local::log::{Header, Log, Spot};
use crate::store::local::view::Seen;
use crate::store::{self, Decide, Look, Store};

mod at_work;
mod crc32;
mod disk;
pub mod index;
pub mod lock;
pub mod log;
pub mod reserve;
pub mod tree;
mod view;

pub use at_work::AtWork;
pub use disk::check_writable;

/// Where leases are kept unless the configuration says otherwise.
pub const DEFAULT_DIR: &str = "/run/weft/ipam";

/// How long a transaction waits for the others. They take well under a millisecond each.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The networks that have a log below `dir`, or may have one where it cannot be seen, by name: who opens those hears why. A data
/// directory that does not exist has none.
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
        if may_hold_leases(&entry.path()) {
            names.extend(entry.file_name().into_string());
        }
    }
    names.retain(|name| lease::check_network(name).is_ok());
    names.sort();
    Ok(names)
}

/// An index without its log is damage, and no empty network.
fn may_hold_leases(dir: &Path) -> bool {
    ["leases.log", "leases.index"].iter().any(|file| match fs::metadata(dir.join(file)) {
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        Ok(_) => true,
    })
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
    #[error("the log is not rewritten: {}", crate::chain(.0))]
    NotCompacted(Error),
    #[error("the index is made anew from the log: {}", crate::chain(.0))]
    IndexDamaged(Error),
    #[error("the leases have no index: {}", crate::chain(.0))]
    NotIndexed(Error),
}

impl Notice {
    /// Whether every transaction has it until somebody makes room, so that once says it all.
    fn lasts(&self) -> bool {
        matches!(self, Self::NotCompacted(_) | Self::NotIndexed(_))
    }
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
    /// Others than root can change what is in the directory.
    #[error(
        "{} is of user {owner} and mode {mode:04o}: others can change the leases there. If they have not, chown it to root and chmod it to 0700",
        dir.display()
    )]
    Exposed {
        /// The network's directory, or the one in which it would be made.
        dir: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who may do what.
        mode: u32,
    },
    /// The file is not a log of leases.
    #[error(
        "{} is not a log of leases: it does not begin with {:?}. If it was one, remove the directory that it is in; a DEL of each \
         pod then removes the rest", path.display(), log::MAGIC
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It begins as one, but no release writes the rest of its first line so.
    #[error("the first line of {} is damaged: {line:?}", path.display())]
    Header {
        /// The log.
        path: PathBuf,
        /// The line.
        line: String,
    },
    /// A later release of Weft has written it.
    #[error(
        "{} is of format {found}; this release reads formats up to {}: install the release that wrote it, or a later one",
        path.display(), log::FORMAT
    )]
    Newer {
        /// The log.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A whole line is not what was written. Nothing was changed.
    #[error("{} is damaged at byte {offset}", path.display())]
    Damaged {
        /// The log.
        path: PathBuf,
        /// Where the line begins.
        offset: u64,
        /// What is wrong with it.
        source: log::Flaw,
    },
    /// A line is whole, but its change cannot follow the ones before it. Nothing was changed.
    #[error("{} contradicts itself at byte {offset}", path.display())]
    Contradiction {
        /// The log.
        path: PathBuf,
        /// Where the line begins.
        offset: u64,
        /// The contradiction.
        source: Conflict,
    },
    /// The log is gone, and its index is there.
    #[error(
        "leases.log is missing in {dir}, but leases.index says that there was one: put it back, or, when no pod has an address of \
         this network any more, remove the directory", dir = dir.display()
    )]
    Lost {
        /// The network's directory.
        dir: PathBuf,
    },
    /// The log was longer once. Nothing was changed.
    #[error(
        "{} is damaged at byte {end}: {expected} bytes of it were written. To take it as it is, and whatever was lost for \
         never given, remove leases.index beside it", path.display()
    )]
    Short {
        /// The log.
        path: PathBuf,
        /// Where its last whole line ends.
        end: u64,
        /// Where it ended.
        expected: u64,
    },
    /// A page of the index cannot be used. It is made anew then, so this is seen where that fails too.
    #[error("cannot use {}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// The page, and why.
        source: tree::Flaw,
    },
}

#[derive(Debug)]
struct Files {
    dir: PathBuf,
    log: PathBuf,
    new: PathBuf,
    index: PathBuf,
    lock: PathBuf,
    reserve: PathBuf,
}

#[derive(Debug, Default)]
struct Inner {
    /// What is known of the files. `None` before the first use and after any failure.
    open: Option<Open>,
    notices: Vec<Notice>,
    /// Kinds of notices that are not said again.
    said: Vec<Discriminant<Notice>>,
}

/// A log and its index, which covers all whole lines of it.
#[derive(Debug)]
struct Open {
    log: Log,
    index: Index,
}

/// What is to be appended.
struct Line {
    text: String,
    /// Whether it ends leases, and makes none.
    frees: bool,
}

/// A log in the making, of which not all is written yet.
struct Draft {
    open: Open,
    text: String,
    written: u64,
}

impl LocalStore {
    /// The store of `network` below `dir`. Nothing is read or made before the first use; what is only read is never made.
    pub fn new(dir: &Path, network: &str) -> Result<Self, Error> {
        lease::check_network(network)?;
        let [log, new, index, lock, reserve] =
            ["log", "new", "index", "lock", "reserve"].map(|name| path_of(dir, network, name));
        let files = Files { dir: dir.join(network), log, new, index, lock, reserve };
        Ok(Self { files, timeout: LOCK_TIMEOUT, inner: Mutex::default() })
    }

    /// Waits at most so long for other transactions.
    pub fn lock_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// A panic in a transaction leaves `open` empty, so what it was about is read again.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Store for LocalStore {
    fn update(&self, decide: Decide<'_>) -> Result<(), store::Error> {
        let Inner { open, notices, .. } = &mut *self.inner();
        let _locks = self.files.lock_or_create(self.timeout)?;
        let mut current = self.files.open_to_write(open.take(), notices)?;
        notices.extend(current.cut_unfinished()?);
        let line = self.files.prepare(&mut current, decide, notices)?;
        if let Some(line) = &line {
            self.files.append(&mut current, line)?;
        }
        let is_scarce = line.is_some_and(|line| line.frees) && !reserve::is_whole(&self.files.reserve);
        // From here on the transaction stands, whatever becomes of the index.
        *open = self.files.tidy(current, is_scarce, notices);
        Ok(())
    }

    fn read(&self, look: Look<'_>) -> Result<(), store::Error> {
        let Inner { open, notices, .. } = &mut *self.inner();
        let lock = self.files.lock_to_read(self.timeout)?;
        let shared = |_: &File| lock::directory(&self.files.dir, Kind::Shared, self.timeout);
        let dir = lock.as_ref().map(shared).transpose()?;
        let found = match dir {
            Some(_) => self.files.catch_up(open.take(), notices)?,
            None => None,
        };
        let Some(mut current) = found else {
            return look(&Seen { index: &Index::new(0, 0, 0), log: None, path: &self.files.index });
        };
        match look(&self.files.seen(&current)) {
            Err(store::Error::Local(damaged @ Error::Index { .. })) => {
                self.files.index_anew(&mut current, damaged, notices)?;
                look(&self.files.seen(&current))?;
            }
            looked => looked?,
        }
        *open = Some(current);
        Ok(())
    }

    fn is_swept(&self) -> bool {
        self.inner().open.as_ref().is_none_or(|open| open.index.is_swept())
    }

    fn mark_swept(&self) -> Result<(), store::Error> {
        let Inner { open, notices, .. } = &mut *self.inner();
        let _locks = self.files.lock_to_write(self.timeout)?;
        let mut current = self.files.open_to_write(open.take(), notices)?;
        current.index.mark_swept(true);
        *open = self.files.write_index(current, notices);
        Ok(())
    }

    fn check_writable(&self) -> Result<(), store::Error> {
        let dir = &self.files.dir;
        if let Ok(found) = fs::metadata(dir) {
            refuse_exposed(dir, &found)?;
        }
        Ok(check_writable(dir).map_err(io_error("write to", dir))?)
    }

    fn take_notices(&self) -> Vec<String> {
        let Inner { notices, said, .. } = &mut *self.inner();
        let mut notices = mem::take(notices);
        notices.retain(|notice| !notice.lasts() || !said.contains(&mem::discriminant(notice)));
        said.extend(notices.iter().filter(|notice| notice.lasts()).map(mem::discriminant));
        notices.iter().map(Notice::to_string).collect()
    }
}

impl Files {
    /// Only the network's own directory is closed to others: what is above it may hold more than leases.
    fn create_dir(&self) -> Result<(), Error> {
        let parent = self.dir.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        refuse_exposing(parent)?;
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(io_error("create", &self.dir)(error)),
            Ok(()) => sync_dir(parent),
        }
    }

    fn lock_or_create(&self, timeout: Duration) -> Result<[File; 2], Error> {
        match self.lock_to_write(timeout) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.create_dir()?;
                self.lock_to_write(timeout)
            }
            locked => locked,
        }
    }

    fn lock_to_write(&self, timeout: Duration) -> Result<[File; 2], Error> {
        let lock = lock::exclusive(&self.lock, timeout)?;
        Ok([lock, lock::directory(&self.dir, Kind::Exclusive, timeout)?])
    }

    /// `None` where nothing was ever written. A log without a lock, such as one that was restored, gets one.
    fn lock_to_read(&self, timeout: Duration) -> Result<Option<File>, Error> {
        match lock::shared(&self.lock, timeout)? {
            None if self.log.exists() => lock::exclusive(&self.lock, timeout).map(Some),
            lock => Ok(lock),
        }
    }

    /// The log with everything that was appended to it, or `None` when there is none yet. Call it with the lock held.
    fn catch_up(&self, known: Option<Open>, notices: &mut Vec<Notice>) -> Result<Option<Open>, Error> {
        let (log, found) = match known {
            Some(Open { log, index }) if is_named(&log.file, &self.log)? => {
                let found =
                    if index.is_current() { Found::Good(Box::new(index)) } else { self.find_index(&log) };
                (log, found)
            }
            _ => match self.open_log()? {
                Some(log) => {
                    let found = self.find_index(&log);
                    (log, found)
                }
                None => return self.expect_no_index().map(|()| None),
            },
        };
        self.cover(log, found, notices).map(Some)
    }

    /// The log of today's format; one that is older is rewritten, and made where there is none.
    fn open_to_write(&self, known: Option<Open>, notices: &mut Vec<Notice>) -> Result<Open, Error> {
        match self.catch_up(known, notices)? {
            Some(open) if open.log.header.format == log::FORMAT => Ok(open),
            older => self.write_new(older.as_ref()),
        }
    }

    /// On a file system that became read-only the log can still be looked at; a transaction does not come this far,
    /// for it cannot have the lock.
    fn open_log(&self) -> Result<Option<Log>, Error> {
        let file = match open_both_ways(&self.log) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", &self.log)(error)),
        };
        let header = Log::read_header(&file, &self.log)?;
        let durable = outlives_the_boot(&file, &self.log)?;
        Ok(Some(Log { file, path: self.log.clone(), header, durable }))
    }

    /// Nobody removes the log alone but by mistake: its leases are somebody's still.
    fn expect_no_index(&self) -> Result<(), Error> {
        match fs::symlink_metadata(&self.index) {
            Ok(found) if found.len() >= index::HEADER as u64 => Err(Error::Lost { dir: self.dir.clone() }),
            _ => Ok(()),
        }
    }

    fn append(&self, open: &mut Open, line: &Line) -> Result<(), Error> {
        if !line.frees {
            reserve::keep(&self.reserve)?;
            return open.append(&line.text);
        }
        for spare in [&self.reserve, &self.index] {
            match open.append(&line.text) {
                Err(full) if reserve::is_for(&full) => drop(disk::empty(spare)),
                outcome => return outcome,
            }
        }
        open.append(&line.text)
    }

    fn find_index(&self, log: &Log) -> Found {
        match open_both_ways(&self.index) {
            Ok(file) => Index::open(file, log.header.id, boot_of(log.durable)),
            Err(_) => Found::Doubtful(0),
        }
    }

    /// Reads what the log has beyond the index, and all of it where the index is not to be trusted.
    fn cover(&self, log: Log, found: Found, notices: &mut Vec<Notice>) -> Result<Open, Error> {
        let written = match found {
            Found::Doubtful(written) => written,
            Found::Good(index) => {
                let written = index.applied();
                let mut open = Open { log, index: *index };
                return match open.read_on(&self.index) {
                    Err(damaged @ Error::Index { .. }) => {
                        self.index_anew(&mut open, damaged, notices)?;
                        open.expect_length(written)
                    }
                    read => read.and_then(|()| open.expect_length(written)),
                };
            }
        };
        let index = new_index(&log);
        let mut open = Open { log, index };
        open.read_on(&self.index)?;
        open.expect_length(written)
    }

    fn index_anew(&self, open: &mut Open, damaged: Error, notices: &mut Vec<Notice>) -> Result<(), Error> {
        notices.push(Notice::IndexDamaged(damaged));
        open.index = new_index(&open.log);
        open.read_on(&self.index)
    }

    fn seen<'a>(&'a self, open: &'a Open) -> Seen<'a> {
        Seen { index: &open.index, log: Some(&open.log), path: &self.index }
    }

    /// Decides, and makes the changes in the index that is in memory. The line is what is left to do.
    fn prepare(
        &self,
        open: &mut Open,
        decide: Decide<'_>,
        notices: &mut Vec<Notice>,
    ) -> Result<Option<Line>, store::Error> {
        match self.try_prepare(open, decide) {
            Err(store::Error::Local(damaged @ Error::Index { .. })) => {
                self.index_anew(open, damaged, notices)?;
                self.try_prepare(open, decide)
            }
            prepared => prepared,
        }
    }

    fn try_prepare(&self, open: &mut Open, decide: Decide<'_>) -> Result<Option<Line>, store::Error> {
        let changes = decide(&self.seen(open))?;
        if changes.is_empty() {
            return Ok(None);
        }
        if !changes.iter().all(|change| matches!(change, Change::Release { .. })) {
            open.expect_no_gap()?;
        }
        let text = log::transaction(&changes);
        for (change, spot) in changes.iter().zip(Spot::all(open.index.applied(), text.len())) {
            open.index.apply(change, spot, &open.log).map_err(|refusal| match refusal {
                Refusal::Flaw(source) => self.index_error(source).into(),
                Refusal::Conflict(conflict) => store::Error::from(conflict),
            })?;
        }
        let frees = changes.iter().all(|change| matches!(change, Change::Release { .. }));
        Ok(Some(Line { text, frees }))
    }

    fn index_error(&self, source: tree::Flaw) -> Error {
        Error::Index { path: self.index.clone(), source }
    }

    /// Writes the index, and rewrites the log where that is due or space is scarce. `None` where the files are to be opened
    /// anew.
    fn tidy(&self, mut open: Open, is_scarce: bool, notices: &mut Vec<Notice>) -> Option<Open> {
        if open.index.gap().is_some() {
            return Some(open);
        }
        let is_due = open.index.is_due_for_compaction();
        if is_scarce || is_due {
            match self.write_new(Some(&open)) {
                Ok(compacted) => open = compacted,
                Err(full) if is_scarce && is_due && reserve::is_for(&full) => {
                    let compacted = self.write_new_in_place_of_index(open);
                    return compacted
                        .map_err(|error| notices.push(Notice::NotCompacted(error)))
                        .ok()
                        .and_then(|open| self.write_index(open, notices));
                }
                Err(error) => notices.push(Notice::NotCompacted(error)),
            }
        }
        if is_scarce && !open.index.is_current() {
            // Its space was given up, and with it the pages that did not change.
            return None;
        }
        if open.index.is_written() { Some(open) } else { self.write_index(open, notices) }
    }

    fn write_index(&self, mut open: Open, notices: &mut Vec<Notice>) -> Option<Open> {
        if open.index.gap().is_some() {
            return Some(open);
        }
        let written = open.index.write(|| disk::create(&self.index));
        let written = written.map_err(io_error("write", &self.index));
        written.map_err(|error| notices.push(Notice::NotIndexed(error))).ok().map(|()| open)
    }

    /// [`Files::write_new`], with the space of the index, which is made of the log: of one that is whole, or nothing is given up.
    fn write_new_in_place_of_index(&self, Open { log, index }: Open) -> Result<Open, Error> {
        let mut whole = Open { index: new_index(&log), log };
        whole.read_on(&self.index)?;
        whole.index.mark_swept(index.is_swept());
        let whole = whole.expect_length(index.applied())?;
        whole.expect_no_gap()?;
        disk::empty(&self.index).map_err(io_error("empty", &self.index))?;
        self.write_new(Some(&whole))
    }

    /// Makes a log of nothing but what is held and remembered, and puts it in the place of the old one.
    fn write_new(&self, old: Option<&Open>) -> Result<Open, Error> {
        old.map_or(Ok(()), Open::expect_no_gap)?;
        let made = self.write_aside(old);
        let open = made.inspect_err(|_| drop(disk::remove(&self.new)))?;
        disk::rename(&self.new, &self.log).map_err(io_error("replace", &self.log))?;
        if open.log.durable {
            sync_dir(&self.dir)?;
        }
        Ok(open)
    }

    fn write_aside(&self, old: Option<&Open>) -> Result<Open, Error> {
        let file = disk::create(&self.new).map_err(io_error("create", &self.new))?;
        disk::set_len(&file, 0).map_err(io_error("empty", &self.new))?;
        let durable = outlives_the_boot(&file, &self.new)?;
        let log = Log { file, path: self.log.clone(), header: Header::new(draw()), durable };
        let mut draft =
            Draft { text: log.header.line(), written: 0, open: Open { index: new_index(&log), log } };
        draft.open.index.mark_swept(old.is_none_or(|old| old.index.is_swept()));
        if let Some(old) = old {
            self.copy(old, &mut draft)?;
        }
        draft.write(&self.new)?;
        if durable {
            disk::sync(&draft.open.log.file).map_err(io_error("sync", &self.new))?;
        }
        Ok(draft.open)
    }

    fn copy(&self, old: &Open, draft: &mut Draft) -> Result<(), Error> {
        let mut add = |change| draft.add(change, &self.new, &self.index);
        match old.index.ranges().map(|spot| old.log.change_at(spot)) {
            // The next allocation says them again. If a lease was in that line too, it stays where it is.
            None | Some(Err(Error::Damaged { .. })) => {}
            Some(ranges) => add(ranges?)?,
        }
        for (address, at) in self.seen(old).all_freed()? {
            add(Change::Retire { address, at })?;
        }
        for spot in old.index.grants().map_err(|flaw| self.index_error(flaw))? {
            add(Change::Grant(old.log.record_at(spot)?))?;
        }
        Ok(())
    }
}

impl Open {
    fn read_on(&mut self, index_path: &Path) -> Result<(), Error> {
        if self.log.length()? <= self.index.applied() {
            return Ok(());
        }
        let Self { log, index } = self;
        let mut lines = log.lines(index.applied());
        loop {
            let (end, changes) = match lines.next_transaction() {
                Ok(None) => return Ok(()),
                Ok(Some(transaction)) => (transaction.end(), transaction.changes(log)),
                Err(error) => (lines.offset(), Err(error)),
            };
            match changes {
                Ok(changes) => log.apply(changes, index, index_path)?,
                // One without an end has nothing behind it, and nothing may be written there.
                Err(Error::Damaged { offset, source, .. }) if end > offset => {
                    index.has_missed(offset, end, source);
                    continue;
                }
                Err(error) => return Err(error),
            }
            index.has_applied(end);
        }
    }

    /// Fails where a line of the log is in nobody's index: which addresses are held is then not known.
    fn expect_no_gap(&self) -> Result<(), Error> {
        self.index.gap().map_or(Ok(()), |(offset, flaw)| Err(self.log.damaged(*offset, flaw.clone())))
    }

    /// Whether what was written once is all there.
    fn expect_length(self, expected: u64) -> Result<Self, Error> {
        let end = self.index.applied().min(self.log.length()?);
        if end < expected {
            return Err(Error::Short { path: self.log.path, end, expected });
        }
        Ok(self)
    }

    /// Call it with the exclusive lock held: then nobody is in the middle of the last line any more.
    fn cut_unfinished(&mut self) -> Result<Option<Notice>, Error> {
        let (length, offset, path) = (self.log.length()?, self.index.applied(), &self.log.path);
        if length <= offset {
            return Ok(None);
        }
        disk::set_len(&self.log.file, offset).map_err(io_error("cut", path))?;
        Ok(Some(Notice::Cut { path: path.clone(), offset, bytes: length - offset }))
    }

    fn append(&mut self, line: &str) -> Result<(), Error> {
        let (end, Log { file, path, durable, .. }) = (self.index.applied(), &self.log);
        let written = disk::write_at(file, line.as_bytes(), end);
        let synced = written.and_then(|()| if *durable { disk::sync(file) } else { Ok(()) });
        if let Err(error) = synced {
            let cut = disk::set_len(file, end);
            return Err(io_error("write", path)(cut.err().unwrap_or(error)));
        }
        self.index.has_applied(end + line.len() as u64);
        Ok(())
    }
}

impl Log {
    /// Makes the changes of the next line in `index`.
    fn apply(&self, changes: Vec<(Spot, Change)>, index: &mut Index, path: &Path) -> Result<(), Error> {
        let offset = index.applied();
        for (spot, change) in changes {
            let way = if index.gap().is_some() { index.make_way(&change, self) } else { Ok(()) };
            let applied = way.and_then(|()| index.apply(&change, spot, self));
            applied.map_err(|refusal| self.refuse(refusal, offset, path))?;
        }
        Ok(())
    }

    fn refuse(&self, refusal: Refusal, offset: u64, index: &Path) -> Error {
        match refusal {
            Refusal::Flaw(source) => Error::Index { path: index.into(), source },
            Refusal::Conflict(source) => Error::Contradiction { path: self.path.clone(), offset, source },
        }
    }
}

impl Draft {
    fn add(&mut self, change: Change, path: &Path, index_path: &Path) -> Result<(), Error> {
        let Open { log, index } = &mut self.open;
        let (offset, changes) = (index.applied(), [change]);
        let line = log::transaction(&changes);
        for (change, spot) in changes.iter().zip(Spot::all(offset, line.len())) {
            index.apply(change, spot, log).map_err(|refusal| log.refuse(refusal, offset, index_path))?;
        }
        index.has_applied(offset + line.len() as u64);
        self.text.push_str(&line);
        if self.text.len() < 64 * 1024 { Ok(()) } else { self.write(path) }
    }

    fn write(&mut self, path: &Path) -> Result<(), Error> {
        disk::write_at(&self.open.log.file, self.text.as_bytes(), self.written)
            .map_err(io_error("write", path))?;
        self.written += self.text.len() as u64;
        self.text.clear();
        Ok(())
    }
}

/// Of a log of which only the header was read.
fn path_of(dir: &Path, network: &str, name: &str) -> PathBuf {
    dir.join(network).join(format!("leases.{name}"))
}

fn new_index(log: &Log) -> Index {
    Index::new(log.header.id, boot_of(log.durable), log.header.length)
}

/// A number that no other log or index has.
fn draw() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What an index is good for: a boot, where its log outlives one. A boot that cannot be told is like no other.
fn boot_of(durable: bool) -> u128 {
    if !durable {
        return 0;
    }
    let id = crate::ipam::this_boot().and_then(|id| u128::from_str_radix(&id.replace('-', ""), 16).ok());
    id.unwrap_or_else(|| draw().into())
}

fn open_both_ways(path: &Path) -> io::Result<File> {
    match OpenOptions::new().read(true).write(true).custom_flags(disk::NO_LINK).open(path) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(path),
        opened => opened,
    }
}

/// Whether this is the file that has the name now. Our descriptor keeps its inode from being used again.
fn is_named(file: &File, path: &Path) -> Result<bool, Error> {
    names(path, &inspect(file, path)?)
}

fn inspect(file: &File, path: &Path) -> Result<Metadata, Error> {
    file.metadata().map_err(io_error("inspect", path))
}

fn names(path: &Path, ours: &Metadata) -> Result<bool, Error> {
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("inspect", path)(error)),
    }
}

/// Who else can make files in the network's directory, or owns it, decides who gets which address.
fn refuse_exposed(dir: &Path, found: &Metadata) -> Result<(), Error> {
    let is_ours = |owner| owner == 0 || fs::metadata("/proc/self").is_ok_and(|own| own.uid() == owner);
    if found.mode() & 0o002 == 0 && is_ours(found.uid()) {
        return Ok(());
    }
    Err(Error::Exposed { dir: dir.into(), owner: found.uid(), mode: found.mode() & 0o7777 })
}

/// Where everybody may rename what others have made, as not in a directory like `/tmp`, a network's directory is nobody's.
fn refuse_exposing(parent: &Path) -> Result<(), Error> {
    let found = fs::metadata(parent).map_err(io_error("inspect", parent))?;
    if found.mode() & 0o1002 != 0o002 {
        return Ok(());
    }
    Err(Error::Exposed { dir: parent.into(), owner: found.uid(), mode: found.mode() & 0o7777 })
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

#[cfg(test)]
mod tests;
