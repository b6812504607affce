//! What is wrong with a configuration, where it is, and what would be right.
//!
//! A [`Diagnostic`] is shown as a compiler shows its own:
//!
//! ```text
//! error: unknown field "weigth"
//!   --> routes.yaml:14:9
//!    |
//! 14 |         weigth: 10
//!    |         ^^^^^^
//!    = help: did you mean "weight"?
//! ```

mod redaction;

use std::fmt;
use std::sync::Arc;

/// More of a line than this is not shown: a minified JSON file is one line.
const EXCERPT_WIDTH: usize = 120;

/// A longer message loses its middle: it quotes something that is no name.
const MESSAGE_WIDTH: usize = 400;

/// Longer texts are no misspelt names; comparing them costs the product of the lengths.
const MISSPELT_BYTES: usize = 128;

/// Escape sequences of ECMA-48 (SGR).
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const BLUE: &str = "\x1b[1;34m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// A configuration file as it was read: the name the user knows it by, and its text.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// The path as given on the command line, joined with the file's name.
    pub name: String,
    /// What the file held.
    pub text: String,
}

/// A place in a text: line and column count from 1, in characters; `width` ends with the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// How many characters are meant; 0 is shown as 1.
    pub width: usize,
}

/// A place in a file. Cheap to clone; displayed as `file:line:column`, and equal to what is displayed alike: the same place
/// in a later state of the file, too.
#[derive(Clone)]
pub struct Origin {
    source: Arc<Source>,
    span: Span,
}

/// How bad it is: an error keeps the file's last good state in force, a warning does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used as it is.
    Error,
    /// It can, but probably does not do what was meant.
    Warning,
}

/// One mistake, with its place and, where it is known, the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// One sentence, without the place.
    pub message: String,
    /// Where; absent if the mistake has no place, as a missing `Sidecar`.
    pub origin: Option<Origin>,
    /// What to do about it.
    pub help: Option<String>,
    /// Whether it is a reference that leads nowhere. The documents can be used all the same: the Gateway API says what
    /// becomes of the requests for it.
    pub leads_nowhere: bool,
    /// The other places that contradict this one: either may be at fault.
    pub others: Vec<Origin>,
}

impl Origin {
    /// The place `span` of `source`.
    pub fn new(source: &Arc<Source>, span: Span) -> Self {
        Self { source: Arc::clone(source), span }
    }

    /// Another place in the same file.
    #[must_use]
    pub fn with_span(&self, span: Span) -> Self {
        Self { source: Arc::clone(&self.source), span }
    }

    /// The file, by the name the user knows.
    pub fn file(&self) -> &str {
        &self.source.name
    }

    /// The place in the file.
    pub fn span(&self) -> Span {
        self.span
    }

    /// What the carets are under: all of a line that is not shown.
    fn shown_span(&self) -> Span {
        if redaction::is_secret(&self.source.text, self.span.line) {
            return Span { column: 1, width: redaction::NOT_SHOWN.chars().count(), ..self.span };
        }
        self.span
    }

    fn line_of_text(&self) -> &str {
        if redaction::is_secret(&self.source.text, self.span.line) {
            return redaction::NOT_SHOWN;
        }
        self.source.text.lines().nth(self.span.line.saturating_sub(1)).unwrap_or_default()
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.span == other.span
            && (Arc::ptr_eq(&self.source, &other.source) || self.source.name == other.source.name)
    }
}

impl Eq for Origin {}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file: String = self.source.name.chars().map(printable).collect();
        write!(f, "{file}:{}:{}", self.span.line, self.span.column)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

