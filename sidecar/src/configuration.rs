//! The configuration as it is now: every file's last good documents, and what is wrong with the present ones.

mod quarantine;
mod standing;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::diagnostic::{Diagnostic, Origin, Source};
use crate::model::resolve::{Resolution, resolve, status};
use crate::model::sidecar::Sidecar;
use crate::model::status::ObjectStatus;
use crate::model::{Document, Object, object};
use crate::read::Node;
use crate::read::decode::Report;
use crate::read::files::{Content, Listing, Roots, Stamp, absolute};
use crate::read::surroundings::Surroundings;
use crate::read::yaml;
use crate::translate::patch;
use quarantine::{Contents, Documents};
use standing::Standing;
use verdict::Verdict;

pub use quarantine::Settled;
pub use verdict::Rejection;

/// What a set of files says. A file with mistakes keeps saying what it said before them.
#[derive(Debug)]
pub struct Configuration {
    roots: Roots,
    files: BTreeMap<String, File>,
    failures: Vec<Diagnostic>,
    /// Whether a root of the workload's own is among them.
    own_failed: bool,
    surroundings: Surroundings,
    /// Whether anything has been in force yet. What comes later is kept back as long as it refers to what is not there.
    started: bool,
    /// The files that say something else than when this was settled last; `None` if more has changed than that.
    changed: Option<BTreeSet<String>>,
    standing: Option<Standing>,
}

/// What came of looking at the files once more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Whether a file says something else than before, or cannot be read any more, or can be again.
    pub changed: bool,
    /// When the newest of what changed was saved, by the file system's clock.
    pub saved: Option<SystemTime>,
    /// Whether it takes another look, with another listing: a file went between the listing and the look at it, so that what
    /// was read belongs to no one moment (a ConfigMap volume may have been swapped in between), or was not listed at all.
    pub torn: bool,
}

/// What came of looking at one file.
#[derive(Debug, Clone, Copy)]
enum Seen {
    /// It says what it said.
    Same,
    /// It says something new, and was saved then.
    New(SystemTime),
    /// It went after it was listed.
    Gone,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    stamp: Option<Stamp>,
    hash: Option<u64>,
    documents: Documents,
    /// What it said when that last led somewhere, together with what the other files said.
    proved: Option<Documents>,
    /// What is in force of it.
    in_force: Documents,
    verdict: Verdict,
    /// What could be read of a file that has mistakes, if that is each of its documents.
    attempt: Option<Vec<Arc<Document>>>,
    diagnostics: Vec<Diagnostic>,
}

/// A file's documents as far as they can be read, and what is wrong with them.
#[derive(Debug)]
struct Reading {
    documents: Vec<Arc<Document>>,
    complete: bool,
    diagnostics: Vec<Diagnostic>,
}

impl Configuration {
    /// Nothing yet: the files are read by [`Configuration::look`].
    pub fn new(roots: Roots) -> Self {
        Self {
            roots,
            files: BTreeMap::new(),
            failures: Vec::new(),
            own_failed: false,
            surroundings: Surroundings::of_process(),
            started: false,
            changed: None,
            standing: None,
        }
    }

    /// Where the files are.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Reads what `listing` holds and this does not know yet. Files in `unsettled` are just being written or replaced:
    /// they stay what they were.
    pub fn look(&mut self, listing: &Listing, unsettled: &BTreeSet<PathBuf>) -> Look {
        let mut look = Look::default();
        for (name, path) in &listing.files {
            if is_unsettled(path, unsettled) {
                continue;
            }
            match self.look_at(name, path) {
                Seen::Same => {}
                Seen::New(saved) => look = Look { changed: true, saved: look.saved.max(Some(saved)), ..look },
                Seen::Gone => look.torn = true,
            }
        }
        let missing = self.forget_missing(listing, unsettled);
        let failures = self.note_failures(listing);
        let surroundings = self.surroundings.look(&self.source_files(), unsettled);
        if missing || failures || surroundings.is_some() {
            self.changed = None;
            look = Look { changed: true, saved: look.saved.max(surroundings), ..look };
        }
        if look.changed {
            look.saved = look.saved.max(listing.changed()).map(|saved| saved.min(SystemTime::now()));
        }
        look
    }

