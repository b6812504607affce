//! A node for tests of whole lists, and what libcni does with a list.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use weft_datapath::{NetNs, Observed, Rtnl};

use crate::pod::Pod;

#[path = "node.rs"]
mod node;

use node::{PLUGIN, Refusal, alone_without, answer, output};

/// Where Debian's `containernetworking-plugins` puts the reference plugins.
pub(crate) const REFERENCE: &str = "/usr/lib/cni";

/// Where plugins of a test's own are looked for first.
const SCRIPTS: &str = "/run/scripts";

const PATIENCE: Duration = Duration::from_secs(5);

/// Runs `test` on a node of its own: namespaces of the network and of mounts, with nothing in the directories that plugins
/// keep things in. It has to leave nothing.
pub(crate) fn on_node(test: impl FnOnce() + Send + 'static) {
    alone_without(&["/run", "/var/lib"], move || {
        ip("link set lo up");
        test();
        assert_eq!(remains(), Vec::<String>::new());
    });
}

/// Links, rules of the firewall, and what plugins keep in files.
pub(crate) fn remains() -> Vec<String> {
    let mut remains = node::remains();
    let kept = ["find", "/run", "/var/lib", "-type", "f", "-path", "*cni*", "-size", "+0"];
    let is_left = |line: &String| !line.contains("/last_reserved_ip") && !line.ends_with("/lock");
    remains.extend(lines(Command::new(kept[0]).args(&kept[1..])).into_iter().filter(is_left));
    remains
}

fn lines(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

pub(crate) fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
}

/// Makes `text` a plugin.
pub(crate) fn script(name: &str, text: &str) {
    fs::create_dir_all(SCRIPTS).unwrap();
    let file = Path::new(SCRIPTS).join(name);
    // Whole at once: a script that another test's child has open for writing cannot be executed.
    let new = file.with_extension("new");
    fs::write(&new, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, file).unwrap();
}

/// A network outside of the node, 192.0.2.0/24, which knows no way to the node's pods.
pub(crate) fn outside() -> Pod {
    let outside = Pod::new("outside");
    ip("link add up0 type veth peer name out0");
    ip(&format!("link set out0 netns {}", outside.netns.split('/').nth(4).unwrap()));
    ip("address add 192.0.2.2/24 dev up0");
    ip("link set up0 up");
    ip("route add default via 192.0.2.1");
    outside.run(|| {
        ip("address add 192.0.2.1/24 dev out0");
        ip("link set out0 up");
        Rtnl::open().unwrap().settle("out0", &[]).unwrap();
    });
    Rtnl::open().unwrap().settle("up0", &[]).unwrap();
    outside
}

impl Pod {
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        NetNs::open(self.netns.as_ref()).unwrap().run(work).unwrap()
    }

    pub(crate) fn observe(&self) -> Observed {
        self.run(|| Rtnl::open().unwrap().observe().unwrap())
    }

    /// The addresses of eth0 that somebody has chosen.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let inside = self.observe();
        let eth0 = inside.link("eth0").map(|link| link.index);
        let of_eth0 = inside.addresses.iter().filter(|(index, _)| Some(*index) == eth0);
        of_eth0.map(|(_, address)| address.to_string()).filter(|a| !a.starts_with("fe80")).collect()
    }

    /// Answers every connection to `port` with the address that it came from.
    pub(crate) fn serve(&self, port: u16) {
        let listener = self.run(|| TcpListener::bind(("0.0.0.0", port)).unwrap());
        thread::spawn(move || {
            while let Ok((mut stream, from)) = listener.accept() {
                let _gone = stream.write_all(from.ip().to_string().as_bytes());
            }
        });
    }

    /// The address that `to` sees when this pod asks.
    pub(crate) fn seen_by(&self, to: &str) -> std::io::Result<String> {
        self.run(|| seen_by(to))
    }
}

/// The address that `to` sees when the thread's namespace asks.
pub(crate) fn seen_by(to: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to.parse::<SocketAddr>().unwrap(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    answer.parse::<IpAddr>().map(|ip| ip.to_string()).map_err(std::io::Error::other)
}

/// A list, and what its runtime offers to those entries that have the capability.
#[derive(Clone)]
pub(crate) struct List {
    pub(crate) document: Value,
    pub(crate) offered: Value,
}

impl List {
    pub(crate) fn new(document: Value) -> Self {
        Self { document, offered: json!({}) }
    }

    pub(crate) fn add(&self, pod: &Pod) -> Result<Value, Refusal> {
        let mut result = Value::Null;
        for entry in self.entries() {
            result = run("ADD", pod.name, &pod.netns, &with_result(entry, Some(&result)))?;
        }
        Ok(result)
    }

    pub(crate) fn check(&self, pod: &Pod, result: &Value) -> Result<(), Refusal> {
        let mut entries = self.entries().into_iter();
        entries.try_for_each(|entry| {
            run("CHECK", pod.name, &pod.netns, &with_result(entry, Some(result))).map(drop)
        })
    }

    /// With a result only where the version has that.
    pub(crate) fn del(&self, container: &str, netns: &str, result: &Value) -> Result<(), Refusal> {
        let has_result = self.document["cniVersion"].as_str().is_some_and(|version| version >= "0.4.0");
        let result = Some(result).filter(|_| has_result);
        let mut entries = self.entries().into_iter().rev();
        entries.try_for_each(|entry| run("DEL", container, netns, &with_result(entry, result)).map(drop))
    }

    /// What each entry gets, without a result.
    pub(crate) fn entries(&self) -> Vec<Value> {
        self.document["plugins"].as_array().unwrap().iter().map(|entry| self.entry(entry.clone())).collect()
    }

    fn entry(&self, mut entry: Value) -> Value {
        for key in ["name", "cniVersion"] {
            if !self.document[key].is_null() {
                entry[key] = self.document[key].clone();
            }
        }
        let has = |capability: &str| entry["capabilities"][capability] == true;
        let offered = self.offered.as_object().unwrap().iter().filter(|(capability, _)| has(capability));
        let offered: serde_json::Map<_, _> = offered.map(|(k, v)| (k.clone(), v.clone())).collect();
        if !offered.is_empty() {
            entry["runtimeConfig"] = offered.into();
        }
        entry
    }
}

fn with_result(mut entry: Value, result: Option<&Value>) -> Value {
    if let Some(result) = result.filter(|result| !result.is_null()) {
        entry["prevResult"] = result.clone();
    }
    entry
}

/// One entry's plugin: its document, null where there is none.
pub(crate) fn run(verb: &str, container: &str, netns: &str, conf: &Value) -> Result<Value, Refusal> {
    let program = match conf["type"].as_str().unwrap() {
        "weft-cni" => PLUGIN.into(),
        name if Path::new(SCRIPTS).join(name).exists() => Path::new(SCRIPTS).join(name),
        name => Path::new(REFERENCE).join(name),
    };
    run_by(&mut Command::new(program), verb, container, netns, conf)
}

pub(crate) fn run_by(
    command: &mut Command,
    verb: &str,
    container: &str,
    netns: &str,
    conf: &Value,
) -> Result<Value, Refusal> {
    command
        .env_clear()
        .envs([("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("CNI_IFNAME", "eth0")])
        .env("CNI_PATH", format!("{SCRIPTS}:{REFERENCE}"));
    answer(&output(command, verb, container, netns, conf))
}
