//! A pod with a whole range of host ports, as media servers ask for it, and one that takes over the ports of several.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[path = "shared/list.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod list;
#[path = "shared/pod.rs"]
mod pod;

use list::{List, on_node};
use pod::Pod;

const PORTS: u32 = 1500;
/// A walk through what the kernel remembers of flows takes about 40 ms; one for each port would take minutes.
const PATIENCE: Duration = Duration::from_secs(30);

fn list() -> List {
    let ranges = json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]]);
    let entry = json!({
        "type": "weft-cni", "ipMasq": true, "ipam": {"type": "weft-ipam", "ranges": ranges},
        "capabilities": {"portMappings": true},
    });
    let port = |n| json!({"hostPort": 20000 + n, "containerPort": 20000 + n, "protocol": "udp"});
    List {
        offered: json!({"portMappings": (0..PORTS).map(port).collect::<Vec<_>>()}),
        ..List::new(json!({"cniVersion": "1.0.0", "name": "mynet", "plugins": [entry]}))
    }
}

fn standing() -> usize {
    let rules = Command::new("nft").args(["list", "table", "inet", "weft"]).output().unwrap().stdout;
    String::from_utf8(rules).unwrap().matches("udp . ").count()
}

#[test]
fn a_range_of_ports_is_one_batch_and_one_walk_through_the_flows() {
    on_node(|| {
        let (list, pod, begun) = (list(), Pod::new("c"), Instant::now());
        let result = list.add(&pod).unwrap();
        assert_eq!(standing(), 2 * PORTS as usize);
        list.check(&pod, &result).unwrap();
        list.del("c", &pod.netns, &result).unwrap();
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    });
}

#[test]
fn a_range_that_is_another_pods_is_refused_by_the_first_port_and_stays() {
    on_node(|| {
        let (list, first, second) = (list(), Pod::new("c"), Pod::new("d"));
        let result = list.add(&first).unwrap();
        let (code, why) = list.add(&second).unwrap_err();
        assert!(why.contains("20000/udp") && why.contains("mynet/c/eth0"), "{code}: {why}");
        assert_eq!(standing(), 2 * PORTS as usize);
        list.del("d", &second.netns, &Value::Null).unwrap();
        list.del("c", &first.netns, &result).unwrap();
    });
}

#[test]
fn ports_of_pods_that_are_gone_are_taken_from_every_network_that_has_them() {
    on_node(|| {
        let on = |network: &str, subnet: &str, ports: &[u16]| {
            let mut list = list();
            list.document["name"] = network.into();
            list.document["plugins"][0]["ipam"]["ranges"] = json!([[{"subnet": subnet}]]);
            let port = |n: &u16| json!({"hostPort": n, "containerPort": 80});
            list.offered = json!({"portMappings": ports.iter().map(port).collect::<Vec<_>>()});
            list
        };
        on("one", "10.1.0.0/24", &[8080]).add(&Pod::new("gone")).unwrap();
        on("two", "10.2.0.0/24", &[8081]).add(&Pod::new("gone-too")).unwrap();
        let (list, pod) = (on("three", "10.3.0.0/24", &[8080, 8081]), Pod::new("c"));
        let result = list.add(&pod).unwrap();
        list.del("c", &pod.netns, &result).unwrap();
    });
}