    /// Reads what the files at `paths` say. Of a file that is not one of those in the directories of the roots, or is a link, or
    /// is about the workload, which names what else is to be looked at, it says that it takes another look.
    pub fn look_at_files(&mut self, paths: &BTreeSet<PathBuf>) -> Look {
        let mut look = Look::default();
        for path in paths {
            let known = self.roots.files_at(path);
            look.torn |= known.is_empty();
            for (name, path) in known {
                let is_plain =
                    self.files.get(&name).is_some_and(|file| file.path == path) && !path.is_symlink();
                if !is_plain || self.is_about_the_workload(&name) {
                    look.torn = true;
                    continue;
                }
                match self.look_at(&name, &path) {
                    Seen::Same => {}
                    Seen::New(saved) => {
                        look = Look { changed: true, saved: look.saved.max(Some(saved)), ..look }
                    }
                    Seen::Gone => look.torn = true,
                }
                look.torn |= self.is_about_the_workload(&name);
            }
        }
        look
    }

    /// Connects the last good documents of all files.
    pub fn resolve(&self) -> Resolution {
        self.connect(self.documents())
    }

    /// How the objects of the last good documents stand, in the words of the Gateway API.
    pub fn status(&self) -> Vec<ObjectStatus> {
        status(&self.documents())
    }

    /// The last good ones of all files.
    fn documents(&self) -> Vec<Arc<Document>> {
        self.files.values().flat_map(|file| file.allowed().iter()).cloned().collect()
    }

    /// Decides what is in force: the last good documents of all files, except where they refer to what is not there and
    /// those before them did not. The first time everything is in force as it is, if every file can be read.
    pub fn settle(&mut self) -> Settled {
        let changed = self.changed.replace(BTreeSet::new());
        let standing = self.standing.take();
        let settled = standing.zip(changed).and_then(|(standing, changed)| self.follow(standing, &changed));
        settled.unwrap_or_else(|| self.settle_everything())
    }

    /// As all of it together, if nothing has changed but endpoints.
    fn follow(&mut self, standing: Standing, changed: &BTreeSet<String>) -> Option<Settled> {
        let files = || changed.iter().filter_map(|name| self.files.get(name));
        let changes =
            files().map(|file| Some((file.proved.as_deref()?.as_slice(), file.allowed().as_slice())));
        let standing = standing.follow(&changes.collect::<Option<Vec<_>>>()?)?;
        for name in changed {
            if let Some(file) = self.files.get_mut(name) {
                file.take_effect(false, true);
            }
        }
        let settled = standing.settled();
        self.standing = Some(standing);
        Some(settled)
    }

    fn settle_everything(&mut self) -> Settled {
        let mut settled = self.settled();
        if settled.mesh.is_none() && self.let_discovered_give_way() {
            settled = self.settled();
        }
        self.started |= settled.mesh.is_some() && !self.is_flawed();
        if self.started {
            self.standing = Standing::of(&settled, || self.documents());
        }
        if self.started && settled.mesh.is_some() {
            for (name, file) in &mut self.files {
                let is_held = settled.held.contains(name);
                file.take_effect(is_held, !is_held && !settled.blamed.contains(name));
            }
        }
        settled
    }

    fn settled(&self) -> Settled {
        let contents = self.files.iter().map(|(name, file)| {
            (name.as_str(), Contents { present: file.allowed(), proved: file.proved.as_ref() })
        });
        quarantine::settle(&contents.collect(), |documents| self.connect(documents))
    }

    /// What was discovered and never led anywhere may be left out, as if it were new: it may contradict what the workload's own
    /// files say. Returns whether there is any.
    fn let_discovered_give_way(&mut self) -> bool {
        let unproved = self.files.values_mut().filter(|file| file.proved.is_none());
        let discovered = unproved.filter(|file| !self.roots.is_own(&file.path));
        discovered.map(|file| file.proved = Some(Documents::default())).count() > 0
    }

