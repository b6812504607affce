//! What is in force of files that refer to what is not there.
//!
//! A file whose present content has a mistake that its former content does not have is kept back: the former stays in force. One
//! whose former content is no better, as after somebody has deleted a Service that it refers to, is in force as it is now. So a
//! mistake does not reach the traffic, and none holds up what other files say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Origin};
use crate::model::resolve::Resolution;
use crate::model::{Document, Mesh};

/// The documents of a file. The same content is the same allocation.
pub(super) type Documents = Arc<Vec<Arc<Document>>>;

/// What a file says.
#[derive(Debug)]
pub(super) struct Contents<'f> {
    /// Now.
    pub(super) present: &'f Documents,
    /// When it last was without mistakes together with the others; nothing, where that never was.
    pub(super) proved: Option<&'f Documents>,
}

/// What is in force.
#[derive(Debug)]
pub struct Settled {
    /// The mesh, unless there is none without mistakes that leave none.
    pub mesh: Option<Arc<Mesh>>,
    /// What is wrong with the files as they are now, and what is therefore in force.
    pub diagnostics: Vec<Diagnostic>,
    /// The files of which the former content is in force.
    pub(super) held: BTreeSet<String>,
    /// The files that are in force with mistakes.
    pub(super) blamed: BTreeSet<String>,
}

/// Chooses a content of each file, as the module says, and connects them by `connect`. Depends on `files` alone.
pub(super) fn settle(
    files: &BTreeMap<&str, Contents<'_>>,
    connect: impl Fn(Vec<Arc<Document>>) -> Resolution,
) -> Settled {
    let as_they_are = connect(Choice::new(files).documents());
    let diagnostics = as_they_are.diagnostics.clone();
    if as_they_are.blamed.is_empty() {
        let none = BTreeSet::new();
        return Settled {
            mesh: as_they_are.mesh.map(Arc::new),
            diagnostics,
            held: none.clone(),
            blamed: none,
        };
    }
    let (mut choice, mut found) = Choice::new(files).settled(as_they_are, &connect, true);
    if found.mesh.is_none() {
        let as_they_are =
            Resolution { mesh: None, diagnostics: diagnostics.clone(), blamed: blamed(&diagnostics) };
        (choice, found) = Choice::new(files).settled(as_they_are, &connect, false);
    }
    let held: BTreeSet<String> = choice.held.keys().map(|file| (*file).to_owned()).collect();
    let notes = choice.notes(&found);
    let all = diagnostics.into_iter().chain(notes).collect();
    Settled { mesh: found.mesh.map(Arc::new), diagnostics: all, held, blamed: found.blamed }
}

/// Which files are kept back so far.
struct Choice<'a, 'f> {
    files: &'a BTreeMap<&'a str, Contents<'f>>,
    /// With the place of the mistake for which they are.
    held: BTreeMap<&'a str, Option<Origin>>,
    /// Those whose former content is no better.
    released: BTreeSet<&'a str>,
}

impl<'a, 'f> Choice<'a, 'f> {
    fn new(files: &'a BTreeMap<&'a str, Contents<'f>>) -> Self {
        Self { files, held: BTreeMap::new(), released: BTreeSet::new() }
    }

    fn documents(&self) -> Vec<Arc<Document>> {
        let chosen = self.files.iter().flat_map(|(name, contents)| {
            let former = contents.proved.filter(|_| self.held.contains_key(name));
            former.unwrap_or(contents.present).iter().cloned()
        });
        chosen.collect()
    }

    /// Keeps back until nothing changes any more. A file is kept back, then released at most once, so that this ends.
    fn settled(
        mut self,
        mut found: Resolution,
        connect: &impl Fn(Vec<Arc<Document>>) -> Resolution,
        may_release: bool,
    ) -> (Self, Resolution) {
        while self.hold(&found) || (may_release && self.release(&found)) {
            found = connect(self.documents());
        }
        (self, found)
    }

    /// Keeps back the files with mistakes that said something else before them.
    fn hold(&mut self, found: &Resolution) -> bool {
        let before = self.held.len();
        for (name, contents) in self.files {
            let differs = contents.proved.is_some_and(|proved| !Arc::ptr_eq(proved, contents.present));
            if differs
                && found.blamed.contains(*name)
                && !self.released.contains(name)
                && !self.held.contains_key(name)
            {
                self.held.insert(name, place(&found.diagnostics, name));
            }
        }
        self.held.len() > before
    }

    /// Releases the files whose former content has mistakes, too. What was kept back because of them is tried again.
    fn release(&mut self, found: &Resolution) -> bool {
        let failing: Vec<&str> =
            self.held.keys().copied().filter(|name| found.blamed.contains(*name)).collect();
        if failing.is_empty() {
            return false;
        }
        self.released.extend(failing);
        self.held.clear();
        true
    }

    fn notes(&self, found: &Resolution) -> Vec<Diagnostic> {
        let at = |message: String, place: Option<Origin>| {
            let note = Diagnostic::warning(message);
            place.iter().fold(note, |note, place| note.at(place))
        };
        let held = self
            .held
            .iter()
            .map(|(name, place)| at(format!("the former content of {name} stays in force"), place.clone()));
        let in_force =
            found.blamed.iter().filter(|name| found.mesh.is_some() && !self.held.contains_key(name.as_str()));
        let in_force = in_force.map(|name| {
            at(
                format!("{name} is in force with its mistakes: no former content is better"),
                place(&found.diagnostics, name),
            )
        });
        held.chain(in_force).collect()
    }
}

fn blamed(diagnostics: &[Diagnostic]) -> BTreeSet<String> {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
    errors.flat_map(Diagnostic::files).map(str::to_owned).collect()
}

/// The first place in a file that has a mistake.
fn place(diagnostics: &[Diagnostic], file: &str) -> Option<Origin> {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
    let mut places = errors.flat_map(|error| error.origin.iter().chain(&error.others));
    places.find(|origin| origin.file() == file).cloned()
}
