//! What the demo shows: plain text of 80 columns, with a little colour where there is a terminal for it.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use nix::sys::signal::Signal;

const WIDTH: usize = 80;

/// Stdout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    colour: bool,
}

#[derive(Debug, Clone, Copy)]
enum Ink {
    Bold = 1,
    Faint = 2,
    Red = 31,
    Green = 32,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self {
            colour: io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }

    /// The head of a step.
    pub(crate) fn step(&self, number: u8, title: &str) {
        self.line(&format!("\n{number}  {}", self.ink(Ink::Bold, title)));
    }

    /// What has been seen in it.
    pub(crate) fn show(&self, text: impl Display) {
        for line in text.to_string().lines() {
            self.line(&format!("   {line}"));
        }
    }

    /// What has been seen in it, and what that was held against.
    pub(crate) fn holds(&self, text: impl Display) {
        self.line(&format!("   {} {text}", self.ink(Ink::Green, "ok")));
    }

    /// A file's or a program's own words.
    pub(crate) fn quote(&self, text: &str) {
        for line in text.lines().flat_map(|line| wrapped(line, WIDTH - 5)) {
            self.line(&format!("   {} {line}", self.ink(Ink::Faint, "|")));
        }
    }

    pub(crate) fn ends_well(&self) -> ExitCode {
        self.line("\ndemo: ok");
        ExitCode::SUCCESS
    }

    pub(crate) fn fails(&self, reason: &str) -> ExitCode {
        self.line(&format!("\n{} {reason}", self.ink(Ink::Red, "demo: failed:")));
        ExitCode::FAILURE
    }

    pub(crate) fn is_interrupted(&self, signal: Signal) -> ExitCode {
        self.line(&format!("\ndemo: ended by {signal}; nothing of it is left"));
        ExitCode::from(128 + u8::try_from(signal as i32).unwrap_or(0))
    }

    fn ink(&self, ink: Ink, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", ink as u8) } else { text.to_owned() }
    }

    fn line(&self, text: &str) {
        // Whoever reads it may stop reading; the exit status says the rest.
        drop(writeln!(io::stdout(), "{}", text.trim_end()));
    }
}

/// A line that is too long goes on below, a little further in.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split_inclusive(' ') {
        let used = lines.last().map_or(0, |line| line.chars().count());
        if used > 0 && used + word.trim_end().chars().count() > width {
            lines.push("  ".to_owned());
        }
        lines.last_mut().into_iter().for_each(|line| line.push_str(word));
    }
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_broken_between_words() {
        assert_eq!(wrapped("one two  three four", 10), ["one two", "  three", "  four"]);
        assert_eq!(wrapped("  short", 10), ["  short"]);
    }
}
