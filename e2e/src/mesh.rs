//! A pod with upstreams, a sidecar that follows a directory, and an Envoy that follows the sidecar.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::envoy::Envoy;
use crate::error::{Doing, Error, Result};
use crate::http::{Answer, Client, Echo, Upstream};
use crate::node::Node;
use crate::pod::Pod;
use crate::process::{Process, output};
use crate::{binaries, wait};

/// Where Envoy takes the application's requests, if the `Sidecar` does not say otherwise.
pub const OUTBOUND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15001);

/// Envoy's admin address, if the `Sidecar` does not say otherwise.
pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// What takes longer on a busy machine than it should.
const PATIENCE: Duration = Duration::from_secs(20);

/// A mesh of one pod. All of it ends when this is dropped.
#[derive(Debug)]
pub struct Mesh {
    /// The sidecar.
    pub sidecar: Process,
    /// The Envoy next to it.
    pub envoy: Envoy,
    /// Where both are, and the application.
    pub pod: Pod,
    /// The directory that is followed, in the node's own mounts.
    pub config: PathBuf,
    /// In the order in which they were asked for.
    pub upstreams: Vec<Upstream>,
    node: Node,
}

/// The directory that a sidecar follows.
#[derive(Debug)]
pub struct Files<'m> {
    /// The node whose mounts it is in.
    pub node: &'m Node,
    /// Its path there.
    pub config: &'m Path,
}

/// A `Service` called `name` in namespace `shop`, whose port 80 is `port` of the loopback address.
pub fn service(name: &str, port: u16) -> String {
    service_of(name, &[IpAddr::from([127, 0, 0, 1])], port)
}

