//! Nodes to types, with all mistakes of a document in one go.
//!
//! A decoder is a function `fn(&Node, &mut Report) -> Option<T>`: `None` means that it has said in the report what is
//! wrong. [`Fields`] takes a mapping apart field by field and, at the end, names every field that nobody asked for. A
//! document counts as good only if its report has no error; so a decoder may go on after a mistake and find the next.
//!
//! The same run over nothing tells what a decoder takes ([`describe`]), from which the schema for editors is made. So a
//! decoder asks for fields inside of the closure that reads their parent, and takes all of them before it gives up.

mod shape;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

pub use shape::Shape;

use shape::{ANYTHING, Notes};

use super::yaml::MAX_MISTAKES;
use super::{Entry, Node, Value};
use crate::diagnostic::{Diagnostic, Origin, Source, Span};

/// Collects the mistakes of one file.
#[derive(Debug)]
pub struct Report {
    source: Arc<Source>,
    diagnostics: Vec<Diagnostic>,
    /// Only while a decoder is described.
    notes: Option<Box<Notes>>,
}

/// A mapping being taken apart. Ends with [`Fields::finish`], which reports what is left.
#[derive(Debug)]
pub struct Fields<'n, 'r> {
    what: &'static str,
    span: Span,
    entries: &'n [Entry],
    asked: Vec<&'static str>,
    report: &'r mut Report,
}

impl Report {
    /// An empty report about `source`.
    pub fn new(source: &Arc<Source>) -> Self {
        Self { source: Arc::clone(source), diagnostics: Vec::new(), notes: None }
    }

    /// The place `span` of the file this is about.
    pub fn origin(&self, span: Span) -> Origin {
        Origin::new(&self.source, span)
    }

    /// Adds a mistake, at `span`; always `None`, so that a decoder can end with it.
    pub fn error<T>(&mut self, span: Span, message: impl Into<String>) -> Option<T> {
        self.add(span, Diagnostic::error(message))
    }

    /// Adds `diagnostic`, at `span`, unless there are enough; always `None`.
    pub fn add<T>(&mut self, span: Span, diagnostic: Diagnostic) -> Option<T> {
        if self.diagnostics.len() < MAX_MISTAKES {
            let origin = self.origin(span);
            self.diagnostics.push(diagnostic.at(&origin));
        }
        None
    }

    /// How many errors were found so far.
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count()
    }

    /// Everything found, in the order it was found.
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.diagnostics
    }

    /// Takes `node` apart as a mapping; `what` names it in messages.
    pub fn fields<'n>(&mut self, node: &'n Node, what: &'static str) -> Option<Fields<'n, '_>> {
        self.saw(|| Shape::Object { what, fields: BTreeMap::new() });
        match &node.value {
            Value::Map(entries) => {
                Some(Fields { what, span: node.span, entries, asked: Vec::new(), report: self })
            }
            _ => self.error(node.span, format!("{what} must be a mapping, this is {}", node.described())),
        }
    }

    /// Notes down what is read, if a decoder is being described; returns whether one is.
    pub fn saw(&mut self, shape: impl FnOnce() -> Shape) -> bool {
        if let Some(notes) = &mut self.notes {
            notes.saw(shape());
        }
        self.notes.is_some()
    }

    /// Lets `decode` read the field `name`.
    fn field<T>(&mut self, name: &'static str, is_required: bool, decode: impl FnOnce(&mut Self) -> T) -> T {
        if let Some(notes) = &mut self.notes {
            notes.enter(name);
        }
        let value = decode(self);
        if let Some(notes) = &mut self.notes {
            notes.leave_field(is_required);
        }
        value
    }

    /// Lets `decode` read an item of a list, which is the field that is being read.
    fn described_item<'n, T>(
        &mut self,
        decode: impl FnOnce(&'n Node, &mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.notes.as_mut()?.enter("");
        let item = decode(&ANYTHING, self);
        self.notes.as_mut()?.leave_list();
        Some(item.into_iter().collect())
    }
}

