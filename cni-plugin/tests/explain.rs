//! `weft-cni explain` and `weft-cni audit` on a node of its own: what is as planned, and what somebody has changed since.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use weft_datapath::NetNs;

#[path = "shared/node.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod node;
#[path = "shared/pod.rs"]
mod pod;

use node::{PLUGIN, alone, answer, output};
use pod::Pod;

/// A node: the calling thread's namespace, and directories for leases, configurations, kept results and plugins.
struct Node {
    dir: TempDir,
}

impl Node {
    fn run(test: impl FnOnce(&Self) + Send + 'static) {
        alone(move || {
            let node = Self { dir: tempfile::tempdir().unwrap() };
            for dir in ["leases", "net.d", "cache/results", "bin"] {
                fs::create_dir_all(node.dir.path().join(dir)).unwrap();
            }
            test(&node);
        });
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// The options that say where they are.
    fn places(&self) -> String {
        let [leases, lists, cache] = ["leases", "net.d", "cache"].map(|name| self.path(name));
        format!("--data-dir {leases} --conf-dir {lists} --cache-dir {cache}")
    }

    /// A plugin's entry in a list, with addresses of both families.
    fn entry(&self, extra: &Value) -> Value {
        let mut entry = json!({
            "type": "weft-cni", "ipMasq": true,
            "ipam": {
                "type": "weft-ipam", "dataDir": self.path("leases"),
                "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
            "capabilities": {"portMappings": true, "bandwidth": true},
        });
        entry.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        entry
    }

    /// Writes the file of the network, and gives what its one plugin gets.
    fn install(&self, entry: &Value, runtime: &Value) -> Value {
        let list = json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [entry]});
        fs::write(self.path("net.d/10-pods.conflist"), list.to_string()).unwrap();
        let mut conf = entry.clone();
        conf.as_object_mut()
            .unwrap()
            .extend(json!({"cniVersion": "1.1.0", "name": "pods"}).as_object().unwrap().clone());
        conf["runtimeConfig"] = runtime.clone();
        conf
    }

    /// A pod `c` with the interface of `entry`, which is installed; what its plugin gets, and what it answered.
    fn attach(&self, entry: &Value) -> (Pod, Value, Value) {
        let (pod, conf) = (Pod::new("c"), self.install(entry, &json!({})));
        let result = self.exec("ADD", &pod, &conf);
        (pod, conf, result)
    }

    /// What a runtime of today keeps of an ADD.
    fn keep(&self, pod: &Pod, plugins: &Value, runtime: &Value, result: &Value, name: &str) {
        let list = json!({"cniVersion": "1.1.0", "name": name, "plugins": plugins}).to_string();
        let kept = json!({
            "kind": "cniCacheV1", "containerId": pod.name, "ifName": "eth0", "networkName": name,
            "config": base64(list.as_bytes()), "capabilityArgs": runtime, "result": result, "netns": pod.netns,
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "kept"]],
        });
        fs::write(self.path(&format!("cache/results/{name}-{}-eth0", pod.name)), kept.to_string()).unwrap();
    }

    fn exec(&self, verb: &str, pod: &Pod, conf: &Value) -> Value {
        let mut plugin = Command::new(PLUGIN);
        plugin
            .env_clear()
            .envs([("CNI_IFNAME", "eth0"), ("CNI_PATH", &self.path("bin")), ("PATH", "/bin:/usr/bin")])
            .env("CNI_ARGS", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web");
        answer(&output(&mut plugin, verb, pod.name, &pod.netns, conf)).unwrap()
    }

    /// The exit code, and what was said on either output.
    fn explain(&self, options: &[&str]) -> (i32, String) {
        self.said("explain", options, 0)
    }

    /// The exit code of an audit, and its document.
    fn audit(&self, options: &[&str]) -> (i32, Value) {
        let (code, said) = self.audit_said(&[options, &["--json"]].concat(), 0);
        (code, serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}")))
    }

    /// The same as it is said, to the user `uid`.
    fn audit_said(&self, options: &[&str], uid: u32) -> (i32, String) {
        self.said("audit", options, uid)
    }

    fn said(&self, command: &str, options: &[&str], uid: u32) -> (i32, String) {
        let output = Command::new(PLUGIN)
            .env_clear()
            .uid(uid)
            .arg(command)
            .args(options)
            .args(["--conf-dir", &self.path("net.d"), "--cache-dir", &self.path("cache")])
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    }

    /// What is not `ok`, as `state where what plan`.
    fn differences(&self, options: &[&str]) -> (i32, Vec<String>) {
        let (code, said) = self.explain(&[options, &["--json"]].concat());
        let document: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
        let findings = document["findings"].as_array().unwrap();
        assert!(findings.len() > 3, "{said}");
        let text = |finding: &Value| {
            let of = |key: &str| finding[key].as_str().unwrap_or("-").to_owned();
            format!("{} {} {} {}", of("state"), of("where"), of("what"), of("plan"))
        };
        (code, findings.iter().filter(|finding| finding["state"] != "ok").map(text).collect())
    }
}

