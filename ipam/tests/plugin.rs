//! The shipped binary, spoken to as a runtime and as a person would.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};

#[path = "shared/node.rs"]
mod node;

use node::{BINARY, Namespace, Node, answer, exec, on_a_fresh_node, reference};

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn fill(node: &Node, containers: &[&str], conf: &Value) {
    for container in containers {
        node.run("ADD", container, conf).unwrap();
    }
}

#[test]
fn add_answers_in_the_shape_of_every_version() {
    for version in VERSIONS {
        let node = Node::new();
        let result = node.run("ADD", "c1", &node.conf(version)).unwrap();
        assert_eq!(result["cniVersion"], version);
        if version < "0.3.0" {
            assert_eq!(result["ip4"]["ip"], "10.7.0.2/29");
            assert_eq!(
                result["ip6"],
                json!({"ip": "fd07::2/64", "gateway": "fd07::1", "routes": [{"dst": "::/0", "gw": "fd07::1"}]})
            );
        } else {
            assert_eq!(result["ips"][0]["address"], "10.7.0.2/29");
            assert_eq!(result["ips"][1]["gateway"], "fd07::1");
            assert_eq!(result["ips"][0].get("version").is_some(), version < "1.0.0");
            assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd07::1"}]));
            assert_eq!(result.get("interfaces"), None, "an IPAM plugin has none (specification, section 4)");
        }
        assert_eq!(node.run("DEL", "c1", &node.conf(version)), Ok(Value::Null));
        assert_eq!(node.lease_count(), 0);
    }
}

#[test]
fn del_is_idempotent_and_needs_neither_ranges_nor_a_namespace() {
    let node = Node::new();
    let conf = node.conf("1.1.0");
    node.run("ADD", "c1", &conf).unwrap();
    let broken =
        json!({ "cniVersion": "1.1.0", "name": "pods", "ipam": {"dataDir": node.dir.path(), "ranges": "?"} });
    let env = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "")];
    for _ in 0..2 {
        assert_eq!(answer(&exec(Path::new(BINARY), &env, &broken)), Ok(Value::Null));
        assert_eq!(node.lease_count(), 0);
    }
}

#[test]
fn a_second_add_is_refused_and_leaves_the_first_alone() {
    let node = Node::new();
    node.run("ADD", "c1", &node.conf("1.0.0")).unwrap();
    let again = node.run("ADD", "c1", &node.conf("1.0.0"));
    assert_eq!(again, Err("100: eth0 of c1 in pods already holds 10.7.0.2, fd07::2".into()));
    assert_eq!(node.lease_count(), 1);
}

#[test]
fn check_wants_the_lease_and_the_result_to_agree() {
    let node = Node::new();
    let mut conf = node.conf("1.0.0");
    conf["prevResult"] = node.run("ADD", "c1", &conf).unwrap();
    assert_eq!(node.run("CHECK", "c1", &conf), Ok(Value::Null));
    assert_eq!(node.run("CHECK", "c2", &conf), Err("101: eth0 of c2 in pods holds no address".into()));
    conf["prevResult"]["ips"] = json!([{"address": "10.7.0.2/29"}]);
    let differs = "101: eth0 of c1 in pods holds fd07::2/64, but prevResult does not say so";
    assert_eq!(node.run("CHECK", "c1", &conf), Err(differs.into()));
}

#[test]
fn gc_ends_what_is_not_valid() {
    let node = Node::new();
    let mut conf = node.conf("1.1.0");
    fill(&node, &["c1", "c2", "c3"], &conf);
    conf["cni.dev/valid-attachments"] =
        json!([{"containerID": "c2", "ifname": "eth0"}, {"containerID": "c3", "ifname": "eth1"}]);
    assert_eq!(node.run("GC", "", &conf), Ok(Value::Null));
    assert_eq!(node.lease_count(), 1);
    conf["prevResult"] =
        json!({"cniVersion": "1.1.0", "ips": [{"address": "10.7.0.3/29"}, {"address": "fd07::3/64"}]});
    assert_eq!(node.run("CHECK", "c2", &conf), Ok(Value::Null));
}

