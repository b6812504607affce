//! A line on the terminal that says how far it is.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

/// Shows nothing where standard error is no terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    since: Instant,
    is_shown: bool,
}

impl Progress {
    pub(crate) fn start() -> Self {
        Self { since: Instant::now(), is_shown: io::stderr().is_terminal() }
    }

    /// `done` of `all` steps of `what` are done.
    pub(crate) fn show(&self, what: &str, done: usize, all: usize) {
        const WIDTH: usize = 20;
        let filled = (WIDTH * done).checked_div(all).unwrap_or(0).min(WIDTH);
        let (bar, rest) = ("#".repeat(filled), ".".repeat(WIDTH - filled));
        self.draw(&format!("{:>4} s [{bar}{rest}] {what}", self.since.elapsed().as_secs()));
    }

    fn draw(&self, line: &str) {
        if self.is_shown {
            let mut stderr = io::stderr();
            // A line that cannot be shown is no reason to stop measuring.
            drop(write!(stderr, "\r\x1b[K{line}"));
            drop(stderr.flush());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.draw("");
    }
}