fn base64(bytes: &[u8]) -> String {
    let mut encoder =
        Command::new("base64").arg("-w0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    encoder.stdin.take().unwrap().write_all(bytes).unwrap();
    String::from_utf8(encoder.wait_with_output().unwrap().stdout).unwrap()
}

fn sh(command: &str) {
    assert!(Command::new("sh").args(["-ec", command]).status().unwrap().success(), "{command}");
}

fn inside(pod: &Pod, command: &str) {
    NetNs::open(pod.netns.as_ref()).unwrap().run(|| sh(command)).unwrap();
}

fn asked() -> Value {
    json!({
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000},
    })
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_pod_that_is_as_planned_and_then_loses_one_thing_after_the_other() {
    Node::run(|node| {
        let pod = Pod::new("3f2a9c");
        let conf = node.install(&node.entry(&json!({"sysctl": {"net.core.somaxconn": "500"}})), &asked());
        let result = node.exec("ADD", &pod, &conf);
        let host = result["interfaces"][0]["name"].as_str().unwrap();
        let web = ["--pod", "shop/web"];
        assert_eq!(node.differences(&web), (0, NOTHING.map(str::to_owned).to_vec()));
        let (_, table) = node.explain(&["--container", "3f2a"]);
        for line in
            ["shop/web", "mode routed", "host port", "as planned", "shaping", "net.core.somaxconn = 500"]
        {
            assert!(table.contains(line), "{line}: {table}");
        }

        let lost = |what: &str| -> Vec<String> {
            let (code, lost) = node.differences(&web);
            assert_eq!(code, 1);
            assert!(lost.iter().any(|line| line == what), "{what}: {lost:?}");
            lost
        };
        inside(&pod, "ip route del default");
        assert_eq!(lost("missing pod eth0 route 0.0.0.0/0 via 10.1.0.1").len(), 1);
        inside(&pod, "ip link set eth0 address 02:00:00:00:00:01");
        assert!(lost("missing pod eth0 route 0.0.0.0/0 via 10.1.0.1").len() > 1);
        sh(&format!("tc qdisc del dev {host} root"));
        lost(&format!("missing node {host} shaping 8 Mbit/s, queue 70000 B"));
        sh("nft delete element inet weft masquerade4 { 10.1.0.2 }");
        lost("missing nft inet weft masquerade 10.1.0.2");
        sh("nft delete element inet weft ports4 { tcp . 8080 }");
        lost("missing nft inet weft host port 8080/tcp to 10.1.0.2:80");
        sh("nft flush chain inet weft postrouting");
        lost("different nft inet weft chain postrouting, 2 of 2 rules");
        let audit = format!("weft-cni audit --repair {}", node.places());
        assert!(node.explain(&web).1.contains(&format!("next: `{audit} pods` puts back what it can")));
        sh("echo 0 > /proc/sys/net/ipv4/ip_forward");
        lost("different node sysctl net.ipv4.ip_forward = 1");
        sh(&format!("ip link del {host}"));
        lost(&format!("missing node {host} link up"));
        lost("missing pod eth0 link up");
        node.exec("DEL", &pod, &conf);
        let (code, said) = node.explain(&web);
        assert_eq!((code, said.contains("nothing is known of shop/web")), (2, true), "{said}");
    });
}

#[test]
fn what_others_put_beside_the_plan_is_shown_and_what_bears_the_pods_mark_differs() {
    Node::run(|node| {
        let (pod, conf, _) = node.attach(&node.entry(&json!({})));
        inside(&pod, "ip addr add 10.9.0.1/24 dev eth0");
        let (code, lines) = node.differences(&["--container", "c"]);
        assert_eq!((code, lines.len()), (0, 2), "{lines:?}");
        assert!(lines.iter().all(|line| line.starts_with("beside pod eth0")), "{lines:?}");
        sh(
            "nft add element inet weft masquerade4 '{ 10.1.0.77 comment \"pods/c/eth0\" : jump masquerade_0a010000_24 }'",
        );
        let (code, lines) = node.differences(&["--container", "c"]);
        assert_eq!((code, lines.last().unwrap().as_str()), (1, "extra nft inet weft masquerade -"));
        node.exec("DEL", &pod, &conf);
    });
}

#[test]
fn a_pod_on_a_bridge_is_explained_with_its_port_and_the_bridge() {
    Node::run(|node| {
        let keys =
            json!({"bridge": "br0", "isDefaultGateway": true, "macspoofchk": true, "hairpinMode": true});
        let (pod, conf, result) = node.attach(&node.entry(&keys));
        let port = result["interfaces"][1]["name"].as_str().unwrap();
        assert_eq!(node.differences(&["--container", "c"]), (0, Vec::new()));
        for breakage in
            ["nft flush chain bridge weft prerouting", "nft flush ruleset", "ip addr flush dev br0"]
        {
            sh(breakage);
            assert_eq!(node.audit(&[]).0, 1, "{breakage}");
            assert_eq!(node.audit(&["--repair"]).0, 0, "{breakage}");
            assert_eq!(node.differences(&["--container", "c"]), (0, Vec::new()), "{breakage}");
        }
        sh(&format!(
            "ip link set {port} nomaster; ip addr del 10.1.0.1/24 dev br0; nft flush table bridge weft"
        ));
        let (code, lines) = node.differences(&["--container", "c"]);
        assert_eq!(code, 1);
        for line in [
            &format!("missing node {port} master br0"),
            "missing node br0 address 10.1.0.1/24",
            "different nft bridge weft chain prerouting, 1 of 1 rules",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line}: {lines:?}");
        }
        node.exec("DEL", &pod, &conf);
    });
}

