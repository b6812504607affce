//! What `weft-node` costs on a node of a large cluster: its memory with all nodes known, and with all endpoints kept as files;
//! and how soon a change of the API is in its file.
//!
//! The API is the stand-in of the tests, in this process, so that nothing of it counts. Its objects are as large as those of a
//! real one: a Node with its images and conditions has some 12 KB, an EndpointSlice with three endpoints 1.5 KB.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weft_e2e::{Kubernetes, Node, Process, bench, binaries, wait};

const NODES: &str = "/api/v1/nodes";
const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";
const PATIENCE: Duration = Duration::from_secs(60);
const NAMESPACES: usize = 200;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Measures what weft-node costs on a node of a large cluster.
#[derive(Debug, Parser)]
struct Args {
    /// Nodes of the cluster
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    /// EndpointSlices, each with three endpoints
    #[arg(long, default_value_t = 10_000)]
    slices: usize,
    /// Changes of one slice, each timed until it is in its file
    #[arg(long, default_value_t = 200)]
    changes: usize,
}

/// An agent on a machine of its own, and the API that it follows.
struct Stage {
    node: Node,
    kubernetes: Kubernetes,
    agent: Process,
    started: Instant,
}

fn main() -> ExitCode {
    bench::finish(measure(&Args::parse()))
}

fn measure(args: &Args) -> Result<String> {
    let one = Stage::start(1, 0, false)?.settled()?;
    let many = Stage::start(args.nodes, 0, false)?;
    let known = many.settled()?;
    (0..args.nodes).for_each(|number| many.kubernetes.apply(NODES, node(number, 1)));
    let beaten = many.settled()?;
    drop(many);

    let mut full = Stage::start(args.nodes, args.slices, true)?;
    full.await_files(args.slices)?;
    let (filled, spent) = (full.started.elapsed(), cpu(&full.agent)? * 10);
    let kept = full.settled()?;
    let times = full.changes(args.changes)?;
    let changed = full.settled()?;
    full.restart()?;
    let again = full.settled()?;
    Ok(format!(
        "resident (and its peak), of it not backed by a file\n\
         one node known           {one}\n\
         {nodes} nodes known         {known}, after a heartbeat of each {beaten}\n\
         {slices} Services and EndpointSlices beside them, as files  {kept}\n\
         after {changes} changes        {changed}\n\
         started again            {again}\n\
         all files written {filled:.1?} after the start, with {spent} ms of CPU; a change in its file p50 {:.1?}, p99 {:.1?}\n",
        percentile(&times, 50),
        percentile(&times, 99),
        nodes = args.nodes,
        slices = args.slices,
        changes = args.changes,
    ))
}

impl Stage {
    fn start(nodes: usize, slices: usize, with_files: bool) -> Result<Self> {
        let node_ = Node::start()?;
        let kubernetes = Kubernetes::on(node_.run(|| TcpListener::bind("127.0.0.1:0"))??);
        (0..nodes).for_each(|number| kubernetes.apply(NODES, node(number, 0)));
        kubernetes.serve(ROUTES);
        for number in 0..slices {
            kubernetes.apply(SERVICES, service(number));
            kubernetes.apply(SLICES, slice(number, 0));
        }
        node_.write("/run/node/kubeconfig", &kubernetes.kubeconfig())?;
        let agent = start_agent(&node_, with_files)?;
        Ok(Self { node: node_, kubernetes, agent, started: Instant::now() })
    }

    fn restart(&mut self) -> Result<()> {
        let watches = self.kubernetes.count("endpointslices?watch");
        self.agent.signal(Signal::SIGKILL)?;
        self.agent.await_end(PATIENCE)?;
        self.agent = start_agent(&self.node, true)?;
        let kubernetes = &self.kubernetes;
        Ok(wait::until("everything to be listed again", PATIENCE, || {
            match kubernetes.count("endpointslices?watch") {
                count if count > watches => Ok(()),
                count => Err(format!("{count} watches")),
            }
        })?)
    }

    fn await_files(&mut self, slices: usize) -> Result<()> {
        let (node, agent, kubernetes) = (&self.node, &mut self.agent, &self.kubernetes);
        Ok(wait::until("all files", PATIENCE, || {
            let watched = kubernetes.count("services?watch") + kubernetes.count("endpointslices?watch");
            let last = node.run(|| file(slices - 1).is_file()).map_err(|error| error.to_string())?;
            if last && watched >= 2 { Ok(()) } else { Err(agent.last_words()) }
        })?)
    }

    /// Changes one slice after the other, each time another one.
    fn changes(&self, count: usize) -> Result<Vec<Duration>> {
        let mut times: Vec<_> =
            (0..count).map(|change| self.change(change * 37, change)).collect::<Result<_>>()?;
        times.sort();
        Ok(times)
    }

    fn change(&self, number: usize, change: usize) -> Result<Duration> {
        let expected = address(change + 1);
        self.node.run(|| {
            let began = Instant::now();
            self.kubernetes.apply(SLICES, slice(number, change + 1));
            while !fs::read_to_string(file(number))?.contains(&expected) {
                if began.elapsed() > PATIENCE {
                    return Err(format!("{expected} is not in its file").into());
                }
                std::thread::yield_now();
            }
            Ok(began.elapsed())
        })?
    }

