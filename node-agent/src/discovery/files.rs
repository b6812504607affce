//! One kind of objects, followed into its files.

use std::io;

use super::document::{Document, Verdict, document, paths_of};
use super::kind::Kind;
use super::tree::Shelf;
use crate::clock::now;
use crate::kubernetes::{Follower, Retry};
use crate::status::{Board, Kept};

/// So many times in a row, a minute apart, the API must have said that it knows no such kind before its files are removed.
/// One that has just started, or a proxy before it, says so of what it will know in a moment.
const ABSENCES: u32 = 5;

/// The files of a kind.
#[derive(Debug)]
pub(super) struct Files {
    kind: &'static Kind,
    shelf: Shelf,
    /// How many objects the list has had so far.
    listed: usize,
    absences: u32,
    problem: Option<Retry>,
    kept: Kept,
    board: Board,
}

impl Files {
    pub(super) fn new(kind: &'static Kind, shelf: Shelf, board: Board) -> Self {
        Self { kind, shelf, listed: 0, absences: 0, problem: None, kept: Kept::default(), board }
    }

    fn put(&mut self, Document { path, text, notes }: &Document) {
        match self.shelf.put(path, text) {
            Ok(true) => {
                self.kept.written += 1;
                self.kept.last_change_epoch_seconds = Some(now());
                tracing::debug!(file = path, "written");
                notes.iter().for_each(|note| tracing::info!(file = path, "{note}"));
            }
            Ok(false) => {}
            Err(error) => {
                self.shelf.keep(path);
                self.fail("write", path, error);
            }
        }
    }

    fn remove(&mut self, path: &str) {
        match self.shelf.remove(path) {
            Ok(true) => {
                self.kept.removed += 1;
                self.kept.last_change_epoch_seconds = Some(now());
                tracing::debug!(file = path, "removed");
            }
            Ok(false) => {}
            Err(error) => self.fail("remove", path, error),
        }
    }

    fn fail(&mut self, action: &str, path: &str, error: io::Error) {
        self.problem = Some(Retry { what: format!("cannot {action} {path}"), source: Some(error) });
    }

    fn note(&mut self) {
        self.kept.files = self.shelf.len();
        let kind = self.kind.name;
        self.board.count(|status| match status.discovery.get_mut(kind) {
            Some(before) => before.clone_from(&self.kept),
            None => drop(status.discovery.insert(kind.to_owned(), self.kept.clone())),
        });
    }

    fn sweep(&mut self) {
        for path in self.shelf.untold() {
            self.remove(&path);
        }
    }
}

impl Follower for Files {
    fn list_begins(&mut self) {
        self.listed = 0;
        self.kept.lists += 1;
        self.shelf.begin();
    }

    fn apply(&mut self, object: &[u8]) {
        self.listed += 1;
        match document(self.kind, object) {
            Ok(Verdict::Kept(document)) => {
                self.put(&document);
                let elsewhere = paths_of(self.kind, object).into_iter().flatten();
                elsewhere.filter(|path| *path != document.path).for_each(|path| self.remove(&path));
            }
            Ok(Verdict::Nothing(paths)) => paths.iter().for_each(|path| self.remove(path)),
            Err(mistake) => {
                self.kept.refused += 1;
                tracing::warn!(kind = self.kind.name, %mistake, "an object cannot be read; its file stays as it is");
                paths_of(self.kind, object).into_iter().flatten().for_each(|path| self.shelf.keep(&path));
            }
        }
    }

    fn delete(&mut self, object: &[u8]) {
        paths_of(self.kind, object).into_iter().flatten().for_each(|path| self.remove(&path));
    }

    fn list_ends(&mut self) {
        self.absences = 0;
        if self.listed == 0 && self.kind.is_never_empty() {
            let what = "the list is empty, though every cluster has default/kubernetes".to_owned();
            self.problem = Some(Retry { what, source: None });
            return;
        }
        self.sweep();
        tracing::debug!(kind = self.kind.name, objects = self.listed, files = self.shelf.len(), "listed");
    }

    fn settle(&mut self) -> Result<(), Retry> {
        self.note();
        self.problem.take().map_or(Ok(()), Err)
    }

    fn absent(&mut self) {
        self.absences += 1;
        if self.absences >= ABSENCES {
            self.shelf.begin();
            self.sweep();
            self.note();
        }
    }

