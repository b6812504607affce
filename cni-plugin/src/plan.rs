//! What an attachment is to look like: decided here, without a look at the kernel, and the same for ADD and CHECK.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use weft_cni_spec as spec;
use weft_datapath::{Interface, LinkLocal, Mac, Neighbour, PinnedSource, PortSources, Route, Veth};
use weft_ipam::lease::Assigned;

use crate::config::ports::PortMapping;
use crate::config::{Bandwidth, Config, Mode, Sysctl, Tuning};
use crate::identity::Identity;

mod bridged;
mod extras;
pub(crate) mod ports;
mod shaping;
mod tuned;

pub use bridged::Shared;
pub use extras::Extras;
pub use tuned::Tuned;

/// Next hops for a pod whose range has no gateway. No interface holds them; the permanent neighbour is enough.
const NEXT_HOP_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
const NEXT_HOP_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// Everything that an attachment consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The pair, and what its two ends hold.
    pub veth: Veth,
    /// What goes with the addresses.
    pub extras: Extras,
    /// Parameters of the pod's namespace.
    pub sysctls: Vec<Sysctl>,
    /// The routes that the configuration asks for, as the result reports them.
    pub reported_routes: Vec<spec::Route>,
    /// The bridge that the pair is joined to, if it is.
    pub shared: Option<Shared>,
    mtu: u32,
    pod_mac: Mac,
    host_mac: Mac,
    addresses: Vec<Assigned>,
}

/// What a plan is decided from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Names.
    pub identity: &'a Identity,
    /// `CNI_IFNAME`.
    pub ifname: &'a str,
    /// The pod's hardware address, where one is asked for.
    pub mac: Option<Mac>,
    /// The pod's addresses, whoever gave them.
    pub addresses: &'a [Assigned],
    /// The routes that came with them.
    pub routes: &'a [spec::Route],
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether to masquerade.
    pub masquerade: bool,
    /// The rates that the pod's traffic is held to.
    pub bandwidth: Bandwidth,
    /// Parameters of its namespace, and attributes of its interface.
    pub tuning: &'a Tuning,
    /// Ports of the node that are to lead to the pod.
    pub ports: &'a [PortMapping],
    /// Which connections over them get another source.
    pub port_sources: PortSources,
}

impl<'a> Inputs<'a> {
    /// What `config` asks for, for `addresses`; without routes, and with an MTU that nothing is to be compared with.
    #[must_use]
    pub fn new(
        config: &'a Config,
        identity: &'a Identity,
        ifname: &'a str,
        addresses: &'a [Assigned],
    ) -> Self {
        Self {
            identity,
            ifname,
            mac: config.mac,
            addresses,
            routes: &[],
            mtu: 0,
            masquerade: config.masquerade,
            bandwidth: config.bandwidth,
            tuning: &config.tuning,
            ports: &config.ports,
            port_sources: config.port_sources,
        }
    }
}

impl Plan {
    /// Decides.
    #[must_use]
    pub fn new(mode: &Mode, inputs: Inputs<'_>) -> Self {
        match mode {
            Mode::Routed => Self::routed(inputs),
            Mode::Bridge(bridge) => Self::bridged(inputs, bridge),
        }
    }

    /// Decides the routed mode: the host's end of the pair is the pod's gateway.
    ///
    /// The pod sends everything to the gateway, even what is for its own subnet, for the other pods are behind the
    /// node and not on a common link. The gateway's hardware address is known for good, so nobody ever waits for ARP or
    /// neighbour discovery. On the node each pod is one host route.
    #[must_use]
    pub fn routed(inputs: Inputs<'_>) -> Self {
        let pod_mac = inputs.mac.unwrap_or(inputs.identity.pod_mac);
        let host_mac = inputs.identity.host_mac;
        let reported_routes = reported(inputs.routes, inputs.addresses);
        Self {
            veth: Veth {
                host: host_end(&inputs, host_mac, pod_mac),
                pod: pod_end(&inputs, pod_mac, host_mac, &reported_routes),
            },
            extras: Extras::of(&inputs),
            sysctls: inputs.tuning.sysctls.clone(),
            reported_routes,
            shared: None,
            mtu: inputs.mtu,
            pod_mac,
            host_mac,
            addresses: inputs.addresses.to_vec(),
        }
    }

