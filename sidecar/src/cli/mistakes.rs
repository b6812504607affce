//! Mistakes on their way out: for people, for programs, and as annotations of a change on GitHub.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::diagnostic::{Diagnostic, Severity};

/// For whom mistakes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people, as compilers do, on stderr
    Human,
    /// One JSON object on stdout
    Json,
    /// Workflow commands of GitHub Actions, which annotate the lines of a change
    Github,
}

/// Shows mistakes to people.
pub(super) fn show(mistakes: &[Diagnostic]) {
    let colors = wants_colors(io::stderr().is_terminal(), |name| std::env::var_os(name));
    let mut stderr = io::stderr().lock();
    for mistake in mistakes {
        let written =
            if colors { writeln!(stderr, "{mistake:#}\n") } else { writeln!(stderr, "{mistake}\n") };
        // If stderr is gone there is nobody to tell.
        written.ok();
    }
}

/// Everything about a look at `files` files, as one object. Its shape is part of the interface (`docs/sidecar/cli.md`).
pub(super) fn as_json(files: usize, mistakes: &[Diagnostic]) -> Value {
    let count = |severity| mistakes.iter().filter(|mistake| mistake.severity == severity).count();
    json!({
        "files": files,
        "errors": count(Severity::Error),
        "warnings": count(Severity::Warning),
        "mistakes": mistakes.iter().map(mistake).collect::<Vec<_>>(),
    })
}

/// Each mistake as a workflow command, a line each.
pub(super) fn as_annotations(mistakes: &[Diagnostic]) -> String {
    mistakes.iter().map(|mistake| annotation(mistake) + "\n").collect()
}

fn mistake(of: &Diagnostic) -> Value {
    let place = of.origin.as_ref().map(|origin| (origin.file(), origin.span()));
    json!({
        "severity": of.severity.to_string(),
        "message": of.message,
        "help": of.help,
        "file": place.map(|(file, _)| file),
        "line": place.map(|(_, span)| span.line),
        "column": place.map(|(_, span)| span.column),
        "endColumn": place.map(|(_, span)| span.column + span.width.max(1)),
    })
}

fn annotation(of: &Diagnostic) -> String {
    let place = of.origin.as_ref().map(|origin| {
        let span = origin.span();
        let file = escaped(origin.file()).replace(':', "%3A").replace(',', "%2C");
        format!(
            " file={file},line={},endLine={},col={},endColumn={}",
            span.line,
            span.line,
            span.column,
            span.column + span.width.max(1)
        )
    });
    let help = of.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    format!("::{}{}::{}", of.severity, place.unwrap_or_default(), escaped(&format!("{}{help}", of.message)))
}

/// What ends a line would end the command (toolkit, `packages/core/src/command.ts`, `escapeData`).
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// <https://no-color.org> and <https://bixense.com/clicolors>.
fn wants_colors(terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let set = |name| variable(name).is_some_and(|value| !value.is_empty() && value != "0");
    set("CLICOLOR_FORCE")
        || (terminal && !set("NO_COLOR") && variable("TERM").is_none_or(|term| term != "dumb"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diagnostic::{Origin, Source, Span};

    fn somewhere(file: &str) -> Diagnostic {
        let source = Arc::new(Source { name: file.into(), text: "a: 100%\n".into() });
        let origin = Origin::new(&source, Span { line: 1, column: 4, width: 4 });
        Diagnostic::error("100% is no number").at(&origin).help("take 1")
    }

    #[test]
    fn an_annotation_cannot_be_broken_out_of() {
        assert_eq!(
            annotation(&somewhere("a,b:c\n::d.yaml")),
            "::error file=a%2Cb%3Ac%0A%3A%3Ad.yaml,line=1,endLine=1,col=4,endColumn=8::100%25 is no number (take 1)"
        );
        assert_eq!(annotation(&Diagnostic::warning("nothing here")), "::warning::nothing here");
    }

    #[test]
    fn the_object_counts_and_places() {
        let object = as_json(2, &[somewhere("a.yaml"), Diagnostic::warning("odd")]);
        assert_eq!(
            (&object["errors"], &object["warnings"], &object["files"]),
            (&1.into(), &1.into(), &2.into())
        );
        let first = &object["mistakes"][0];
        assert_eq!(
            (&first["file"], &first["line"], &first["endColumn"]),
            (&"a.yaml".into(), &1.into(), &8.into())
        );
        assert_eq!(object["mistakes"][1]["file"], Value::Null);
    }

    #[test]
    fn colours_are_for_terminals_and_for_who_asks() {
        let with = |terminal, set: &[(&str, &str)]| {
            wants_colors(terminal, |name| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            })
        };
        assert!(with(true, &[]) && !with(false, &[]));
        assert!(!with(true, &[("NO_COLOR", "1")]) && with(true, &[("NO_COLOR", "")]));
        assert!(with(false, &[("CLICOLOR_FORCE", "1")]) && !with(true, &[("TERM", "dumb")]));
    }
}
