//! Three nodes: pods reach pods on other nodes, directly and through the tunnel, while nodes come, change and go.

#![cfg(test)]

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_e2e::cluster::{Host, Hosts};
use weft_e2e::{Attachment, Containerd, Network, Pod, cni, wait};

const PATIENCE: Duration = Duration::from_secs(30);
const ALL: [&str; 3] = ["a", "b", "c"];

/// A pod that is attached, with its two addresses.
struct Attached {
    pod: Pod,
    addresses: [IpAddr; 2],
}

fn attach(host: &Host, name: &str) -> Attached {
    attach_to(host, &host.network().unwrap(), name)
}

fn attach_to(host: &Host, network: &Network, name: &str) -> Attached {
    let pod = Pod::create(&host.node, name).unwrap();
    let result = network.add(&host.node, &Attachment::of(&pod)).unwrap();
    let addresses = [0, 1].map(|nth| cni::address(&result, nth).unwrap());
    Attached { pod, addresses }
}

/// A pod of each host.
fn pods(hosts: &Hosts, prefix: &str) -> Vec<Attached> {
    hosts.hosts.iter().map(|host| attach(host, &format!("{prefix}-{}", host.name))).collect()
}

/// Sends `megabytes` from one pod to another, which must see the sender's own address.
fn transfer(from: &Pod, source: IpAddr, to: &Pod, address: IpAddr, megabytes: usize) {
    let listener = to.run(|| TcpListener::bind((address, 0)).unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        (peer.ip(), received.len())
    });
    let to = (address, port).into();
    let mut stream = from.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&vec![7; megabytes << 20]).unwrap();
    drop(stream);
    assert_eq!(received.join().unwrap(), (source, megabytes << 20), "{source} to {address}");
}

/// Sends one packet of exactly `size` bytes, which nobody may divide, and gets it back. Linux forbids the division of what
/// fits the way that it knows.
fn full_size(from: &Pod, to: &Pod, address: IpAddr, size: usize) {
    let headers = if address.is_ipv4() { 20 + 8 } else { 40 + 8 };
    let server = to.run(|| UdpSocket::bind((address, 0)).unwrap()).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = server.local_addr().unwrap().port();
    let echo = thread::spawn(move || {
        let mut packet = vec![0; 9000];
        let (length, peer) = server.recv_from(&mut packet).unwrap();
        server.send_to(&packet[..length], peer).unwrap();
    });
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = from.run(|| UdpSocket::bind(any).unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(&vec![7; size - headers], (address, port)).unwrap();
    let mut answer = vec![0; 9000];
    assert_eq!(client.recv(&mut answer).unwrap(), size - headers, "{address}");
    echo.join().unwrap();
}

/// Whether a connection can be made within half a second.
fn is_reached(from: &Pod, to: &Pod, address: IpAddr) -> bool {
    let listener = to.run(|| TcpListener::bind((address, 0)).unwrap()).unwrap();
    let to = listener.local_addr().unwrap();
    from.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(500)).is_ok()).unwrap()
}

fn await_reached(from: &Pod, to: &Attached, wanted: bool) {
    for address in to.addresses {
        let what = format!("{address} to be reached: {wanted}");
        wait::until(&what, PATIENCE, || {
            if is_reached(from, &to.pod, address) == wanted { Ok(()) } else { Err("not yet".into()) }
        })
        .unwrap();
    }
}

