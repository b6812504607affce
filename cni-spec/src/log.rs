//! What is worth a word but is no answer.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::OnceLock;

static LISTENER: OnceLock<fn(&str)> = OnceLock::new();

/// Writes a line to standard error, which runtimes log, if anybody reads it; and tells the listener, if there is one.
///
/// Plugins say things while they undo and clean up, and must go on with that whatever became of the reader; `eprintln!`
/// ends the process where standard error is a pipe that was closed or a file on a full disk.
pub fn log(line: impl Display) {
    let line = line.to_string();
    drop(writeln!(io::stderr().lock(), "{line}"));
    if let Some(listener) = LISTENER.get() {
        listener(&line);
    }
}

/// From now on `listener` is told every line too. There is one; a second does not replace it.
pub fn tell(listener: fn(&str)) {
    LISTENER.get_or_init(|| listener);
}