    /// The link of the node that leads to the pod, unless that is for the routing table to say: a bridge need not be the
    /// gateway of its pods.
    #[must_use]
    pub fn way_to_pod(&self) -> Option<&str> {
        self.shared.is_none().then_some(self.veth.host.name.as_str())
    }

    /// Whether packets of the pod go through the node, and not only past it.
    #[must_use]
    pub fn is_forwarded(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| !shared.bridge.addresses.is_empty())
    }

    /// The node's parameters, below `net`, that must be on for that, each with whether it is IPv4's.
    #[must_use]
    pub fn forwarding(&self) -> Vec<(bool, &'static [&'static str])> {
        let families: [(bool, &[&str]); 2] =
            [(true, &["ipv4", "ip_forward"]), (false, &["ipv6", "conf", "all", "forwarding"])];
        let needed = families.into_iter().filter(|(is_v4, _)| self.is_forwarded() && self.has_family(*is_v4));
        needed.collect()
    }

    /// What the pod's port is held to, if it is.
    #[must_use]
    pub fn source(&self) -> Option<&PinnedSource> {
        self.shared.as_ref()?.source.as_ref()
    }

    /// Whether an address of the family is part of it.
    #[must_use]
    pub fn has_family(&self, is_v4: bool) -> bool {
        self.addresses.iter().any(|assigned| assigned.address.is_ipv4() == is_v4)
    }

    /// Whether it is a link without addresses.
    #[must_use]
    pub const fn is_bare(&self) -> bool {
        self.addresses.is_empty()
    }

    /// What ADD answers.
    #[must_use]
    pub fn result(&self, netns: &str, dns: spec::Dns) -> spec::AddResult {
        let interface = |name: &str, mac: Mac, sandbox: &str| spec::Interface {
            name: name.to_owned(),
            mac: mac.to_string(),
            mtu: Some(self.mtu),
            sandbox: sandbox.to_owned(),
            ..spec::Interface::default()
        };
        let on_pod = |assigned: &Assigned| spec::IpConfig {
            address: assigned.address,
            gateway: assigned.gateway,
            interface: Some(1),
        };
        spec::AddResult {
            interfaces: vec![
                interface(&self.veth.host.name, self.host_mac, ""),
                interface(&self.veth.pod.name, self.pod_mac, netns),
            ],
            ips: self.addresses.iter().map(on_pod).collect(),
            routes: self.reported_routes.clone(),
            dns,
        }
    }
}

fn host_end(inputs: &Inputs<'_>, host_mac: Mac, pod_mac: Mac) -> Interface {
    let to_pod = |assigned: &Assigned| Route {
        source: assigned.gateway,
        ..Route::on_link(host_of(assigned.address.ip()))
    };
    let pod = |assigned: &Assigned| Neighbour { ip: assigned.address.ip(), mac: pod_mac };
    Interface {
        addresses: distinct(inputs.addresses.iter().filter_map(|assigned| assigned.gateway).map(host_of)),
        neighbours: inputs.addresses.iter().map(pod).collect(),
        routes: inputs.addresses.iter().map(to_pod).collect(),
        ..host_link(inputs, host_mac)
    }
}

/// The host's end in either mode.
fn host_link(inputs: &Inputs<'_>, mac: Mac) -> Interface {
    Interface {
        mac: Some(mac),
        mtu: Some(inputs.mtu),
        alias: Some(inputs.identity.mark()),
        group: Some(inputs.identity.group()),
        // Nothing is ever addressed to it but the gateway's address.
        link_local: LinkLocal::None,
        shaping: tuned::to_pod(inputs),
        ..Interface::named(&inputs.identity.host_ifname)
    }
}

/// The pod's end in either mode.
fn pod_link(inputs: &Inputs<'_>, mac: Mac) -> Interface {
    Interface { mac: Some(mac), mtu: Some(inputs.mtu), link_local: link_local(inputs), ..tuned::pod(inputs) }
}

