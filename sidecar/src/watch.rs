//! Waits for files to change: inotify, with a slow poll as a net below it.
//!
//! inotify is used directly because what to watch matters here. A general watcher also reports opens and reads, so
//! that our own reading would wake us; and it does not tell a file that is being written from one that is.
//!
//! - A closed write and a rename onto a name are complete: the look at the files follows at once. What follows within
//!   [`GATHER`] makes one more.
//! - A file that is being written is left alone until it is closed, or quiet for [`QUIET`]. A reader in between would
//!   see half of it, and half of a configuration can be a valid one.
//! - A file that is removed or emptied may be on its way to being replaced, as some editors do: it is left alone for
//!   [`GONE`].
//! - What is looked at are the files that events were about. Where an event was about anything else (a directory, a link, a
//!   file that is a source of tags), where events were lost, and every [`POLL`], it is everything.
//! - Directories are watched by their inode. After each look the watches are set anew, and the look is repeated if one
//!   was new, so that nothing falls between the two.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout_at;

use crate::read::files::{Listing, Roots, absolute, is_configuration};
use crate::run::metrics::WATCH_ERRORS;

/// After a look, changes are gathered for this long before the next.
pub const GATHER: Duration = Duration::from_millis(20);
/// A file that is open for writing and quiet for this long is read as it is.
pub const QUIET: Duration = Duration::from_millis(500);
/// A file that is missing for this long is gone.
pub const GONE: Duration = Duration::from_millis(250);
/// How often the files are looked at without any event: some file systems report none.
pub const POLL: Duration = Duration::from_secs(5);

/// The link by which a ConfigMap volume changes.
const DATA: &str = "..data";

/// Tells when to look at the files again.
#[derive(Debug)]
pub struct Watcher {
    inotify: AsyncFd<Fd>,
    watches: HashMap<WatchDescriptor, BTreeSet<PathBuf>>,
    names: BTreeSet<OsString>,
    targets: BTreeSet<OsString>,
    unwatched: BTreeSet<PathBuf>,
    rhythm: Rhythm,
}

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything: something else may have changed than what files say.
    Everything,
    /// These files, in directories that are watched.
    Files(BTreeSet<PathBuf>),
}

/// When to look next and at what, and what to leave alone until when. Knows no clock.
#[derive(Debug)]
struct Rhythm {
    last: Instant,
    last_whole: Instant,
    due: Option<Instant>,
    scope: Scope,
    unsettled: BTreeMap<PathBuf, Instant>,
}

/// What an event says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Complete,
    Writing,
    Gone,
}

struct Fd(Inotify);

