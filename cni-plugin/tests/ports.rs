//! Host ports through the plugin's binary, on a node that is a network namespace of its own: what a runtime asks for is
//! reached, is the pod's alone, and is gone with it, however it goes.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use weft_datapath::{NetNs, Nft};

#[path = "shared/node.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod node;
#[path = "shared/pod.rs"]
mod pod;

use node::{PLUGIN, Refusal, alone, answer, exec, output, remains};
use pod::Pod;

const PATIENCE: Duration = Duration::from_secs(5);

impl Pod {
    /// Answers every connection to `address` with the pod's name.
    fn serve(&self, address: IpAddr, port: u16) {
        let name = self.name;
        let netns = NetNs::open(self.netns.as_ref()).unwrap();
        let listener = netns.run(|| TcpListener::bind((address, port)).unwrap()).unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _gone = stream.write_all(name.as_bytes());
            }
        });
    }
}

/// A node: the calling thread's namespace, and a data directory.
struct Node {
    dir: TempDir,
}

impl Node {
    /// Runs `test` on a node of its own, which must be empty afterwards.
    fn run(test: impl FnOnce(&Self) + Send + 'static) {
        alone(move || {
            assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
            test(&Self { dir: tempfile::tempdir().unwrap() });
            assert_eq!(remains(), Vec::<String>::new());
        });
    }

    /// Both families, and `ports`.
    fn conf(&self, network: &str, ports: Value) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": network, "type": "weft-cni", "ipMasq": true,
            "ipam": {
                "type": "weft-ipam", "dataDir": self.dir.path(),
                "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
            "runtimeConfig": {"portMappings": ports},
        })
    }
}

fn web() -> Value {
    json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}])
}

fn exec_on(ifname: &str, verb: &str, container: &str, netns: &str, conf: &Value) -> Result<Value, Refusal> {
    let mut plugin = Command::new(PLUGIN);
    answer(&output(plugin.env_clear().env("CNI_IFNAME", ifname), verb, container, netns, conf))
}

fn add(pod: &Pod, conf: &Value) -> Value {
    exec("ADD", pod.name, &pod.netns, conf).unwrap()
}

fn addresses(result: &Value) -> Vec<IpAddr> {
    let address = |ip: &Value| ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap();
    result["ips"].as_array().unwrap().iter().map(address).collect()
}

