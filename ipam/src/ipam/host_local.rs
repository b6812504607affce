//! What the reference plugin host-local may have handed out before: a network whose configuration has changed its type, and nothing else.
//!
//! host-local has a file for each address that it holds, named as the address, in a directory of the network's name. They outlive
//! a boot, and what was held then is held no more: only those of this boot count.

use std::fs::{self, DirEntry};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Error;

/// Where host-local keeps its files unless `dataDir` says otherwise.
const DEFAULT_DIR: &str = "/var/lib/cni/networks";

/// Refuses a network that has no log below `dir` yet, where host-local holds addresses of it. That costs a look for the
/// log, and more only before the first lease.
///
/// # Errors
/// [`Error::HostLocal`].
pub(super) fn refuse_unimported(network: &str, dir: &Path) -> Result<(), Error> {
    let ours = dir.join(network);
    if ours.join("leases.log").exists() {
        return Ok(());
    }
    let boot = time_of_boot();
    for theirs in [ours, Path::new(DEFAULT_DIR).join(network)] {
        let count = leases_in(&theirs, boot);
        if count > 0 {
            return Err(Error::HostLocal { network: network.into(), data_dir: dir.into(), theirs, count });
        }
    }
    Ok(())
}

fn leases_in(dir: &Path, boot: SystemTime) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.flatten().filter(|entry| is_lease(entry, boot)).count()
}

fn is_lease(entry: &DirEntry, boot: SystemTime) -> bool {
    let names_address = entry.file_name().to_str().is_some_and(|name| name.parse::<IpAddr>().is_ok());
    // Where the time cannot be told, it may be of this boot.
    let is_older = || entry.metadata().and_then(|found| found.modified()).is_ok_and(|time| time < boot);
    names_address && !is_older()
}

/// By the clock as it is now, and a second early: `/proc/uptime` says less than a file's time. 1970 where it cannot be told.
fn time_of_boot() -> SystemTime {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split('.').next().and_then(|seconds| seconds.parse().ok());
    let up = seconds.map(|seconds: u64| Duration::from_secs(seconds.saturating_add(2)));
    up.and_then(|up| SystemTime::now().checked_sub(up)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn only_files_that_are_named_as_addresses_and_are_of_this_boot_are_leases() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["10.0.0.2", "fd00::2", "lock", "last_reserved_ip.0", "leases.lock", "10.0.0.9"] {
            fs::write(dir.path().join(name), "c1\r\neth0").unwrap();
        }
        let file = File::options().write(true).open(dir.path().join("10.0.0.9")).unwrap();
        let boot = time_of_boot();
        file.set_modified(boot - Duration::from_secs(1)).unwrap();
        assert_eq!(leases_in(dir.path(), boot), 2);
        assert_eq!(leases_in(&dir.path().join("missing"), boot), 0);
    }
}
