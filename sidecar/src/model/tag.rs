//! Tags: what a workload and its routes say about themselves.
//!
//! A tag's value is carried in a header and shown in logs, so it is one line of text. Nothing in it has a meaning for Envoy:
//! values travel as metadata, and are never part of a format.

use crate::diagnostic::{Diagnostic, Span};
use crate::read::decode::{Report, texts};
use crate::read::{Entry, Node};

/// Every injected header starts with this.
pub const HEADER_PREFIX: &str = "x-weft-tag-";

/// The annotation `tags.weft.dev/KEY: VALUE` of a route gives its requests the tag `KEY`.
const ANNOTATION_PREFIX: &str = "tags.weft.dev/";

/// The domain whose annotations are ours: what is misspelt in it is a mistake.
const OUR_DOMAIN: &str = "weft.dev";

const MAX_KEY: usize = 63;
const MAX_VALUE: usize = 1_024;

/// A tag. The key makes a header name, the value goes unchanged into a header.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    /// Letters, digits, `.`, `_` and `-`; at most 63.
    pub key: String,
    /// No control characters, no space at either end; at most 1 024 bytes.
    pub value: String,
}

/// The header that carries the tag `key`.
pub fn header(key: &str) -> String {
    format!("{HEADER_PREFIX}{}", key.to_ascii_lowercase())
}

/// A mapping of keys to values, sorted by key. Keys are unique as header names are: without regard to case.
pub fn tags(node: &Node, report: &mut Report) -> Option<Vec<Tag>> {
    let mut tags: Vec<Tag> = Vec::new();
    for (entry, value) in texts(node, report)? {
        check(&entry.key, entry.key_span, report);
        if let Some(mistake) = unfit(&entry.key, &value) {
            report.add::<()>(entry.value.span, mistake);
        }
        add(&mut tags, Tag { key: entry.key.clone(), value }, entry.key_span, report);
    }
    tags.sort();
    Some(tags)
}

/// The tags that an object's annotations give it, sorted by key. An annotation of our domain that is nothing we know is a
/// mistake: somebody relies on it.
pub fn of_annotations(node: &Node, report: &mut Report) -> Option<Vec<Tag>> {
    let mut tags = Vec::new();
    for (entry, value) in texts(node, report)?.into_iter().filter(|(entry, _)| is_ours(&entry.key)) {
        match entry.key.strip_prefix(ANNOTATION_PREFIX) {
            Some(key) => annotated(key, value, entry, &mut tags, report),
            None => unknown(entry, report),
        }
    }
    tags.sort();
    Some(tags)
}

fn annotated(key: &str, value: String, entry: &Entry, tags: &mut Vec<Tag>, report: &mut Report) {
    check(key, entry.key_span, report);
    if let Some(mistake) = unfit(key, &value) {
        report.add::<()>(entry.value.span, mistake);
    }
    add(tags, Tag { key: key.to_owned(), value }, entry.key_span, report);
}

fn unknown(entry: &Entry, report: &mut Report) {
    let mistake = Diagnostic::error(format!("unknown annotation {:?}", entry.key))
        .help(format!("a tag of the object's requests is {ANNOTATION_PREFIX}NAME: VALUE"));
    report.add::<()>(entry.key_span, mistake);
}

/// `own` and what is in `of_workload` under other keys, sorted.
pub fn merged(of_workload: &[Tag], own: &[Tag]) -> Vec<Tag> {
    let is_own = |tag: &&Tag| own.iter().any(|other| other.key.eq_ignore_ascii_case(&tag.key));
    let mut tags: Vec<Tag> = of_workload.iter().filter(|tag| !is_own(tag)).chain(own).cloned().collect();
    tags.sort();
    tags
}

/// Whether an annotation is one that Weft gives a meaning to, or would if it were spelt right.
fn is_ours(annotation: &str) -> bool {
    let domain = annotation.split_once('/').map(|(domain, _)| domain);
    let rest = domain.and_then(|domain| domain.strip_suffix(OUR_DOMAIN));
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Reports a key that cannot be a header's name.
pub fn check(key: &str, span: Span, report: &mut Report) {
    let in_key = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(in_key) {
        let mistake = Diagnostic::error(format!("{key:?} cannot be a tag"))
            .help("use at most 63 letters, digits, dots, underscores and dashes");
        report.add::<()>(span, mistake);
    }
}

/// What is wrong with `value`, if it cannot be carried in a header.
pub fn unfit(key: &str, value: &str) -> Option<Diagnostic> {
    let fits = value.len() <= MAX_VALUE && !value.chars().any(char::is_control) && value.trim() == value;
    (!fits).then(|| {
        Diagnostic::error(format!("the value of tag {key:?} cannot be carried in a header"))
            .help("use at most 1024 bytes, no control characters and no space at either end")
    })
}

fn add(tags: &mut Vec<Tag>, tag: Tag, span: Span, report: &mut Report) {
    if let Some(same) = tags.iter().find(|other| other.key.eq_ignore_ascii_case(&tag.key)) {
        let mistake = format!("tags {:?} and {:?} would be the same header", same.key, tag.key);
        return report.error(span, mistake).unwrap_or_default();
    }
    tags.push(tag);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &str, value: &str) -> Tag {
        Tag { key: key.into(), value: value.into() }
    }

    #[test]
    fn a_routes_tag_stands_in_for_the_workloads() {
        let workload = [tag("phase", "stable"), tag("team", "payments")];
        let merged = merged(&workload, &[tag("Phase", "canary"), tag("feature", "cart")]);
        assert_eq!(merged, [tag("Phase", "canary"), tag("feature", "cart"), tag("team", "payments")]);
    }

    #[test]
    fn annotations_of_our_domain_are_told_from_others() {
        for ours in ["weft.dev/tags", "tags.weft.dev/a", "tag.weft.dev/a"] {
            assert!(is_ours(ours), "{ours}");
        }
        for others in ["weft.dev", "driftweft.dev/a", "example.com/weft.dev", "weft.dev.example.com/a"] {
            assert!(!is_ours(others), "{others}");
        }
    }

    #[test]
    fn only_one_line_of_text_is_a_value() {
        for good in ["", "50% off", "ä \"quoted\" \\x", "%REQ(x)%", &"x".repeat(1_024)] {
            assert_eq!(unfit("k", good), None, "{good:?}");
        }
        for bad in ["a\nb", "\u{7f}", " a", "a\t", &"x".repeat(1_025)] {
            assert!(unfit("k", bad).is_some(), "{bad:?}");
        }
    }
}
