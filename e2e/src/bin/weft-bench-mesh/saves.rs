//! A route that is saved again and again, until requests follow it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_e2e::{Client, Envoy, Node, Pod, Process, Upstream, self_contained};

use crate::files::{
    SIDECAR, await_in_force, rename_over, route_to, run_sidecar, save_to_ack, service, weft_sidecar,
};
use crate::{Result, pause, spread};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const OUTBOUND: SocketAddr = SocketAddr::new(LOOPBACK, 15001);
const ADMIN: SocketAddr = SocketAddr::new(LOOPBACK, 15000);
const PATIENCE: Duration = Duration::from_secs(10);

/// An Envoy with two upstreams, whose routes are in a file.
struct Contestant {
    client: Client,
    file: PathBuf,
    /// The file's content, by the upstream that it leads to.
    content: [String; 2],
    served: Vec<Duration>,
    sidecar: Option<Process>,
    _envoy: Envoy,
    _upstreams: Vec<Upstream>,
}

pub(crate) fn measure(saves: usize) -> Result<String> {
    let node = Node::start()?;
    let mut ours = Contestant::with_sidecar(&node)?;
    let mut envoys = Contestant::watching(&node)?;
    for round in 0..saves {
        pause();
        ours.save(&node, round % 2)?;
        envoys.save(&node, round % 2)?;
    }
    let log = ours.sidecar.as_ref().map(Process::log).unwrap_or_default();
    let acked: Vec<Duration> = log.lines().filter_map(save_to_ack).collect();
    Ok(format!(
        "a route is saved by renaming, {saves} times each, in turns\n\
         saved to served, weft-sidecar                  {}\n\
         saved to served, Envoy with watched_directory  {}\n\
         saved to acknowledged, weft-sidecar            {}   (of {})\n",
        spread(&ours.served),
        spread(&envoys.served),
        spread(&acked),
        acked.len(),
    ))
}

impl Contestant {
    fn with_sidecar(node: &Node) -> Result<Self> {
        let (pod, config) = prepare(node, "sidecar")?;
        let upstreams = upstreams(&pod)?;
        let mut sidecar = run_sidecar(&pod, &config)?;
        let envoy = Envoy::start(&pod, &weft_sidecar(node, &["bootstrap"], &config)?, ADMIN)?;
        await_in_force(&mut sidecar, 1)?;
        let content = ["web-v1", "web-v2"].map(route_to);
        Self::new(&pod, config.join("routes.yaml"), content, envoy, upstreams, Some(sidecar))
    }

    fn watching(node: &Node) -> Result<Self> {
        let (pod, config) = prepare(node, "watching")?;
        let upstreams = upstreams(&pod)?;
        let watched = config.join("envoy");
        node.run(|| fs::create_dir_all(&watched))??;
        let file = watched.join("rds.json");
        let content = [file_of_routes(node, &config, "web-v1")?, file_of_routes(node, &config, "web-v2")?];
        node.run(|| rename_over(&file, &content[1]))??;
        let envoy = Envoy::start(&pod, &bootstrap_with_file(node, &config, &file)?, ADMIN)?;
        Self::new(&pod, file, content, envoy, upstreams, None)
    }

    fn new(
        pod: &Pod,
        file: PathBuf,
        content: [String; 2],
        envoy: Envoy,
        upstreams: Vec<Upstream>,
        sidecar: Option<Process>,
    ) -> Result<Self> {
        let client = Client::from(pod, OUTBOUND)?;
        Ok(Self { client, file, content, served: Vec::new(), sidecar, _envoy: envoy, _upstreams: upstreams })
    }

    fn save(&mut self, node: &Node, to: usize) -> Result<()> {
        let wanted = if to == 0 { "v1" } else { "v2" };
        let content = self.content.get(to).map(String::as_str).unwrap_or_default();
        node.run(|| rename_over(&self.file, content))??;
        let saved = Instant::now();
        while self.client.get("web", "/", &[])?.echo()?.name != wanted {
            if saved.elapsed() > PATIENCE {
                return Err(format!("{wanted} does not answer").into());
            }
        }
        self.served.push(saved.elapsed());
        Ok(())
    }
}

fn prepare(node: &Node, name: &str) -> Result<(Pod, PathBuf)> {
    let (pod, config) = (Pod::create(node, name)?, node.dir().join(name));
    let here = [LOOPBACK.to_string()];
    let services =
        [service("web", 8081, &here), service("web-v1", 8081, &here), service("web-v2", 8082, &here)];
    node.run(|| {
        fs::create_dir_all(&config)?;
        fs::write(config.join("sidecar.yaml"), SIDECAR)?;
        fs::write(config.join("services.yaml"), services.join("---\n"))?;
        fs::write(config.join("routes.yaml"), route_to("web-v2"))
    })??;
    Ok((pod, config))
}

fn upstreams(pod: &Pod) -> Result<Vec<Upstream>> {
    Ok(vec![Upstream::start(pod, 8081, "v1")?, Upstream::start(pod, 8082, "v2")?])
}

fn resources(node: &Node, config: &Path) -> Result<Value> {
    Ok(serde_json::from_str(&weft_sidecar(node, &["translate", "--output", "json"], config)?)?)
}

/// What the sidecar would send for these routes, as a file that Envoy reads.
fn file_of_routes(node: &Node, config: &Path, to: &str) -> Result<String> {
    node.run(|| fs::write(config.join("routes.yaml"), route_to(to)))??;
    let mut routes = resources(node, config)?.pointer("/routes/0").cloned().unwrap_or_default();
    let fields = routes.as_object_mut().ok_or("no routes")?;
    fields.insert("@type".into(), "type.googleapis.com/envoy.config.route.v3.RouteConfiguration".into());
    Ok(json!({ "resources": [routes] }).to_string())
}

fn bootstrap_with_file(node: &Node, config: &Path, file: &Path) -> Result<String> {
    let mut all = resources(node, config)?;
    let source =
        json!({ "path_config_source": { "path": file, "watched_directory": { "path": file.parent() } } });
    let rds = all.pointer_mut("/listeners/0/filter_chains/0/filters/0/typed_config/rds").ok_or("no rds")?;
    let rds_from_file = json!({ "route_config_name": rds.get("route_config_name"), "config_source": source });
    // What is otherwise asked for is put in, but for this.
    *rds = Value::Null;
    let mut bootstrap =
        self_contained(serde_json::from_str(&weft_sidecar(node, &["bootstrap"], config)?)?, &all);
    let manager =
        bootstrap.pointer_mut("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config");
    let manager = manager.and_then(Value::as_object_mut).ok_or("no connection manager")?;
    manager.remove("route_config");
    manager.insert("rds".into(), rds_from_file);
    bootstrap.as_object_mut().ok_or("no bootstrap")?.remove("dynamic_resources");
    Ok(bootstrap.to_string())
}
