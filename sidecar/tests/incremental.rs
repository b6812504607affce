//! What comes of one change after the other is what comes of everything at once: over random changes of every document of the golden
//! files and examples, in what an encoder makes of a mesh, and in what a configuration follows without resolving it. `WEFT_SEED`
//! gives other ones.

#![cfg(test)]

#[path = "shared/corpus.rs"]
mod corpus;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use prost::{Message, Name};
use weft_sidecar::configuration::Configuration;
use weft_sidecar::diagnostic::{Diagnostic, Source};
use weft_sidecar::encoding::Encoder;
use weft_sidecar::model::resolve::resolve;
use weft_sidecar::model::{Document, Mesh};
use weft_sidecar::read::decode::Report;
use weft_sidecar::read::files::Roots;
use weft_sidecar::read::{Node, Value};
use weft_sidecar::translate::{Sourced, translate};
use weft_xds::{Resource, Revision, Snapshot, TypeUrl};

use corpus::{Chance, configurations};

const CHANGES: usize = 150;

fn decoded(source: &Arc<Source>, node: &Node) -> Option<Arc<Document>> {
    let mut report = Report::new(source);
    let document = Document::decode(node, &mut report);
    let flawless = !report.into_diagnostics().iter().any(Diagnostic::is_error);
    document.filter(|_| flawless).map(Arc::new)
}

/// Changes one number or text somewhere in `node`.
fn change(node: &mut Node, chance: &mut Chance) {
    match &mut node.value {
        Value::List(items) if !items.is_empty() => {
            let at = chance.below(items.len());
            match chance.below(6) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                2 => items.swap(0, at),
                _ => change(&mut items[at], chance),
            }
        }
        Value::Map(entries) if !entries.is_empty() => {
            let at = chance.below(entries.len());
            change(&mut entries[at].value, chance);
        }
        Value::Integer(value) => *value += 1,
        Value::Bool(value) => *value = !*value,
        Value::Text(text) => {
            // Names and addresses stay what they are in form.
            let bumped: String = text
                .chars()
                .rev()
                .enumerate()
                .map(|(at, letter)| match letter {
                    '0'..='8' if at == 0 => char::from(letter as u8 + 1),
                    'a'..='y' if at == 0 => char::from(letter as u8 + 1),
                    other => other,
                })
                .collect();
            *text = bumped.chars().rev().collect();
        }
        _ => {}
    }
}

fn says(node: &Node, kind: &str) -> bool {
    node.get("kind").is_some_and(|value| matches!(&value.value, Value::Text(text) if text == kind))
}

/// Changes who answers, in an EndpointSlice.
fn change_endpoints(node: &mut Node, chance: &mut Chance) {
    let Value::Map(entries) = &mut node.value else { return };
    let mut fields = entries.iter_mut().filter(|entry| matches!(entry.key.as_str(), "ports" | "endpoints"));
    if let Some(field) = fields.nth(chance.below(4).saturating_sub(2)) {
        change(&mut field.value, chance);
    }
}

/// A configuration in a directory, one file for each of the original's or for each of its documents.
struct Files {
    _directory: tempfile::TempDir,
    files: Vec<(PathBuf, Vec<Node>)>,
    configuration: Configuration,
}

impl Files {
    fn new(original: &[(Arc<Source>, Node)], apart: bool) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let mut files = BTreeMap::<_, Vec<Node>>::new();
        for (at, (source, node)) in original.iter().enumerate() {
            let file = (source.name.as_str(), if apart { at } else { 0 });
            files.entry(file).or_default().push(node.clone());
        }
        let path = |at: usize| directory.path().join(format!("{at}.yaml"));
        let files: Vec<_> = files.into_values().enumerate().map(|(at, nodes)| (path(at), nodes)).collect();
        let configuration = Configuration::new(Roots::new([directory.path().to_owned()]));
        files.iter().for_each(|(path, nodes)| save(path, nodes));
        Self { _directory: directory, files, configuration }
    }

    /// Looks at the files at `paths`, and at all of them where that is not enough.
    fn look(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        if self.configuration.look_at_files(&paths.into_iter().collect()).torn {
            let listing = self.configuration.list();
            self.configuration.look(&listing, &BTreeSet::new());
        }
    }
}

fn save(path: &PathBuf, documents: &[Node]) {
    let shown = documents.iter().map(|node| format!("{:#}\n---\n", serde_json::Value::from(node)));
    fs::write(path, shown.collect::<String>()).expect("write");
}

fn shown(snapshot: &Snapshot) -> Vec<(String, Resource)> {
    snapshot.iter().map(|(url, resource)| (format!("{url} {}", resource.name()), resource.clone())).collect()
}

/// Each resource of the snapshot is one of the translation, and the other way round.
fn assert_is_the_translation(snapshot: &Snapshot, mesh: &Mesh) {
    fn of_type<M: Message + Name + Default + PartialEq>(snapshot: &Snapshot, translated: &[Sourced<M>]) {
        let of_this = TypeUrl::of_message::<M>();
        assert_eq!(snapshot.names(&of_this).count(), translated.len());
        for resource in translated {
            let body = snapshot.get(&of_this, &resource.name).expect("it is there").body();
            assert!(M::decode(body).expect("a message") == resource.message, "{}", resource.name);
        }
    }
    let translated = translate(mesh);
    of_type(snapshot, &translated.clusters);
    of_type(snapshot, &translated.endpoints);
    of_type(snapshot, &translated.listeners);
    of_type(snapshot, &translated.routes);
}

