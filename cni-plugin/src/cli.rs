//! What people run. The arguments are few, and read by hand: a parser would be a fifth of the plugin.

use std::io::{self, Write};
use std::process::ExitCode;

use weft_ipam::chain;

mod audit;
mod explain;

/// `EX_USAGE` of `sysexits.h`.
const USAGE: u8 = 64;

const HELP: &str = "\
Usage: weft-cni COMMAND [OPTIONS]

Commands:
  audit     Looks whether all pods of this node are as ADD left them, and for what nobody owns
  explain   Shows what one pod should have, what it has, and where they differ
  help      Tells of a command: weft-cni help explain
  version   Tells the version

Without arguments weft-cni tells how it is used as a plugin.
";

const VERSION: &str = concat!("weft-cni ", env!("CARGO_PKG_VERSION"), "\n");

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Help(&'static str),
    Audit(audit::Audit),
    Explain(explain::Explain),
}

/// What to print, and what to exit with.
type Answer = (String, u8);

/// Runs the command that `arguments` name.
#[must_use]
pub fn run(arguments: &[String]) -> ExitCode {
    let command = match parse(arguments) {
        Ok(command) => command,
        Err((wrong, help)) => {
            weft_cni_spec::log(format_args!("weft-cni: {wrong}; `{help}` has all there is"));
            return ExitCode::from(USAGE);
        }
    };
    let (answer, failure) = match &command {
        Command::Help(text) => (Ok(((*text).to_owned(), 0)), 0),
        Command::Audit(audit) => (audit.run(), audit::CANNOT_LOOK),
        Command::Explain(explain) => (explain.run(), explain::CANNOT_TELL),
    };
    match answer {
        Ok((text, code)) => print(&text, code),
        Err(error) => {
            weft_cni_spec::log(format_args!("weft-cni: {}", chain(&error)));
            ExitCode::from(failure)
        }
    }
}

/// Whoever reads it may stop reading.
fn print(text: &str, code: u8) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::from(code),
    }
}

/// What was asked for, or what is wrong with it and the command that says how it is done.
fn parse(arguments: &[String]) -> Result<Command, (String, &'static str)> {
    let mut rest = arguments.iter().map(String::as_str);
    match rest.next() {
        Some("audit") => audit::parse(rest).map_err(|wrong| (wrong, "weft-cni help audit")),
        Some("explain") => explain::parse(rest).map_err(|wrong| (wrong, "weft-cni help explain")),
        Some("-V" | "--version" | "version") => Ok(Command::Help(VERSION)),
        Some("-h" | "--help" | "help") => match rest.next() {
            None => Ok(Command::Help(HELP)),
            Some("audit") => Ok(Command::Help(audit::HELP)),
            Some("explain") => Ok(Command::Help(explain::HELP)),
            Some(other) => Err(no_command(other)),
        },
        other => Err(no_command(other.unwrap_or_default())),
    }
}

fn no_command(other: &str) -> (String, &'static str) {
    (format!("{other:?} is no command"), "weft-cni help")
}

#[cfg(test)]
fn parsed(line: &str) -> Result<Command, String> {
    let arguments: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
    parse(&arguments).map_err(|(wrong, _)| wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_there_for_everything() {
        assert_eq!(parsed("--help"), Ok(Command::Help(HELP)));
        assert_eq!(parsed("help"), Ok(Command::Help(HELP)));
        for line in ["help explain", "explain --help", "explain -h"] {
            assert_eq!(parsed(line), Ok(Command::Help(explain::HELP)));
        }
        for line in ["help audit", "audit --help"] {
            assert_eq!(parsed(line), Ok(Command::Help(audit::HELP)));
        }
    }

    #[test]
    fn the_version_is_told() {
        for line in ["version", "--version", "-V"] {
            assert_eq!(parsed(line), Ok(Command::Help(VERSION)));
        }
    }

    #[test]
    fn what_is_no_command_is_refused_by_name() {
        assert_eq!(parsed("adit"), Err("\"adit\" is no command".to_owned()));
        assert_eq!(parsed("help adit"), Err("\"adit\" is no command".to_owned()));
    }
}
