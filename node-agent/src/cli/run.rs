//! `weft-node run`.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tracing::level_filters::LevelFilter;

use super::Outcome;
use crate::agent::{self, Options};
use crate::discovery::Discovery;
use crate::member::NodeName;
use crate::membership::Source;
use crate::sysctls;

/// Threads for what would keep the one of the agent waiting.
const BLOCKING: usize = 4;

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The nodes of the cluster, as JSON; the file is followed [default: those of the Kubernetes API]
    #[arg(long, value_name = "FILE")]
    nodes: Option<PathBuf>,
    /// How to reach the Kubernetes API [default: $KUBECONFIG, or else the pod's service account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Keeps Kubernetes' services, endpoints and routes as files in this directory, for the sidecars of the node
    #[arg(long, value_name = "DIR")]
    discovery_dir: Option<PathBuf>,
    /// The name of this node [default: $NODE_NAME, or else the host's name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    #[command(flatten)]
    network: super::network::Options,
    #[command(flatten)]
    local: super::setup::Options,
    #[command(flatten)]
    log: Log,
}

#[derive(Debug, Args)]
struct Log {
    /// How log lines look, on stderr
    #[arg(long, value_enum, default_value_t = LogFormat::Human)]
    log_format: LogFormat,
    /// The least severe log lines that are shown
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: LevelFilter,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people
    Human,
    /// One JSON object in each line
    Json,
}

impl Run {
    pub(super) fn execute(self) -> Outcome {
        let node = node_name(self.node_name)?;
        let membership = self.nodes.map_or_else(|| Source::Kubernetes(self.kubeconfig.clone()), Source::File);
        let discovery = self.discovery_dir.map(|directory| Discovery::new(directory, self.kubeconfig));
        let (network, local) = (self.network.network(), self.local.local()?);
        let options = Options { node, membership, network, discovery, local };
        self.log.to_stderr();
        if let Err(error) = sysctls::open() {
            tracing::warn!(%error, "parameters of the network cannot be set; a container needs CAP_SYS_ADMIN, and an AppArmor profile without `deny mount`");
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Each keeps some memory, and there is never much to do at once.
            .max_blocking_threads(BLOCKING)
            .build()?;
        Ok(runtime.block_on(agent::run(options))?)
    }
}

/// As given, or as a pod is told, or as kubelet names a node: the host's name in lower case.
fn node_name(given: Option<String>) -> Result<NodeName, Box<dyn std::error::Error>> {
    let name = match given.or_else(|| std::env::var("NODE_NAME").ok()) {
        Some(name) => name,
        None => fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_lowercase(),
    };
    Ok(name.parse()?)
}

impl Log {
    fn to_stderr(&self) {
        let builder = tracing_subscriber::fmt()
            .with_writer(io::stderr)
            // By default a failed write is reported on stderr, which panics where nobody reads it any more.
            .log_internal_errors(false)
            .with_max_level(self.log_level)
            .with_target(false)
            .with_ansi(io::stderr().is_terminal());
        match self.log_format {
            LogFormat::Human => builder.init(),
            LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).init(),
        }
    }
}
