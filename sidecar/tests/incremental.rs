//! What an encoder makes of a mesh, one change after the other, is what a new one makes of it at once: over random changes of
//! every document of the golden files and examples. `WEFT_SEED` gives other ones.

#![cfg(test)]

#[path = "shared/corpus.rs"]
mod corpus;

use std::sync::Arc;

use prost::{Message, Name};
use weft_sidecar::diagnostic::{Diagnostic, Source};
use weft_sidecar::encoding::Encoder;
use weft_sidecar::model::resolve::resolve;
use weft_sidecar::model::{Document, Mesh};
use weft_sidecar::read::decode::Report;
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
