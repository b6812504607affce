//! Where leases are kept, behind one trait.

use std::fmt::Debug;

use crate::state::{Change, Conflict, State};

pub mod local;
pub mod memory;

/// The leases of one network, with one transaction at a time.
pub trait Store: Debug + Send + Sync {
    /// Runs `decide` on the current state and makes the changes it returns: all of them, or none.
    ///
    /// When this returns `Ok`, every later reader in every process sees the changes. When it returns an error, none does.
    /// No other transaction comes between the state that `decide` saw and its changes; a store that finds out only
    /// afterwards runs `decide` again, so it must do nothing but decide.
    fn update(&self, decide: &mut dyn FnMut(&State) -> Vec<Change>) -> Result<(), Error>;

    /// Runs `look` on a state that some transaction has left behind, never on a part of one.
    fn read(&self, look: &mut dyn FnMut(&State)) -> Result<(), Error>;

    /// What was put right, or could not be, since the last call, without a transaction failing for it: for the log.
    fn take_notices(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node-local store failed.
    #[error(transparent)]
    Local(#[from] local::Error),
    /// A decision contradicts the state it was made on.
    #[error("a change contradicts the leases that are held")]
    Conflict(#[from] Conflict),
}
