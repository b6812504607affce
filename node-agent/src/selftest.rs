//! Whether a pod of this list would have a network: one is attached, reached, checked and detached.
//!
//! The pod is a namespace that a thread of the agent is in, and nothing else: no file and no mount lead to it, so it ends with the
//! agent, however that ends. What could be left then is the lease, under a name that no container has; the next test
//! begins with the DEL of it.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use tokio::net::TcpStream;
use weft_datapath::NetNs;

use crate::aside::aside;
use crate::cni::{self, Attachment, Runtime};
use crate::conflist::List;

/// No runtime calls a container so.
pub(crate) const CONTAINER: &str = "weft-node-selftest";
const IFNAME: &str = "eth0";
/// The pod is on this very node.
const REACH: Duration = Duration::from_secs(3);

/// What a test has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    /// The addresses at which the pod was reached.
    pub(crate) addresses: Vec<IpAddr>,
    /// How long all of it took.
    pub(crate) took: Duration,
}

/// What went wrong, and what to do. The pod is gone all the same, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// There was no namespace to attach.
    #[error("cannot make a namespace to attach (it takes CAP_SYS_ADMIN)")]
    Namespace(#[source] io::Error),
    /// STATUS says no.
    #[error("the plugin says that no pod could be attached; put that right first")]
    Status(#[source] cni::Error),
    /// ADD failed.
    #[error("a pod cannot be attached; `weft-cni audit` and docs/errors.md say more")]
    Attach(#[source] cni::Error),
    /// ADD succeeded, and nothing came of it.
    #[error("ADD succeeded and gave no address; look at the list's first plugin")]
    NoAddress,
    /// The pod does not answer.
    #[error(
        "a pod was attached, and the node cannot reach it at {address}; another firewall may drop it: `weft-cni audit` names it as a remark"
    )]
    Reach {
        /// At which address.
        address: IpAddr,
        /// What came instead.
        source: io::Error,
    },
    /// CHECK found a difference.
    #[error("a pod is not as ADD says that it made it; who else changes the node's network?")]
    Check(#[source] cni::Error),
    /// DEL failed.
    #[error("a pod cannot be detached; `weft-cni audit --repair` removes what is left")]
    Detach(#[source] cni::Error),
}

/// Attaches, reaches, checks and detaches a pod.
///
/// # Errors
/// The first thing that went wrong. The pod is detached whatever it was.
pub(crate) async fn run(runtime: &Runtime, list: &List) -> Result<Passed, Failure> {
    let start = Instant::now();
    let mut pod = Attachment { container: CONTAINER.into(), ifname: IFNAME.into(), netns: None };
    runtime.del(list, &pod, None).await.map_err(Failure::Detach)?;
    runtime.status(list).await.map_err(Failure::Status)?;
    let namespace = aside(Namespace::new).await.map_err(Failure::Namespace)?;
    pod.netns = Some(namespace.path.clone());
    let seen = attached(runtime, list, &pod).await;
    let detached = runtime.del(list, &pod, None).await.map_err(Failure::Detach);
    aside(move || drop(namespace)).await;
    let addresses = seen?;
    detached?;
    Ok(Passed { addresses, took: start.elapsed() })
}

async fn attached(runtime: &Runtime, list: &List, pod: &Attachment) -> Result<Vec<IpAddr>, Failure> {
    let result = runtime.add(list, pod).await.map_err(Failure::Attach)?;
    let addresses = addresses(&result);
    if addresses.is_empty() {
        return Err(Failure::NoAddress);
    }
    for address in &addresses {
        let reached = reach(pod, *address).await;
        reached.map_err(|source| Failure::Reach { address: *address, source })?;
    }
    if can_check(&list.version) {
        runtime.check(list, pod, &result).await.map_err(Failure::Check)?;
    }
    Ok(addresses)
}

fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    let address = |ip: &Value| ip.get("address")?.as_str()?.split('/').next()?.parse().ok();
    ips.filter_map(address).collect()
}

/// CHECK came with 0.4.0 (SPEC.md, "CHECK").
fn can_check(version: &str) -> bool {
    !["0.1.0", "0.2.0", "0.3.0", "0.3.1"].contains(&version)
}

/// Connects from the node to a port in the pod. The kernel answers for it, so nobody needs to accept.
async fn reach(pod: &Attachment, address: IpAddr) -> io::Result<()> {
    let netns = pod.netns.clone().unwrap_or_default();
    let listen = move || NetNs::open(&netns)?.run(|| TcpListener::bind((address, 0)));
    let refused = |error: weft_datapath::Error| io::Error::other(error.to_string());
    let listener = aside(listen).await.map_err(refused)??;
    let to = SocketAddr::new(address, listener.local_addr()?.port());
    match tokio::time::timeout(REACH, TcpStream::connect(to)).await {
        Ok(connected) => connected.map(drop),
        Err(_elapsed) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", REACH.as_secs())))
        }
    }
}

/// A network namespace that is there for as long as this is.
struct Namespace {
    path: PathBuf,
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    fn new() -> io::Result<Self> {
        let (ready, made) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("weft-selftest".into()).spawn(move || {
            let left = unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
            let path = || {
                PathBuf::from(format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid()))
            };
            if ready.send(left.map(|()| path())).is_ok() {
                // Nobody sends; it ends when the other end does.
                ended.recv().ok();
            }
        })?;
        let path = made.recv().map_err(|_ended| io::Error::other("the thread ended"))??;
        Ok(Self { path, end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.end.take());
        // What it panics with, if it could, would be of no use to anybody.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_addresses_of_a_result_are_found_and_what_is_none_is_not() {
        let result =
            json!({ "ips": [{ "address": "10.0.1.2/24" }, { "address": "fd00::2/64" }, { "gateway": "x" }] });
        let found = addresses(&result);
        assert_eq!(found, ["10.0.1.2", "fd00::2"].map(|text| text.parse::<IpAddr>().unwrap()));
        assert!(addresses(&json!({})).is_empty());
    }

    #[test]
    fn only_versions_that_have_check_are_checked() {
        assert!(can_check("0.4.0") && can_check("1.0.0") && can_check("1.1.0"));
        assert!(!can_check("0.3.1"));
    }

    #[test]
    fn a_namespace_ends_with_its_guard() {
        let namespace = Namespace::new().unwrap();
        let path = namespace.path.clone();
        assert!(NetNs::open(&path).is_ok());
        drop(namespace);
        assert!(NetNs::open(&path).is_err());
    }
}
