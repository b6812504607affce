use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use weft_datapath::{HostPort, Protocol};
use weft_ipam::lease::{Assigned, Attachment};

use super::compare::compare;
use super::*;

fn lease(container: &str, address: &str, age: u64) -> Lease {
    Lease {
        attachment: Attachment::new("pods", container, "eth0").unwrap(),
        addresses: vec![Assigned { address: address.parse().unwrap(), gateway: None }],
        pod: None,
        netns: None,
        boot_id: None,
        since: SystemTime::UNIX_EPOCH + Duration::from_secs(1000 - age),
        notes: weft_ipam::lease::Notes::new(),
    }
}

fn pair(container: &str) -> (String, String) {
    (format!("pods/{container}/eth0"), format!("weft{container}"))
}

fn element(container: &str, address: &str) -> Masqueraded {
    Masqueraded { address: address.parse().unwrap(), owner: format!("pods/{container}/eth0") }
}

fn port(container: &str, to: &str) -> Published {
    let at = HostPort { address: [0; 4].into(), protocol: Protocol::Tcp, port: 8080 };
    Published { at, to: to.parse().unwrap(), owner: format!("pods/{container}/eth0") }
}

fn source(container: &str) -> PinnedSource {
    let owner = format!("pods/{container}/eth0");
    PinnedSource { port: format!("weft{container}"), mac: weft_datapath::Mac::local(1), owner }
}

fn found(seen: &Seen) -> Vec<(String, &'static str, String)> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    let short = |finding: Finding| (finding.mark, finding.problem.name(), finding.problem.detail());
    compare("pods", seen, now).into_iter().map(short).collect()
}

#[test]
fn a_lease_with_its_pair_and_its_elements_is_no_difference() {
    let seen = Seen {
        leases: vec![(lease("a", "10.0.0.2/24", 900), false)],
        pairs: vec![pair("a")],
        elements: vec![element("a", "10.0.0.2")],
        ports: vec![port("a", "10.0.0.2:80")],
        sources: vec![source("a")],
        ..Seen::default()
    };
    assert_eq!(found(&seen), []);
}

#[test]
fn each_kind_of_difference_is_told_apart() {
    let seen = Seen {
        leases: vec![(lease("gone", "10.0.0.2/24", 900), true), (lease("bare", "10.0.0.3/24", 900), false)],
        pairs: vec![pair("gone"), pair("stray")],
        elements: vec![element("bare", "10.0.0.9"), element("lost", "10.0.0.4")],
        ports: vec![port("lost", "10.0.0.4:80")],
        sources: vec![source("lost")],
        chains: vec![Chain { family: "inet", name: "postrouting".to_owned(), rules: 2, standing: 0 }],
        ..Seen::default()
    };
    let expect =
        |container: &str, problem, what: &str| (format!("pods/{container}/eth0"), problem, what.to_owned());
    assert_eq!(
        found(&seen),
        [
            expect("gone", "abandoned lease", "10.0.0.2"),
            expect("bare", "lease without interface", "10.0.0.3"),
            expect("stray", "interface without lease", "weftstray"),
            expect("bare", "firewall element without lease", "10.0.0.9"),
            expect("lost", "firewall element without lease", "10.0.0.4"),
            expect("lost", "host port without lease", "8080/tcp"),
            expect("lost", "pinned port without lease", "weftlost"),
            ("pods/-/-".to_owned(), "firewall rules missing", "inet postrouting, 0 of 2 rules".to_owned()),
        ]
    );
}

#[test]
fn a_rate_that_the_runtime_asked_for_and_nobody_keeps_is_told() {
    let limited = |container, notes: Value| {
        let notes = notes.as_object().unwrap().clone();
        (Lease { notes, ..lease(container, "10.0.0.2/24", 900) }, false)
    };
    let bandwidth = json!({"runtimeConfig": {"bandwidth": {"ingressRate": 8000, "ingressBurst": 8000}}});
    let seen = Seen {
        leases: vec![limited("a", bandwidth.clone()), limited("b", bandwidth), limited("c", json!({}))],
        pairs: vec![pair("a"), pair("b"), pair("c")],
        shaped: vec!["weftb".to_owned()],
        ..Seen::default()
    };
    assert_eq!(found(&seen), [("pods/a/eth0".to_owned(), "bandwidth not limited", "wefta".to_owned())]);
}

#[test]
fn an_add_that_is_just_happening_is_no_difference() {
    let seen = Seen { leases: vec![(lease("new", "10.0.0.2/24", 3), false)], ..Seen::default() };
    assert_eq!(found(&seen), []);
}

#[test]
fn what_belongs_to_a_pod_with_addresses_of_another_plugin_is_judged_with_its_interface() {
    let seen =
        Seen { pairs: vec![pair("other")], elements: vec![element("other", "10.9.0.2")], ..Seen::default() };
    let expected = ("pods/other/eth0".to_owned(), "interface without lease", "weftother".to_owned());
    assert_eq!(found(&seen), [expected]);
}

#[test]
fn the_table_says_what_to_do() {
    let seen = Seen { pairs: vec![pair("stray")], ..Seen::default() };
    let findings =
        compare("pods", &seen, SystemTime::now()).into_iter().map(|finding| (finding, Fate::Stands));
    let report = Report { networks: 1, findings: findings.collect(), ..Report::default() };
    assert_eq!(report.verdict(), crate::explain::Verdict::Differs);
    assert_eq!(
        report.render(false),
        "looked at 0 pods in 1 network: 1 difference\n\n\
         NETWORK  CONTAINER  INTERFACE  PROBLEM                  WHAT       REMEDY\n\
         pods     stray      eth0       interface without lease  weftstray  delete the pod, unless another IPAM plugin gave it its addresses\n"
    );
    let document: Value = serde_json::from_str(&report.render(true)).unwrap();
    assert_eq!(document["findings"][0]["repaired"], false);
}
