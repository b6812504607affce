//! The Unix socket on which Envoy finds us.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::UnixListener;

/// Owner and group: Envoy runs as another user of the same group.
const DIRECTORY_MODE: u32 = 0o750;
const SOCKET_MODE: u32 = 0o660;

/// A socket file that is removed when this is dropped, unless another process has put its own there meanwhile.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    identity: (u64, u64),
}

/// Why there is no socket.
#[derive(Debug, Error)]
pub enum Error {
    /// Another process serves there.
    #[error("another process is serving on {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has the name.
    #[error("{} is there already and is not a socket", path.display())]
    NotASocket {
        /// What is there.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot create the socket {}", path.display())]
    Create {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Socket {
    /// Listens on `path`. The directory is made if need be; a socket that nobody serves is replaced.
    pub(super) fn bind(path: &Path) -> Result<(Self, UnixListener), Error> {
        refuse_if_taken(path)?;
        listen(path).map_err(|source| Error::Create { path: path.to_owned(), source })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its file is gone; one that somebody else has put there is theirs.
    pub(super) fn is_gone(&self) -> bool {
        fs::symlink_metadata(&self.path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Listens on the same path once more.
    pub(super) fn bind_again(&mut self) -> Result<UnixListener, Error> {
        let (new, listener) = Self::bind(&self.path)?;
        let mut former = std::mem::replace(self, new);
        // Its file is gone, and the new one may have got its inode.
        former.path = PathBuf::new();
        Ok(listener)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity) {
            // Whoever starts next replaces it.
            fs::remove_file(&self.path).ok();
        }
    }
}

fn refuse_if_taken(path: &Path) -> Result<(), Error> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(Error::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(Error::InUse { path: path.to_owned() }),
        Err(source) => Err(Error::Create { path: path.to_owned(), source }),
    }
}

/// Under another name first, so that the socket never has a wider mode than it should, and the name is never empty.
fn listen(path: &Path) -> io::Result<(Socket, UnixListener)> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
    }
    let temporary = path.with_extension(std::process::id().to_string());
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&temporary)?;
    let moved = fs::set_permissions(&temporary, Permissions::from_mode(SOCKET_MODE))
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = moved {
        fs::remove_file(&temporary).ok();
        return Err(error);
    }
    let identity = identity(&fs::symlink_metadata(path)?);
    Ok((Socket { path: path.to_owned(), identity }, listener))
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(path: &Path) -> (u32, u32) {
        let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
        (mode(path.parent().expect("parent")), mode(path))
    }

    #[tokio::test]
    async fn the_socket_has_a_narrow_mode_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("weft/xds.sock");
        let (socket, _listener) = Socket::bind(&path).expect("bind");
        assert_eq!(modes(&path), (0o750, 0o660));
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(dir.path().join("weft")).expect("list").count(), 0);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_refused() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("xds.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
        assert!(path.exists(), "stale");
        let (_socket, _listener) = Socket::bind(&path).expect("replaced");
        assert!(matches!(Socket::bind(&path), Err(Error::InUse { .. })));
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("precious");
        fs::write(&path, "data").expect("write");
        assert!(matches!(Socket::bind(&path), Err(Error::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).expect("read"), "data");
    }

    #[tokio::test]
    async fn a_socket_that_was_deleted_with_its_directory_is_made_again() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("weft/xds.sock");
        let (mut socket, _listener) = Socket::bind(&path).expect("bind");
        assert!(!socket.is_gone());
        fs::remove_dir_all(dir.path().join("weft")).expect("remove");
        assert!(socket.is_gone());
        let _again = socket.bind_again().expect("bind");
        assert!(!socket.is_gone() && UnixStream::connect(&path).is_ok());
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_socket_of_a_successor_is_not_removed() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("xds.sock");
        let (first, listener) = Socket::bind(&path).expect("bind");
        drop(listener);
        let (_second, _listener) = Socket::bind(&path).expect("successor");
        drop(first);
        assert!(path.exists());
    }
}
