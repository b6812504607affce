//! The plugin's binary behind other plugins and behind itself: what a later entry of a list changes, and what it leaves.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use weft_datapath::{Masqueraded, Nft, Observed, Published, Rtnl, sysctl};

#[path = "shared/list.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod list;
#[path = "shared/pod.rs"]
mod pod;

use list::{List, ip, on_node, outside, remains, run, run_by, seen_by};
use pod::Pod;

const MAC: &str = "c2:b0:57:49:47:f1";

fn list(entries: Value) -> List {
    List::new(json!({"cniVersion": "1.0.0", "name": "mynet", "plugins": entries}))
}

/// An entry that makes the interface, with `extra` keys.
fn first(extra: &Value) -> Value {
    let ranges = json!([[{"subnet": "10.1.0.0/24"}]]);
    let mut entry = json!({
        "type": "weft-cni",
        "ipam": {"type": "weft-ipam", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]},
    });
    entry.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    entry
}

fn web() -> Value {
    json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]})
}

fn node() -> Observed {
    Rtnl::open().unwrap().observe().unwrap()
}

/// Who has what in the firewall. Chains and maps are everybody's.
fn elements() -> (Vec<Masqueraded>, Vec<Published>) {
    let nft = Nft::open().unwrap();
    (nft.masqueraded().unwrap(), nft.published().unwrap())
}

#[test]
fn a_hardware_address_that_a_later_entry_sets_is_known_to_the_node_and_still_the_only_one_allowed() {
    for mode in [json!({}), json!({"bridge": "br7", "isGateway": true, "macspoofchk": true})] {
        on_node(move || {
            let list = list(json!([first(&mode), {"type": "weft-cni", "mac": MAC, "mtu": 1400}]));
            let pod = Pod::new("c");
            let result = list.add(&pod).unwrap();
            let seen = pod.observe();
            let eth0 = seen.link("eth0").unwrap();
            assert_eq!((eth0.mac.unwrap().to_string().as_str(), eth0.mtu), (MAC, 1400));
            let listed = result["interfaces"].as_array().unwrap().last().unwrap().clone();
            assert_eq!(listed["mac"], MAC);
            pod.serve(80);
            assert_eq!(seen_by("10.1.0.2:80").unwrap(), "10.1.0.1");
            let held = Nft::open().unwrap().pinned_sources().unwrap();
            assert!(held.iter().all(|held| held.mac.to_string() == MAC));
            assert_eq!(held.len(), usize::from(mode["macspoofchk"] == true));
            list.check(&pod, &result).unwrap();
            list.del("c", &pod.netns, &result).unwrap();
            if mode["bridge"] == "br7" {
                ip("link del br7");
            }
        });
    }
}

