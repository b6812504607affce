//! Pods that share a bridge: what the reference plugin `bridge` promises, asked of both, and what Weft adds.

#![cfg(test)]

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use weft_e2e::cni::address;
use weft_e2e::{Attachment, Echo, Error, Network, Node, Pod, Upstream};

macro_rules! held_by_weft_cni_and_the_reference {
    ($($property:ident,)*) => {
        mod weft_cni { $(#[test] fn $property() { super::$property(&super::Network::bridged(0)); })* }
        mod reference { $(#[test] fn $property() { super::$property(&super::Network::reference(0)); })* }
    };
}

held_by_weft_cni_and_the_reference! {
    the_result_names_bridge_host_end_and_pod_in_this_order,
    the_bridge_outlives_its_pods_and_keeps_its_mac,
    pods_that_start_at_once_on_a_fresh_node_share_one_bridge,
    another_address_in_the_subnet_is_an_error_unless_it_is_forced,
    a_device_that_is_no_bridge_is_refused_and_left_alone,
    a_default_gateway_gives_a_default_route,
    hairpin_mode_is_set_on_the_port,
    a_promiscuous_bridge_is_promiscuous,
    a_pod_that_is_held_to_its_mac_cannot_send_from_another,
    check_refuses_a_pod_whose_end_has_left_the_bridge,
    check_refuses_a_bridge_that_has_lost_its_gateway,
}

fn the_result_names_bridge_host_end_and_pod_in_this_order(network: &Network) {
    let node = Node::start().unwrap();
    let (pod, result) = attached(network, &node, "pod");
    let interfaces = result["interfaces"].as_array().unwrap();
    assert_eq!(interfaces.len(), 3, "{result}");
    assert_eq!((&interfaces[0]["name"], &interfaces[0]["mac"]), (&json!("cni0"), &json!(mac_of(&node))));
    assert!(node.sh("ip link show master cni0").unwrap().contains(interfaces[1]["name"].as_str().unwrap()));
    assert_eq!((&interfaces[2]["name"], &interfaces[2]["sandbox"]), (&json!("eth0"), &json!(pod.netns())));
    assert!(result["ips"].as_array().unwrap().iter().all(|ip| ip["interface"] == 2), "{result}");
}

/// A bridge left alone has the lowest address of its ports, and its pods know the gateway by one that is gone.
fn the_bridge_outlives_its_pods_and_keeps_its_mac(network: &Network) {
    let node = Node::start().unwrap();
    let (first, result) = attached(network, &node, "first");
    let mac = mac_of(&node);
    let more = ["a", "b", "c", "d"].map(|name| attached(network, &node, name));
    assert_eq!(mac_of(&node), mac);
    network.del(&node, &Attachment::of(&first), &result).unwrap();
    for (pod, result) in &more {
        network.del(&node, &Attachment::of(pod), result).unwrap();
    }
    assert_eq!(mac_of(&node), mac);
    assert!(node.sh("ip -4 address show dev cni0").unwrap().contains("10.244.0.1/24"));
}

fn pods_that_start_at_once_on_a_fresh_node_share_one_bridge(network: &Network) {
    let node = Node::start().unwrap();
    let pods = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|name| Pod::create(&node, name).unwrap());
    thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| network.add(&node, &Attachment::of(pod)).unwrap());
        }
    });
    assert_eq!(node.sh("ip -o link show master cni0").unwrap().lines().count(), pods.len());
    let addresses = node.sh("ip -o address show dev cni0 scope global").unwrap();
    assert_eq!(addresses.lines().count(), 2, "{addresses}");
}

fn another_address_in_the_subnet_is_an_error_unless_it_is_forced(network: &Network) {
    let node = Node::start().unwrap();
    node.sh("ip link add cni0 type bridge").unwrap();
    node.sh("ip address add 10.244.0.9/24 dev cni0").unwrap();
    let pod = Pod::create(&node, "pod").unwrap();
    let message = refused(network.add(&node, &Attachment::of(&pod)));
    assert!(message.contains("10.244.0.1/24"), "{message}");
    let addresses = || node.sh("ip -4 -o address show dev cni0").unwrap();
    assert!(addresses().contains("10.244.0.9/24") && !addresses().contains("10.244.0.1/24"));

    attached(&network.clone().with(json!({ "forceAddress": true })), &node, "another");
    assert!(!addresses().contains("10.244.0.9/24") && addresses().contains("10.244.0.1/24"));
}

fn a_device_that_is_no_bridge_is_refused_and_left_alone(network: &Network) {
    let node = Node::start().unwrap();
    node.sh("ip link add cni0 type veth peer name other").unwrap();
    let before = node.inventory().unwrap();
    let pod = Pod::create(&node, "pod").unwrap();
    refused(network.add(&node, &Attachment::of(&pod)));
    network.del(&node, &Attachment::of(&pod), &Value::Null).unwrap();
    drop(pod);
    let diff = before.diff(&node.inventory().unwrap());
    assert!(!diff.iter().any(|line| line.contains("link ") || line.contains("address ")), "{diff:#?}");
}

