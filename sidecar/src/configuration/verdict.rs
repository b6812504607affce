//! What Envoy makes of what files say.
//!
//! Some mistakes are known to Envoy alone: an expression too large for its engine, a patch that fits no extension. A file whose
//! content Envoy rejects is in force as it was when Envoy last accepted it, until its content changes. So nothing else waits
//! for it to be corrected: without that, one bad virtual host would keep all routes what they are.

use std::sync::Arc;

use super::quarantine::Documents;
use crate::diagnostic::{Diagnostic, Origin};
use crate::model::{Document, Object};

/// A resource that Envoy has rejected, and who may be at fault.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// What is wrong, in one sentence.
    pub message: String,
    /// The places to suspect, the most likely first: the first group in which a file has changed is taken.
    pub suspects: Vec<Vec<Origin>>,
}

/// What has become of a file's content at Envoy.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// What was given to Envoy last, and with which revision first.
    served: Option<(u64, Documents)>,
    /// What Envoy has accepted last.
    accepted: Option<Documents>,
    rejected: Option<Rejected>,
}

/// A content that is not to be given to Envoy again.
#[derive(Debug)]
struct Rejected {
    documents: Documents,
    instead: Documents,
    /// Why, and what is in force.
    diagnostics: [Diagnostic; 2],
}

impl Verdict {
    /// What of `documents` is to be given to Envoy.
    pub(super) fn allowed<'d>(&'d self, documents: &'d Documents) -> &'d Documents {
        self.standing(documents).map_or(documents, |rejected| &rejected.instead)
    }

    /// Why it is not `documents`, if it is not.
    pub(super) fn diagnostics(&self, documents: &Documents) -> &[Diagnostic] {
        self.standing(documents).map(|rejected| rejected.diagnostics.as_slice()).unwrap_or_default()
    }

    /// `documents` are given to Envoy with `revision`.
    pub(super) fn serve(&mut self, revision: u64, documents: &Documents) {
        if !self.served.as_ref().is_some_and(|(_, served)| Arc::ptr_eq(served, documents)) {
            self.served = Some((revision, Arc::clone(documents)));
        }
    }

    /// Envoy has accepted all of `revision`.
    pub(super) fn accept(&mut self, revision: u64) {
        if let Some((since, served)) = &self.served
            && *since <= revision
        {
            self.accepted = Some(Arc::clone(served));
        }
    }

    /// Envoy has rejected what came of `places` of this file in `revision`. Returns the content that is in force no more, if this
    /// file can be at fault: it has changed since Envoy accepted it, and has not changed once more since `revision`.
    pub(super) fn reject(
        &mut self,
        revision: u64,
        in_force: &Documents,
        places: &[&Origin],
        message: &str,
    ) -> Option<Documents> {
        let (since, served) = self.served.as_ref()?;
        let is_it = *since <= revision && Arc::ptr_eq(served, in_force);
        let is_accepted = self.accepted.as_ref().is_some_and(|accepted| Arc::ptr_eq(accepted, served));
        let first = places.first().filter(|_| is_it && !is_accepted)?;
        let (instead, effect) = match &self.accepted {
            Some(accepted) => (Arc::clone(accepted), "the former content of this file stays in force"),
            None => (without(served, places)?, "this document is left out"),
        };
        let diagnostics = [Diagnostic::error(message), Diagnostic::warning(effect)].map(|one| one.at(first));
        let documents = Arc::clone(served);
        self.rejected = Some(Rejected { documents: Arc::clone(&documents), instead, diagnostics });
        Some(documents)
    }

    fn standing(&self, documents: &Documents) -> Option<&Rejected> {
        self.rejected.as_ref().filter(|rejected| Arc::ptr_eq(&rejected.documents, documents))
    }
}

/// The documents but those in which `places` are; nothing, if that is all the same. Without a `Sidecar` there is no mesh.
fn without(documents: &Documents, places: &[&Origin]) -> Option<Documents> {
    let guilty: Vec<&Arc<Document>> = places.iter().filter_map(|place| around(documents, place)).collect();
    let is_left = |document: &&Arc<Document>| {
        matches!(document.object, Object::Sidecar(_)) || !guilty.iter().any(|one| Arc::ptr_eq(one, document))
    };
    let left: Vec<Arc<Document>> = documents.iter().filter(is_left).cloned().collect();
    (left.len() < documents.len()).then(|| Arc::new(left))
}

/// The document that `place` is in: the last that begins before it.
fn around<'d>(documents: &'d Documents, place: &Origin) -> Option<&'d Arc<Document>> {
    documents
        .iter()
        .filter(|document| document.origin.span().line <= place.span().line)
        .max_by_key(|document| document.origin.span().line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Source;
    use crate::read::decode::Report;
    use crate::read::yaml;

    const TWO: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n---\n\
                       apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 80}]}\n";

    fn documents() -> Documents {
        let source = Arc::new(Source { name: "f.yaml".into(), text: TWO.into() });
        let nodes = yaml::documents(&source).expect("YAML");
        let mut report = Report::new(&source);
        Arc::new(nodes.iter().filter_map(|node| Document::decode(node, &mut report)).map(Arc::new).collect())
    }

    fn place(documents: &Documents, at: usize) -> Origin {
        documents[at].origin.clone()
    }

    #[test]
    fn what_was_accepted_stays_in_force_until_the_content_changes() {
        let (good, bad, mended) = (documents(), documents(), documents());
        let mut verdict = Verdict::default();
        verdict.serve(1, &good);
        verdict.accept(1);
        verdict.serve(2, &bad);
        assert!(verdict.reject(2, &bad, &[&place(&bad, 0)], "no").is_some());
        assert!(Arc::ptr_eq(verdict.allowed(&bad), &good));
        assert_eq!(verdict.diagnostics(&bad).len(), 2);
        assert!(Arc::ptr_eq(verdict.allowed(&mended), &mended));
        assert_eq!(verdict.diagnostics(&mended), []);
    }

    #[test]
    fn what_envoy_has_accepted_or_never_seen_is_not_at_fault() {
        let (good, newer) = (documents(), documents());
        let at = place(&good, 0);
        let mut verdict = Verdict::default();
        assert!(verdict.reject(1, &good, &[&at], "no").is_none(), "not given out");
        verdict.serve(2, &good);
        assert!(verdict.reject(1, &good, &[&at], "no").is_none(), "given out later");
        assert!(verdict.reject(2, &newer, &[&at], "no").is_none(), "mended meanwhile");
        assert!(verdict.reject(2, &good, &[], "no").is_none(), "nothing came of it");
        verdict.accept(1);
        assert!(verdict.reject(2, &good, &[&at], "no").is_some(), "another revision was accepted");
        verdict.accept(2);
        assert!(verdict.reject(3, &good, &[&at], "no").is_none());
    }

    #[test]
    fn of_a_file_that_was_never_accepted_the_guilty_documents_are_left_out() {
        let documents = documents();
        let mut verdict = Verdict::default();
        verdict.serve(1, &documents);
        let within = documents[1].origin.with_span(crate::diagnostic::Span {
            line: documents[1].origin.span().line + 1,
            ..documents[1].origin.span()
        });
        assert!(verdict.reject(1, &documents, &[&within], "no").is_some());
        let left: Vec<&str> =
            verdict.allowed(&documents).iter().map(|document| document.metadata.name.as_str()).collect();
        assert_eq!(left, ["a"]);
    }
}