#[test]
fn exhaustion_is_reported_before_and_when_an_add_hits_it() {
    let node = Node::new();
    let conf = node.conf("1.1.0");
    fill(&node, &["c1", "c2", "c3", "c4"], &conf);
    assert_eq!(node.run("STATUS", "", &conf), Ok(Value::Null));
    node.run("ADD", "c5", &conf).unwrap();
    let why = "no address is free in 10.7.0.0/29: 5 of 5 are held, the longest by eth0 of c1, eth0 of c2, eth0 of c3; \
               `weft-ipam list` shows them all, and a larger range has more";
    assert_eq!(node.run("STATUS", "", &conf), Err(format!("50: {why}")));
    assert_eq!(node.run("ADD", "c6", &conf), Err(format!("11: {why}")));
    assert_eq!(node.lease_count(), 5);
    node.run("DEL", "c2", &conf).unwrap();
    assert_eq!(node.run("ADD", "c6", &conf).unwrap()["ips"][0]["address"], "10.7.0.3/29");
}

#[test]
fn requested_addresses_are_given() {
    let node = Node::new();
    let mut conf = node.conf("1.0.0");
    conf["runtimeConfig"] = json!({"ips": ["10.7.0.6/29"]});
    assert_eq!(node.run("ADD", "c1", &conf).unwrap()["ips"][0]["address"], "10.7.0.6/29");
    assert_eq!(
        node.run("ADD", "c2", &conf),
        Err("11: the requested address 10.7.0.6 is held by eth0 of c1".into())
    );
}

#[test]
fn all_mistakes_of_a_configuration_are_answered_at_once() {
    let node = Node::new();
    let conf = json!({ "cniVersion": "1.0.0", "name": "pods", "ipam": {
        "type": "weft-ipam", "dataDir": node.dir.path(), "range": 1, "ranges": [[{"subnet": "10.0.0.1/24"}, {"subnt": "x"}]]
    }});
    let found = node.run("ADD", "c1", &conf).unwrap_err();
    assert_eq!(
        found,
        "7: ipam.range: unknown key; did you mean \"ranges\"?; ipam.ranges[0][0]: 10.0.0.1/24 has bits set beyond its \
         prefix; the subnet of that length is 10.0.0.0/24; ipam.ranges[0][1].subnt: unknown key; did you mean \
         \"subnet\"?; ipam.ranges[0][1].subnet: missing"
    );
}

#[test]
fn old_versions_refuse_more_addresses_than_they_can_say() {
    let node = Node::new();
    let mut conf = node.conf("0.2.0");
    conf["ipam"]["ranges"] = json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]);
    assert!(
        node.run("ADD", "c1", &conf)
            .unwrap_err()
            .starts_with("7: CNI version 0.2.0 knows one address of a family")
    );
    conf["cniVersion"] = "0.3.1".into();
    assert_eq!(node.run("ADD", "c1", &conf).unwrap()["ips"].as_array().unwrap().len(), 2);
}

#[test]
fn the_name_service_of_a_file_goes_into_the_result() {
    let node = Node::new();
    let mut conf = node.conf("1.0.0");
    let file = node.dir.path().join("resolv.conf");
    fs::write(&file, "nameserver 10.96.0.10\nsearch cluster.local\n").unwrap();
    conf["ipam"]["resolvConf"] = json!(file);
    let dns = node.run("ADD", "c1", &conf).unwrap()["dns"].take();
    assert_eq!(dns, json!({"nameservers": ["10.96.0.10"], "search": ["cluster.local"]}));
    conf["ipam"]["resolvConf"] = json!(node.dir.path().join("gone"));
    assert!(node.run("ADD", "c2", &conf).unwrap_err().starts_with("5: cannot read ipam.resolvConf"));
    assert_eq!(node.lease_count(), 1, "nothing is held for an ADD that failed");
}

#[test]
fn a_person_learns_what_it_is_and_what_is_held() {
    let about = Command::new(BINARY).env_clear().stdin(Stdio::null()).output().unwrap();
    assert!(about.status.success() && about.stdout.is_empty());
    assert!(String::from_utf8_lossy(&about.stderr).contains("weft-ipam list"));

    let node = Node::new();
    assert_eq!(
        String::from_utf8(node.list(&[]).stdout).unwrap(),
        format!("no network has leases in {}\n", node.dir.path().display())
    );
    node.run("ADD", "c1", &node.conf("1.1.0")).unwrap();
    let table = String::from_utf8(node.list(&[]).stdout).unwrap();
    assert!(table.contains("10.7.0.0/29  ████░░░░░░░░░░░░░░░░  1 of 5 held, 20.0 %"), "{table}");
    assert!(table.contains("10.7.0.2, fd07::2"), "{table}");
}

