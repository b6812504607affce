//! The suite's own tools: a test that stands on them has to be able to fail.

#![cfg(test)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use weft_e2e::{Client, Envoy, Error, Node, Pod, Upstream, http};

#[test]
fn nothing_of_the_host_is_seen_in_a_node_and_nothing_of_a_node_on_the_host() {
    let [one, two] = [Node::start().unwrap(), Node::start().unwrap()];
    one.sh("ip link add weft-mark type bridge").unwrap();
    one.write("/run/node/weft-mark", "here").unwrap();
    assert!(two.sh("ip link show weft-mark").is_err());
    assert!(!two.run(|| Path::new("/run/node/weft-mark").exists()).unwrap());
    assert!(!Path::new("/run/node/weft-mark").exists());
    assert_eq!(one.run(|| std::fs::read_to_string("/run/node/weft-mark")).unwrap().unwrap(), "here");
}

#[test]
fn an_inventory_shows_what_came_and_what_went() {
    let node = Node::start().unwrap();
    node.sh("ip link add old type bridge").unwrap();
    let before = node.inventory().unwrap();
    assert_eq!(before.diff(&node.inventory().unwrap()), [""; 0]);
    let pod = Pod::create(&node, "pod").unwrap();
    node.sh("ip link del old").unwrap();
    node.sh("ip address add 192.0.2.1/32 dev lo").unwrap();
    node.sh("nft add table inet seen").unwrap();
    node.sh("nft add set inet seen members { type ipv4_addr ; elements = { 192.0.2.7 } ; }").unwrap();
    node.write("/run/cni/net/192.0.2.7", "held").unwrap();
    let diff = before.diff(&node.inventory().unwrap()).join("\n");
    for change in [
        "- link old",
        "+ address lo 192.0.2.1/32",
        "+ route type local dst 192.0.2.1",
        r#""elem":["192.0.2.7"]"#,
        "+ file /run/cni/net/192.0.2.7",
        "+ namespace /run/netns/pod",
    ] {
        assert!(diff.contains(change), "{change} is missing in\n{diff}");
    }
    drop(pod);
}

#[test]
fn a_program_ends_with_its_node() {
    let node = Node::start().unwrap();
    let pod = Pod::create(&node, "pod").unwrap();
    let mut command = Command::new("sleep");
    command.arg("1000");
    let mut in_pod = pod.spawn(command).unwrap();
    assert!(in_pod.is_running());
    drop((pod, node));
    // The keeper thread was its parent, and is gone.
    assert!(!in_pod.await_end(Duration::from_secs(5)).unwrap().success());
}

#[test]
fn what_a_program_prints_can_be_awaited() {
    let node = Node::start().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "echo first; echo second >&2; sleep 1000"]);
    let mut process = node.spawn(command).unwrap();
    let limit = Duration::from_secs(5);
    let second =
        process.await_line("the second line", limit, |line| line.strip_prefix("sec").map(str::to_owned));
    assert_eq!(second.unwrap(), "ond");
    let never = process.await_line("a third line", Duration::ZERO, |line| (line == "third").then_some(()));
    assert!(never.unwrap_err().to_string().contains("second"));
}

#[test]
fn a_command_that_fails_shows_what_it_said() {
    let node = Node::start().unwrap();
    let error = node.sh("ip link show nowhere").unwrap_err();
    assert!(matches!(&error, Error::Command { said, .. } if said.contains("nowhere")), "{error}");
}

#[test]
fn envoy_in_a_pod_forwards_to_an_upstream_in_it() {
    let node = Node::start().unwrap();
    let pod = Pod::create(&node, "pod").unwrap();
    let upstream = Upstream::start(&pod, 0, "upstream").unwrap();
    let bootstrap = bootstrap(upstream.port()).to_string();
    let envoy = Envoy::start(&pod, &bootstrap, ([127, 0, 0, 1], 15000).into()).unwrap();
    assert!(envoy.admin("/server_info").unwrap().body.contains("1.40.0"));
    let mut client = Client::from(&pod, ([127, 0, 0, 1], 15001).into()).unwrap();
    for _ in 0..3 {
        let echo = client.get("web.shop", "/cart?id=1", &[("x-test", "yes")]).unwrap().echo().unwrap();
        assert_eq!((echo.name.as_str(), echo.path.as_str()), ("upstream", "/cart?id=1"));
        assert_eq!((echo.headers["host"].as_str(), echo.headers["x-test"].as_str()), ("web.shop", "yes"));
    }
    // Nobody listens on the node.
    assert!(node.run(|| Client::connect(([127, 0, 0, 1], 15001).into())).unwrap().is_err());
    drop(envoy);
    assert!(http::get(&pod, ([127, 0, 0, 1], 15001).into(), "web.shop", "/", &[]).is_err());
}

fn bootstrap(upstream: u16) -> serde_json::Value {
    let at = |port| json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let endpoint = json!({ "lb_endpoints": [{ "endpoint": { "address": at(upstream) } }] });
    let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": "up" } });
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
        "http_filters": [{
            "name": "router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
    });
    json!({
        "admin": { "address": at(15000) },
        "static_resources": {
            "listeners": [{ "name": "in", "address": at(15001),
                "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }] }],
            "clusters": [{ "name": "up", "type": "STATIC",
                "load_assignment": { "cluster_name": "up", "endpoints": [endpoint] } }],
        },
    })
}
