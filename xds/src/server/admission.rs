//! Who may connect to a Unix socket.

use std::io;

use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tonic::Status;

/// Which processes may connect to a Unix socket, by the credentials the kernel vouches for (`SO_PEERCRED`).
///
/// The mode of the socket file decides as well: this is the second lock, for sockets in shared directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// The user of this process, and root.
    SameUser,
    /// These users, and whoever has one of these groups as its own. Root is not among them unless it is listed.
    Listed {
        /// Users.
        uids: Vec<u32>,
        /// Groups: the effective one of the process counts, supplementary ones do not.
        gids: Vec<u32>,
    },
    /// Whoever can open the socket.
    Anyone,
}

/// Users and groups; `None` for anyone.
#[derive(Clone, Debug)]
pub(super) struct Allowed(Option<(Vec<u32>, Vec<u32>)>);

impl Peers {
    pub(super) fn resolve(&self) -> io::Result<Allowed> {
        Ok(Allowed(match self {
            Self::SameUser => Some((vec![own_uid()?, 0], Vec::new())),
            Self::Listed { uids, gids } => Some((uids.clone(), gids.clone())),
            Self::Anyone => None,
        }))
    }
}

impl Allowed {
    pub(super) fn admit(&self, peer: Option<UCred>) -> Result<(), Status> {
        let Some((uids, gids)) = &self.0 else { return Ok(()) };
        let peer =
            peer.ok_or_else(|| Status::permission_denied("the kernel does not say which user this is"))?;
        if uids.contains(&peer.uid()) || gids.contains(&peer.gid()) {
            return Ok(());
        }
        let (uid, gid) = (peer.uid(), peer.gid());
        let text = format!("user {uid} of group {gid} may not use this xDS server");
        Err(Status::permission_denied(text))
    }
}

/// The user of this process, as a peer would see it.
fn own_uid() -> io::Result<u32> {
    let (one, _other) = UnixStream::pair()?;
    Ok(one.peer_cred()?.uid())
}
