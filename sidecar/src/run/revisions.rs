//! From looks at the files to revisions that Envoy is given, and back from what Envoy says to the files.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use weft_xds::{Event, Revision, Snapshot, TypeUrl};

use super::health::Health;
use super::log;
use crate::configuration::{Configuration, Look, Rejection};
use crate::diagnostic::Diagnostic;
use crate::encoding::Encoder;
use crate::model::Mesh;
use crate::model::sidecar::Sidecar;
use crate::read::files::Roots;
use crate::translate::Provenance;
use crate::watch::{Scope, Watcher};

/// As many revisions without an answer are remembered. More wait only if no Envoy is connected.
const REMEMBERED: usize = 64;

/// So often in a row files that were listed were gone when they were read; then it is left to the next event.
const MAX_TORN: usize = 16;

/// A revision that is ready to be served.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) mesh: Arc<Mesh>,
    pub(super) snapshot: Arc<Snapshot>,
    saved: Option<SystemTime>,
}

/// The files, the state of what they say, and the revisions made of it so far.
#[derive(Debug)]
pub(super) struct Revisions {
    configuration: Configuration,
    watcher: Watcher,
    health: Health,
    reported: Vec<Diagnostic>,
    looked: bool,
    encoder: Encoder,
    current: Option<Publication>,
    at_start: Option<AtStart>,
    unanswered: VecDeque<(Revision, SystemTime)>,
}

/// What a `Sidecar` says that is taken from it only once: as it was then, and as it was last.
#[derive(Debug)]
struct AtStart {
    taken: [Setting; 7],
    latest: [Setting; 7],
}

/// A field, its value, and what brings a new value into force.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting(&'static str, String, &'static str);

impl Revisions {
    pub(super) fn new(roots: Roots, watcher: Watcher, health: Health) -> Self {
        Self {
            configuration: Configuration::new(roots),
            watcher,
            health,
            reported: Vec::new(),
            looked: false,
            encoder: Encoder::default(),
            current: None,
            at_start: None,
            unanswered: VecDeque::new(),
        }
    }

    /// Where health and metrics are to be served, as far as the files can be read.
    pub(super) fn admin(&self) -> Option<SocketAddr> {
        self.configuration.sidecar().and_then(|sidecar| sidecar.admin)
    }

    /// Waits for the files to change so that there is something new for Envoy. Cancel-safe: between two looks it only
    /// waits.
    pub(super) async fn next(&mut self) -> Publication {
        loop {
            let scope = self.watcher.due().await;
            if let Some(publication) = self.look(&scope) {
                return publication;
            }
        }
    }

    /// Looks at the files now. What is wrong is logged, once.
    pub(super) fn look(&mut self, scope: &Scope) -> Option<Publication> {
        let (changed, saved) = self.read(scope);
        // An empty directory is no change, but the first look has to say what is missing in it.
        let first = !std::mem::replace(&mut self.looked, true);
        if changed || first { self.revise(saved) } else { None }
    }

    /// Remembers what Envoy is given.
    pub(super) fn published(&mut self, publication: Publication) {
        if let Some(saved) = publication.saved {
            self.unanswered.push_back((publication.snapshot.revision(), saved));
            self.unanswered.drain(..self.unanswered.len().saturating_sub(REMEMBERED));
        }
        self.health.served(publication.snapshot.revision().0);
        self.configuration.served(publication.snapshot.revision().0);
        self.at_start.get_or_insert_with(|| AtStart::new(&publication.mesh.proxy.sidecar));
        self.current = Some(publication);
    }

    /// Logs what Envoy says, in terms of the files. What it rejects may leave something else to be given to it.
    pub(super) fn note(&mut self, event: &Event) -> Option<Publication> {
        self.health.note(event);
        match event {
            Event::InSync { revision, .. } => {
                let saved = self.answered(*revision);
                self.configuration.accepted(revision.0);
                log::in_force(*revision, saved);
                None
            }
            Event::Nacked { type_url, revision, resources, message, .. } => {
                let provenance = self.current.as_ref().map(|current| Provenance::of(&current.mesh));
                log::rejected(provenance.as_ref(), type_url, *revision, resources, message);
                self.hold_back(&provenance?, type_url, *revision, resources)
            }
            other => {
                log::event(other);
                None
            }
        }
    }

