//! The plugin's binary with IPAM plugins that are not Weft's, and behind plugins that are not: Debian's host-local, static
//! and ptp, and small scripts that do what no plugin should.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use weft_datapath::{NetNs, Nft};

#[path = "shared/node.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod node;
#[path = "shared/pod.rs"]
mod pod;

use node::{PLUGIN, Refusal, alone, answer, output, owners, remains};
use pod::Pod;

/// Where Debian's `containernetworking-plugins` puts the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";

/// A node: the calling thread's namespace, a plugin directory before the reference's, and a network's name that nobody
/// else has, for the leases of the default directory are looked at too.
struct Node {
    dir: TempDir,
    network: String,
}

impl Pod {
    fn addresses(&self) -> Vec<String> {
        let inside = NetNs::open(Path::new(&self.netns)).unwrap().rtnl().unwrap().observe().unwrap();
        let of_eth0 = inside.link("eth0").map(|link| link.index);
        let addresses = inside.addresses.iter().filter(|(index, _)| Some(*index) == of_eth0);
        addresses.map(|(_, address)| address.to_string()).filter(|a| !a.starts_with("fe80")).collect()
    }
}

impl Node {
    /// Runs `test` on a node of its own, which must be empty afterwards.
    fn run(test: impl FnOnce(&Self) + Send + 'static) {
        alone(move || {
            let dir = tempfile::tempdir().unwrap();
            let network = format!("w{}", dir.path().file_name().unwrap().to_str().unwrap().replace('.', ""));
            fs::create_dir(dir.path().join("bin")).unwrap();
            let node = Self { dir, network };
            test(&node);
            assert_eq!(node.remains(), Vec::<String>::new());
        });
    }

    /// What stands in the kernel, and leases of host-local, as far as they are there.
    fn remains(&self) -> Vec<String> {
        [remains(), self.leases()].concat()
    }

