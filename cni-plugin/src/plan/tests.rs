use weft_datapath::{Masquerade, Shaping};
use weft_ipam::lease::Attachment;

use super::*;
use crate::config::Limit;

fn identity() -> Identity {
    Identity::derive(Attachment::new("weft", "c1", "eth0").unwrap())
}

pub(super) fn assigned(address: &str, gateway: Option<&str>) -> Assigned {
    Assigned { address: address.parse().unwrap(), gateway: gateway.map(|gateway| gateway.parse().unwrap()) }
}

/// What `plan` decides for a masqueraded pod, of which nothing else is asked.
pub(super) fn planned(
    addresses: &[Assigned],
    routes: &[&str],
    plan: impl FnOnce(Inputs<'_>) -> Plan,
) -> Plan {
    let routes: Vec<_> = routes.iter().map(|dst| spec::Route::to(dst.parse().unwrap())).collect();
    plan(Inputs {
        identity: &identity(),
        ifname: "eth0",
        mac: None,
        addresses,
        routes: &routes,
        mtu: 1450,
        masquerade: true,
        bandwidth: Bandwidth::default(),
        tuning: &Tuning::default(),
        ports: &[],
        port_sources: PortSources::Own,
    })
}

fn routed(addresses: &[Assigned], routes: &[&str]) -> Plan {
    planned(addresses, routes, Plan::routed)
}

/// Routes as `ip route` would write them.
pub(super) fn written(interface: &Interface) -> Vec<String> {
    let write = |route: &Route| {
        let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
        let source = route.source.map(|source| format!(" src {source}")).unwrap_or_default();
        format!("{}{via}{source}", route.dst)
    };
    interface.routes.iter().map(write).collect()
}

#[test]
fn a_dual_stack_pod_reaches_everything_through_its_gateways() {
    let plan = routed(
        &[assigned("10.244.0.5/24", Some("10.244.0.1")), assigned("fd00::5/64", Some("fd00::1"))],
        &["0.0.0.0/0", "::/0"],
    );
    assert_eq!(
        written(&plan.veth.pod),
        [
            "10.244.0.1/32",
            "fd00::1/128",
            "10.244.0.0/24 via 10.244.0.1",
            "fd00::/64 via fd00::1",
            "0.0.0.0/0 via 10.244.0.1",
            "::/0 via fd00::1",
        ]
    );
    assert_eq!(written(&plan.veth.host), ["10.244.0.5/32 src 10.244.0.1", "fd00::5/128 src fd00::1"]);
    let on_host: Vec<_> = plan.veth.host.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(on_host, ["10.244.0.1/32", "fd00::1/128"]);
    let gateway_mac = plan.veth.host.mac.unwrap();
    assert!(plan.veth.pod.neighbours.iter().all(|neighbour| neighbour.mac == gateway_mac));
}

#[test]
fn two_addresses_of_one_subnet_share_its_gateway() {
    let gateway = Some("10.244.0.1");
    let plan =
        routed(&[assigned("10.244.0.5/24", gateway), assigned("10.244.0.6/24", gateway)], &["0.0.0.0/0"]);
    assert_eq!(
        written(&plan.veth.pod),
        ["10.244.0.1/32", "10.244.0.0/24 via 10.244.0.1", "0.0.0.0/0 via 10.244.0.1"]
    );
    assert_eq!(plan.veth.host.addresses.len(), 1);
    assert_eq!(plan.veth.host.routes.len(), 2);
}

#[test]
fn a_range_without_a_gateway_is_left_through_a_link_local_next_hop() {
    let plan =
        routed(&[assigned("192.0.2.7/32", None), assigned("2001:db8::7/128", None)], &["0.0.0.0/0", "::/0"]);
    assert_eq!(
        written(&plan.veth.pod),
        ["169.254.1.1/32", "fe80::1/128", "0.0.0.0/0 via 169.254.1.1", "::/0 via fe80::1"]
    );
    assert_eq!(plan.veth.host.addresses, []);
    assert_eq!(written(&plan.veth.host), ["192.0.2.7/32", "2001:db8::7/128"]);
}

#[test]
fn a_route_that_is_spelled_out_replaces_the_one_for_the_subnet() {
    let plan = routed(&[assigned("10.244.0.5/24", Some("10.244.0.1"))], &["10.244.0.0/24", "10.0.0.9/8"]);
    assert_eq!(
        written(&plan.veth.pod),
        ["10.244.0.1/32", "10.244.0.0/24 via 10.244.0.1", "10.0.0.0/8 via 10.244.0.1"]
    );
}

#[test]
fn a_route_is_planned_as_the_kernel_will_show_it() {
    let dst = "10.9.0.0/16".parse().unwrap();
    let nothing = spec::Route {
        mtu: Some(0),
        advmss: Some(0),
        priority: Some(0),
        table: Some(0),
        ..spec::Route::to(dst)
    };
    assert_eq!(route(&nothing), Route::on_link(dst));
    let huge = spec::Route { mtu: Some(u32::MAX), advmss: Some(u32::MAX), ..spec::Route::to(dst) };
    assert_eq!((route(&huge).mtu, route(&huge).advmss), (Some(65_520), Some(65_495)));
}

#[test]
fn the_result_tells_both_ends_and_what_the_pod_got() {
    let plan = routed(&[assigned("10.244.0.5/24", Some("10.244.0.1"))], &["0.0.0.0/0"]);
    let result = plan.result("/run/netns/x", spec::Dns::default());
    assert_eq!(result.interfaces[0].sandbox, "");
    assert_eq!(
        (result.interfaces[1].name.as_str(), result.interfaces[1].sandbox.as_str()),
        ("eth0", "/run/netns/x")
    );
    assert_eq!(result.interfaces[1].mtu, Some(1450));
    assert_eq!(result.ips[0].interface, Some(1));
    assert_eq!(result.routes[0].gw, Some("10.244.0.1".parse().unwrap()));
}

#[test]
fn masquerading_marks_the_owner() {
    let plan = routed(&[assigned("10.244.0.5/24", Some("10.244.0.1"))], &[]);
    assert_eq!(
        plan.extras.masquerade,
        [Masquerade { address: "10.244.0.5/24".parse().unwrap(), owner: "weft/c1/eth0".to_owned() }]
    );
}

#[test]
fn what_goes_to_the_pod_is_shaped_on_the_node_and_what_comes_from_it_at_its_own_end() {
    let (ingress, egress) =
        (Limit { rate: 1_000_000, burst: 20_000 }, Limit { rate: 2_000_000, burst: 30_000 });
    let tuning = Tuning { promisc: true, allmulti: Some(false), tx_queue_len: Some(7), ..Tuning::default() };
    let plan = Plan::routed(Inputs {
        identity: &identity(),
        ifname: "eth0",
        mac: None,
        addresses: &[],
        routes: &[],
        mtu: 1450,
        masquerade: true,
        bandwidth: Bandwidth { ingress: Some(ingress), egress: Some(egress) },
        tuning: &tuning,
        ports: &[],
        port_sources: PortSources::Own,
    });
    let (host, pod) = (plan.veth.host, plan.veth.pod);
    assert_eq!(host.shaping, Some(Shaping { rate: 1_000_000, burst: 20_000 }));
    assert_eq!(pod.shaping, Some(Shaping { rate: 2_000_000, burst: 30_000 }));
    assert_eq!((pod.promisc, pod.allmulti, pod.tx_queue_len), (Some(true), Some(false), Some(7)));
    assert_eq!((host.promisc, host.allmulti, host.tx_queue_len), (None, None, None));
}
