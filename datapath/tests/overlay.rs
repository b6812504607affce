//! Routes with a mark and a VXLAN link, against the real kernel in fresh network namespaces.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows a test by its attribute, and these functions serve tests"
)]

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nix::errno::Errno;
use weft_datapath::{
    Ensured, FarEnd, Interface, Link, Mac, Maker, MarkedRoute, Neighbour, Route, Rtnl, Veth, Vxlan,
};

#[path = "shared/namespace.rs"]
mod namespace;

use namespace::{fresh_namespace, in_fresh_namespace};

const OURS: u8 = 87;
const THEIRS: u8 = 99;

fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A link that is up, with an address of each family and their subnets.
fn underlay() -> (Rtnl, Link) {
    let peer = fresh_namespace();
    let host = Rtnl::open().unwrap();
    let veth = Veth {
        host: Interface {
            addresses: vec![network("192.0.2.1/24"), network("2001:db8::1/64")],
            routes: vec![Route::on_link(network("192.0.2.0/24")), Route::on_link(network("2001:db8::/64"))],
            ..Interface::named("eth0")
        },
        pod: Interface::named("eth0"),
    };
    let ends = host.create_veth(&veth, &peer).unwrap();
    host.configure_link(&veth.host, &ends.host).unwrap();
    // The link lives as long as its other end does.
    std::mem::forget(peer);
    (host, ends.host)
}

fn route(dst: &str, gateway: &str, link: &Link) -> MarkedRoute {
    let dst = network(dst);
    let priority = if dst.is_ipv4() { 0 } else { 1024 };
    MarkedRoute { dst, priority, gateway: Some(ip(gateway)), link: link.index, onlink: false }
}

fn vxlan() -> Vxlan {
    Vxlan {
        name: "weft.vxlan".into(),
        alias: "weft: pods of other nodes".into(),
        id: 4097,
        port: 4789,
        local: ip("192.0.2.1"),
        mac: Mac::local(1),
        mtu: 1450,
        addresses: vec![ip("10.244.0.0"), ip("fd00:10:244::")],
    }
}

#[test]
fn marked_routes_are_added_seen_replaced_and_deleted_and_no_others_are_seen() {
    in_fresh_namespace(|| {
        let (host, link) = underlay();
        let (v4, v6) =
            (route("10.244.1.0/24", "192.0.2.2", &link), route("fd00:10:244:1::/64", "2001:db8::2", &link));
        for route in [&v4, &v6] {
            host.add_marked_route(OURS, route).unwrap();
        }
        assert_eq!(host.marked_routes(OURS).unwrap(), [v4, v6]);
        assert_eq!(host.marked_routes(OURS + 1).unwrap(), []);
        let elsewhere = [("192.0.2.3", &v4), ("2001:db8::3", &v6)]
            .map(|(gateway, route)| MarkedRoute { gateway: Some(ip(gateway)), ..*route });
        for route in &elsewhere {
            host.replace_marked_route(OURS, route).unwrap();
        }
        assert_eq!(host.marked_routes(OURS).unwrap(), elsewhere);
        for route in &elsewhere {
            host.delete_marked_route(OURS, route).unwrap();
            host.delete_marked_route(OURS, route).unwrap();
        }
        assert_eq!(host.marked_routes(OURS).unwrap(), []);
    });
}

#[test]
fn a_route_of_somebody_else_is_neither_replaced_nor_deleted() {
    in_fresh_namespace(|| {
        let (host, link) = underlay();
        for (dst, theirs, ours) in [
            ("10.244.1.0/24", "192.0.2.9", "192.0.2.2"),
            ("fd00:10:244:1::/64", "2001:db8::9", "2001:db8::2"),
        ] {
            host.add_marked_route(THEIRS, &route(dst, theirs, &link)).unwrap();
            let refused = host.add_marked_route(OURS, &route(dst, ours, &link)).unwrap_err();
            assert_eq!(refused.errno(), Errno::EEXIST);
            assert_eq!(refused.to_string(), format!("cannot route {dst} through {ours}"));
            let maker =
                Maker { link: Some("eth0".into()), gateway: Some(ip(theirs)), protocol: THEIRS, kind: 1 };
            assert_eq!(host.maker_of_route(network(dst)).unwrap(), Some(maker));
            host.delete_marked_route(OURS, &route(dst, theirs, &link)).unwrap();
        }
        assert_eq!(host.marked_routes(THEIRS).unwrap().len(), 2);
        assert_eq!(host.maker_of_route(network("10.244.0.0/16")).unwrap(), None);
    });
}

