//! A pod's network is there from the moment its ADD is answered: not one packet is lost, also on a busy node.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

#[path = "shared/list.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod list;
#[path = "shared/pod.rs"]
mod pod;

use list::{List, ip, on_node};
use pod::Pod;

/// Each is on a node of its own, for only a bridge's first pod finds one without a carrier.
const ROUNDS: usize = 10;

/// Nobody sends a lost packet again before a second has passed.
const SOON: Duration = Duration::from_millis(900);

fn list(entry: &Value) -> List {
    let mut entry = entry.clone();
    entry["type"] = json!("weft-cni");
    entry["ipam"] = json!({
        "type": "weft-ipam", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    });
    List::new(json!({"cniVersion": "1.0.0", "name": "mynet", "plugins": [entry]}))
}

fn addresses(result: &Value) -> Vec<IpAddr> {
    let address = |ip: &Value| ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap();
    result["ips"].as_array().unwrap().iter().map(address).collect()
}

fn listen(at: IpAddr) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((at, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

fn reach(to: SocketAddr, what: &str) {
    TcpStream::connect_timeout(&to, SOON).unwrap_or_else(|e| panic!("{what} at {to}: {e}"));
}

fn the_first_packet_arrives(entry: &Value, gateways: [&str; 2]) {
    for _ in 0..ROUNDS {
        let (list, gateways) = (list(entry), gateways.map(|gateway| gateway.parse().unwrap()));
        on_node(move || {
            let (pod, neighbour) = (Pod::new("c"), Pod::new("d"));
            let result = list.add(&pod).unwrap();
            for gateway in gateways {
                let (_open, to) = listen(gateway);
                pod.run(|| reach(to, "the node from the pod"));
            }
            let second = list.add(&neighbour).unwrap();
            for address in addresses(&result) {
                let (_open, to) = pod.run(|| listen(address));
                neighbour.run(|| reach(to, "the pod from its neighbour"));
            }
            for address in addresses(&second) {
                let (_open, to) = neighbour.run(|| listen(address));
                reach(to, "the neighbour from the node");
            }
            list.del("d", &neighbour.netns, &second).unwrap();
            list.del("c", &pod.netns, &result).unwrap();
            if list.document["plugins"][0]["bridge"].is_string() {
                ip("link del br7");
            }
        });
    }
}

#[test]
fn a_routed_pod_loses_nothing() {
    the_first_packet_arrives(&json!({"ipMasq": true}), ["10.1.0.1", "fd01::1"]);
}

#[test]
fn a_pod_on_a_bridge_loses_nothing() {
    the_first_packet_arrives(&json!({"bridge": "br7", "isGateway": true}), ["10.1.0.1", "fd01::1"]);
}