#[test]
fn every_verb_is_answered_in_every_version_that_has_it() {
    for version in VERSIONS {
        let node = Node::new();
        let mut conf = node.conf(version);
        let refused = |verb| Err(format!("1: config version {version} does not allow {verb}"));
        let since = |first: &str, verb| if version < first { refused(verb) } else { Ok(Value::Null) };

        let spoken = node.run("VERSION", "", &conf).unwrap();
        assert_eq!(
            (&spoken["cniVersion"], &spoken["supportedVersions"]),
            (&json!(version), &json!(VERSIONS))
        );
        assert_eq!(node.run("STATUS", "", &conf), since("1.1.0", "STATUS"), "{version}");
        conf["prevResult"] = node.run("ADD", "c1", &conf).unwrap();
        assert_eq!(node.run("CHECK", "c1", &conf), since("0.4.0", "CHECK"), "{version}");
        conf["cni.dev/valid-attachments"] = json!([{"containerID": "c1", "ifname": "eth0"}]);
        assert_eq!(node.run("GC", "", &conf), since("1.1.0", "GC"), "{version}");
        assert_eq!(node.lease_count(), 1, "{version}");
        assert_eq!(node.run("DEL", "c1", &conf), Ok(Value::Null), "{version}");
        assert_eq!(node.lease_count(), 0, "{version}");
    }
}

#[test]
fn host_locals_keys_mean_what_they_mean_there() {
    let ranges = |ranges: Value| json!({"ipam": {"ranges": ranges}});
    let cases = [
        (
            "the range's part",
            ranges(json!([[{"subnet": "10.7.0.0/24", "rangeStart": "10.7.0.9"}]])),
            "10.7.0.9/24",
            "10.7.0.1",
        ),
        (
            "another gateway",
            ranges(json!([[{"subnet": "10.7.0.0/24", "gateway": "10.7.0.254"}]])),
            "10.7.0.1/24",
            "10.7.0.254",
        ),
        (
            "the second range of a set",
            ranges(json!([[
            {"subnet": "10.7.0.0/24", "rangeStart": "10.7.0.1", "rangeEnd": "10.7.0.2", "gateway": "10.7.0.1"},
            {"subnet": "10.8.0.0/24"}]])),
            "10.7.0.2/24",
            "10.7.0.1",
        ),
        (
            "the range of before there were sets",
            json!({"ipam": {"ranges": null, "subnet": "10.9.0.0/24", "rangeEnd": "10.9.0.9"}}),
            "10.9.0.2/24",
            "10.9.0.1",
        ),
        (
            "both forms: the old one is first",
            json!({"ipam": {"subnet": "10.9.0.0/24"}}),
            "10.9.0.2/24",
            "10.9.0.1",
        ),
        (
            "the capability ipRanges is first",
            json!({"runtimeConfig": {"ipRanges": [[{"subnet": "10.6.0.0/24"}]]}}),
            "10.6.0.2/24",
            "10.6.0.1",
        ),
        ("the capability ips", json!({"runtimeConfig": {"ips": ["10.7.0.5/29"]}}), "10.7.0.5/29", "10.7.0.1"),
        ("args.cni.ips", json!({"args": {"cni": {"ips": ["10.7.0.4"]}}}), "10.7.0.4/29", "10.7.0.1"),
        ("CNI_ARGS", json!({"env": "IgnoreUnknown=1;IP=10.7.0.3"}), "10.7.0.3/29", "10.7.0.1"),
    ];
    for (what, changes, address, gateway) in cases {
        let node = Node::new();
        let mut conf = node.conf("1.0.0");
        for key in ["runtimeConfig", "args"] {
            conf[key] = changes.get(key).cloned().unwrap_or(json!({}));
        }
        for (key, value) in changes.get("ipam").and_then(Value::as_object).into_iter().flatten() {
            conf["ipam"][key] = value.clone();
        }
        let env = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/proc/self/ns/uts"),
            ("CNI_ARGS", changes.get("env").and_then(Value::as_str).unwrap_or_default()),
        ];
        let result =
            answer(&exec(Path::new(BINARY), &env, &conf)).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(
            (&result["ips"][0]["address"], &result["ips"][0]["gateway"]),
            (&json!(address), &json!(gateway)),
            "{what}"
        );
    }
}

