//! The answer, as a table or as JSON.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weft_ipam::store::local::DEFAULT_DIR;
use weft_ipam::table::columns;

use super::record::Record;
use super::{Namespace, Question};
use crate::clock::rfc3339;
use crate::finding::{Finding, State};

/// What was found out about an attachment.
pub(crate) struct Report {
    pub(super) record: Record,
    pub(super) netns: Namespace,
    /// What each of Weft's entries in the list does.
    pub(super) modes: Vec<&'static str>,
    /// Where the configuration was found.
    pub(super) from: String,
    /// Where everything was looked for.
    pub(super) places: Question,
    /// Whether what is missing can be put back.
    pub(super) is_restorable: bool,
    pub(super) findings: Vec<Finding>,
    /// What could not be found out.
    pub(super) unknown: Vec<String>,
    /// What is no part of a plan, and may be in the way all the same.
    pub(super) remarks: Vec<String>,
}

/// What the comparison comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    AsPlanned,
    Differs,
    /// As planned, as far as it could be seen.
    Unknown,
}

impl Report {
    pub(crate) fn verdict(&self) -> Verdict {
        match (self.differing(), &self.netns) {
            (1.., _) => Verdict::Differs,
            (0, Namespace::Unknown) => Verdict::Unknown,
            (0, _) if self.record.damage.is_some() => Verdict::Unknown,
            (0, _) => Verdict::AsPlanned,
        }
    }

    fn differing(&self) -> usize {
        self.findings.iter().filter(|finding| finding.differs()).count()
    }

    pub(crate) fn render(&self, json: bool) -> String {
        if json { format!("{}\n", self.json()) } else { self.text() }
    }

    fn text(&self) -> String {
        let row = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
        let mut rows = vec![row(["STATE", "WHERE", "WHAT", "PLAN", "STANDS"])];
        rows.extend(self.findings.iter().map(|finding| row(cells(finding))));
        let conclusion = match (self.differing(), self.findings.len()) {
            (0, all) => format!("all {all} as planned"),
            (some, all) => format!("{some} of {all} differ"),
        };
        let mut text = format!("{}\n{}\n{conclusion}\n", columns("", &self.head()), columns("", &rows));
        for (label, lines) in [("unknown", &self.unknown), ("remark", &self.remarks), ("next", &self.next())]
        {
            text.extend(lines.iter().map(|line| format!("{label}: {line}\n")));
        }
        text
    }

    fn head(&self) -> Vec<Vec<String>> {
        let attachment = &self.record.attachment;
        let mut head = vec![
            ("pod", self.record.pod().unwrap_or_else(|| "-".to_owned())),
            ("container", attachment.container().to_owned()),
            ("network", format!("{}, {}", attachment.network(), self.modes.join(", "))),
            ("interface", attachment.ifname().to_owned()),
        ];
        if let Some(path) = self.netns.path() {
            head.push(("namespace", path.display().to_string()));
        }
        if let Some(lease) = &self.record.lease {
            head.push(("lease", format!("since {}", rfc3339(lease.since))));
        }
        head.push(("as said by", self.from.clone()));
        head.into_iter().map(|(key, value)| vec![key.to_owned(), value]).collect()
    }

    /// What to do now, for each kind of difference.
    fn next(&self) -> Vec<String> {
        let attachment = &self.record.attachment;
        let has = |wanted: &dyn Fn(&Finding) -> bool| self.findings.iter().any(|f| f.differs() && wanted(f));
        let audit = self.audit();
        let mut next = Vec::new();
        if let Namespace::Gone(_) = self.netns {
            let cure = match &self.record.lease {
                None => "the runtime's DEL or GC ends what it had".to_owned(),
                Some(_) => format!("`{audit} {}` ends the lease", attachment.network()),
            };
            return vec![format!("the pod's namespace is gone and its DEL never came: {cure}")];
        }
        let pod = self.record.pod().and_then(|pod| {
            let (namespace, name) = pod.split_once('/')?;
            Some(format!(": `kubectl delete pod -n {namespace} {name}`"))
        });
        let pod = pod.unwrap_or_default();
        if has(&|finding| finding.state != State::Extra) {
            next.push(if self.is_restorable {
                let network = attachment.network();
                format!("`{audit} {network}` puts back what it can; if anything differs after it, delete the pod{pod}")
            } else {
                format!("delete the pod, and its next ADD makes everything anew{pod}")
            });
        }
        if has(&|finding| finding.place == "lease") {
            next.push("its address may be given to another pod: delete this one".to_owned());
        }
        if has(&|finding| finding.place == "node" && finding.what == "sysctl") {
            next.push("find out what has changed the node's parameters".to_owned());
        }
        if has(&|finding| finding.state == State::Extra) {
            next.push("what is extra goes with the pod".to_owned());
        }
        if let (Some(path), false) = (self.netns.path(), next.is_empty()) {
            next.push(format!("to look inside: `nsenter --net={} ip addr`", path.display()));
        }
        next
    }

    /// The command that repairs it, looking where this looked.
    fn audit(&self) -> String {
        let usual = Question::default();
        let data_dir = self.record.data_dir.as_deref().filter(|dir| *dir != Path::new(DEFAULT_DIR));
        let conf_dir = Some(&self.places.conf_dir).filter(|dir| **dir != usual.conf_dir);
        let cache_dir = Some(&self.places.cache_dir).filter(|dir| **dir != usual.cache_dir);
        let options = [
            ("--data-dir", data_dir),
            ("--config", self.places.config.as_deref()),
            ("--conf-dir", conf_dir.map(PathBuf::as_path)),
            ("--cache-dir", cache_dir.map(PathBuf::as_path)),
        ];
        let said = options.into_iter().filter_map(|(option, path)| Some((option, path?.display())));
        let said: String = said.map(|(option, path)| format!(" {option} {path}")).collect();
        format!("weft-cni audit --repair{said}")
    }