    /// The addresses that host-local holds.
    fn leases(&self) -> Vec<String> {
        let Ok(files) = fs::read_dir(self.dir.path().join("leases").join(&self.network)) else {
            return Vec::new();
        };
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "lock" && !name.starts_with("last_reserved_ip")).collect()
    }

    /// Makes `script` a plugin. It can use `$DIR`, which is its own.
    fn plugin(&self, name: &str, script: &str) {
        let file = self.dir.path().join("bin").join(name);
        let text = format!("#!/bin/sh\nDIR={}\n{script}\n", self.dir.path().display());
        // Whole at once: a script that another test's child has open for writing cannot be executed.
        let new = file.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, file).unwrap();
    }

    /// A plugin that writes down what it is asked, and answers ADD with an address and all else with nothing.
    fn obedient(&self, name: &str) {
        self.plugin(
            name,
            r#"echo $CNI_COMMAND >> $DIR/asked; cat > $DIR/stdin.$CNI_COMMAND
            [ $CNI_COMMAND = ADD ] && echo '{"ips": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1"}]}'
            exit 0"#,
        );
    }

    fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("asked")).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// With addresses from `ipam`, masqueraded.
    fn conf(&self, version: &str, ipam: Value) -> Value {
        json!({"cniVersion": version, "name": self.network, "type": "weft-cni", "ipMasq": true, "ipam": ipam})
    }

    fn host_local(&self) -> Value {
        json!({
            "type": "host-local", "dataDir": self.dir.path().join("leases"),
            "ranges": [[{"subnet": "10.8.0.0/24"}], [{"subnet": "fd00:8::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        })
    }

    fn exec(&self, verb: &str, container: &str, netns: &str, conf: &Value) -> Result<Value, Refusal> {
        answer(&self.exec_as(PLUGIN.as_ref(), verb, container, netns, conf))
    }

    fn exec_as(&self, plugin: &Path, verb: &str, container: &str, netns: &str, conf: &Value) -> Output {
        let mut plugin = Command::new(plugin);
        plugin
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("CNI_IFNAME", "eth0")])
            .env("CNI_PATH", format!("{}/bin:{REFERENCE}", self.dir.path().display()))
            .stderr(Stdio::piped());
        output(&mut plugin, verb, container, netns, conf)
    }

    fn add(&self, pod: &Pod, conf: &Value) -> Value {
        self.exec("ADD", pod.name, &pod.netns, conf).unwrap()
    }

    fn del(&self, name: &str, conf: &Value) {
        self.exec("DEL", name, "", conf).unwrap();
    }
}

fn with(conf: &Value, key: &str, value: Value) -> Value {
    let mut conf = conf.clone();
    conf[key] = value;
    conf
}

#[test]
fn host_local_gives_keeps_checks_and_takes_back_addresses_in_every_version_it_speaks() {
    Node::run(|node| {
        for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
            let conf = node.conf(version, node.host_local());
            let pod = Pod::new("c");
            let result = node.add(&pod, &conf);
            assert_eq!(result["cniVersion"], version);
            assert_eq!(pod.addresses().len(), 2, "{version}: {:?}", pod.addresses());
            assert_eq!(node.leases().len(), 2, "host-local's leases are where it keeps them");
            let mark = format!("{}/c/eth0", node.network);
            assert_eq!(owners(), [mark.clone(), mark]);
            if version >= "0.4.0" {
                node.exec("CHECK", "c", &pod.netns, &with(&conf, "prevResult", result.clone())).unwrap();
            }
            node.del("c", &conf);
            assert_eq!(node.remains(), Vec::<String>::new(), "{version}");
            node.del("c", &conf);
        }
    });
}

/// The list of <https://www.cni.dev/plugins/current/main/ptp/>, with a place for its leases that no other test has.
fn documented_list(node: &Node) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": node.network,
        "ipam": {"type": "host-local", "subnet": "10.1.1.0/24", "dataDir": node.dir.path().join("leases")},
        "dns": {"nameservers": ["10.1.1.1", "8.8.8.8"]},
    })
}

/// What Kubernetes' own small networks make of it.
fn dual_stack_list(node: &Node) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": node.network, "mtu": 1400, "ipMasq": false,
        "ipam": {
            "type": "host-local", "dataDir": node.dir.path().join("leases"),
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            "ranges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64"}]],
        },
    })
}

/// What the runtime and the pod get of `list` from `plugin`, with the reference's portmap behind it.
fn attached_by(plugin: &Path, list: fn(&Node) -> Value) -> (Value, Vec<String>) {
    let (tell, told) = mpsc::channel();
    let plugin = plugin.to_owned();
    Node::run(move |node| {
        let conf = with(&list(node), "type", json!(plugin.file_name().unwrap().to_str().unwrap()));
        let pod = Pod::new("c");
        let first = answer(&node.exec_as(&plugin, "ADD", "c", &pod.netns, &conf)).unwrap();
        let portmap = json!({
            "cniVersion": "1.0.0", "name": node.network, "type": "portmap", "prevResult": first,
            "capabilities": {"portMappings": true},
        });
        let second = Path::new(REFERENCE).join("portmap");
        let last = answer(&node.exec_as(&second, "ADD", "c", &pod.netns, &portmap)).unwrap();
        answer(&node.exec_as(&second, "DEL", "c", &pod.netns, &portmap)).unwrap();
        let conf = with(&conf, "prevResult", last.clone());
        answer(&node.exec_as(&plugin, "CHECK", "c", &pod.netns, &conf)).unwrap();
        tell.send((json!([last["ips"], last["dns"], destinations(&last)]), pod.addresses())).unwrap();
        answer(&node.exec_as(&plugin, "DEL", "c", &pod.netns, &conf)).unwrap();
    });
    told.recv().unwrap()
}