/// `direct` or `vxlan`, by the other node and its subnet.
fn ways(status: &Value, peer: &str) -> Vec<String> {
    let peers = status["network"]["peers"].as_array().into_iter().flatten();
    let ways =
        peers.filter(|one| one["name"] == peer).flat_map(|one| one["ways"].as_array().into_iter().flatten());
    ways.map(|way| way["by"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn pods_reach_pods_of_all_nodes_with_full_size_packets() {
    let mut hosts = Hosts::start().unwrap();
    hosts.tell(&ALL).unwrap();
    hosts.run_agents(&ALL).unwrap();
    let status = hosts.host("a").status().unwrap();
    assert_eq!(ways(&status, "b"), ["direct"; 2], "{status}");
    assert_eq!(ways(&status, "c"), ["vxlan"; 2], "{status}");
    for host in &hosts.hosts {
        host.until("the MTU of pods", |status| status["network"]["podMtuBytes"] == 1450).unwrap();
        let host_list = || host.network().unwrap().list()["plugins"][0]["mtu"] == 1450;
        wait::until("the list to have it", PATIENCE, || if host_list() { Ok(()) } else { Err(host.log()) })
            .unwrap();
    }
    let pods = pods(&hosts, "web");
    for (at, from) in pods.iter().enumerate() {
        for to in pods.iter().enumerate().filter(|(there, _)| *there != at).map(|(_, to)| to) {
            for family in [0, 1] {
                let (source, address) = (from.addresses[family], to.addresses[family]);
                transfer(&from.pod, source, &to.pod, address, 4);
                full_size(&from.pod, &to.pod, address, 1450);
            }
        }
    }
    // A node itself talks to pods as well, also to those behind the tunnel.
    for address in pods[2].addresses {
        let host = Pod::host(&hosts.host("a").node).unwrap();
        assert!(is_reached(&host, &pods[2].pod, address), "{address} from the node a");
    }
}

#[test]
fn pods_with_a_larger_mtu_learn_the_way_s() {
    let mut hosts = Hosts::start().unwrap();
    hosts.tell(&ALL).unwrap();
    hosts.run_agents(&ALL).unwrap();
    let large = |host: &Host, name| {
        let network = host.network().unwrap().with(json!({ "mtu": 1500 }));
        attach_to(host, &network, name)
    };
    let (from, to) = (large(hosts.host("a"), "large-a"), large(hosts.host("c"), "large-c"));
    for family in [0, 1] {
        let (source, address) = (from.addresses[family], to.addresses[family]);
        assert!(from.pod.sh("ip link show eth0").unwrap().contains("mtu 1500"));
        transfer(&from.pod, source, &to.pod, address, 4);
        transfer(&to.pod, address, &from.pod, source, 4);
    }
}

#[test]
fn a_node_joins_changes_its_subnet_and_leaves() {
    let mut hosts = Hosts::start().unwrap();
    hosts.tell(&["a", "b"]).unwrap();
    hosts.run_agents(&["a", "b"]).unwrap();
    let a = attach(hosts.host("a"), "stays-a");
    let b = attach(hosts.host("b"), "stays-b");
    await_reached(&a.pod, &b, true);
    assert!(hosts.host("a").node.sh("ip link show weft.vxlan").is_err(), "nobody needs a tunnel yet");
    hosts.tell(&ALL).unwrap();
    hosts.run_agents(&["c"]).unwrap();
    let c = attach(hosts.host("c"), "joins-c");
    for pod in [&a, &b] {
        await_reached(&pod.pod, &c, true);
        await_reached(&c.pod, pod, true);
    }
    // Pods of the old subnet go with it; those of the new one are found.
    hosts.host_mut("c").pods = ["10.244.9.0/24".to_owned(), "fd00:10:244:9::/64".to_owned()];
    hosts.tell(&ALL).unwrap();
    let is_new = || hosts.host("c").network().unwrap().list().to_string().contains("10.244.9.0/24");
    wait::until("the new list", PATIENCE, || if is_new() { Ok(()) } else { Err(hosts.host("c").log()) })
        .unwrap();
    let moved = attach(hosts.host("c"), "moved-c");
    await_reached(&a.pod, &moved, true);
    await_reached(&a.pod, &c, false);
    hosts.tell(&["a", "b"]).unwrap();
    await_reached(&a.pod, &moved, false);
    await_reached(&a.pod, &b, true);
    hosts
        .host("a")
        .until("only b to be left", |status| status["network"]["peers"].as_array().map(Vec::len) == Some(1))
        .unwrap();
    let routes = hosts.host("a").node.sh("ip route show proto 87").unwrap();
    assert_eq!(routes.trim(), "10.244.1.0/24 via 192.0.2.2 dev eth0");
    assert!(
        hosts.host("a").node.sh("ip link show weft.vxlan").is_err(),
        "the tunnel goes with the last that needs it"
    );
}

#[test]
fn an_agent_that_is_killed_cuts_nobody_off_and_its_next_start_changes_nothing() {
    let mut hosts = Hosts::start().unwrap();
    hosts.tell(&ALL).unwrap();
    hosts.run_agents(&ALL).unwrap();
    let pods = pods(&hosts, "long");
    let monitor = hosts.host("a").node.clone();
    let seen = |node: &weft_e2e::Node| {
        [
            "ip route show proto 87",
            "ip -6 route show proto 87",
            "bridge fdb show dev weft.vxlan",
            "ip neigh show dev weft.vxlan",
        ]
        .map(|line| node.sh(line).unwrap())
    };
    let index = |node: &weft_e2e::Node| node.sh("ip -o link show weft.vxlan").unwrap();
    let (before, link) = (seen(&monitor), index(&monitor));
    hosts.host_mut("a").kill_agent();
    await_reached(&pods[0].pod, &pods[2], true);
    assert_eq!(seen(&monitor), before);
    hosts.run_agents(&["a"]).unwrap();
    assert_eq!((seen(&monitor), index(&monitor)), (before, link));
    assert!(!hosts.host("a").log().contains("kind=\"route\""), "{}", hosts.host("a").log());
}

#[test]
fn sandboxes_of_three_containerds_reach_one_another() {
    let mut hosts = Hosts::start().unwrap();
    hosts.tell(&ALL).unwrap();
    hosts.run_agents(&ALL).unwrap();
    let runtimes: Vec<_> = hosts
        .hosts
        .iter()
        .map(|host| Containerd::start(&host.node, host.network().unwrap().list()).unwrap())
        .collect();
    let sandboxes: Vec<_> = runtimes
        .iter()
        .map(|runtime| {
            let sandbox = runtime.run_sandbox("web").unwrap();
            let addresses = [&sandbox.ip, &sandbox.additional_ips[0]].map(|text| text.parse().unwrap());
            Attached { pod: runtime.pod(&sandbox).unwrap(), addresses }
        })
        .collect();
    for from in &sandboxes {
        for to in &sandboxes {
            for family in [0, 1] {
                transfer(&from.pod, from.addresses[family], &to.pod, to.addresses[family], 1);
            }
        }
    }
}

/// Through the CNI protocol, as a runtime that starts all of them at once: containerd itself takes most of a minute for them.
#[test]
fn two_hundred_pods_at_once_on_each_node() {
    const PODS: usize = 200;
    const AT_ONCE: usize = 20;
    let mut hosts = Hosts::start().unwrap();
    hosts.tell(&ALL).unwrap();
    hosts.run_agents(&ALL).unwrap();
    let begun = Instant::now();
    let attached: Vec<Vec<Attached>> = thread::scope(|scope| {
        let on_host = |host: &Host, worker: usize| -> Vec<Attached> {
            let network = host.network().unwrap();
            let mine = (worker..PODS).step_by(AT_ONCE);
            mine.map(|pod| attach_to(host, &network, &format!("p{pod}"))).collect()
        };
        let workers: Vec<_> = (hosts.hosts.iter())
            .flat_map(|host| (0..AT_ONCE).map(move |worker| (host, worker)))
            .map(|(host, worker)| scope.spawn(move || on_host(host, worker)))
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    println!("{} pods on three nodes in {:?}", 3 * PODS, begun.elapsed());
    let pods: Vec<_> = attached.into_iter().flatten().collect();
    assert_eq!(pods.len(), 3 * PODS);
    // Every fifth is reached from another node's first one.
    let (a, c) = (&pods[0], &pods[2 * PODS]);
    for (at, to) in pods.iter().enumerate().step_by(5) {
        let from = if at < 2 * PODS { c } else { a };
        assert!(is_reached(&from.pod, &to.pod, to.addresses[at % 2]), "{:?}", to.addresses);
    }
}