#[test]
fn a_pod_whose_namespace_is_gone_is_told_with_the_way_to_end_its_lease() {
    Node::run(|node| {
        let conf = node.install(&node.entry(&json!({})), &json!({}));
        let pod = Pod::new("c");
        node.exec("ADD", &pod, &conf);
        drop(pod);
        let (code, said) = node.explain(&["--container", "c"]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("MISSING  pod"), "{said}");
        let audit = format!("weft-cni audit --repair {} pods", node.places());
        assert!(said.contains(&format!("`{audit}` ends the lease")), "{said}");
        node.exec("DEL", &Pod::new("c"), &conf);
    });
}

#[test]
fn behind_another_plugin_the_kept_result_says_what_the_addresses_are() {
    Node::run(|node| {
        let pod = Pod::new("c");
        let made = node.install(&node.entry(&json!({"ipMasq": false})), &json!({}));
        let result = node.exec("ADD", &pod, &made);
        let entry = json!({"type": "weft-cni", "ipMasq": true, "capabilities": {"bandwidth": true}});
        let runtime =
            json!({"bandwidth": {"egressRate": 8_000_000, "egressBurst": 800_000}, "portMappings": []});
        let mut chained = entry.clone();
        chained["name"] = "chain".into();
        chained["cniVersion"] = "1.1.0".into();
        chained["runtimeConfig"] = json!({"bandwidth": runtime["bandwidth"]});
        chained["prevResult"] = result.clone();
        node.exec("ADD", &pod, &chained);
        node.keep(&pod, &json!([{"type": "ptp"}, entry]), &runtime, &result, "chain");

        let (code, said) = node.explain(&["--container", "c"]);
        assert_eq!((code, said.contains("--network")), (2, true), "{said}");
        let kept = ["--pod", "shop/kept"];
        assert_eq!(node.differences(&kept), (0, Vec::new()));
        assert!(node.explain(&kept).1.contains("behind another plugin"));
        inside(&pod, "tc qdisc del dev eth0 root");
        sh("nft delete element inet weft masquerade4 { 10.1.0.2 }");
        let expected =
            ["missing pod eth0 shaping 8 Mbit/s, queue 70000 B", "missing nft inet weft masquerade 10.1.0.2"];
        assert_eq!(node.differences(&kept), (1, expected.map(str::to_owned).to_vec()));
        node.exec("DEL", &pod, &chained);
        node.exec("DEL", &pod, &made);
    });
}