fn a_default_gateway_gives_a_default_route(network: &Network) {
    let node = Node::start().unwrap();
    let network = network.clone().with(json!({ "isGateway": false, "isDefaultGateway": true }));
    let mut list = network.list().clone();
    list["plugins"][0]["ipam"]["routes"] = json!([]);
    let (pod, _) = attached(&Network::new(list), &node, "pod");
    assert!(pod.sh("ip -4 route show default").unwrap().contains("via 10.244.0.1"));
    assert!(pod.sh("ip -6 route show default").unwrap().contains("via fd00:10:244::1"));
}

fn hairpin_mode_is_set_on_the_port(network: &Network) {
    let node = Node::start().unwrap();
    let (pod, result) = attached(&network.clone().with(json!({ "hairpinMode": true })), &node, "pod");
    let port = node.sh(&format!("bridge -d link show dev {}", host_end(&result))).unwrap();
    assert!(port.contains("hairpin on"), "{port}");
    drop(pod);
}

fn a_promiscuous_bridge_is_promiscuous(network: &Network) {
    let node = Node::start().unwrap();
    let _pod = attached(&network.clone().with(json!({ "promiscMode": true })), &node, "pod");
    assert!(node.sh("ip link show cni0").unwrap().contains("PROMISC"));
}

fn a_pod_that_is_held_to_its_mac_cannot_send_from_another(network: &Network) {
    let node = Node::start().unwrap();
    let network = network.clone().with(json!({ "macspoofchk": true }));
    let before = node.inventory().unwrap();
    let [(honest, a), (liar, b)] = ["honest", "liar"].map(|name| attached(&network, &node, name));
    let _server = Upstream::start(&honest, 8080, "honest").unwrap();
    let honest_is = address(&a, 0).unwrap();
    assert!(is_reached(&liar, honest_is));
    network.check(&node, &Attachment::of(&liar), &b).unwrap();
    liar.sh("ip link set eth0 address 02:00:00:00:00:99").unwrap();
    assert!(!is_reached(&liar, honest_is));
    for (pod, result) in [(&honest, &a), (&liar, &b)] {
        network.del(&node, &Attachment::of(pod), result).unwrap();
    }
    let left = before.diff(&node.inventory().unwrap());
    let left: Vec<_> = left.iter().filter(|line| line.contains("02:") && line.contains("nftables")).collect();
    assert!(left.is_empty(), "{left:#?}");
}

fn check_refuses_a_pod_whose_end_has_left_the_bridge(network: &Network) {
    let node = Node::start().unwrap();
    let (pod, result) = attached(network, &node, "pod");
    network.check(&node, &Attachment::of(&pod), &result).unwrap();
    node.sh("ip link del cni0").unwrap();
    refused(network.check(&node, &Attachment::of(&pod), &result));
}

fn check_refuses_a_bridge_that_has_lost_its_gateway(network: &Network) {
    let node = Node::start().unwrap();
    let (pod, result) = attached(network, &node, "pod");
    node.sh("ip address del 10.244.0.1/24 dev cni0").unwrap();
    let outcome = network.check(&node, &Attachment::of(&pod), &result);
    // The reference does not look.
    if network.list()["name"] == "weft" {
        assert!(refused(outcome).contains("10.244.0.1/24"));
    }
}

/// The pods of one subnet are on one link, so a neighbour remembers who had the address before: for half a minute, if
/// nobody tells it better. The kernel doubts an entry after five seconds at the earliest (`DELAY_PROBE_TIME`). What is
/// allowed here is less, but more than one repeated SYN takes, for a pod receives over IPv6 only when a work queue has
/// come to its new address.
#[test]
fn an_address_that_moves_to_another_pod_is_reached_at_once() {
    let node = Node::start().unwrap();
    let mut list = Network::bridged(0).list().clone();
    list["plugins"][0]["ipam"]["ranges"] = json!([
        [{ "subnet": "10.244.0.0/24", "rangeEnd": "10.244.0.3" }],
        [{ "subnet": "fd00:10:244::/64", "rangeEnd": "fd00:10:244::3" }],
    ]);
    let network = Network::new(list);
    let (neighbour, _) = attached(&network, &node, "neighbour");
    let host = Pod::host(&node).unwrap();
    let mut last = None;
    for round in 0..6 {
        let name = format!("pod-{round}");
        let (pod, result) = attached(&network, &node, &name);
        let server = Upstream::start(&pod, 8080, &name).unwrap();
        let addresses = [0, 1].map(|family| address(&result, family).unwrap());
        for from in [&neighbour, &host] {
            for to in addresses {
                let answer = within(Duration::from_secs(3), from, to);
                assert_eq!(
                    answer.as_deref(),
                    Some(name.as_str()),
                    "{to} from {} in round {round}",
                    from.name()
                );
            }
        }
        assert!(last.is_none_or(|last| last == addresses), "the range has one address left for both");
        last = Some(addresses);
        drop(server);
        network.del(&node, &Attachment::of(&pod), &result).unwrap();
    }
}