    /// What is in force is given to Envoy with this revision.
    pub fn served(&mut self, revision: u64) {
        self.files.values_mut().for_each(|file| file.verdict.serve(revision, &file.in_force));
    }

    /// Envoy has accepted all of this revision.
    pub fn accepted(&mut self, revision: u64) {
        self.files.values_mut().for_each(|file| file.verdict.accept(revision));
    }

    /// Envoy has rejected something in this revision: the files at fault go back to what Envoy has accepted. Returns the mistakes,
    /// if it is known whose they are; then there is something else to be given to Envoy.
    pub fn rejected(&mut self, revision: u64, rejection: &Rejection) -> Vec<Diagnostic> {
        let groups = rejection.suspects.iter();
        let mut blamed = groups.map(|suspects| self.blame(revision, suspects, &rejection.message));
        let found = blamed.find(|found| !found.is_empty()).unwrap_or_default();
        if !found.is_empty() {
            self.changed = None;
        }
        found
    }

    fn blame(&mut self, revision: u64, suspects: &[Origin], message: &str) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        for (name, file) in &mut self.files {
            let places: Vec<&Origin> = suspects.iter().filter(|place| place.file() == name).collect();
            let Some(content) = file.verdict.reject(revision, &file.in_force, &places, message) else {
                continue;
            };
            if file.proved.as_ref().is_some_and(|proved| Arc::ptr_eq(proved, &content)) {
                file.proved = Some(Arc::clone(file.verdict.allowed(&content)));
            }
            found.extend_from_slice(file.verdict.diagnostics(&content));
        }
        found
    }

    /// What there is to look at now: the files of the roots, and where the tags come from that they name.
    pub fn list(&self) -> Listing {
        let mut listing = self.roots.list();
        self.source_files().iter().for_each(|path| listing.add_source(path));
        listing
    }

    /// The workload, as far as its document can be read.
    pub fn sidecar(&self) -> Option<&Sidecar> {
        self.sidecars().next()
    }

    fn source_files(&self) -> BTreeSet<PathBuf> {
        self.sidecars().flat_map(Sidecar::source_files).collect()
    }

    fn sidecars(&self) -> impl Iterator<Item = &Sidecar> {
        let all =
            self.files.values().flat_map(|file| file.documents.iter().chain(file.attempt.iter().flatten()));
        all.filter_map(|document| match &document.object {
            Object::Sidecar(sidecar) => Some(sidecar.as_ref()),
            _ => None,
        })
    }

    /// The documents together, the workload having the tags that its surroundings give it.
    fn connect(&self, documents: Vec<Arc<Document>>) -> Resolution {
        let mut mistakes = Vec::new();
        let documents: Vec<Arc<Document>> = documents
            .into_iter()
            .map(|document| match &document.object {
                Object::Sidecar(sidecar) => {
                    let (sidecar, wrong) = sidecar.in_surroundings(&self.surroundings);
                    mistakes.extend(
                        wrong.into_iter().map(|(span, wrong)| wrong.at(&document.origin.with_span(span))),
                    );
                    Arc::new(Document {
                        object: Object::Sidecar(Box::new(sidecar)),
                        ..Document::clone(&document)
                    })
                }
                _ => document,
            })
            .collect();
        let resolution = resolve(&documents);
        mistakes.extend(resolution.mesh.as_ref().map(patch::mistakes).unwrap_or_default());
        resolution.with(mistakes)
    }

    /// Everything that is wrong with the files as they are now, each by itself and all together. What a document that
    /// cannot be read at all defines is missing elsewhere; that is not reported, since it would hide the cause.
    pub fn mistakes(&self) -> Vec<Diagnostic> {
        let present: Option<Vec<&Vec<Arc<Document>>>> = self.files.values().map(File::present).collect();
        let together = present.filter(|_| self.failures.is_empty()).map(|files| {
            let documents: Vec<Arc<Document>> = files.into_iter().flatten().cloned().collect();
            self.connect(documents).diagnostics
        });
        self.diagnostics().cloned().chain(together.unwrap_or_default()).collect()
    }

    /// What is wrong with the files as they are now, each by itself.
    pub fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.failures.iter().chain(self.files.values().flat_map(File::mistakes))
    }

    /// Whether something is wrong with the workload's own files, each by itself. What was discovered for it is somebody else's, and
    /// keeps no workload from starting: what cannot be read of it is left out.
    pub fn is_flawed(&self) -> bool {
        let own = self.files.values().filter(|file| self.roots.is_own(&file.path));
        self.own_failed || own.flat_map(File::mistakes).any(Diagnostic::is_error)
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    fn look_at(&mut self, name: &str, path: &Path) -> Seen {
        let known = self.files.get(name);
        if let (Some(File { stamp: Some(stamp), .. }), Ok(now)) = (known, Stamp::of(path))
            && stamp.still_holds(&now)
        {
            return Seen::Same;
        }
        let nothing = self.started.then(Documents::default);
        let file = self.files.entry(name.to_owned()).or_insert_with(|| File::new(path, nothing));
        file.path = path.to_owned();
        let news = match Content::read(path) {
            Ok(content) => file.take(name, content),
            Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => return Seen::Gone,
            Err(error) => file.fail(Diagnostic::error(format!("cannot read {name}: {error}"))),
        };
        if let (Some(_), Some(changed)) = (news, &mut self.changed) {
            changed.insert(name.to_owned());
        }
        news.map_or(Seen::Same, Seen::New)
    }

    fn is_about_the_workload(&self, name: &str) -> bool {
        let file = self.files.get(name).into_iter();
        let mut documents = file.flat_map(|file| file.documents.iter().chain(file.attempt.iter().flatten()));
        documents.any(|document| matches!(document.object, Object::Sidecar(_)))
    }

    /// Where a root could not be looked at, its files are not taken for deleted.
    fn forget_missing(&mut self, listing: &Listing, unsettled: &BTreeSet<PathBuf>) -> bool {
        let before = self.files.len();
        if listing.failures.is_empty() {
            self.files
                .retain(|name, file| listing.files.contains_key(name) || is_unsettled(&file.path, unsettled));
        }
        self.files.len() != before
    }

    fn note_failures(&mut self, listing: &Listing) -> bool {
        let failures: Vec<Diagnostic> = listing
            .failures
            .iter()
            .map(|failure| {
                let cause = failure.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                Diagnostic::error(format!("{failure}{cause}"))
            })
            .collect();
        self.own_failed = listing.failures.iter().any(|failure| self.roots.is_own(&failure.path));
        let changed = failures != self.failures;
        self.failures = failures;
        changed
    }
}