#[test]
fn all_of_wefts_entries_in_a_list_are_explained_together() {
    Node::run(|node| {
        let pod = Pod::new("c");
        let first = node.entry(&json!({}));
        let made = node.install(&first, &asked());
        let later =
            json!({"type": "weft-cni", "txQLen": 77, "promisc": true, "dataDir": node.path("tuning")});
        let list = json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [first, later]});
        fs::write(node.path("net.d/10-pods.conflist"), list.to_string()).unwrap();
        let mut chained = later;
        for key in ["name", "cniVersion"] {
            chained[key] = made[key].clone();
        }
        chained["prevResult"] = node.exec("ADD", &pod, &made);
        node.exec("ADD", &pod, &chained);
        let (code, said) = node.explain(&["--container", "c"]);
        assert_eq!((code, said.matches("host port").count()), (0, 2), "one of each family: {said}");
        assert!(said.contains("mode routed, behind another plugin"), "{said}");
        inside(&pod, "ip link set eth0 promisc off txqueuelen 78");
        let expected = ["different pod eth0 promisc on", "different pod eth0 txqlen 77"];
        assert_eq!(node.differences(&["--container", "c"]), (1, expected.map(str::to_owned).to_vec()));
        node.exec("DEL", &pod, &chained);
        node.exec("DEL", &pod, &made);
    });
}

#[test]
fn addresses_of_another_ipam_plugin_are_known_by_the_kept_result_and_its_own_mind_is_not() {
    Node::run(|node| {
        let program = node.path("bin/fixed");
        let answer = r#"{"cniVersion": "1.1.0", "ips": [{"address": "10.7.0.2/24", "gateway": "10.7.0.1"}]}"#;
        fs::write(
            &program,
            format!("#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = DEL ] || echo '{answer}'\n"),
        )
        .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let entry = json!({"type": "weft-cni", "ipMasq": true, "ipam": {"type": "fixed"}});
        let (pod, conf, result) = node.attach(&entry);
        let (code, said) = node.explain(&["--container", "c"]);
        assert_eq!((code, said.contains("nothing is known of c")), (2, true), "{said}");
        node.keep(&pod, &json!([entry]), &json!({}), &result, "pods");
        assert_eq!(node.differences(&["--container", "c"]), (0, Vec::new()));
        let (_, said) = node.explain(&["--container", "c"]);
        assert!(said.contains("unknown: whether fixed still holds the addresses"), "{said}");
        sh("nft flush chain inet weft postrouting");
        let (_, said) = node.explain(&["--container", "c"]);
        assert!(said.contains("` puts back what it can"), "{said}");
        assert_eq!(node.audit(&["--repair", "pods"]).0, 0);
        assert_eq!(node.differences(&["--container", "c"]), (0, Vec::new()));
        inside(&pod, "ip addr flush dev eth0");
        let (code, lines) = node.differences(&["--container", "c"]);
        assert_eq!((code, lines[0].as_str()), (1, "missing pod eth0 address 10.7.0.2/24"));
        node.exec("DEL", &pod, &conf);
    });
}

#[test]
fn a_pod_without_its_configuration_cannot_be_explained_and_another_one_shows_what_would_change() {
    Node::run(|node| {
        let (pod, conf, _) = node.attach(&node.entry(&json!({})));
        let file = node.path("net.d/10-pods.conflist");
        let list: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        fs::remove_file(&file).unwrap();
        let leases = node.path("leases");
        let (code, said) = node.explain(&["--container", "c", "--data-dir", &leases]);
        assert_eq!(
            (code, said.contains("no configuration of weft-cni for the network pods")),
            (2, true),
            "{said}"
        );
        let other = node.path("other.conflist");
        let mut changed = list;
        changed["plugins"][0]["promisc"] = true.into();
        fs::write(&other, changed.to_string()).unwrap();
        let (code, lines) = node.differences(&["--container", "c", "--config", &other]);
        assert_eq!((code, lines), (1, vec!["different pod eth0 promisc on".to_owned()]));
        node.exec("DEL", &pod, &conf);
    });
}

