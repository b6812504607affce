//! YAML text to [`Node`]s, bounded in every direction.
//!
//! Aliases are refused rather than expanded: ten lines of them can mean gigabytes, and the schema has no use for
//! them. Depth and size are bounded because a file that exceeds them is a mistake, not a configuration.

use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput, Tag};

use super::{Entry, Node, Value};
use crate::diagnostic::{Diagnostic, Origin, Source, Span};

/// Deeper nesting is refused. The deepest path of the schema has about a dozen levels.
pub const MAX_DEPTH: usize = 64;
/// More values than this in one file are refused: about 40 MB of memory.
pub const MAX_NODES: usize = 400_000;

/// More keys than this in one mapping are refused; it also keeps the search for duplicates short.
pub const MAX_KEYS: usize = 1_000;

/// After this many mistakes a file is not read any further: nobody reads them.
pub const MAX_MISTAKES: usize = 100;

/// The documents of a file, in order; empty ones are left out.
///
/// A syntax error ends the parse; refused constructs and duplicate keys are collected, up to [`MAX_MISTAKES`].
pub fn documents(source: &Arc<Source>) -> Result<Vec<Node>, Vec<Diagnostic>> {
    let mut builder = Builder::new(source);
    let mut parser = Parser::new_from_str(source.text.trim_start_matches('\u{feff}'));
    while builder.mistakes.len() < MAX_MISTAKES && builder.step(&mut parser) {}
    if builder.mistakes.is_empty() { Ok(builder.documents) } else { Err(builder.mistakes) }
}

struct Builder<'s> {
    source: &'s Arc<Source>,
    open: Vec<Collection>,
    nodes: usize,
    documents: Vec<Node>,
    mistakes: Vec<Diagnostic>,
}

enum Collection {
    List { span: Span, items: Vec<Node> },
    Map { span: Span, entries: Vec<Entry>, key: Option<(String, Span)> },
}

impl<'s> Builder<'s> {
    fn new(source: &'s Arc<Source>) -> Self {
        Self { source, open: Vec::new(), nodes: 0, documents: Vec::new(), mistakes: Vec::new() }
    }

