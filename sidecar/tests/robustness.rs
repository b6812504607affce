//! No file makes the sidecar panic, whatever is in it: good documents with pieces cut out, doubled, moved and replaced go
//! the whole way, from text to resources.

#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index;
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

/// Every golden file's configuration, and the example.
static GOOD: LazyLock<Vec<Vec<char>>> = LazyLock::new(|| {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| fs::read_to_string(path).expect("read");
    let goldens = fs::read_dir(here.join("tests/golden")).expect("list");
    let mut goldens: Vec<PathBuf> = goldens.map(|entry| entry.expect("an entry").path()).collect();
    goldens.sort();
    let goldens =
        goldens.iter().filter(|path| path.extension() == Some("yaml".as_ref())).map(|path| read(path));
    let example = ["sidecar", "routes", "web"]
        .map(|name| format!("---\n{}", read(&here.join(format!("../docs/examples/mesh/{name}.yaml")))));
    goldens.chain([example.concat()]).map(|text| text.chars().collect()).collect()
});

#[derive(Debug, Clone)]
enum Edit {
    Replace { at: Index, length: usize, piece: usize },
    Copy { from: Index, length: usize, to: Index },
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<Index>(), 0..40_usize, 0..PIECES.len()).prop_map(|(at, length, piece)| Edit::Replace {
            at,
            length,
            piece
        }),
        (any::<Index>(), 0..200_usize, any::<Index>()).prop_map(|(from, length, to)| Edit::Copy {
            from,
            length,
            to
        }),
    ]
}

fn mutated(which: Index, edits: &[Edit]) -> String {
    let mut text = which.get(&GOOD).clone();
    for edit in edits {
        let place = |index: &Index| index.index(text.len() + 1);
        match edit {
            Edit::Replace { at, length, piece } => {
                let at = place(at);
                let end = (at + length).min(text.len());
                text.splice(at..end, PIECES[*piece].chars());
            }
            Edit::Copy { from, length, to } => {
                let (from, to) = (place(from), place(to));
                let copy: Vec<char> = text[from..(from + length).min(text.len())].to_vec();
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
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_configuration_never_panics(which: Index, edits in prop::collection::vec(edit(), 1..6)) {
        go_all_the_way(&mutated(which, &edits));
    }
}
