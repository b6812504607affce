//! `loopback`: `lo` of a pod comes up.
//!
//! containerd and CRI-O call a plugin of this name for every sandbox before those of the network, and attach nothing where there is
//! none (containerd 1.6: `failed to find plugin "loopback" in path [/opt/cni/bin]`). A node that was only just installed has none.
//! So `weft-cni` is one when it is called by that name; it does as the reference's does, but for taking `lo` down again at DEL:
//! nothing leaves a namespace by it, and the namespace goes.

use std::net::Ipv6Addr;

use weft_cni_spec as spec;
use weft_cni_spec::{
    AddRequest, AddResult, CheckRequest, DelRequest, GcRequest, Interface, IpConfig, Plugin, StatusRequest,
};
use weft_datapath::{self as datapath, NetNs};

use crate::Error;

/// The file name by which it is called.
pub const NAME: &str = "loopback";
/// The interface, whatever `CNI_IFNAME` says: there is no other.
const LO: &str = "lo";

/// The plugin `loopback`.
#[derive(Clone, Copy, Debug)]
pub struct Loopback;

impl Plugin for Loopback {
    fn about(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "weft-cni {version} as loopback: brings up lo of a pod. Container runtimes run it; `weft-cni` says more."
        )
    }

    fn add(&self, request: &AddRequest) -> Result<AddResult, spec::Error> {
        let previous = request.conf.prev_result()?;
        let netns = NetNs::open(&request.netns).map_err(unusable)?;
        let addresses = netns.run(bring_up).and_then(|addresses| addresses).map_err(unusable)?;
        Ok(previous.unwrap_or_else(|| result(&request.netns.to_string_lossy(), &addresses)))
    }

    fn del(&self, _request: &DelRequest) -> Result<(), spec::Error> {
        Ok(())
    }

    fn check(&self, request: &CheckRequest) -> Result<(), spec::Error> {
        let netns = NetNs::open(&request.netns).map_err(unusable)?;
        let link = netns.rtnl().and_then(|inside| inside.link(LO)).map_err(unusable)?;
        if link.is_some_and(|link| link.up) {
            return Ok(());
        }
        let drift = Error::Drift { attachment: LO.to_owned(), differences: vec!["lo is down".to_owned()] };
        Err(drift.answer())
    }

    fn gc(&self, _request: &GcRequest) -> Result<(), spec::Error> {
        Ok(())
    }

    fn status(&self, _request: &StatusRequest) -> Result<(), spec::Error> {
        Ok(())
    }
}

/// The kernel gives `lo` its addresses when it comes up.
fn bring_up() -> Result<Vec<&'static str>, datapath::Error> {
    let up = datapath::Interface::named(LO);
    let inside = datapath::Rtnl::open()?;
    inside.configure(&up)?;
    let has_v6 = inside.is_local(Ipv6Addr::LOCALHOST.into())?;
    Ok(["127.0.0.1/8"].into_iter().chain(has_v6.then_some("::1/128")).collect())
}

fn result(netns: &str, addresses: &[&str]) -> AddResult {
    let interface = Interface {
        name: LO.to_owned(),
        mac: "00:00:00:00:00:00".to_owned(),
        sandbox: netns.to_owned(),
        ..Interface::default()
    };
    let ip =
        |address: &&str| Some(IpConfig { address: address.parse().ok()?, gateway: None, interface: Some(0) });
    AddResult {
        interfaces: vec![interface],
        ips: addresses.iter().filter_map(ip).collect(),
        ..AddResult::default()
    }
}

fn unusable(error: datapath::Error) -> spec::Error {
    Error::UnusableNetns(error).answer()
}