/// A `Service` called `name` in namespace `shop`, whose port 80 is `port` of each of `pods`.
pub fn service_of(name: &str, pods: &[IpAddr], port: u16) -> String {
    let endpoints: Vec<_> = pods.iter().map(|address| format!("{{ addresses: [{address}] }}")).collect();
    let endpoints = endpoints.join(", ");
    format!(
        "\
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop }}
spec: {{ ports: [{{ port: 80 }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: {name}-1, namespace: shop, labels: {{ kubernetes.io/service-name: {name} }} }}
addressType: IPv4
ports: [{{ port: {port} }}]
endpoints: [{endpoints}]
---
"
    )
}

impl Mesh {
    /// A pod with these upstreams (port and name) on its loopback address, and a sidecar with what `prepare` saves. Returns
    /// when Envoy is `LIVE`.
    pub fn start(upstreams: &[(u16, &str)], prepare: impl FnOnce(&Files<'_>) -> Result<()>) -> Result<Self> {
        Self::start_with(upstreams, prepare, |bootstrap| bootstrap)
    }

    /// The same with an Envoy whose bootstrap is `change`d before.
    pub fn start_with(
        upstreams: &[(u16, &str)],
        prepare: impl FnOnce(&Files<'_>) -> Result<()>,
        change: impl FnOnce(String) -> String,
    ) -> Result<Self> {
        let node = Node::start()?;
        let pod = Pod::create(&node, "client")?;
        let config = node.dir().join("mesh");
        node.run(|| fs::create_dir_all(&config))?
            .doing(|| "make a directory for the configuration".to_owned())?;
        prepare(&Files { node: &node, config: &config })?;
        let upstreams = upstreams.iter().map(|(port, name)| Upstream::start(&pod, *port, name));
        let upstreams = upstreams.collect::<Result<Vec<_>>>()?;
        let mut bootstrap = Command::new(binaries::weft("weft-sidecar")?);
        bootstrap.args(["bootstrap", "--config"]).arg(&config);
        let bootstrap = change(node.run(|| output(&mut bootstrap))??);
        let sidecar = sidecar(&pod, &config)?;
        let mut envoy = Envoy::launch(&pod, &bootstrap, ADMIN)?;
        envoy.await_ready(PATIENCE).map_err(|error| told(error, &sidecar.log()))?;
        Ok(Self { sidecar, envoy, pod, node, config, upstreams })
    }

    /// The directory that the sidecar follows.
    pub fn files(&self) -> Files<'_> {
        Files { node: &self.node, config: &self.config }
    }

    /// A client of Envoy's outbound listener.
    pub fn client(&self) -> Result<Client> {
        Client::from(&self.pod, OUTBOUND)
    }

    /// GET from `web`, on a connection of its own.
    pub fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        self.client()?.get("web", path, headers)
    }

    /// GET from a service, on a connection of its own.
    pub fn get(&self, host: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        self.client()?.get(host, path, headers)
    }

    /// Saves a file and waits until what it says, which must be something new, is in force.
    pub fn revise(&mut self, name: &str, text: &str) -> Result<()> {
        let known = self.lines();
        self.files().save(name, text)?;
        self.await_line(known, &["\"in force\""]).map(drop)
    }

    /// What the upstream that gets such a request says of it.
    pub fn echo(&self, path: &str, headers: &[(&str, &str)]) -> Result<Echo> {
        self.ask(path, headers)?.echo()
    }

    /// Waits until requests to `web` are answered by the upstream of this name.
    pub fn await_upstream(&self, name: &str, limit: Duration) -> Result<()> {
        wait::until(&format!("{name} to answer"), limit, || match self.echo("/", &[]) {
            Ok(echo) if echo.name == name => Ok(()),
            Ok(other) => Err(format!("{} answers; {}", other.name, self.sidecar.log())),
            Err(error) => Err(format!("{error}; {}", self.sidecar.log())),
        })
    }

    /// Waits for a line of the sidecar's log with all of these in it that is not among the first `known`.
    pub fn await_line(&mut self, known: usize, parts: &[&str]) -> Result<serde_json::Value> {
        let sidecar = &mut self.sidecar;
        wait::until(&format!("a line with {parts:?}"), PATIENCE, || {
            let log = sidecar.log();
            let mut news = log.lines().skip(known);
            let line = news.find(|line| parts.iter().all(|part| line.contains(part)));
            line.and_then(|line| serde_json::from_str(line).ok()).ok_or_else(|| sidecar.last_words())
        })
    }

    /// How many lines the sidecar has logged.
    pub fn lines(&self) -> usize {
        self.sidecar.log().lines().count()
    }

    /// One of Envoy's counters or gauges; `None` if it has none of that name.
    pub fn stat(&self, name: &str) -> Result<Option<u64>> {
        let stats = self.envoy.admin(&format!("/stats?filter=^{name}$"))?.body;
        Ok(stats.trim().rsplit(' ').next().and_then(|value| value.parse().ok()))
    }
}

/// With what the sidecar has to say about it.
fn told(error: Error, log: &str) -> Error {
    match error {
        Error::Deadline { what, limit, last } => {
            Error::Deadline { what, limit, last: format!("{last}; {log}") }
        }
        other => other,
    }
}

/// Starts a sidecar that follows `config`.
pub fn sidecar(pod: &Pod, config: &Path) -> Result<Process> {
    let mut run = Command::new(binaries::weft("weft-sidecar")?);
    run.args(["run", "--log-format", "json", "--config"]).arg(config);
    pod.spawn(run)
}

impl Files<'_> {
    /// Writes a file as `cp` does.
    pub fn save(&self, name: &str, text: &str) -> Result<()> {
        self.within(name, || fs::write(self.config.join(name), text))
    }

    /// Writes a file as editors do.
    pub fn rename_over(&self, name: &str, text: &str) -> Result<()> {
        let temporary = self.config.join(format!(".{name}.new"));
        self.within(name, || {
            fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, self.config.join(name)))
        })
    }

    /// As the kubelet updates a ConfigMap volume.
    pub fn swap(&self, revision: &str, files: &[(&str, &str)]) -> Result<()> {
        self.within(revision, || -> std::io::Result<()> {
            let data = self.config.join(format!("..{revision}"));
            fs::create_dir(&data)?;
            for (name, text) in files {
                fs::write(data.join(name), text)?;
            }
            symlink(format!("..{revision}"), self.config.join("..data_tmp"))?;
            let former = fs::canonicalize(self.config.join("..data")).ok();
            fs::rename(self.config.join("..data_tmp"), self.config.join("..data"))?;
            for (name, _) in files.iter().filter(|(name, _)| !self.config.join(name).is_symlink()) {
                symlink(format!("..data/{name}"), self.config.join(name))?;
            }
            former.map_or(Ok(()), fs::remove_dir_all)
        })
    }

    fn within(&self, name: &str, work: impl FnOnce() -> std::io::Result<()> + Send) -> Result<()> {
        self.node.run(work)?.doing(|| format!("save {name}"))
    }
}