impl File {
    /// A file that is new says what it said before: nothing, if there was a before.
    fn new(path: &Path, proved: Option<Documents>) -> Self {
        Self {
            path: path.to_owned(),
            stamp: None,
            hash: None,
            documents: Documents::default(),
            proved,
            in_force: Documents::default(),
            verdict: Verdict::default(),
            attempt: None,
            diagnostics: Vec::new(),
        }
    }

    fn take(&mut self, name: &str, content: Content) -> Option<SystemTime> {
        self.stamp = Some(content.stamp);
        if self.hash == Some(content.hash) {
            return None;
        }
        self.hash = Some(content.hash);
        let source = Arc::new(Source { name: name.to_owned(), text: content.text });
        let reading = match content.garbled {
            Some(span) => Reading::garbled(&Origin::new(&source, span)),
            None => Reading::of(&source),
        };
        self.attempt = None;
        if !reading.diagnostics.iter().any(Diagnostic::is_error) {
            self.documents = Arc::new(reading.documents);
        } else if reading.complete {
            self.attempt = Some(reading.documents);
        }
        self.diagnostics = reading.diagnostics;
        Some(content.changed)
    }

    /// What is wrong with it as it is now.
    fn mistakes(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().chain(self.verdict.diagnostics(&self.documents))
    }