/// Of the routes. Weft also says which next hop they get, which ptp leaves to the reader.
fn destinations(result: &Value) -> Vec<&Value> {
    result["routes"].as_array().into_iter().flatten().map(|route| &route["dst"]).collect()
}

#[test]
fn a_documented_ptp_list_moves_over_by_changing_the_first_type() {
    for list in [documented_list, dual_stack_list] {
        assert_eq!(attached_by(PLUGIN.as_ref(), list), attached_by(&Path::new(REFERENCE).join("ptp"), list));
    }
}

#[test]
fn static_gives_the_address_that_it_is_told_to() {
    Node::run(|node| {
        let ipam = json!({
            "type": "static", "addresses": [{"address": "10.8.1.7/24", "gateway": "10.8.1.1"}],
            "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["10.8.1.1"]},
        });
        let conf = node.conf("1.0.0", ipam);
        let pod = Pod::new("c");
        let result = node.add(&pod, &conf);
        assert_eq!(pod.addresses(), ["10.8.1.7/24"]);
        assert_eq!(result["dns"]["nameservers"], json!(["10.8.1.1"]));
        assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": "10.8.1.1"}]));
        let conf = with(&conf, "prevResult", result);
        node.exec("CHECK", "c", &pod.netns, &conf).unwrap();
        node.exec("DEL", "c", &pod.netns, &conf).unwrap();
    });
}

#[test]
fn a_second_add_is_refused_and_takes_nothing_from_the_first() {
    Node::run(|node| {
        let conf = node.conf("1.0.0", node.host_local());
        let pod = Pod::new("c");
        node.add(&pod, &conf);
        let leases = node.leases();
        let (code, msg) = node.exec("ADD", "c", &pod.netns, &conf).unwrap_err();
        assert_eq!(code, 100, "{msg}");
        let elsewhere = Pod::new("c");
        assert_eq!(node.exec("ADD", "c", &elsewhere.netns, &conf).unwrap_err().0, 100);
        assert_eq!((node.leases(), owners().len(), pod.addresses().len()), (leases, 2, 2));
        node.del("c", &conf);
    });
}

#[test]
fn a_plugin_gets_the_environment_and_the_whole_configuration() {
    Node::run(|node| {
        node.plugin("ipam", r#"env > $DIR/env; cat > $DIR/stdin; echo '{"ip4": {"ip": "10.9.0.2/24"}, "cniVersion": "0.2.0"}'"#);
        let conf =
            with(&node.conf("1.1.0", json!({"type": "ipam", "odd": {"n": 7}})), "cni.dev/x", json!([1]));
        let pod = Pod::new("c");
        node.add(&pod, &conf);
        assert_eq!(pod.addresses(), ["10.9.0.2/24"], "a result of an older version is converted");
        let stdin = fs::read_to_string(node.dir.path().join("stdin")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&stdin).unwrap(), conf);
        let env = fs::read_to_string(node.dir.path().join("env")).unwrap();
        for variable in
            ["CNI_COMMAND=ADD", "CNI_CONTAINERID=c", "CNI_IFNAME=eth0", "CNI_PATH=", "CNI_NETNS=/proc"]
        {
            assert!(env.lines().any(|line| line.starts_with(variable)), "{variable} in {env}");
        }
        node.del("c", &conf);
    });
}

#[test]
fn nothing_is_executed_for_addresses_of_wefts_own() {
    Node::run(|node| {
        let ranges = json!([[{"subnet": "10.7.0.0/24"}]]);
        let conf =
            node.conf("1.1.0", json!({"type": "weft-ipam", "dataDir": node.dir.path(), "ranges": ranges}));
        let pod = Pod::new("c");
        // Found first, if anything is looked for.
        node.obedient("weft-ipam");
        let result = node.add(&pod, &conf);
        node.exec("CHECK", "c", &pod.netns, &with(&conf, "prevResult", result)).unwrap();
        node.exec("STATUS", "", "", &conf).unwrap();
        node.exec("GC", "", "", &with(&conf, "cni.dev/valid-attachments", json!([]))).unwrap();
        node.del("c", &conf);
        assert_eq!(node.asked(), Vec::<String>::new());
    });
}