/// Where the configuration says itself how the address comes about, the kernel does as it says; and a pod without IPv6 is left as it is.
fn link_local(inputs: &Inputs<'_>) -> LinkLocal {
    let is_said =
        |sysctl: &Sysctl| ["addr_gen_mode", "accept_dad"].iter().any(|key| sysctl.name.ends_with(key));
    let has_v6 = inputs.addresses.iter().any(|assigned| assigned.address.is_ipv6());
    match has_v6 && !inputs.tuning.sysctls.iter().any(is_said) {
        true => LinkLocal::AtOnce,
        false => LinkLocal::Detected,
    }
}

fn pod_end(inputs: &Inputs<'_>, pod_mac: Mac, host_mac: Mac, routes: &[spec::Route]) -> Interface {
    let hops: Vec<_> = distinct(inputs.addresses.iter().map(next_hop));
    let to_hops = hops.iter().map(|hop| Route::on_link(host_of(*hop)));
    let wanted: Vec<_> = routes.iter().map(route).collect();
    let to_subnets = inputs.addresses.iter().filter_map(to_subnet);
    // A route that the configuration spells out takes the place of the one that would be made for the subnet.
    let to_subnets = to_subnets.filter(|subnet| !wanted.iter().any(|route| route.dst == subnet.dst));
    Interface {
        addresses: inputs.addresses.iter().map(|assigned| assigned.address).collect(),
        neighbours: hops.iter().map(|hop| Neighbour { ip: *hop, mac: host_mac }).collect(),
        routes: distinct(to_hops.chain(to_subnets).chain(wanted.iter().cloned())),
        ..pod_link(inputs, pod_mac)
    }
}

/// The configuration's routes, each with the next hop it gets.
fn reported(routes: &[spec::Route], addresses: &[Assigned]) -> Vec<spec::Route> {
    let hop = |route: &spec::Route| {
        let same_family = addresses.iter().find(|assigned| assigned.address.is_ipv4() == route.dst.is_ipv4());
        route.gw.or_else(|| same_family.map(next_hop))
    };
    routes.iter().map(|route| spec::Route { gw: hop(route), ..route.clone() }).collect()
}

/// A route as the kernel keeps it, so that CHECK finds it again: 0 is as good as nothing said, and metrics are cut to
/// what fits into a packet (`ip_metrics_convert` in `net/ipv4/metrics.c`).
fn route(route: &spec::Route) -> Route {
    const MTU_MAX: u32 = 65_535 - 15;
    const ADVMSS_MAX: u32 = 65_535 - 40;
    let said = |number: Option<u32>| number.filter(|number| *number != 0);
    Route {
        dst: network_of(route.dst),
        gateway: route.gw,
        source: None,
        mtu: said(route.mtu).map(|mtu| mtu.min(MTU_MAX)),
        advmss: said(route.advmss).map(|advmss| advmss.min(ADVMSS_MAX)),
        priority: said(route.priority),
        table: said(route.table),
        scope: route.scope,
    }
}

/// The other pods of the subnet are behind the gateway; an address without a subnet has no other pods.
fn to_subnet(assigned: &Assigned) -> Option<Route> {
    let subnet = network_of(assigned.address);
    (subnet != host_of(assigned.address.ip())).then(|| Route::via(subnet, next_hop(assigned)))
}

fn next_hop(assigned: &Assigned) -> IpAddr {
    assigned.gateway.unwrap_or(if assigned.address.is_ipv4() { NEXT_HOP_V4 } else { NEXT_HOP_V6 })
}

/// The network of one host.
fn host_of(ip: IpAddr) -> IpNetwork {
    IpNetwork::from(ip)
}

/// The network with its host bits cleared.
fn network_of(network: IpNetwork) -> IpNetwork {
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}

fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    items.for_each(|item| {
        if !seen.contains(&item) {
            seen.push(item);
        }
    });
    seen
}

#[cfg(test)]
mod tests;
