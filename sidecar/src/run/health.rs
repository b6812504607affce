//! Whether Envoy serves what the files say.
//!
//! Ready means: a revision without mistakes was given out, an Envoy is connected, and it has accepted all of a revision since.
//! A later revision that is on its way, or was rejected, takes that back as little as a mistake in a file does: the last good
//! one is in force, and an application that is taken out of service for a typing error would be the worse outage.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{counter, gauge};
use serde_json::{Value, json};
use weft_xds::{Event, StreamId};

use super::metrics::{MISTAKES, READY, REJECTIONS, REVISION_IN_FORCE, REVISION_SERVED, REVISIONS};
use crate::diagnostic::{Diagnostic, Origin};

/// More mistakes are not shown, only counted.
const SHOWN: usize = 20;

/// What is known about our work and Envoy's. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    served: Option<u64>,
    in_force: Option<u64>,
    rejected: Option<(u64, String)>,
    mistakes: Vec<Diagnostic>,
    /// The streams that are open, and whether all of a revision was accepted on them.
    streams: BTreeMap<StreamId, bool>,
}

impl Health {
    /// What is wrong with the files as they are now.
    pub(super) fn mistakes(&self, mistakes: &[Diagnostic]) {
        let errors = mistakes.iter().filter(|mistake| mistake.is_error()).count();
        gauge!(MISTAKES, "severity" => "error").set(errors as f64);
        gauge!(MISTAKES, "severity" => "warning").set((mistakes.len() - errors) as f64);
        self.change(|state| state.mistakes = mistakes.to_vec());
    }

    /// A revision was given out.
    pub(super) fn served(&self, revision: u64) {
        counter!(REVISIONS).increment(1);
        gauge!(REVISION_SERVED).set(revision as f64);
        self.change(|state| state.served = Some(revision));
    }

    /// Something happened on a stream.
    pub(super) fn note(&self, event: &Event) {
        self.change(|state| state.note(event));
    }

    /// What `/readyz` says: nothing, or why not.
    pub(super) fn readiness(&self) -> Result<(), &'static str> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).readiness()
    }

    /// The same for programs.
    pub(super) fn details(&self) -> Value {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).details()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        gauge!(READY).set(if state.readiness().is_ok() { 1.0 } else { 0.0 });
    }
}

impl State {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Connected { stream, .. } => {
                self.streams.insert(*stream, false);
            }
            Event::InSync { stream, revision } => {
                self.streams.insert(*stream, true);
                self.in_force = Some(revision.0);
                self.rejected = self.rejected.take().filter(|(rejected, _)| *rejected > revision.0);
                gauge!(REVISION_IN_FORCE).set(revision.0 as f64);
            }
            Event::Nacked { revision, resources, message, .. } => {
                counter!(REJECTIONS).increment(resources.len().max(1) as u64);
                self.rejected = Some((revision.0, message.clone()));
            }
            Event::Disconnected { stream } => {
                self.streams.remove(stream);
            }
            _ => {}
        }
    }

    fn readiness(&self) -> Result<(), &'static str> {
        if self.served.is_none() {
            Err("no configuration without mistakes yet")
        } else if self.streams.is_empty() {
            Err("Envoy is not connected")
        } else if !self.streams.values().any(|accepted| *accepted) {
            Err("Envoy has not accepted a configuration yet")
        } else {
            Ok(())
        }
    }

    fn details(&self) -> Value {
        let errors = self.mistakes.iter().filter(|mistake| mistake.is_error()).count();
        json!({
            "ready": self.readiness().is_ok(),
            "reason": self.readiness().err(),
            "revision": { "served": self.served, "inForce": self.in_force },
            "envoy": { "connected": !self.streams.is_empty() },
            "rejected": self.rejected.as_ref().map(|(revision, message)| json!({ "revision": revision, "message": message })),
            "mistakes": {
                "errors": errors,
                "warnings": self.mistakes.len() - errors,
                "list": self.mistakes.iter().take(SHOWN).map(mistake).collect::<Vec<_>>(),
            },
        })
    }
}

fn mistake(of: &Diagnostic) -> Value {
    let origin = of.origin.as_ref();
    json!({
        "severity": of.severity.to_string(),
        "message": of.message,
        "file": origin.map(Origin::file),
        "line": origin.map(|origin| origin.span().line),
        "column": origin.map(|origin| origin.span().column),
        "help": of.help,
    })
}

#[cfg(test)]
mod tests {
    use weft_xds::{Revision, TypeUrl};

    use super::*;

    const STREAM: StreamId = StreamId(1);

    fn in_sync(revision: u64) -> Event {
        Event::InSync { stream: STREAM, revision: Revision(revision) }
    }

    #[test]
    fn ready_is_an_envoy_that_has_accepted_something_good() {
        let health = Health::default();
        assert_eq!(health.readiness(), Err("no configuration without mistakes yet"));
        health.served(1);
        assert_eq!(health.readiness(), Err("Envoy is not connected"));
        health.note(&Event::Connected { stream: STREAM, node: Arc::default() });
        assert_eq!(health.readiness(), Err("Envoy has not accepted a configuration yet"));
        health.note(&in_sync(1));
        assert_eq!(health.readiness(), Ok(()));
        health.note(&Event::Disconnected { stream: STREAM });
        assert_eq!(health.readiness(), Err("Envoy is not connected"));
    }

    #[test]
    fn what_is_rejected_is_told_and_takes_nothing_back() {
        let health = Health::default();
        health.served(1);
        health.note(&in_sync(1));
        health.served(2);
        health.note(&Event::Nacked {
            stream: STREAM,
            type_url: TypeUrl::ROUTE,
            revision: Revision(2),
            resources: Vec::new(),
            message: "no".into(),
        });
        assert_eq!(health.readiness(), Ok(()));
        assert_eq!(health.details()["rejected"], json!({ "revision": 2, "message": "no" }));
        assert_eq!(health.details()["revision"], json!({ "served": 2, "inForce": 1 }));
        health.note(&in_sync(3));
        assert_eq!(health.details()["rejected"], Value::Null);
    }
}
