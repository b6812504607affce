//! Every call that changes a file of the store, so that tests can end a process at each of them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

/// The files are ours and no links: what a link leads to is somebody else's.
pub(super) const NO_LINK: i32 = OFlag::O_NOFOLLOW.bits();

/// Opens the file for reading and writing, and makes it where there is none. What is in it stays.
pub(super) fn create(path: &Path) -> io::Result<File> {
    #[cfg(test)]
    death::call()?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(NO_LINK)
        .open(path)
}

/// Whether files can be made and filled in `dir`, or where `dir` would be made: a page is written to a file without a name,
/// which is gone with this. Where the file system knows no such files, nothing is said against it.
///
/// # Errors
/// Where they cannot.
pub fn check_writable(dir: &Path) -> io::Result<()> {
    let Some(existing) = dir.ancestors().find(|path| path.exists()) else { return Ok(()) };
    let nameless =
        OpenOptions::new().write(true).mode(0o600).custom_flags(OFlag::O_TMPFILE.bits()).open(existing);
    match nameless.and_then(|file| file.write_all_at(&[0; 4096], 0)) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported && !is_the_kernels(existing) => Ok(()),
        written => written,
    }
}

/// Nobody makes files there.
fn is_the_kernels(dir: &Path) -> bool {
    dir.starts_with("/proc") || dir.starts_with("/sys")
}

pub(super) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(test)]
    death::call().inspect_err(|_| death::tear(file, bytes, offset))?;
    file.write_all_at(bytes, offset)
}

pub(super) fn set_len(file: &File, length: u64) -> io::Result<()> {
    #[cfg(test)]
    death::call()?;
    file.set_len(length)
}

/// Gives up the space of a file, whoever has it open. A file that is missing has none.
pub(super) fn empty(path: &Path) -> io::Result<()> {
    set_len(&OpenOptions::new().write(true).custom_flags(NO_LINK).open(path)?, 0)
}

pub(super) fn sync(file: &File) -> io::Result<()> {
    #[cfg(test)]
    death::call()?;
    file.sync_data()
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(test)]
    death::call()?;
    fs::rename(from, to)
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    death::call()?;
    fs::remove_file(path)
}

/// A death of this thread's store that tests can order. From the call on at which it happens, none changes anything any
/// more; the one at which it happens may still write a part of what it was given.
#[cfg(test)]
pub(super) mod death {
    use std::cell::Cell;
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;

    /// How much of the bytes of its last call a dying process writes.
    #[derive(Clone, Copy, Debug)]
    pub(in crate::store::local) enum Torn {
        Nothing,
        OneByte,
        Half,
        AllButOne,
    }

    thread_local! {
        static CALLS_LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
        static TORN: Cell<Torn> = const { Cell::new(Torn::Nothing) };
    }

    /// The store dies at its call number `calls`, counted from 0.
    pub(in crate::store::local) fn at(calls: u64, torn: Torn) {
        CALLS_LEFT.set(calls + 1);
        TORN.set(torn);
    }

    /// It lives again, as the next process does. Returns whether it was dead.
    pub(in crate::store::local) fn resurrect() -> bool {
        CALLS_LEFT.replace(u64::MAX) == 0
    }

    pub(super) fn call() -> io::Result<()> {
        let left = CALLS_LEFT.get();
        if left < u64::MAX {
            CALLS_LEFT.set(left.saturating_sub(1));
        }
        if left > 1 { Ok(()) } else { Err(io::Error::other("the process is dead")) }
    }

    pub(super) fn tear(file: &File, bytes: &[u8], offset: u64) {
        let length = match TORN.replace(Torn::Nothing) {
            Torn::Nothing => 0,
            Torn::OneByte => 1,
            Torn::Half => bytes.len() / 2,
            Torn::AllButOne => bytes.len() - 1,
        };
        file.write_all_at(bytes.get(..length).unwrap_or_default(), offset).expect("the disk lives");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_can_be_made_is_writable_and_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        check_writable(&deep).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(dir.path().join("a"), "").unwrap();
        check_writable(&deep).unwrap_err();
        check_writable(Path::new("/proc/weft")).unwrap_err();
    }
}