/// What `decode` takes of what stands at `node`'s place, which may say some of it already.
pub fn describe<T>(node: &Node, mut decode: impl FnMut(&Node, &mut Report) -> Option<T>) -> Shape {
    let source = Arc::new(Source { name: String::new(), text: String::new() });
    shape::shape(|notes| {
        let mut report =
            Report { source: Arc::clone(&source), diagnostics: Vec::new(), notes: Some(Box::new(notes)) };
        decode(node, &mut report);
        report.notes.map(|notes| *notes).unwrap_or_default()
    })
}

impl<'n> Fields<'n, '_> {
    /// The field as `decode` reads it; `None` if it is absent, null, or wrong (which is then reported).
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        decode: impl FnOnce(&'n Node, &mut Report) -> Option<T>,
    ) -> Option<T> {
        let node = self.take(name)?;
        self.report.field(name, false, |report| decode(node, report))
    }

    /// As [`Fields::optional`], but its absence is a mistake.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        decode: impl FnOnce(&'n Node, &mut Report) -> Option<T>,
    ) -> Option<T> {
        match self.take(name) {
            Some(node) => self.report.field(name, true, |report| decode(node, report)),
            None => self.report.error(self.span, format!("{} has no {name:?}", self.what)),
        }
    }

    /// The items of a list that is empty where the field is absent; wrong ones are reported and left out.
    pub fn list<T>(
        &mut self,
        name: &'static str,
        mut decode: impl FnMut(&'n Node, &mut Report) -> Option<T>,
    ) -> Vec<T> {
        let node = self.take(name);
        if self.report.notes.is_some() {
            return self
                .report
                .field(name, false, |report| report.described_item(decode))
                .unwrap_or_default();
        }
        match node {
            Some(Node { value: Value::List(items), .. }) => {
                items.iter().filter_map(|item| decode(item, self.report)).collect()
            }
            Some(node) => self
                .report
                .error(node.span, format!("{name:?} must be a list, this is {}", node.described()))
                .unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// Fields that may be there and mean nothing here, as `status`.
    pub fn accept(&mut self, names: &[&'static str]) {
        self.asked.extend(names);
        for name in names {
            self.report.field(name, false, |_| {});
        }
    }

    /// Fields of the API that are not supported yet: a mistake if one says anything.
    pub fn unsupported(&mut self, names: &[&'static str]) {
        self.asked.extend(names);
        for name in names {
            self.report.field(name, false, |report| report.saw(|| Shape::Empty));
        }
        for entry in self.entries.iter().filter(|entry| names.contains(&entry.key.as_str())) {
            if !entry.value.is_empty() {
                self.report.error::<()>(
                    entry.key_span,
                    format!("{:?} of {} is not supported yet", entry.key, self.what),
                );
            }
        }
    }

    /// Adds a mistake about the mapping as a whole.
    pub fn error<T>(&mut self, message: impl Into<String>) -> Option<T> {
        self.report.error(self.span, message)
    }

    /// The report, for what concerns several fields.
    pub fn report(&mut self) -> &mut Report {
        self.report
    }

    /// The place of the field's key, or of the mapping if the field is absent.
    pub fn key_span(&self, name: &str) -> Span {
        self.entries.iter().find(|entry| entry.key == name).map_or(self.span, |entry| entry.key_span)
    }

    /// Reports every field that nobody asked for, with the nearest of those that were asked for.
    pub fn finish(self) {
        for entry in self.entries.iter().filter(|entry| !self.asked.contains(&entry.key.as_str())) {
            let unknown = Diagnostic::error(format!("unknown field {:?} in {}", entry.key, self.what))
                .nearest(&entry.key, self.asked.iter().copied());
            self.report.add::<()>(entry.key_span, unknown);
        }
    }

    fn take(&mut self, name: &'static str) -> Option<&'n Node> {
        self.asked.push(name);
        let Some(entry) = self.entries.iter().find(|entry| entry.key == name) else {
            return self.report.notes.is_some().then_some(&ANYTHING);
        };
        (entry.value.value != Value::Null).then_some(&entry.value)
    }
}

/// A text. A number or boolean is refused with the advice to quote it, as Kubernetes does.
pub fn text(node: &Node, report: &mut Report) -> Option<String> {
    if report.saw(|| Shape::Text) && node == &ANYTHING {
        return Some("x".into());
    }
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Bool(_) | Value::Integer(_) | Value::Float(_) => report.add(
            node.span,
            Diagnostic::error(format!("a text is expected, this is {}", node.described()))
                .help("put it in quotes"),
        ),
        Value::Null | Value::List(_) | Value::Map(_) => {
            report.error(node.span, format!("a text is expected, this is {}", node.described()))
        }
    }
}

/// A boolean.
pub fn boolean(node: &Node, report: &mut Report) -> Option<bool> {
    if report.saw(|| Shape::Boolean) {
        return Some(false);
    }
    match node.value {
        Value::Bool(value) => Some(value),
        _ => report.error(node.span, format!("true or false is expected, this is {}", node.described())),
    }
}

/// A whole number from `low` to `high`.
pub fn integer<T>(low: T, high: T) -> impl Fn(&Node, &mut Report) -> Option<T>
where
    T: TryFrom<i64> + PartialOrd + Display + Copy,
{
    move |node, report| {
        let bound = |value: T, none| value.to_string().parse().unwrap_or(none);
        if report.saw(|| Shape::Integer(bound(low, i64::MIN), bound(high, i64::MAX))) {
            return Some(low);
        }
        let value = match node.value {
            Value::Integer(value) => T::try_from(value).ok(),
            _ => None,
        };
        match value {
            Some(value) if value >= low && value <= high => Some(value),
            _ => report.error(
                node.span,
                format!("a whole number from {low} to {high} is expected, this is {}", node.described()),
            ),
        }
    }
}

/// A port number.
pub fn port(node: &Node, report: &mut Report) -> Option<u16> {
    integer(1, u16::MAX)(node, report)
}

/// A text that is itself a value of type `T`, as an address; `expected` describes it.
pub fn parsed<T: FromStr>(expected: &'static str) -> impl Fn(&Node, &mut Report) -> Option<T> {
    move |node, report| {
        let given = text(node, report)?;
        given.parse().ok().or_else(|| report.error(node.span, format!("{given:?} is not {expected}")))
    }
}

/// One of a few words; anything else is reported with the nearest of them.
pub fn one_of<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Node, &mut Report) -> Option<T> {
    move |node, report| {
        report.saw(|| Shape::Words(words.iter().map(|(word, _)| (*word).to_owned()).collect()));
        if let Some(notes) = &mut report.notes {
            let choice = notes.choose(words.len());
            return words.get(choice).map(|(_, value)| *value);
        }
        let given = text(node, report)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == given) {
            return Some(*value);
        }
        let choices: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let mistake = Diagnostic::error(format!("{given:?} is not one of {}", choices.join(", ")));
        let longer = only_longer(&given, &choices).map(|word| format!("did you mean {word:?}?"));
        let mistake = longer.into_iter().fold(mistake, Diagnostic::help);
        report.add(node.span, mistake.nearest(&given, choices))
    }
}

/// The one word of which somebody wrote only a part: `Prefix` for `PathPrefix`.
fn only_longer<'w>(given: &str, words: &[&'w str]) -> Option<&'w str> {
    let mut longer = words.iter().filter(|word| given.len() > 2 && word.contains(given));
    longer.next().filter(|_| longer.next().is_none()).copied()
}

