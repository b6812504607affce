//! The options of `weft-node run` that say how pods are attached, and what is left behind by them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ipnetwork::IpNetwork;

use super::{Directories, own_plugins};
use crate::admin;
use crate::adopt::Adoption;
use crate::agent::Local;
use crate::cni::Runtime;
use crate::conflist::Template;
use crate::gc::Collector;
use crate::gc::cri::SOCKETS;
use crate::repair::pods::Auditor;
use crate::setup::Setup;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    directories: Directories,
    /// A plugin to install; may be given several times [default: weft-cni and weft-ipam beside weft-node]
    #[arg(long = "plugin", value_name = "FILE")]
    plugins: Vec<PathBuf>,
    /// A network configuration list into which this node's subnets are filled; the file is followed [default: weft-cni with all
    /// that it offers]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// The name that the list gets in --conf-dir; runtimes use the first
    #[arg(long, value_name = "NAME", default_value = "10-weft.conflist")]
    conf_name: String,
    /// How long a plugin may take in the self-test
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = |text: &str| duration(text, "100ms", "10m"))]
    plugin_timeout: Duration,
    /// Where the agent keeps its lock
    #[arg(long, value_name = "DIR", default_value = "/run/weft")]
    state_dir: PathBuf,
    /// Where host-local may have left leases of pods that run
    #[arg(long, value_name = "DIR", default_value = "/var/lib/cni/networks")]
    host_local_dir: PathBuf,
    /// The container runtime's socket, which is asked for its sandboxes; `none` for no collection of what they left
    /// [default: containerd's, CRI-O's or k3s's, whichever is there]
    #[arg(long, value_name = "SOCKET")]
    cri_socket: Option<PathBuf>,
    /// How old a lease must be before it is ended because the runtime does not know its sandbox
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = |text: &str| duration(text, "1ms", "24h"))]
    gc_grace: Duration,
    /// How often the runtime is asked
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = |text: &str| duration(text, "10ms", "24h"))]
    gc_interval: Duration,
    /// A network that pods reach under their own addresses, as they do those of other nodes' pods; may be given several times
    #[arg(long, value_name = "CIDR")]
    no_masquerade: Vec<IpNetwork>,
    /// Where health, metrics and the status are served
    #[arg(long, value_name = "ADDRESS", default_value = admin::ADDRESS)]
    admin: SocketAddr,
}

/// What is wrong with the options.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("--conf-name {0:?} must be a file's name that ends in .conflist")]
    Name(String),
}

impl Options {
    pub(super) fn local(self) -> Result<Local, Box<dyn std::error::Error>> {
        let template = self.template.as_deref().map_or_else(|| Ok(Template::builtin()), Template::read)?;
        if self.conf_name.contains('/') || !self.conf_name.ends_with(".conflist") {
            return Err(Error::Name(self.conf_name).into());
        }
        let Directories { bin_dir, conf_dir } = self.directories;
        let plugins = if self.plugins.is_empty() { own_plugins()? } else { self.plugins };
        let adoption = Adoption { weft_ipam: bin_dir.join("weft-ipam"), networks: self.host_local_dir };
        let auditor = Auditor { bin_dir: bin_dir.clone(), conf_dir: conf_dir.clone() };
        let runtime = Runtime { bin_dir, deadline: self.plugin_timeout };
        let collector = socket(self.cri_socket).map(|socket| Collector {
            runtime: runtime.clone(),
            socket,
            grace: self.gc_grace,
            interval: self.gc_interval,
        });
        let state_dir = self.state_dir;
        let setup = Setup {
            plugins,
            conf_dir,
            conf_name: self.conf_name,
            followed: self.template,
            template,
            state_dir,
            runtime,
            adoption,
        };
        Ok(Local { setup, collector, auditor, no_masquerade: self.no_masquerade, admin: self.admin })
    }
}

/// As given, or the first that is there; where there is none yet, containerd's is waited for.
fn socket(given: Option<PathBuf>) -> Option<PathBuf> {
    let there = || SOCKETS.iter().map(Path::new).find(|socket| socket.exists());
    let socket = given.unwrap_or_else(|| there().unwrap_or(Path::new(SOCKETS[0])).to_owned());
    (socket != Path::new("none")).then_some(socket)
}

/// A number with `ms`, `s`, `m` or `h`.
fn duration(text: &str, least: &str, most: &str) -> Result<Duration, String> {
    let (given, bounds) = (parse(text)?, parse(least)?..=parse(most)?);
    let refusal = || format!("it is at least {least} and at most {most}");
    bounds.contains(&given).then_some(given).ok_or_else(refusal)
}

fn parse(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let parsed = units.iter().find_map(|(unit, milliseconds)| {
        let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_millis(count.checked_mul(*milliseconds)?))
    });
    parsed.ok_or_else(|| "it is a whole number with a unit, such as 500ms, 10s, 5m or 1h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        let duration = |text| duration(text, "500ms", "10m");
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for text in ["0s", "0ms", "499ms", "11m", "1000h"] {
            assert_eq!(duration(text), Err("it is at least 500ms and at most 10m".to_owned()), "{text}");
        }
        for text in ["5", "m", "-1s", "1.5s", "1d", "99999999999999999999h", "18446744073709551615h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_socket_that_is_named_is_taken_and_none_is_none() {
        assert_eq!(socket(Some("/x.sock".into())), Some("/x.sock".into()));
        assert_eq!(socket(Some("none".into())), None);
    }
}
