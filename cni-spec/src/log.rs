//! What is worth a word but is no answer.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a line to standard error, which runtimes log, if anybody reads it.
///
/// Plugins say things while they undo and clean up, and must go on with that whatever became of the reader; `eprintln!`
/// ends the process where standard error is a pipe that was closed or a file on a full disk.
pub fn log(line: impl Display) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}
