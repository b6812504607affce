//! Undo that is owned, not remembered.

use std::error::Error as StdError;

/// Undoes a step when it is dropped, unless the step is kept. Guards are dropped in reverse order of their making, so
/// an early return undoes what was done, last first.
#[must_use = "dropping the guard undoes the step"]
pub(crate) struct Undo<F, E>
where
    F: Fn() -> Result<(), E>,
    E: StdError,
{
    undo: F,
    kept: bool,
}

impl<F, E> Undo<F, E>
where
    F: Fn() -> Result<(), E>,
    E: StdError,
{
    pub(crate) const fn by(undo: F) -> Self {
        Self { undo, kept: false }
    }

    /// The step stands.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl<F, E> Drop for Undo<F, E>
where
    F: Fn() -> Result<(), E>,
    E: StdError,
{
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // The failure that led here is the answer; this one is for whoever reads the log. The runtime's DEL repeats it.
        if let Err(error) = (self.undo)() {
            let source = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            weft_cni_spec::log(format_args!("weft-cni: while undoing a failed ADD: {error}{source}"));
        }
    }
}
