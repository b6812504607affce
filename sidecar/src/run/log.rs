//! What the sidecar says about its work, with the same field names everywhere.

use std::sync::Arc;
use std::time::SystemTime;

use metrics::histogram;
use weft_xds::{Event, Revision, TypeUrl};

use super::metrics::SAVE_TO_ACK;
use crate::diagnostic::{Diagnostic, Origin, shortened};
use crate::translate::Provenance;

/// A mistake in the files.
pub(super) fn diagnostic(diagnostic: &Diagnostic) {
    let file = diagnostic.origin.as_ref().map(Origin::file);
    let line = diagnostic.origin.as_ref().map(|origin| origin.span().line);
    let column = diagnostic.origin.as_ref().map(|origin| origin.span().column);
    if diagnostic.is_error() {
        tracing::error!(file, line, column, "{}", diagnostic.summary());
    } else {
        tracing::warn!(file, line, column, "{}", diagnostic.summary());
    }
}

/// Envoy has everything of a revision, `saved` being when its files were.
pub(super) fn in_force(revision: Revision, saved: Option<SystemTime>) {
    let passed = saved.and_then(|saved| SystemTime::now().duration_since(saved).ok());
    if let Some(passed) = passed {
        histogram!(SAVE_TO_ACK).record(passed.as_secs_f64());
    }
    let save_to_ack_ms = passed.map(|passed| (passed.as_secs_f64() * 10_000.0).round() / 10.0);
    tracing::info!(revision = revision.0, save_to_ack_ms, "in force");
}

/// Envoy has rejected resources; each is reported with the places it came from.
pub(super) fn rejected(
    provenance: Option<&Provenance>,
    type_url: &TypeUrl,
    revision: Revision,
    resources: &[(Arc<str>, String)],
    message: &str,
) {
    if resources.is_empty() {
        tracing::error!(revision = revision.0, %type_url, "Envoy rejects it: {}", shortened(message.into()));
    }
    for (name, reason) in resources {
        let blame = provenance.map(|all| all.blame(type_url.as_str(), name, reason)).unwrap_or_default();
        let places: Vec<String> = blame.iter().map(Origin::to_string).collect();
        let file = blame.first().map(Origin::file);
        let line = blame.first().map(|origin| origin.span().line);
        tracing::error!(
            revision = revision.0, %type_url, resource = %name, file, line,
            "{}: Envoy rejects it: {}", places.join(", "), shortened(reason.clone())
        );
    }
}

/// Everything else that a stream tells.
pub(super) fn event(event: &Event) {
    let stream = event.stream().0;
    match event {
        Event::Connected { node, .. } => tracing::info!(stream, node = %node.id, "Envoy is connected"),
        Event::Disconnected { .. } => tracing::info!(stream, "Envoy is disconnected"),
        Event::Acked { type_url, revision, .. } => {
            tracing::debug!(stream, %type_url, revision = revision.0, "accepted");
        }
        Event::Unanswered { type_url, revision, .. } => {
            tracing::warn!(stream, %type_url, revision = revision.0, "Envoy has not answered yet");
        }
        Event::Withheld { type_url, revision, resources, bytes, .. } => {
            let names = resources.join(", ");
            tracing::error!(stream, %type_url, revision = revision.0, bytes, "too large for Envoy: {names}");
        }
        Event::InSync { .. } | Event::Nacked { .. } => {}
    }
}