impl Diagnostic {
    /// A mistake that keeps the configuration from being used.
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: one_line(message.into()),
            origin: None,
            help: None,
            leads_nowhere: false,
            others: Vec::new(),
        }
    }

    /// Something that is probably not meant.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// The same, at a place.
    #[must_use]
    pub fn at(self, origin: &Origin) -> Self {
        Self { origin: Some(origin.clone()), ..self }
    }

    /// The same, of a reference that leads nowhere.
    #[must_use]
    pub fn leading_nowhere(self) -> Self {
        Self { leads_nowhere: true, ..self }
    }

    /// The same, with what becomes of it after the message.
    #[must_use]
    pub fn with_effect(self, effect: &str) -> Self {
        Self { message: format!("{}; {effect}", self.message), ..self }
    }

    /// The same, with the places that say otherwise.
    #[must_use]
    pub fn against<'a>(self, others: impl IntoIterator<Item = &'a Origin>) -> Self {
        Self { others: others.into_iter().cloned().collect(), ..self }
    }

    /// The same, with a way out.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// The same, with the candidate that is spelt most alike as the way out, if one is near.
    #[must_use]
    pub fn nearest<'a>(self, given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(given, candidates) {
            Some(right) => self.help(format!("did you mean {right:?}?")),
            None => self,
        }
    }

    /// Whether this keeps the configuration from being used.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Whether nothing can be made of the documents that it is about.
    pub fn is_fatal(&self) -> bool {
        self.is_error() && !self.leads_nowhere
    }

    /// The files in which it may have been made.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.origin.iter().chain(&self.others).map(Origin::file)
    }

    /// The mistake and its place in one line, as a log line wants it.
    pub fn summary(&self) -> String {
        let place = self.origin.as_ref().map(|origin| format!("{origin}: ")).unwrap_or_default();
        let help = self.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{place}{}{help}", self.message)
    }
}

/// `{:#}` is the same in the colours that compilers use on a terminal.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let color = match self.severity {
            Severity::Error => RED,
            Severity::Warning => YELLOW,
        };
        paint(f, color, self.severity)?;
        paint(f, BOLD, format_args!(": {}", self.message))?;
        let gutter = self.origin.as_ref().map_or(0, |origin| origin.span.line.to_string().len());
        if let Some(origin) = &self.origin {
            write_excerpt(f, origin, gutter, color)?;
        }
        let Some(help) = &self.help else { return Ok(()) };
        paint(f, BLUE, format_args!("\n{:gutter$} =", ""))?;
        paint(f, BOLD, " help:")?;
        write!(f, " {help}")
    }
}

/// The candidate nearest to `given`, if a reader would take one for the other.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if given.len() > MISSPELT_BYTES {
        return None;
    }
    let given = given.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&given, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().max(3) / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

fn one_line(message: String) -> String {
    shortened(message).chars().map(printable).collect()
}

/// At most [`MESSAGE_WIDTH`] characters: beginning and end stay.
pub(crate) fn shortened(message: String) -> String {
    let half = MESSAGE_WIDTH / 2;
    let beginning = message.char_indices().nth(half).map(|(at, _)| at);
    let end = message.char_indices().rev().nth(half).map(|(at, _)| at);
    match (beginning, end) {
        (Some(beginning), Some(end)) if beginning < end => {
            let (beginning, end) = (message.get(..beginning), message.get(end..));
            format!("{} … {}", beginning.unwrap_or_default(), end.unwrap_or_default())
        }
        _ => message,
    }
}

fn write_excerpt(
    f: &mut fmt::Formatter<'_>,
    origin: &Origin,
    gutter: usize,
    color: &'static str,
) -> fmt::Result {
    let Span { line, column, width } = origin.shown_span();
    let skipped = if column > EXCERPT_WIDTH { column - EXCERPT_WIDTH / 2 } else { 0 };
    let shown: String =
        origin.line_of_text().chars().skip(skipped).take(EXCERPT_WIDTH).map(printable).collect();
    let before = column.saturating_sub(1 + skipped);
    let carets = width.max(1).min(shown.chars().count().saturating_sub(before).max(1));
    paint(f, BLUE, format_args!("\n{:gutter$}-->", ""))?;
    write!(f, " {origin}")?;
    paint(f, BLUE, format_args!("\n{:gutter$} |\n{line} |", ""))?;
    write!(f, " {}", shown.trim_end())?;
    paint(f, BLUE, format_args!("\n{:gutter$} |", ""))?;
    write!(f, " {:before$}", "")?;
    paint(f, color, format_args!("{:^<carets$}", ""))
}

