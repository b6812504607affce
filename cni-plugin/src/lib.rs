//! The Weft CNI plugin.
//!
//! ADD reserves a lease, decides a [`plan::Plan`] from it, and applies the plan; every step has an owned undo, so an
//! early return leaves nothing. CHECK decides the same plan and compares it with the kernel. DEL and GC need nothing
//! but names: the lease says which addresses there were, and the interface's name is derived from the attachment's.
//!
//! ```text
//! ADD    Request ─▶ Config ─▶ reserve lease ─▶ Plan (pure) ─▶ apply ─▶ Result
//! CHECK  Request ─▶ Config ─▶ look up lease ─▶ same Plan ─▶ compare ─▶ differences
//! DEL    names ─▶ look up lease ─▶ remove elements and pair ─▶ release lease
//! ```

#![forbid(unsafe_code)]

mod addresses;
mod allow_list;
mod asked;
mod attach;
mod audit;
mod chained;
mod check;
pub mod cli;
mod clock;
pub mod config;
pub mod delegate;
mod detach;
mod error;
mod explain;
mod extras;
mod finding;
mod foreign;
mod gc;
pub mod identity;
mod log;
pub mod loopback;
pub mod plan;
mod ports;
mod predecessor;
mod status;
mod tuned;
mod undo;

pub use error::Error;

use std::io;

use weft_cni_spec as spec;
use weft_cni_spec::{
    AddRequest, AddResult, CheckRequest, Conf, DelRequest, EnvSource, Environment, GcRequest, Plugin,
    StatusRequest,
};
use weft_datapath::NetNs;

/// The plugin. All that it knows comes with a request, or is in the leases and the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Weft;

impl Plugin for Weft {
    fn about(&self) -> String {
        ABOUT.trim_end().to_owned()
    }

    fn own_namespace(&self) -> io::Result<(u64, u64)> {
        let own = NetNs::current().and_then(|namespace| namespace.identity());
        own.map(|own| (own.device, own.inode)).map_err(io::Error::other)
    }

    fn begin(&self, env: &Environment, conf: &Conf) {
        log::begin(env, conf);
    }

    fn end(&self, outcome: Result<(), &spec::Error>) {
        log::end(outcome);
    }

    fn add(&self, request: &AddRequest) -> Result<AddResult, spec::Error> {
        attach::attach(request).map_err(Error::answer)
    }

    fn del(&self, request: &DelRequest) -> Result<(), spec::Error> {
        detach::del(request).map_err(Error::answer)
    }

    fn check(&self, request: &CheckRequest) -> Result<(), spec::Error> {
        check::check(request).map_err(Error::answer)
    }

    fn gc(&self, request: &GcRequest) -> Result<(), spec::Error> {
        gc::gc(request).map_err(Error::answer)
    }

    fn status(&self, request: &StatusRequest) -> Result<(), spec::Error> {
        status::status(request).map_err(Error::answer)
    }
}

/// The environment of the process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnvironment;

impl EnvSource for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<String> {
        // What is no text becomes a text that no rule allows, and so an error that names the variable.
        let value = std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        value.filter(|value| !value.is_empty())
    }
}

const ABOUT: &str = concat!(
    "weft-cni ",
    env!("CARGO_PKG_VERSION"),
    r#": joins pods to the network.

It is a CNI plugin: container runtimes run it, with a verb in CNI_COMMAND and a network configuration on standard
input. To use it, put it into the runtime's plugin directory (commonly /opt/cni/bin) and a file such as this one
into /etc/cni/net.d/10-weft.conflist:

  { "cniVersion": "1.0.0", "name": "weft",
    "plugins": [{
      "type": "weft-cni", "ipMasq": true,
      "ipam": { "type": "weft-ipam",
                "ranges": [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00:10:244::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}] } }] }

To try it by hand, as root:

  ip netns add demo
  echo '{ "cniVersion": "1.0.0", "name": "weft", "type": "weft-cni",
          "ipam": {"type": "weft-ipam", "ranges": [[{"subnet": "10.244.0.0/24"}]]} }' > weft.json
  export CNI_CONTAINERID=demo CNI_NETNS=/run/netns/demo CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin
  CNI_COMMAND=ADD weft-cni < weft.json
  CNI_COMMAND=DEL weft-cni < weft.json

Leases are in /run/weft/ipam; `weft-ipam list` shows them, and `weft-cni audit` whether the kernel agrees with them.
`weft-cni explain --container demo` shows what one pod should have and what it has; `weft-cni help` has more of both.
With "logFile": "/var/log/weft/cni.log" in the configuration each run is written down, with "logLevel": "debug" in detail.
"#
);
