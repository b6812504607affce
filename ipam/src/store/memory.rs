//! A store that ends with its process, for tests.

use std::sync::{Mutex, PoisonError};

use crate::state::State;
use crate::store::{Decide, Error, Look, Store};

/// Leases in memory.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<State>);

impl Store for MemoryStore {
    fn update(&self, decide: Decide<'_>) -> Result<(), Error> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = decide(&*state)?;
        let mut next = state.clone();
        changes.into_iter().try_for_each(|change| next.apply(change))?;
        *state = next;
        Ok(())
    }

    fn read(&self, look: Look<'_>) -> Result<(), Error> {
        look(&*self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