#[test]
fn every_verb_is_forwarded() {
    Node::run(|node| {
        node.obedient("ipam");
        let conf = node.conf("1.1.0", json!({"type": "ipam"}));
        let pod = Pod::new("c");
        node.exec("STATUS", "", "", &conf).unwrap();
        let result = node.add(&pod, &conf);
        node.exec("CHECK", "c", &pod.netns, &with(&conf, "prevResult", result)).unwrap();
        let valid = json!([{"containerID": "c", "ifname": "eth0"}]);
        node.exec("GC", "", "", &with(&conf, "cni.dev/valid-attachments", valid)).unwrap();
        assert_eq!(owners().len(), 1);
        node.exec("GC", "", "", &with(&conf, "cni.dev/valid-attachments", json!([]))).unwrap();
        assert_eq!(node.remains(), Vec::<String>::new(), "GC finds the pair and the element by their marks");
        node.del("c", &conf);
        node.del("c", &conf);
        assert_eq!(node.asked(), ["STATUS", "ADD", "CHECK", "GC", "GC", "DEL", "DEL"]);
        let stdin = fs::read_to_string(node.dir.path().join("stdin.GC")).unwrap();
        assert!(stdin.contains("cni.dev/valid-attachments"), "{stdin}");
    });
}

#[test]
fn what_the_plugin_refuses_is_refused_with_its_code_after_all_of_wefts_own_is_gone() {
    Node::run(|node| {
        node.obedient("ipam");
        let conf = node.conf("1.1.0", json!({"type": "ipam"}));
        let pod = Pod::new("c");
        let result = node.add(&pod, &conf);
        node.plugin("ipam", r#"echo '{"code": 111, "msg": "no '$CNI_COMMAND'"}'; exit 1"#);
        let refused = |verb: &str, conf: &Value| node.exec(verb, "c", &pod.netns, conf).unwrap_err();
        let refusal = |verb: &str| (111, format!("ipam: no {verb}"));
        assert_eq!(refused("CHECK", &with(&conf, "prevResult", result)), refusal("CHECK"));
        assert_eq!(owners().len(), 1);
        assert_eq!(refused("DEL", &conf), refusal("DEL"));
        assert_eq!(node.remains(), Vec::<String>::new());
        assert_eq!(refused("GC", &with(&conf, "cni.dev/valid-attachments", json!([]))), refusal("GC"));
    });
}

#[test]
fn del_finds_the_elements_of_a_pod_of_which_nothing_else_is_left() {
    Node::run(|node| {
        let conf = node.conf("1.0.0", node.host_local());
        let [remembered, forgotten] = ["remembered", "forgotten"].map(Pod::new);
        let result = node.add(&remembered, &conf);
        node.add(&forgotten, &conf);
        // The namespaces take the pairs with them.
        drop((remembered, forgotten));
        node.del("remembered", &with(&conf, "prevResult", result));
        let mark = format!("{}/forgotten/eth0", node.network);
        assert_eq!(owners(), [mark.clone(), mark]);
        node.del("forgotten", &conf);
    });
}

#[test]
fn ports_of_a_pod_with_anothers_addresses_go_with_it() {
    Node::run(|node| {
        let conf = with(
            &node.conf("1.0.0", node.host_local()),
            "runtimeConfig",
            json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}),
        );
        let pod = Pod::new("c");
        node.add(&pod, &conf);
        assert_ne!(Nft::open().unwrap().published().unwrap(), []);
        drop(pod);
        node.del("c", &with(&conf, "runtimeConfig", Value::Null));
        assert_eq!(Nft::open().unwrap().published().unwrap(), []);
    });
}

