//! Three hosts of a cluster: `a` and `b` on one link, `c` behind a router that knows no pods.
//!
//! ```text
//!   a 192.0.2.1  2001:db8::1 ──┐
//!                              ├── router ── c 198.51.100.3  2001:db8:1::3
//!   b 192.0.2.2  2001:db8::2 ──┘
//! ```
//!
//! Each is a [`Node`] with an agent of its own, that reads who the others are from a file.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::Result;
use crate::{Network, Node, Process, binaries, wait};

const PATIENCE: Duration = Duration::from_secs(60);
const NODES: &str = "/run/node/nodes.json";
const BIN: &str = "/run/node/bin";
const CONF: &str = "/run/node/net.d";

/// The hosts, and the router between them.
#[derive(Debug)]
pub struct Hosts {
    router: Node,
    /// `a`, `b` and `c`.
    pub hosts: Vec<Host>,
}

/// A host, as its cluster knows it.
#[derive(Debug)]
pub struct Host {
    /// Its name.
    pub name: &'static str,
    /// It.
    pub node: Node,
    addresses: [&'static str; 2],
    /// The subnets of its pods.
    pub pods: [String; 2],
    agent: Option<Process>,
}

impl Hosts {
    /// Lays the cables. No agent runs yet.
    pub fn start() -> Result<Self> {
        let router = Node::start()?;
        let hosts = [
            Host::new("a", 0, ["192.0.2.1", "2001:db8::1"])?,
            Host::new("b", 1, ["192.0.2.2", "2001:db8::2"])?,
            Host::new("c", 2, ["198.51.100.3", "2001:db8:1::3"])?,
        ];
        router.sh("ip link add lan type bridge")?;
        for host in &hosts {
            let net = host.node.net_path();
            router.sh(&format!(
                "ip link add to-{} type veth peer name eth0 netns {}",
                host.name,
                net.display()
            ))?;
            let is_far = host.name == "c";
            if !is_far {
                router.sh(&format!("ip link set to-{} master lan", host.name))?;
            }
            router.sh(&format!("ip link set to-{} up", host.name))?;
            host.connect(if is_far {
                ["198.51.100.254", "2001:db8:1::fe"]
            } else {
                ["192.0.2.254", "2001:db8::fe"]
            })?;
        }
        for line in [
            "ip link set lan up",
            "ip address add 192.0.2.254/24 dev lan",
            "ip address add 2001:db8::fe/64 dev lan nodad",
            "ip address add 198.51.100.254/24 dev to-c",
            "ip address add 2001:db8:1::fe/64 dev to-c nodad",
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        ] {
            router.sh(line)?;
        }
        Ok(Self { router, hosts: hosts.into() })
    }

    /// Tells every host that these are the nodes.
    pub fn tell(&self, names: &[&str]) -> Result<()> {
        let members = self.hosts.iter().filter(|host| names.contains(&host.name));
        let nodes: Vec<_> = members.map(Host::described).collect();
        self.hosts.iter().try_for_each(|host| host.node.write(NODES, &json!({ "nodes": nodes }).to_string()))
    }

    /// Starts the agents of these hosts, and waits until each has set its node up.
    pub fn run_agents(&mut self, names: &[&str]) -> Result<()> {
        let mut started: Vec<_> = self.hosts.iter_mut().filter(|host| names.contains(&host.name)).collect();
        for host in &mut started {
            host.agent = Some(host.node.spawn(host.agent_command()?)?);
        }
        started.iter_mut().try_for_each(|host| {
            host.until("the node to be ready", |status| {
                let is_there = status.pointer("/install/conflist").is_some_and(Value::is_string);
                is_there && status.pointer("/network/stands") == Some(&Value::Bool(true))
            })
            .map(drop)
        })
    }

    /// The host of this name.
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name == name).expect("a host is a, b or c")
    }

    /// The same, to be changed.
    pub fn host_mut(&mut self, name: &str) -> &mut Host {
        self.hosts.iter_mut().find(|host| host.name == name).expect("a host is a, b or c")
    }

    /// The router between `c` and the others.
    pub fn router(&self) -> &Node {
        &self.router
    }
}

impl Host {
    fn new(name: &'static str, number: u8, addresses: [&'static str; 2]) -> Result<Self> {
        let pods = [format!("10.244.{number}.0/24"), format!("fd00:10:244:{number:x}::/64")];
        Ok(Self { name, node: Node::start()?, addresses, pods, agent: None })
    }

    fn connect(&self, routers: [&str; 2]) -> Result<()> {
        let ([v4, v6], [router4, router6]) = (self.addresses, routers);
        for line in [
            "ip link set eth0 up".to_owned(),
            format!("ip address add {v4}/24 dev eth0"),
            format!("ip address add {v6}/64 dev eth0 nodad"),
            format!("ip route add default via {router4}"),
            format!("ip -6 route add default via {router6} dev eth0"),
        ] {
            self.node.sh(&line)?;
        }
        Ok(())
    }

    fn described(&self) -> Value {
        json!({ "name": self.name, "addresses": self.addresses, "podCIDRs": self.pods })
    }

    fn agent_command(&self) -> Result<Command> {
        let mut command = Command::new(binaries::weft("weft-node")?);
        command.args([
            "run",
            "--node-name",
            self.name,
            "--nodes",
            NODES,
            "--bin-dir",
            BIN,
            "--conf-dir",
            CONF,
        ]);
        command.args(["--cri-socket", "none", "--log-level", "debug"]);
        Ok(command)
    }

    /// What `weft-node status --json` says.
    pub fn status(&self) -> std::result::Result<Value, String> {
        let program = binaries::weft("weft-node").map_err(|error| error.to_string())?;
        let text = self.node.sh(&format!("{} status --json --conf-dir {CONF}", program.display()));
        serde_json::from_str(&text.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
    }

    /// Waits until the status is as wanted, and returns it.
    pub fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        wait::until(&format!("{what} on {}", self.name), PATIENCE, || match self.status() {
            Ok(status) if is_so(&status) => Ok(status),
            Ok(status) => Err(format!("{status}\n{}", self.log())),
            Err(error) => Err(format!("{error}\n{}", self.log())),
        })
    }

    /// What its agent has logged.
    pub fn log(&self) -> String {
        self.agent.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Kills its agent, as the kernel does when memory is short.
    pub fn kill_agent(&mut self) {
        self.agent = None;
    }

    /// The network that the agent has installed, with its plugins.
    pub fn network(&self) -> Result<Network> {
        let list = self.node.sh(&format!("cat {CONF}/10-weft.conflist"))?;
        let shape =
            |_error| crate::Error::Shape { what: "the installed list".to_owned(), text: list.clone() };
        Ok(Network::new(serde_json::from_str(&list).map_err(shape)?))
    }
}
