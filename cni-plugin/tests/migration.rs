//! Lists of the reference plugins, as their own documentation shows them, and what they become with Weft: in each only what
//! `docs/migration.md` says is changed, and the pod has to have what the list asks for, and to leave nothing.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::process::Command;

use serde_json::{Map, Value, json};
use weft_datapath::{Rtnl, sysctl};

#[path = "shared/list.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod list;
#[path = "shared/pod.rs"]
mod pod;

use list::{List, ip, on_node, outside, remains, seen_by};
use pod::Pod;

/// The types that Weft takes the place of.
const REPLACED: [&str; 5] = ["bridge", "ptp", "portmap", "bandwidth", "tuning"];

/// An example of the reference's documentation: a `list`, an `entry` of one, or an `ipam` section.
fn documented(name: &str) -> Value {
    let file = format!("{}/tests/reference/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn documented_list(name: &str) -> Value {
    documented(name)["list"].clone()
}

/// Changes the types, and nothing else.
fn by_types(mut list: Value) -> Value {
    for entry in list["plugins"].as_array_mut().unwrap() {
        if REPLACED.contains(&entry["type"].as_str().unwrap()) {
            entry["type"] = json!("weft-cni");
        }
    }
    list
}

/// One entry with the keys of all.
fn merged(list: Value) -> Value {
    let mut list = by_types(list);
    let mut all = Map::new();
    let mut capabilities = Map::new();
    for entry in list["plugins"].as_array().unwrap() {
        all.extend(entry.as_object().unwrap().clone());
        capabilities.extend(entry["capabilities"].as_object().cloned().unwrap_or_default());
    }
    all.insert("capabilities".to_owned(), capabilities.into());
    list["plugins"] = json!([all]);
    list
}

fn at_version(mut list: Value, version: &str) -> Value {
    list["cniVersion"] = json!(version);
    list
}

/// `list` with Weft in its two forms, at its own version and at one that has CHECK.
fn forms(list: &Value) -> Vec<Value> {
    let forms = [by_types(list.clone()), merged(list.clone())];
    forms.into_iter().flat_map(|form| [at_version(form.clone(), "1.0.0"), form]).collect()
}

/// Attaches a pod by `list`, lets `look` see what it has, and detaches it.
fn attached(list: &Value, look: impl FnOnce(&Pod, &Value)) {
    let list = List {
        offered: json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}),
        ..List::new(list.clone())
    };
    let pod = Pod::new("c");
    let result = list.add(&pod).unwrap_or_else(|refused| panic!("{refused:?} to {}", list.document));
    look(&pod, &result);
    if list.document["cniVersion"] == "1.0.0" {
        list.check(&pod, &result).unwrap();
    }
    list.del("c", &pod.netns, &result).unwrap();
    list.del("c", "", &result).unwrap();
    assert!(pod.observe().link("eth0").is_none(), "DEL removes the interface");
}

/// What a pod gets of `list`: addresses, name service, destinations, and what is on eth0.
fn got(list: &Value) -> Value {
    let mut got = Value::Null;
    attached(list, |pod, result| {
        let routes = result["routes"].as_array().into_iter().flatten();
        let destinations: Vec<_> = routes.map(|route| route["dst"].clone()).collect();
        let legacy = [&result["ip4"]["ip"], &result["ip4"]["gateway"]];
        let mut ips = result["ips"].clone();
        for ip in ips.as_array_mut().into_iter().flatten() {
            ip.as_object_mut().unwrap().remove("interface");
        }
        got = json!([ips, legacy, destinations, result["dns"], pod.addresses()]);
    });
    got
}

#[test]
fn documented_lists_give_the_same_addresses_routes_and_name_service_as_the_reference() {
    for name in ["bridge", "ptp", "portmap"] {
        on_node(move || {
            let list = documented_list(name);
            let expected = got(&list);
            clear_of_reference();
            for form in [by_types(list.clone()), merged(list)] {
                assert_eq!(got(&form), expected, "{form}");
                clear_of_reference();
            }
        });
    }
}

/// Chains of iptables that the reference never removes, bridges that nobody does, and the memory of host-local.
fn clear_of_reference() {
    let links = Rtnl::open().unwrap().observe().unwrap().links;
    let bridges = links.iter().filter(|link| link.kind.as_deref() == Some("bridge"));
    bridges.for_each(|bridge| ip(&format!("link del {}", bridge.name)));
    assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
    for table in ["ip nat", "ip6 nat", "ip filter"] {
        let delete = format!("delete table {table}");
        let _absent = Command::new("nft").arg(delete).output().unwrap();
    }
    let _absent = fs::remove_dir_all("/var/lib/cni");
}

