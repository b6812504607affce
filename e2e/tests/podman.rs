//! podman with its CNI backend runs containers on a network of `weft-cni`.

#![cfg(test)]

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use weft_e2e::{Inventory, Network, Node, Pod, Podman, UdpServer, chain, http, outside, udp, wait};

const PATIENCE: Duration = Duration::from_secs(20);

/// From another machine, from the node by each of its addresses, and from the container itself.
#[test]
fn a_published_port_is_reached_from_everywhere_and_leaves_nothing() {
    a_published_port_is_reached(&list());
}

#[test]
fn a_published_port_of_a_container_on_a_bridge_is_reached_from_everywhere_and_leaves_nothing() {
    let bridged = Network::bridged(0).with(json!({ "hairpinMode": true }));
    a_published_port_is_reached(bridged.with(capabilities()).list());
}

/// The suite is held against the reference, too: what it asks for is what a CNI plugin owes.
#[test]
fn a_published_port_of_the_reference_is_reached_from_everywhere() {
    let node = Node::start().unwrap();
    let internet = outside::beyond(&node).unwrap();
    publishes(&Podman::start(&node, &reference(0)).unwrap(), &internet);
}

fn a_published_port_is_reached(list: &Value) {
    let node = Node::start().unwrap();
    let internet = outside::beyond(&node).unwrap();
    let podman = Podman::start(&node, list).unwrap();
    // A bridge stays, so it is there before.
    podman.run("first", "").unwrap();
    podman.sh("rm --force --time 0 first").unwrap();
    let before = node.inventory().unwrap();
    publishes(&podman, &internet);
    podman.sh("stop --time 0 web").unwrap();
    nothing_is_left(&before, &node, "a stopped container holds nothing");
    podman.sh("rm web").unwrap();
    nothing_is_left(&before, &node, "nor does one that was removed");
}

fn publishes(podman: &Podman, internet: &Pod) {
    podman.run("web", "-p 8080:80 -p 5353:53/udp").unwrap();
    let (host, web) = (Pod::host(internet.node()).unwrap(), podman.pod("web").unwrap());
    let _names = UdpServer::start(&web, 53, "names").unwrap();
    for to in outside::NODE {
        for from in [internet, &host, &web] {
            assert_eq!(served(from, to, 8080), "web", "{} to {to}", from.name());
            assert_eq!(udp::ask(from, (ip(to), 5353).into()).unwrap(), "names", "{} to {to}", from.name());
        }
    }
    assert_eq!(served(&host, "127.0.0.1", 8080), "web");
    assert_eq!(udp::ask(&host, (ip("127.0.0.1"), 5353).into()).unwrap(), "names");
}

#[test]
fn containers_that_start_at_once_reach_each_other_and_leave_nothing() {
    let node = Node::start().unwrap();
    let podman = Podman::start(&node, &list()).unwrap();
    let before = node.inventory().unwrap();
    let names = ["one", "two", "three"];
    at_once(names, |name| podman.run(name, "").unwrap());
    let hosts = names.map(|name| (name, addresses(&podman, name), podman.pod(name).unwrap()));
    for (_, _, from) in &hosts {
        for (name, addresses, _) in &hosts {
            addresses.iter().for_each(|to| assert_eq!(served(from, to, 80), *name));
        }
    }
    drop(hosts);
    at_once(names, |name| drop(podman.sh(&format!("rm --force --time 0 {name}")).unwrap()));
    nothing_is_left(&before, &node, "");
}

#[test]
fn addresses_and_mac_are_those_that_are_asked_for() {
    let node = Node::start().unwrap();
    let podman = Podman::start(&node, &list()).unwrap();
    podman.run("web", "--ip 10.244.0.77 --ip6 fd00:10:244::77 --mac-address 02:00:5e:00:53:01").unwrap();
    assert_eq!(addresses(&podman, "web"), ["10.244.0.77", "fd00:10:244::77"]);
    let eth0 = podman.pod("web").unwrap().sh("ip link show dev eth0").unwrap();
    assert!(eth0.contains("02:00:5e:00:53:01"), "{eth0}");
    for address in addresses(&podman, "web") {
        assert_eq!(served(&Pod::host(&node).unwrap(), &address, 80), "web");
    }
    podman.run("other", "--network weft:ip=10.244.0.78,interface_name=net0").unwrap();
    assert_eq!(addresses(&podman, "other")[0], "10.244.0.78");
    podman.pod("other").unwrap().sh("ip link show dev net0").unwrap();
    let refusal = podman.run("second", "--ip 10.244.0.77").unwrap_err().to_string();
    assert!(refusal.contains("10.244.0.77"), "{refusal}");
}

/// `restart` is a DEL and an ADD of the same container in another namespace, `network reload`, and to disconnect and connect
/// it, in the same one. A container whose process dies is taken off the network by its monitor.
#[test]
fn a_port_is_served_again_after_a_restart_and_a_reload() {
    let node = Node::start().unwrap();
    let podman = Podman::start(&node, &list()).unwrap();
    let before = node.inventory().unwrap();
    podman.run("web", "-p 8080:80").unwrap();
    let host = Pod::host(&node).unwrap();
    podman.sh("network disconnect weft web").unwrap();
    for again in
        ["network connect weft web", "network reload web", "restart --time 0 web", "kill web", "start web"]
    {
        podman.sh(again).unwrap();
        if again == "kill web" {
            wait::until("the container's monitor to have cleaned up", PATIENCE, || {
                let left = before.diff(&node.inventory().map_err(|error| error.to_string())?);
                if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
            })
            .unwrap();
        } else {
            assert_eq!(served(&host, "127.0.0.1", 8080), "web", "{again}");
        }
    }
    podman.sh("rm --force --time 0 web").unwrap();
    nothing_is_left(&before, &node, "");
}

