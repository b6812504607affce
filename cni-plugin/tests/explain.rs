//! `weft-cni explain` on a node of its own: what is as planned, and what somebody has changed since.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
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
        let output = Command::new(PLUGIN)
            .env_clear()
            .arg("explain")
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
        let audit = format!("weft-cni audit --repair --data-dir {}", node.path("leases"));
        assert!(node.explain(&web).1.contains(&format!("next: `{audit}` puts the rules back")));
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
        let (pod, conf) = (Pod::new("c"), node.install(&node.entry(&json!({})), &json!({})));
        node.exec("ADD", &pod, &conf);
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
        let (pod, conf) = (Pod::new("c"), node.install(&node.entry(&keys), &json!({})));
        let result = node.exec("ADD", &pod, &conf);
        let port = result["interfaces"][1]["name"].as_str().unwrap();
        assert_eq!(node.differences(&["--container", "c"]), (0, Vec::new()));
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
        let audit = format!("weft-cni audit --repair --data-dir {} pods", node.path("leases"));
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
        let (pod, conf) = (Pod::new("c"), node.install(&entry, &json!({})));
        let result = node.exec("ADD", &pod, &conf);
        let (code, said) = node.explain(&["--container", "c"]);
        assert_eq!((code, said.contains("nothing is known of c")), (2, true), "{said}");
        node.keep(&pod, &json!([entry]), &json!({}), &result, "pods");
        assert_eq!(node.differences(&["--container", "c"]), (0, Vec::new()));
        let (_, said) = node.explain(&["--container", "c"]);
        assert!(said.contains("unknown: whether fixed still holds the addresses"), "{said}");
        sh("nft flush chain inet weft postrouting");
        let (_, said) = node.explain(&["--container", "c"]);
        assert!(said.contains("next: drain the node"), "an audit knows nothing of it: {said}");
        inside(&pod, "ip addr flush dev eth0");
        let (code, lines) = node.differences(&["--container", "c"]);
        assert_eq!((code, lines[0].as_str()), (1, "missing pod eth0 address 10.7.0.2/24"));
        node.exec("DEL", &pod, &conf);
    });
}

#[test]
fn a_pod_without_its_configuration_cannot_be_explained_and_another_one_shows_what_would_change() {
    Node::run(|node| {
        let (pod, conf) = (Pod::new("c"), node.install(&node.entry(&json!({})), &json!({})));
        node.exec("ADD", &pod, &conf);
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
