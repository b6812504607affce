//! A data directory and a configuration that points to it, namespaces, and plugins run as a runtime runs them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_weft-ipam");

/// A data directory and a configuration that points to it.
pub(crate) struct Node {
    pub(crate) dir: TempDir,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn conf(&self, version: &str) -> Value {
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
    pub(crate) fn run(&self, verb: &str, container: &str, conf: &Value) -> Result<Value, String> {
        let env = [("CNI_COMMAND", verb), ("CNI_CONTAINERID", container), ("CNI_IFNAME", "eth0")];
        // Any namespace but the plugin's own: IPAM does not go into it.
        answer(&exec(
            Path::new(BINARY),
            &[env.as_slice(), &[("CNI_NETNS", "/proc/self/ns/uts")]].concat(),
            conf,
        ))
    }

    pub(crate) fn list(&self, arguments: &[&str]) -> Output {
        self.command("list", arguments)
    }

    /// What a person types, with this directory.
    pub(crate) fn command(&self, command: &str, arguments: &[&str]) -> Output {
        let dir = self.dir.path().to_str().unwrap();
        Command::new(BINARY).args([command, "--data-dir", dir]).args(arguments).output().unwrap()
    }

    pub(crate) fn lease_count(&self) -> usize {
        let listed: Value = serde_json::from_slice(&self.list(&["--json"]).stdout).unwrap();
        let networks = listed["networks"].as_array().unwrap();
        networks.iter().map(|network| network["leases"].as_array().unwrap().len()).sum()
    }
}

pub(crate) fn exec(plugin: &Path, env: &[(&str, &str)], conf: &Value) -> Output {
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

/// Runs a reference plugin for the interface `eth0` of `container`; Debian's package containernetworking-plugins has it.
/// It finds our binary, and the reference's.
pub(crate) fn reference(
    plugin: &str,
    verb: &str,
    container: &str,
    pod: &Namespace,
    conf: &Value,
) -> Result<Value, String> {
    let plugin = Path::new("/usr/lib/cni").join(plugin);
    assert!(plugin.exists(), "{} is missing: apt-get install containernetworking-plugins", plugin.display());
    let path = format!("{}:/usr/lib/cni", Path::new(BINARY).parent().unwrap().display());
    let env = [
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", container),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", path.as_str()),
        ("CNI_NETNS", pod.path.to_str().unwrap()),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart"),
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    ];
    answer(&exec(&plugin, &env, conf))
}

pub(crate) fn answer(output: &Output) -> Result<Value, String> {
    let document = match output.stdout.as_slice() {
        b"" => Value::Null,
        text => serde_json::from_slice(text).unwrap(),
    };
    match output.status.success() {
        true => Ok(document),
        false => Err(format!("{}: {}", document["code"], document["msg"].as_str().unwrap())),
    }
}

/// A thread in a network namespace of its own, which lasts until this is dropped.
pub(crate) struct Namespace {
    pub(crate) path: PathBuf,
    end: mpsc::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    pub(crate) fn new() -> Self {
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
pub(crate) fn on_a_fresh_node(work: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let node = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("this test needs to be root");
            work();
        });
        node.join().unwrap();
    });
}
