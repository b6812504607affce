//! Who is at work on an attachment, and until when.
//!
//! Between the lease that an ADD makes and its answer, and between the first thing that a DEL removes and the end of the lease,
//! an attachment is not as it should be, and nothing is wrong. Whoever compares has to know that. An ADD and a DEL therefore lock
//! a byte of `leases.lock` that stands for the attachment, far behind the end of the file, as an open file description's lock
//! (fcntl(2), "Open file description locks"): the kernel frees it when its process ends, however it ends. It keeps nobody out
//! and nobody waits for it; it has nothing to do with the `flock` of that file. Two attachments may share a byte, and then one
//! of them is looked at a little later.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::disk::NO_LINK;
use super::{crc32, path_of};
use crate::lease::Attachment;

/// Says that somebody is at work on an attachment, until it is dropped or the process ends.
#[derive(Debug)]
#[must_use = "the work is over when it is dropped"]
pub struct AtWork {
    _lock: File,
}

impl AtWork {
    /// None where it cannot be said: before the first lease of a network, and where the file cannot be opened.
    pub fn begin(dir: &Path, attachment: &Attachment) -> Option<Self> {
        let lock = Self::open(dir, attachment)?;
        fcntl(&lock, FcntlArg::F_OFD_SETLK(&byte_of(attachment, libc::F_RDLCK))).ok()?;
        Some(Self { _lock: lock })
    }

    /// Whether an ADD or a DEL of `attachment` is at work.
    pub fn is_somebody(dir: &Path, attachment: &Attachment) -> bool {
        let Some(lock) = Self::open(dir, attachment) else { return false };
        let mut found = byte_of(attachment, libc::F_WRLCK);
        let asked = fcntl(&lock, FcntlArg::F_OFD_GETLK(&mut found));
        asked.is_ok() && i32::from(found.l_type) != libc::F_UNLCK
    }

    fn open(dir: &Path, attachment: &Attachment) -> Option<File> {
        let path: PathBuf = path_of(dir, attachment.network(), "lock");
        OpenOptions::new().read(true).custom_flags(NO_LINK | libc::O_NONBLOCK).open(path).ok()
    }
}

/// The byte that stands for it.
fn byte_of(attachment: &Attachment, kind: i32) -> libc::flock {
    let names = [attachment.container().as_bytes(), b"/", attachment.ifname().as_bytes()];
    let start = i64::from(crc32::hash_all(names)) + 1;
    let [l_type, l_whence] = [kind, libc::SEEK_SET].map(|known| i16::try_from(known).unwrap_or_default());
    libc::flock { l_type, l_whence, l_start: start, l_len: 1, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ipam, config};

    fn attachment(container: &str) -> Attachment {
        Attachment::new("pods", container, "eth0").unwrap()
    }

    fn dir_with_a_lease() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let document = serde_json::json!({
            "name": "pods", "ipam": { "ranges": [[{ "subnet": "10.244.0.0/24" }]], "dataDir": dir.path() }
        });
        let config = config::Config::parse(document.as_object().unwrap()).unwrap();
        let ipam = Ipam::open("pods", dir.path()).unwrap();
        drop(ipam.reserve(&config.pool, crate::Request::new(attachment("first"))).unwrap().keep());
        dir
    }

    #[test]
    fn an_attachment_is_worked_on_until_the_work_is_over() {
        let dir = dir_with_a_lease();
        let (ours, other) = (attachment("a"), attachment("b"));
        let work = AtWork::begin(dir.path(), &ours).unwrap();
        assert!(AtWork::is_somebody(dir.path(), &ours));
        assert!(!AtWork::is_somebody(dir.path(), &other));
        drop(work);
        assert!(!AtWork::is_somebody(dir.path(), &ours));
    }

    #[test]
    fn two_may_be_at_work_on_the_same_attachment() {
        let dir = dir_with_a_lease();
        let ours = attachment("a");
        let (one, two) =
            (AtWork::begin(dir.path(), &ours).unwrap(), AtWork::begin(dir.path(), &ours).unwrap());
        drop(one);
        assert!(AtWork::is_somebody(dir.path(), &ours));
        drop(two);
        assert!(!AtWork::is_somebody(dir.path(), &ours));
    }

    #[test]
    fn the_work_stops_no_transaction() {
        let dir = dir_with_a_lease();
        let _work = AtWork::begin(dir.path(), &attachment("first")).unwrap();
        let ipam = Ipam::open("pods", dir.path()).unwrap();
        assert!(ipam.release(&attachment("first")).unwrap().is_some());
    }

    #[test]
    fn where_there_was_never_a_lease_nobody_is_at_work() {
        let dir = tempfile::tempdir().unwrap();
        assert!(AtWork::begin(dir.path(), &attachment("a")).is_none());
        assert!(!AtWork::is_somebody(dir.path(), &attachment("a")));
        assert!(dir.path().read_dir().unwrap().next().is_none(), "to ask makes no file");
    }
}
