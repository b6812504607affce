//! `weft-cni audit`.

use super::{Answer, Command, explain};
use crate::Error;
use crate::audit::{self, Asked};
use crate::explain::{Question, Verdict};

/// What it exits with where it cannot look.
pub(super) const CANNOT_LOOK: u8 = explain::CANNOT_TELL;

pub(super) const HELP: &str = "\
Looks whether every pod of this node is as ADD left it, and for what nobody owns.

Usage: weft-cni audit [OPTIONS] [NETWORK]...

Arguments:
  [NETWORK]...      Only these networks; without any, all that a lease, a configuration, a runtime or an
                    element of the firewall tells of

Options:
  --repair          Put back what of a living pod's plan does not stand (rules and elements of the firewall,
                    routes, addresses, a link that is down, rates, forwarding), end leases whose pod is
                    gone, and remove elements that nobody owns; nothing of a pod that may live is removed
  --json            Print one JSON document
  --config FILE     The configuration to plan by; without it the one that the runtime has kept of each ADD,
                    else the network's in --conf-dir
  --conf-dir DIR    Where configurations are [default: /etc/cni/net.d]
  --data-dir DIR    Where leases are [default: /run/weft/ipam, and dataDir of the configurations]
  --cache-dir DIR   Where the runtime keeps results; only read [default: /var/lib/cni]
  -h, --help        Print this

`less seen` are pods of which no configuration is found: only their leases are compared. `not judged` are networks
with addresses of another plugin, where the runtime keeps no results. A `remark` is what others have put on the node
that may be in the way of pods; it is no difference.

Exit code: 0 if nothing differs (with --repair: any more), 1 if something does, 2 if it could not look, 64 for wrong
usage.

Of one pod, `weft-cni explain` tells more.
";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Audit {
    asked: Asked,
    json: bool,
}

impl Audit {
    pub(super) fn run(&self) -> Result<Answer, Error> {
        let report = audit::audit(&self.asked)?;
        Ok((report.render(self.json), code(report.verdict())))
    }
}

/// What `verdict` is exited with.
pub(super) const fn code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::AsPlanned => 0,
        Verdict::Differs => 1,
        Verdict::Unknown => CANNOT_LOOK,
    }
}

pub(super) fn parse<'a>(mut rest: impl Iterator<Item = &'a str>) -> Result<Command, String> {
    let asked = Asked { networks: Vec::new(), places: Question::default(), repair: false };
    let mut audit = Audit { asked, json: false };
    let Asked { networks, places, repair } = &mut audit.asked;
    while let Some(argument) = rest.next() {
        let mut value = |what| rest.next().ok_or_else(|| format!("{argument} needs a {what}"));
        match argument {
            "-h" | "--help" => return Ok(Command::Help(HELP)),
            "--json" => audit.json = true,
            "--repair" => *repair = true,
            "--config" => places.config = Some(value("file")?.into()),
            "--conf-dir" => places.conf_dir = value("directory")?.into(),
            "--data-dir" => places.data_dir = Some(value("directory")?.into()),
            "--cache-dir" => places.cache_dir = value("directory")?.into(),
            option if option.starts_with('-') => return Err(format!("{option:?} is no option of audit")),
            network => networks.push(network.to_owned()),
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
        let places = Question {
            data_dir: Some("/var/lib/x".into()),
            conf_dir: "/c".into(),
            config: Some("f".into()),
            ..Question::default()
        };
        let asked = Asked { networks: vec!["a".into(), "b".into()], places, repair: true };
        let line = "audit a --json --data-dir /var/lib/x b --repair --conf-dir /c --config f";
        assert_eq!(parsed(line), Ok(Command::Audit(Audit { asked, json: true })));
    }

    #[test]
    fn what_is_no_option_is_refused_by_name() {
        assert_eq!(parsed("audit --jsn"), Err("\"--jsn\" is no option of audit".to_owned()));
        assert_eq!(parsed("audit --data-dir"), Err("--data-dir needs a directory".to_owned()));
        assert_eq!(parsed("audit --config"), Err("--config needs a file".to_owned()));
    }
}
