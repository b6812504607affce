//! The protocol over the plugin's binary: every verb in every version, with good input and with every kind of bad input.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

#[path = "shared/node.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod node;
#[path = "shared/pod.rs"]
mod pod;

use node::{PLUGIN, alone};
use pod::Pod;

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
const VERBS: [&str; 6] = ["ADD", "DEL", "CHECK", "GC", "STATUS", "FROB"];

/// What a runtime passes to the plugin.
#[derive(Clone)]
struct Call {
    verb: &'static str,
    version: &'static str,
    env: Vec<(&'static str, String)>,
    stdin: String,
}

/// What comes back.
struct Reply {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// A node with one pod, in a namespace of the calling thread.
struct Node {
    dir: TempDir,
    pod: Pod,
}

impl Node {
    fn run(test: impl FnOnce(&Self) + Send + 'static) {
        alone(move || test(&Self { dir: tempfile::tempdir().unwrap(), pod: Pod::new("c") }));
    }

    fn conf(&self, version: &str) -> Value {
        json!({
            "cniVersion": version, "name": "net", "type": "weft-cni",
            "ipam": {
                "type": "weft-ipam", "dataDir": self.dir.path(),
                "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        })
    }

    /// A call in which nothing is wrong, but that a version may not have the verb.
    fn call(&self, verb: &'static str, version: &'static str) -> Call {
        let mut conf = self.conf(version);
        match verb {
            "CHECK" => {
                conf["prevResult"] = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/24"}]})
            }
            "GC" => conf["cni.dev/valid-attachments"] = json!([]),
            _ => {}
        }
        let env = vec![
            ("CNI_CONTAINERID", self.pod.name.to_owned()),
            ("CNI_NETNS", self.pod.netns.clone()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", "/nowhere".to_owned()),
        ];
        Call { verb, version, env, stdin: conf.to_string() }
    }
}

impl Call {
    fn set(mut self, name: &'static str, value: &str) -> Self {
        self.env.retain(|(variable, _)| *variable != name);
        self.env.push((name, value.to_owned()));
        self
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        let mut conf: Value = serde_json::from_str(&self.stdin).unwrap();
        conf[key] = value;
        self.stdin = conf.to_string();
        self
    }

    fn without(mut self, key: &str) -> Self {
        let mut conf: Value = serde_json::from_str(&self.stdin).unwrap();
        conf.as_object_mut().unwrap().remove(key);
        self.stdin = conf.to_string();
        self
    }

    fn saying(self, stdin: &str) -> Self {
        Self { stdin: stdin.to_owned(), ..self }
    }

    fn run(&self) -> Reply {
        let mut plugin = Command::new(PLUGIN)
            .env_clear()
            .env("CNI_COMMAND", self.verb)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that has seen enough of the environment does not read on.
        let _unread = plugin.stdin.take().unwrap().write_all(self.stdin.as_bytes());
        let output = plugin.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Reply { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The code and message of the one document on standard output, which speaks the version that the call speaks, or the
    /// latest where that cannot be told.
    #[track_caller]
    fn refusal(&self) -> (u64, String) {
        let Reply { code, stdout, stderr } = self.run();
        let document: Value =
            serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout:?} {stderr}"));
        assert_eq!(code, Some(1), "{} {}: {document}", self.verb, self.version);
        let spoken = document["cniVersion"].as_str().unwrap();
        assert!([self.version, "1.1.0"].contains(&spoken), "{document}");
        let said = |key: &str| document[key].as_str().unwrap_or_default().to_owned();
        assert_ne!(said("msg"), "", "{document}");
        (document["code"].as_u64().unwrap(), format!("{}: {}", said("msg"), said("details")))
    }

    #[track_caller]
    fn answer(&self) -> Value {
        let Reply { code, stdout, stderr } = self.run();
        assert_eq!(code, Some(0), "{} {}: {stdout} {stderr}", self.verb, self.version);
        if stdout.is_empty() { Value::Null } else { serde_json::from_str(&stdout).unwrap() }
    }

    /// CHECK, GC and STATUS are younger than the protocol.
    fn is_allowed(&self) -> bool {
        let since = match self.verb {
            "CHECK" => "0.4.0",
            "GC" | "STATUS" => "1.1.0",
            _ => "0.1.0",
        };
        self.version >= since
    }

    fn needs_container(&self) -> bool {
        ["ADD", "DEL", "CHECK"].contains(&self.verb)
    }
}

/// What is wrong, how a good call becomes so, and the code with a part of the words.
type Mistake = (&'static str, fn(Call) -> Call, u64, &'static str);

#[track_caller]
fn refused_in_every_version(node: &Node, mistakes: &[Mistake], applies: fn(&Call) -> bool) {
    for (what, make, code, words) in mistakes {
        for call in VERBS.iter().flat_map(|verb| VERSIONS.map(|version| node.call(verb, version))) {
            if !applies(&call) {
                continue;
            }
            let (found, msg) = make(call.clone()).refusal();
            let case = format!("{what}: {} {}: {msg}", call.verb, call.version);
            assert_eq!(found, *code, "{case}");
            assert!(msg.contains(words), "{case}");
        }
    }
}

#[test]
fn what_is_wrong_with_standard_input_is_told_by_every_verb_even_an_unknown_one() {
    Node::run(|node| {
        let mistakes: [Mistake; 11] = [
            ("nothing", |call| call.saying(""), 6, "cannot decode"),
            ("no JSON", |call| call.saying("{"), 6, "cannot decode"),
            ("two documents", |call| call.saying("{}{}"), 6, "cannot decode"),
            ("a list", |call| call.saying("[]"), 6, "not a JSON object"),
            ("a number", |call| call.saying("7"), 6, "not a JSON object"),
            ("no name", |call| call.without("name"), 7, "missing network name"),
            ("an empty name", |call| call.with("name", json!("")), 7, "missing network name"),
            ("a name with a slash", |call| call.with("name", json!("a/b")), 7, "a/b"),
            ("a name that is no text", |call| call.with("name", json!(7)), 6, "must be a string"),
            ("a version that is none", |call| call.with("cniVersion", json!("one")), 6, "one"),
            (
                "a version of the future",
                |call| call.with("cniVersion", json!("9.9.9")),
                1,
                "incompatible CNI versions",
            ),
        ];
        refused_in_every_version(node, &mistakes, |_| true);
    });
}

#[test]
fn what_is_wrong_with_the_environment_comes_before_what_is_wrong_with_standard_input() {
    Node::run(|node| {
        let mistakes: [Mistake; 7] = [
            ("a container id with a slash", |call| call.set("CNI_CONTAINERID", "a/b"), 4, "CNI_CONTAINERID"),
            ("a long interface name", |call| call.set("CNI_IFNAME", "sixteen-letters-"), 4, "CNI_IFNAME"),
            ("an interface name with a slash", |call| call.set("CNI_IFNAME", "a/b"), 4, "CNI_IFNAME"),
            (
                "no container id",
                |call| call.set("CNI_CONTAINERID", ""),
                4,
                "variables [CNI_CONTAINERID] missing",
            ),
            ("no interface name", |call| call.set("CNI_IFNAME", ""), 4, "variables [CNI_IFNAME] missing"),
            (
                "neither",
                |call| call.set("CNI_IFNAME", "").set("CNI_CONTAINERID", ""),
                4,
                "variables [CNI_CONTAINERID,CNI_IFNAME] missing",
            ),
            (
                "malformed before missing",
                |call| call.set("CNI_IFNAME", ".").set("CNI_CONTAINERID", ""),
                4,
                "CNI_IFNAME: ",
            ),
        ];
        refused_in_every_version(node, &mistakes, Call::needs_container);
        for (what, make, code, words) in mistakes {
            let (found, msg) = make(node.call("ADD", "1.0.0")).saying("{").refusal();
            assert!(found == code && msg.contains(words), "{what}: {msg}");
        }
        let no_namespace: [Mistake; 1] =
            [("no namespace", |call| call.set("CNI_NETNS", ""), 4, "variables [CNI_NETNS] missing")];
        refused_in_every_version(node, &no_namespace, |call| ["ADD", "CHECK"].contains(&call.verb));
        let args: [Mistake; 2] = [
            ("a pair without a value", |call| call.set("CNI_ARGS", "novalue"), 4, "invalid pair"),
            ("a pair with two", |call| call.set("CNI_ARGS", "a=b=c"), 4, "invalid pair"),
        ];
        refused_in_every_version(node, &args, Call::needs_container);
    });
}

#[test]
fn verbs_are_refused_in_versions_that_do_not_have_them_and_unknown_ones_in_all() {
    Node::run(|node| {
        let as_it_is: fn(Call) -> Call = |call| call;
        let early: [Mistake; 1] = [("too early", as_it_is, 1, "does not allow")];
        refused_in_every_version(node, &early, |call| !call.is_allowed());
        let unknown: [Mistake; 1] = [("unknown", as_it_is, 4, "unknown CNI_COMMAND: FROB")];
        refused_in_every_version(node, &unknown, |call| call.verb == "FROB");
        let own: [Mistake; 1] = [(
            "the plugin's own",
            |call| call.set("CNI_NETNS", "/proc/self/ns/net"),
            8,
            "own network namespace",
        )];
        refused_in_every_version(node, &own, |call| call.needs_container() && call.is_allowed());
        let explained = node.call("", "1.0.0").run();
        assert_eq!((explained.code, explained.stdout.as_str()), (Some(0), ""));
        assert!(
            explained
                .stderr
                .contains("CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0")
        );
    });
}

#[test]
fn a_previous_result_must_be_one_where_it_is_needed() {
    Node::run(|node| {
        let garbage: [Mistake; 2] = [
            ("no list", |call| call.with("prevResult", json!({"ips": 7})), 6, "cannot read prevResult"),
            (
                "no address",
                |call| call.with("prevResult", json!({"ips": [{"address": "x"}]})),
                6,
                "cannot read prevResult",
            ),
        ];
        // Results before 0.3.0 have no such key, so nothing in it is wrong.
        let reads = |call: &Call| {
            ["ADD", "CHECK"].contains(&call.verb) && call.is_allowed() && call.version >= "0.3.0"
        };
        refused_in_every_version(node, &garbage, reads);
        let missing: [Mistake; 1] =
            [("missing", |call| call.without("prevResult"), 7, "CHECK needs prevResult")];
        refused_in_every_version(node, &missing, |call| call.verb == "CHECK" && call.is_allowed());
        for version in VERSIONS {
            let del = node.call("DEL", version).with("prevResult", json!({"ips": 7}));
            assert_eq!(del.answer(), Value::Null, "DEL does what it can");
        }
    });
}

#[test]
fn gc_takes_a_list_by_either_key_and_refuses_to_guess_one() {
    Node::run(|node| {
        const KEY: &str = "cni.dev/valid-attachments";
        const LEGACY: &str = "cni.dev/attachments";
        let attachment = json!([{"containerID": "c", "ifname": "eth0"}]);
        let gc = || node.call("GC", "1.1.0");
        let bare = || gc().without(KEY);
        for (refused, words) in [
            (bare(), "GC needs"),
            (gc().with(KEY, Value::Null), "GC needs"),
            (gc().with(KEY, json!({})), "must be a list"),
            (gc().with(KEY, json!([{"ifname": "eth0"}])), "[0]: containerID is missing"),
            (gc().with(KEY, json!([{"containerID": "c", "ifname": "a/b"}])), "[0]: "),
            (bare().with(LEGACY, json!(7)), "must be a list"),
        ] {
            let (code, msg) = refused.refusal();
            assert!(code == 7 && msg.contains(words), "{}: {msg}", refused.stdin);
        }
        let stands = || {
            let result = node.call("ADD", "1.1.0").run();
            // 100: the attachment has its addresses already.
            result.code == Some(1) && result.stdout.contains("\"code\":100")
        };
        node.call("ADD", "1.1.0").answer();
        gc().with(KEY, attachment.clone()).answer();
        assert!(stands());
        bare().with(LEGACY, attachment.clone()).answer();
        assert!(stands());
        gc().with(KEY, attachment).with(LEGACY, json!([])).answer();
        assert!(stands(), "the key of the specification counts");
        gc().answer();
        assert!(!stands(), "an empty list means nobody");
        node.call("DEL", "1.1.0").answer();
    });
}

#[test]
fn unknown_args_are_refused_unless_the_runtime_says_otherwise() {
    Node::run(|node| {
        let add = |args| node.call("ADD", "1.0.0").set("CNI_ARGS", args);
        let (code, msg) = add("FOO=1;BAR=2").refusal();
        assert!(code == 4 && msg.contains("FOO") && msg.contains("BAR"), "{msg}");
        add("IgnoreUnknown=1;FOO=1;K8S_POD_NAME=web").answer();
        node.call("DEL", "1.0.0").set("CNI_ARGS", "FOO=1").answer();
        // CONVENTIONS.md: where `args` is given, the same in CNI_ARGS is ignored.
        let both = add("IP=10.1.0.9").with("args", json!({"cni": {"ips": ["10.1.0.7/24"]}})).answer();
        assert_eq!(both["ips"][0]["address"], "10.1.0.7/24");
        node.call("DEL", "1.0.0").answer();
    });
}

#[test]
fn every_verb_answers_in_the_version_it_is_asked_in() {
    Node::run(|node| {
        for version in VERSIONS {
            let result = node.call("ADD", version).answer();
            assert_eq!(result, expected(node, version, &result), "{version}");
            let check = node.call("CHECK", version).with("prevResult", result);
            if check.is_allowed() {
                assert_eq!(check.answer(), Value::Null);
            }
            for verb in ["STATUS", "GC", "DEL", "DEL"] {
                let call = node.call(verb, version);
                if call.is_allowed() {
                    assert_eq!(call.answer(), Value::Null, "{verb} {version}");
                }
            }
            let versions = node.call("VERSION", version).answer();
            assert_eq!(versions, json!({"cniVersion": version, "supportedVersions": VERSIONS}));
        }
    });
}

/// The result of an ADD, where only the hardware addresses and the name of the end on the node are taken as they come. Each
/// ADD gets the next addresses, so those are too.
fn expected(node: &Node, version: &str, found: &Value) -> Value {
    let nth = VERSIONS.iter().position(|known| *known == version).unwrap() + 2;
    let [v4, v6] = [format!("10.1.0.{nth}/24"), format!("fd01::{nth:x}/64")];
    let routes = [json!({"dst": "0.0.0.0/0", "gw": "10.1.0.1"}), json!({"dst": "::/0", "gw": "fd01::1"})];
    if version < "0.3.0" {
        return json!({
            "cniVersion": version, "dns": {},
            "ip4": {"ip": v4, "gateway": "10.1.0.1", "routes": [routes[0]]},
            "ip6": {"ip": v6, "gateway": "fd01::1", "routes": [routes[1]]},
        });
    }
    let mut result = json!({
        "cniVersion": version, "routes": routes,
        "interfaces": [
            {"name": found["interfaces"][0]["name"], "mac": found["interfaces"][0]["mac"]},
            {"name": "eth0", "mac": found["interfaces"][1]["mac"], "sandbox": node.pod.netns},
        ],
        "ips": [
            {"address": v4, "gateway": "10.1.0.1", "interface": 1},
            {"address": v6, "gateway": "fd01::1", "interface": 1},
        ],
    });
    if version < "1.0.0" {
        result["dns"] = json!({});
        result["ips"][0]["version"] = json!("4");
        result["ips"][1]["version"] = json!("6");
    }
    if version >= "1.1.0" {
        result["interfaces"][0]["mtu"] = json!(1500);
        result["interfaces"][1]["mtu"] = json!(1500);
    }
    result
}
