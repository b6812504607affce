//! Documents to a [`Mesh`]: every reference followed, every rule in its place.

mod attachment;
mod backends;
mod claims;
mod endpoints;
mod gateways;
mod grants;
mod index;
mod ingress;
mod listeners;
mod policies;
mod proofs;
mod routes;
mod slices;
mod status;
mod telemetry;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use index::Index;
use policies::Policies;
use routes::Ranked;

use super::envoy_patch;
use super::ingress::Proof;
use super::sidecar::Sidecar;
use super::{Document, Mesh, MeshService, Object, Patch, Proxy, Services};
use crate::diagnostic::{Diagnostic, Origin, Span};

pub use slices::{Change, Slices};
pub use status::status;

/// More are not shown: nobody reads them, and comparing them with the last ones would hold up the next change.
pub const MAX_DIAGNOSTICS: usize = 1_000;

/// What came of a set of documents.
#[derive(Debug)]
pub struct Resolution {
    /// The mesh, unless there was an error of which nothing can be made. References that lead nowhere are none of those:
    /// they have the answer that the Gateway API gives them.
    pub mesh: Option<Mesh>,
    /// Errors and warnings, by place.
    pub diagnostics: Vec<Diagnostic>,
    /// The files in which there may be errors: more than are shown, if there are many.
    pub blamed: BTreeSet<String>,
}

/// Connects the documents. The result depends on the set of documents alone, not on their order.
pub fn resolve(documents: &[Arc<Document>]) -> Resolution {
    let documents = by_place(documents);
    let mut diagnostics = Vec::new();
    let mesh = the_sidecar(&documents, &mut diagnostics).map(|(sidecar, origin)| {
        let index = Index::new(sidecar, &documents, &mut diagnostics);
        let policies = Policies::new(&index, &documents, &mut diagnostics);
        claims::check(&index, &documents, &policies, &mut diagnostics);
        let mut resolver = Resolver::new(&index, &policies, origin, &mut diagnostics);
        resolver.check_parents();
        resolver.check_slices();
        resolver.check_policies();
        let services = resolver.services();
        let entrances = resolver.entrances();
        let proxy = Proxy {
            patches: patches(&index, &documents),
            sidecar: sidecar.clone(),
            sidecar_origin: origin.clone(),
            telemetry: resolver.telemetry(&documents, &services),
            entrances,
            proofs: resolver.proofs,
        };
        Mesh { proxy: proxy.into(), services }
    });
    Resolution::new(mesh, diagnostics)
}

impl Resolution {
    fn new(mesh: Option<Mesh>, diagnostics: Vec<Diagnostic>) -> Self {
        let failed = diagnostics.iter().any(Diagnostic::is_fatal);
        let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
        let blamed = errors.flat_map(Diagnostic::files).map(str::to_owned).collect();
        Self { mesh: mesh.filter(|_| !failed), diagnostics: in_order(diagnostics), blamed }
    }

    /// The same, with what else is wrong.
    #[must_use]
    pub fn with(self, more: Vec<Diagnostic>) -> Self {
        if more.is_empty() {
            return self;
        }
        let Self { mesh, diagnostics, blamed } = self;
        let mut all = Self::new(mesh, more.into_iter().chain(diagnostics).collect());
        all.blamed.extend(blamed);
        all
    }
}

/// Follows references and says which lead nowhere. Each file below adds the methods for what it resolves.
struct Resolver<'i, 'd> {
    index: &'i Index<'d>,
    policies: &'i Policies,
    sidecar_origin: &'d Origin,
    diagnostics: &'i mut Vec<Diagnostic>,
    /// The rules of the routes that were resolved so far, by document and by whether a grant is needed.
    rules: BTreeMap<(*const Document, bool), Arc<[Ranked<'d>]>>,
    /// The proofs that something referred to so far, by name.
    proofs: BTreeMap<String, Proof>,
}

impl<'i, 'd> Resolver<'i, 'd> {
    fn new(
        index: &'i Index<'d>,
        policies: &'i Policies,
        sidecar_origin: &'d Origin,
        diagnostics: &'i mut Vec<Diagnostic>,
    ) -> Self {
        Self { index, policies, sidecar_origin, diagnostics, rules: BTreeMap::new(), proofs: BTreeMap::new() }
    }

    fn services(&mut self) -> Services {
        let index = self.index;
        let services = index.services.iter().map(|(key, (document, service))| {
            let ports = service.ports.iter().map(|port| self.port(key, document, port)).collect();
            (key.clone().into(), MeshService { origin: document.origin.clone(), ports }.into())
        });
        services.collect()
    }
}

/// By namespace and name of the documents, then as they stand.
fn patches<'d>(index: &Index<'d>, documents: &[&'d Document]) -> Vec<Patch> {
    let mut found: Vec<_> = documents
        .iter()
        .filter_map(|document| match &document.object {
            Object::EnvoyPatch(patch) => Some((index.key(document), document, patch)),
            _ => None,
        })
        .collect();
    found.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    let changes = found.into_iter().flat_map(|(_, document, patch)| {
        let place = |change: &envoy_patch::Change| document.origin.with_span(change.span);
        patch.changes.iter().map(move |change| Patch { origin: place(change), change: change.clone() })
    });
    changes.collect()
}

/// By place, without repetitions; of too many, errors are kept before warnings.
fn in_order(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diagnostics.sort_by(|a, b| place(a).cmp(&place(b)));
    diagnostics.dedup();
    if diagnostics.len() > MAX_DIAGNOSTICS {
        diagnostics.sort_by_key(|diagnostic| !diagnostic.is_error());
        diagnostics.truncate(MAX_DIAGNOSTICS);
        diagnostics.sort_by(|a, b| place(a).cmp(&place(b)));
    }
    diagnostics
}

fn place(diagnostic: &Diagnostic) -> Option<(&str, Span)> {
    diagnostic.origin.as_ref().map(|origin| (origin.file(), origin.span()))
}

/// By place, so that which of two is the first does not depend on the order of reading.
fn by_place(documents: &[Arc<Document>]) -> Vec<&Document> {
    let mut sorted: Vec<&Document> = documents.iter().map(AsRef::as_ref).collect();
    sorted.sort_by(|a, b| (a.origin.file(), a.origin.span()).cmp(&(b.origin.file(), b.origin.span())));
    sorted
}

/// The one `Sidecar` among the documents.
fn the_sidecar<'d>(
    documents: &[&'d Document],
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<(&'d Sidecar, &'d Origin)> {
    let mut sidecars = documents.iter().filter_map(|document| match &document.object {
        Object::Sidecar(sidecar) => Some((sidecar, &document.origin)),
        _ => None,
    });
    let Some((sidecar, first)) = sidecars.next() else {
        diagnostics.push(
            Diagnostic::error("there is no Sidecar, so nothing says whose configuration this is")
                .help("add a document with apiVersion: weft.dev/v1alpha1 and kind: Sidecar"),
        );
        return None;
    };
    diagnostics.extend(sidecars.map(|(_, origin)| {
        Diagnostic::error("there is a second Sidecar; a configuration is about one workload")
            .at(origin)
            .help(format!("the first is at {first}"))
            .against([first])
    }));
    Some((sidecar, first))
}