/// A pod of another plugin's, with an address that no other test has, behind which Weft publishes a port and masquerades.
fn behind(node: &Node, pod: &Pod, address: &str) -> (Value, Value, Value) {
    let inside = format!("/proc/{}/task", std::process::id());
    let target = pod.netns.strip_prefix(&format!("{inside}/")).unwrap().trim_end_matches("/ns/net");
    sh(&format!(
        "ip link add veth-other type veth peer name eth0 netns {target}; ip link set veth-other up; \
         ip route add {address}/32 dev veth-other"
    ));
    self::inside(pod, &format!("ip addr add {address}/24 dev eth0; ip link set eth0 up"));
    let entry = json!({"type": "weft-cni", "ipMasq": true, "capabilities": {"portMappings": true}});
    let result = json!({
        "cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": pod.netns}],
        "ips": [{"address": format!("{address}/24"), "interface": 0}],
    });
    let list = json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "ptp"}, entry]});
    fs::write(node.path("net.d/10-pods.conflist"), list.to_string()).unwrap();
    let mut chained = entry.clone();
    chained.as_object_mut().unwrap().extend(
        json!({"name": "pods", "cniVersion": "1.1.0", "prevResult": result, "runtimeConfig": asked()})
            .as_object()
            .unwrap()
            .clone(),
    );
    node.exec("ADD", pod, &chained);
    (entry, chained, result)
}

#[test]
fn a_pod_that_lives_behind_another_plugin_is_not_cut_off_by_a_repair() {
    Node::run(|node| {
        let earlier = node.install(&node.entry(&json!({})), &json!({}));
        let was = Pod::new("was");
        node.exec("ADD", &was, &earlier);
        node.exec("DEL", &was, &earlier);
        let pod = Pod::new("lives");
        let (entry, chained, result) = behind(node, &pod, "10.213.77.2");
        let leases = node.path("leases");
        let places = ["--data-dir", leases.as_str()];
        let stands = || {
            let mut check = chained.clone();
            check["prevResult"] = result.clone();
            node.exec("CHECK", &pod, &check);
        };
        let repair = [&places[..], &["--repair"]].concat();

        // No runtime keeps its result: that its address is in use is all that is known.
        for options in [&places[..], &repair] {
            let (code, report) = node.audit(options);
            assert_eq!((code, &report["findings"]), (0, &json!([])), "{report}");
            assert!(report["lessSeen"].to_string().contains("the node has a route to it"), "{report}");
            stands();
        }
        sh("ip route del 10.213.77.2/32");
        let (code, report) = node.audit(&repair);
        assert_eq!((code, &report["findings"]), (0, &json!([])), "{report}");
        assert!(report["lessSeen"].to_string().contains("it is in use in /proc/"), "{report}");
        stands();

        // With the result it is a pod like any other.
        node.keep(&pod, &json!([{"type": "ptp"}, entry]), &asked(), &result, "pods");
        let (code, report) = node.audit(&places);
        assert_eq!((code, &report["pods"], &report["lessSeen"]), (0, &json!(1), &json!([])), "{report}");
        sh("nft flush map inet weft ports4; nft flush map inet weft masquerade4");
        let (code, report) = node.audit(&places);
        assert_eq!((code, report["findings"].as_array().unwrap().len()), (1, 2), "{report}");
        let (code, report) = node.audit(&repair);
        assert_eq!(code, 0, "{report}");
        stands();

        // When it is gone, so is everything that says that it lives.
        drop(pod);
        let (code, report) = node.audit(&places);
        assert_eq!(code, 1, "{report}");
        assert_eq!(report["findings"][0]["problem"], "firewall element without lease", "{report}");
        assert_eq!(node.audit(&repair).0, 0);
        assert_eq!(node::owners(), NOTHING);
        let (code, said) = node.audit_said(&places, 0);
        assert!(code == 0 && said.starts_with("looked at nothing"), "{said}");
    });
}

