//! The demo's machine: a node, three pods on it, and what runs in them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use weft_e2e::{
    Attachment, Envoy, Error, Inventory, Network, Node, Pod, Process, Result, binaries, cni, output, wait,
};

use crate::documents;

/// Where the application sends its requests: Envoy's outbound listener.
pub(crate) const OUTBOUND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15001);
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);
const PATIENCE: Duration = Duration::from_secs(10);

/// A node, and the network that its pods are attached to.
pub(crate) struct Stage {
    pub(crate) node: Node,
    network: Network,
    before: Inventory,
}

/// A pod that is attached.
pub(crate) struct Attached {
    pub(crate) pod: Pod,
    /// IPv4, then IPv6.
    pub(crate) addresses: [IpAddr; 2],
    /// How long ADD took.
    pub(crate) took: Duration,
    result: Value,
}

impl Stage {
    pub(crate) fn build() -> Result<Self> {
        let node = Node::start()?;
        let before = node.inventory()?;
        Ok(Self { node, network: Network::routed(0), before })
    }

    /// What a runtime does: a namespace, then ADD.
    pub(crate) fn attach(&self, name: &str) -> Result<Attached> {
        let pod = Pod::create(&self.node, name)?;
        let start = Instant::now();
        let result = self.network.add(&self.node, &Attachment::of(&pod))?;
        let took = start.elapsed();
        Ok(Attached { addresses: [cni::address(&result, 0)?, cni::address(&result, 1)?], pod, took, result })
    }

    /// DEL, then the namespace goes. Returns how long DEL took.
    pub(crate) fn detach(&self, attached: Attached) -> Result<Duration> {
        let start = Instant::now();
        self.network.del(&self.node, &Attachment::of(&attached.pod), &attached.result)?;
        Ok(start.elapsed())
    }

    /// What is there now that was not there before the first pod, and the other way round.
    pub(crate) fn remains(&self) -> Result<Vec<String>> {
        Ok(self.before.diff(&self.node.inventory()?))
    }

    pub(crate) fn leases(&self) -> Result<String> {
        self.node.sh(&format!("{} list", binaries::weft("weft-ipam")?.display()))
    }
}

/// Envoy and the sidecar beside it, in one pod.
pub(crate) struct Mesh {
    sidecar: Process,
    envoy: Envoy,
    /// From the start of the sidecar until Envoy is live.
    pub(crate) took: Duration,
}

impl Mesh {
    /// Starts both on the files in [`documents::DIR`].
    pub(crate) fn start(pod: &Pod) -> Result<Self> {
        let weft_sidecar = binaries::weft("weft-sidecar")?;
        let mut bootstrap = Command::new(&weft_sidecar);
        bootstrap.args(["bootstrap", "--config", documents::DIR]);
        let bootstrap = pod.node().run(|| output(&mut bootstrap))??;
        let mut run = Command::new(&weft_sidecar);
        run.args(["run", "--config", documents::DIR, "--log-format", "json"]);
        let start = Instant::now();
        let sidecar = pod.spawn(run)?;
        let envoy = Envoy::start(pod, &bootstrap, ADMIN)?;
        Ok(Self { sidecar, envoy, took: start.elapsed() })
    }

    /// Saves a route and waits until Envoy has acknowledged what comes of it. Returns how long that took, as the
    /// sidecar has measured it.
    pub(crate) fn save_route(&mut self, node: &Node, rules: &str) -> Result<Duration> {
        let known = self.sidecar.log().lines().count();
        node.write(documents::ROUTE, &documents::route(rules))?;
        self.await_event("Envoy's ACK", known, acknowledged)
    }

    /// Saves a route with a mistake in it and waits for what the sidecar says about it.
    pub(crate) fn save_broken_route(&mut self, node: &Node) -> Result<String> {
        let known = self.sidecar.log().lines().count();
        node.write(documents::ROUTE, &documents::route(documents::BROKEN))?;
        self.await_event("the sidecar's complaint", known, complaint)
    }

    pub(crate) fn version(&self) -> Result<String> {
        let info: Value = serde_json::from_str(&self.envoy.admin("/server_info")?.body).unwrap_or_default();
        let version = info.get("version").and_then(Value::as_str).unwrap_or_default();
        Ok(version.split('/').nth(1).unwrap_or(version).to_owned())
    }

    /// Ends Envoy, then asks the sidecar to end.
    pub(crate) fn end(self) -> Result<()> {
        let Self { mut sidecar, envoy, .. } = self;
        drop(envoy);
        sidecar.signal(nix::sys::signal::Signal::SIGTERM)?;
        let status = sidecar.await_end(PATIENCE)?;
        let shape = || Error::Shape {
            what: "the sidecar's end".to_owned(),
            text: format!("{status}: {}", sidecar.log()),
        };
        if status.success() { Ok(()) } else { Err(shape()) }
    }

    fn await_event<T>(&mut self, what: &str, known: usize, pick: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let sidecar = &mut self.sidecar;
        wait::until(what, PATIENCE, || {
            let log = sidecar.log();
            let mut news = log.lines().skip(known).filter_map(|line| serde_json::from_str(line).ok());
            news.find_map(|event| pick(&event)).ok_or_else(|| sidecar.last_words())
        })
    }
}

/// Everything of a revision is acknowledged; the sidecar says how long after the file was saved.
fn acknowledged(event: &Value) -> Option<Duration> {
    let in_force = event.get("message")?.as_str()? == "in force";
    let milliseconds = event.get("save_to_ack_ms")?.as_f64()?;
    in_force.then(|| Duration::from_secs_f64(milliseconds / 1e3))
}

/// A mistake in a file, with its place.
fn complaint(event: &Value) -> Option<String> {
    let of_a_file = event.get("level")?.as_str()? == "ERROR" && event.get("file").is_some();
    of_a_file.then(|| event.get("message").and_then(Value::as_str).unwrap_or_default().to_owned())
}
