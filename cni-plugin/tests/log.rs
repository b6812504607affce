//! The log that a configuration asks for, as the plugin's binary writes it, and the trace that it continues.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

#[path = "shared/node.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod node;
#[path = "shared/pod.rs"]
mod pod;

use node::{PLUGIN, alone};
use pod::Pod;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A node: the calling thread's namespace, and a directory.
struct Node {
    dir: TempDir,
}

impl Node {
    fn run(test: impl FnOnce(&Self) + Send + 'static) {
        alone(move || test(&Self { dir: tempfile::tempdir().unwrap() }));
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// One address of a network with a single one, and `log`.
    fn conf(&self, log: &Value) -> Value {
        let range = json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2", "rangeEnd": "10.1.0.2"});
        let mut conf = json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "weft-cni",
            "ipam": {"type": "weft-ipam", "dataDir": self.path("leases"), "ranges": [[range]]},
        });
        conf.as_object_mut().unwrap().extend(log.as_object().unwrap().clone());
        conf
    }

    fn start(&self, verb: &str, pod: &Pod, conf: &Value, env: &[(&str, &str)]) -> Child {
        let mut plugin = Command::new(PLUGIN);
        plugin
            .env_clear()
            .envs([("CNI_IFNAME", "eth0"), ("CNI_PATH", &self.path("")), ("PATH", "/bin:/usr/bin")])
            .env("CNI_ARGS", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web")
            .envs(env.iter().copied())
            .stderr(Stdio::piped());
        node::start(&mut plugin, verb, pod.name, &pod.netns, conf)
    }

    fn exec(&self, verb: &str, pod: &Pod, conf: &Value, env: &[(&str, &str)]) -> Output {
        self.start(verb, pod, conf, env).wait_with_output().unwrap()
    }

    fn must(&self, verb: &str, pod: &Pod, conf: &Value) -> String {
        let output = self.exec(verb, pod, conf, &[]);
        assert!(output.status.success(), "{verb}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// Every line of `text`, each of which must be an object.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn read(file: &str) -> Vec<Value> {
    lines(&fs::read_to_string(file).unwrap())
}

fn all<'a>(lines: &'a [Value], key: &str) -> Vec<&'a str> {
    lines.iter().map(|line| line[key].as_str().unwrap_or("-")).collect()
}

#[test]
fn a_run_is_written_down_with_the_time_that_each_part_took() {
    Node::run(|node| {
        let file = node.path("log/cni.log");
        let conf = node.conf(&json!({"logFile": file, "logLevel": "debug"}));
        let pod = Pod::new("c");
        let parent = format!("00-{TRACE}-{PARENT}-01");
        assert!(node.exec("ADD", &pod, &conf, &[("TRACEPARENT", &parent)]).status.success());
        let added = read(&file);
        assert_eq!(
            all(&added, "phase"),
            ["config", "namespace", "ipam", "plan", "links", "node", "pod", "nft", "settle", "-"]
        );
        for line in &added {
            assert_eq!((line["verb"].as_str(), line["pod"].as_str()), (Some("ADD"), Some("shop/web")));
            assert_eq!(
                (line["container"].as_str(), line["netns"].as_str()),
                (Some("c"), Some(pod.netns.as_str()))
            );
            assert_eq!((line["trace_id"].as_str(), line["parent_id"].as_str()), (Some(TRACE), Some(PARENT)));
            assert_eq!(line["span_id"], added[0]["span_id"]);
            assert!(line["duration_us"].is_u64(), "{line}");
        }
        let last = added.last().unwrap();
        assert_eq!((last["level"].as_str(), last["msg"].as_str()), (Some("info"), Some("done")));
        assert_eq!(last["addresses"], "10.1.0.2/24");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("{\"time\":\"2"), "what a person looks for comes first: {text}");
        let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(&node.path("log"))), (0o640, 0o750));

        // As logrotate does: the next process makes a new file.
        fs::rename(&file, format!("{file}.1")).unwrap();
        node.must("DEL", &pod, &conf);
        let deleted = read(&file);
        assert_eq!(all(&deleted, "phase"), ["lookup", "nft", "links", "ipam", "-"]);
        assert!(deleted.iter().all(|line| line["trace_id"].is_null() && line["verb"] == "DEL"));
        assert_eq!(read(&format!("{file}.1")).len(), added.len());
    });
}

