//! The plugin's binary, called `loopback`, as containerd calls it for every sandbox.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use weft_datapath::sysctl;

#[path = "shared/list.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod list;
#[path = "shared/pod.rs"]
mod pod;

use list::on_node;
use pod::Pod;

fn call(verb: &str, netns: &str, conf: &Value) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weft-cni"))
        .arg0("/opt/cni/bin/loopback")
        .envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", "c"), ("CNI_NETNS", netns)])
        .envs([("CNI_IFNAME", "lo"), ("CNI_PATH", "/opt/cni/bin")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

fn conf(version: &str) -> Value {
    json!({"cniVersion": version, "name": "cni-loopback", "type": "loopback"})
}

#[test]
fn lo_of_a_pod_comes_up_and_its_addresses_are_reported_in_the_form_of_every_version() {
    on_node(|| {
        for version in ["0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let pod = Pod::new("c");
            let netns = pod.netns.clone();
            assert!(!pod.observe().link("lo").unwrap().up);
            let added = call("ADD", &netns, &conf(version));
            assert!(added.status.success(), "{added:?}");
            assert!(pod.observe().link("lo").unwrap().up);
            let result = answer(&added);
            assert_eq!(result["cniVersion"], version);
            if version == "0.2.0" {
                assert_eq!(result["ip4"]["ip"], "127.0.0.1/8");
            } else {
                assert_eq!(result["interfaces"][0]["name"], "lo");
                assert_eq!(result["interfaces"][0]["sandbox"], netns.as_str());
                assert_eq!(result["ips"][0]["address"], "127.0.0.1/8");
                assert_eq!(result["ips"][1]["address"], "::1/128");
            }
            assert!(call("ADD", &netns, &conf(version)).status.success(), "again");
            for _ in 0..2 {
                assert!(call("DEL", &netns, &conf(version)).status.success());
            }
        }
    });
}

#[test]
fn a_pod_without_ipv6_has_only_the_one_address() {
    on_node(|| {
        let pod = Pod::new("c");
        pod.run(|| sysctl::set(&["ipv6", "conf", "lo", "disable_ipv6"], "1").unwrap());
        let result = answer(&call("ADD", &pod.netns, &conf("1.0.0")));
        assert_eq!(result["ips"].as_array().unwrap().len(), 1, "{result}");
    });
}

#[test]
fn check_tells_of_a_lo_that_is_down() {
    on_node(|| {
        let pod = Pod::new("c");
        let netns = pod.netns.clone();
        let mut checked = conf("1.0.0");
        checked["prevResult"] = json!({"cniVersion": "1.0.0", "interfaces": [], "ips": []});
        let before = call("CHECK", &netns, &checked);
        assert!(!before.status.success());
        assert!(answer(&before)["msg"].as_str().unwrap().contains("lo"), "{before:?}");
        assert!(call("ADD", &netns, &conf("1.0.0")).status.success());
        let after = call("CHECK", &netns, &checked);
        assert!(after.status.success(), "{after:?}");
    });
}

#[test]
fn a_del_succeeds_where_the_namespace_is_gone() {
    on_node(|| assert!(call("DEL", "/run/netns/never", &conf("1.0.0")).status.success()));
}