    /// What it weighs when it knows all nodes and has nothing to do any more.
    fn settled(&self) -> Result<String> {
        wait::until("the nodes to be watched", PATIENCE, || match self.kubernetes.count("nodes?watch") {
            0 => Err("they are not".to_owned()),
            _ => Ok(()),
        })?;
        let mut before = cpu(&self.agent)?;
        // Doing nothing tells nobody: it takes a while of it to see it.
        let quiet = Duration::from_millis(1500);
        for _ in 0..PATIENCE.as_millis() / quiet.as_millis() {
            std::thread::sleep(quiet);
            let now = cpu(&self.agent)?;
            if now.saturating_sub(before) <= 1 {
                return weight(&self.agent);
            }
            before = now;
        }
        Err(format!("the agent is not idle after {PATIENCE:?}").into())
    }
}

fn start_agent(node: &Node, with_files: bool) -> Result<Process> {
    let mut command = Command::new(binaries::weft("weft-node")?);
    command.args(["run", "--node-name", "n0", "--kubeconfig", "/run/node/kubeconfig"]);
    command.args(["--bin-dir", "/run/node/bin", "--conf-dir", "/run/node/conf", "--cri-socket", "none"]);
    if with_files {
        command.args(["--discovery-dir", "/run/node/discovery"]);
    }
    Ok(node.spawn(command)?)
}

fn weight(process: &Process) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let mebibytes = |field: &str| -> Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or(field.to_owned())?;
        let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kibibytes / 1024.0)
    };
    let (now, peak, own) = (mebibytes("VmRSS:")?, mebibytes("VmHWM:")?, mebibytes("RssAnon:")?);
    Ok(format!("{now:.1} MiB ({peak:.1}), {own:.1}"))
}

/// In ticks of the clock, 10 ms each.
fn cpu(process: &Process) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id()))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).ok_or("no stat");
    Ok(ticks(11)? + ticks(12)?)
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

fn namespace(number: usize) -> String {
    format!("ns{:03}", number % NAMESPACES)
}

fn file(number: usize) -> PathBuf {
    Path::new("/run/node/discovery")
        .join(namespace(number))
        .join(format!("endpointslice.service-{number}-x7k2p.json"))
}

fn address(change: usize) -> String {
    format!("10.200.{}.{}", change / 250, change % 250 + 1)
}

fn node(number: usize, beat: usize) -> Value {
    let images: Vec<Value> = (0..50)
        .map(|image| {
            let name = format!("registry.example.com/some/application-number-{image}");
            json!({"names": [format!("{name}@sha256:{:064x}", image * 7919), format!("{name}:v1.2.{image}")], "sizeBytes": 123_456_789 + image})
        })
        .collect();
    let condition = |kind: &str| {
        json!({"type": kind, "status": "False", "reason": "KubeletHasNoProblem", "message": "kubelet has no problem of the sort",
               "lastHeartbeatTime": format!("2026-01-01T00:{:02}:00Z", beat % 60), "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let conditions = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"].map(condition);
    let subnet = format!("10.{}.{}.0/24", number / 250, number % 250);
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("n{number}"), "labels": {"kubernetes.io/hostname": format!("n{number}"), "kubernetes.io/os": "linux"}},
        "spec": {"podCIDR": subnet, "podCIDRs": [subnet], "providerID": format!("example://{number}")},
        "status": {
            "addresses": [{"type": "InternalIP", "address": format!("192.168.{}.{}", number / 250, number % 250 + 1)}],
            "conditions": conditions,
            "images": images, "capacity": {"cpu": "8", "memory": "32Gi", "pods": "110"},
        },
    })
}

fn service(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("service-{number}"), "namespace": namespace(number), "labels": {"app": format!("service-{number}")}},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "selector": {"app": format!("service-{number}")},
                 "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]},
        "status": {"loadBalancer": {}},
    })
}

fn slice(number: usize, change: usize) -> Value {
    let endpoint = |address: String| {
        json!({"addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false},
               "nodeName": format!("n{}", number % 1000), "zone": "zone-a",
               "targetRef": {"kind": "Pod", "name": format!("service-{number}-6f7d8c9b5-x7k2p"), "namespace": namespace(number), "uid": "0f9d8c7b-6a5e-4d3c-2b1a-0f9e8d7c6b5a"}})
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("service-{number}-x7k2p"), "generateName": format!("service-{number}-"), "namespace": namespace(number),
            "labels": {"kubernetes.io/service-name": format!("service-{number}"), "app": format!("service-{number}"),
                       "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": format!("service-{number}"), "uid": "0f9d8c7b-6a5e-4d3c-2b1a-0f9e8d7c6b5a", "controller": true}],
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"},
        },
        "endpoints": [endpoint(address(change)), endpoint("10.1.2.3".to_owned()), endpoint("10.1.2.4".to_owned())],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}
