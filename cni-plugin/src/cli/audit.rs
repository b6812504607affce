//! `weft-cni audit`.

use std::path::PathBuf;

use weft_ipam::store::local::{DEFAULT_DIR, networks_in};

use super::{Answer, Command};
use crate::Error;
use crate::audit;

/// What it exits with where it finds differences, or cannot look.
pub(super) const FAILURE: u8 = 1;

pub(super) const HELP: &str = "\
Compares what stands in the kernel of this node with the leases.

Usage: weft-cni audit [OPTIONS] [NETWORK]...

Arguments:
  [NETWORK]...      Only these networks; without any, all that have leases

Options:
  --repair          End leases whose pod is gone, remove firewall elements that nobody owns, and put
                    rules back that somebody flushed; pods that live are never touched
  --json            Print one JSON document
  --data-dir DIR    Where the leases are: dataDir of the network configuration [default: /run/weft/ipam]
  -h, --help        Print this

Exit code: 0 if kernel and leases agree (with --repair: now agree), 1 if not, 64 for wrong usage.

Of one pod, `weft-cni explain` tells more.
";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Audit {
    networks: Vec<String>,
    data_dir: PathBuf,
    json: bool,
    repair: bool,
}

impl Audit {
    /// Only networks that have leases here can be judged by them. What stands for one with another IPAM plugin, or behind
    /// another plugin, would all look as if nobody owned it.
    pub(super) fn run(&self) -> Result<Answer, Error> {
        let unlisted = |source| Error::DataDir { path: self.data_dir.clone(), source };
        let known = networks_in(&self.data_dir).map_err(unlisted)?;
        let unknown: Vec<_> = self.networks.iter().filter(|name| !known.contains(name)).cloned().collect();
        if !unknown.is_empty() {
            return Err(Error::NoLeases { networks: unknown, path: self.data_dir.clone() });
        }
        let networks = if self.networks.is_empty() { &known } else { &self.networks };
        let report = audit::audit(networks, &self.data_dir, self.repair)?;
        Ok((report.render(self.json), if report.is_clean() { 0 } else { FAILURE }))
    }
}

pub(super) fn parse<'a>(mut rest: impl Iterator<Item = &'a str>) -> Result<Command, String> {
    let mut audit = Audit { networks: Vec::new(), data_dir: DEFAULT_DIR.into(), json: false, repair: false };
    while let Some(argument) = rest.next() {
        match argument {
            "-h" | "--help" => return Ok(Command::Help(HELP)),
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
    use super::super::parsed;
    use super::*;

    #[test]
    fn options_and_networks_come_in_any_order() {
        let audit = Audit {
            networks: vec!["a".into(), "b".into()],
            data_dir: "/var/lib/x".into(),
            json: true,
            repair: true,
        };
        assert_eq!(parsed("audit a --json --data-dir /var/lib/x b --repair"), Ok(Command::Audit(audit)));
    }

    #[test]
    fn what_is_no_option_is_refused_by_name() {
        assert_eq!(parsed("audit --jsn"), Err("\"--jsn\" is no option of audit".to_owned()));
        assert_eq!(parsed("audit --data-dir"), Err("--data-dir needs a directory".to_owned()));
    }
}