#[test]
fn the_reference_bridge_attaches_a_pod_with_our_addresses() {
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        on_a_fresh_node(|| {
            attach_and_detach("bridge", version, &json!({"bridge": "weft-ref0", "isGateway": true}))
        });
    }
}

#[test]
fn the_reference_ptp_attaches_a_pod_with_our_addresses() {
    on_a_fresh_node(|| attach_and_detach("ptp", "1.0.0", &json!({})));
}

#[test]
fn the_reference_macvlan_attaches_a_pod_with_our_addresses() {
    on_a_fresh_node(|| {
        for line in ["link add uplink0 type veth peer name cable0", "link set uplink0 up"] {
            assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success());
        }
        attach_and_detach("macvlan", "1.0.0", &json!({"master": "uplink0"}));
    });
}

fn attach_and_detach(plugin: &str, version: &str, keys: &Value) {
    let (node, pod) = (Node::new(), Namespace::new());
    let mut conf = node.conf(version);
    for (key, value) in keys.as_object().unwrap() {
        conf[key] = value.clone();
    }
    let run = |verb: &str, conf: &Value| reference(plugin, verb, "pod1", &pod, conf);
    conf["prevResult"] = run("ADD", &conf).unwrap();
    assert_eq!(conf["prevResult"]["ips"][0]["address"], "10.7.0.2/29");
    assert_eq!(conf["prevResult"]["ips"][1]["address"], "fd07::2/64");
    assert!(addresses_in(&pod).contains("inet 10.7.0.2/29"), "{}", addresses_in(&pod));
    assert!(addresses_in(&pod).contains("inet6 fd07::2/64"), "{}", addresses_in(&pod));
    assert!(String::from_utf8(node.list(&[]).stdout).unwrap().contains("shop/cart"));
    if version != "0.3.1" {
        assert_eq!(run("CHECK", &conf), Ok(Value::Null));
    }
    assert_eq!(run("DEL", &conf), Ok(Value::Null));
    assert_eq!(run("DEL", &conf), Ok(Value::Null));
    assert_eq!(node.lease_count(), 0);
    assert_eq!(addresses_in(&pod), "", "the interface is gone");
}

fn addresses_in(pod: &Namespace) -> String {
    let net = format!("--net={}", pod.path.display());
    let shown =
        Command::new("nsenter").args([&net, "ip", "-o", "address", "show", "dev", "eth0"]).output().unwrap();
    String::from_utf8(shown.stdout).unwrap()
}

