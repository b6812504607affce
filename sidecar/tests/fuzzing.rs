//! No document makes the sidecar panic, whatever it says: pieces of the golden files and examples are put where others of the
//! same name stand, left out, doubled and spoilt, and what comes of it goes through everything that is done with a mesh.
//!
//! `WEFT_FUZZ_SECONDS` is how long (3), `WEFT_SEED` where it begins; a failure names the seed that leads to it at once.
//! `fuzz/` has the same for cargo-fuzz.

#![cfg(test)]

#[path = "shared/corpus.rs"]
mod corpus;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_sidecar::bootstrap::bootstrap;
use weft_sidecar::diagnostic::{Diagnostic, Source};
use weft_sidecar::encoding::Encoder;
use weft_sidecar::explain::{Request, explain};
use weft_sidecar::graph::Graph;
use weft_sidecar::model::resolve::resolve;
use weft_sidecar::model::{Document, Mesh};
use weft_sidecar::plan::{inventory, plan};
use weft_sidecar::read::decode::Report;
use weft_sidecar::read::{Entry, Node, Value};
use weft_sidecar::translate::json::{Names, each};
use weft_sidecar::translate::{OUTBOUND, Provenance, translate};
use weft_xds::Revision;

use corpus::{Chance, configurations};

/// Where documents come from, and every value in them by the key that it stands at.
struct Corpus {
    configurations: Vec<Vec<(Arc<Source>, Node)>>,
    by_key: BTreeMap<String, Vec<Node>>,
    keys: Vec<String>,
}

impl Corpus {
    fn new() -> Self {
        let configurations = configurations();
        let mut by_key = BTreeMap::new();
        configurations.iter().flatten().for_each(|(_, node)| collect(node, &mut by_key));
        let keys = by_key.keys().cloned().collect();
        Self { configurations, by_key, keys }
    }

    /// Changes something somewhere in `node`, which stands at `key`.
    fn change(&self, key: &str, node: &mut Node, chance: &mut Chance) {
        if chance.below(4) == 0 {
            return self.replace(key, node, chance);
        }
        match &mut node.value {
            Value::List(items) if !items.is_empty() => {
                let at = chance.below(items.len());
                match chance.below(8) {
                    0 => drop(items.remove(at)),
                    1 => items.push(items[at].clone()),
                    _ => self.change(key, &mut items[at], chance),
                }
            }
            Value::Map(entries) if !entries.is_empty() => {
                let at = chance.below(entries.len());
                match chance.below(10) {
                    0 => drop(entries.remove(at)),
                    1 => entries[at].key.clone_from(one_of(&self.keys, chance)),
                    2 => self.add(entries, chance),
                    _ => {
                        let Entry { key, value, .. } = &mut entries[at];
                        self.change(key, value, chance);
                    }
                }
            }
            _ => self.replace(key, node, chance),
        }
    }

    /// A field that stands somewhere else, too.
    fn add(&self, entries: &mut Vec<Entry>, chance: &mut Chance) {
        let key = one_of(&self.keys, chance).clone();
        if entries.iter().all(|entry| entry.key != key) {
            let value = one_of(&self.by_key[&key], chance).clone();
            entries.push(Entry { key, key_span: value.span, value });
        }
    }

    fn replace(&self, key: &str, node: &mut Node, chance: &mut Chance) {
        let odd = [
            Value::Null,
            Value::Bool(true),
            Value::Integer(0),
            Value::Integer(-1),
            Value::Integer(65_535),
            Value::Integer(i64::from(u32::MAX)),
            Value::Integer(i64::MAX),
            Value::Integer(i64::MIN),
            Value::Float(f64::INFINITY),
            Value::Float(f64::NAN),
            Value::Float(0.5),
            Value::Text(String::new()),
            Value::Text("%".into()),
            Value::Text("%REQ(x)% äöü \u{0}\r\n".into()),
            Value::Text("*".into()),
            Value::Text("*.a.b".into()),
            Value::Text("/".into()),
            Value::Text("a".repeat(300)),
            Value::Text("99999h".into()),
            Value::Text("[::1]:0".into()),
            Value::List(Vec::new()),
            Value::Map(Vec::new()),
        ];
        node.value = match (self.by_key.get(key), chance.below(3)) {
            (Some(others), 0 | 1) => one_of(others, chance).value.clone(),
            _ => one_of(&odd, chance).clone(),
        };
    }
}

