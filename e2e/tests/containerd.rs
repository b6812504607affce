//! containerd makes and removes pods through CRI, as kubelet asks it to.

#![cfg(test)]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_e2e::containerd::Protocol::{Tcp, Udp};
use weft_e2e::{
    Containerd, Inventory, Network, Node, Pod, PodSpec, Sandbox, UdpServer, Upstream, http, outside, tcp,
    udp, wait,
};

const PATIENCE: Duration = Duration::from_secs(20);

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

#[test]
fn host_ports_are_reached_where_they_should_be_and_leave_nothing() {
    host_ports_leave_nothing(&example());
}

#[test]
fn host_ports_of_pods_on_a_bridge_are_reached_where_they_should_be_and_leave_nothing() {
    let mut list = example();
    for key in ["isGateway", "hairpinMode"] {
        list["plugins"][0][key] = true.into();
    }
    host_ports_leave_nothing(&list);
}

#[test]
fn host_ports_of_the_reference_are_reached_where_they_should_be() {
    let node = Node::start().unwrap();
    let mut list = Network::reference(0).with(json!({ "hairpinMode": true })).list().clone();
    let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    list["plugins"].as_array_mut().unwrap().push(portmap);
    let internet = outside::beyond(&node).unwrap();
    with_host_ports(&Containerd::start(&node, &list).unwrap(), &internet);
}

fn host_ports_leave_nothing(list: &Value) {
    let node = Node::start().unwrap();
    let internet = outside::beyond(&node).unwrap();
    let containerd = Containerd::start(&node, list).unwrap();
    // A bridge stays, so it is there before.
    remove(&containerd, &containerd.run_sandbox("first").unwrap());
    let before = node.inventory().unwrap();
    let sandbox = with_host_ports(&containerd, &internet);
    assert!(!udp_flows(&node, &sandbox).is_empty());
    remove(&containerd, &sandbox);
    nothing_is_left(&before, &node);
    assert_eq!(udp_flows(&node, &sandbox), [""; 0], "UDP clients would go on sending to nobody");
}

/// A pod whose ports are reached from another machine, from the node and from the pod itself; a port on one address is on no
/// other.
fn with_host_ports(containerd: &Containerd, internet: &Pod) -> Sandbox {
    let [v4, v6] = outside::NODE;
    let spec = PodSpec::named("web")
        .with_port(Tcp, "", 8080, 80)
        .with_port(Udp, "", 8080, 53)
        .with_port(Tcp, v4, 8084, 80)
        .with_port(Udp, v4, 8084, 53)
        .with_port(Tcp, v6, 8086, 80)
        .with_port(Udp, v6, 8086, 53)
        .with_port(Tcp, "127.0.0.1", 8087, 80)
        .with_port(Tcp, "", 0, 80);
    let sandbox = containerd.run_pod(&spec).unwrap();
    let (host, web) = (Pod::host(internet.node()).unwrap(), containerd.pod(&sandbox).unwrap());
    let _server = Upstream::start(&web, 80, "web").unwrap();
    let _names = UdpServer::start(&web, 53, "names").unwrap();
    for from in [internet, &host, &web] {
        for (to, own, other) in [(v4, 8084, 8086), (v6, 8086, 8084)] {
            for port in [8080, own] {
                let answer = answering(from, to, port);
                assert_eq!(answer.as_deref().ok(), Some("web"), "{} to {to}:{port}: {answer:?}", from.name());
                assert_eq!(udp::ask(from, at(to, port)).unwrap(), "names", "{} to {to}:{port}", from.name());
            }
            for port in [other, 8087] {
                answering(from, to, port).unwrap_err();
            }
        }
    }
    for port in [8080, 8087] {
        assert_eq!(answering(&host, "127.0.0.1", port).unwrap(), "web");
    }
    sandbox
}

#[test]
fn a_sandbox_whose_port_is_taken_is_refused_with_the_owners_name_and_leaves_nothing() {
    let node = Node::start().unwrap();
    let containerd = Containerd::start(&node, &example()).unwrap();
    let first = containerd.run_pod(&PodSpec::named("first").with_port(Udp, "", 5353, 53)).unwrap();
    let before = node.inventory().unwrap();
    let second = PodSpec::named("second").with_port(Tcp, "", 8080, 80).with_port(Udp, "", 5353, 53);
    let refusal = containerd.run_pod(&second).unwrap_err().to_string();
    let owner = format!("host port 5353/udp is taken by weft/{}/eth0", first.id);
    assert!(refusal.contains(&owner), "{refusal}");
    nothing_is_left(&before, &node);

    remove(&containerd, &first);
    remove(&containerd, &containerd.run_pod(&second).unwrap());
}

