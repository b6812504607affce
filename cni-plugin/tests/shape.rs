//! The plugin's binary in a network namespace of its own: bandwidth and tuning, as runtimes and operators ask for them.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::process::Command;
use std::{fs, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;
use weft_datapath::{Interface, NetNs, Rtnl, Shaped, Shaping, sysctl};

#[path = "shared/node.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod node;
#[path = "shared/pod.rs"]
mod pod;

use node::{Refusal, alone_without};
use pod::Pod;

const ALLOW_LIST: &str = "/etc/cni/tuning/allowlist.conf";

/// A node with one pod: the calling thread's namespaces, of the network and of mounts, with nothing below `/etc`.
struct Node {
    dir: TempDir,
    netns: NetNs,
    pod: Pod,
}

impl Node {
    /// Runs `test` on a node of its own.
    fn run(test: impl FnOnce(&Self) + Send + 'static) {
        alone_without(&["/etc"], move || test(&Self::new()));
    }

    fn new() -> Self {
        let pod = Pod::new("c");
        let netns = NetNs::open(pod.netns.as_ref()).unwrap();
        Self { dir: tempfile::tempdir().unwrap(), netns, pod }
    }

    fn allow(list: &str) {
        fs::create_dir_all(Path::new(ALLOW_LIST).parent().unwrap()).unwrap();
        fs::write(ALLOW_LIST, list).unwrap();
    }

    /// The configuration with `extra` keys.
    fn conf(&self, extra: &Value) -> Value {
        let mut conf = json!({
            "cniVersion": "1.1.0", "name": "weft", "type": "weft-cni",
            "ipam": {"type": "weft-ipam", "dataDir": self.dir.path(), "ranges": [[{"subnet": "10.1.0.0/24"}]]},
        });
        conf.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        conf
    }

    fn exec(&self, verb: &str, conf: &Value) -> Result<Value, Refusal> {
        node::exec(verb, self.pod.name, &self.pod.netns, conf)
    }

    /// ADD, and the configuration for CHECK.
    fn add(&self, extra: &Value) -> Value {
        let mut conf = self.conf(extra);
        conf["prevResult"] = self.exec("ADD", &conf).unwrap();
        conf
    }

    /// What CHECK finds to be different.
    fn drift(&self, conf: &Value) -> String {
        let (code, msg) = self.exec("CHECK", conf).unwrap_err();
        assert_eq!(code, 101, "{msg}");
        msg.split_once(": ").unwrap().1.to_owned()
    }
}

fn shaped(rtnl: &Rtnl) -> Vec<Shaped> {
    rtnl.observe().unwrap().shaped.into_iter().map(|(_, shaped)| shaped).collect()
}

#[test]
fn a_limit_from_an_annotation_is_kept_in_both_directions_with_a_burst_of_20_ms() {
    Node::run(|node| {
        // What containerd makes of `kubernetes.io/ingress-bandwidth: 100M` and `egress-bandwidth: 10M`.
        let unlimited = u64::from(u32::MAX);
        let conf = node.add(&json!({"runtimeConfig": {"bandwidth": {
            "ingressRate": 100_000_000, "ingressBurst": unlimited,
            "egressRate": 10_000_000, "egressBurst": unlimited,
        }}}));
        let (host, inside) = (Rtnl::open().unwrap(), node.netns.rtnl().unwrap());
        assert_eq!(shaped(&host), [Shaping { rate: 12_500_000, burst: 250_000 }.shaped(1500)]);
        assert_eq!(shaped(&inside), [Shaping { rate: 1_250_000, burst: 25_000 }.shaped(1500)]);
        node.exec("CHECK", &conf).unwrap();
        node.exec("DEL", &conf).unwrap();
        assert_eq!(host.observe().unwrap().links.len(), 1, "nothing is left but lo");
    });
}

#[test]
fn check_tells_that_a_limit_was_changed_or_lifted() {
    Node::run(|node| {
        let conf = node.add(&json!({"egressRate": 8_000_000, "egressBurst": 160_000}));
        node.exec("CHECK", &conf).unwrap();
        let faster = Some(Shaping { rate: 2_000_000, burst: 20_000 });
        let inside = node.netns.rtnl().unwrap();
        inside.configure(&Interface { shaping: faster, ..Interface::named("eth0") }).unwrap();
        assert_eq!(
            node.drift(&conf),
            "pod eth0: shaping is 16 Mbit/s, queue 120000 B instead of 8 Mbit/s, queue 70000 B"
        );
        let lift = || Command::new("tc").args(["qdisc", "del", "dev", "eth0", "root"]).status().unwrap();
        assert!(node.netns.run(lift).unwrap().success());
        assert_eq!(node.drift(&conf), "pod eth0: shaping 8 Mbit/s, queue 70000 B is missing");
        node.exec("DEL", &conf).unwrap();
    });
}

#[test]
fn parameters_are_set_in_the_pods_namespace_alone_and_checked() {
    Node::run(|node| {
        let conf = node.add(&json!({"sysctl": {
            "net.core.somaxconn": "500",
            "net.ipv4.conf.IFNAME.arp_filter": "1",
            "net.ipv4.ip_local_port_range": "2000 3000",
            "net.ipv4.route.flush": "1",
        }}));
        let filter = ["ipv4", "conf", "eth0", "arp_filter"];
        let somaxconn = ["core", "somaxconn"];
        let read = || (sysctl::get(&somaxconn).unwrap().unwrap(), sysctl::get(&filter).unwrap());
        assert_eq!(node.netns.run(read).unwrap(), ("500".to_owned(), Some("1".to_owned())));
        assert_ne!(read().0, "500");
        node.exec("CHECK", &conf).unwrap();
        node.netns.run(|| sysctl::set(&somaxconn, "501").unwrap()).unwrap();
        assert_eq!(
            node.drift(&conf),
            "pod: sysctl is net.core.somaxconn = 501 instead of net.core.somaxconn = 500"
        );
        node.exec("DEL", &conf).unwrap();
    });
}

#[test]
fn a_parameter_that_the_operator_does_not_allow_refuses_the_add_before_anything_is_done() {
    Node::run(|node| {
        Node::allow("^net.ipv4.conf.IFNAME.[a-z_]*$\n");
        let refused = node.conf(&json!({
            "sysctl": {"net.core.somaxconn": "500", "net.ipv4.conf.IFNAME.arp_filter": "1"},
        }));
        let expected = "invalid network configuration: sysctl.net.core.somaxconn: \
                        /etc/cni/tuning/allowlist.conf does not allow it";
        assert_eq!(node.exec("ADD", &refused).unwrap_err(), (7, expected.to_owned()));
        assert_eq!(node.netns.rtnl().unwrap().link("eth0").unwrap(), None);
        assert_eq!(node.exec("STATUS", &refused).unwrap_err().0, 50);
        let conf = node.add(&json!({"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}));
        node.exec("DEL", &conf).unwrap();
    });
}

#[test]
fn a_parameter_that_the_kernel_refuses_undoes_the_add() {
    Node::run(|node| {
        let conf = node.conf(&json!({"sysctl": {"net.core.somaxconn": "many"}}));
        let (code, msg) = node.exec("ADD", &conf).unwrap_err();
        assert_eq!(code, 102);
        assert!(msg.starts_with("cannot set /proc/sys/net/core/somaxconn to many"), "{msg}");
        assert_eq!(Rtnl::open().unwrap().observe().unwrap().links.len(), 1);
    });
}

#[test]
fn attributes_are_set_reported_and_checked() {
    Node::run(|node| {
        let conf = node.add(&json!({
            "mac": "c2:b0:57:49:47:f1", "mtu": 1454, "promisc": true, "allmulti": true, "txQLen": 500,
        }));
        let inside = node.netns.rtnl().unwrap();
        let link = inside.link("eth0").unwrap().unwrap();
        assert_eq!((link.mtu, link.promisc, link.allmulti, link.tx_queue_len), (1454, true, true, 500));
        assert_eq!(conf["prevResult"]["interfaces"][1]["mac"], "c2:b0:57:49:47:f1");
        node.exec("CHECK", &conf).unwrap();
        let off = Interface {
            promisc: Some(false),
            allmulti: Some(false),
            tx_queue_len: Some(1),
            ..Interface::named("eth0")
        };
        inside.configure(&off).unwrap();
        assert_eq!(
            node.drift(&conf),
            "pod eth0: promisc is off instead of on; pod eth0: allmulti is off instead of on; \
             pod eth0: txqlen is 1 instead of 500"
        );
        node.exec("DEL", &conf).unwrap();
    });
}

#[test]
fn behind_another_plugin_its_pair_is_shaped_tuned_and_checked() {
    Node::run(|node| {
        let made = node.add(&json!({}));
        let mut conf = json!({
            "cniVersion": "1.1.0", "name": "weft", "type": "weft-cni", "prevResult": made["prevResult"],
            "ingressRate": 100_000_000, "ingressBurst": 1_000_000, "egressRate": 10_000_000,
            "egressBurst": 160_000, "promisc": true, "sysctl": {"net.core.somaxconn": "500"},
        });
        conf["prevResult"] = node.exec("ADD", &conf).unwrap();
        assert_eq!(conf["prevResult"], made["prevResult"]);
        let (host, inside) = (Rtnl::open().unwrap(), node.netns.rtnl().unwrap());
        assert_eq!(shaped(&host), [Shaping { rate: 12_500_000, burst: 125_000 }.shaped(1500)]);
        assert_eq!(shaped(&inside), [Shaping { rate: 1_250_000, burst: 20_000 }.shaped(1500)]);
        assert!(inside.link("eth0").unwrap().unwrap().promisc);
        node.exec("CHECK", &conf).unwrap();
        node.exec("CHECK", &made).unwrap();
        let name = host.observe().unwrap().links.into_iter().find(|link| link.peer.is_some()).unwrap().name;
        let lift = Command::new("tc").args(["qdisc", "del", "dev", &name, "root"]).status().unwrap();
        assert!(lift.success());
        assert_eq!(node.drift(&conf), format!("node {name}: shaping 100 Mbit/s, queue 750000 B is missing"));
        node.exec("DEL", &conf).unwrap();
        node.exec("DEL", &made).unwrap();
    });
}

#[test]
fn the_way_to_an_interface_without_an_end_on_the_node_cannot_be_shaped_and_nothing_else_is() {
    Node::run(|node| {
        let ip = |arguments: &str| {
            assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success());
        };
        ip("link add up0 type veth peer name down0");
        ip("link add link up0 name eth0 type macvlan");
        let netns = node.netns.path().to_str().unwrap();
        ip(&format!("link set eth0 netns {}", netns.split('/').nth(4).unwrap()));
        let conf = json!({
            "cniVersion": "1.1.0", "name": "weft", "type": "weft-cni", "ingressRate": 8000, "ingressBurst": 8000,
            "prevResult": {
                "cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": netns}],
                "ips": [{"address": "10.1.0.9/24", "interface": 0}],
            },
        });
        let (code, msg) = node.exec("ADD", &conf).unwrap_err();
        assert_eq!((code, msg.contains("not one end of a pair")), (102, true), "{msg}");
        assert_eq!(shaped(&Rtnl::open().unwrap()), []);
    });
}
