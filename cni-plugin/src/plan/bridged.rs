//! The mode `bridge`: pods share a link, and the bridge may be their gateway.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_cni_spec as spec;
use weft_datapath::{Bridge, Interface, Link, PinnedSource, Port, Route, Veth};
use weft_ipam::lease::Assigned;

use super::{Extras, Inputs, Plan, distinct, host_link, host_of, network_of, pod_link, route};
use crate::config;

/// What a shared link has beside the pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The bridge. It stays when the last pod goes.
    pub bridge: Bridge,
    /// What the pod's port is held to.
    pub source: Option<PinnedSource>,
}

impl Shared {
    /// `result` with the bridge before everything else, where the reference has it.
    #[must_use]
    pub fn report(mut result: spec::AddResult, bridge: &Link) -> spec::AddResult {
        let interface = spec::Interface {
            name: bridge.name.clone(),
            mac: bridge.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            mtu: Some(bridge.mtu),
            ..spec::Interface::default()
        };
        result.interfaces.insert(0, interface);
        result.ips.iter_mut().filter_map(|ip| ip.interface.as_mut()).for_each(|index| *index += 1);
        result
    }
}

impl Plan {
    /// Decides the bridge mode.
    ///
    /// The pod reaches its subnet directly, and the rest through the gateway. It asks for hardware addresses as on any
    /// shared link: an entry that was known for good would be wrong as soon as an address moves to another pod.
    #[must_use]
    pub fn bridged(inputs: Inputs<'_>, config: &config::Bridge) -> Self {
        let pod_mac = inputs.mac.unwrap_or(inputs.identity.pod_mac);
        let host_mac = inputs.identity.host_mac;
        let addresses: Vec<_> =
            inputs.addresses.iter().map(|assigned| with_gateway(assigned, config)).collect();
        let reported_routes = routes(inputs.routes, &addresses, config);
        let source = config.pin_source.then(|| PinnedSource {
            port: inputs.identity.host_ifname.clone(),
            mac: pod_mac,
            owner: inputs.identity.mark(),
        });
        Self {
            veth: Veth {
                host: Interface { port: Some(port(config)), ..host_link(&inputs, host_mac) },
                pod: Interface {
                    up: !config.disabled,
                    addresses: addresses.iter().map(|assigned| assigned.address).collect(),
                    routes: pod_routes(&addresses, &reported_routes),
                    ..pod_link(&inputs, pod_mac)
                },
            },
            extras: Extras::of(&inputs),
            sysctls: inputs.tuning.sysctls.clone(),
            reported_routes,
            mtu: inputs.mtu,
            pod_mac,
            host_mac,
            shared: Some(Shared { bridge: bridge(config, inputs.mtu, &addresses), source }),
            addresses,
        }
    }
}

/// An IPAM plugin need not name a gateway; the reference takes the first address of the subnet.
fn with_gateway(assigned: &Assigned, config: &config::Bridge) -> Assigned {
    let first = || config.is_gateway.then(|| first_of(assigned.address)).flatten();
    Assigned { gateway: assigned.gateway.or_else(first), ..*assigned }
}

/// The first address after the network's; none where the pod's is alone in it.
fn first_of(address: IpNetwork) -> Option<IpAddr> {
    let first = match address.network() {
        IpAddr::V4(ip) => IpAddr::V4(u32::from(ip).checked_add(1)?.into()),
        IpAddr::V6(ip) => IpAddr::V6(u128::from(ip).checked_add(1)?.into()),
    };
    (address.contains(first) && first != address.ip()).then_some(first)
}

/// The configuration's routes, each with the next hop it gets, and where the bridge is the default gateway, a default
/// route for each family that has none.
fn routes(wanted: &[spec::Route], addresses: &[Assigned], config: &config::Bridge) -> Vec<spec::Route> {
    let gateway = |is_v4| {
        let of_family = addresses.iter().filter(|assigned| assigned.address.is_ipv4() == is_v4);
        of_family.into_iter().find_map(|assigned| assigned.gateway)
    };
    let hop = |route: &spec::Route| route.gw.or_else(|| gateway(route.dst.is_ipv4()));
    let mut routes: Vec<_> =
        wanted.iter().map(|route| spec::Route { gw: hop(route), ..route.clone() }).collect();
    if config.is_default_gateway {
        for gateway in [true, false].into_iter().filter_map(gateway) {
            let default = everywhere(gateway);
            if !routes.iter().any(|route| route.dst == default) {
                routes.push(spec::Route { gw: Some(gateway), ..spec::Route::to(default) });
            }
        }
    }
    routes
}

fn everywhere(family_of: IpAddr) -> IpNetwork {
    let host = host_of(family_of);
    let unspecified: IpAddr = if family_of.is_ipv4() { [0; 4].into() } else { [0u8; 16].into() };
    IpNetwork::new(unspecified, 0).unwrap_or(host)
}

/// The subnet is on the link, as the kernel's own route for an address's prefix would have it. A route that the
/// configuration spells out takes its place, unless it has a next hop in that subnet, which could not be reached then.
fn pod_routes(addresses: &[Assigned], reported: &[spec::Route]) -> Vec<Route> {
    let is_subnet = |dst| addresses.iter().any(|assigned| network_of(assigned.address) == dst);
    let is_through_itself =
        |route: &Route| route.gateway.is_some_and(|hop| is_subnet(route.dst) && route.dst.contains(hop));
    let wanted: Vec<_> = reported.iter().map(route).filter(|route| !is_through_itself(route)).collect();
    let on_link = |assigned: &Assigned| {
        let subnet = network_of(assigned.address);
        let source = assigned.address.is_ipv4().then_some(assigned.address.ip());
        (subnet != host_of(assigned.address.ip())).then(|| Route { source, ..Route::on_link(subnet) })
    };
    let subnets = addresses.iter().filter_map(on_link);
    // Of several addresses in a subnet the first is the one that packets leave with.
    let mut routes: Vec<Route> = Vec::new();
    for subnet in subnets {
        if !routes.iter().chain(&wanted).any(|route| route.dst == subnet.dst) {
            routes.push(subnet);
        }
    }
    routes.extend(distinct(wanted.into_iter()));
    routes
}

fn port(config: &config::Bridge) -> Port {
    Port {
        bridge: config.name.clone(),
        hairpin: config.hairpin,
        isolated: config.isolated,
        vlan: config.vlan,
        trunk: config.trunk.clone(),
        default_vlan: config.default_vlan,
    }
}

fn bridge(config: &config::Bridge, mtu: u32, addresses: &[Assigned]) -> Bridge {
    let of_gateway = |assigned: &Assigned| {
        let gateway = assigned.gateway.filter(|_| config.is_gateway)?;
        IpNetwork::new(gateway, assigned.address.prefix()).ok()
    };
    Bridge {
        name: config.name.clone(),
        mtu,
        promiscuous: config.promiscuous,
        vlan_filtering: config.filters(),
        addresses: distinct(addresses.iter().filter_map(of_gateway)),
        replace_addresses: config.force_address,
    }
}

#[cfg(test)]
mod tests;
