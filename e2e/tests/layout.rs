//! The workspace is what the design draws: who may use whom, and what every member owes.

#![cfg(test)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand, Package};

/// Every member, and what of ours it may use, also in its tests.
const ARROWS: [(&str, &[&str]); 8] = [
    ("weft-cni", &["weft-cni-spec", "weft-datapath", "weft-ipam"]),
    ("weft-cni-spec", &[]),
    ("weft-datapath", &[]),
    ("weft-e2e", &[]),
    ("weft-ipam", &["weft-cni-spec"]),
    ("weft-node", &["weft-datapath", "weft-ipam"]),
    ("weft-sidecar", &["weft-xds"]),
    ("weft-xds", &[]),
];

/// The one door to the kernel.
const MAY_BE_UNSAFE: &str = "weft-datapath";

#[test]
fn every_member_is_drawn() {
    let workspace = workspace();
    let members: BTreeSet<_> =
        workspace.workspace_packages().into_iter().map(|member| member.name.as_str()).collect();
    assert_eq!(members, ARROWS.iter().map(|(member, _)| *member).collect());
}

#[test]
fn members_use_only_what_the_design_lets_them() {
    let workspace = workspace();
    for member in workspace.workspace_packages() {
        let allowed = ARROWS
            .iter()
            .find(|(name, _)| *name == member.name.as_str())
            .map_or(&[][..], |(_, allowed)| allowed);
        let ours = member.dependencies.iter().filter(|dependency| dependency.path.is_some());
        let stray: Vec<_> =
            ours.filter(|used| !allowed.contains(&used.name.as_str())).map(|used| &used.name).collect();
        assert!(stray.is_empty(), "{} uses {stray:?}, which docs and design do not draw", member.name);
    }
}

#[test]
fn every_member_inherits_the_one_lint_table() {
    for member in workspace().workspace_packages() {
        let manifest = fs::read_to_string(&member.manifest_path).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{} has lints of its own", member.name);
    }
}

#[test]
fn unsafe_stands_behind_one_door() {
    for member in
        workspace().workspace_packages().into_iter().filter(|member| member.name.as_str() != MAY_BE_UNSAFE)
    {
        for file in sources(member) {
            let text = fs::read_to_string(&file).unwrap();
            let unsafe_line = text.lines().position(has_unsafe);
            assert_eq!(unsafe_line, None, "{}, counted from 0, has `unsafe`", file.display());
        }
    }
}

#[test]
fn the_search_for_unsafe_finds_it() {
    assert!(has_unsafe("    let x = unsafe { y() };"));
    assert!(has_unsafe("unsafe impl Send for X {}"));
    assert!(has_unsafe(concat!("#[expect(unsafe", "_code, reason = \"\")]")));
    assert!(!has_unsafe("// nothing unsafe here"));
    assert!(!has_unsafe(r#"reason = "its successor is unsafe""#));
    assert!(!has_unsafe("#![forbid(unsafe_code)]"));
}

#[test]
fn every_test_that_the_documents_name_exists() {
    let document = include_str!("../../docs/conformance.md");
    let named: BTreeSet<_> =
        document.split('`').skip(1).step_by(2).filter(|word| is_name_of_a_test(word)).collect();
    assert!(named.len() > 100, "{named:?}");
    let workspace = workspace();
    let sources = workspace.workspace_packages().into_iter().flat_map(sources);
    let texts: Vec<_> = sources.map(|file| fs::read_to_string(file).unwrap()).collect();
    let words: BTreeSet<_> =
        texts.iter().flat_map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '_')).collect();
    assert_eq!(named.difference(&words).collect::<Vec<_>>(), [&""; 0]);
}

/// A sentence in small letters.
fn is_name_of_a_test(word: &str) -> bool {
    word.matches('_').count() > 2
        && word.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
}

fn workspace() -> Metadata {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let options = ["--locked".to_owned(), "--offline".to_owned()];
    MetadataCommand::new().manifest_path(manifest).no_deps().other_options(options).exec().unwrap()
}

fn sources(member: &Package) -> Vec<PathBuf> {
    let root = member.manifest_path.parent().unwrap().as_std_path();
    // This file speaks of what it looks for.
    below(root).into_iter().filter(|path| !path.ends_with("e2e/tests/layout.rs")).collect()
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let sources = |path: PathBuf| match path.extension() {
        _ if path.is_dir() => below(&path),
        Some(extension) if extension == "rs" => vec![path],
        _ => vec![],
    };
    entries.flat_map(sources).collect()
}

/// `unsafe` as a word of the code, or a permission for it. What stands in comments and strings only speaks of it.
fn has_unsafe(line: &str) -> bool {
    let outside_strings = line.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let code = outside_strings.split("//").next().unwrap_or_default();
    let mut words = code.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    words.any(|word| word == "unsafe" || (word == "unsafe_code" && !code.contains("forbid(")))
}