/// containerd passes a burst of 2³²−1 bits along, which would let the first minutes through unshaped.
#[test]
fn annotations_limit_a_pods_bandwidth_from_the_first_megabyte_on() {
    const BITS: u64 = 16_000_000;
    let node = Node::start().unwrap();
    let containerd = Containerd::start(&node, &example()).unwrap();
    let before = node.inventory().unwrap();
    let spec = PodSpec::named("slow")
        .with_annotation("kubernetes.io/ingress-bandwidth", "16M")
        .with_annotation("kubernetes.io/egress-bandwidth", "16M");
    let sandbox = containerd.run_pod(&spec).unwrap();
    let (host, slow) = (Pod::host(&node).unwrap(), containerd.pod(&sandbox).unwrap());
    for (end, device) in [(&host, host_end(&node)), (&slow, "eth0".to_owned())] {
        let shown = end.sh(&format!("tc -j qdisc show dev {device}")).unwrap();
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!((&shown[0]["kind"], &shown[0]["root"]), (&json!("tbf"), &json!(true)), "{shown}");
        // tc shows bytes.
        assert_eq!(shown[0]["options"]["rate"], BITS / 8, "{shown}");
        let burst = shown[0]["options"]["burst"].as_u64().unwrap();
        assert!((1500..=BITS / 8 / 50).contains(&burst), "{shown}");
    }
    let gateway = gateway(&slow, addresses(&sandbox)[0]);
    for (from, to, address) in [(&slow, &host, gateway), (&host, &slow, addresses(&sandbox)[0])] {
        // A megabyte takes half a second at this rate, and a few milliseconds without.
        let took = tcp::transfer(from, to, address, 1_000_000).unwrap();
        assert!(took > Duration::from_millis(400) && took < Duration::from_secs(5), "{took:?}");
    }
    drop(slow);
    remove(&containerd, &sandbox);
    nothing_is_left(&before, &node);
}

#[test]
fn a_hundred_sandboxes_start_and_go_at_once() {
    let names: Vec<_> = (0..100).map(|n| format!("pod-{n}")).collect();
    let node = Node::start().unwrap();
    let containerd = Containerd::start(&node, &example()).unwrap();
    let before = node.inventory().unwrap();
    let begun = Instant::now();
    let sandboxes = each_at_once(&names, |name| {
        let port = 20_000 + name.trim_start_matches("pod-").parse::<u16>().unwrap();
        let spec = PodSpec::named(name).with_port(Tcp, "", port, 80);
        containerd.run_pod(&spec.with_annotation("kubernetes.io/egress-bandwidth", "10M")).unwrap()
    });
    let started = begun.elapsed();
    let distinct: BTreeSet<_> = sandboxes.iter().flat_map(addresses).collect();
    assert_eq!(distinct.len(), 200);
    let begun = Instant::now();
    each_at_once(&sandboxes, |sandbox| remove(&containerd, sandbox));
    println!("100 sandboxes: started in {started:?}, removed in {:?}", begun.elapsed());
    nothing_is_left(&before, &node);
}

/// The network of a pod needs no daemon, and DEL nothing that was only in its memory.
#[test]
fn pods_outlive_containerd_and_are_removed_by_its_successor() {
    let node = Node::start().unwrap();
    let mut containerd = Containerd::start(&node, &example()).unwrap();
    let before = node.inventory().unwrap();
    let old = containerd.run_pod(&PodSpec::named("old").with_port(Tcp, "", 8080, 80)).unwrap();
    let _server = Upstream::start(&containerd.pod(&old).unwrap(), 80, "old").unwrap();
    containerd.kill().unwrap();
    let host = Pod::host(&node).unwrap();
    assert_eq!(answering(&host, "127.0.0.1", 8080).unwrap(), "old");
    containerd.start_again().unwrap();
    assert_eq!(addresses(&containerd.sandbox(&old.id).unwrap()), addresses(&old));

    let refusal = containerd.run_pod(&PodSpec::named("new").with_port(Tcp, "", 8080, 80)).unwrap_err();
    assert!(refusal.to_string().contains(&old.id), "{refusal}");
    remove(&containerd, &old);
    let new = containerd.run_pod(&PodSpec::named("new").with_port(Tcp, "", 8080, 80)).unwrap();
    remove(&containerd, &new);
    nothing_is_left(&before, &node);
}

/// containerd has noted a sandbox before it calls ADD, and its successor calls DEL for whatever had come of that.
#[test]
fn pods_that_were_starting_when_containerd_was_killed_are_removed_by_its_successor() {
    each_at_once(&[4, 8, 12], |begun| killed_when_some_have_begun(*begun));
}