#[test]
fn an_audit_sees_what_explain_sees_and_a_repair_puts_back_what_it_can() {
    Node::run(|node| {
        let (pod, other) = (Pod::new("c"), Pod::new("d"));
        let conf = node.install(&node.entry(&json!({})), &asked());
        let result = node.exec("ADD", &pod, &conf);
        let plain = node.install(&node.entry(&json!({})), &json!({}));
        node.exec("ADD", &other, &plain);
        let host = result["interfaces"][0]["name"].as_str().unwrap();
        let (code, said) = node.audit_said(&[], 0);
        assert_eq!((code, said.as_str()), (0, "looked at 2 pods in 1 network: all as planned\n"));

        for (breakage, expected) in [
            ("nft flush ruleset", "masquerade 10.1.0.2 is missing"),
            ("nft flush map inet weft ports4", "host port 8080/tcp to 10.1.0.2:80 is missing"),
            ("nft flush map inet weft masquerade4", "masquerade 10.1.0.3 is missing"),
            ("nft flush chain inet weft postrouting", "chain is postrouting, 0 of 2 rules instead of"),
            (&format!("ip link set {host} down"), "link is down instead of up"),
            ("ip route del 10.1.0.2/32", "route 10.1.0.2/32 is missing"),
            (&format!("tc qdisc del dev {host} root"), "shaping 8 Mbit/s, queue 70000 B is missing"),
            ("echo 0 > /proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward = 0 instead of"),
            ("inside: ip route del default", "route 0.0.0.0/0 via 10.1.0.1 is missing"),
            ("inside: ip addr del 10.1.0.2/24 dev eth0", "address 10.1.0.2/24 is missing"),
            ("inside: ip link set eth0 down", "link is down instead of up"),
        ] {
            match breakage.strip_prefix("inside: ") {
                Some(breakage) => inside(&pod, breakage),
                None => sh(breakage),
            }
            let (code, report) = node.audit(&[]);
            assert_eq!(code, 1, "{breakage}: {report}");
            assert!(report["findings"].to_string().contains(expected), "{breakage}: {report}");
            let (code, report) = node.audit(&["--repair"]);
            assert_eq!(code, 0, "{breakage}: {report}");
            assert_eq!(report["findings"][0]["repaired"], true, "{breakage}: {report}");
            let (code, report) = node.audit(&[]);
            assert_eq!((code, &report["findings"]), (0, &json!([])), "{breakage}");
            assert_eq!(node.differences(&["--container", "c"]), (0, Vec::new()), "{breakage}");
        }

        sh(&format!("ip link del {host}"));
        let (code, report) = node.audit(&["--repair"]);
        let remedies: Vec<_> = report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|finding| finding["container"].as_str().unwrap())
            .collect();
        assert_eq!((code, remedies), (1, vec!["c", "c"]), "{report}");
        assert!(report["findings"][0]["remedy"].as_str().unwrap().contains("delete the pod"), "{report}");
        node.exec("DEL", &pod, &conf);
        assert_eq!(node.audit(&[]).0, 0);
        node.exec("DEL", &other, &conf);
    });
}

