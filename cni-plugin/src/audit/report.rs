//! What an audit says, as a table or as JSON.

use serde_json::{Value, json};
use weft_ipam::table::{columns, count};

use crate::explain::Verdict;

use super::{Fate, Problem, Report, names};

impl Problem {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Differs { .. } => "not as planned",
            Self::Node { .. } => "node not as planned",
            Self::Abandoned { .. } => "abandoned lease",
            Self::NoPair { .. } => "lease without interface",
            Self::NoLease { .. } => "interface without lease",
            Self::Element { .. } => "firewall element without lease",
            Self::Port { .. } => "host port without lease",
            Self::Source { .. } => "pinned port without lease",
            Self::Unshaped { .. } => "bandwidth not limited",
            Self::Chain { .. } => "firewall rules missing",
        }
    }

    pub(super) fn detail(&self) -> String {
        match self {
            Self::Differs { what, .. } | Self::Node { what, .. } => what.clone(),
            Self::Abandoned { addresses } | Self::NoPair { addresses } => addresses.clone(),
            Self::NoLease { link } | Self::Unshaped { link } => link.clone(),
            Self::Element { element } => element.address.to_string(),
            Self::Port { port } => port.at.to_string(),
            Self::Source { source } => source.port.clone(),
            Self::Chain { chain } => {
                format!("{} {}, {} of {} rules", chain.family, chain.name, chain.standing, chain.rules)
            }
        }
    }

    const fn remedy(&self) -> &'static str {
        match self {
            Self::NoPair { .. } | Self::Unshaped { .. } | Self::Differs { is_mendable: false, .. } => {
                "delete the pod"
            }
            Self::Node { is_mendable: false, .. } => "cannot be put back: delete the pods on it",
            Self::NoLease { .. } => "delete the pod, unless another IPAM plugin gave it its addresses",
            _ => "weft-cni audit --repair",
        }
    }
}

impl Fate {
    fn says(&self, problem: &Problem) -> String {
        match self {
            Self::Stands => problem.remedy().to_owned(),
            Self::Left => match problem {
                Problem::Differs { .. } | Problem::Node { is_mendable: true, .. } => {
                    "cannot be put back: delete the pod".to_owned()
                }
                _ => problem.remedy().to_owned(),
            },
            Self::Repaired => "repaired".to_owned(),
            Self::Failed(why) => format!("failed: {why}"),
        }
    }
}

impl Report {
    /// What it comes to now. What was not remembered is not in it: it is said, and judged by nobody.
    pub(crate) fn verdict(&self) -> Verdict {
        let is_repaired = |(_, fate): &(_, Fate)| matches!(fate, Fate::Repaired);
        match (self.findings.iter().all(is_repaired), self.failed.is_empty()) {
            (false, _) => Verdict::Differs,
            (true, true) => Verdict::AsPlanned,
            (true, false) => Verdict::Unknown,
        }
    }

    /// As a table, or as one JSON document.
    pub(crate) fn render(&self, json: bool) -> String {
        if json { format!("{}\n", self.json()) } else { self.table() }
    }

    fn table(&self) -> String {
        let mut text = self.conclusion();
        text.push('\n');
        if !self.findings.is_empty() {
            text.push_str(&format!("\n{}", columns("", &self.rows())));
        }
        let said = [("less seen", &self.limited), ("not seen", &self.failed), ("not judged", &self.unjudged)];
        for (label, lines) in said {
            text.extend(lines.iter().map(|(of, why)| format!("{label}: {of}: {why}\n")));
        }
        text.extend(self.remarks.iter().map(|remark| format!("remark: {remark}\n")));
        text
    }

    fn conclusion(&self) -> String {
        let looked = format!("looked at {} in {}", count(self.pods, "pod"), count(self.networks, "network"));
        match (self.findings.len(), self.pods, self.failed.len()) {
            (0, 0, 0) => {
                "looked at nothing: no lease and no result of a runtime tells of a pod here".to_owned()
            }
            (0, _, 0) if self.limited.is_empty() => format!("{looked}: all as planned"),
            (0, _, 0) => format!("{looked}: no difference, as far as could be seen"),
            (0, _, failed) => format!("{looked}: {failed} could not be seen"),
            (differences, ..) => format!("{looked}: {}", count(differences, "difference")),
        }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let head = ["NETWORK", "CONTAINER", "INTERFACE", "PROBLEM", "WHAT", "REMEDY"].map(str::to_owned);
        let rows = self.findings.iter().map(|(finding, fate)| {
            let [network, container, ifname] = names(&finding.mark).map(str::to_owned);
            let problem = &finding.problem;
            vec![network, container, ifname, problem.name().to_owned(), problem.detail(), fate.says(problem)]
        });
        std::iter::once(head.to_vec()).chain(rows).collect()
    }

    fn json(&self) -> Value {
        let findings = self.findings.iter().map(|(finding, fate)| {
            let [network, container, ifname] = names(&finding.mark);
            json!({
                "network": network,
                "container": container,
                "interface": ifname,
                "problem": finding.problem.name(),
                "what": finding.problem.detail(),
                "repaired": matches!(fate, Fate::Repaired),
                "remedy": fate.says(&finding.problem),
            })
        });
        let said = |lines: &[(String, String)]| {
            lines.iter().map(|(of, why)| json!({ "of": of, "why": why })).collect::<Value>()
        };
        json!({
            "pods": self.pods,
            "networks": self.networks,
            "findings": findings.collect::<Vec<_>>(),
            "lessSeen": said(&self.limited),
            "notSeen": said(&self.failed),
            "notJudged": said(&self.unjudged),
            "remarks": self.remarks,
        })
    }
}