    /// Holds back the files whose content Envoy has rejected, so that the others are served on. The rejections are logged
    /// already.
    fn hold_back(
        &mut self,
        provenance: &Provenance,
        type_url: &TypeUrl,
        revision: Revision,
        resources: &[(Arc<str>, String)],
    ) -> Option<Publication> {
        let mut found = Vec::new();
        for (name, reason) in resources {
            let message = format!("Envoy rejects {name} for it: {reason}");
            let suspects = provenance.suspects(type_url.as_str(), name, reason);
            found.extend(self.configuration.rejected(revision.0, &Rejection { message, suspects }));
        }
        if found.is_empty() {
            return None;
        }
        self.reported.extend(found.into_iter().filter(Diagnostic::is_error));
        self.revise(None)
    }

    fn read(&mut self, scope: &Scope) -> (bool, Option<SystemTime>) {
        let Scope::Files(paths) = scope else { return self.read_everything() };
        let look = self.configuration.look_at_files(paths);
        if !look.torn {
            return (look.changed, look.saved);
        }
        let whole = self.read_everything();
        (look.changed || whole.0, look.saved.max(whole.1))
    }

    /// A new watch may have come too late for a change, so the files are listed once more after it; and what has been read
    /// may name files that were not watched yet.
    fn read_everything(&mut self) -> (bool, Option<SystemTime>) {
        let first = self.read_once();
        if !self.watcher.follow(&self.configuration.list()) {
            return first;
        }
        let second = self.read_once();
        (first.0 || second.0, first.1.max(second.1))
    }

    /// A look that was torn is of no one moment: it is repeated at once, before anything is made of it.
    fn read_once(&mut self) -> (bool, Option<SystemTime>) {
        let mut whole = self.look_once();
        for _ in 0..MAX_TORN {
            if !whole.torn {
                break;
            }
            let again = self.look_once();
            let (changed, saved) = (whole.changed || again.changed, whole.saved.max(again.saved));
            whole = Look { changed, saved, ..again };
        }
        (whole.changed, whole.saved)
    }

    fn look_once(&mut self) -> Look {
        let mut listing = self.configuration.list();
        while self.watcher.follow(&listing) {
            listing = self.configuration.list();
        }
        self.configuration.look(&listing, &self.watcher.unsettled())
    }

    fn revise(&mut self, saved: Option<SystemTime>) -> Option<Publication> {
        let settled = self.configuration.settle();
        let of_files: Vec<Diagnostic> = self.configuration.diagnostics().cloned().collect();
        let flawless = !of_files.iter().any(Diagnostic::is_error);
        let unresolved = settled.mesh.is_none();
        let news = self.report(of_files.into_iter().chain(settled.diagnostics).collect());
        if news && self.current.is_some() {
            match (unresolved, flawless) {
                (true, _) => tracing::warn!("the last good configuration stays in force"),
                (false, false) => tracing::warn!("what was last good in these files stays in force"),
                (false, true) => {}
            }
        }
        let is_begun = self.current.is_some();
        let mesh = settled.mesh.filter(|_| is_begun || !self.configuration.is_flawed())?;
        if !is_begun && !flawless {
            tracing::warn!("what was discovered and cannot be read is left out");
        }
        let pending = self.at_start.as_mut().map(|settings| settings.changed(&mesh.proxy.sidecar));
        pending.iter().flatten().for_each(|text| tracing::warn!("{text}"));
        // The files of the first revision were saved before anyone could watch them.
        let saved = saved.filter(|_| self.current.is_some());
        let revision = self.current.as_ref().map_or(1, |current| current.snapshot.revision().0 + 1);
        match self.encoder.encode(&mesh, Revision(revision)) {
            Ok(snapshot) if self.is_new(&snapshot) => {
                Some(Publication { mesh, snapshot: Arc::new(snapshot), saved })
            }
            Ok(_) => None,
            Err(error) => {
                tracing::error!(%error, "the configuration cannot be published");
                None
            }
        }
    }

    fn is_new(&self, snapshot: &Snapshot) -> bool {
        let Some(current) = &self.current else { return true };
        !current.snapshot.says_the_same_as(snapshot)
    }

    /// Logs each mistake when it appears, not again with every look. Returns whether there was a new one.
    fn report(&mut self, diagnostics: Vec<Diagnostic>) -> bool {
        let new: Vec<_> = diagnostics.iter().filter(|one| !self.reported.contains(one)).collect();
        let news = !new.is_empty();
        new.into_iter().for_each(log::diagnostic);
        let is_wrong = |all: &[Diagnostic]| all.iter().any(Diagnostic::is_error);
        if !is_wrong(&diagnostics) && is_wrong(&self.reported) {
            tracing::info!("all mistakes are corrected");
        }
        self.health.mistakes(&diagnostics);
        self.reported = diagnostics;
        news
    }