#[test]
fn who_drops_packets_to_a_network_is_found_and_gives_way_to_a_replacement() {
    in_fresh_namespace(|| {
        let (host, link) = underlay();
        let gateways = [("10.244.1.0/24", "192.0.2.2"), ("fd00:10:244:1::/64", "2001:db8::2")];
        for ((dst, ours), (kind, number)) in gateways
            .into_iter()
            .flat_map(|way| [("blackhole", 6), ("unreachable", 7), ("prohibit", 8)].map(|kind| (way, kind)))
        {
            let family = if network(dst).is_ipv4() { "-4" } else { "-6" };
            let metric = if network(dst).is_ipv4() { "0" } else { "1024" };
            let done = std::process::Command::new("ip")
                .args([family, "route", "replace", kind, dst, "metric", metric, "proto", "static"])
                .status()
                .unwrap();
            assert!(done.success());
            let maker = host.maker_of_route(network(dst)).unwrap().unwrap();
            assert_eq!((maker.kind, maker.protocol, maker.gateway), (number, 4, None), "{dst} {kind}");
            host.replace_marked_route(OURS, &route(dst, ours, &link)).unwrap();
            let all: Vec<_> = host.marked_routes(OURS).unwrap();
            assert_eq!(all.iter().filter(|there| there.dst == network(dst)).count(), 1);
            assert_eq!(host.maker_of_route(network(dst)).unwrap().unwrap().protocol, OURS);
        }
    });
}

#[test]
fn a_vxlan_link_is_made_adopted_adjusted_and_replaced_where_it_cannot_change() {
    in_fresh_namespace(|| {
        let host = Rtnl::open().unwrap();
        let ensure = |wanted: &Vxlan| host.ensure_vxlan(wanted).unwrap();
        let (first, ensured) = ensure(&vxlan());
        assert_eq!(ensured, Ensured::Created);
        assert_eq!(ensure(&vxlan()), (host.link("weft.vxlan").unwrap().unwrap(), Ensured::Stood));
        let smaller = Vxlan { mtu: 1400, mac: Mac::local(2), addresses: vec![ip("10.244.7.0")], ..vxlan() };
        assert_eq!(ensure(&smaller).1, Ensured::Adjusted);
        let (same, ensured) = ensure(&smaller);
        assert_eq!(
            (same.index, same.mtu, same.mac, ensured),
            (first.index, 1400, Some(Mac::local(2)), Ensured::Stood)
        );
        let held = host.addresses().unwrap().into_iter().filter(|(index, _)| *index == same.index);
        assert_eq!(held.map(|(_, address)| address).collect::<Vec<_>>(), [network("10.244.7.0/32")]);
        for other in [
            Vxlan { id: 4098, ..vxlan() },
            Vxlan { id: 4098, port: 8473, ..vxlan() },
            Vxlan { id: 4098, port: 8473, local: ip("2001:db8::1"), ..vxlan() },
        ] {
            assert_eq!(ensure(&other).1, Ensured::Replaced);
            assert_eq!(ensure(&other).1, Ensured::Stood);
        }
        assert!(host.remove_vxlan("weft.vxlan", &vxlan().alias).unwrap());
        assert!(!host.remove_vxlan("weft.vxlan", &vxlan().alias).unwrap());
    });
}

