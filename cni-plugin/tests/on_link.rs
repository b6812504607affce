//! IPAM plugins that work on the pod's link, as DHCP does.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[path = "shared/list.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod list;
#[path = "shared/pod.rs"]
mod pod;

use list::{List, ip, on_node, remains, script, seen_by};
use pod::Pod;

fn on_bridge(ipam: &Value) -> List {
    let entry =
        json!({"type": "weft-cni", "bridge": "br7", "isGateway": true, "macspoofchk": true, "ipam": ipam});
    List::new(json!({"cniVersion": "1.0.0", "name": "mynet", "plugins": [entry]}))
}

/// Writes down what there is of the interface when it is asked.
const LOOKS: &str = r#"cat > /dev/null
[ -n "$CNI_NETNS" ] && nsenter --net=$CNI_NETNS ip -o link show $CNI_IFNAME > /run/seen.$CNI_COMMAND 2>&1
[ -e /run/refuse ] && { echo '{"code": 11, "msg": "none left"}'; exit 1; }
[ $CNI_COMMAND = ADD ] && echo '{"ips": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1"}]}'
exit 0"#;

fn seen(verb: &str) -> String {
    fs::read_to_string(format!("/run/seen.{verb}")).unwrap_or_default()
}

#[test]
fn another_ipam_plugin_finds_the_interface_up_on_a_bridge_and_nothing_where_it_is_routed() {
    on_node(|| {
        script("looks", LOOKS);
        let mut list = on_bridge(&json!({"type": "looks"}));
        let pod = Pod::new("c");
        let result = list.add(&pod).unwrap();
        assert!(seen("ADD").contains("state UP"), "{}", seen("ADD"));
        assert_eq!(pod.addresses(), ["10.9.0.2/24"]);
        pod.serve(80);
        assert_eq!(seen_by("10.9.0.2:80").unwrap(), "10.9.0.1");
        list.check(&pod, &result).unwrap();
        list.del("c", &pod.netns, &result).unwrap();
        assert!(seen("DEL").contains("does not exist"), "nothing answers to the address when it is freed");
        ip("link del br7");

        list.document["plugins"][0] = json!({"type": "weft-cni", "ipam": {"type": "looks"}});
        let result = list.add(&pod).unwrap();
        assert!(seen("ADD").contains("does not exist"), "{}", seen("ADD"));
        list.del("c", &pod.netns, &result).unwrap();
    });
}

#[test]
fn where_it_gives_no_address_the_interface_is_gone_again() {
    on_node(|| {
        script("looks", LOOKS);
        fs::write("/run/refuse", "").unwrap();
        let pod = Pod::new("c");
        let (code, msg) = on_bridge(&json!({"type": "looks"})).add(&pod).unwrap_err();
        assert_eq!((code, msg.starts_with("looks: none left")), (11, true), "{msg}");
        assert!(pod.observe().link("eth0").is_none());
        ip("link del br7");
        let left =
            Command::new("nft").args(["-j", "list", "map", "bridge", "weft", "sources"]).output().unwrap();
        assert!(!String::from_utf8(left.stdout).unwrap().contains("elem"));
        assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
    });
}

/// A program that runs as long as this lives.
struct Daemon(Child);

impl Daemon {
    fn start(command: &mut Command, is_ready: impl Fn() -> bool) -> Self {
        let daemon = Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        until(is_ready);
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "it did not come to be");
        thread::yield_now();
    }
}

/// A DHCP server of busybox on the bridge `br7`, which has to exist.
fn dhcp_server() -> Daemon {
    let conf = "start 10.9.0.50\nend 10.9.0.50\ninterface br7\noption subnet 255.255.255.0\noption router 10.9.0.1\n\
                lease_file /run/udhcpd.leases\npidfile /run/udhcpd.pid\n";
    fs::write("/run/udhcpd.conf", conf).unwrap();
    fs::write("/run/udhcpd.leases", "").unwrap();
    let mut server = Command::new("busybox");
    server.args(["udhcpd", "-f", "/run/udhcpd.conf"]);
    Daemon::start(&mut server, || Path::new("/run/udhcpd.pid").exists())
}

#[test]
fn dhcp_gives_a_pod_on_a_bridge_its_address_and_gets_it_back() {
    on_node(|| {
        ip("link add br7 type bridge");
        ip("address add 10.9.0.1/24 dev br7");
        ip("link set br7 up");
        let socket = "/run/dhcp.sock";
        let mut plugin = Command::new(format!("{}/dhcp", list::REFERENCE));
        plugin.args(["daemon", "-socketpath", socket]);
        let (server, client) = (dhcp_server(), Daemon::start(&mut plugin, || Path::new(socket).exists()));
        let list = on_bridge(&json!({"type": "dhcp", "daemonSocketPath": socket}));
        // The server has one address: the second pod gets it only if the first one's was given back.
        for name in ["first", "second"] {
            let pod = Pod::new(name);
            let result = list.add(&pod).unwrap();
            assert_eq!(pod.addresses(), ["10.9.0.50/24"]);
            pod.serve(80);
            assert_eq!(seen_by("10.9.0.50:80").unwrap(), "10.9.0.1");
            list.check(&pod, &result).unwrap();
            list.del(name, &pod.netns, &result).unwrap();
        }
        drop((server, client));
        ip("link del br7");
        assert_eq!(remains(), [""; 0]);
    });
}