    /// When the files of this revision were saved, the first time it is asked. Revisions before it were overtaken.
    fn answered(&mut self, revision: Revision) -> Option<SystemTime> {
        let mut saved = None;
        while let Some((earlier, at)) = self.unanswered.pop_front_if(|(earlier, _)| *earlier <= revision) {
            saved = Some(at).filter(|_| earlier == revision);
        }
        saved
    }
}

impl AtStart {
    fn new(sidecar: &Sidecar) -> Self {
        Self { taken: settings(sidecar), latest: settings(sidecar) }
    }

    /// What to say about changes that are not in force: each is told once.
    fn changed(&mut self, sidecar: &Sidecar) -> Vec<String> {
        let latest = std::mem::replace(&mut self.latest, settings(sidecar));
        let all = self.latest.iter().zip(&latest).zip(&self.taken);
        all.filter(|((now, before), taken)| now != before && now != taken)
            .map(|((now, _), _)| format!("{} has changed; that takes effect {}", now.0, now.2))
            .collect()
    }
}

fn settings(sidecar: &Sidecar) -> [Setting; 7] {
    let node = format!("{}/{}", sidecar.namespace, sidecar.name);
    let bootstrap = "when Envoy is started with a new bootstrap";
    [
        Setting("the Sidecar's name", node, bootstrap),
        Setting("spec.envoy.admin", sidecar.envoy_admin.to_string(), bootstrap),
        Setting(
            "spec.xds.socket",
            sidecar.xds_socket.display().to_string(),
            "with the next start, and a new bootstrap for Envoy",
        ),
        Setting("spec.xds.retryTimeout", format!("{:?}", sidecar.retry_timeout), "with the next start"),
        Setting("spec.xds.allowedUids", format!("{:?}", sidecar.allowed_uids), "with the next start"),
        Setting("spec.admin", format!("{:?}", sidecar.admin), "with the next start"),
        Setting("what spec.envoy and spec.inject.stats say of statistics", statistics(sidecar), bootstrap),
    ]
}

/// Labels of all series, and which series there are.
fn statistics(sidecar: &Sidecar) -> String {
    let named = |key: &str| sidecar.inject.stats.iter().any(|named| named.key == key);
    let labels: Vec<_> = sidecar.tags.iter().filter(|tag| named(&tag.key)).collect();
    format!("{labels:?} {:?}", sidecar.stats)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn sidecar(name: &str, spec: &str) -> Sidecar {
        let file = tempfile::NamedTempFile::with_suffix(".yaml").expect("file");
        let head = "apiVersion: weft.dev/v1alpha1\nkind: Sidecar";
        fs::write(file.path(), format!("{head}\nmetadata: {{name: {name}}}\nspec: {spec}\n")).expect("write");
        let mut configuration = Configuration::new(Roots::new([file.path().to_owned()]));
        let listing = configuration.roots().list();
        configuration.look(&listing, &Default::default());
        configuration.resolve().mesh.expect("valid").proxy.sidecar.clone()
    }

    #[test]
    fn what_only_a_start_brings_into_force_is_told_once() {
        let mut at_start = AtStart::new(&sidecar("a", "{}"));
        assert_eq!(at_start.changed(&sidecar("a", "{tags: {a: b}, outbound: {port: 1}}")), [""; 0]);
        let renamed = sidecar("b", "{envoy: {admin: '127.0.0.1:1'}, xds: {socket: /s, retryTimeout: 1s}}");
        assert_eq!(
            at_start.changed(&renamed),
            [
                "the Sidecar's name has changed; that takes effect when Envoy is started with a new bootstrap",
                "spec.envoy.admin has changed; that takes effect when Envoy is started with a new bootstrap",
                "spec.xds.socket has changed; that takes effect with the next start, and a new bootstrap for Envoy",
                "spec.xds.retryTimeout has changed; that takes effect with the next start",
            ]
        );
        assert_eq!(at_start.changed(&renamed), [""; 0]);
        assert_eq!(at_start.changed(&sidecar("a", "{}")), [""; 0], "as it was");
    }
}
