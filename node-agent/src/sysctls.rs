//! The node's network parameters, in a container.

use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};

const PARAMETERS: &str = "/proc/sys";

/// Makes `/proc/sys` writable where a container's runtime has write-protected it, which all do in a container that is not
/// privileged (`DefaultProcMount` of Kubernetes' CRI). Those of the network are what this program and the plugins that it
/// executes set: forwarding, above all. The mount is the container's own, and no other process sees the change.
///
/// # Errors
/// Where it is write-protected and stays so: it takes `CAP_SYS_ADMIN`, and no profile of AppArmor that forbids mounts.
pub(crate) fn open() -> io::Result<()> {
    let path = Path::new(PARAMETERS);
    if !statvfs(path)?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(());
    }
    let flags =
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(None::<&str>, path, None::<&str>, flags, None::<&str>)?)
}