#[test]
fn one_change_after_the_other_gives_what_all_at_once_gives() {
    let seed = std::env::var("WEFT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_822);
    let mut chance = Chance(seed);
    let (mut encoded, mut refused) = (0, 0);
    for original in configurations() {
        if original.iter().all(|(source, node)| decoded(source, node).is_none()) {
            continue;
        }
        let mut present: Vec<Option<Node>> = original.iter().map(|(_, node)| Some(node.clone())).collect();
        let mut encoder = Encoder::default();
        for step in 1..=CHANGES {
            let at = chance.below(present.len());
            let before = present[at].clone();
            match chance.below(5) {
                0 => present[at] = None,
                1 | 2 => present[at] = Some(original[at].1.clone()),
                _ => present[at].iter_mut().for_each(|node| change(node, &mut chance)),
            }
            let now = original
                .iter()
                .zip(&present)
                .filter_map(|((source, _), node)| Some((source, node.as_ref()?)));
            let documents: Option<Vec<_>> = now.map(|(source, node)| decoded(source, node)).collect();
            let mesh = documents.and_then(|documents| resolve(&documents).mesh).map(Arc::new);
            let Some(mesh) = mesh else {
                refused += 1;
                present[at] = before;
                continue;
            };
            let revision = Revision(step as u64);
            let (one, other) = (encoder.encode(&mesh, revision), Encoder::default().encode(&mesh, revision));
            let (one, other) = match (one, other) {
                (Ok(one), Ok(other)) => (one, other),
                (Err(one), Err(other)) => {
                    assert_eq!(one.to_string(), other.to_string());
                    continue;
                }
                (one, other) => panic!("seed {seed}: {one:?} and {other:?}"),
            };
            let (one_shown, other_shown) = (shown(&one), shown(&other));
            assert_eq!(one_shown, other_shown, "seed {seed}, {}, step {step}", original[at].0.name);
            for ((name, one), (_, other)) in one_shown.iter().zip(&other_shown) {
                assert_eq!(one.references(), other.references(), "seed {seed}: {name}");
            }
            assert_is_the_translation(&one, &mesh);
            encoded += 1;
        }
    }
    assert!(encoded > refused / 4, "of random changes {encoded} were encoded and {refused} refused");
}

#[test]
fn endpoints_that_change_are_followed_to_what_resolving_everything_gives() {
    let seed = std::env::var("WEFT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_123);
    let mut chance = Chance(seed);
    let (mut followed, mut resolved) = (0, 0);
    for (original, apart) in configurations().iter().flat_map(|one| [(one, false), (one, true)]) {
        let mut files = Files::new(original, apart);
        let mut encoder = Encoder::default();
        files.look([PathBuf::new()]);
        let mut last = files.configuration.settle().mesh;
        for step in 1..=CHANGES / 3 {
            let (path, nodes) = {
                let at = chance.below(files.files.len());
                &mut files.files[at]
            };
            let before = nodes.clone();
            let slices: Vec<usize> =
                (0..nodes.len()).filter(|at| says(&nodes[*at], "EndpointSlice")).collect();
            match chance.below(8) {
                0 => nodes.iter_mut().for_each(|node| change(node, &mut chance)),
                1 => nodes.swap(0, chance.below(before.len())),
                2 if nodes.len() > 1 => drop(nodes.remove(chance.below(before.len()))),
                _ if slices.is_empty() => continue,
                _ => change_endpoints(&mut nodes[slices[chance.below(slices.len())]], &mut chance),
            }
            let path = path.clone();
            save(&path, nodes);
            files.look([path.clone()]);
            let settled = files.configuration.settle();
            let whole = files.configuration.resolve();
            if whole.blamed.is_empty() && whole.mesh.is_some() {
                assert_eq!(settled.mesh.as_deref(), whole.mesh.as_ref(), "seed {seed}, step {step}");
                assert_eq!(settled.diagnostics, whole.diagnostics, "seed {seed}, step {step}");
            }
            if let Some(mesh) = &settled.mesh {
                let revision = Revision(step as u64);
                let fresh = Encoder::default().encode(mesh, revision).expect("without mistakes");
                let next = encoder.encode(mesh, revision).expect("without mistakes");
                assert_eq!(shown(&next), shown(&fresh), "seed {seed}, step {step}");
                let same = last.as_ref().is_some_and(|last| Arc::ptr_eq(&last.proxy, &mesh.proxy));
                *if same { &mut followed } else { &mut resolved } += 1;
            }
            last = settled.mesh;
            if !whole.blamed.is_empty()
                || files.configuration.diagnostics().any(Diagnostic::is_error)
                || chance.below(4) == 0
            {
                let (_, nodes) = files.files.iter_mut().find(|(one, _)| *one == path).expect("it is there");
                *nodes = before;
                save(&path, nodes);
                files.look([path]);
                last = files.configuration.settle().mesh;
            }
        }
    }
    assert!(followed > 100 && resolved > 100, "followed {followed} times, resolved {resolved} times");
}