#[test]
fn a_link_of_somebody_else_with_the_name_is_left_alone() {
    in_fresh_namespace(|| {
        let host = Rtnl::open().unwrap();
        let ip = |words: &str| {
            assert!(std::process::Command::new("ip").args(words.split(' ')).status().unwrap().success());
        };
        for (theirs, as_they_are) in [
            ("link add weft.vxlan type vxlan id 7 dstport 4790", "(vxlan, with no alias)"),
            ("link add weft.vxlan type bridge", "(bridge, with no alias)"),
            ("link add weft.vxlan type veth peer name other", "(veth, with no alias)"),
        ] {
            ip(theirs);
            let before = host.link("weft.vxlan").unwrap();
            let refused = host.ensure_vxlan(&vxlan()).unwrap_err();
            assert_eq!(refused.errno(), Errno::EEXIST);
            let why = refused.refusal.to_string();
            assert!(why.contains("somebody else's") && why.contains(as_they_are), "{why}");
            assert!(!host.remove_vxlan("weft.vxlan", &vxlan().alias).unwrap());
            assert_eq!(host.link("weft.vxlan").unwrap(), before, "it is as it was");
            ip("link delete weft.vxlan");
        }
        host.ensure_vxlan(&Vxlan { alias: "theirs".into(), ..vxlan() }).unwrap();
        let why = host.ensure_vxlan(&vxlan()).unwrap_err().refusal.to_string();
        assert!(why.contains("the alias \"theirs\""), "{why}");
    });
}

#[test]
fn a_link_whose_maker_was_killed_before_marking_it_is_adopted() {
    in_fresh_namespace(|| {
        let host = Rtnl::open().unwrap();
        let made = format!("link add weft.vxlan address {} type vxlan id 4097 dstport 8472", vxlan().mac);
        let ip = std::process::Command::new("ip").args(made.split(' ')).status().unwrap();
        assert!(ip.success());
        let (link, ensured) = host.ensure_vxlan(&vxlan()).unwrap();
        assert!(matches!(ensured, Ensured::Adjusted | Ensured::Replaced), "{ensured:?}");
        assert_eq!(host.link("weft.vxlan").unwrap().unwrap().alias.as_ref(), Some(&vxlan().alias));
        assert_eq!(host.ensure_vxlan(&vxlan()).unwrap().1, Ensured::Stood, "{link:?}");
    });
}

#[test]
fn far_ends_and_neighbours_are_set_seen_moved_and_removed() {
    in_fresh_namespace(|| {
        let host = Rtnl::open().unwrap();
        let (link, _) = host.ensure_vxlan(&vxlan()).unwrap();
        assert_eq!(host.far_ends(&link).unwrap(), [], "nothing is flooded");
        let end = FarEnd { mac: Mac::local(7), remote: ip("192.0.2.7") };
        let moved = FarEnd { remote: ip("192.0.2.8"), ..end };
        host.set_far_end(&link, &end).unwrap();
        host.set_far_end(&link, &moved).unwrap();
        assert_eq!(host.far_ends(&link).unwrap(), [moved]);
        let neighbours = ["10.244.7.0", "fe80::1"].map(|text| Neighbour { ip: ip(text), mac: end.mac });
        for neighbour in &neighbours {
            host.set_neighbour(&link, neighbour).unwrap();
        }
        let found = host.neighbours_on(&link).unwrap();
        assert!(
            found.len() == 2 && neighbours.iter().all(|neighbour| found.contains(neighbour)),
            "{found:?}"
        );
        // One family's gateway is an address of the subnet itself, the other's is link-local.
        let through = |dst, gateway, onlink| MarkedRoute { onlink, ..route(dst, gateway, &link) };
        let routes =
            [through("10.244.7.0/24", "10.244.7.0", true), through("fd00:10:244:7::/64", "fe80::1", false)];
        for route in &routes {
            host.add_marked_route(OURS, route).unwrap();
        }
        assert_eq!(host.marked_routes(OURS).unwrap(), routes);
        for _twice in 0..2 {
            host.remove_far_end(&link, &moved).unwrap();
            neighbours.iter().for_each(|neighbour| host.remove_neighbour(&link, neighbour.ip).unwrap());
        }
        assert_eq!(host.far_ends(&link).unwrap(), []);
        assert_eq!(host.neighbours_on(&link).unwrap(), []);
    });
}
