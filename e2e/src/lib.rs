//! Weft on real parts: containerd, runc, Envoy, several hosts in namespaces.
//!
//! Everything a test needs to be a machine, a runtime and a user. Nothing here is linked with the code under test:
//! the shipped binaries are run, and the kernel is looked at with the system's own tools.
//!
//! ```no_run
//! use weft_e2e::{Attachment, Network, Node, Pod, Upstream, http};
//!
//! # fn main() -> weft_e2e::Result<()> {
//! let node = Node::start()?;                                     // a machine of its own; gone when dropped
//! let before = node.inventory()?;
//! let network = Network::routed(0);                              // weft-cni, 10.244.0.0/24 and fd00:10:244::/64
//! let (client, web) = (Pod::create(&node, "client")?, Pod::create(&node, "web")?);
//! let attached = network.add(&node, &Attachment::of(&client))?;  // what containerd does
//! let result = network.add(&node, &Attachment::of(&web))?;
//!
//! let _web = Upstream::start(&web, 8080, "web-v1")?;             // answers who it is and what it was asked
//! let address = weft_e2e::cni::address(&result, 0)?;
//! let answer = http::get(&client, (address, 8080).into(), "web.shop", "/cart", &[("x-canary", "1")])?;
//! assert_eq!(answer.echo()?.name, "web-v1");
//!
//! network.del(&node, &Attachment::of(&client), &attached)?;
//! network.del(&node, &Attachment::of(&web), &result)?;
//! drop((client, web, _web));
//! assert_eq!(before.diff(&node.inventory()?), [""; 0]);          // nothing is left
//! # Ok(())
//! # }
//! ```
//!
//! **Programs.** [`Pod::spawn`] and [`Node::spawn`] keep a program running ([`Process`]: its log, signals, its end);
//! [`Pod::sh`] and [`Node::sh`] run a command line to its end; [`Pod::run`] runs a closure on a thread inside.
//! [`binaries::weft`] finds what `make build` has left. All of them see the node's files, not the host's `/run`:
//! put what they should read below [`Node::dir`] with [`Node::write`], or change it inside [`Node::run`].
//!
//! **Envoy.** [`Envoy::start`] takes a bootstrap and returns when Envoy is `LIVE`; [`Client`] keeps one connection
//! through it, which shows whether a change of configuration costs a request.
//!
//! **The mesh.** [`Mesh::start`] puts upstreams, a sidecar and its Envoy into one pod; files are saved while requests go on.
//!
//! **containerd.** [`Containerd::start`] takes a CNI configuration list; its calls are those of CRI.
//!
//! **podman.** So does [`Podman::start`]; its calls are podman's command lines.

pub mod bench;
pub mod binaries;
mod cgroup;
pub mod cluster;
pub mod cni;
pub mod containerd;
pub mod envoy;
mod error;
pub mod etcd;
pub mod grpc;
pub mod http;
mod image;
mod init;
mod inventory;
pub mod kubelet;
// One stand-in for the API, for the tests of the agent and for these.
#[path = "../../node-agent/tests/shared/kubernetes.rs"]
pub mod kubernetes;
pub mod mesh;
mod node;
mod offline;
pub mod outside;
mod pod;
mod podman;
mod process;
mod served;
mod sink;
pub mod tcp;
pub mod tls;
pub mod udp;
pub mod wait;

pub use cni::{Attachment, Network, Refusal, Reply};
pub use containerd::{Containerd, PodSpec, Sandbox};
pub use envoy::Envoy;
pub use error::{Error, Result, chain};
pub use etcd::Cluster;
pub use http::{Answer, Client, Echo, Upstream};
pub use inventory::Inventory;
pub use kubernetes::Kubernetes;
pub use mesh::{Files, Mesh};
pub use node::{DIR, Node};
pub use offline::self_contained;
pub use pod::{Pod, unpin};
pub use podman::Podman;
pub use process::{Process, output};
pub use sink::Sink;
pub use udp::UdpServer;
