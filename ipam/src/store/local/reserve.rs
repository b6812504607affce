//! Space for releases: a full disk must not keep pods from going away, for that may be what makes it less full.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::{Error, disk, io_error};

/// Enough for some 600 releases, and as many more as the index has room for, which is given up next.
pub const SIZE: usize = 64 * 1024;

/// Sees to it that the reserve is there, whole. Whoever takes space does this first, so that he cannot take the reserve's.
pub(super) fn keep(path: &Path) -> Result<(), Error> {
    if is_whole(path) {
        return Ok(());
    }
    let file = disk::create(path).map_err(io_error("create", path))?;
    let written = disk::write_at(&file, &[0; SIZE], 0);
    written.map_err(|error| {
        drop(disk::remove(path));
        io_error("write", path)(error)
    })
}

pub(super) fn is_whole(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.len() == SIZE as u64)
}

/// Whether this is what a full disk answers.
pub(super) fn is_for(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if is_full(source))
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