/// The bridge, the port mapping, the bandwidth and both tuning examples, one behind the other.
fn full_chain() -> Value {
    let mut list = documented_list("bridge");
    let entries = [
        documented_list("portmap")["plugins"][1].clone(),
        documented_list("bandwidth")["plugins"][1].clone(),
        documented("tuning-sysctl")["entry"].clone(),
        documented("tuning-interface")["entry"].clone(),
    ];
    list["plugins"].as_array_mut().unwrap().extend(entries);
    list
}

#[test]
fn the_documented_examples_in_one_list_work_as_several_entries_and_as_one() {
    for form in forms(&full_chain()) {
        on_node(move || {
            let outside = outside();
            outside.serve(7);
            attached(&form, |pod, result| {
                assert_eq!(pod.addresses(), ["10.10.0.2/16"]);
                has_gateway(pod);
                pod.serve(80);
                assert_eq!(pod.seen_by("192.0.2.1:7").unwrap(), "192.0.2.2", "it is masqueraded");
                assert_eq!(outside.seen_by("192.0.2.2:8080").unwrap(), "192.0.2.1");
                assert!(seen_by("127.0.0.1:8080").is_ok());
                is_tuned(pod, result);
                let rates = |seen: &weft_datapath::Observed| {
                    seen.shaped.iter().map(|(_, shaped)| shaped.rate).collect::<Vec<_>>()
                };
                assert_eq!(rates(&pod.observe()), [123 / 8]);
                assert_eq!(rates(&Rtnl::open().unwrap().observe().unwrap()), [123 / 8]);
            });
            ip("link del mynet0");
            ip("link del up0");
        });
    }
}

fn has_gateway(pod: &Pod) {
    let gateway = Some("10.10.0.1".parse().unwrap());
    let routes = pod.observe().routes;
    assert!(
        routes.iter().any(|(_, route)| route.dst.prefix() == 0 && route.gateway == gateway),
        "{routes:?}"
    );
    let node = Rtnl::open().unwrap().observe().unwrap();
    let bridge = node.link("mynet0").unwrap().index;
    assert!(node.addresses.contains(&(bridge, "10.10.0.1/16".parse().unwrap())), "{:?}", node.addresses);
}

fn is_tuned(pod: &Pod, result: &Value) {
    let seen = pod.observe();
    let eth0 = seen.link("eth0").unwrap();
    assert_eq!((eth0.mtu, eth0.promisc, eth0.allmulti), (1454, true, true));
    assert_eq!(eth0.mac.unwrap().to_string(), "c2:b0:57:49:47:f1");
    let interfaces = result["interfaces"].as_array().unwrap();
    let listed = interfaces.iter().find(|interface| interface["name"] == "eth0").unwrap();
    assert_eq!(listed["mac"], "c2:b0:57:49:47:f1");
    let parameter = |path: &[&str]| pod.run(|| sysctl::get(path).unwrap().unwrap());
    assert_eq!(parameter(&["core", "somaxconn"]), "500");
    assert_eq!(parameter(&["ipv4", "conf", "eth0", "arp_filter"]), "1");
}

#[test]
fn the_documented_bandwidth_list_shapes_both_directions() {
    for form in forms(&documented_list("bandwidth")) {
        on_node(move || {
            attached(&form, |pod, result| {
                assert_eq!(
                    (pod.addresses(), &result["dns"]["nameservers"]),
                    (vec!["10.0.0.2/24".to_owned()], &json!(["10.1.0.1"]))
                );
                assert_eq!(pod.observe().link("eth0").unwrap().mtu, 512);
                assert_eq!(pod.observe().shaped.len(), 1);
                assert_eq!(Rtnl::open().unwrap().observe().unwrap().shaped.len(), 1);
            });
        });
    }
}

#[test]
fn the_documented_links_without_addresses_are_ports_of_the_bridge() {
    for name in ["bridge-l2", "bridge-l2-disabled", "bridge-l2-isolated"] {
        for form in forms(&documented_list(name)) {
            on_node(move || {
                attached(&form, |pod, result| {
                    assert_eq!(pod.addresses(), Vec::<String>::new());
                    let seen = pod.observe();
                    assert_eq!(seen.link("eth0").unwrap().up, name != "bridge-l2-disabled");
                    let node = Rtnl::open().unwrap().observe().unwrap();
                    let bridge = node.link("mynet0").unwrap();
                    let port = node.links.iter().find(|link| link.master == Some(bridge.index)).unwrap();
                    assert_eq!(port.isolated, name == "bridge-l2-isolated");
                    assert_eq!(result["ips"].as_array().map_or(0, Vec::len), 0);
                    let before = (pod.observe().links, node.links);
                    let again = List::new(form.clone()).add(pod).unwrap_err();
                    let after = (pod.observe().links, Rtnl::open().unwrap().observe().unwrap().links);
                    assert_eq!((again.0, after), (100, before));
                });
                ip("link del mynet0");
            });
        }
    }
}