fn killed_when_some_have_begun(begun: usize) {
    let names: Vec<_> = (0..16).map(|n| format!("pod-{n}")).collect();
    let node = Node::start().unwrap();
    let mut containerd = Containerd::start(&node, &example()).unwrap();
    let before = node.inventory().unwrap();
    thread::scope(|scope| {
        let running: Vec<_> = names.iter().map(|name| scope.spawn(|| containerd.run_sandbox(name))).collect();
        let namespaces = || std::fs::read_dir("/run/netns").map_or(0, Iterator::count);
        wait::until("the first namespaces", PATIENCE, || match node.run(namespaces).unwrap() {
            so_far if so_far < begun => Err(so_far.to_string()),
            _ => Ok(()),
        })
        .unwrap();
        containerd.kill().unwrap();
        let started = running.into_iter().filter_map(|running| running.join().unwrap().ok()).count();
        assert!(started < names.len(), "it was killed too late");
    });
    // libcni writes its results in place (containernetworking/cni#1066). One that the kill has left empty makes containerd
    // refuse to remove its sandbox before it asks any plugin, until somebody deletes it.
    node.sh("find /var/lib -type f -size 0 -path */cni/results/* -delete").unwrap();
    containerd.start_again().unwrap();
    // kubelet tries again, under other names, and removes the old ones.
    let old = containerd.sandboxes().unwrap();
    let again = each_at_once(&names, |name| run_again(&containerd, name));
    let distinct: BTreeSet<_> = again.iter().flat_map(addresses).collect();
    assert_eq!(distinct.len(), 32);
    each_at_once(&old, |id| remove_twice(&containerd, id));
    each_at_once(&again, |sandbox| remove(&containerd, sandbox));
    // What it had not noted yet are bare namespaces.
    let left = before.diff(&node.inventory().unwrap());
    let left: Vec<_> = left.iter().filter(|line| !line.starts_with("+ namespace ")).collect();
    assert_eq!(left, [""; 0]);
}

/// The snapshotter was killed in the middle, too: it refuses as many snapshots as it had begun without noting them.
fn run_again(containerd: &Containerd, name: &str) -> Sandbox {
    let mut attempts = (0..16).map(|attempt| containerd.run_sandbox(&format!("{name}-again-{attempt}")));
    let refused = |attempt: &Result<Sandbox, _>| {
        attempt.as_ref().is_err_and(|error| format!("{error:?}").contains("snapshotter"))
    };
    attempts.find(|attempt| !refused(attempt)).expect("a snapshot in the end").unwrap()
}

/// What containerd asks for in its own way: the cluster's name service is what the plugin reports.
#[test]
fn the_name_service_of_a_pod_is_what_its_runtime_says() {
    let node = Node::start().unwrap();
    let containerd = Containerd::start(&node, &example()).unwrap();
    let sandbox = containerd.run_pod(&PodSpec::named("pod").with_dns("10.96.0.10", "cluster.local")).unwrap();
    let cache = format!("/var/lib/cni/results/weft-{}-eth0", sandbox.id);
    let cache: Value = serde_json::from_str(&node.sh(&format!("cat {cache}")).unwrap()).unwrap();
    let expected = json!({ "nameservers": ["10.96.0.10"], "search": ["cluster.local"] });
    assert_eq!(cache["result"]["dns"], expected, "{cache}");
    remove(&containerd, &sandbox);
}

/// The list that the README installs.
fn example() -> Value {
    serde_json::from_str(include_str!("../../docs/examples/cni/10-weft.conflist")).unwrap()
}

fn each_at_once<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let work = &work;
        let working: Vec<_> = items.iter().map(|item| scope.spawn(move || work(item))).collect();
        working.into_iter().map(|working| working.join().unwrap()).collect()
    })
}

/// The only pair's end on the node.
fn host_end(node: &Node) -> String {
    let links: Value = serde_json::from_str(&node.sh("ip -j link show type veth").unwrap()).unwrap();
    links[0]["ifname"].as_str().unwrap().to_owned()
}

/// What the kernel remembers of UDP to the pod.
fn udp_flows(node: &Node, sandbox: &Sandbox) -> Vec<String> {
    let table = node.run(|| std::fs::read_to_string("/proc/thread-self/net/nf_conntrack")).unwrap().unwrap();
    let of_pod =
        |line: &&str| addresses(sandbox).iter().any(|ip| line.contains(&format!("src={} ", expanded(*ip))));
    table.lines().filter(|line| line.contains(" udp ")).filter(of_pod).map(str::to_owned).collect()
}

/// As the kernel writes addresses there.
fn expanded(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => ip.segments().map(|segment| format!("{segment:04x}")).join(":"),
    }
}

/// The name of the server that answers.
fn answering(from: &Pod, to: &str, port: u16) -> weft_e2e::Result<String> {
    Ok(http::get(from, at(to, port), "test", "/", &[])?.echo()?.name)
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

#[track_caller]
fn nothing_is_left(before: &Inventory, node: &Node) {
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

fn remove(containerd: &Containerd, sandbox: &Sandbox) {
    remove_twice(containerd, &sandbox.id);
}

/// Each call twice: kubelet repeats what it does not know to have succeeded.
fn remove_twice(containerd: &Containerd, id: &str) {
    for _ in 0..2 {
        containerd.stop_sandbox(id).unwrap();
    }
    for _ in 0..2 {
        containerd.remove_sandbox(id).unwrap();
    }
}