#[test]
fn del_without_the_plugin_removes_what_is_wefts_and_says_what_is_not() {
    Node::run(|node| {
        node.obedient("ipam");
        let conf = node.conf("1.1.0", json!({"type": "ipam"}));
        let pod = Pod::new("c");
        node.add(&pod, &conf);
        fs::remove_file(node.dir.path().join("bin/ipam")).unwrap();
        let (code, msg) = node.exec("DEL", "c", &pod.netns, &conf).unwrap_err();
        assert_eq!(code, 7);
        assert!(msg.contains("cannot find the IPAM plugin \"ipam\" in CNI_PATH"), "{msg}");
        assert_eq!(node.remains(), Vec::<String>::new());
        assert_eq!(node.exec("ADD", "c", &pod.netns, &conf).unwrap_err().0, 7);
    });
}

#[test]
fn an_add_that_fails_after_the_plugins_is_undone_by_it() {
    Node::run(|node| {
        let unreachable = json!({"type": "static", "addresses": [{"address": "10.8.1.7/24", "gateway": "10.8.1.1"}],
            "routes": [{"dst": "10.0.0.0/8", "gw": "172.16.0.1"}]});
        let text = json!({"ips": unreachable["addresses"], "routes": unreachable["routes"]}).to_string();
        node.plugin(
            "ipam",
            &format!("echo $CNI_COMMAND >> $DIR/asked; [ $CNI_COMMAND = ADD ] && echo '{text}'; exit 0"),
        );
        let pod = Pod::new("c");
        let (code, msg) =
            node.exec("ADD", "c", &pod.netns, &node.conf("1.1.0", json!({"type": "ipam"}))).unwrap_err();
        assert_eq!(code, 102, "{msg}");
        assert_eq!(node.asked(), ["ADD", "DEL"]);
    });
}