    /// The last good documents, unless Envoy has rejected them.
    fn allowed(&self) -> &Documents {
        self.verdict.allowed(&self.documents)
    }

    /// What was settled on: the proved content if the file is held back, else the present one, which may be proved by that.
    fn take_effect(&mut self, is_held: bool, is_proof: bool) {
        let in_force = self.proved.as_ref().filter(|_| is_held).unwrap_or(self.allowed());
        self.in_force = Arc::clone(in_force);
        if is_proof {
            self.proved = Some(Arc::clone(&self.in_force));
        }
    }

    /// The documents as they are now, if all of them can be read.
    fn present(&self) -> Option<&Vec<Arc<Document>>> {
        let flawed = self.diagnostics.iter().any(Diagnostic::is_error);
        if flawed { self.attempt.as_ref() } else { Some(&self.documents) }
    }

    fn fail(&mut self, diagnostic: Diagnostic) -> Option<SystemTime> {
        let known = self.diagnostics.as_slice() == std::slice::from_ref(&diagnostic);
        self.stamp = None;
        self.hash = None;
        self.attempt = None;
        self.diagnostics = vec![diagnostic];
        (!known).then(SystemTime::now)
    }
}

impl Reading {
    fn of(source: &Arc<Source>) -> Self {
        let nodes = match yaml::documents(source) {
            Ok(nodes) => nodes,
            Err(diagnostics) => return Self { documents: Vec::new(), complete: false, diagnostics },
        };
        let mut report = Report::new(source);
        let nodes: Vec<&Node> = nodes.iter().flat_map(|node| object::items(node, &mut report)).collect();
        let decoded = nodes.iter().filter_map(|node| Document::decode(node, &mut report)).map(Arc::new);
        let documents: Vec<Arc<Document>> = decoded.collect();
        let complete = documents.len() == nodes.len();
        Self { documents, complete, diagnostics: report.into_diagnostics() }
    }

    fn garbled(at: &Origin) -> Self {
        let mistake = Diagnostic::error("this is not UTF-8 text").at(at).help("save the file as UTF-8");
        Self { documents: Vec::new(), complete: false, diagnostics: vec![mistake] }
    }
}

