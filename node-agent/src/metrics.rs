//! The status as Prometheus reads it (text format 0.0.4). docs/operating.md has the names.

use std::fmt::{Display, Write};
use std::fs;

use crate::status::{By, Kept, SelfTest, Status};

/// The whole page.
pub(crate) fn render(status: &Status) -> String {
    let mut page = Page::default();
    page.one(
        "weft_node_info",
        "gauge",
        "The agent.",
        &[("version", &status.version), ("node", &status.node.name)],
        1,
    );
    page.plain(
        "weft_node_ready",
        "gauge",
        "Whether this node does its part.",
        flag(status.readiness().is_ok()),
    );
    install(&mut page, status);
    membership(&mut page, status);
    network(&mut page, status);
    discovery(&mut page, status);
    collected(&mut page, status);
    leases(&mut page, status);
    page.plain(
        "weft_node_warnings",
        "gauge",
        "How many warnings there are; `weft-node status` shows them.",
        status.all_warnings().len(),
    );
    if let Some(bytes) = resident() {
        page.plain("process_resident_memory_bytes", "gauge", "Memory of the agent.", bytes);
    }
    page.0
}

fn install(page: &mut Page, status: &Status) {
    let install = &status.install;
    page.plain(
        "weft_node_conflist_installed",
        "gauge",
        "Whether the network configuration is in place.",
        flag(install.conflist.is_some()),
    );
    page.plain(
        "weft_node_foreign_conflists",
        "gauge",
        "Configurations that runtimes prefer to Weft's.",
        install.before_ours.len(),
    );
    page.plain(
        "weft_node_adopted_leases",
        "gauge",
        "Leases that were taken over from host-local.",
        install.adopted,
    );
    let passed = matches!(install.self_test, SelfTest::Passed { .. });
    page.plain(
        "weft_node_selftest_passed",
        "gauge",
        "Whether a pod was attached, reached and detached.",
        flag(passed),
    );
    if let SelfTest::Passed { milliseconds, .. } = &install.self_test {
        let seconds = std::time::Duration::from_millis(*milliseconds).as_secs_f64();
        page.plain("weft_node_selftest_duration_seconds", "gauge", "How long that took.", seconds);
    }
}

fn membership(page: &mut Page, status: &Status) {
    let known = &status.membership;
    let is_followed = !status.kubernetes.contains_key("nodes");
    page.plain("weft_node_members", "gauge", "Nodes, with this one.", known.members);
    page.plain(
        "weft_node_membership_read",
        "gauge",
        "Whether the source of the nodes could be read the last time.",
        flag(known.read && is_followed),
    );
    page.plain(
        "weft_node_membership_mistakes",
        "gauge",
        "What is wrong with entries of nodes, which are held back.",
        known.mistakes.len(),
    );
    page.plain(
        "weft_node_membership_last_change_seconds",
        "gauge",
        "When something of the nodes changed, in seconds of the epoch; 0 for never.",
        known.last_change_epoch_seconds.unwrap_or_default(),
    );
}

fn discovery(page: &mut Page, status: &Status) {
    type Read = fn(&Kept) -> u64;
    let series: [(&str, &str, &str, Read); 6] = [
        ("weft_node_discovery_files", "gauge", "Files for sidecars, one for each object.", |kept| {
            kept.files as u64
        }),
        ("weft_node_discovery_written_total", "counter", "Files that were written.", |kept| kept.written),
        ("weft_node_discovery_removed_total", "counter", "Files that were removed.", |kept| kept.removed),
        ("weft_node_discovery_refused_total", "counter", "Objects that could not be read.", |kept| {
            kept.refused
        }),
        (
            "weft_node_discovery_lists_total",
            "counter",
            "How often all objects were listed, as after a watch that could not go on.",
            |kept| kept.lists,
        ),
        (
            "weft_node_discovery_last_change_seconds",
            "gauge",
            "When a file was written or removed, in seconds of the epoch; 0 for never.",
            |kept| kept.last_change_epoch_seconds.unwrap_or_default(),
        ),
    ];
    for (name, form, help, read) in series {
        page.head(name, form, help);
        for (kind, kept) in &status.discovery {
            page.sample(name, &[("kind", kind)], read(kept));
        }
    }
    page.plain(
        "weft_node_kubernetes_troubles",
        "gauge",
        "Resources of the Kubernetes API that cannot be followed.",
        status.kubernetes.len(),
    );
}

