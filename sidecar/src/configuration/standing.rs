//! What is in force without a mistake, kept so that endpoints can change without anything else being resolved.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::quarantine::Settled;
use crate::diagnostic::Diagnostic;
use crate::model::resolve::{Change, Slices};
use crate::model::{Document, Mesh};

/// A mesh that all files together say, none of them being kept back or in force with a mistake.
#[derive(Debug)]
pub(super) struct Standing {
    mesh: Arc<Mesh>,
    warnings: Vec<Diagnostic>,
    slices: Slices,
}

impl Standing {
    /// What was settled, if it is what `documents`, all there are, say. An EnvoyPatch may be about endpoints, too, and is looked
    /// at together with everything.
    pub(super) fn of(settled: &Settled, documents: impl FnOnce() -> Vec<Arc<Document>>) -> Option<Self> {
        let flawless = settled.held.is_empty() && settled.blamed.is_empty();
        let mesh = settled.mesh.as_ref().filter(|mesh| flawless && mesh.proxy.patches.is_empty())?;
        let slices = Slices::of(&documents(), mesh);
        Some(Self { mesh: Arc::clone(mesh), warnings: settled.diagnostics.clone(), slices })
    }

    /// The same after `changes`, if nothing but endpoints has changed.
    pub(super) fn follow(self, changes: &[Change<'_>]) -> Option<Self> {
        let (mesh, slices) = self.slices.follow(&self.mesh, changes)?;
        Some(Self { mesh: Arc::new(mesh), slices, ..self })
    }

    pub(super) fn settled(&self) -> Settled {
        let (held, blamed) = (BTreeSet::new(), BTreeSet::new());
        Settled { mesh: Some(Arc::clone(&self.mesh)), diagnostics: self.warnings.clone(), held, blamed }
    }
}
