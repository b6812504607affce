//! The shipped `weft-cni`, with environment and stdin, as a runtime execs it.
//!
//! What every CNI plugin owes is asked of the reference plugins as well: a test that they fail asks for too much.

#![cfg(test)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use weft_e2e::cni::{address, call};
use weft_e2e::{
    Attachment, Error, Network, Node, Pod, Reply, UdpServer, Upstream, binaries, http, outside, tcp, udp,
};

macro_rules! held_by_weft_cni_and_the_reference {
    ($($property:ident,)*) => {
        mod weft_cni { $(#[test] fn $property() { super::$property(&super::Network::routed(0)); })* }
        mod weft_cni_bridge { $(#[test] fn $property() { super::$property(&super::Network::bridged(0)); })* }
        mod reference { $(#[test] fn $property() { super::$property(&super::Network::reference(0)); })* }
    };
}

held_by_weft_cni_and_the_reference! {
    a_pod_reaches_pods_and_host_over_both_families,
    a_pod_leaves_the_node_with_the_nodes_address,
    check_accepts_what_add_made,
    check_refuses_a_pod_that_has_lost_its_address,
    check_refuses_a_pod_that_has_lost_its_default_route,
    del_twice_succeeds,
    del_of_an_unknown_container_succeeds,
    del_without_a_namespace_frees_the_addresses,
    an_interface_that_exists_is_refused_and_kept,
    a_range_serves_as_many_pods_as_it_has_addresses_again_and_again,
    pods_that_start_at_once_get_addresses_of_their_own,
    a_pod_of_one_family_has_nothing_of_the_other,
    addresses_and_a_mac_are_those_that_are_asked_for,
    ports_of_the_node_lead_to_the_pod_until_it_goes,
    rates_hold_in_both_directions_and_go_with_the_pod,
    parameters_are_the_pods_alone_and_missed_by_check,
}

fn a_pod_reaches_pods_and_host_over_both_families(network: &Network) {
    let node = Node::start().unwrap();
    let [(one, a), (two, b)] = ["one", "two"].map(|name| attached(network, &node, name));
    let _two = Upstream::start(&two, 8080, "two").unwrap();
    let _one = Upstream::start(&one, 8080, "one").unwrap();
    let host = Pod::host(&node).unwrap();
    let _host = Upstream::start(&host, 8080, "host").unwrap();
    for family in 0..2 {
        let [one_is, two_is] = [&a, &b].map(|result| address(result, family).unwrap());
        assert_eq!(reached(&one, two_is), ("two".to_owned(), one_is));
        assert_eq!(reached(&two, one_is), ("one".to_owned(), two_is));
        assert_eq!(reached(&one, gateway(&a, family)), ("host".to_owned(), one_is));
        assert_eq!(reached(&host, two_is).0, "two");
    }
}

/// The internet knows a route to the node, and none to the pods.
fn a_pod_leaves_the_node_with_the_nodes_address(network: &Network) {
    let node = Node::start().unwrap();
    let internet = outside::beyond(&node).unwrap();
    let _server = Upstream::start(&internet, 80, "internet").unwrap();
    let (pod, _) = attached(network, &node, "pod");
    for (server, node_is) in ["192.0.2.2", "2001:db8::2"].into_iter().zip(outside::NODE) {
        let echo = http::get(&pod, (ip(server), 80).into(), "test", "/", &[]).unwrap().echo().unwrap();
        assert_eq!(echo.peer.ip().to_canonical(), ip(node_is));
    }
}

fn check_accepts_what_add_made(network: &Network) {
    let node = Node::start().unwrap();
    let (pod, result) = attached(network, &node, "pod");
    network.check(&node, &Attachment::of(&pod), &result).unwrap();
}

fn check_refuses_a_pod_that_has_lost_its_address(network: &Network) {
    let node = Node::start().unwrap();
    let (pod, result) = attached(network, &node, "pod");
    pod.sh(&format!("ip address del {}/24 dev eth0", address(&result, 0).unwrap())).unwrap();
    refused(network.check(&node, &Attachment::of(&pod), &result));
}

fn check_refuses_a_pod_that_has_lost_its_default_route(network: &Network) {
    let node = Node::start().unwrap();
    let (pod, result) = attached(network, &node, "pod");
    pod.sh("ip -4 route del default").unwrap();
    refused(network.check(&node, &Attachment::of(&pod), &result));
}

fn del_twice_succeeds(network: &Network) {
    let node = Node::start().unwrap();
    let (pod, result) = attached(network, &node, "pod");
    network.del(&node, &Attachment::of(&pod), &result).unwrap();
    network.del(&node, &Attachment::of(&pod), &result).unwrap();
}

fn del_of_an_unknown_container_succeeds(network: &Network) {
    let node = Node::start().unwrap();
    let pod = Pod::create(&node, "never-seen").unwrap();
    network.del(&node, &Attachment::of(&pod), &Value::Null).unwrap();
}

/// After a reboot, or when the pod has died first: the runtime has no namespace to name.
fn del_without_a_namespace_frees_the_addresses(network: &Network) {
    let node = Node::start().unwrap();
    let (pod, result) = attached(network, &node, "pod");
    let mut attachment = Attachment::of(&pod);
    drop(pod);
    attachment.netns = "".into();
    network.del(&node, &attachment, &result).unwrap();
    let (_, again) = attached(network, &node, "pod");
    assert_eq!(again["ips"].as_array().unwrap().len(), 2);
}

fn an_interface_that_exists_is_refused_and_kept(network: &Network) {
    let node = Node::start().unwrap();
    let (pod, result) = attached(network, &node, "pod");
    let look = || {
        let addresses = pod.sh("ip -o address show scope global").unwrap();
        (
            node.inventory().unwrap(),
            addresses,
            pod.sh("ip -4 route").unwrap(),
            pod.sh("ip -6 route show default").unwrap(),
        )
    };
    let before = look();
    refused(network.add(&node, &Attachment::of(&pod)));
    let now = look();
    assert_eq!(before.0.diff(&now.0), [""; 0]);
    assert_eq!((before.1, before.2, before.3), (now.1, now.2, now.3));
    network.check(&node, &Attachment::of(&pod), &result).unwrap();
}

/// Whatever the bookkeeping says: an address is free when the next pod gets it.
fn a_range_serves_as_many_pods_as_it_has_addresses_again_and_again(network: &Network) {
    let mut list = network.list().clone();
    list["plugins"][0]["ipam"]["ranges"] = json!([[{ "subnet": "10.244.9.0/29" }]]);
    list["plugins"][0]["ipam"]["routes"] = json!([]);
    let network = Network::new(list);
    let node = Node::start().unwrap();
    for _ in 0..3 {
        // Eight, less the network's, the gateway's and the broadcast address.
        let pods = ["a", "b", "c", "d", "e"].map(|name| attached(&network, &node, name));
        let unlucky = Pod::create(&node, "unlucky").unwrap();
        refused(network.add(&node, &Attachment::of(&unlucky)));
        for (pod, result) in &pods {
            network.del(&node, &Attachment::of(pod), result).unwrap();
        }
        network.del(&node, &Attachment::of(&unlucky), &Value::Null).unwrap();
    }
}

fn pods_that_start_at_once_get_addresses_of_their_own(network: &Network) {
    const PODS: usize = 20;
    let node = Node::start().unwrap();
    let pods: Vec<_> = (0..PODS).map(|n| Pod::create(&node, &format!("pod-{n}")).unwrap()).collect();
    let results: Vec<_> = thread::scope(|scope| {
        let adding: Vec<_> = pods
            .iter()
            .map(|pod| scope.spawn(|| network.add(&node, &Attachment::of(pod)).unwrap()))
            .collect();
        adding.into_iter().map(|adding| adding.join().unwrap()).collect()
    });
    for family in 0..2 {
        let distinct: BTreeSet<_> = results.iter().map(|result| address(result, family).unwrap()).collect();
        assert_eq!(distinct.len(), PODS);
    }
    thread::scope(|scope| {
        for (pod, result) in pods.iter().zip(&results) {
            scope.spawn(|| network.del(&node, &Attachment::of(pod), result).unwrap());
        }
    });
}

fn a_pod_of_one_family_has_nothing_of_the_other(network: &Network) {
    for (range, default, other) in
        [("10.244.7.0/24", "0.0.0.0/0", "-6"), ("fd00:10:244:7::/64", "::/0", "-4")]
    {
        let mut list = network.list().clone();
        list["plugins"][0]["ipam"]["ranges"] = json!([[{ "subnet": range }]]);
        list["plugins"][0]["ipam"]["routes"] = json!([{ "dst": default }]);
        let network = Network::new(list);
        let node = Node::start().unwrap();
        let [(one, a), (two, b)] = ["one", "two"].map(|name| attached(&network, &node, name));
        let _two = Upstream::start(&two, 8080, "two").unwrap();
        let [one_is, two_is] = [&a, &b].map(|result| address(result, 0).unwrap());
        assert_eq!(reached(&one, two_is), ("two".to_owned(), one_is));
        assert_eq!(a["ips"].as_array().unwrap().len(), 1, "{a}");
        assert_eq!(one.sh(&format!("ip {other} -o address show dev eth0 scope global")).unwrap(), "");
        assert_eq!(one.sh(&format!("ip {other} route show default")).unwrap(), "");
    }
}

fn addresses_and_a_mac_are_those_that_are_asked_for(network: &Network) {
    let node = Node::start().unwrap();
    let network = network.clone().with_capabilities();
    let pod = Pod::create(&node, "pod").unwrap();
    let asked = ["10.244.0.77", "fd00:10:244::77"];
    let attachment = Attachment::of(&pod).with("ips", json!(asked)).with("mac", json!("02:11:22:33:44:55"));
    let result = network.add(&node, &attachment).unwrap();
    assert_eq!([0, 1].map(|family| address(&result, family).unwrap()), asked.map(ip));
    let link = pod.sh("ip -o link show dev eth0").unwrap();
    assert!(link.contains("link/ether 02:11:22:33:44:55"), "{link}");
    let of_pod =
        result["interfaces"].as_array().unwrap().iter().find(|link| link["sandbox"] == json!(pod.netns()));
    assert_eq!(of_pod.unwrap()["mac"], "02:11:22:33:44:55", "{result}");
    let twice = Pod::create(&node, "twice").unwrap();
    refused(network.add(&node, &Attachment::of(&twice).with("ips", json!(asked))));
}

/// A client keeps its own address.
fn ports_of_the_node_lead_to_the_pod_until_it_goes(network: &Network) {
    let node = Node::start().unwrap();
    let internet = outside::beyond(&node).unwrap();
    let network = network.clone().with_capabilities();
    let pod = Pod::create(&node, "web").unwrap();
    let port = |protocol: &str, container: u16| json!({ "hostPort": 8080, "containerPort": container, "protocol": protocol });
    let attachment = Attachment::of(&pod).with("portMappings", json!([port("tcp", 80), port("udp", 53)]));
    let result = network.add(&node, &attachment).unwrap();
    let _web = Upstream::start(&pod, 80, "web").unwrap();
    let _names = UdpServer::start(&pod, 53, "names").unwrap();
    let clients = ["192.0.2.2", "2001:db8::2"];
    let answering = |to| http::get(&internet, (ip(to), 8080).into(), "test", "/", &[])?.echo();
    for (to, client) in outside::NODE.into_iter().zip(clients) {
        let echo = answering(to).unwrap();
        assert_eq!((echo.name.as_str(), echo.peer.ip().to_canonical()), ("web", ip(client)));
        assert_eq!(udp::ask(&internet, (ip(to), 8080).into()).unwrap(), "names");
    }
    network.del(&node, &attachment, &result).unwrap();
    for to in outside::NODE {
        answering(to).unwrap_err();
    }
}

fn rates_hold_in_both_directions_and_go_with_the_pod(network: &Network) {
    const BITS: u64 = 16_000_000;
    let node = Node::start().unwrap();
    let network = network.clone().with_capabilities();
    let pod = Pod::create(&node, "slow").unwrap();
    let rates = json!({ "ingressRate": BITS, "ingressBurst": BITS / 20, "egressRate": BITS, "egressBurst": BITS / 20 });
    let attachment = Attachment::of(&pod).with("bandwidth", rates);
    let result = network.add(&node, &attachment).unwrap();
    let host = Pod::host(&node).unwrap();
    let directions = [(&pod, &host, gateway(&result, 0)), (&host, &pod, address(&result, 0).unwrap())];
    for (from, to, address) in directions {
        // A megabyte takes half a second at this rate, and a few milliseconds without.
        let took = tcp::transfer(from, to, address, 1_000_000).unwrap();
        assert!(took > Duration::from_millis(350) && took < Duration::from_secs(5), "{took:?}");
    }
    network.check(&node, &attachment, &result).unwrap();
    network.del(&node, &attachment, &result).unwrap();
    let shaped = host.sh("tc qdisc show").unwrap();
    assert!(!shaped.contains("tbf"), "{shaped}");
}

fn parameters_are_the_pods_alone_and_missed_by_check(network: &Network) {
    const SOMAXCONN: &str = "cat /proc/sys/net/core/somaxconn";
    let node = Node::start().unwrap();
    let host = Pod::host(&node).unwrap();
    let before = host.sh(SOMAXCONN).unwrap();
    let network = network.clone().tuned(json!({ "sysctl": { "net.core.somaxconn": "321" }, "mtu": 1400 }));
    let (pod, result) = attached(&network, &node, "pod");
    assert_eq!(pod.sh(SOMAXCONN).unwrap().trim(), "321");
    assert_eq!(host.sh(SOMAXCONN).unwrap(), before);
    let link = pod.sh("ip -o link show dev eth0").unwrap();
    assert!(link.contains("mtu 1400"), "{link}");
    network.check(&node, &Attachment::of(&pod), &result).unwrap();
    pod.run(|| std::fs::write("/proc/sys/net/core/somaxconn", "322")).unwrap().unwrap();
    refused(network.check(&node, &Attachment::of(&pod), &result));
}

/// The reference cannot be asked: in CHECK of 1.1.1 its `bandwidth` dies where there are no rates (`main.go:301`), and its `portmap` looks for the
/// IPv4 rules among those of IPv6.
#[test]
fn check_accepts_ports_of_both_families_and_a_pod_without_rates() {
    for network in [Network::routed(0), Network::bridged(0)] {
        let node = Node::start().unwrap();
        let network = network.with_capabilities();
        let pod = Pod::create(&node, "web").unwrap();
        let port = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
        let attachment = Attachment::of(&pod).with("portMappings", port);
        let result = network.add(&node, &attachment).unwrap();
        network.check(&node, &attachment, &result).unwrap();
    }
}

#[test]
fn a_routed_pod_has_one_way_out_and_waits_for_no_neighbour() {
    let node = Node::start().unwrap();
    let (pod, result) = attached(&Network::routed(0), &node, "pod");
    for (family, (flag, prefix)) in [("-4", 24), ("-6", 64)].into_iter().enumerate() {
        let (address, gateway) = (address(&result, family).unwrap(), gateway(&result, family));
        let addresses = pod.sh(&format!("ip {flag} -o address show dev eth0 scope global")).unwrap();
        assert!(addresses.contains(&format!("{address}/{prefix}")), "{addresses}");
        assert!(!addresses.contains("tentative"), "{addresses}");
        let routes = pod.sh(&format!("ip {flag} route show dev eth0")).unwrap();
        assert!(routes.lines().any(|route| route.starts_with(&format!("default via {gateway}"))), "{routes}");
        assert!(routes.lines().any(|route| route.starts_with(&gateway.to_string())), "{routes}");
        let beside = routes.lines().find(|route| !route.contains(" via ") && route.contains('/'));
        assert!(beside.is_none_or(|route| route.starts_with("fe80::/")), "{routes}");
        let neighbours = pod.sh(&format!("ip {flag} neighbour show nud permanent dev eth0")).unwrap();
        assert!(neighbours.starts_with(&gateway.to_string()), "{neighbours}");
    }
}

#[test]
fn a_routed_pod_is_one_link_two_routes_and_two_elements_on_the_node() {
    let node = Node::start().unwrap();
    let network = Network::routed(0);
    let _first = attached(&network, &node, "first");
    let before = node.inventory().unwrap();
    let (_pod, result) = attached(&network, &node, "second");
    let now = node.inventory().unwrap();
    let diff = before.diff(&now);
    let new = |start: &str| diff.iter().filter(|line| line.starts_with(&format!("+ {start}"))).count();
    assert_eq!(new("link "), 1, "{diff:#?}");
    for family in 0..2 {
        let address = address(&result, family).unwrap();
        assert_eq!(new(&format!("route type unicast dst {address} ")), 1, "{diff:#?}");
        assert_eq!(new(&format!("neighbour {address} ")), 1, "{diff:#?}");
    }
    assert!(
        now.matching("link ").iter().any(|link| link.contains("second")),
        "no alias names the owner: {now}"
    );
    assert_eq!(
        diff.iter().filter(|line| line.contains("\"rule\"")).count(),
        0,
        "a pod is no rule: {diff:#?}"
    );
}

/// The rules of the hot path, as the kernel sees them kept.
#[test]
fn add_and_del_exec_nothing_and_never_sleep_and_add_dumps_nothing() {
    let node = Node::start().unwrap();
    let pod = Pod::create(&node, "pod").unwrap();
    let netns = pod.netns().to_str().unwrap();
    let stdin = Network::routed(0).list()["plugins"][0].clone();
    let stdin = json!({ "cniVersion": "1.0.0", "name": "weft", "type": "weft-cni", "mode": stdin["mode"],
        "ipMasq": stdin["ipMasq"], "ipam": stdin["ipam"] });
    for verb in ["ADD", "DEL"] {
        let env = [("CNI_COMMAND", verb), ID, ("CNI_NETNS", netns), IFNAME, PATH];
        let trace = traced(&node, &env, &stdin.to_string());
        assert!(trace.contains("NLM_F_REQUEST"), "{verb} says nothing to the kernel: {trace}");
        assert_eq!(trace.matches("execve(").count(), 1, "{trace}");
        assert!(!trace.contains("nanosleep("), "{verb}: {trace}");
        // DEL looks through the elements, to see whether the table can go with the last of them.
        assert!(verb == "DEL" || !trace.contains("NLM_F_DUMP"), "{verb}: {trace}");
    }
}

/// A bridge's addresses can only be listed, and are: once, when the first pod comes.
#[test]
fn only_the_first_add_to_a_bridge_dumps_something() {
    let node = Node::start().unwrap();
    let mut stdin = Network::bridged(0).list()["plugins"][0].clone();
    stdin["cniVersion"] = "1.0.0".into();
    stdin["name"] = "weft".into();
    stdin["macspoofchk"] = true.into();
    for (name, dumps) in [("first", true), ("second", false)] {
        let pod = Pod::create(&node, name).unwrap();
        let netns = pod.netns().to_str().unwrap();
        let env = [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", name), ("CNI_NETNS", netns), IFNAME, PATH];
        let trace = traced(&node, &env, &stdin.to_string());
        assert_eq!(trace.contains("NLM_F_DUMP"), dumps, "{name}: {trace}");
        assert!(!trace.contains("nanosleep("), "{name}: {trace}");
        assert_eq!(trace.matches("execve(").count(), 1, "{name}: {trace}");
    }
}

#[test]
fn nothing_is_left_after_the_last_pod() {
    let node = Node::start().unwrap();
    let network = Network::routed(0);
    let before = node.inventory().unwrap();
    let pods = ["one", "two", "three"].map(|name| attached(&network, &node, name));
    for (pod, result) in &pods {
        network.del(&node, &Attachment::of(pod), result).unwrap();
    }
    drop(pods);
    assert_eq!(before.diff(&node.inventory().unwrap()), [""; 0]);
}

/// The runtime may have lost namespace and result; what is ours is found by container and interface alone.
#[test]
fn nothing_is_left_after_a_del_that_knows_only_the_container() {
    let node = Node::start().unwrap();
    let network = Network::routed(0);
    let before = node.inventory().unwrap();
    let (pod, _) = attached(&network, &node, "pod");
    let mut attachment = Attachment::of(&pod);
    attachment.netns = "".into();
    network.del(&node, &attachment, &Value::Null).unwrap();
    drop(pod);
    assert_eq!(before.diff(&node.inventory().unwrap()), [""; 0]);
}

#[test]
fn nothing_is_left_after_an_add_that_fails() {
    let node = Node::start().unwrap();
    let before = node.inventory().unwrap();
    let pod = Pod::create(&node, "pod").unwrap();
    pod.sh("ip link add eth0 type veth peer name other").unwrap();
    refused(Network::routed(0).add(&node, &Attachment::of(&pod)));
    drop(pod);
    assert_eq!(before.diff(&node.inventory().unwrap()), [""; 0]);
}

#[test]
fn every_version_of_the_spec_gets_its_own_result() {
    let node = Node::start().unwrap();
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let mut list = Network::routed(0).list().clone();
        list["cniVersion"] = version.into();
        let network = Network::new(list);
        let (pod, result) = attached(&network, &node, "pod");
        let attachment = Attachment::of(&pod);
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["ips"][0].get("version").is_some(), version.starts_with('0'), "{result}");
        let interface = result["ips"][0]["interface"].as_u64().unwrap();
        let interface = &result["interfaces"][usize::try_from(interface).unwrap()];
        assert_eq!((&interface["name"], &interface["sandbox"]), (&json!("eth0"), &json!(pod.netns())));
        assert_eq!(result["routes"].as_array().unwrap().len(), 2, "{result}");
        if !version.starts_with("0.3") {
            network.check(&node, &attachment, &result).unwrap();
        }
        network.del(&node, &attachment, &result).unwrap();
    }
}

#[test]
fn version_lists_every_version_that_is_served() {
    let node = Node::start().unwrap();
    let reply = raw(&node, &[("CNI_COMMAND", "VERSION")], r#"{"cniVersion":"1.0.0"}"#);
    assert!(reply.status.success());
    let versions = reply.json().unwrap()["supportedVersions"].clone();
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        assert!(versions.as_array().unwrap().contains(&version.into()), "{versions}");
    }
}

#[test]
fn what_is_wrong_with_a_call_has_the_code_of_the_spec() {
    let node = Node::start().unwrap();
    let good = config("1.0.0", "net");
    let call: &[_] = &[("CNI_COMMAND", "ADD"), ID, NETNS, IFNAME, PATH];
    let with = |changed: (&'static str, &'static str)| -> Vec<_> {
        call.iter().map(|&pair| if pair.0 == changed.0 { changed } else { pair }).collect()
    };
    let cases: [Case; 12] = [
        ("a variable is missing", vec![("CNI_COMMAND", "ADD"), NETNS, IFNAME, PATH], good.clone(), 4),
        ("an unknown verb", with(("CNI_COMMAND", "MEND")), good.clone(), 4),
        ("a container id with a slash", with(("CNI_CONTAINERID", "a/b")), good.clone(), 4),
        ("an interface name that is too long", with(("CNI_IFNAME", "sixteen-letters-")), good.clone(), 4),
        ("the plugin's own namespace", with(("CNI_NETNS", "/proc/self/ns/net")), good.clone(), 8),
        ("no JSON", call.to_vec(), "{".to_owned(), 6),
        ("no name", call.to_vec(), config("1.0.0", ""), 7),
        ("a version that is no version", call.to_vec(), config("one", "net"), 6),
        ("a version of the future", call.to_vec(), config("9.0.0", "net"), 1),
        ("CHECK before it was invented", with(("CNI_COMMAND", "CHECK")), config("0.3.1", "net"), 1),
        ("GC before it was invented", with(("CNI_COMMAND", "GC")), config("1.0.0", "net"), 1),
        ("STATUS before it was invented", with(("CNI_COMMAND", "STATUS")), config("1.0.0", "net"), 1),
    ];
    let before = node.inventory().unwrap();
    for (what, env, stdin, code) in cases {
        let reply = raw(&node, &env, &stdin);
        let document = reply.json().unwrap_or_else(|error| panic!("{what}: {error}\n{}", reply.stderr));
        assert_eq!(reply.status.code(), Some(1), "{what}");
        assert_eq!(document["code"], code, "{what}: {document}");
        assert!(!document["msg"].as_str().unwrap().is_empty(), "{what}: {document}");
        assert!(document["cniVersion"].is_string(), "{what}: {document}");
    }
    assert_eq!(before.diff(&node.inventory().unwrap()), [""; 0]);
}

/// What is wrong, the environment, stdin, and the code.
type Case = (&'static str, Vec<(&'static str, &'static str)>, String, u64);

const ID: (&str, &str) = ("CNI_CONTAINERID", "c1");
const NETNS: (&str, &str) = ("CNI_NETNS", "/run/netns/nowhere");
const IFNAME: (&str, &str) = ("CNI_IFNAME", "eth0");
const PATH: (&str, &str) = ("CNI_PATH", "/nowhere");

fn config(version: &str, name: &str) -> String {
    let ipam = json!({ "type": "weft-ipam", "ranges": [[{ "subnet": "10.0.0.0/24" }]] });
    json!({ "cniVersion": version, "name": name, "type": "weft-cni", "ipam": ipam }).to_string()
}

fn raw(node: &Node, env: &[(&'static str, &str)], stdin: &str) -> Reply {
    let env: Vec<_> = env.iter().map(|(key, value)| (*key, OsString::from(value))).collect();
    call(node, &binaries::weft("weft-cni").unwrap(), &env, stdin).unwrap()
}

/// What the plugin asks of the kernel, among what the hot path has rules for.
fn traced(node: &Node, env: &[(&'static str, &str)], stdin: &str) -> String {
    const TRACE: &str = "/run/node/trace";
    let calls = "execve,nanosleep,clock_nanosleep,sendto,sendmsg";
    let plugin = binaries::weft("weft-cni").unwrap();
    let strace = binaries::system("strace").unwrap();
    let script =
        format!("#!/bin/sh\nexec {} -f -o {TRACE} -e trace={calls} {}\n", strace.display(), plugin.display());
    node.write("/run/node/traced", &script).unwrap();
    node.sh("chmod 755 /run/node/traced").unwrap();
    let env: Vec<_> = env.iter().map(|(key, value)| (*key, OsString::from(value))).collect();
    let reply = call(node, "/run/node/traced".as_ref(), &env, stdin).unwrap();
    assert!(reply.status.success(), "{reply:?}");
    node.run(|| std::fs::read_to_string(TRACE)).unwrap().unwrap()
}

fn attached(network: &Network, node: &Node, name: &str) -> (Pod, Value) {
    let pod = Pod::create(node, name).unwrap();
    let result = network.add(node, &Attachment::of(&pod)).unwrap();
    (pod, result)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    match outcome {
        Err(Error::Plugin(refusal)) => assert!(refusal.code > 0, "{refusal}"),
        other => panic!("not refused: {other:?}"),
    }
}

/// Who answered, and whom it saw.
#[track_caller]
fn reached(from: &Pod, to: IpAddr) -> (String, IpAddr) {
    let echo = http::get(from, (to, 8080).into(), "test", "/", &[]).unwrap().echo().unwrap();
    (echo.name, echo.peer.ip().to_canonical())
}

fn gateway(result: &Value, family: usize) -> IpAddr {
    ip(result["ips"][family]["gateway"].as_str().unwrap())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
