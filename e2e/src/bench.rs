//! How a bench ends.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// Prints what was measured, or why nothing was.
pub fn finish(outcome: Result<String, impl Display>) -> ExitCode {
    // What cannot be written has no reader.
    match outcome {
        Ok(report) => {
            std::io::stdout().lock().write_all(report.as_bytes()).ok();
            ExitCode::SUCCESS
        }
        Err(error) => {
            writeln!(std::io::stderr().lock(), "{error}").ok();
            ExitCode::FAILURE
        }
    }
}