fn is_unsettled(path: &Path, unsettled: &BTreeSet<PathBuf>) -> bool {
    !unsettled.is_empty()
        && (unsettled.contains(&absolute(path))
            || path.canonicalize().is_ok_and(|target| unsettled.contains(&target)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const GOOD: &str = "apiVersion: weft.dev/v1alpha1\nkind: Sidecar\nmetadata: {name: a}\n";

    fn look(configuration: &mut Configuration) -> Look {
        look_around(configuration, &[])
    }

    fn look_around(configuration: &mut Configuration, unsettled: &[PathBuf]) -> Look {
        let listing = configuration.roots().list();
        configuration.look(&listing, &unsettled.iter().cloned().collect())
    }

    fn name(configuration: &Configuration) -> Option<String> {
        configuration.resolve().mesh.map(|mesh| mesh.proxy.sidecar.name.clone())
    }

    #[test]
    fn a_file_with_a_mistake_keeps_its_last_good_documents_until_it_is_corrected() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("a.yaml");
        let mut configuration = Configuration::new(Roots::new([dir.path().to_owned()]));
        fs::write(&file, GOOD).expect("write");
        assert!(look(&mut configuration).changed);
        fs::write(&file, GOOD.replace("name: a", "nam: b")).expect("write");
        assert!(look(&mut configuration).changed);
        assert_eq!(name(&configuration).as_deref(), Some("a"));
        assert_eq!(configuration.diagnostics().count(), 2, "no name, and an unknown field");
        fs::write(&file, GOOD.replace("name: a", "name: b")).expect("write");
        assert!(look(&mut configuration).changed);
        assert_eq!(name(&configuration).as_deref(), Some("b"));
        assert_eq!(configuration.diagnostics().count(), 0);
    }

    #[test]
    fn a_list_as_kubectl_prints_it_is_its_items() {
        let dir = tempfile::tempdir().expect("directory");
        let item = GOOD.replace('\n', "\n    ");
        let list =
            format!("apiVersion: v1\nkind: List\nmetadata: {{resourceVersion: ''}}\nitems:\n  - {item}\n");
        fs::write(dir.path().join("a.yaml"), &list).expect("write");
        let mut configuration = Configuration::new(Roots::new([dir.path().to_owned()]));
        look(&mut configuration);
        assert_eq!(configuration.diagnostics().next(), None);
        assert_eq!(name(&configuration).as_deref(), Some("a"));
        fs::write(dir.path().join("a.yaml"), list.replace("items", "itmes")).expect("write");
        look(&mut configuration);
        let mistakes: Vec<String> = configuration.diagnostics().map(|one| one.message.clone()).collect();
        assert_eq!(mistakes, ["unknown field \"itmes\" in a List"]);
        assert_eq!(name(&configuration).as_deref(), Some("a"), "as before");
    }

    #[test]
    fn a_volume_that_is_swapped_between_the_listing_and_the_look_is_looked_at_again() {
        let dir = tempfile::tempdir().expect("directory");
        let revision = |name: &str| {
            let data = dir.path().join(format!("..{name}"));
            fs::create_dir(&data).expect("directory");
            fs::write(data.join("a.yaml"), GOOD.replace("name: a", &format!("name: {name}"))).expect("write");
            fs::write(data.join("b.yaml"), format!("# {name}\n")).expect("write");
            std::os::unix::fs::symlink(format!("..{name}"), dir.path().join("..new")).expect("link");
            fs::rename(dir.path().join("..new"), dir.path().join("..data")).expect("rename");
        };
        revision("one");
        let mut configuration = Configuration::new(Roots::new([dir.path().to_owned()]));
        let before = configuration.list();
        revision("two");
        fs::remove_dir_all(dir.path().join("..one")).expect("remove");
        assert!(configuration.look(&before, &BTreeSet::new()).torn);
        let after = configuration.list();
        let look = configuration.look(&after, &BTreeSet::new());
        assert!(look.changed && !look.torn);
        assert_eq!(name(&configuration).as_deref(), Some("two"));
    }

    #[test]
    fn saving_the_same_again_changes_nothing() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("a.yaml");
        let mut configuration = Configuration::new(Roots::new([dir.path().to_owned()]));
        fs::write(&file, GOOD).expect("write");
        assert!(look(&mut configuration).changed);
        fs::write(&file, GOOD).expect("write");
        assert!(!look(&mut configuration).changed);
    }

    #[test]
    fn a_file_that_is_just_being_written_or_replaced_stays_what_it_was() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("a.yaml");
        let mut configuration = Configuration::new(Roots::new([dir.path().to_owned()]));
        fs::write(&file, GOOD).expect("write");
        look(&mut configuration);
        fs::write(&file, "").expect("truncate");
        assert!(!look_around(&mut configuration, std::slice::from_ref(&file)).changed);
        fs::remove_file(&file).expect("remove");
        assert!(!look_around(&mut configuration, std::slice::from_ref(&file)).changed);
        assert_eq!(name(&configuration).as_deref(), Some("a"));
        assert!(look(&mut configuration).changed, "in the end it is gone");
        assert_eq!(name(&configuration), None);
    }

    #[test]
    fn the_files_of_a_directory_that_is_gone_are_kept() {
        let dir = tempfile::tempdir().expect("directory");
        let inner = dir.path().join("config");
        fs::create_dir(&inner).expect("directory");
        fs::write(inner.join("a.yaml"), GOOD).expect("write");
        let mut configuration = Configuration::new(Roots::new([inner.clone()]));
        look(&mut configuration);
        fs::remove_dir_all(&inner).expect("remove");
        assert!(look(&mut configuration).changed, "it is worth a message");
        assert_eq!(configuration.diagnostics().count(), 1);
        assert_eq!(name(&configuration).as_deref(), Some("a"));
    }
}
