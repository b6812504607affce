//! The configurations, each on a node of its own with a pod, and what a runtime does with them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tempfile::TempDir;
use weft_datapath::{Interface, NetNs, Route, Rtnl, Veth};
use weft_ipam::Ipam;

use crate::pod::Pod;
use crate::tracer::{self, Call, Ended, Fate};

const PLUGIN: &str = env!("CARGO_BIN_EXE_weft-cni");

/// What a node's pods are attached with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Everything that the routed mode has.
    Routed,
    /// Everything that the bridge mode has.
    Bridged,
    /// Everything that can be done behind another plugin.
    Chained,
    /// Addresses from another IPAM plugin.
    Delegated,
}

/// Decides about system calls.
pub(crate) type Decide<'a> = &'a mut dyn FnMut(Call) -> Fate;

/// Nothing is decided: it all happens.
pub(crate) const WHOLE: Option<Decide<'static>> = None;

/// A node: the calling thread's namespaces, of the network and of mounts, with nothing below `/etc` and `/run`.
pub(crate) struct Node {
    scenario: Scenario,
    dir: TempDir,
    pod: Pod,
    neighbour: Option<Pod>,
}

impl Node {
    /// Runs `test` on a node of its own, beside a pod that stays or, without it, where the table comes and goes.
    pub(crate) fn run<T: Send + 'static>(
        scenario: Scenario,
        has_neighbour: bool,
        test: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests need root");
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            for dir in ["/etc", "/run"] {
                mount(none, dir, Some("tmpfs"), MsFlags::empty(), none).unwrap();
            }
            // The first pod of a node turns forwarding on for good, and the kernel then changes more than that.
            sh(
                "ip link set lo up; cd /proc/sys/net; echo 1 > ipv4/ip_forward; echo 1 > ipv6/conf/all/forwarding",
            );
            test(&Self::new(scenario, has_neighbour))
        })
    }

    fn new(scenario: Scenario, has_neighbour: bool) -> Self {
        // In memory, where leases belong.
        let dir = TempDir::new_in("/dev/shm").unwrap();
        fs::create_dir_all(dir.path().join("bin")).unwrap();
        fs::create_dir_all(dir.path().join("held")).unwrap();
        let neighbour = has_neighbour.then(|| Pod::new("neighbour"));
        let node = Self { scenario, dir, pod: Pod::new("c"), neighbour };
        node.make_ipam();
        if let Some(neighbour) = &node.neighbour {
            node.exec("ADD", neighbour, &node.neighbours_conf(neighbour), WHOLE).answer().unwrap();
        }
        node
    }

    /// An IPAM plugin in a few lines: whoever has a file has the address.
    fn make_ipam(&self) {
        let script = format!(
            "#!/bin/sh\ncd {}/held\ncase $CNI_COMMAND in\nADD) : > $CNI_CONTAINERID; echo '{}' ;;\n\
             DEL) rm -f $CNI_CONTAINERID ;;\nGC) rm -f * ;;\nesac\nexit 0\n",
            self.dir.path().display(),
            json!({"ips": [{"address": "10.1.0.9/24", "gateway": "10.1.0.1"}], "routes": [{"dst": "0.0.0.0/0"}]}),
        );
        let file = self.dir.path().join("bin/ipam");
        let new = file.with_extension("new");
        fs::write(&new, script).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, file).unwrap();
    }

    /// The pods' names and namespaces.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (&str, &str)> {
        std::iter::once(&self.pod).chain(&self.neighbour).map(|pod| (pod.name, pod.netns.as_str()))
    }

    /// What holds an address.
    pub(crate) fn leases(&self) -> Vec<String> {
        let leases = Ipam::open("weft", self.dir.path()).unwrap().leases().unwrap();
        let mut all: Vec<_> = leases.iter().map(|lease| format!("lease {}", lease.attachment)).collect();
        let held = fs::read_dir(self.dir.path().join("held")).unwrap();
        all.extend(held.map(|file| format!("held {}", file.unwrap().file_name().display())));
        all
    }

    /// The neighbour is of the same network, unless Weft leaves the addresses of that to others. Its range is the same in any
    /// case, and so are the rules.
    fn neighbours_conf(&self, neighbour: &Pod) -> Value {
        let mut conf = self.conf(neighbour);
        if matches!(self.scenario, Scenario::Chained | Scenario::Delegated) {
            conf["name"] = json!("other");
            conf["ipam"] = self.ipam();
        }
        conf
    }

    /// What the runtime says about `pod` to a verb that makes or undoes an attachment.
    fn conf(&self, pod: &Pod) -> Value {
        let mut conf = json!({"cniVersion": "1.1.0", "name": "weft", "type": "weft-cni"});
        let keys = match self.scenario {
            Scenario::Routed => json!({
                "ipam": self.ipam(), "ipMasq": true, "mtu": 1400, "txQLen": 500, "promisc": true,
                "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "runtimeConfig": wishes(pod, "udp"),
            }),
            Scenario::Bridged => json!({
                "ipam": self.ipam(), "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "macspoofchk": true, "portIsolation": true, "runtimeConfig": wishes(pod, "tcp"),
            }),
            Scenario::Chained => json!({
                "ipMasq": true, "promisc": true, "txQLen": 500, "runtimeConfig": wishes(pod, "tcp"),
                "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"},
            }),
            Scenario::Delegated => {
                json!({"ipam": {"type": "ipam"}, "ipMasq": true, "runtimeConfig": wishes(pod, "tcp")})
            }
        };
        conf.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        conf
    }

    fn ipam(&self) -> Value {
        json!({
            "type": "weft-ipam", "dataDir": self.dir.path(),
            "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        })
    }

    /// The plugins before Weft, where there are any, do their ADD.
    pub(crate) fn begin(&self) {
        if self.scenario == Scenario::Chained {
            let netns = NetNs::open(self.pod.netns.as_ref()).unwrap();
            let [address, route] = ["10.1.0.9/24", "10.1.0.9/32"].map(|text| text.parse().unwrap());
            let pair = Veth {
                host: Interface { routes: vec![Route::on_link(route)], ..Interface::named("up0") },
                pod: Interface { addresses: vec![address], ..Interface::named("eth0") },
            };
            let host = Rtnl::open().unwrap();
            host.create_veth(&pair, &netns).unwrap();
            host.configure(&pair.host).unwrap();
            netns.rtnl().unwrap().configure(&pair.pod).unwrap();
        }
    }

    /// They do their DEL.
    pub(crate) fn end(&self) {
        if self.scenario == Scenario::Chained {
            let host = Rtnl::open().unwrap();
            host.delete_link(&host.link("up0").unwrap().unwrap()).unwrap();
        }
    }

    /// ADD of the pod, of whose system calls `fate` decides.
    pub(crate) fn add(&self, fate: Option<Decide>) -> Ended {
        let mut conf = self.conf(&self.pod);
        if self.scenario == Scenario::Chained {
            conf["prevResult"] = json!({
                "cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": self.pod.netns}],
                "ips": [{"address": "10.1.0.9/24", "interface": 0}],
            });
        }
        self.exec("ADD", &self.pod, &conf, fate)
    }

    /// CHECK of what ADD has answered.
    pub(crate) fn check(&self, result: &Value) -> Ended {
        let mut conf = self.conf(&self.pod);
        conf["prevResult"] = result.clone();
        self.exec("CHECK", &self.pod, &conf, WHOLE)
    }

    /// DEL, with the result of ADD where there was one.
    pub(crate) fn del(&self, result: Option<&Value>, fate: Option<Decide>) -> Ended {
        let mut conf = self.conf(&self.pod);
        if let Some(result) = result {
            conf["prevResult"] = result.clone();
        }
        self.exec("DEL", &self.pod, &conf, fate)
    }

    /// GC, to which the pod is no longer known.
    pub(crate) fn gc(&self, fate: Option<Decide>) -> Ended {
        let mut conf = self.conf(&self.pod);
        let valid = self.neighbour.iter().map(|pod| json!({"containerID": pod.name, "ifname": "eth0"}));
        conf["cni.dev/valid-attachments"] = valid.collect();
        self.exec("GC", &self.pod, &conf, fate)
    }

    fn exec(&self, verb: &str, pod: &Pod, conf: &Value, fate: Option<Decide>) -> Ended {
        let mut plugin = Command::new(PLUGIN);
        plugin.env_clear().envs([
            ("PATH", "/usr/bin:/bin"),
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", pod.name),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", &pod.netns),
            ("CNI_PATH", self.dir.path().join("bin").to_str().unwrap()),
        ]);
        match fate {
            Some(fate) => tracer::trace(&mut plugin, &conf.to_string(), fate),
            None => tracer::run(&mut plugin, &conf.to_string()),
        }
    }
}

impl Ended {
    /// What the plugin answered: null where a verb has nothing to say, or the error's code and message with its details.
    pub(crate) fn answer(&self) -> Result<Value, (u64, String)> {
        let document = match self.stdout.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: not one document: {self:?}")),
        };
        match self.code {
            Some(0) => Ok(document),
            Some(1) if document["cniVersion"] == "1.1.0" => {
                let said = |key: &str| document[key].as_str().unwrap_or_default().to_owned();
                Err((document["code"].as_u64().unwrap(), format!("{}: {}", said("msg"), said("details"))))
            }
            _ => panic!("no answer: {self:?}"),
        }
    }
}

/// Ports of the node and limits. No two pods may have the same port. For one of UDP the kernel walks through its whole table
/// of flows, which is long on a large machine, so only one scenario has it.
fn wishes(pod: &Pod, second: &str) -> Value {
    let first = if pod.name == "c" { 8000 } else { 9000 };
    json!({
        "portMappings": [
            {"hostPort": first, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": first + 1, "containerPort": 53, "protocol": second},
        ],
        "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 160_000, "egressRate": 8_000_000, "egressBurst": 160_000},
    })
}

fn sh(script: &str) {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