impl Watcher {
    /// Watches nothing yet. Must be called within a tokio runtime.
    pub fn new(roots: &Roots) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let names = roots.paths().iter().flat_map(|path| names(path)).collect();
        Ok(Self {
            inotify: register(Fd(inotify))?,
            watches: HashMap::new(),
            names,
            targets: BTreeSet::new(),
            unwatched: BTreeSet::new(),
            rhythm: Rhythm::new(Instant::now()),
        })
    }

    /// Watches what `listing` depends on, and nothing else. True if something was not watched before, so that a
    /// change to it may have been missed.
    pub fn follow(&mut self, listing: &Listing) -> bool {
        let mut watches: HashMap<WatchDescriptor, BTreeSet<PathBuf>> = HashMap::new();
        // The last mask given for a directory counts, so the wider one comes last.
        let ancestors = listing.ancestors.difference(&listing.directories).map(|path| (path, entries()));
        let directories = listing.directories.iter().map(|path| (path, entries() | contents()));
        for (path, events) in ancestors.chain(directories) {
            match self.inotify.get_ref().0.add_watch(path, events) {
                Ok(watch) => {
                    self.unwatched.remove(path);
                    watches.entry(watch).or_default().insert(path.clone());
                }
                // It is gone again; its parent tells when it is back.
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(error) if self.unwatched.insert(path.clone()) => {
                    metrics::counter!(WATCH_ERRORS).increment(1);
                    tracing::warn!(path = %path.display(), %error, "cannot watch; polling instead");
                }
                Err(_) => {}
            }
        }
        let is_new = watches.keys().any(|watch| !self.watches.contains_key(watch));
        for gone in self.watches.keys().filter(|watch| !watches.contains_key(watch)) {
            // The kernel has dropped it already if the directory is gone.
            self.inotify.get_ref().0.rm_watch(*gone).ok();
        }
        self.watches = watches;
        self.targets.clone_from(&listing.targets);
        is_new
    }

    /// Waits until it is time to look. Cancel-safe.
    pub async fn due(&mut self) -> Scope {
        loop {
            let now = Instant::now();
            if let Some(scope) = self.rhythm.take_due(now) {
                return scope;
            }
            let wake = tokio::time::Instant::from_std(self.rhythm.wake());
            if let Ok(Ok(mut ready)) = timeout_at(wake, self.inotify.readable()).await {
                ready.clear_ready();
                drop(ready);
                self.drain(Instant::now());
            }
        }
    }

    /// The files to leave alone in this look.
    pub fn unsettled(&self) -> BTreeSet<PathBuf> {
        self.rhythm.unsettled.keys().cloned().collect()
    }

    fn drain(&mut self, now: Instant) {
        loop {
            match self.inotify.get_ref().0.read_events() {
                Ok(events) => events.iter().for_each(|event| self.note(event, now)),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    fn note(&mut self, event: &InotifyEvent, now: Instant) {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return self.rhythm.lost_track(now);
        }
        let Some(directories) = self.watches.get(&event.wd) else { return };
        let Some(name) = &event.name else {
            if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                self.watches.remove(&event.wd);
            }
            return self.rhythm.note_more(now);
        };
        let leads_elsewhere = self.names.contains(name) || self.targets.contains(name) || name == DATA;
        if !leads_elsewhere && !name.to_str().is_some_and(is_configuration) {
            return;
        }
        if leads_elsewhere || event.mask.contains(AddWatchFlags::IN_ISDIR) {
            self.rhythm.scope = Scope::Everything;
        }
        for directory in directories {
            let path = directory.join(name);
            let change = change(event.mask, &path);
            self.rhythm.note(path, change, now);
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; what that demands holds: a Fd never changes its descriptor"
)]
fn register(fd: Fd) -> io::Result<AsyncFd<Fd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

impl Rhythm {
    fn new(now: Instant) -> Self {
        let last = now.checked_sub(GATHER).unwrap_or(now);
        Self { last, last_whole: last, due: None, scope: Scope::nothing(), unsettled: BTreeMap::new() }
    }

    fn note(&mut self, path: PathBuf, change: Change, now: Instant) {
        match change {
            Change::Complete => {
                self.unsettled.remove(&path);
                self.scope.add([path]);
                self.soon(now);
            }
            Change::Writing => self.leave_alone(path, now + QUIET),
            Change::Gone => self.leave_alone(path, now + GONE),
        }
    }

    fn leave_alone(&mut self, path: PathBuf, until: Instant) {
        if let Scope::Files(files) = &mut self.scope {
            files.remove(&path);
        }
        self.unsettled.insert(path, until);
    }

    /// At once, unless the last look was just now.
    fn soon(&mut self, now: Instant) {
        let at = now.max(self.last + GATHER);
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    fn lost_track(&mut self, now: Instant) {
        self.unsettled.clear();
        self.note_more(now);
    }

    /// Something else than a file has changed.
    fn note_more(&mut self, now: Instant) {
        self.scope = Scope::Everything;
        self.soon(now);
    }

    /// When there is something to do at the latest.
    fn wake(&self) -> Instant {
        let settled = self.unsettled.values().copied();
        settled.chain(self.due).fold(self.last_whole + POLL, Instant::min)
    }

    /// What to look at, if it is time to; then the next look is a new matter.
    fn take_due(&mut self, now: Instant) -> Option<Scope> {
        if self.wake() > now {
            return None;
        }
        let settled: Vec<_> = self.unsettled.extract_if(.., |_, until| *until <= now).collect();
        self.scope.add(settled.into_iter().map(|(path, _)| path));
        if now >= self.last_whole + POLL {
            self.scope = Scope::Everything;
        }
        if self.scope == Scope::Everything {
            self.last_whole = now;
        }
        self.due = None;
        self.last = now;
        Some(std::mem::replace(&mut self.scope, Scope::nothing()))
    }
}

impl Scope {
    fn nothing() -> Self {
        Self::Files(BTreeSet::new())
    }

    fn add(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        if let Self::Files(files) = self {
            files.extend(paths);
        }
    }
}

impl std::fmt::Debug for Fd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("inotify")
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// What is told about any directory: that an entry, or itself, came or went.
fn entries() -> AddWatchFlags {
    AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR
}

/// What is told about a directory whose files are read.
fn contents() -> AddWatchFlags {
    AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE
}

fn change(mask: AddWatchFlags, path: &Path) -> Change {
    let has = |flags| mask.intersects(flags);
    if has(AddWatchFlags::IN_CLOSE_WRITE) && is_empty(path) {
        Change::Gone
    } else if has(AddWatchFlags::IN_ISDIR) || has(AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO)
    {
        Change::Complete
    } else if has(AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM) {
        Change::Gone
    } else if has(AddWatchFlags::IN_CREATE) && path.is_symlink() {
        Change::Complete
    } else {
        Change::Writing
    }
}

fn is_empty(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.len() == 0)
}

/// The names under which a root or something above it can come and go.
fn names(root: &Path) -> Vec<OsString> {
    absolute(root).iter().map(OsStr::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn path() -> PathBuf {
        PathBuf::from("/c/a.yaml")
    }

    #[test]
    fn a_complete_change_is_looked_at_at_once_and_the_next_are_gathered() {
        let start = Instant::now();
        let mut rhythm = Rhythm::new(start);
        rhythm.note(path(), Change::Complete, start);
        assert!(rhythm.take_due(start).is_some());
        rhythm.note(path(), Change::Complete, start + MS);
        rhythm.note(path(), Change::Complete, start + 7 * MS);
        assert!(rhythm.take_due(start + 19 * MS).is_none());
        assert!(rhythm.take_due(start + GATHER).is_some());
        assert!(rhythm.take_due(start + 2 * GATHER).is_none(), "one look for both");
    }

    #[test]
    fn a_file_that_is_being_written_is_left_alone_until_it_is_closed() {
        let start = Instant::now();
        let mut rhythm = Rhythm::new(start);
        rhythm.note(path(), Change::Writing, start);
        rhythm.note(PathBuf::from("/c/b.yaml"), Change::Complete, start);
        assert!(rhythm.take_due(start).is_some());
        assert!(rhythm.unsettled.contains_key(&path()));
        rhythm.note(path(), Change::Complete, start + GATHER);
        assert!(rhythm.take_due(start + GATHER).is_some());
        assert!(rhythm.unsettled.is_empty());
    }

    #[test]
    fn a_file_that_is_never_closed_is_read_when_it_is_quiet() {
        let start = Instant::now();
        let mut rhythm = Rhythm::new(start);
        rhythm.note(path(), Change::Writing, start);
        rhythm.note(path(), Change::Writing, start + 300 * MS);
        assert!(rhythm.take_due(start + QUIET).is_none());
        assert!(rhythm.take_due(start + 300 * MS + QUIET).is_some());
        assert!(rhythm.unsettled.is_empty());
    }

    #[test]
    fn a_removed_file_may_come_back_and_without_events_there_is_still_the_poll() {
        let start = Instant::now();
        let mut rhythm = Rhythm::new(start);
        rhythm.note(path(), Change::Gone, start);
        assert!(rhythm.take_due(start + GONE - MS).is_none());
        assert!(rhythm.take_due(start + GONE).is_some());
        assert!(rhythm.take_due(start + POLL - GATHER - MS).is_none());
        assert_eq!(rhythm.take_due(start + POLL), Some(Scope::Everything));
    }

    #[test]
    fn after_an_overflow_everything_is_looked_at() {
        let start = Instant::now();
        let mut rhythm = Rhythm::new(start);
        rhythm.note(path(), Change::Writing, start);
        rhythm.lost_track(start);
        assert!(rhythm.take_due(start).is_some());
        assert!(rhythm.unsettled.is_empty());
    }

    #[test]
    fn what_events_are_about_is_looked_at_and_everything_every_now_and_then() {
        let (start, others) = (Instant::now(), PathBuf::from("/c/b.yaml"));
        let mut rhythm = Rhythm::new(start);
        let files = |paths: &[PathBuf]| Some(Scope::Files(paths.iter().cloned().collect()));
        rhythm.note(path(), Change::Gone, start);
        rhythm.note(others.clone(), Change::Complete, start);
        assert_eq!(rhythm.take_due(start), files(std::slice::from_ref(&others)));
        assert_eq!(rhythm.take_due(start + GONE), files(&[path()]), "it is gone for good");
        rhythm.note(path(), Change::Complete, start + 2 * GONE);
        rhythm.note_more(start + 2 * GONE);
        assert_eq!(rhythm.take_due(start + 2 * GONE), Some(Scope::Everything));
        rhythm.note(path(), Change::Complete, start + POLL);
        assert_eq!(rhythm.take_due(start + POLL), files(&[path()]));
        rhythm.note(path(), Change::Complete, start + 2 * GONE + POLL);
        assert_eq!(rhythm.take_due(start + 2 * GONE + POLL), Some(Scope::Everything), "however busy");
    }
}
