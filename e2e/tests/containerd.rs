//! containerd makes and removes pods through CRI, as kubelet asks it to.

#![cfg(test)]

use std::net::IpAddr;

use serde_json::Value;
use weft_e2e::{Containerd, Network, Node, Pod, Sandbox, Upstream, http};

#[test]
fn pods_of_weft_cni_are_joined_and_leave_nothing() {
    pods_are_joined_and_leave_nothing(Network::routed(0).list());
}

/// The suite is held against the reference, too: what it asks for is what a CNI plugin owes, not what ours does.
#[test]
fn pods_of_the_reference_are_joined_and_leave_no_trace_of_themselves() {
    let node = Node::start().unwrap();
    let network = Network::reference(1);
    let containerd = Containerd::start(&node, network.list()).unwrap();
    let before = node.inventory().unwrap();
    joined(&node, &containerd);
    let left: Vec<_> = before.diff(&node.inventory().unwrap());
    // The bridge, host-local's bookkeeping, and the base chains that iptables makes on its first rule.
    let its_own = ["cni0", "/run/cni/host-local/", r#""nat""#];
    let strange = |line: &&String| !its_own.iter().any(|part| line.contains(part));
    assert_eq!(left.iter().filter(strange).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_sandbox_is_refused_with_the_plugins_own_words() {
    let node = Node::start().unwrap();
    let mut list = Network::routed(0).list().clone();
    list["plugins"][0]["ipam"]["ranges"] = serde_json::json!([[{ "subnet": "10.244.0.0/33" }]]);
    let containerd = Containerd::start(&node, &list).unwrap();
    let before = node.inventory().unwrap();
    let refusal = containerd.run_sandbox("unlucky").unwrap_err().to_string();
    assert!(refusal.contains("10.244.0.0/33"), "{refusal}");
    assert_eq!(before.diff(&node.inventory().unwrap()), [""; 0]);
}

fn pods_are_joined_and_leave_nothing(list: &Value) {
    let node = Node::start().unwrap();
    let containerd = Containerd::start(&node, list).unwrap();
    let before = node.inventory().unwrap();
    joined(&node, &containerd);
    assert_eq!(before.diff(&node.inventory().unwrap()), [""; 0], "{}", containerd.log());
}

fn joined(node: &Node, containerd: &Containerd) {
    let sandboxes = ["one", "two"].map(|name| containerd.run_sandbox(name).unwrap());
    let pods = sandboxes.each_ref().map(|sandbox| containerd.pod(sandbox).unwrap());
    for (sandbox, pod) in sandboxes.iter().zip(&pods) {
        has_the_addresses_that_cri_reports(sandbox, pod);
    }
    let _one = Upstream::start(&pods[0], 8080, "one").unwrap();
    let _two = Upstream::start(&pods[1], 8080, "two").unwrap();
    let host = Pod::host(node).unwrap();
    let _host = Upstream::start(&host, 8080, "host").unwrap();
    for family in 0..2 {
        let [one, two] = sandboxes.each_ref().map(|sandbox| addresses(sandbox)[family]);
        assert_eq!(reached(&pods[0], two), ("two".to_owned(), one));
        assert_eq!(reached(&pods[1], one), ("one".to_owned(), two));
        assert_eq!(reached(&pods[0], gateway(&pods[0], one)), ("host".to_owned(), one));
        assert_eq!(reached(&host, one).0, "one");
    }
    sandboxes.iter().for_each(|sandbox| remove(containerd, sandbox));
}

fn has_the_addresses_that_cri_reports(sandbox: &Sandbox, pod: &Pod) {
    let shown: Value = serde_json::from_str(&pod.sh("ip -j address show dev eth0").unwrap()).unwrap();
    let shown = shown[0]["addr_info"].as_array().unwrap();
    let mut shown: Vec<IpAddr> = shown
        .iter()
        .filter(|address| address["scope"] == "global")
        .map(|address| address["local"].as_str().unwrap().parse().unwrap())
        .collect();
    let mut reported = addresses(sandbox);
    assert_eq!(reported.len(), 2, "{sandbox:?}");
    shown.sort();
    reported.sort();
    assert_eq!(shown, reported);
}

/// IPv4 first, as ranges are.
fn addresses(sandbox: &Sandbox) -> Vec<IpAddr> {
    let all = std::iter::once(&sandbox.ip).chain(&sandbox.additional_ips);
    let mut all: Vec<IpAddr> = all.map(|ip| ip.parse().unwrap()).collect();
    all.sort();
    all
}

/// Who answered, and whom it saw.
fn reached(from: &Pod, to: IpAddr) -> (String, IpAddr) {
    let echo = http::get(from, (to, 8080).into(), "test", "/", &[]).unwrap().echo().unwrap();
    (echo.name, echo.peer.ip().to_canonical())
}

/// The host as the pod knows it.
fn gateway(pod: &Pod, of: IpAddr) -> IpAddr {
    let family = if of.is_ipv4() { "-4" } else { "-6" };
    let route: Value =
        serde_json::from_str(&pod.sh(&format!("ip -j {family} route show default")).unwrap()).unwrap();
    route[0]["gateway"].as_str().unwrap().parse().unwrap()
}

/// Each call twice: kubelet repeats what it does not know to have succeeded.
fn remove(containerd: &Containerd, sandbox: &Sandbox) {
    for _ in 0..2 {
        containerd.stop_sandbox(&sandbox.id).unwrap();
    }
    for _ in 0..2 {
        containerd.remove_sandbox(&sandbox.id).unwrap();
    }
}
