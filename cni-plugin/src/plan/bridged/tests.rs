use weft_datapath::Mac;

use super::*;
use crate::plan::tests::{assigned, planned, written};

fn config() -> config::Bridge {
    config::Bridge {
        name: "cni0".to_owned(),
        is_gateway: true,
        is_default_gateway: false,
        force_address: false,
        hairpin: false,
        promiscuous: false,
        pin_source: false,
        isolated: false,
        vlan: None,
        trunk: Vec::new(),
        default_vlan: true,
        disabled: false,
    }
}

fn dual_stack() -> [Assigned; 2] {
    [assigned("10.244.0.5/24", Some("10.244.0.1")), assigned("fd00::5/64", Some("fd00::1"))]
}

fn bridged(config: &config::Bridge, addresses: &[Assigned], routes: &[&str]) -> Plan {
    planned(addresses, routes, |inputs| Plan::bridged(inputs, config))
}

fn on_bridge(plan: &Plan) -> Vec<String> {
    plan.shared.as_ref().unwrap().bridge.addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn the_subnet_is_on_the_link_and_the_rest_behind_the_gateway() {
    let plan = bridged(&config(), &dual_stack(), &["0.0.0.0/0", "::/0"]);
    assert_eq!(
        written(&plan.veth.pod),
        ["10.244.0.0/24 src 10.244.0.5", "fd00::/64", "0.0.0.0/0 via 10.244.0.1", "::/0 via fd00::1",]
    );
    assert_eq!(on_bridge(&plan), ["10.244.0.1/24", "fd00::1/64"]);
    assert_eq!(plan.extras.masquerade.len(), 2);
}

#[test]
fn no_neighbour_of_a_shared_link_is_known_for_good() {
    let plan = bridged(&config(), &dual_stack(), &["0.0.0.0/0"]);
    assert_eq!((plan.veth.pod.neighbours, plan.veth.host.neighbours), (vec![], vec![]));
    assert_eq!((plan.veth.host.addresses, plan.veth.host.routes), (vec![], vec![]));
}

#[test]
fn a_default_gateway_gives_the_families_without_a_default_route_one() {
    let config = config::Bridge { is_default_gateway: true, ..config() };
    let plan = bridged(&config, &dual_stack(), &["::/0"]);
    let reported: Vec<_> = plan.reported_routes.iter().map(|route| route.dst.to_string()).collect();
    assert_eq!(reported, ["::/0", "0.0.0.0/0"]);
    assert_eq!(written(&plan.veth.pod)[2..], ["::/0 via fd00::1", "0.0.0.0/0 via 10.244.0.1"]);
}

#[test]
fn a_bridge_that_is_no_gateway_holds_no_address_and_forwards_nothing() {
    let plan = bridged(&config::Bridge { is_gateway: false, ..config() }, &dual_stack(), &["0.0.0.0/0"]);
    assert_eq!(on_bridge(&plan), [""; 0]);
    assert!(!plan.is_forwarded());
    assert_eq!(written(&plan.veth.pod)[2], "0.0.0.0/0 via 10.244.0.1");
}

#[test]
fn a_gateway_that_ipam_does_not_name_is_the_first_address_of_the_subnet() {
    let plan = bridged(&config(), &[assigned("10.244.0.5/24", None), assigned("192.0.2.7/32", None)], &[]);
    assert_eq!(on_bridge(&plan), ["10.244.0.1/24"]);
    assert_eq!(written(&plan.veth.pod), ["10.244.0.0/24 src 10.244.0.5"]);
}

#[test]
fn two_addresses_of_a_subnet_have_one_route_and_one_gateway() {
    let gateway = Some("10.244.0.1");
    let plan = bridged(
        &config(),
        &[assigned("10.244.0.5/24", gateway), assigned("10.244.0.6/24", gateway)],
        &["10.244.0.0/24"],
    );
    assert_eq!(written(&plan.veth.pod), ["10.244.0.0/24 src 10.244.0.5"], "its next hop is in it");
    assert_eq!(on_bridge(&plan), ["10.244.0.1/24"]);
}

#[test]
fn the_port_is_what_was_asked_for_and_its_pod_is_held_to_the_address_it_has() {
    let config = config::Bridge { pin_source: true, isolated: true, hairpin: true, ..config() };
    let plan = bridged(&config, &dual_stack(), &[]);
    let port = plan.veth.host.port.unwrap();
    assert!(port.isolated && port.hairpin && port.default_vlan);
    let source = plan.shared.unwrap().source.unwrap();
    assert_eq!((source.port, Some(source.mac)), (plan.veth.host.name, plan.veth.pod.mac));
    assert_eq!(source.owner, "weft/c1/eth0");
}

#[test]
fn the_result_begins_with_the_bridge() {
    let plan = bridged(&config(), &dual_stack(), &[]);
    let mac: Mac = "02:00:00:00:00:07".parse().unwrap();
    let bridge = Link { name: "cni0".to_owned(), mac: Some(mac), mtu: 1450, ..Link::default() };
    let result = Shared::report(plan.result("/run/netns/x", spec::Dns::default()), &bridge);
    let names: Vec<_> = result.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    assert_eq!(names, ["cni0", plan.veth.host.name.as_str(), "eth0"]);
    assert_eq!(result.interfaces[0].mac, "02:00:00:00:00:07");
    assert!(result.ips.iter().all(|ip| ip.interface == Some(2)));
}
