//! Directories in which something happens.

use std::collections::BTreeSet;
use std::fmt::{self, Debug, Formatter};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

use crate::readable::readable;

/// Tells when something happened in one of some directories: a file was written and closed, made, renamed, removed, or given another
/// mode; or the directory itself is another one.
pub(crate) struct Watched {
    inotify: AsyncFd<Fd>,
    directories: BTreeSet<PathBuf>,
}

struct Fd(Inotify);

impl Watched {
    pub(crate) fn new(directories: impl IntoIterator<Item = PathBuf>) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        Ok(Self { inotify: readable(Fd(inotify))?, directories: directories.into_iter().collect() })
    }

    /// Watches the directories that have the names now; for one that is missing, the nearest one above it, where it will be made. It
    /// comes before each look, so that nothing falls between the two. The kernel gives the same watch again for the same directory.
    pub(crate) fn watch(&self) {
        for directory in &self.directories {
            let there = directory.ancestors().find(|above| above.is_dir()).unwrap_or(Path::new("/"));
            let made = if there == directory { AddWatchFlags::empty() } else { AddWatchFlags::IN_CREATE };
            let events = made
                | AddWatchFlags::IN_CLOSE_WRITE
                | AddWatchFlags::IN_MOVE
                | AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_ATTRIB
                | AddWatchFlags::IN_MOVE_SELF
                | AddWatchFlags::IN_DELETE_SELF;
            if let Err(error) = self.inotify.get_ref().0.add_watch(there, events) {
                tracing::debug!(directory = %there.display(), %error, "cannot watch; looking now and then instead");
            }
        }
    }

    /// Waits until something has happened since the last time that this ended.
    pub(crate) async fn changed(&self) {
        match self.inotify.readable().await {
            Ok(mut ready) => {
                // It is read until there is no more, and what comes after that makes it readable again.
                ready.clear_ready();
                while matches!(self.inotify.get_ref().0.read_events(), Ok(_) | Err(Errno::EINTR)) {}
            }
            // It is looked now and then.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Debug for Watched {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("directories", &self.directories).finish_non_exhaustive()
    }
}

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn tells(watched: &Watched, what: &str) {
        let told = timeout(Duration::from_secs(20), watched.changed()).await;
        assert!(told.is_ok(), "{what}");
        watched.watch();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn whatever_happens_in_a_directory_is_told_and_so_is_its_end_and_its_coming_back() {
        let dir = tempfile::tempdir().unwrap();
        let net = dir.path().join("cni/net.d");
        let watched = Watched::new([net.clone(), dir.path().join("bin")]).unwrap();
        watched.watch();
        fs::create_dir(dir.path().join("cni")).unwrap();
        tells(&watched, "the directory above").await;
        fs::create_dir(&net).unwrap();
        tells(&watched, "the directory itself").await;
        fs::write(net.join("a"), "x").unwrap();
        tells(&watched, "a file that is made").await;
        fs::rename(net.join("a"), net.join("b")).unwrap();
        tells(&watched, "one that is renamed").await;
        fs::remove_file(net.join("b")).unwrap();
        tells(&watched, "one that is removed").await;
        fs::remove_dir(&net).unwrap();
        tells(&watched, "the end of the directory").await;
        fs::create_dir(&net).unwrap();
        tells(&watched, "its coming back").await;
        fs::write(net.join("c"), "x").unwrap();
        tells(&watched, "a file in the new one").await;
        assert!(timeout(Duration::ZERO, watched.changed()).await.is_err(), "each is told once");
    }
}
