//! The shipped binary, spoken to as a runtime and as a person would.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use serde_json::{Value, json};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_weft-ipam");
const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A data directory and a configuration that points to it.
struct Node {
    dir: TempDir,
}

impl Node {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn conf(&self, version: &str) -> Value {
        json!({
            "cniVersion": version,
            "name": "pods",
            "type": "any",
            "ipam": {
                "type": "weft-ipam",
                "ranges": [[{"subnet": "10.7.0.0/29"}], [{"subnet": "fd07::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd07::1"}],
                "dataDir": self.dir.path(),
            }
        })
    }

    /// Runs a verb for `container` and gives its document, or its error as "code: msg".
    fn run(&self, verb: &str, container: &str, conf: &Value) -> Result<Value, String> {
        let env = [("CNI_COMMAND", verb), ("CNI_CONTAINERID", container), ("CNI_IFNAME", "eth0")];
        // Any namespace but the plugin's own: IPAM does not go into it.
        answer(&exec(
            Path::new(BINARY),
            &[env.as_slice(), &[("CNI_NETNS", "/proc/self/ns/uts")]].concat(),
            conf,
        ))
    }

    fn fill(&self, containers: &[&str], conf: &Value) {
        for container in containers {
            self.run("ADD", container, conf).unwrap();
        }
    }

    fn list(&self, arguments: &[&str]) -> Output {
        Command::new(BINARY)
            .arg("list")
            .arg("--data-dir")
            .arg(self.dir.path())
            .args(arguments)
            .output()
            .unwrap()
    }

    fn lease_count(&self) -> usize {
        let listed: Value = serde_json::from_slice(&self.list(&["--json"]).stdout).unwrap();
        let networks = listed["networks"].as_array().unwrap();
        networks.iter().map(|network| network["leases"].as_array().unwrap().len()).sum()
    }
}

fn exec(plugin: &Path, env: &[(&str, &str)], conf: &Value) -> Output {
    let mut process = Command::new(plugin)
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", plugin.display()));
    // A plugin may refuse its environment before it reads this.
    drop(process.stdin.take().unwrap().write_all(conf.to_string().as_bytes()));
    process.wait_with_output().unwrap()
}

fn answer(output: &Output) -> Result<Value, String> {
    let document = match output.stdout.as_slice() {
        b"" => Value::Null,
        text => serde_json::from_slice(text).unwrap(),
    };
    match output.status.success() {
        true => Ok(document),
        false => Err(format!("{}: {}", document["code"], document["msg"].as_str().unwrap())),
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
    node.fill(&["c1", "c2", "c3"], &conf);
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
    node.fill(&["c1", "c2", "c3", "c4"], &conf);
    assert_eq!(node.run("STATUS", "", &conf), Ok(Value::Null));
    node.run("ADD", "c5", &conf).unwrap();
    let why = "no address is free in 10.7.0.0/29: 5 of 5 are held, the longest by eth0 of c1, eth0 of c2, eth0 of c3";
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
    std::fs::write(&file, "nameserver 10.96.0.10\nsearch cluster.local\n").unwrap();
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
    assert_eq!(String::from_utf8(node.list(&[]).stdout).unwrap(), "no network has leases here\n");
    node.run("ADD", "c1", &node.conf("1.1.0")).unwrap();
    let table = String::from_utf8(node.list(&[]).stdout).unwrap();
    assert!(table.contains("10.7.0.0/29  ████░░░░░░░░░░░░░░░░  1 of 5 held, 20.0 %"), "{table}");
    assert!(table.contains("10.7.0.2, fd07::2"), "{table}");
}

/// The reference plugin that delegates to ours. Debian's package containernetworking-plugins has it.
const BRIDGE: &str = "/usr/lib/cni/bridge";

/// A thread in a network namespace of its own, which lasts until this is dropped.
struct Namespace {
    path: PathBuf,
    end: mpsc::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    fn new() -> Self {
        let (ready, path) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("this test needs to be root");
            ready.send(format!("/proc/{}/task/{}/ns/net", std::process::id(), gettid())).unwrap();
            ended.recv().unwrap_or_default();
        });
        Self { path: path.recv().unwrap().into(), end, thread: Some(thread) }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.end.send(()).unwrap_or_default();
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Runs `work` as on a node of its own: in a thread with its own network namespace, and children inherit it.
fn on_a_fresh_node(work: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let node = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("this test needs to be root");
            work();
        });
        node.join().unwrap();
    });
}

#[test]
fn the_reference_bridge_attaches_a_pod_with_our_addresses() {
    assert!(Path::new(BRIDGE).exists(), "{BRIDGE} is missing: apt-get install containernetworking-plugins");
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        on_a_fresh_node(|| attach_and_detach(version));
    }
}

fn attach_and_detach(version: &str) {
    let (node, pod) = (Node::new(), Namespace::new());
    let mut conf = node.conf(version);
    conf["bridge"] = "weft-ref0".into();
    conf["isGateway"] = true.into();
    let bridge = |verb: &str, conf: &Value| {
        let path = Path::new(BINARY).parent().unwrap().to_str().unwrap();
        let env = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", "pod1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", path),
            ("CNI_NETNS", pod.path.to_str().unwrap()),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart"),
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ];
        answer(&exec(Path::new(BRIDGE), &env, conf))
    };
    conf["prevResult"] = bridge("ADD", &conf).unwrap();
    assert_eq!(conf["prevResult"]["ips"][0]["address"], "10.7.0.2/29");
    assert_eq!(conf["prevResult"]["ips"][1]["address"], "fd07::2/64");
    assert!(addresses_in(&pod).contains("inet 10.7.0.2/29"), "{}", addresses_in(&pod));
    assert!(addresses_in(&pod).contains("inet6 fd07::2/64"), "{}", addresses_in(&pod));
    assert!(String::from_utf8(node.list(&[]).stdout).unwrap().contains("shop/cart"));
    if version != "0.3.1" {
        assert_eq!(bridge("CHECK", &conf), Ok(Value::Null));
    }
    assert_eq!(bridge("DEL", &conf), Ok(Value::Null));
    assert_eq!(bridge("DEL", &conf), Ok(Value::Null));
    assert_eq!(node.lease_count(), 0);
}

fn addresses_in(pod: &Namespace) -> String {
    let net = format!("--net={}", pod.path.display());
    let shown =
        Command::new("nsenter").args([&net, "ip", "-o", "address", "show", "dev", "eth0"]).output().unwrap();
    String::from_utf8(shown.stdout).unwrap()
}