#[test]
fn other_plugins_may_stand_before_and_behind() {
    for entries in [
        json!([
            first(&json!({"ipMasq": true})),
            {"type": "tuning", "promisc": true},
            {"type": "weft-cni", "capabilities": {"portMappings": true}, "sysctl": {"net.core.somaxconn": "500"}},
            {"type": "firewall"},
        ]),
        json!([
            {"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.1.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "weft-cni", "ipMasq": true, "capabilities": {"portMappings": true}},
            {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "promisc": true},
        ]),
    ] {
        on_node(move || {
            let outside = outside();
            outside.serve(7);
            let list = List { offered: web(), ..list(entries) };
            let pod = Pod::new("c");
            let result = list.add(&pod).unwrap();
            pod.serve(80);
            assert_eq!(pod.seen_by("192.0.2.1:7").unwrap(), "192.0.2.2");
            assert_eq!(outside.seen_by("192.0.2.2:8080").unwrap(), "192.0.2.1");
            assert_eq!(pod.run(|| sysctl::get(&["core", "somaxconn"]).unwrap().unwrap()), "500");
            assert!(pod.observe().link("eth0").unwrap().promisc);
            list.check(&pod, &result).unwrap();
            list.del("c", &pod.netns, &result).unwrap();
            ip("link del up0");
            // The chains of firewall stay when the last pod goes.
            assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
            let _absent = Command::new("nft").args(["delete", "table", "ip", "filter"]).output().unwrap();
            let _absent = Command::new("nft").args(["delete", "table", "ip6", "filter"]).output().unwrap();
        });
    }
}

#[test]
fn a_later_entry_that_fails_undoes_what_it_did_and_nothing_else() {
    let shaped = json!({"ingressRate": 8_000_000, "ingressBurst": 80_000, "ipMasq": true});
    let change = json!({
        "type": "weft-cni", "mac": MAC, "mtu": 1400, "promisc": true, "allmulti": true, "txQLen": 7,
        "ipMasq": true, "sysctl": {"net.core.somaxconn": "500", "net.ipv4.conf.IFNAME.arp_filter": "1"},
        "egressRate": 8_000_000, "egressBurst": 80_000, "runtimeConfig": web(),
    });
    for (key, value, code, expected) in [
        ("ingressRate", json!(8000), 102, "is shaped already"),
        ("sysctl", json!({"net.core.somaxconn": "500", "net.core.xxx": "1"}), 102, "net/core/xxx"),
    ] {
        let (shaped, mut change) = (shaped.clone(), change.clone());
        change[key] = value;
        if key == "ingressRate" {
            change["ingressBurst"] = json!(8000);
        }
        on_node(move || {
            let made = list(json!([first(&shaped)]));
            let pod = Pod::new("c");
            let result = made.add(&pod).unwrap();
            let somaxconn = || pod.run(|| sysctl::get(&["core", "somaxconn"]).unwrap());
            let before = (pod.observe(), node(), elements(), somaxconn());
            let both = list(json!([made.document["plugins"][0], change]));
            let mut second = both.entries().remove(1);
            second["prevResult"] = result.clone();
            let (found, msg) = run("ADD", "c", &pod.netns, &second).unwrap_err();
            assert_eq!((found, msg.contains(expected)), (code, true), "{msg}");
            assert_eq!((pod.observe(), node(), elements(), somaxconn()), before, "{key}");
            both.del("c", &pod.netns, &result).unwrap();
        });
    }
}

#[test]
fn an_interface_that_outlives_the_container_is_what_it_was_when_it_comes_back() {
    on_node(|| {
        ip("link add hd0 type veth peer name hd1");
        ip("link set hd0 mtu 1300 address 02:00:00:00:00:01 txqueuelen 77");
        let before = node().link("hd0").unwrap().clone();
        let change = json!({"type": "weft-cni", "mac": MAC, "mtu": 1400, "promisc": true, "allmulti": true, "txQLen": 7});
        let again = json!({"type": "weft-cni", "mtu": 1450});
        let list = list(json!([{"type": "host-device", "device": "hd0"}, change, again]));
        let pod = Pod::new("c");
        let result = list.add(&pod).unwrap();
        let seen = pod.observe();
        let eth0 = seen.link("eth0").unwrap();
        assert_eq!((eth0.mac.unwrap().to_string().as_str(), eth0.mtu, eth0.tx_queue_len), (MAC, 1450, 7));
        assert!(fs::exists("/run/weft/tuning/mynet/c_eth0.json").unwrap());
        list.del("c", &pod.netns, &result).unwrap();
        let after = node().link("hd0").unwrap().clone();
        let kept =
            |link: &weft_datapath::Link| (link.mac, link.mtu, link.promisc, link.allmulti, link.tx_queue_len);
        assert_eq!(kept(&after), kept(&before));
        assert!(!fs::exists("/run/weft/tuning/mynet/c_eth0.json").unwrap());
        ip("link del hd0");
    });
}

#[test]
fn what_is_kept_of_an_interface_goes_with_its_attachment_however_that_goes() {
    on_node(|| {
        let entry = json!({"type": "weft-cni", "promisc": true, "dataDir": "/run/cni-kept"});
        let ptp = json!({"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}});
        let mut list = list(json!([ptp, entry]));
        list.document["cniVersion"] = json!("1.0.0");
        let (stays, goes) = (Pod::new("stays"), Pod::new("goes"));
        let result = list.add(&stays).unwrap();
        list.add(&goes).unwrap();
        let kept = || {
            let files = fs::read_dir("/run/cni-kept/mynet").unwrap();
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(kept().len(), 2);
        let mut gc = list.entries().remove(1);
        gc["cniVersion"] = json!("1.1.0");
        gc["cni.dev/valid-attachments"] = json!([{"containerID": "stays", "ifname": "eth0"}]);
        fs::write("/run/cni-kept/mynet/10.1.0.2", "another's").unwrap();
        // As an ADD leaves it that is killed in the writing.
        let cut_off = |name: &str| fs::write(format!("/run/cni-kept/mynet/{name}_eth0.new"), "{").unwrap();
        cut_off("goes");
        run("GC", "", "", &gc).unwrap();
        fs::remove_file("/run/cni-kept/mynet/10.1.0.2").expect("GC removes nothing but files of its own");
        assert_eq!(kept(), ["stays_eth0.json"]);
        ["stays", "goes"].into_iter().for_each(cut_off);
        list.del("stays", &stays.netns, &result).unwrap();
        list.del("goes", &goes.netns, &result).unwrap();
        assert_eq!(kept(), [""; 0]);
        drop((stays, goes));
    });
}

#[test]
fn a_kernel_without_nf_tables_is_enough_where_nothing_of_it_is_asked_for() {
    on_node(|| {
        let list = list(json!([first(&json!({})), {"type": "weft-cni", "promisc": true}]));
        let pod = Pod::new("c");
        // The first sockets are of rtnetlink; from `from` on the kernel has no other.
        let without = |verb: &str, netns: &str, conf: &Value, from: usize| {
            let fault = format!("inject=socket:error=EPROTONOSUPPORT:when={from}+");
            let plugin = env!("CARGO_BIN_EXE_weft-cni");
            let mut strace = Command::new("strace");
            strace.args(["-f", "-o", "/dev/null", "-e", &fault, plugin]).stderr(Stdio::null());
            run_by(&mut strace, verb, pod.name, netns, conf)
        };
        list.add(&pod).unwrap();
        let entries = list.entries();
        without("DEL", "", &entries[1], 1).unwrap();
        without("DEL", "", &entries[0], 2).unwrap();
        assert_eq!(remains(), [""; 0]);
        without("DEL", "", &entries[0], 2).unwrap();
    });
}
