//! Lists of the reference plugins, as their own documentation shows them, and what they become with Weft: in each only what
//! `docs/migration.md` says is changed, and the pod has to have what the list asks for, and to leave nothing.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;

use serde_json::{Map, Value, json};
use weft_datapath::{Rtnl, sysctl};

#[path = "shared/list.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod list;
#[path = "shared/pod.rs"]
mod pod;

use list::{List, ip, on_node, outside, seen_by};
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
    links.iter().filter(|link| link.name == "mynet0").for_each(|_| ip("link del mynet0"));
    assert!(std::process::Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
    for table in ["ip nat", "ip6 nat", "ip filter"] {
        let delete = format!("delete table {table}");
        let _absent = std::process::Command::new("nft").arg(delete).output().unwrap();
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
