//! Configurations to make others of, and chance to do it by.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weft_sidecar::diagnostic::Source;
use weft_sidecar::read::{Node, yaml};

/// xorshift64*: numbers that are the same with every run.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).expect("31 bits") % limit
    }
}

/// The documents of each golden file and of each example, which are a configuration of their own.
pub(crate) fn configurations() -> Vec<Vec<(Arc<Source>, Node)>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let goldens = yaml_files(&here.join("tests/golden")).into_iter().map(|file| vec![file]);
    let examples = list(&here.join("../docs/examples")).into_iter().filter(|path| path.is_dir());
    let all = goldens.chain(examples.map(|folder| yaml_files(&folder)));
    all.map(|files| nodes(&files)).filter(|nodes| !nodes.is_empty()).collect()
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    list(folder).into_iter().filter(|path| path.extension() == Some("yaml".as_ref())).collect()
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("list");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    paths
}

fn nodes(files: &[PathBuf]) -> Vec<(Arc<Source>, Node)> {
    let of_file = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("read");
        let source = Arc::new(Source { name: path.display().to_string(), text });
        let nodes = yaml::documents(&source).expect("valid YAML");
        nodes.into_iter().map(move |node| (Arc::clone(&source), node)).collect::<Vec<_>>()
    };
    files.iter().flat_map(of_file).collect()
}