#[test]
fn a_chain_of_others_that_drops_what_is_forwarded_is_a_remark_and_no_difference() {
    Node::run(|node| {
        let (pod, conf, _) = node.attach(&node.entry(&json!({})));
        let silent = |why: &str| {
            let (code, report) = node.audit(&[]);
            assert_eq!((code, &report["remarks"]), (0, &json!([])), "{why}");
        };
        silent("nobody else has a firewall");
        for (chain, rules, line) in [
            ("ip filter FORWARD", "policy drop;", "`iptables -I FORWARD -s 10.1.0.0/24 -j ACCEPT`"),
            ("inet site out", "policy drop;", "`nft insert rule inet site out ip6 daddr fd01::/64 accept`"),
            (
                "inet firewalld filter_FORWARD",
                "policy accept; ct state established accept; counter log reject with icmpx admin-prohibited;",
                "--zone=trusted --add-source=10.1.0.0/24`",
            ),
        ] {
            let [family, table, name] = names(chain);
            sh(&format!(
                "nft 'table {family} {table} {{ chain {name} {{ type filter hook forward priority 0; {rules} }}; }}'"
            ));
            let told = format!("the nftables chain {chain} drops by default what is forwarded");
            for (code, said) in [node.audit_said(&[], 0), node.explain(&["--container", "c"])] {
                assert_eq!(code, 0, "{said}");
                assert!(said.contains(&format!("remark: {told}")) && said.contains(line), "{line}: {said}");
                assert!(said.contains("as planned"), "{said}");
            }
            let (_, report) = node.audit(&[]);
            assert!(report["remarks"][0].as_str().unwrap().starts_with(&told), "{report}");
            let (_, said) = node.explain(&["--container", "c", "--json"]);
            assert!(said.contains(r#""remarks":["the nftables chain"#), "{said}");
            sh(&format!("nft delete table {family} {table}"));
        }
        for harmless in [
            "table ip filter { chain INPUT { type filter hook input priority 0; policy drop; }; }",
            "table ip filter { chain FORWARD { type filter hook forward priority 0; ip saddr 10.9.0.1 drop; }; }",
            "table ip6 nat { chain PREROUTING { type nat hook prerouting priority -150; }; }",
        ] {
            sh(&format!("nft '{harmless}'"));
            silent(harmless);
            sh("nft list tables | grep -v weft | xargs -rn3 nft delete");
        }
        node.exec("DEL", &pod, &conf);
    });
}

#[test]
fn a_chain_of_others_that_translates_before_wefts_is_a_remark_where_there_are_host_ports() {
    Node::run(|node| {
        let (pod, conf) = (Pod::new("c"), node.install(&node.entry(&json!({})), &asked()));
        node.exec("ADD", &pod, &conf);
        sh("nft 'table ip early { chain pre { type nat hook prerouting priority -150; }; }'");
        for (code, said) in [node.audit_said(&[], 0), node.explain(&["--container", "c"])] {
            assert_eq!(code, 0, "{said}");
            assert!(
                said.contains("remark: the nftables chain ip early pre translates destinations"),
                "{said}"
            );
        }
        node.exec("DEL", &pod, &conf);
    });
}

#[test]
fn a_port_of_a_pod_on_which_the_node_itself_listens_is_a_remark() {
    Node::run(|node| {
        sh("ip link set lo up");
        let told = |ports: &[Value]| {
            let (pod, conf) =
                (Pod::new("c"), node.install(&node.entry(&json!({})), &json!({"portMappings": ports})));
            node.exec("ADD", &pod, &conf);
            let (_, said) = node.explain(&["--container", "c"]);
            let (code, report) = node.audit(&[]);
            node.exec("DEL", &pod, &conf);
            assert_eq!(code, 0, "{report}");
            let remarks: Vec<_> = report["remarks"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| r.as_str().unwrap().to_owned())
                .collect();
            assert!(
                remarks.iter().all(|remark| said.contains(&format!("remark: {remark}"))),
                "{remarks:?}: {said}"
            );
            remarks
        };
        let port = |number: u16, protocol: &str| json!({"hostPort": number, "containerPort": 80, "protocol": protocol});
        let at = |ip: &str| json!({"hostPort": 53, "containerPort": 80, "protocol": "udp", "hostIP": ip});
        let expected = |port: &str| {
            format!("a process of the node listens on {port}, but what comes there goes to a pod")
        };
        let _any = TcpListener::bind("[::]:8080").unwrap();
        let _resolver = UdpSocket::bind("127.0.0.1:53").unwrap();
        let client = TcpStream::connect("127.0.0.1:8080").unwrap();
        let own = client.local_addr().unwrap().port();
        let others =
            [port(8080, "udp"), port(8081, "tcp"), port(53, "tcp"), port(53, "sctp"), at("192.0.2.1")];
        assert_eq!(told(&others), NOTHING);
        assert_eq!(told(&[port(own, "tcp")]), NOTHING, "a client is no listener");
        assert_eq!(told(&[port(8080, "tcp")]), [expected("8080/tcp")], "both families are one listener");
        assert_eq!(told(&[port(53, "udp")]), [expected("53/udp")]);
        assert_eq!(told(&[at("127.0.0.1")]), [expected("127.0.0.1:53/udp")]);
    });
}

fn names(chain: &str) -> [&str; 3] {
    let names: Vec<_> = chain.split(' ').collect();
    names.try_into().unwrap()
}

#[test]
fn a_bridge_that_is_gone_is_told_with_what_helps_at_once() {
    Node::run(|node| {
        let (pod, conf, _) = node.attach(&node.entry(&json!({"mode": "bridge", "bridge": "br7"})));
        sh("ip link del br7");
        for options in [[].as_slice(), &["--repair"]] {
            let (code, report) = node.audit(options);
            let findings = report["findings"].as_array().unwrap();
            let of_bridge = findings.iter().find(|finding| finding["container"] == "-").unwrap();
            assert_eq!((code, &of_bridge["what"]), (1, &json!("node br7: link up is missing")), "{report}");
            assert_eq!(of_bridge["remedy"], "cannot be put back: delete the pods on it");
        }
        node.exec("DEL", &pod, &conf);
    });
}

#[test]
fn what_may_not_be_read_is_no_agreement() {
    Node::run(|node| {
        let (pod, conf, _) = node.attach(&node.entry(&json!({})));
        fs::set_permissions(node.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (code, said) = node.audit_said(&[], 65534);
        assert_eq!((code, said.contains("Permission denied")), (2, true), "{said}");
        let output = Command::new(PLUGIN)
            .env_clear()
            .uid(65534)
            .args(["explain", "--container", "c", "--conf-dir", &node.path("net.d")])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.contains("Permission denied")), (Some(2), true), "{said}");
        node.exec("DEL", &pod, &conf);
    });
}

#[test]
fn an_audit_of_an_empty_node_says_that_it_has_looked_at_nothing() {
    Node::run(|node| {
        let list = json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "ptp"}, {"type": "weft-cni"}]});
        fs::write(node.path("net.d/10-pods.conflist"), list.to_string()).unwrap();
        let leases = node.path("leases");
        let (code, said) = node.audit_said(&["--data-dir", &leases], 0);
        assert_eq!(code, 0, "{said}");
        assert!(said.starts_with("looked at nothing"), "{said}");
        assert!(said.contains("not judged: pods: other plugins give its addresses"), "{said}");
    });
}

fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Spoils the line of the lease of `container` in the log of the network.
fn damage(node: &Node, container: &str) {
    let log = format!("{}/pods/leases.log", node.path("leases"));
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.replace(&format!(" {container} eth0 "), " X eth0 ")).unwrap();
}

#[test]
fn a_lease_that_cannot_be_read_hides_no_other_pod() {
    Node::run(|node| {
        let entry = node.entry(&json!({}));
        let (damaged, mut conf, result) = node.attach(&entry);
        let other = Pod::new("d");
        node.exec("ADD", &other, &conf);
        damage(node, damaged.name);

        let (code, document) = node.audit(&[]);
        assert_eq!(
            (code, &document["pods"], &document["findings"]),
            (2, &json!(1), &json!([])),
            "{document}"
        );
        let why = document["notSeen"][0]["why"].as_str().unwrap();
        let whose = "the lease of 10.1.0.2, fd01::2 in pods cannot be read, and stays until its DEL: ";
        assert!(why.starts_with(whose) && why.contains("is damaged at byte"), "{why}");
        assert_eq!(document["lessSeen"][0]["of"], "pods/c/eth0", "its pair may be that of the lease");
        let (code, said) = node.explain(&["--container", "d"]);
        assert!(code == 0 && said.contains(whose), "{said}");
        let (code, said) = node.explain(&["--container", "c"]);
        assert!(code == 2 && said.contains(whose) && said.contains("nothing is known of c"), "{said}");

        // By the result that a runtime keeps all can be told but whether the lease stands, and be put back.
        node.keep(&damaged, &json!([entry]), &json!({}), &result, "pods");
        let (code, said) = node.explain(&["--container", "c"]);
        assert!(code == 2 && said.contains("unknown: whether it has a lease: "), "{said}");
        nft(&["flush", "ruleset"]);
        let (code, document) = node.audit(&["--repair"]);
        let findings = document["findings"].as_array().unwrap();
        let mended = |finding: &Value| finding["repaired"] == true;
        let of_damaged = findings.iter().filter(|finding| finding["container"] == "c");
        assert!(code == 2 && findings.iter().all(mended) && of_damaged.count() == 2, "{document}");
        conf["prevResult"] = result;
        node.exec("DEL", &damaged, &conf);
        fs::remove_file(node.path("cache/results/pods-c-eth0")).unwrap();
        assert_eq!(node.audit(&[]).0, 0, "with the DEL the damage is gone");
    });
}

#[test]
fn a_network_of_which_no_lease_can_be_read_hides_no_other_and_loses_nothing() {
    Node::run(|node| {
        let (_pod, ..) = node.attach(&node.entry(&json!({})));
        let (other, mut conf) = (Pod::new("d"), node.install(&node.entry(&json!({})), &json!({})));
        conf["name"] = "others".into();
        conf["ipam"]["ranges"] = json!([[{"subnet": "10.2.0.0/24"}]]);
        node.exec("ADD", &other, &conf);
        fs::write(format!("{}/others/leases.log", node.path("leases")), "no log\n").unwrap();
        let before = nft(&["list", "ruleset"]);
        let (code, document) = node.audit(&["--repair"]);
        assert_eq!(
            (code, &document["pods"], &document["findings"]),
            (2, &json!(1), &json!([])),
            "{document}"
        );
        let of: Vec<_> = ["notSeen", "lessSeen"].map(|key| document[key][0]["of"].clone()).into();
        assert_eq!(of, ["others", "others/d/eth0"], "{document}");
        assert!(
            document["notSeen"][0]["why"].as_str().unwrap().starts_with("leases of others cannot be read: ")
        );
        assert_eq!(nft(&["list", "ruleset"]), before);
        assert!(node.explain(&["--container", "c"]).1.contains("as planned"));
    });
}
