//! What an audit says, as a table or as JSON.

use serde_json::{Value, json};
use weft_ipam::table::columns;

use super::{Fate, Problem, Report, names};

impl Problem {
    pub(super) const fn name(&self) -> &'static str {
        match self {
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
            Self::NoPair { .. } | Self::Unshaped { .. } => "delete the pod",
            Self::NoLease { .. } => "delete the pod, unless another IPAM plugin gave it its addresses",
            _ => "weft-cni audit --repair",
        }
    }
}

impl Fate {
    fn says(&self, problem: &Problem) -> String {
        match self {
            Self::Stands => problem.remedy().to_owned(),
            Self::Repaired => "repaired".to_owned(),
            Self::Failed(why) => format!("failed: {why}"),
        }
    }
}

impl Report {
    /// Whether kernel and leases agree now.
    pub(crate) fn is_clean(&self) -> bool {
        self.findings.iter().all(|(_, fate)| matches!(fate, Fate::Repaired))
    }

    /// As a table, or as one JSON document.
    pub(crate) fn render(&self, json: bool) -> String {
        if json { format!("{}\n", self.json()) } else { self.table() }
    }

    fn table(&self) -> String {
        let checked = format!("{} leases in {} networks", self.leases, self.networks);
        if self.findings.is_empty() {
            return format!("{checked}: the kernel agrees with all of them\n");
        }
        let head = ["NETWORK", "CONTAINER", "INTERFACE", "PROBLEM", "WHAT", "REMEDY"].map(str::to_owned);
        let rows = self.findings.iter().map(|(finding, fate)| {
            let [network, container, ifname] = names(&finding.mark).map(str::to_owned);
            let problem = &finding.problem;
            vec![network, container, ifname, problem.name().to_owned(), problem.detail(), fate.says(problem)]
        });
        let rows: Vec<_> = std::iter::once(head.to_vec()).chain(rows).collect();
        format!("{checked}: {} differences\n\n{}", self.findings.len(), columns("", &rows))
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
        json!({ "leases": self.leases, "networks": self.networks, "findings": findings.collect::<Vec<_>>() })
    }
}