fn one_of<'t, T>(choices: &'t [T], chance: &mut Chance) -> &'t T {
    &choices[chance.below(choices.len())]
}

fn collect(node: &Node, into: &mut BTreeMap<String, Vec<Node>>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| collect(item, into)),
        Value::Map(entries) => {
            for entry in entries {
                into.entry(entry.key.clone()).or_default().push(entry.value.clone());
                if let Value::List(items) = &entry.value.value {
                    into.entry(entry.key.clone()).or_default().extend(items.iter().cloned());
                }
                collect(&entry.value, into);
            }
        }
        _ => {}
    }
}

/// Some documents of the corpus, changed; true if there is a mesh of them.
fn one_round(corpus: &Corpus, seed: u64) -> bool {
    let mut chance = Chance(seed);
    let mut documents = one_of(&corpus.configurations, &mut chance).clone();
    for _ in 0..1 + chance.below(4) {
        let at = chance.below(documents.len());
        corpus.change("", &mut documents[at].1, &mut chance);
    }
    let read = documents.iter().filter_map(|(source, node)| {
        let mut report = Report::new(source);
        let document = Document::decode(node, &mut report);
        let mistakes = report.into_diagnostics();
        mistakes.iter().for_each(|mistake| assert!(!format!("{mistake:#}").is_empty()));
        document.filter(|_| !mistakes.iter().any(Diagnostic::is_error)).map(Arc::new)
    });
    let resolution = resolve(&read.collect::<Vec<_>>());
    resolution.diagnostics.iter().for_each(|mistake| assert!(!mistake.to_string().is_empty()));
    resolution.mesh.map(|mesh| use_up(Arc::new(mesh))).is_some()
}

/// Everything that is done with a mesh.
fn use_up(mesh: Arc<Mesh>) {
    let resources = translate(&mesh);
    let shown = each(&resources, Names::Proto).expect("what is emitted can be shown");
    let all = inventory(shown);
    assert_eq!(plan(&all, &all), [], "nothing differs from itself");
    assert_eq!(plan(&BTreeMap::new(), &all).len(), all.len());
    for url in ["http://web/", "http://web.shop:80/a/b?q=1", "https://x.example/%2e%2e//a"] {
        let request = Request::new("GET", url, &[("x-a".into(), "1".into())]).expect("a request");
        explain(&resources, OUTBOUND, &request).ok();
    }
    if let Ok(graph) = Graph::of(&resources) {
        assert!(!graph.svg().is_empty() && !graph.dot().is_empty() && !graph.mermaid().is_empty());
    }
    drop((
        bootstrap(&mesh.proxy.sidecar),
        Provenance::of(&mesh),
        Encoder::default().encode(&mesh, Revision(1)),
    ));
}

#[test]
fn no_document_makes_anything_panic() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (first, limit) = (number("WEFT_SEED"), Duration::from_secs(number("WEFT_FUZZ_SECONDS").unwrap_or(3)));
    let corpus = Corpus::new();
    let (start, mut rounds, mut meshes) = (Instant::now(), 0_u64, 0_u64);
    while rounds == 0 || start.elapsed() < limit {
        let seed = first.unwrap_or(1).wrapping_add(rounds).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        match catch_unwind(AssertUnwindSafe(|| one_round(&corpus, seed))) {
            Ok(has_mesh) => meshes += u64::from(has_mesh),
            Err(_) => panic!("round {rounds}: WEFT_SEED={} fails at once", first.unwrap_or(1) + rounds),
        }
        rounds += 1;
    }
    // A generator of nothing but mistakes would prove little.
    assert!(meshes * 20 > rounds, "{meshes} meshes in {rounds} rounds");
    println!("{rounds} rounds, {meshes} meshes");
}