#[test]
fn a_level_lets_through_what_is_as_bad_or_worse() {
    Node::run(|node| {
        let (pod, second, gone) = (Pod::new("c"), Pod::new("d"), Pod::new("gone"));
        let log =
            |name: &str, level: &str| node.conf(&json!({"logFile": node.path(name), "logLevel": level}));
        node.must("ADD", &gone, &log("error", "error"));
        assert_eq!(read(&node.path("error")), Vec::<Value>::new());
        drop(gone);
        // The only address is that of a pod that is gone.
        let said = node.must("ADD", &pod, &log("warn", "warn"));
        let warned = read(&node.path("warn"));
        assert_eq!(all(&warned, "level"), ["warn"]);
        assert!(warned[0]["msg"].as_str().unwrap().contains("reclaimed"), "{warned:?}");
        assert!(said.contains("reclaimed"), "standard error has it too: {said}");
        let failed = node.exec("ADD", &second, &log("error", "error"), &[]);
        assert!(!failed.status.success());
        let errors = read(&node.path("error"));
        assert_eq!((errors.len(), &errors[0]["code"], &errors[0]["container"]), (1, &json!(11), &json!("d")));
        assert!(errors[0]["msg"].as_str().unwrap().contains("1 of 1"), "{errors:?}");
        // Also what is refused before Weft's own part begins; and STATUS, which runtimes ask for all the time, says
        // nothing of its success.
        let nowhere = [("CNI_NETNS", "/nowhere")];
        assert!(!node.exec("ADD", &second, &log("info", "info"), &nowhere).status.success());
        node.must("DEL", &pod, &log("info", "info"));
        node.must("STATUS", &pod, &log("info", "info"));
        assert_eq!(all(&read(&node.path("info")), "level"), ["error", "info"]);
    });
}

#[test]
fn a_log_that_cannot_be_written_fails_nothing_and_is_told_of() {
    Node::run(|node| {
        let fifo = node.path("fifo");
        nix::unistd::mkfifo(fifo.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let pod = Pod::new("c");
        for file in [fifo, node.path(""), node.path("no/such/log"), "/dev/full".to_owned()] {
            let conf = node.conf(&json!({"logFile": file}));
            let said = [node.must("ADD", &pod, &conf), node.must("DEL", &pod, &conf)];
            for said in said {
                assert!(said.starts_with("weft-cni: the log is not written: "), "{file}: {said}");
            }
        }
        let conf = node.conf(&json!({}));
        assert_eq!([node.must("ADD", &pod, &conf), node.must("DEL", &pod, &conf)], ["", ""]);
    });
}

#[test]
fn a_level_without_a_file_is_for_standard_error() {
    Node::run(|node| {
        let (pod, conf) = (Pod::new("c"), node.conf(&json!({"logLevel": "debug"})));
        let malformed = node.exec("ADD", &pod, &conf, &[("TRACEPARENT", "00-no")]);
        let said = lines(str::from_utf8(&malformed.stderr).unwrap());
        assert_eq!(said[0]["msg"], "TRACEPARENT \"00-no\" is malformed: ignored");
        assert!(said.iter().all(|line| line["trace_id"].is_null()));
        assert_eq!(said.last().unwrap()["msg"], "done");
        node.must("DEL", &pod, &conf);
    });
}

#[test]
fn lines_of_processes_that_run_at_the_same_time_stay_whole() {
    Node::run(|node| {
        let (pod, file) = (Pod::new("c"), node.path("log"));
        let conf = node.conf(&json!({"logFile": file, "logLevel": "debug"}));
        let running: Vec<_> = (0..20).map(|_| node.start("STATUS", &pod, &conf, &[])).collect();
        for plugin in running {
            assert!(plugin.wait_with_output().unwrap().status.success());
        }
        let lines = read(&file);
        let pids: std::collections::HashSet<_> = lines.iter().map(|line| line["pid"].as_u64()).collect();
        assert_eq!((lines.len(), pids.len()), (20, 20));
    });
}

#[test]
fn another_ipam_plugin_continues_the_trace() {
    Node::run(|node| {
        let program = node.path("fixed");
        let script = "#!/bin/sh\ncat >/dev/null\nenv > ${0%/*}/env\n\
                      [ $CNI_COMMAND = DEL ] || echo '{\"ips\": [{\"address\": \"10.9.0.2/24\"}]}'\n";
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let file = node.path("log");
        let conf = node.conf(&json!({"logFile": file, "ipam": {"type": "fixed"}}));
        let pod = Pod::new("c");
        let parent = format!("00-{TRACE}-{PARENT}-01");
        let context = [("TRACEPARENT", parent.as_str()), ("TRACESTATE", "vendor=1"), ("BAGGAGE", "k=v")];
        for verb in ["ADD", "DEL"] {
            assert!(node.exec(verb, &pod, &conf, &context).status.success());
            let env = fs::read_to_string(node.path("env")).unwrap();
            let lines = read(&file);
            let span = lines.last().unwrap()["span_id"].as_str().unwrap();
            for variable in
                [&format!("TRACEPARENT=00-{TRACE}-{span}-01"), "TRACESTATE=vendor=1", "BAGGAGE=k=v"]
            {
                assert!(env.lines().any(|line| line == variable), "{variable}: {env}");
            }
        }
        assert_ne!(read(&file)[0]["span_id"], read(&file)[1]["span_id"], "each run is a span");
    });
}
