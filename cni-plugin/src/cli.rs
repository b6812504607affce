//! What people run. The arguments are few, and read by hand: a parser would be a fifth of the plugin.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use weft_ipam::chain;
use weft_ipam::store::local::{DEFAULT_DIR, networks_in};

use crate::Error;
use crate::audit::{self, Report};

/// `EX_USAGE` of `sysexits.h`.
const USAGE: u8 = 64;

const HELP: &str = "\
Compares what stands in the kernel of this node with the leases.

Usage: weft-cni audit [OPTIONS] [NETWORK]...

Arguments:
  [NETWORK]...      Only these networks; without any, all that have leases

Options:
  --repair          End leases whose pod is gone, and remove firewall elements that nobody owns; pods
                    that live are never touched
  --json            Print one JSON document
  --data-dir DIR    Where the leases are: dataDir of the network configuration [default: /run/weft/ipam]
  -h, --help        Print this

Exit code: 0 if kernel and leases agree (with --repair: now agree), 1 if not, 64 for wrong usage.

Without arguments weft-cni tells how it is used as a plugin.
";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Help,
    Audit(Audit),
}

#[derive(Debug, PartialEq, Eq)]
struct Audit {
    networks: Vec<String>,
    data_dir: PathBuf,
    json: bool,
    repair: bool,
}

/// Runs the command that `arguments` name.
#[must_use]
pub fn run(arguments: &[String]) -> ExitCode {
    let (text, code) = match parse(arguments) {
        Ok(Command::Help) => (HELP.to_owned(), ExitCode::SUCCESS),
        Ok(Command::Audit(audit)) => match report(&audit) {
            Ok(report) if report.is_clean() => (report.render(audit.json), ExitCode::SUCCESS),
            Ok(report) => (report.render(audit.json), ExitCode::FAILURE),
            Err(error) => {
                weft_cni_spec::log(format_args!("weft-cni: {}", chain(&error)));
                return ExitCode::FAILURE;
            }
        },
        Err(wrong) => {
            weft_cni_spec::log(format_args!("weft-cni: {wrong}\n\n{HELP}"));
            return ExitCode::from(USAGE);
        }
    };
    // Whoever reads it may stop reading.
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => code,
    }
}

/// Only networks that have leases here can be judged by them. What stands for one with another IPAM plugin, or behind
/// another plugin, would all look as if nobody owned it.
fn report(audit: &Audit) -> Result<Report, Error> {
    let unlisted = |source| Error::DataDir { path: audit.data_dir.clone(), source };
    let known = networks_in(&audit.data_dir).map_err(unlisted)?;
    let unknown: Vec<_> = audit.networks.iter().filter(|name| !known.contains(name)).cloned().collect();
    if !unknown.is_empty() {
        return Err(Error::NoLeases { networks: unknown, path: audit.data_dir.clone() });
    }
    let networks = if audit.networks.is_empty() { &known } else { &audit.networks };
    audit::audit(networks, &audit.data_dir, audit.repair)
}

fn parse(arguments: &[String]) -> Result<Command, String> {
    let mut audit = Audit { networks: Vec::new(), data_dir: DEFAULT_DIR.into(), json: false, repair: false };
    let mut rest = arguments.iter().map(String::as_str);
    match rest.next() {
        Some("audit") => {}
        Some("-h" | "--help" | "help") => return Ok(Command::Help),
        other => return Err(format!("{:?} is no command", other.unwrap_or_default())),
    }
    while let Some(argument) = rest.next() {
        match argument {
            "-h" | "--help" => return Ok(Command::Help),
            "--json" => audit.json = true,
            "--repair" => audit.repair = true,
            "--data-dir" => audit.data_dir = rest.next().ok_or("--data-dir needs a directory")?.into(),
            option if option.starts_with('-') => return Err(format!("{option:?} is no option of audit")),
            network => audit.networks.push(network.to_owned()),
        }
    }
    Ok(Command::Audit(audit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_and_networks_come_in_any_order() {
        let audit = Audit {
            networks: vec!["a".into(), "b".into()],
            data_dir: "/var/lib/x".into(),
            json: true,
            repair: true,
        };
        assert_eq!(parsed("audit a --json --data-dir /var/lib/x b --repair"), Ok(Command::Audit(audit)));
        assert_eq!(parsed("audit --help"), Ok(Command::Help));
    }

    #[test]
    fn what_is_no_command_or_option_is_refused_by_name() {
        assert_eq!(parsed("adit"), Err("\"adit\" is no command".to_owned()));
        assert_eq!(parsed("audit --jsn"), Err("\"--jsn\" is no option of audit".to_owned()));
        assert_eq!(parsed("audit --data-dir"), Err("--data-dir needs a directory".to_owned()));
    }
}