/// The section on a bridge, without and with the exec of another IPAM plugin.
fn on_bridge(ipam: &Value) -> [Value; 2] {
    let list = |ipam: Value| {
        let mut list = at_version(by_types(documented_list("bridge")), "1.0.0");
        list["plugins"][0]["ipam"] = ipam;
        list["plugins"][0]["isDefaultGateway"] = json!(false);
        list["plugins"][0]["isGateway"] = json!(true);
        list
    };
    let mut ours = ipam.clone();
    ours["type"] = json!("weft-ipam");
    [list(ipam.clone()), list(ours)]
}

#[test]
fn the_documented_host_local_sections_work_as_they_are_and_as_wefts_own() {
    let several: &[&str] = &["10.10.1.20/16", "3ffe:ffff:0:1ff::10/64"];
    for (name, expected) in [("host-local", several), ("host-local-single", &several[1..])] {
        for list in on_bridge(&documented(name)["ipam"]) {
            on_node(move || {
                attached(&list, |pod, _| assert_eq!(pod.addresses(), expected, "{list}"));
                ip("link del mynet0");
            });
        }
    }
}

#[test]
fn the_documented_static_section_gives_its_addresses_but_not_the_routes_that_lead_nowhere() {
    let mut ipam = documented("static")["ipam"].clone();
    let [unreachable, _] = on_bridge(&ipam);
    ipam["routes"].as_array_mut().unwrap().truncate(1);
    let [list, _] = on_bridge(&ipam);
    on_node(move || {
        let pod = Pod::new("c");
        let (code, msg) = List::new(unreachable).add(&pod).unwrap_err();
        assert_eq!((code, msg.starts_with("cannot add route 192.168.0.0/16")), (102, true), "{msg}");
        attached(&list, |pod, result| {
            assert_eq!(pod.addresses(), ["10.10.0.1/24", "3ffe:ffff:0:1ff::1/64"]);
            assert_eq!(result["dns"]["domain"], "example.com");
        });
        ip("link del mynet0");
    });
}

#[test]
fn what_weft_does_not_honour_of_the_documented_portmap_options_is_refused_by_name() {
    for (name, code, named) in [
        (
            "portmap-all-options",
            7,
            ["externalSetMarkChain: cannot be set together", "conditionsV4: ", "conditionsV6: "],
        ),
        ("portmap-nftables", 2, ["unsupported field", "conditionsV4: ", "conditionsV6: "]),
    ] {
        on_node(move || {
            let mut list = documented_list("portmap");
            list["plugins"][1] = documented(name)["entry"].clone();
            let mut without = list.clone();
            let entry = without["plugins"][1].as_object_mut().unwrap();
            for key in ["conditionsV4", "conditionsV6", "externalSetMarkChain"] {
                entry.remove(key);
            }
            let list = List::new(by_types(list));
            let pod = Pod::new("c");
            let (found, msg) = list.add(&pod).unwrap_err();
            assert!(found == code && named.iter().all(|name| msg.contains(name)), "{found} {msg}");
            list.del("c", &pod.netns, &Value::Null).unwrap();
            attached(&by_types(without), |_, _| {});
        });
    }
}

/// A bridge with all that the reference can put behind it, at rates that let a pod work.
fn everything() -> Value {
    let mut list = at_version(full_chain(), "1.0.0");
    let entries = list["plugins"].as_array_mut().unwrap();
    for key in ["ingressRate", "ingressBurst", "egressRate", "egressBurst"] {
        entries[2][key] = json!(80_000_000);
    }
    // The older releases do not restore it, and a second pod may not have the same one.
    entries.truncate(4);
    list
}

fn with_ports(document: Value, port: u16) -> List {
    let mapping = json!({"hostPort": port, "containerPort": 80, "protocol": "tcp"});
    List { offered: json!({ "portMappings": [mapping] }), ..List::new(document) }
}

