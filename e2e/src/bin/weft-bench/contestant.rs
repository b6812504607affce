//! Who attaches pods, and how.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use weft_e2e::{Attachment, Inventory, Network, Node, Pod, Result, binaries, cni};

use crate::reference::Backend;
use crate::shape;

/// The first number that a guest may have: those before are the gateway's and the standing pod's.
pub(crate) const FIRST_GUEST: u16 = 3;

/// One of those that are compared, with a node on which one pod is attached already: what the first pod of a node costs
/// on top (a bridge, a table) is not what is measured.
#[derive(Debug)]
pub(crate) struct Contestant {
    pub(crate) name: String,
    how: How,
    node: Node,
    _first: Option<Pod>,
}

#[derive(Debug)]
enum How {
    Plugins(Network),
    Bare(PathBuf),
}

/// A pod that is to be attached, with a number that is nobody else's on the node.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) pod: Pod,
    number: u16,
}

impl Contestant {
    pub(crate) fn weft() -> Result<Self> {
        Self::on(Node::start()?, "weft-cni", weft_list())
    }

    /// The same with other files for the plugins.
    pub(crate) fn weft_in(dir: &Path) -> Result<Self> {
        Self::on(Node::start()?, "weft-cni", weft_list().with_plugins_in(dir))
    }

    pub(crate) fn reference(backend: Backend, dir: &Path) -> Result<Self> {
        let node = Node::start()?;
        if backend == Backend::Nftables {
            hide_iptables(&node)?;
        }
        let name = format!("reference, {}", backend.name());
        Self::on(node, &name, reference_list(backend).with_plugins_in(dir))
    }

    /// The table that elements go into is Weft's, and so is the first pod.
    pub(crate) fn bare() -> Result<Self> {
        Self::weft()?.bare_beside()
    }

    /// Also for a node on which somebody else attaches pods with other numbers.
    pub(crate) fn bare_beside(&self) -> Result<Self> {
        let how = How::Bare(binaries::bare()?);
        Ok(Self {
            name: "bare netlink".to_owned(),
            how,
            node: self.node.clone(),
            _first: self._first.clone(),
        })
    }

    fn on(node: Node, name: &str, network: Network) -> Result<Self> {
        let first = Guest::new(&node, FIRST_GUEST - 1)?;
        network.add(&node, &first.attachment())?;
        let (name, how) = (name.to_owned(), How::Plugins(network));
        Ok(Self { name, how, node, _first: Some(first.pod) })
    }

    pub(crate) const fn node(&self) -> &Node {
        &self.node
    }

    pub(crate) fn guest(&self, number: u16) -> Result<Guest> {
        Guest::new(&self.node, FIRST_GUEST + number)
    }

    /// How long ADD took, and what it answered.
    pub(crate) fn add(&self, guest: &Guest) -> Result<(Duration, Value)> {
        self.node.run(|| match &self.how {
            How::Plugins(network) => network.timed_add_here(&guest.attachment()),
            How::Bare(program) => {
                bare(program, Some(guest.pod.netns()), guest).map(|took| (took, Value::Null))
            }
        })?
    }

    /// Without host port and shaping.
    pub(crate) fn add_plainly(&self, pod: &Pod) -> Result<Value> {
        match &self.how {
            How::Plugins(network) => network.add(&self.node, &Attachment::of(pod)),
            How::Bare(program) => Err(shape("what attaches plainly", &program.display().to_string())),
        }
    }

    /// How long DEL took.
    pub(crate) fn del(&self, guest: &Guest, result: &Value) -> Result<Duration> {
        self.node.run(|| match &self.how {
            How::Plugins(network) => network.timed_del_here(&guest.attachment(), result),
            How::Bare(program) => bare(program, None, guest),
        })?
    }

    pub(crate) fn inventory(&self) -> Result<Inventory> {
        self.node.inventory()
    }

    /// Fails where the node is not as it was.
    pub(crate) fn refuse_remains(&self, before: &Inventory) -> Result<()> {
        let remains = before.diff(&self.inventory()?);
        if remains.is_empty() {
            return Ok(());
        }
        Err(shape(&format!("the node after {} has removed all pods", self.name), &remains.join("\n")))
    }
}

impl Guest {
    fn new(node: &Node, number: u16) -> Result<Self> {
        Ok(Self { pod: Pod::create(node, &format!("pod-{number}"))?, number })
    }

    fn attachment(&self) -> Attachment {
        const MBIT: u32 = 1_000_000;
        let port = json!([{ "hostPort": 20_000 + self.number, "containerPort": 80, "protocol": "tcp" }]);
        let rates = json!({ "ingressRate": 100 * MBIT, "ingressBurst": MBIT,
                            "egressRate": 100 * MBIT, "egressBurst": MBIT });
        Attachment::of(&self.pod).with("portMappings", port).with("bandwidth", rates)
    }
}

/// On DEL the plugins look for what an earlier configuration may have made with iptables, where there is one, and those of
/// 1.9.1 fail over the words in which Debian 12's says that there is nothing. The node's mounts are its own.
fn hide_iptables(node: &Node) -> Result<()> {
    for program in ["iptables", "ip6tables"] {
        node.sh(&format!("mount --bind /dev/null {}", binaries::system(program)?.display()))?;
    }
    Ok(())
}

/// It gets a configuration as a plugin does, and does not read it: what starts and ends it is the same.
fn bare(program: &Path, add_to: Option<&Path>, guest: &Guest) -> Result<Duration> {
    let mut command = Command::new(program);
    command.env_clear().arg(if add_to.is_some() { "add" } else { "del" }).arg(guest.number.to_string());
    command.args(add_to);
    let reply = cni::run_here(&mut command, &weft_list().list().to_string())?;
    if reply.status.success() { Ok(reply.took) } else { Err(shape("weft-bare", &reply.stderr)) }
}

fn weft_list() -> Network {
    Network::new(json!({
        "cniVersion": "1.0.0", "name": "weft",
        "plugins": [{
            "type": "weft-cni", "ipMasq": true, "capabilities": { "portMappings": true, "bandwidth": true },
            "ipam": { "type": "weft-ipam", "ranges": ranges(), "routes": routes() },
        }],
    }))
}

fn reference_list(backend: Backend) -> Network {
    let backend = backend.name();
    Network::new(json!({
        "cniVersion": "1.0.0", "name": "reference",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "ipMasqBackend": backend,
                "ipam": { "type": "host-local", "dataDir": "/run/cni/host-local",
                          "ranges": ranges(), "routes": routes() },
            },
            { "type": "portmap", "backend": backend, "capabilities": { "portMappings": true } },
            { "type": "bandwidth", "capabilities": { "bandwidth": true } },
        ],
    }))
}

/// Room for a thousand pods; `weft-bare` knows the same.
fn ranges() -> Value {
    json!([[{ "subnet": "10.244.0.0/20" }], [{ "subnet": "fd00:10:244::/64" }]])
}

fn routes() -> Value {
    json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }])
}
