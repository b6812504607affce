//! `weft-cni explain`.

use super::{Answer, Command};
use crate::Error;
use crate::explain::{Question, explain};

/// What it exits with where there is no answer.
pub(super) const CANNOT_TELL: u8 = 2;

pub(super) const HELP: &str = "\
Shows what one pod should have, what it has, and where they differ.

Usage: weft-cni explain --container ID | --pod NAMESPACE/NAME [OPTIONS]

Which attachment:
  --container ID     The pod's sandbox (`crictl pods`), or the beginning of its id
  --pod NS/NAME      The pod, where the runtime named it
  --network NAME     Where it has several networks
  --ifname NAME      Where it has several interfaces

Options:
  --json             Print one JSON document
  --config FILE      The configuration to plan by, a list or one plugin; without it the one that ADD was
                     given, where the runtime has kept it, else the network's in --conf-dir
  --conf-dir DIR     Where configurations are [default: /etc/cni/net.d]
  --data-dir DIR     Where leases are [default: /run/weft/ipam, and dataDir of the configurations]
  --cache-dir DIR    Where the runtime keeps results; only read [default: /var/lib/cni]
  --netns PATH       The pod's namespace, where nothing else says where it is
  -h, --help         Print this

Each line of the table is a thing that ADD decided on:
  ok          It stands as planned
  MISSING     It does not stand
  DIFFERENT   Something else stands in its place
  EXTRA       It bears the pod's mark, but is not in the plan
  beside      It stands on the pod's interface and is not Weft's; no difference
A `remark` is what others have put on the node that may be in the way; no difference.

Exit code: 0 if all is as planned, 1 if something differs, 2 if that cannot be told, 64 for wrong usage.

Examples:
  weft-cni explain --pod shop/web-0
  weft-cni explain --container 3f2a9c --json | jq '.findings[] | select(.state != \"ok\")'
  weft-cni explain --pod shop/web-0 --config new.conflist     # what would another configuration change?
";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Explain {
    question: Question,
    json: bool,
}

impl Explain {
    pub(super) fn run(&self) -> Result<Answer, Error> {
        let report = explain(&self.question)?;
        Ok((report.render(self.json), super::audit::code(report.verdict())))
    }
}

pub(super) fn parse<'a>(mut rest: impl Iterator<Item = &'a str>) -> Result<Command, String> {
    let mut question = Question::default();
    let mut json = false;
    while let Some(option) = rest.next() {
        match option {
            "-h" | "--help" => return Ok(Command::Help(HELP)),
            "--json" => {
                json = true;
                continue;
            }
            _ => {}
        }
        let mut value = || rest.next().ok_or_else(|| format!("{option} needs a value"));
        match option {
            "--container" => question.container = Some(value()?.to_owned()),
            "--pod" => question.pod = Some(pod(value()?)?),
            "--network" => question.network = Some(value()?.to_owned()),
            "--ifname" => question.ifname = Some(value()?.to_owned()),
            "--config" => question.config = Some(value()?.into()),
            "--conf-dir" => question.conf_dir = value()?.into(),
            "--data-dir" => question.data_dir = Some(value()?.into()),
            "--cache-dir" => question.cache_dir = value()?.into(),
            "--netns" => question.netns = Some(value()?.into()),
            other => return Err(format!("{other:?} is no option of explain")),
        }
    }
    if question.container.is_none() && question.pod.is_none() {
        return Err("say which pod: --container ID or --pod NAMESPACE/NAME".to_owned());
    }
    Ok(Command::Explain(Explain { question, json }))
}

fn pod(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("--pod {text:?} is not NAMESPACE/NAME")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parsed;
    use super::*;

    #[test]
    fn an_attachment_is_named_by_its_container_or_its_pod() {
        let Ok(Command::Explain(asked)) = parsed("explain --pod shop/web --ifname net1 --json --netns /n")
        else {
            panic!("it is an explanation that is asked for");
        };
        assert_eq!((asked.question.pod.as_deref(), asked.json), (Some("shop/web"), true));
        assert_eq!(
            (asked.question.ifname.as_deref(), asked.question.netns),
            (Some("net1"), Some("/n".into()))
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_said_with_what_is_right() {
        for (line, wrong) in [
            ("explain", "say which pod: --container ID or --pod NAMESPACE/NAME"),
            ("explain --pod web", "--pod \"web\" is not NAMESPACE/NAME"),
            ("explain --container", "--container needs a value"),
            ("explain web", "\"web\" is no option of explain"),
        ] {
            assert_eq!(parsed(line), Err(wrong.to_owned()));
        }
    }
}