#[test]
fn isolated_pods_reach_the_node_but_not_each_other() {
    let node = Node::start().unwrap();
    let network = Network::bridged(0).with(json!({ "portIsolation": true }));
    let [(one, _), (two, b)] = ["one", "two"].map(|name| attached(&network, &node, name));
    let _two = Upstream::start(&two, 8080, "two").unwrap();
    let host = Pod::host(&node).unwrap();
    let _host = Upstream::start(&host, 8080, "host").unwrap();
    assert!(is_reached(&one, "10.244.0.1".parse().unwrap()));
    assert!(is_reached(&host, address(&b, 0).unwrap()));
    assert!(!is_reached(&one, address(&b, 0).unwrap()));
    network.check(&node, &Attachment::of(&two), &b).unwrap();
    node.sh(&format!("bridge link set dev {} isolated off", host_end(&b))).unwrap();
    assert!(refused(network.check(&node, &Attachment::of(&two), &b)).contains("isolated"));
}

#[test]
fn nothing_but_the_bridge_is_left_after_the_last_pod() {
    let node = Node::start().unwrap();
    let network = Network::bridged(0).with(json!({ "macspoofchk": true }));
    let before = node.inventory().unwrap();
    let pods = ["one", "two"].map(|name| attached(&network, &node, name));
    for (pod, _) in &pods {
        // The runtime has lost namespace and result.
        let mut attachment = Attachment::of(pod);
        attachment.netns = "".into();
        network.del(&node, &attachment, &Value::Null).unwrap();
    }
    drop(pods);
    let diff = before.diff(&node.inventory().unwrap());
    let of_bridge = |line: &&String| line.contains("cni0");
    assert_eq!(diff.iter().filter(|line| !of_bridge(line)).collect::<Vec<_>>(), [""; 0]);
    assert!(diff.iter().any(|line| line.contains("link cni0 kind bridge")), "{diff:#?}");
}

#[test]
fn an_add_that_fails_leaves_no_port_and_no_pinned_source() {
    let node = Node::start().unwrap();
    let network = Network::bridged(0).with(json!({ "macspoofchk": true }));
    let pod = Pod::create(&node, "pod").unwrap();
    pod.sh("ip link add eth0 type veth peer name other").unwrap();
    refused(network.add(&node, &Attachment::of(&pod)));
    assert_eq!(node.sh("ip -o link show master cni0").unwrap(), "");
    assert_eq!(node.inventory().unwrap().matching("lease").len(), 0);
    assert!(!node.sh("nft list ruleset").unwrap().contains("weft/pod"));
}

/// Whether the kernel can is found out as the plugin does: by asking for it.
#[test]
fn a_vlan_is_set_on_the_port_or_refused_because_the_kernel_cannot() {
    let node = Node::start().unwrap();
    let can = node.sh("ip link add probe type bridge vlan_filtering 1").is_ok();
    let network = Network::bridged(0).with(json!({ "isGateway": false, "vlan": 100 }));
    let pod = Pod::create(&node, "pod").unwrap();
    let outcome = network.add(&node, &Attachment::of(&pod));
    if can {
        let vlans = node.sh(&format!("bridge vlan show dev {}", host_end(&outcome.unwrap()))).unwrap();
        assert!(vlans.contains("100 PVID Egress Untagged"), "{vlans}");
    } else {
        let message = refused(outcome);
        assert!(message.contains("CONFIG_BRIDGE_VLAN_FILTERING"), "{message}");
        // The same on a bridge that stands already.
        node.sh("ip link add cni0 type bridge").unwrap();
        let message = refused(network.add(&node, &Attachment::of(&pod)));
        assert!(message.contains("cni0") && message.contains("VLAN"), "{message}");
    }
}

fn attached(network: &Network, node: &Node, name: &str) -> (Pod, Value) {
    let pod = Pod::create(node, name).unwrap();
    let result = network.add(node, &Attachment::of(&pod)).unwrap();
    (pod, result)
}

/// The refusal, in words.
#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>) -> String {
    match outcome {
        Err(Error::Plugin(refusal)) if refusal.code > 0 => refusal.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

fn mac_of(node: &Node) -> String {
    let link: Value = serde_json::from_str(&node.sh("ip -j link show cni0").unwrap()).unwrap();
    link[0]["address"].as_str().unwrap().to_owned()
}

fn host_end(result: &Value) -> &str {
    result["interfaces"][1]["name"].as_str().unwrap()
}

fn is_reached(from: &Pod, to: IpAddr) -> bool {
    within(Duration::from_millis(800), from, to).is_some()
}

/// Who answers there, if the first packet already gets through.
fn within(limit: Duration, from: &Pod, to: IpAddr) -> Option<String> {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&(to, 8080).into(), limit).ok()?;
        stream.set_read_timeout(Some(limit)).ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str::<Echo>(answer.split_once("\r\n\r\n")?.1).ok()
    };
    from.run(ask).unwrap().map(|echo| echo.name)
}