fn paint(f: &mut fmt::Formatter<'_>, color: &'static str, text: impl fmt::Display) -> fmt::Result {
    if f.alternate() { write!(f, "{color}{text}{PLAIN}") } else { write!(f, "{text}") }
}

/// Keeps the carets under their text, and a terminal from obeying a file.
fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str, line: usize, column: usize, width: usize) -> Origin {
        let source = Arc::new(Source { name: "routes.yaml".into(), text: text.into() });
        Origin::new(&source, Span { line, column, width })
    }

    #[test]
    fn a_diagnostic_reads_like_a_compilers() {
        let shown = Diagnostic::error("unknown field \"weigth\"")
            .at(&origin("a: 1\n  weigth: 10\n", 2, 3, 6))
            .nearest("weigth", ["name", "weight"])
            .to_string();
        assert_eq!(
            shown,
            "error: unknown field \"weigth\"\n --> routes.yaml:2:3\n  |\n2 |   weigth: 10\n  |   ^^^^^^\n  = help: did you mean \"weight\"?"
        );
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let mistake = Diagnostic::error("no").at(&origin("a: 1\n", 1, 4, 1)).help("say 2");
        let colored = format!("{mistake:#}");
        let codes = [RED, YELLOW, BLUE, BOLD, PLAIN];
        let plain = codes.iter().fold(colored.clone(), |text, code| text.replace(code, ""));
        assert_eq!(plain, mistake.to_string());
        assert!(colored.starts_with("\x1b[1;31merror\x1b[0m"), "{colored:?}");
    }

    #[test]
    fn a_place_beyond_the_text_is_shown_without_an_excerpt() {
        let shown = Diagnostic::warning("odd").at(&origin("", 7, 9, 4)).to_string();
        assert_eq!(shown, "warning: odd\n --> routes.yaml:7:9\n  |\n7 | \n  |         ^");
    }

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let text = format!("{}here{}", "x".repeat(5_000), "y".repeat(5_000));
        let shown = Diagnostic::error("no").at(&origin(&text, 1, 5_001, 4)).to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() < 140), "{shown}");
        let column = lines[4].find('^').expect("carets");
        assert_eq!(&lines[3][column..column + 4], "here");
    }

    #[test]
    fn the_name_of_a_file_gives_no_orders_to_the_terminal() {
        let source = Arc::new(Source { name: "\u{1b}[2Jr.yaml".into(), text: String::new() });
        let origin = Origin::new(&source, Span { line: 1, column: 1, width: 1 });
        let shown = Diagnostic::error("cannot read \u{1b}[2J\n").at(&origin).to_string();
        assert!(!shown.contains('\u{1b}') && shown.starts_with("error: cannot read  [2J "), "{shown}");
    }

    #[test]
    fn a_message_that_quotes_half_a_file_is_short() {
        let message = Diagnostic::error(format!("{:?} is not a name", "ä".repeat(1_000_000))).message;
        assert!(message.chars().count() < 410, "{message}");
        assert!(message.starts_with("\"ää") && message.ends_with("ää\" is not a name"), "{message}");
        assert_eq!(shortened("ä".repeat(400)), "ä".repeat(400));
        assert_eq!(nearest(&"x".repeat(1_000_000), ["name"]), None);
    }

    #[test]
    fn what_is_spelt_quite_differently_is_not_suggested() {
        assert_eq!(nearest("zebra", ["weight", "name"]), None);
        assert_eq!(nearest("HTPRoute", ["HTTPRoute", "GRPCRoute"]), Some("HTTPRoute"));
        assert_eq!(nearest("backendrefs", ["backendRefs"]), Some("backendRefs"));
    }
}