/// The network is there before runc finds that there is nothing to run.
#[test]
fn a_container_that_cannot_start_leaves_nothing() {
    let node = Node::start().unwrap();
    let podman = Podman::start(&node, &list()).unwrap();
    let before = node.inventory().unwrap();
    let refusal = podman.run("web", "-p 8080:80 --entrypoint /nowhere").unwrap_err().to_string();
    assert!(refusal.contains("/nowhere") && refusal.contains("runc"), "{refusal}");
    nothing_is_left(&before, &node, "");
}

#[test]
fn a_port_that_is_taken_is_refused_with_the_owners_name_and_leaves_nothing() {
    let node = Node::start().unwrap();
    let podman = Podman::start(&node, &list()).unwrap();
    podman.run("first", "-p 8080:80").unwrap();
    let before = node.inventory().unwrap();
    let refusal = podman.run("second", "-p 8081:80 -p 8080:80").unwrap_err().to_string();
    let owner = podman.inspect("first").unwrap()["Id"].as_str().unwrap().to_owned();
    assert!(refusal.contains(&format!("host port 8080/tcp is taken by weft/{owner}/eth0")), "{refusal}");
    nothing_is_left(&before, &node, "");
    assert_eq!(served(&Pod::host(&node).unwrap(), "127.0.0.1", 8080), "first");
}

/// podman asks for the ports of a container on each of its networks.
#[test]
fn a_container_with_a_published_port_may_be_on_two_networks() {
    let node = Node::start().unwrap();
    let podman = Podman::start(&node, &list()).unwrap();
    let mut other = Network::routed(1).with(capabilities()).list().clone();
    other["name"] = "other".into();
    podman.add_network(&other).unwrap();
    let before = node.inventory().unwrap();
    is_on_two_networks(&node, &podman, ["weft", "other"]);
    podman.sh("rm --force --time 0 web").unwrap();
    nothing_is_left(&before, &node, "");
}

#[test]
fn a_container_with_a_published_port_may_be_on_two_networks_of_the_reference() {
    let node = Node::start().unwrap();
    let podman = Podman::start(&node, &reference(0)).unwrap();
    let mut other = reference(1);
    other["name"] = "other".into();
    other["plugins"][0]["bridge"] = "cni1".into();
    podman.add_network(&other).unwrap();
    is_on_two_networks(&node, &podman, ["reference", "other"]);
}

fn is_on_two_networks(node: &Node, podman: &Podman, names: [&str; 2]) {
    podman.run("web", &format!("-p 8080:80 --network {} --network {}", names[0], names[1])).unwrap();
    let host = Pod::host(node).unwrap();
    assert_eq!(served(&host, "127.0.0.1", 8080), "web");
    let networks = podman.inspect("web").unwrap()["NetworkSettings"]["Networks"].clone();
    for name in names {
        for family in ["IPAddress", "GlobalIPv6Address"] {
            assert_eq!(served(&host, networks[name][family].as_str().unwrap(), 80), "web");
        }
    }
}

#[test]
fn a_container_asks_the_name_servers_that_the_network_names() {
    let node = Node::start().unwrap();
    let dns = json!({ "dns": { "nameservers": ["10.96.0.10"], "search": ["cluster.local"] } });
    let podman = Podman::start(&node, Network::routed(0).with(dns).list()).unwrap();
    podman.run("web", "").unwrap();
    let resolv_conf = podman.sh("exec web /busybox cat /etc/resolv.conf").unwrap();
    assert!(resolv_conf.contains("nameserver 10.96.0.10"), "{resolv_conf}");
}

#[test]
fn podman_lists_and_shows_a_network_of_a_kind_it_does_not_know() {
    let node = Node::start().unwrap();
    let podman = Podman::start(&node, &list()).unwrap();
    assert_eq!(podman.sh("network ls --format {{.Name}}/{{.Driver}}").unwrap().trim(), "weft/weft-cni");
    let shown: Value = serde_json::from_str(&podman.sh("network inspect weft").unwrap()).unwrap();
    assert_eq!((&shown[0]["name"], &shown[0]["driver"]), (&json!("weft"), &json!("weft-cni")));
}

fn list() -> Value {
    Network::routed(0).with(capabilities()).list().clone()
}

fn reference(n: u8) -> Value {
    let mut list = Network::reference(n).with(json!({ "hairpinMode": true })).list().clone();
    let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    list["plugins"].as_array_mut().unwrap().push(portmap);
    list
}

fn capabilities() -> Value {
    json!({ "capabilities": { "ips": true, "mac": true, "portMappings": true } })
}

fn at_once<'a>(names: [&'a str; 3], work: impl Fn(&'a str) + Sync) {
    thread::scope(|scope| {
        for name in names {
            let work = &work;
            scope.spawn(move || work(name));
        }
    });
}

/// What podman says of a container: IPv4, then IPv6.
fn addresses(podman: &Podman, name: &str) -> [String; 2] {
    let network = podman.inspect(name).unwrap()["NetworkSettings"]["Networks"]["weft"].clone();
    ["IPAddress", "GlobalIPv6Address"].map(|key| network[key].as_str().unwrap().to_owned())
}

/// The name of the container whose server answers. It may have been started, and not listen yet.
#[track_caller]
fn served(from: &Pod, to: &str, port: u16) -> String {
    let get = || http::get(from, (ip(to), port).into(), "test", "/hostname", &[]);
    let answer = wait::until("the container's server", PATIENCE, || get().map_err(|error| chain(&error)));
    answer.unwrap().body.trim().to_owned()
}

#[track_caller]
fn nothing_is_left(before: &Inventory, node: &Node, why: &str) {
    assert_eq!(before.diff(&node.inventory().unwrap()), [""; 0], "{why}");
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