fn ask(to: &str) -> std::io::Result<String> {
    let to: SocketAddr = to.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Each port with its owner.
fn published() -> Vec<String> {
    let all = Nft::open().unwrap().published().unwrap();
    let mut all: Vec<_> = all.iter().map(|port| format!("{} {}", port.at, port.owner)).collect();
    all.sort();
    all
}

#[test]
fn a_port_of_the_node_leads_into_the_pod_until_it_goes() {
    Node::run(|node| {
        let (pod, conf) = (Pod::new("c"), node.conf("weft", web()));
        for address in addresses(&add(&pod, &conf)) {
            pod.serve(address, 80);
        }
        for to in ["127.0.0.1:8080", "10.1.0.1:8080", "[fd01::1]:8080"] {
            assert_eq!(ask(to).unwrap(), "c", "{to}");
        }
        // It reaches itself as others reach it.
        let inside = NetNs::open(pod.netns.as_ref()).unwrap();
        let own = inside.run(|| ["10.1.0.1:8080", "[fd01::1]:8080"].map(|to| ask(to).unwrap())).unwrap();
        assert_eq!(own, ["c", "c"]);
        // DEL knows what there was, whatever is asked for by then.
        exec("DEL", "c", "", &node.conf("weft", json!([]))).unwrap();
        assert!(ask("127.0.0.1:8080").is_err());
    });
}

#[test]
fn a_port_that_is_taken_refuses_the_add_with_the_owners_name_and_leaves_nothing() {
    Node::run(|node| {
        let conf = node.conf("weft", web());
        let (first, second) = (Pod::new("first"), Pod::new("second"));
        add(&first, &conf);
        let before = remains();
        let other = node.conf(
            "other",
            json!([
                {"hostPort": 8081, "containerPort": 80},
                {"hostPort": 8080, "containerPort": 80, "protocol": "udp"},
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            ]),
        );
        let refused = exec("ADD", "second", &second.netns, &other).unwrap_err();
        assert_eq!(refused, (105, "host port 8080/tcp is taken by weft/first/eth0".to_owned()));
        assert_eq!(remains(), before);
        exec("DEL", "second", "", &other).unwrap();
        assert_eq!(published(), ["8080/tcp weft/first/eth0", "8080/tcp weft/first/eth0"]);
        exec("DEL", "first", "", &conf).unwrap();
        add(&second, &other);
        assert_eq!(published().len(), 6);
        exec("DEL", "second", "", &other).unwrap();
    });
}

/// podman asks for a container's ports on every network that it joins.
#[test]
fn a_port_that_the_container_has_already_on_another_network_stays_there() {
    Node::run(|node| {
        let (conf, mut other) = (node.conf("weft", web()), node.conf("other", web()));
        other["ipam"]["ranges"] = json!([[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd02::/64"}]]);
        let pod = Pod::new("c");
        addresses(&add(&pod, &conf)).into_iter().for_each(|address| pod.serve(address, 80));
        let before = published();
        let mut second = exec_on("eth1", "ADD", "c", &pod.netns, &other).unwrap();
        assert_eq!(published(), before);
        assert_eq!(ask("127.0.0.1:8080").unwrap(), "c");

        let mut check = other.clone();
        check["prevResult"] = second.take();
        exec_on("eth1", "CHECK", "c", &pod.netns, &check).unwrap();
        exec_on("eth1", "DEL", "c", "", &other).unwrap();
        assert_eq!(published(), before);
        exec("DEL", "c", "", &conf).unwrap();
    });
}

#[test]
fn a_port_on_one_address_and_on_all_are_two_ports() {
    Node::run(|node| {
        let single = json!([{"hostPort": 8080, "containerPort": 80, "hostIP": "127.0.0.1"}]);
        let (everywhere, single) = (node.conf("weft", web()), node.conf("weft", single));
        let (all, one) = (Pod::new("all"), Pod::new("one"));
        for (pod, conf) in [(&all, &everywhere), (&one, &single)] {
            for address in addresses(&add(pod, conf)) {
                pod.serve(address, 80);
            }
        }
        assert_eq!(ask("127.0.0.1:8080").unwrap(), "one");
        assert_eq!(ask("10.1.0.1:8080").unwrap(), "all");
        exec("DEL", "one", "", &single).unwrap();
        assert_eq!(ask("127.0.0.1:8080").unwrap(), "all");
        exec("DEL", "all", "", &everywhere).unwrap();
    });
}

#[test]
fn the_port_of_a_pod_that_is_gone_is_taken_from_it() {
    Node::run(|node| {
        let conf = node.conf("weft", web());
        add(&Pod::new("gone"), &conf);
        let (heir, other) = (Pod::new("heir"), node.conf("other", web()));
        add(&heir, &other);
        assert_eq!(published(), ["8080/tcp other/heir/eth0", "8080/tcp other/heir/eth0"]);
        exec("DEL", "heir", "", &other).unwrap();
        exec("DEL", "gone", "", &conf).unwrap();
    });
}

#[test]
fn del_and_gc_find_ports_although_the_leases_were_lost() {
    Node::run(|node| {
        let (conf, mut other) =
            (node.conf("weft", web()), node.conf("other", json!([{"hostPort": 1, "containerPort": 1}])));
        other["ipam"]["ranges"] = json!([[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd02::/64"}]]);
        let lose = |network| std::fs::remove_dir_all(node.dir.path().join(network)).unwrap();
        let (pod, neighbour) = (Pod::new("c"), Pod::new("neighbour"));
        add(&pod, &conf);
        add(&neighbour, &other);
        lose("weft");
        exec("DEL", "c", "", &conf).unwrap();
        let theirs = ["1/tcp other/neighbour/eth0", "1/tcp other/neighbour/eth0"];
        assert_eq!(published(), theirs);

        // And where not even the pair is left, GC does.
        let pod = Pod::new("d");
        let host = add(&pod, &conf)["interfaces"][0]["name"].as_str().unwrap().to_owned();
        lose("weft");
        assert!(Command::new("ip").args(["link", "del", &host]).status().unwrap().success());
        let mut collect = conf.clone();
        collect["cni.dev/valid-attachments"] = json!([]);
        exec("GC", "", "", &collect).unwrap();
        assert_eq!(published(), theirs);
        exec("DEL", "neighbour", "", &other).unwrap();
    });
}

#[test]
fn check_tells_which_port_is_no_longer_published() {
    Node::run(|node| {
        let (pod, conf) = (Pod::new("c"), node.conf("weft", web()));
        let mut check = conf.clone();
        check["prevResult"] = add(&pod, &conf);
        exec("CHECK", "c", &pod.netns, &check).unwrap();
        let nft = Nft::open().unwrap();
        let ports = nft.published().unwrap();
        nft.unpublish(&ports[..1]).unwrap();
        let (code, msg) = exec("CHECK", "c", &pod.netns, &check).unwrap_err();
        assert_eq!(code, 101);
        assert!(msg.ends_with("host port 8080/tcp to 10.1.0.2:80 is missing"), "{msg}");
        exec("DEL", "c", "", &conf).unwrap();
    });
}

#[test]
fn behind_another_plugin_ports_lead_to_the_addresses_of_its_result() {
    Node::run(|node| {
        let (pod, first) = (Pod::new("c"), node.conf("first", json!([])));
        let mut conf = json!({
            "cniVersion": "1.1.0", "name": "chained", "type": "weft-cni",
            "runtimeConfig": {"portMappings": web()},
        });
        let result = add(&pod, &first);
        conf["prevResult"] = result.clone();
        add(&pod, &conf);
        for address in addresses(&result) {
            pod.serve(address, 80);
        }
        assert_eq!(ask("127.0.0.1:8080").unwrap(), "c");
        assert_eq!(ask("[fd01::1]:8080").unwrap(), "c");
        exec("CHECK", "c", &pod.netns, &conf).unwrap();
        exec("DEL", "c", "", &conf).unwrap();
        assert_eq!(published(), Vec::<String>::new());
        exec("DEL", "c", "", &first).unwrap();
    });
}

#[test]
fn a_mapping_that_could_lead_nowhere_is_refused_by_what_it_says() {
    Node::run(|node| {
        let (pod, mut first) = (Pod::new("c"), node.conf("first", json!([])));
        first["ipam"]["ranges"] = json!([[{"subnet": "10.1.0.0/24"}]]);
        first["ipam"]["routes"] = json!([]);
        let mapping = json!([{"hostPort": 1, "containerPort": 2, "protocol": "tcp", "hostIP": "fd01::1"}]);
        let conf = json!({
            "cniVersion": "1.1.0", "name": "chained", "type": "weft-cni",
            "runtimeConfig": {"portMappings": mapping}, "prevResult": add(&pod, &first),
        });
        let (code, msg) = exec("ADD", "c", &pod.netns, &conf).unwrap_err();
        assert_eq!(code, 7);
        assert!(msg.contains("runtimeConfig.portMappings: the pod has no address that"), "{msg}");
        exec("DEL", "c", "", &first).unwrap();
    });
}

#[test]
fn an_add_whose_answers_from_the_kernel_are_lost_leaves_no_port_behind() {
    Node::run(|node| {
        let ports = json!([{"hostPort": 8080, "containerPort": 80}, {"hostPort": 53, "containerPort": 53, "protocol": "udp"}]);
        let (pod, conf) = (Pod::new("c"), node.conf("weft", ports));
        let mut failures = 0;
        for nth in 1.. {
            let fault = format!("inject=recvfrom:error=EIO:when={nth}");
            let mut strace = Command::new("strace");
            strace
                .args(["-f", "-o", "/dev/null", "-e", &fault, PLUGIN])
                .env("CNI_IFNAME", "eth0")
                .stderr(Stdio::null());
            if answer(&output(&mut strace, "ADD", pod.name, &pod.netns, &conf)).is_ok() {
                break;
            }
            failures += 1;
            assert_eq!(published(), Vec::<String>::new(), "{nth}");
        }
        assert!(failures > 12, "only {failures} answers were lost");
        assert_eq!(published().len(), 4);
        exec("DEL", "c", "", &conf).unwrap();
    });
}

#[test]
fn a_pod_on_a_bridge_is_reached_through_a_port_of_the_node() {
    Node::run(|node| {
        let (pod, mut conf) = (Pod::new("c"), node.conf("weft", web()));
        conf["mode"] = json!("bridge");
        conf["bridge"] = json!("cni0");
        conf["isGateway"] = json!(true);
        for address in addresses(&add(&pod, &conf)) {
            pod.serve(address, 80);
        }
        for to in ["127.0.0.1:8080", "10.1.0.1:8080", "[fd01::1]:8080"] {
            assert_eq!(ask(to).unwrap(), "c", "{to}");
        }
        exec("DEL", "c", "", &conf).unwrap();
        assert!(Command::new("ip").args(["link", "del", "cni0"]).status().unwrap().success());
    });
}