#[test]
fn a_plugin_that_fails_is_told_to_undo_unless_it_refused_in_the_protocols_words() {
    for (script, expected, is_undone) in [
        (
            r#"echo '{"code": 11, "msg": "all taken", "details": "really"}'; exit 1"#,
            (11, "ipam: all taken: really"),
            false,
        ),
        (r#"echo '{"cniVersion": "1.1.0", "code": 4, "msg": "no"}'; exit 3"#, (4, "ipam: no"), false),
        ("exit 0", (104, "answered with something that is no JSON document"), true),
        ("echo '{\"ips\": '", (104, "answered with something that is no JSON document"), true),
        ("echo '[]'", (104, "answered with something that is no result"), true),
        (r#"echo '{"ips": [{"address": "here"}]}'"#, (104, "no result: ips[0].address"), true),
        ("echo '{}'", (104, "cannot be used: it has no address"), true),
        ("echo oops; exit 2", (104, "ended with exit status: 2"), true),
        ("kill -9 $$", (104, "ended with signal: 9"), true),
        ("exec cat /dev/zero", (104, "ended with signal: 13"), true),
    ] {
        Node::run(move |node| {
            node.plugin(
                "ipam",
                &format!("echo $CNI_COMMAND >> $DIR/asked; [ $CNI_COMMAND = DEL ] && exit 0\n{script}"),
            );
            let pod = Pod::new("c");
            let conf = node.conf("1.1.0", json!({"type": "ipam"}));
            let (code, msg) = node.exec("ADD", "c", &pod.netns, &conf).unwrap_err();
            assert!(code == expected.0 && msg.contains(expected.1), "{script}: {code} {msg}");
            assert_eq!(node.asked(), if is_undone { vec!["ADD", "DEL"] } else { vec!["ADD"] }, "{script}");
            assert_eq!(pod.addresses(), Vec::<String>::new());
        });
    }
}

#[test]
fn del_after_an_add_that_was_killed_while_the_plugin_ran_leaves_nothing() {
    Node::run(|node| {
        let script = format!(
            "echo $CNI_COMMAND >> $DIR/asked; {REFERENCE}/host-local; status=$?
            [ $CNI_COMMAND = ADD ] && kill -9 $PPID; exit $status"
        );
        node.plugin("ipam", &script);
        let mut ipam = node.host_local();
        ipam["type"] = json!("ipam");
        let conf = node.conf("1.0.0", ipam);
        let pod = Pod::new("c");
        let killed = node.exec_as(PLUGIN.as_ref(), "ADD", "c", &pod.netns, &conf);
        assert_eq!(killed.status.code(), None, "{killed:?}");
        node.del("c", &conf);
        assert_eq!((node.asked(), node.leases()), (vec!["ADD".to_owned(), "DEL".to_owned()], Vec::new()));
    });
}

#[test]
fn what_the_plugin_says_to_its_log_reaches_wefts() {
    Node::run(|node| {
        node.plugin("ipam", "echo 'a word to the wise' >&2; exit 1");
        let pod = Pod::new("c");
        let conf = node.conf("1.1.0", json!({"type": "ipam"}));
        let output = node.exec_as(PLUGIN.as_ref(), "ADD", "c", &pod.netns, &conf);
        assert!(String::from_utf8(output.stderr).unwrap().contains("a word to the wise"));
    });
}

#[test]
fn status_says_what_the_plugin_says_and_says_it_within_a_second() {
    for (script, expected) in [
        (r#"echo '{"code": 50, "msg": "no server"}'; exit 1"#, 50),
        (r#"echo '{"code": 51, "msg": "no network"}'; exit 1"#, 51),
        (r#"echo '{"code": 7, "msg": "bad range"}'; exit 1"#, 50),
        ("exit 1", 50),
        ("sleep 1000", 50),
        ("trap '' TERM; sleep 1000 & wait", 50),
    ] {
        Node::run(move |node| {
            node.plugin("ipam", script);
            let asked = Instant::now();
            let (code, msg) =
                node.exec("STATUS", "", "", &node.conf("1.1.0", json!({"type": "ipam"}))).unwrap_err();
            assert_eq!(code, expected, "{script}: {msg}");
            assert!(asked.elapsed() < Duration::from_secs(1), "{script}: {:?}", asked.elapsed());
        });
    }
}

#[test]
fn status_does_not_wait_for_the_lock_of_the_leases() {
    Node::run(|node| {
        let ipam =
            json!({"type": "weft-ipam", "dataDir": node.dir.path(), "ranges": [[{"subnet": "10.7.0.0/24"}]]});
        let conf = node.conf("1.1.0", ipam);
        let pod = Pod::new("c");
        node.add(&pod, &conf);
        node.exec("STATUS", "", "", &conf).unwrap();
        let lock = fs::File::open(node.dir.path().join(&node.network).join("leases.lock")).unwrap();
        lock.lock().unwrap();
        let asked = Instant::now();
        let (code, msg) = node.exec("STATUS", "", "", &conf).unwrap_err();
        assert_eq!(code, 50);
        assert!(msg.contains("could not be told within 800 ms"), "{msg}");
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        lock.unlock().unwrap();
        node.del("c", &conf);
    });
}

/// A pod that the reference's ptp has attached, and Weft's configuration behind it.
fn behind_ptp(node: &Node, pod: &Pod) -> (Value, Value) {
    let ptp = json!({"cniVersion": "1.0.0", "name": node.network, "type": "ptp", "ipam": node.host_local()});
    let result =
        answer(&node.exec_as(&Path::new(REFERENCE).join("ptp"), "ADD", pod.name, &pod.netns, &ptp)).unwrap();
    let conf = json!({"cniVersion": "1.1.0", "name": node.network, "type": "weft-cni", "ipMasq": true, "prevResult": result});
    (ptp, conf)
}

fn remove_ptp(node: &Node, pod: &Pod, ptp: &Value) {
    answer(&node.exec_as(&Path::new(REFERENCE).join("ptp"), "DEL", pod.name, &pod.netns, ptp)).unwrap();
}

#[test]
fn behind_another_plugin_only_what_the_keys_ask_for_is_added_and_the_result_is_passed_on() {
    Node::run(|node| {
        let pod = Pod::new("c");
        let (ptp, mut conf) = behind_ptp(node, &pod);
        conf["prevResult"]["interfaces"][1]["pciID"] = json!("0000:00:01.0");
        conf["prevResult"]["cniVersion"] = json!("1.1.0");
        // ptp says that it has nothing to say, which later versions leave out.
        conf["prevResult"].as_object_mut().unwrap().remove("dns");
        let before = conf["prevResult"].clone();
        assert_eq!(node.add(&pod, &conf), before);
        let mark = format!("{}/c/eth0", node.network);
        assert_eq!(owners(), [mark.clone(), mark]);
        node.exec("STATUS", "", "", &with(&conf, "prevResult", Value::Null)).unwrap();
        node.exec("CHECK", "c", &pod.netns, &conf).unwrap();
        Nft::open().unwrap().stop_masquerading(&owners()[0], &["10.8.0.2".parse().unwrap()]).unwrap();
        let (code, msg) = node.exec("CHECK", "c", &pod.netns, &conf).unwrap_err();
        assert_eq!(code, 101);
        assert!(msg.contains("nft inet weft: masquerade 10.8.0.2 is missing"), "{msg}");
        node.exec("DEL", "c", &pod.netns, &conf).unwrap();
        assert_eq!(owners(), Vec::<String>::new());
        assert_eq!(pod.addresses().len(), 2, "the interface is ptp's to remove");
        node.exec("DEL", "c", "", &with(&conf, "prevResult", Value::Null)).unwrap();

        let dns = with(&conf, "dns", json!({"nameservers": ["10.8.0.1"]}));
        let mut expected = before;
        expected["dns"] = dns["dns"].clone();
        assert_eq!(node.add(&pod, &dns), expected);
        node.del("c", &with(&conf, "prevResult", Value::Null));
        remove_ptp(node, &pod, &ptp);
    });
}

#[test]
fn gc_behind_another_plugin_removes_what_is_not_valid_and_leaves_the_leases_of_that_plugin() {
    Node::run(|node| {
        let (stays, goes) = (Pod::new("stays"), Pod::new("goes"));
        let (ptp, conf) = behind_ptp(node, &stays);
        node.add(&stays, &conf);
        node.add(&goes, &behind_ptp(node, &goes).1);
        let valid = json!([{"containerID": "stays", "ifname": "eth0"}]);
        let gc = with(&with(&conf, "prevResult", Value::Null), "cni.dev/valid-attachments", valid);
        node.exec("GC", "", "", &gc).unwrap();
        let mark = format!("{}/stays/eth0", node.network);
        assert_eq!(owners(), [mark.clone(), mark]);
        assert_eq!(node.leases().len(), 4);
        node.del("stays", &conf);
        remove_ptp(node, &stays, &ptp);
        remove_ptp(node, &goes, &ptp);
    });
}

#[test]
fn behind_another_plugin_a_section_of_its_own_is_a_mistake_and_changes_nothing() {
    Node::run(|node| {
        let pod = Pod::new("c");
        let (ptp, conf) = behind_ptp(node, &pod);
        assert_eq!(
            node.exec("ADD", "c", &pod.netns, &with(&conf, "ipam", node.host_local())).unwrap_err().0,
            7
        );
        assert_eq!(
            node.exec("ADD", "c", &pod.netns, &with(&conf, "mode", json!("routed"))).unwrap_err().0,
            2
        );
        assert_eq!(
            node.exec("ADD", "c", &pod.netns, &with(&conf, "prevResult", Value::Null)).unwrap_err().0,
            7
        );
        assert_eq!(owners(), Vec::<String>::new());
        remove_ptp(node, &pod, &ptp);
    });
}