/// A mapping of texts to texts, in the order of the file.
pub fn texts<'n>(node: &'n Node, report: &mut Report) -> Option<Vec<(&'n Entry, String)>> {
    report.saw(|| Shape::Texts);
    match &node.value {
        Value::Map(entries) => {
            Some(entries.iter().filter_map(|entry| Some((entry, text(&entry.value, report)?))).collect())
        }
        _ => report.error(node.span, format!("a mapping is expected, this is {}", node.described())),
    }
}

/// A duration as the Gateway API writes it (GEP-2257): `500ms`, `2s`, `1h30m`.
pub fn duration(node: &Node, report: &mut Report) -> Option<std::time::Duration> {
    if report.saw(|| Shape::Like("^([0-9]{1,5}(h|m|s|ms)){1,4}$")) {
        return Some(std::time::Duration::from_secs(1));
    }
    let value = match &node.value {
        Value::Text(given) => parse_duration(given),
        _ => None,
    };
    value.or_else(|| {
        let expected = "a duration as 500ms, 2s or 1h30m is expected";
        report.error(node.span, format!("{expected}, this is {}", node.described()))
    })
}

fn parse_duration(text: &str) -> Option<std::time::Duration> {
    let mut rest = text;
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| (1..=5).contains(at))?;
        let (number, unit) = rest.split_at(digits);
        let (milliseconds, after) = unit
            .strip_prefix("ms")
            .map(|after| (1, after))
            .or_else(|| unit.strip_prefix('s').map(|after| (1_000, after)))
            .or_else(|| unit.strip_prefix('m').map(|after| (60_000, after)))
            .or_else(|| unit.strip_prefix('h').map(|after| (3_600_000, after)))?;
        total += number.parse::<u64>().ok()? * milliseconds;
        rest = after;
    }
    Some(std::time::Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::read::yaml;

    fn decode<T>(
        text: &str,
        decode: impl FnOnce(&Node, &mut Report) -> Option<T>,
    ) -> (Option<T>, Vec<String>) {
        let source = Arc::new(Source { name: "f.yaml".into(), text: text.into() });
        let documents = yaml::documents(&source).expect("valid YAML");
        let mut report = Report::new(&source);
        let value = decode(&documents[0], &mut report);
        (value, report.into_diagnostics().iter().map(Diagnostic::summary).collect())
    }

    #[test]
    fn all_mistakes_of_a_mapping_are_reported_at_once() {
        let (value, mistakes) = decode("weigth: 1\nport: 70000\nname: 5\nfilters: [x]\n", |node, report| {
            let mut fields = report.fields(node, "backendRef")?;
            let name = fields.required("name", text);
            let port = fields.optional("port", port);
            let weight = fields.optional("weight", integer(0, 100));
            let kind = fields.required("kind", text);
            fields.unsupported(&["filters"]);
            fields.finish();
            Some((name, port, weight, kind))
        });
        assert_eq!(value, Some((None, None, None, None)));
        assert_eq!(
            mistakes,
            [
                "f.yaml:3:7: a text is expected, this is the number 5 (put it in quotes)",
                "f.yaml:2:7: a whole number from 1 to 65535 is expected, this is the number 70000",
                "f.yaml:1:1: backendRef has no \"kind\"",
                "f.yaml:4:1: \"filters\" of backendRef is not supported yet",
                "f.yaml:1:1: unknown field \"weigth\" in backendRef (did you mean \"weight\"?)",
            ]
        );
    }

    #[test]
    fn words_are_matched_exactly_and_the_nearest_is_offered() {
        let words = [("Exact", 1), ("PathPrefix", 2)];
        let read = |text: &str| decode(text, |node, report| one_of(&words)(node.get("k")?, report));
        assert_eq!(read("k: PathPrefix").0, Some(2));
        assert_eq!(
            read("k: Pathprefix").1,
            ["f.yaml:1:4: \"Pathprefix\" is not one of Exact, PathPrefix (did you mean \"PathPrefix\"?)"]
        );
    }

    #[test]
    fn durations_are_those_of_the_gateway_api() {
        for (text, milliseconds) in [("2s", 2_000), ("1h30m", 5_400_000), ("500ms", 500), ("0s", 0)] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "2", "s", "1.5s", "-1s", "2 s", "1d", "123456s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