fn shell(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The blocks of the guide in this language.
fn blocks(language: &str) -> Vec<String> {
    let guide = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/migration.md")).unwrap();
    let rest = guide.split(&format!("```{language}\n")).skip(1).map(str::to_owned).collect::<Vec<_>>();
    rest.into_iter().map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn a_pod_of_the_reference_lives_beside_pods_of_weft_and_is_detached_by_weft_as_far_as_the_guide_says() {
    on_node(|| {
        let (old, new) = (Pod::new("old"), Pod::new("new"));
        let reference = with_ports(everything(), 8080);
        let result = reference.add(&old).unwrap();
        let list = with_ports(by_types(everything()), 8081);
        let second = list.add(&new).unwrap();
        old.serve(80);
        new.serve(80);
        assert_eq!(
            (old.addresses(), new.addresses()),
            (vec!["10.10.0.2/16".to_owned()], vec!["10.10.0.3/16".to_owned()])
        );
        assert_eq!(new.seen_by("10.10.0.2:80").unwrap(), "10.10.0.3");
        assert_eq!(old.seen_by("10.10.0.3:80").unwrap(), "10.10.0.2");
        assert!(seen_by("127.0.0.1:8080").is_ok() && seen_by("127.0.0.1:8081").is_ok());

        list.del("old", &old.netns, &result).unwrap();
        assert!(old.observe().link("eth0").is_none());
        list.del("new", &new.netns, &second).unwrap();
        ip("link del mynet0");
        let left = remains().join("\n");
        assert!(!left.contains("bwp") && !left.contains("/var/lib/cni"), "{left}");
        let rules = shell("iptables-save -t nat");
        assert!(rules.contains("CNI-DN-"), "what the reference's portmap named by itself stays: {rules}");
        list.del("old", &old.netns, &result).unwrap();
        shell(&blocks("sh").concat());
        assert_eq!(shell("iptables-save -t nat | grep CNI- || true"), "");
        clear_of_reference();
        let _empty = Command::new("nft").args(["delete", "table", "ip", "nat"]).output().unwrap();
    });
}

#[test]
fn an_address_of_host_local_is_free_again_when_weft_detaches_its_pod_and_no_other() {
    on_node(|| {
        let [kept, replaced] = on_bridge(&json!({"type": "host-local", "subnet": "10.10.0.0/16"}));
        let mut reference = kept.clone();
        reference["plugins"][0]["type"] = json!("bridge");
        let (old, stays) = (Pod::new("old"), Pod::new("stays"));
        let reference = List::new(reference);
        let result = reference.add(&old).unwrap();
        let other = reference.add(&stays).unwrap();
        let held = || {
            let files = fs::read_dir("/var/lib/cni/networks/mynet").unwrap();
            files
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.starts_with("10."))
                .collect::<Vec<_>>()
        };
        // The result of the one, and the names of the other: what is another's stays.
        List::new(replaced.clone()).del("stays", "", &result).unwrap();
        assert_eq!(held().len(), 2);
        List::new(replaced).del("old", &old.netns, &result).unwrap();
        assert_eq!(held(), ["10.10.0.3"]);
        List::new(kept).del("stays", &stays.netns, &other).unwrap();
        assert_eq!(held(), [""; 0]);
        ip("link del mynet0");
        clear_of_reference();
    });
}

#[test]
fn portmaps_snat_and_masq_all_decide_whose_address_the_pod_sees() {
    for (keys, seen) in [
        (json!({}), "192.0.2.1"),
        (json!({"snat": false}), "192.0.2.1"),
        (json!({"masqAll": true}), "172.16.30.1"),
    ] {
        on_node(move || {
            let outside = outside();
            let mut list = at_version(by_types(documented_list("portmap")), "1.0.0");
            list["plugins"][1].as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
            attached(&list, |pod, result| {
                pod.serve(80);
                assert_eq!(outside.seen_by("192.0.2.2:8080").unwrap(), seen, "{keys}");
                let end = result["interfaces"][0]["name"].as_str().unwrap();
                let own = sysctl::get(&["ipv4", "conf", end, "route_localnet"]).unwrap();
                let hairpin = shell("nft list set inet weft hairpin4");
                let is_own = keys["snat"] != false;
                assert_eq!((own.as_deref() == Some("1"), hairpin.contains("172.16.30.2")), (is_own, is_own));
            });
            ip("link del up0");
        });
    }
}

#[test]
fn every_list_of_the_guide_attaches_a_pod_as_it_is_by_its_types_and_as_one_entry() {
    let lists: Vec<Value> = blocks("json").iter().map(|block| serde_json::from_str(block).unwrap()).collect();
    assert!(lists.len() >= 3, "{}", lists.len());
    for list in lists {
        // CHECK of the reference's portmap 1.1.1 fails for a pod without IPv6, and older versions have none.
        for form in [by_types(list.clone()), merged(list.clone()), at_version(list, "0.3.1")] {
            on_node(move || {
                attached(&form, |pod, _| assert_ne!(pod.addresses(), Vec::<String>::new(), "{form}"));
                clear_of_reference();
            });
        }
    }
}