#[test]
fn addresses_that_host_local_has_given_are_not_given_again_only_because_the_type_has_changed() {
    let node = Node::new();
    let conf = node.conf("1.1.0");
    let theirs = node.dir.path().join("pods");
    fs::create_dir(&theirs).unwrap();
    for address in ["10.7.0.2", "10.7.0.3"] {
        fs::write(theirs.join(address), "old\r\neth0").unwrap();
    }
    fs::write(theirs.join("last_reserved_ip.0"), "10.7.0.3").unwrap();
    for (verb, code) in [("ADD", "7: "), ("ADD", "7: "), ("STATUS", "50: ")] {
        let refused = node.run(verb, "c1", &conf).unwrap_err();
        assert!(refused.starts_with(code) && refused.contains("(2 in "), "{refused}");
        let command = format!("weft-ipam import --from-host-local {} --conf", theirs.display());
        assert!(refused.contains(&command), "{refused}");
    }
    node.run("DEL", "c1", &conf).unwrap();

    let file = node.dir.path().join("new.conf");
    fs::write(&file, conf.to_string()).unwrap();
    let import = Command::new(BINARY)
        .args(["import", "--from-host-local", theirs.to_str().unwrap(), "--conf", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(import.status.success(), "{import:?}");
    node.run("STATUS", "c1", &conf).unwrap();
    assert_eq!(node.run("ADD", "c1", &conf).unwrap()["ips"][0]["address"], "10.7.0.4/29");
}

#[test]
fn host_locals_default_directory_is_looked_into_and_stale_files_may_be_removed() {
    let node = Node::new();
    let conf = node.conf("1.1.0");
    on_a_fresh_node(|| {
        hide("/var/lib");
        let theirs = Path::new("/var/lib/cni/networks/pods");
        fs::create_dir_all(theirs).unwrap();
        fs::write(theirs.join("10.7.0.2"), "old\r\neth0").unwrap();
        let refused = node.run("ADD", "c1", &conf);
        assert!(refused.as_ref().is_err_and(|why| why.contains("(1 in ")), "{refused:?}");
        fs::remove_dir_all(theirs).unwrap();
        node.run("ADD", "c1", &conf).unwrap();
    });
}

/// Nothing is in `dir` for this thread and its children.
fn hide(dir: &str) {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).expect("this test needs to be root");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(none, dir, Some("tmpfs"), MsFlags::empty(), none).unwrap();
}

/// Runs `work` as in another boot: children, too, are told `id`.
fn in_boot(id: &str, work: impl FnOnce() + Send) {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("{id}\n")).unwrap();
    thread::scope(|scope| {
        let boot = scope.spawn(|| {
            let none: Option<&str> = None;
            unshare(CloneFlags::CLONE_NEWNS).expect("this test needs to be root");
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(Some(file.path()), "/proc/sys/kernel/random/boot_id", none, MsFlags::MS_BIND, none)
                .unwrap();
            work();
        });
        boot.join().unwrap();
    });
}

#[test]
fn the_first_add_after_a_boot_ends_the_leases_of_earlier_boots_and_no_others() {
    let [first, second] = ["5c4c3b1d-0000-4000-8000-000000000001", "5c4c3b1d-0000-4000-8000-000000000002"];
    let node = Node { dir: TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap() };
    let conf = node.conf("1.1.0");
    in_boot(first, || fill(&node, &["a1", "a2", "a3"], &conf));
    let index = || fs::read(node.dir.path().join("pods/leases.index")).unwrap();
    in_boot(second, || {
        assert_eq!(node.run("DEL", "a1", &conf), Ok(Value::Null));
        assert_eq!(node.lease_count(), 2, "a DEL needs no address");
        // Pods come at once after a boot.
        thread::scope(|scope| {
            for container in ["b1", "b2", "b3"] {
                let (node, conf) = (&node, &conf);
                scope.spawn(move || node.run("ADD", container, conf).unwrap());
            }
        });
        let listed: Value = serde_json::from_slice(&node.list(&["--json"]).stdout).unwrap();
        let leases = listed["networks"][0]["leases"].as_array().unwrap();
        let mut held: Vec<_> = leases.iter().map(|lease| lease["container"].as_str().unwrap()).collect();
        held.sort_unstable();
        assert_eq!(held, ["b1", "b2", "b3"]);
        assert_eq!(index()[20..24], [2, 0, 0, 0], "nobody looks again");
        node.run("DEL", "b1", &conf).unwrap();
        assert_eq!(index()[20..24], [2, 0, 0, 0]);
    });
}

#[test]
fn status_does_not_wait_long_for_the_leases() {
    let node = Node::new();
    let conf = node.conf("1.1.0");
    node.run("ADD", "c1", &conf).unwrap();
    let lock = fs::File::open(node.dir.path().join("pods/leases.lock")).unwrap();
    lock.lock().unwrap();
    let asked = Instant::now();
    let answer = node.run("STATUS", "c1", &conf).unwrap_err();
    assert!(answer.starts_with("50: ") && answer.contains("locked for 500 ms"), "{answer}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[test]
fn a_del_frees_whatever_the_namespace_is() {
    let node = Node::new();
    let conf = node.conf("1.1.0");
    // Its own, none, and one that cannot be looked at.
    for netns in ["/proc/self/ns/net", "/nowhere/netns", &format!("/{}", "n".repeat(300))] {
        node.run("ADD", "c1", &conf).unwrap();
        let env =
            [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", netns)];
        answer(&exec(Path::new(BINARY), &env, &conf)).unwrap();
        assert_eq!(node.lease_count(), 0, "{netns}");
    }
}
