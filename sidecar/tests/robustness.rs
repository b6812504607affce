//! No file makes the sidecar panic, whatever is in it: good documents with pieces cut out, doubled, moved and replaced go
//! the whole way, from text to resources.

#![cfg(test)]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use weft_sidecar::configuration::Configuration;
use weft_sidecar::read::files::Roots;
use weft_sidecar::translate::{json, translate};

/// What mistakes are made of.
const PIECES: &[&str] = &[
    "",
    " ",
    "\n",
    "\t",
    ":",
    "- ",
    "---\n",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "|",
    ">",
    "&a ",
    "*a",
    "!!int ",
    "%",
    "#",
    "~",
    "null",
    "true",
    "-1",
    "0",
    "65536",
    "1e999",
    "99999999999999999999",
    "\u{0}",
    "\u{feff}",
    "ä",
    "\u{2028}",
    "..",
    "([",
    "kind: Service\n",
    "metadata: {}\n",
    "spec:\n",
    "name: x\n",
    "  ",
];

static GOOD: LazyLock<Vec<char>> = LazyLock::new(|| {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(here.join(path)).expect("read");
    let all = [
        read("tests/golden/features.yaml"),
        "---\n".into(),
        read("../docs/examples/mesh/routes.yaml"),
        "---\n".into(),
        read("../docs/examples/mesh/web.yaml"),
    ];
    all.concat().chars().collect()
});

#[derive(Debug, Clone)]
enum Edit {
    Replace { at: usize, length: usize, piece: usize },
    Copy { from: usize, length: usize, to: usize },
}

fn edit() -> impl Strategy<Value = Edit> {
    let place = || any::<prop::sample::Index>().prop_map(|index| index.index(GOOD.len()));
    prop_oneof![
        (place(), 0..40_usize, 0..PIECES.len()).prop_map(|(at, length, piece)| Edit::Replace {
            at,
            length,
            piece
        }),
        (place(), 0..200_usize, place()).prop_map(|(from, length, to)| Edit::Copy { from, length, to }),
    ]
}

fn mutated(edits: &[Edit]) -> String {
    let mut text = GOOD.clone();
    for edit in edits {
        match *edit {
            Edit::Replace { at, length, piece } => {
                let at = at.min(text.len());
                let end = (at + length).min(text.len());
                text.splice(at..end, PIECES[piece].chars());
            }
            Edit::Copy { from, length, to } => {
                let from = from.min(text.len());
                let copy: Vec<char> = text[from..(from + length).min(text.len())].to_vec();
                let to = to.min(text.len());
                text.splice(to..to, copy);
            }
        }
    }
    text.into_iter().collect()
}

fn go_all_the_way(text: &str) {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("a.yaml");
    fs::write(&file, text).expect("write");
    let mut configuration = Configuration::new(Roots::new([file]));
    let listing = configuration.roots().list();
    configuration.look(&listing, &Default::default());
    for mistake in configuration.mistakes() {
        assert!(!mistake.to_string().is_empty());
    }
    if let Some(mesh) = configuration.resolve().mesh {
        json::resources(&translate(&mesh)).expect("what is emitted can be shown");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_configuration_never_panics(edits in prop::collection::vec(edit(), 1..6)) {
        go_all_the_way(&mutated(&edits));
    }
}