    /// Takes one event; false when there is nothing more to take.
    fn step(&mut self, parser: &mut Parser<'_, StrInput<'_>>) -> bool {
        match parser.next_event() {
            None | Some(Ok((Event::StreamEnd, _))) => false,
            Some(Ok((event, span))) => self.event(event, extent(span)),
            Some(Err(error)) => {
                let end = self.last_place(*error.marker());
                self.mistake(end, format!("this is not valid YAML: {}", error.info()));
                false
            }
        }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> bool {
        match event {
            Event::Scalar(text, style, _, tag) => {
                let value = self.scalar(text.into_owned(), style, tag.as_deref(), span);
                self.value(Node { span, value })
            }
            Event::SequenceStart(_, tag) => {
                self.refuse_tag(tag.as_deref(), span);
                self.enter(Collection::List { span, items: Vec::new() }, span)
            }
            Event::MappingStart(_, tag) => {
                self.refuse_tag(tag.as_deref(), span);
                self.enter(Collection::Map { span, entries: Vec::new(), key: None }, span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave(),
            Event::Alias(_) => {
                self.add(span, Diagnostic::error("aliases are not supported").help("write the value out"));
                self.value(Node { span, value: Value::Null })
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => true,
        }
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Value {
        match tag {
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Value::Text(text),
            Some(_) => {
                self.refuse_tag(tag, span);
                Value::Null
            }
            None if style == ScalarStyle::Plain => plain(text),
            None => Value::Text(text),
        }
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, span: Span) {
        if let Some(tag) = tag {
            self.mistake(span, format!("the YAML tag {tag} is not supported"));
        }
    }

    fn enter(&mut self, collection: Collection, span: Span) -> bool {
        if self.open.len() >= MAX_DEPTH {
            self.mistake(span, format!("nested more than {MAX_DEPTH} levels deep"));
            return false;
        }
        self.open.push(collection);
        true
    }

    fn leave(&mut self) -> bool {
        match self.open.pop() {
            Some(Collection::List { span, items }) => self.value(Node { span, value: Value::List(items) }),
            Some(Collection::Map { span, entries, .. }) => {
                self.value(Node { span, value: Value::Map(entries) })
            }
            None => true,
        }
    }

    /// Puts a finished value where it belongs: into the innermost open collection, or as a document. False if that is one
    /// too many.
    fn value(&mut self, node: Node) -> bool {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            self.mistake(node.span, format!("more than {MAX_NODES} values in one file"));
            return false;
        }
        match self.open.last_mut() {
            None if node.value == Value::Null => true,
            None => {
                self.documents.push(node);
                true
            }
            Some(Collection::List { items, .. }) => {
                items.push(node);
                true
            }
            Some(Collection::Map { key, .. }) => match key.take() {
                None => self.key(node),
                Some((key, key_span)) => self.entry(key, key_span, node),
            },
        }
    }

    /// Takes `node` as the key of the innermost mapping.
    fn key(&mut self, node: Node) -> bool {
        let text = scalar_text(&node.value);
        if text.is_none() {
            self.mistake(node.span, "a key must be a text".into());
        }
        if let Some(Collection::Map { key, .. }) = self.open.last_mut() {
            *key = Some((text.unwrap_or_default(), node.span));
        }
        true
    }

    /// Takes `value` as what `key` of the innermost mapping is set to; the first of several counts.
    fn entry(&mut self, key: String, key_span: Span, value: Node) -> bool {
        let Some(Collection::Map { entries, .. }) = self.open.last_mut() else { return true };
        if entries.len() >= MAX_KEYS {
            self.mistake(value.span, format!("more than {MAX_KEYS} keys in one mapping"));
            return false;
        }
        match entries.iter().find(|entry| entry.key == key).map(|entry| entry.key_span.line) {
            Some(line) => self.mistake(key_span, format!("{key:?} is already set in line {line}")),
            None => entries.push(Entry { key, key_span, value }),
        }
        true
    }

    fn mistake(&mut self, span: Span, message: String) {
        self.add(span, Diagnostic::error(message));
    }

    fn add(&mut self, span: Span, mistake: Diagnostic) {
        self.mistakes.push(mistake.at(&Origin::new(self.source, span)));
    }

    /// The parser reports what it misses at the end of the file one line below it; the last line says more.
    fn last_place(&self, marker: Marker) -> Span {
        let lines = self.source.text.lines().count().max(1);
        if marker.line() <= lines {
            return Span { line: marker.line(), column: marker.col() + 1, width: 1 };
        }
        let column = self.source.text.lines().last().map_or(0, |line| line.trim_end().chars().count());
        Span { line: lines, column: column.max(1), width: 1 }
    }
}

fn extent(span: saphyr_parser::Span) -> Span {
    let (start, end) = (span.start, span.end);
    let width = if start.line() == end.line() { end.col().saturating_sub(start.col()) } else { 1 };
    Span { line: start.line(), column: start.col() + 1, width }
}

/// Resolves an unquoted scalar: YAML 1.2.2, section 10.3.2.
fn plain(text: String) -> Value {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(&text).unwrap_or(Value::Text(text)),
    }
}

fn number(text: &str) -> Option<Value> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if let Some(octal) = text.strip_prefix("0o") {
        return i64::from_str_radix(octal, 8).ok().map(Value::Integer);
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(Value::Integer);
    }
    if matches!(digits, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return Some(Value::Float(f64::NAN));
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || !digits.contains(|c: char| c.is_ascii_digit())
    {
        return None;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().map_or_else(|_| Value::Float(f64::INFINITY), Value::Integer));
    }
    text.parse().ok().map(Value::Float)
}

/// A key may look like a number or a boolean: label keys do.
fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Integer(value) => Some(value.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::Float(_) | Value::List(_) | Value::Map(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Vec<Node>, Vec<String>> {
        let source = Arc::new(Source { name: "f.yaml".into(), text: text.into() });
        documents(&source).map_err(|mistakes| mistakes.iter().map(Diagnostic::summary).collect())
    }

    fn only(text: &str) -> Node {
        let mut documents = parse(text).expect("valid YAML");
        assert_eq!(documents.len(), 1, "{documents:?}");
        documents.remove(0)
    }

    #[test]
    fn values_follow_the_core_schema() {
        for (text, value) in [
            ("~", Value::Null),
            ("true", Value::Bool(true)),
            ("yes", Value::Text("yes".into())),
            ("'1'", Value::Text("1".into())),
            ("!!str 1", Value::Text("1".into())),
            ("-12", Value::Integer(-12)),
            ("0x1f", Value::Integer(31)),
            ("0o17", Value::Integer(15)),
            ("1.5e3", Value::Float(1500.0)),
            ("1.2.3", Value::Text("1.2.3".into())),
            ("127.0.0.1:15000", Value::Text("127.0.0.1:15000".into())),
            (".", Value::Text(".".into())),
            ("2024-01-01T00:00:00Z", Value::Text("2024-01-01T00:00:00Z".into())),
        ] {
            assert_eq!(only(&format!("k: {text}")).get("k").map(|node| &node.value), Some(&value), "{text}");
        }
    }

    #[test]
    fn several_documents_are_read_and_empty_ones_left_out() {
        assert_eq!(parse("---\na: 1\n---\n---\n# nothing\n---\nb: 2\n").map(|all| all.len()), Ok(2));
        assert_eq!(parse(""), Ok(vec![]));
    }

    #[test]
    fn json_is_read_too_with_tabs_and_all() {
        let node = only("{\n\t\"a\": [1, {\"b\": null}],\n\t\"c\": \"x\"\n}\n");
        assert_eq!(node.get("c").map(|node| node.span.line), Some(3));
    }

    #[test]
    fn places_count_from_one() {
        let node = only("a:\n  - b: hello\n");
        let Some(Value::List(items)) = node.get("a").map(|node| node.value.clone()) else {
            panic!("{node:?}")
        };
        let b = items[0].get("b").expect("b");
        assert_eq!((b.span.line, b.span.column, b.span.width), (2, 8, 5));
    }

    #[test]
    fn what_is_refused_is_refused_with_its_place() {
        for (text, messages) in [
            (
                "a: 1\nb: 2\na: 3\na: 4\n",
                &["f.yaml:3:1: \"a\" is already set in line 1", "f.yaml:4:1: \"a\" is already set in line 1"]
                    [..],
            ),
            ("a: &x 1\nb: *x\n", &["f.yaml:2:4: aliases are not supported (write the value out)"]),
            ("a: !secret x\n", &["f.yaml:1:4: the YAML tag !secret is not supported"]),
            ("? [1]\n: 2\n", &["f.yaml:1:3: a key must be a text"]),
        ] {
            assert_eq!(parse(text).expect_err(text), messages, "{text}");
        }
    }

    #[test]
    fn a_broken_file_is_reported_inside_of_it() {
        for text in ["a: [1, 2\n", "a: 'x\n", "a: b: c\n", "{", "a:\n\t- b\n"] {
            let mistakes = parse(text).expect_err(text);
            assert!(mistakes[0].contains("this is not valid YAML"), "{text:?}: {mistakes:?}");
            let line: usize = mistakes[0].split(':').nth(1).and_then(|line| line.parse().ok()).expect("line");
            assert!(line <= text.lines().count(), "{mistakes:?}");
        }
    }

    #[test]
    fn depth_and_size_are_bounded() {
        assert_eq!(parse(&"[".repeat(100_000)).expect_err("far too deep").len(), 1);
        let deep = "[".repeat(MAX_DEPTH + 1);
        let mistakes = parse(&deep).expect_err("deep");
        assert!(mistakes[0].contains("nested more than 64"), "{mistakes:?}");
        let repeated = parse(&"a: 1\n".repeat(100_000)).expect_err("many mistakes");
        assert_eq!(repeated.len(), MAX_MISTAKES);
        let wide = format!("[{}]", "1,".repeat(MAX_NODES + 1));
        assert!(parse(&wide).expect_err("wide")[0].contains("more than 400000 values"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}|[-:\\[\\]{},&*!?|>'\"%@`# \\n\\ta-c0-9]{0,80}") {
            parse(&text).ok();
        }
    }
}