    /// The same; `state` is one of `ok`, `missing`, `different`, `extra` and `beside`.
    fn json(&self) -> Value {
        let finding = |finding: &Finding| {
            let [state, place, what, planned, stands] = cells(finding);
            let said = |text: &str| Some(text.to_owned()).filter(|text| !matches!(text.as_str(), "" | "-"));
            let stands = if finding.state == State::AsPlanned { said(planned) } else { said(stands) };
            json!({
                "state": state.to_ascii_lowercase(), "where": place, "what": what, "plan": said(planned),
                "stands": stands,
            })
        };
        let attachment = &self.record.attachment;
        json!({
            "network": attachment.network(),
            "container": attachment.container(),
            "ifname": attachment.ifname(),
            "pod": self.record.pod(),
            "netns": self.netns.path().map(|path| path.to_string_lossy()),
            "configuration": self.from,
            "differing": self.differing(),
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
            "unknown": self.unknown,
            "remarks": self.remarks,
            "next": self.next(),
        })
    }
}

/// State, place, kind, plan, and what stands where that is something else.
fn cells(finding: &Finding) -> [&str; 5] {
    let Finding { place, what, planned, state } = finding;
    let (state, planned, stands) = match state {
        State::AsPlanned => ("ok", planned.as_str(), ""),
        State::Missing => ("MISSING", planned.as_str(), "-"),
        State::Different(found) => ("DIFFERENT", planned.as_str(), found.as_str()),
        State::Extra => ("EXTRA", "-", planned.as_str()),
        State::Beside => ("beside", "-", planned.as_str()),
    };
    [state, place, what, planned, stands]
}

#[cfg(test)]
mod tests {
    use weft_ipam::lease::Attachment;

    use super::*;
    use crate::finding::Findings;

    fn report(findings: Findings, netns: Namespace) -> Report {
        let attachment = Attachment::new("pods", "3f2a", "eth0").unwrap();
        Report {
            record: Record { attachment, lease: None, data_dir: None, kept: None, damage: None },
            netns,
            modes: vec!["mode routed"],
            from: "/etc/cni/net.d/10-weft.conflist".to_owned(),
            places: Question::default(),
            is_restorable: false,
            findings: findings.into_list(),
            unknown: Vec::new(),
            remarks: Vec::new(),
        }
    }

    fn there() -> Namespace {
        Namespace::There("/run/netns/p".into())
    }

    fn of_every_kind() -> Findings {
        let mut findings = Findings::at("pod eth0");
        findings.note_presence("link", "up", true);
        findings.note_presence("address", "10.1.0.2/24", false);
        findings.note("mac", "02::1", Some("02::2".to_owned()));
        findings.add("host port", "80/tcp to 10.1.0.2:80".to_owned(), State::Extra);
        findings.add("route", "10.9.0.0/16".to_owned(), State::Beside);
        findings
    }

    #[test]
    fn the_table_shows_every_line_and_what_to_do() {
        let report = report(of_every_kind(), there());
        assert_eq!(
            report.render(false),
            "pod         -\n\
             container   3f2a\n\
             network     pods, mode routed\n\
             interface   eth0\n\
             namespace   /run/netns/p\n\
             as said by  /etc/cni/net.d/10-weft.conflist\n\n\
             STATE      WHERE     WHAT       PLAN         STANDS\n\
             ok         pod eth0  link       up\n\
             MISSING    pod eth0  address    10.1.0.2/24  -\n\
             DIFFERENT  pod eth0  mac        02::1        02::2\n\
             EXTRA      pod eth0  host port  -            80/tcp to 10.1.0.2:80\n\
             beside     pod eth0  route      -            10.9.0.0/16\n\n\
             3 of 5 differ\n\
             next: delete the pod, and its next ADD makes everything anew\n\
             next: what is extra goes with the pod\n\
             next: to look inside: `nsenter --net=/run/netns/p ip addr`\n"
        );
        assert_eq!(report.verdict(), Verdict::Differs);
    }

    #[test]
    fn json_has_the_same() {
        let document: Value = serde_json::from_str(&report(of_every_kind(), there()).render(true)).unwrap();
        let line = |state, what, plan: Option<&str>, stands: Option<&str>| {
            json!({
                "state": state, "where": "pod eth0", "what": what, "plan": plan, "stands": stands,
            })
        };
        assert_eq!(
            document["findings"],
            json!([
                line("ok", "link", Some("up"), Some("up")),
                line("missing", "address", Some("10.1.0.2/24"), None),
                line("different", "mac", Some("02::1"), Some("02::2")),
                line("extra", "host port", None, Some("80/tcp to 10.1.0.2:80")),
                line("beside", "route", None, Some("10.9.0.0/16")),
            ])
        );
        assert_eq!(document["differing"], 3);
    }

    #[test]
    fn what_could_not_be_seen_is_not_as_planned() {
        let fine = || {
            let mut findings = Findings::at("node weft0");
            findings.note_presence("link", "up", true);
            findings
        };
        assert_eq!(report(fine(), there()).verdict(), Verdict::AsPlanned);
        assert_eq!(report(fine(), Namespace::Unknown).verdict(), Verdict::Unknown);
        let mut gone = fine();
        gone.note_presence("namespace", "/run/netns/p", false);
        let report = report(gone, Namespace::Gone("/run/netns/p".into()));
        assert!(
            report.render(false).contains("next: the pod's namespace is gone"),
            "{}",
            report.render(false)
        );
        assert_eq!(report.verdict(), Verdict::Differs);
    }
}