    fn troubled(&mut self, trouble: Option<&str>) {
        self.board.follows(self.kind.resource.plural, trouble);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::{Value, json};

    use super::super::kind::KINDS;
    use super::super::tree::Tree;
    use super::*;

    fn files(root: &Path, name: &str) -> Files {
        let kind = KINDS.iter().find(|kind| kind.name == name).unwrap();
        Files::new(kind, Tree::open(root).unwrap().shelf(kind), Board::default())
    }

    fn service(name: &str) -> Vec<u8> {
        json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"ports": [{"port": 80}]}})
            .to_string()
            .into()
    }

    fn route(parent: Value) -> Vec<u8> {
        json!({"metadata": {"name": "r", "namespace": "shop"}, "spec": {"parentRefs": [parent]}})
            .to_string()
            .into()
    }

    fn list(files: &mut Files, objects: &[Vec<u8>]) -> Result<(), Retry> {
        files.list_begins();
        objects.iter().for_each(|object| files.apply(object));
        files.list_ends();
        files.settle()
    }

    fn names(root: &Path) -> Vec<String> {
        let Ok(entries) = fs::read_dir(root.join("shop")) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_follow_lists_and_events() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = files(dir.path(), "Service");
        list(&mut files, &[service("a"), service("b")]).unwrap();
        files.apply(&service("c"));
        files.delete(&service("a"));
        assert_eq!(names(dir.path()), ["service.b.json", "service.c.json"]);
        list(&mut files, &[service("c")]).unwrap();
        assert_eq!(names(dir.path()), ["service.c.json"]);
    }

    #[test]
    fn what_was_done_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let kind = KINDS.iter().find(|kind| kind.name == "Service").unwrap();
        let board = Board::default();
        let mut files = Files::new(kind, Tree::open(dir.path()).unwrap().shelf(kind), board.clone());
        list(&mut files, &[service("a"), service("b")]).unwrap();
        files.apply(&service("a"));
        files.apply(
            &json!({"metadata": {"name": "b", "namespace": "shop"}, "spec": 7}).to_string().into_bytes(),
        );
        files.delete(&service("a"));
        list(&mut files, &[service("b")]).unwrap();
        let kept = board.read().discovery["Service"].clone();
        assert_eq!((kept.files, kept.written, kept.removed, kept.refused, kept.lists), (1, 2, 1, 1, 2));
        assert!(kept.last_change_epoch_seconds.is_some());
    }

    #[test]
    fn files_of_another_time_go_with_the_first_whole_list_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        list(&mut files(dir.path(), "Service"), &[service("old"), service("a")]).unwrap();
        let mut files = files(dir.path(), "Service");
        files.list_begins();
        files.apply(&service("a"));
        files.list_begins();
        assert_eq!(names(dir.path()).len(), 2, "the list broke off");
        list(&mut files, &[service("a")]).unwrap();
        assert_eq!(names(dir.path()), ["service.a.json"]);
    }

    #[test]
    fn a_list_of_services_without_any_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = files(dir.path(), "Service");
        list(&mut files, &[service("a")]).unwrap();
        list(&mut files, &[]).unwrap_err();
        assert_eq!(names(dir.path()), ["service.a.json"]);
    }

    #[test]
    fn the_last_route_can_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = files(dir.path(), "HTTPRoute");
        list(&mut files, &[route(json!({"group": "", "kind": "Service", "name": "a"}))]).unwrap();
        assert_eq!(names(dir.path()), ["httproute.r.json"]);
        list(&mut files, &[]).unwrap();
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn a_route_that_changes_its_parents_moves() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = files(dir.path(), "HTTPRoute");
        files.apply(&route(json!({"group": "", "kind": "Service", "name": "a"})));
        files.apply(&route(json!({"name": "public"})));
        assert_eq!(names(dir.path()), ["gateways"]);
        assert!(dir.path().join("shop/gateways/httproute.r.json").is_file());
        files.apply(&route(json!({"group": "example.com", "kind": "Mesh", "name": "m"})));
        assert!(!dir.path().join("shop/gateways/httproute.r.json").exists());
    }

    #[test]
    fn an_object_that_cannot_be_read_keeps_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = files(dir.path(), "Service");
        list(&mut files, &[service("a")]).unwrap();
        let bad = json!({"metadata": {"name": "a", "namespace": "shop"}, "spec": {"ports": 7}}).to_string();
        list(&mut files, &[bad.into(), service("b")]).unwrap();
        assert_eq!(names(dir.path()), ["service.a.json", "service.b.json"]);
    }

    #[test]
    fn a_file_that_cannot_be_written_asks_for_another_list_and_hinders_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = files(dir.path(), "Service");
        fs::create_dir_all(dir.path().join("shop/service.a.json")).unwrap();
        let problem = list(&mut files, &[service("a"), service("b")]).unwrap_err();
        assert_eq!(problem.what, "cannot write shop/service.a.json");
        assert!(names(dir.path()).contains(&"service.b.json".to_owned()));
        fs::remove_dir(dir.path().join("shop/service.a.json")).unwrap();
        list(&mut files, &[service("a"), service("b")]).unwrap();
        assert!(dir.path().join("shop/service.a.json").is_file());
    }

    #[test]
    fn files_of_a_kind_that_the_api_has_forgotten_stay_for_minutes() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = files(dir.path(), "HTTPRoute");
        files.apply(&route(json!({"group": "", "kind": "Service", "name": "a"})));
        (1..ABSENCES).for_each(|_| files.absent());
        assert_eq!(names(dir.path()), ["httproute.r.json"]);
        files.absent();
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }
}