fn network(page: &mut Page, status: &Status) {
    let network = &status.network;
    page.plain(
        "weft_node_network_stands",
        "gauge",
        "Whether all ways to other nodes stand.",
        flag(network.stands),
    );
    page.head("weft_node_routes", "gauge", "Subnets of other nodes, by the way to them.");
    let ways = || network.peers.iter().flat_map(|peer| &peer.ways);
    let of = |by| ways().filter(|way| way.by == by).count();
    let unreached: usize = network.peers.iter().map(|peer| peer.unreached.len()).sum();
    for (by, count) in [("direct", of(By::Direct)), ("vxlan", of(By::Vxlan)), ("none", unreached)] {
        page.sample("weft_node_routes", &[("by", by)], count);
    }
    page.plain("weft_node_peers", "gauge", "Other nodes.", network.peers.len());
    page.plain(
        "weft_node_peers_unreached",
        "gauge",
        "Other nodes of which not all pods are reached.",
        network.peers.iter().filter(|peer| !peer.unreached.is_empty()).count(),
    );
    page.head("weft_node_heals_total", "counter", "What somebody took away and the agent put back.");
    for (what, count) in &status.repair.heals {
        page.sample("weft_node_heals_total", &[("what", what)], count);
    }
    page.plain(
        "weft_node_repairs_throttled",
        "gauge",
        "Kinds of things that somebody takes away again and again, so that they are put back more slowly.",
        status.repair.storms.len(),
    );
}

fn collected(page: &mut Page, status: &Status) {
    let gc = &status.gc;
    page.plain(
        "weft_node_gc_rounds_total",
        "counter",
        "How often the runtime was asked for its sandboxes.",
        gc.rounds,
    );
    page.plain(
        "weft_node_gc_collected_total",
        "counter",
        "Attachments that the runtime had forgotten, and that were ended.",
        gc.collected,
    );
    page.plain(
        "weft_node_gc_suspected",
        "gauge",
        "Attachments that look as if they were next.",
        gc.suspected,
    );
    page.plain(
        "weft_node_gc_works",
        "gauge",
        "Whether the runtime's list could be judged the last time.",
        flag(gc.problem.is_none() && gc.rounds > 0),
    );
}

fn leases(page: &mut Page, status: &Status) {
    page.head("weft_node_addresses_held", "gauge", "Addresses in use.");
    for range in &status.leases {
        page.sample(
            "weft_node_addresses_held",
            &[("network", &range.network), ("subnet", &range.subnet)],
            range.held,
        );
    }
    page.head("weft_node_addresses", "gauge", "Addresses that there are.");
    for range in &status.leases {
        page.sample(
            "weft_node_addresses",
            &[("network", &range.network), ("subnet", &range.subnet)],
            range.size,
        );
    }
}

/// Grows line by line.
#[derive(Default)]
struct Page(String);

impl Page {
    fn plain(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.one(name, kind, help, &[], value);
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, labels: &[(&str, &str)], value: impl Display) {
        self.head(name, kind, help);
        self.sample(name, labels, value);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> = labels.iter().map(|(key, text)| format!("{key}=\"{}\"", escape(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.line(format_args!("{name}{labels} {value}\n"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.0.write_fmt(line).expect("a String takes everything");
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn flag(is: bool) -> u8 {
    u8::from(is)
}

fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Peer, Range, Way};

    #[test]
    fn every_number_has_its_help_and_type_and_appears_once() {
        let mut status = Status::default();
        status.node.name = "a\"b".into();
        status.install.self_test = SelfTest::Passed { milliseconds: 1500, addresses: vec![] };
        status.repair.heals = [("route".to_owned(), 3)].into();
        let way = Way {
            subnet: "10.0.1.0/24".into(),
            by: By::Vxlan,
            through: "192.0.2.1".parse().unwrap(),
            link: "weft.vxlan".into(),
        };
        status.network.peers = vec![Peer { ways: vec![way], ..Peer::default() }];
        status.leases =
            vec![Range { network: "weft".into(), subnet: "10.0.0.0/24".into(), held: 2, size: 253 }];
        status.membership.members = 3;
        status.discovery = [("Service".to_owned(), Kept { written: 7, ..Kept::default() })].into();
        let page = render(&status);
        for line in [
            "weft_node_members 3",
            "weft_node_membership_read 0",
            "weft_node_discovery_written_total{kind=\"Service\"} 7",
            "weft_node_info{version=\"\",node=\"a\\\"b\"} 1",
            "weft_node_ready 0",
            "weft_node_selftest_duration_seconds 1.5",
            "weft_node_heals_total{what=\"route\"} 3",
            "weft_node_routes{by=\"vxlan\"} 1",
            "weft_node_addresses_held{network=\"weft\",subnet=\"10.0.0.0/24\"} 2",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        let samples: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
        let names = |sample: &str| sample.split(['{', ' ']).next().unwrap().to_owned();
        for name in samples.iter().map(|sample| names(sample)) {
            assert_eq!(page.matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
        }
        let series: std::collections::BTreeSet<_> =
            samples.iter().map(|sample| sample.rsplit_once(' ').unwrap().0).collect();
        assert_eq!(series.len(), samples.len());
    }

    #[test]
    fn every_name_is_documented() {
        let documented = include_str!("../../docs/operating.md");
        let mut status = Status::default();
        status.install.self_test = SelfTest::Passed { milliseconds: 1, addresses: vec![] };
        let page = render(&status);
        for name in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
            let cell = [format!("`{name}`"), format!("`{name}{{")];
            assert!(
                cell.iter().any(|cell| documented.contains(cell)),
                "docs/operating.md says nothing of {name}"
            );
        }
    }
}
