//! Against the real kernel, in fresh network namespaces that end with the thread that made them.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows a test by its attribute, and these functions serve tests"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use ipnetwork::IpNetwork;
use nix::errno::Errno;
use weft_datapath::{
    Chain, Interface, LinkLocal, Mac, Masquerade, Neighbour, NetNs, Nft, PinnedSource, Resettled, Route,
    Rtnl, Veth, sysctl,
};

#[path = "shared/namespace.rs"]
mod namespace;
#[path = "shared/ruleset.rs"]
mod ruleset;

use namespace::{fresh_namespace, in_fresh_namespace};
use ruleset::{assert_shown, ruleset};

fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pair() -> Veth {
    let (host_mac, pod_mac) = (Mac::local(1), Mac::local(2));
    let neighbour = |address, mac| Neighbour { ip: ip(address), mac };
    Veth {
        host: Interface {
            mac: Some(host_mac),
            mtu: Some(1400),
            alias: Some("weft/c1/eth0".to_owned()),
            link_local: LinkLocal::None,
            addresses: vec![network("10.9.0.1/32"), network("fd09::1/128")],
            neighbours: vec![neighbour("10.9.0.2", pod_mac), neighbour("fd09::2", pod_mac)],
            routes: vec![
                Route { source: Some(ip("10.9.0.1")), ..Route::on_link(network("10.9.0.2/32")) },
                Route::on_link(network("fd09::2/128")),
            ],
            ..Interface::named("weft0")
        },
        pod: Interface {
            mac: Some(pod_mac),
            mtu: Some(1400),
            addresses: vec![network("10.9.0.2/24"), network("fd09::2/64")],
            neighbours: vec![neighbour("10.9.0.1", host_mac), neighbour("fd09::1", host_mac)],
            routes: vec![
                Route::on_link(network("10.9.0.1/32")),
                Route::on_link(network("fd09::1/128")),
                Route {
                    mtu: Some(1300),
                    advmss: Some(1200),
                    ..Route::via(network("0.0.0.0/0"), ip("10.9.0.1"))
                },
                Route::via(network("::/0"), ip("fd09::1")),
            ],
            ..Interface::named("eth0")
        },
    }
}

fn attach(veth: &Veth, pod: &NetNs) -> Rtnl {
    let host = Rtnl::open().unwrap();
    let ends = host.create_veth(veth, pod).unwrap();
    host.configure_link(&veth.host, &ends.host).unwrap();
    pod.rtnl().unwrap().configure_link(&veth.pod, &ends.pod).unwrap();
    host
}

fn settle(host: &Rtnl, veth: &Veth, pod: &NetNs) {
    let inside = pod.run(Rtnl::open).unwrap().unwrap();
    let end = inside.link("eth0").unwrap().unwrap();
    inside.settle_link(&end, &veth.pod.addresses).unwrap();
    host.settle("weft0", &veth.host.addresses).unwrap();
}

#[test]
fn a_pair_stands_as_it_was_asked_for_and_carries_packets_at_once() {
    in_fresh_namespace(|| {
        let (veth, pod) = (pair(), fresh_namespace());
        attach(&veth, &pod);

        let seen = pod.rtnl().unwrap().observe().unwrap();
        let link = seen.link("eth0").unwrap();
        assert_eq!((link.mac, link.mtu, link.up), (veth.pod.mac, 1400, true));
        for address in &veth.pod.addresses {
            assert!(seen.addresses.contains(&(link.index, *address)), "{address} in {:?}", seen.addresses);
        }
        for neighbour in &veth.pod.neighbours {
            assert!(seen.neighbours.contains(&(link.index, neighbour.clone())), "{neighbour:?}");
        }
        let default =
            seen.routes.iter().find(|(_, r)| r.dst == network("0.0.0.0/0")).map(|(_, r)| r).unwrap();
        assert_eq!(
            (default.gateway, default.mtu, default.advmss),
            (Some(ip("10.9.0.1")), Some(1300), Some(1200))
        );
        let prefix = seen
            .routes
            .iter()
            .find(|(_, r)| r.dst == network("10.9.0.0/24") || r.dst == network("fd09::/64"));
        assert_eq!(prefix, None, "no address brings a route of its own");

        let seen = Rtnl::open().unwrap().observe().unwrap();
        assert_eq!(seen.link("weft0").unwrap().alias.as_deref(), Some("weft/c1/eth0"));
        let link_local = seen
            .addresses
            .iter()
            .find(|(_, a)| matches!(a.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local()));
        assert_eq!(link_local, None, "the host's end gives itself no address");

        // A tentative IPv6 address would refuse the first packet: duplicate address detection is off.
        for address in ["10.9.0.2", "fd09::2"] {
            let server = pod.run(|| TcpListener::bind((ip(address), 0)).unwrap()).unwrap();
            let port = server.local_addr().unwrap().port();
            TcpStream::connect_timeout(&SocketAddr::new(ip(address), port), Duration::from_secs(5)).unwrap();
        }
    });
}

#[test]
fn a_link_local_address_is_there_at_once_and_the_kernel_looks_for_no_duplicate() {
    in_fresh_namespace(|| {
        let pod = fresh_namespace();
        let mut veth = pair();
        veth.pod.link_local = LinkLocal::AtOnce;
        veth.pod.mac = Some("02:00:5e:10:00:01".parse().unwrap());
        // The kernel takes note of a carrier that is not there (`linkwatch`): it makes addresses when it comes, and not with the link.
        let host = Rtnl::open().unwrap();
        let ends = host.create_veth(&veth, &pod).unwrap();
        let inside = pod.rtnl().unwrap();
        inside.link("eth0").unwrap().unwrap();
        host.configure_link(&veth.host, &ends.host).unwrap();
        inside.configure_link(&veth.pod, &ends.pod).unwrap();
        // One that is tentative can be the source of nothing (EADDRNOTAVAIL), and no address may be of two links.
        let bind = |scope_id| {
            let address = SocketAddrV6::new("fe80::5eff:fe10:1".parse().unwrap(), 0, 0, scope_id);
            pod.run(|| UdpSocket::bind(address).map(drop)).unwrap()
        };
        let index = ends.pod.index;
        bind(index).unwrap();
        let seen = inside.observe().unwrap();
        let route = (index, network("fe80::/64"));
        assert!(seen.routes.iter().any(|(index, found)| (*index, found.dst) == route), "{:?}", seen.routes);
        // Once more, as of an interface that exists.
        inside.configure(&Interface { link_local: LinkLocal::AtOnce, ..Interface::named("eth0") }).unwrap();
        bind(index).unwrap();
    });
}

#[test]
fn deleting_one_end_deletes_both_and_a_second_time_is_no_error() {
    in_fresh_namespace(|| {
        let pod = fresh_namespace();
        let host = attach(&pair(), &pod);
        let link = host.link("weft0").unwrap().unwrap();
        host.delete_link(&link).unwrap();
        host.delete_link(&link).unwrap();
        assert_eq!(host.link("weft0").unwrap(), None);
        assert_eq!(pod.rtnl().unwrap().link("eth0").unwrap(), None);
        assert_eq!(host.observe().unwrap().routes, []);
    });
}

#[test]
fn a_name_that_is_taken_refuses_the_pair_and_leaves_nothing() {
    in_fresh_namespace(|| {
        let pod = fresh_namespace();
        let host = attach(&pair(), &pod);
        let mut second = pair();
        second.host.name = "weft1".to_owned();
        let error = host.create_veth(&second, &pod).unwrap_err();
        assert_eq!(error.errno(), Errno::EEXIST, "{error}: {}", error.refusal);
        assert_eq!(error.to_string(), "cannot create the pair weft1 and eth0");
        assert_eq!(host.link("weft1").unwrap(), None);
    });
}

/// A container on two networks, each with a default route.
#[test]
fn a_second_route_to_the_same_destination_comes_after_the_first() {
    in_fresh_namespace(|| {
        let (first, pod) = (pair(), fresh_namespace());
        let mut second = pair();
        second.host = Interface { mac: second.host.mac, ..Interface::named("weft1") };
        second.pod.name = "eth1".to_owned();
        second.pod.addresses = vec![network("10.8.0.2/24"), network("fd08::2/64")];
        second.pod.neighbours.clear();
        second.pod.routes = vec![
            Route::on_link(network("10.8.0.1/32")),
            Route::on_link(network("fd08::1/128")),
            Route::via(network("0.0.0.0/0"), ip("10.8.0.1")),
            Route::via(network("::/0"), ip("fd08::1")),
        ];
        attach(&first, &pod);
        attach(&second, &pod);
        let inside = pod.rtnl().unwrap();
        let seen = inside.observe().unwrap();
        let ways_out = |dst| {
            let found = seen.routes.iter().filter(move |(_, route)| route.dst == network(dst));
            found.map(|(index, route)| (*index, route.gateway.unwrap().to_string())).collect::<Vec<_>>()
        };
        let [eth0, eth1] = ["eth0", "eth1"].map(|name| seen.link(name).unwrap().index);
        assert_eq!(ways_out("0.0.0.0/0"), [(eth0, "10.9.0.1".to_owned()), (eth1, "10.8.0.1".to_owned())]);
        assert_eq!(ways_out("::/0"), [(eth0, "fd09::1".to_owned()), (eth1, "fd08::1".to_owned())]);
        assert_eq!(inside.link_towards(ip("192.0.2.1")).unwrap().unwrap().name, "eth0");
        // The same route is not there twice, though.
        let twice = Interface { routes: vec![second.pod.routes[2].clone()], ..Interface::named("eth1") };
        assert_eq!(inside.configure(&twice).unwrap_err().errno(), Errno::EEXIST);
    });
}

/// A container that is twice on the same bridge's network; a route to a single host says on which link it is.
#[test]
fn two_interfaces_may_be_in_one_subnet_but_one_host_is_on_one_link() {
    in_fresh_namespace(|| {
        let (mut first, mut second, pod) = (pair(), pair(), fresh_namespace());
        second.host = Interface { mac: second.host.mac, ..Interface::named("weft1") };
        second.pod.name = "eth1".to_owned();
        for (veth, addresses) in
            [(&mut first, ["10.8.0.2/24", "fd08::2/64"]), (&mut second, ["10.8.0.3/24", "fd08::3/64"])]
        {
            veth.pod.addresses = addresses.map(network).into();
            veth.pod.neighbours.clear();
            veth.pod.routes = ["10.8.0.0/24", "fd08::/64"].map(|dst| Route::on_link(network(dst))).into();
            attach(veth, &pod);
        }
        let inside = pod.rtnl().unwrap();
        let seen = inside.observe().unwrap();
        for dst in ["10.8.0.0/24", "fd08::/64"] {
            let links =
                seen.routes.iter().filter(|(_, route)| route.dst == network(dst)).map(|(index, _)| *index);
            let expected = ["eth0", "eth1"].map(|name| seen.link(name).unwrap().index);
            assert_eq!(links.collect::<Vec<_>>(), expected, "{dst}");
        }
        for dst in ["10.8.0.9/32", "fd08::9/128"] {
            let towards =
                |name| Interface { routes: vec![Route::on_link(network(dst))], ..Interface::named(name) };
            inside.configure(&towards("eth0")).unwrap();
            assert_eq!(inside.configure(&towards("eth1")).unwrap_err().errno(), Errno::EEXIST, "{dst}");
        }
    });
}

#[test]
fn the_ends_of_a_new_pair_are_known_without_a_look() {
    in_fresh_namespace(|| {
        let (mut veth, pod, host) = (pair(), fresh_namespace(), Rtnl::open().unwrap());
        for named in [Some(1400), None] {
            (veth.pod.mtu, veth.host.mtu, veth.pod.group) = (named, Some(1400), Some(7));
            let ends = host.create_veth(&veth, &pod).unwrap();
            assert_eq!(host.link("weft0").unwrap().as_ref(), Some(&ends.host));
            assert_eq!(pod.rtnl().unwrap().link("eth0").unwrap().as_ref(), Some(&ends.pod));
            host.delete_link(&ends.host).unwrap();
        }
    });
}

#[test]
fn a_refused_step_is_named_with_the_kernels_reason() {
    in_fresh_namespace(|| {
        let pod = fresh_namespace();
        let mut veth = pair();
        veth.pod.routes = vec![Route::via(network("0.0.0.0/0"), ip("192.0.2.1"))];
        let host = Rtnl::open().unwrap();
        host.create_veth(&veth, &pod).unwrap();
        let error = pod.rtnl().unwrap().configure(&veth.pod).unwrap_err();
        assert_eq!(error.to_string(), "cannot add route 0.0.0.0/0 via 192.0.2.1 through eth0");
        assert!(error.refusal.to_string().contains("Nexthop has invalid gateway"), "{}", error.refusal);
    });
}

#[test]
fn whether_packets_are_forwarded_is_told_of_each_family() {
    in_fresh_namespace(|| {
        let host = Rtnl::open().unwrap();
        let (v4, v6) = (["ipv4", "ip_forward"], ["ipv6", "conf", "all", "forwarding"]);
        for (first, second) in [("0", "1"), ("1", "0")] {
            sysctl::set(&v4, first).unwrap();
            sysctl::set(&v6, second).unwrap();
            assert_eq!(host.forwards(&[true, false]).unwrap(), [first == "1", second == "1"]);
        }
        assert_eq!(host.forwards(&[]).unwrap(), []);
    });
}

#[test]
fn the_mtu_of_a_path_is_the_routes_or_the_interfaces() {
    in_fresh_namespace(|| {
        let host = Rtnl::open().unwrap();
        assert_eq!(host.path_mtu(&[ip("192.0.2.1")]).unwrap(), None);
        assert_eq!(host.path_mtu(&[ip("2001:db8::1")]).unwrap(), None);
        let pod = fresh_namespace();
        attach(&pair(), &pod);
        assert_eq!(host.path_mtu(&[ip("10.9.0.2")]).unwrap(), Some(1400));
        let inside = pod.rtnl().unwrap();
        assert_eq!(inside.path_mtu(&[ip("192.0.2.1")]).unwrap(), Some(1300));
        assert_eq!(inside.path_mtu(&[ip("2001:db8::1")]).unwrap(), Some(1400));
        assert_eq!(inside.path_mtu(&[ip("2001:db8::1"), ip("192.0.2.1")]).unwrap(), Some(1300));
        assert_eq!(host.path_mtu(&[ip("192.0.2.1"), ip("10.9.0.2"), ip("fd09::2")]).unwrap(), Some(1400));
    });
}

#[test]
fn sysctls_are_those_of_the_namespace_one_is_in() {
    in_fresh_namespace(|| {
        let forward = ["ipv4", "ip_forward"];
        let pod = fresh_namespace();
        sysctl::set(&forward, "1").unwrap();
        let inside = pod.run(|| sysctl::get(&forward).unwrap()).unwrap();
        assert_eq!((sysctl::get(&forward).unwrap().as_deref(), inside.as_deref()), (Some("1"), Some("0")));
        assert_eq!(sysctl::get(&["ipv4", "no_such_thing"]).unwrap(), None);
        let error = sysctl::set(&forward, "yes").unwrap_err();
        assert_eq!(error.to_string(), "cannot set /proc/sys/net/ipv4/ip_forward to yes");
    });
}

fn masquerade(address: &str, owner: &str) -> Masquerade {
    Masquerade { address: network(address), owner: owner.to_owned() }
}

#[test]
fn masquerading_makes_the_table_that_nft_shows_and_takes_it_away_with_the_last_pod() {
    in_fresh_namespace(|| {
        let nft = Nft::open().unwrap();
        nft.masquerade(&[
            masquerade("10.9.0.2/24", "weft/c1/eth0"),
            masquerade("fd09::2/64", "weft/c1/eth0"),
        ])
        .unwrap();
        nft.masquerade(&[masquerade("10.9.0.3/24", "weft/c2/eth0")]).unwrap();
        assert_shown(&[
            "table inet weft {",
            "type ipv4_addr : verdict",
            r#"10.9.0.2 comment "weft/c1/eth0" : jump masquerade_0a090000_24"#,
            r#"10.9.0.3 comment "weft/c2/eth0" : jump masquerade_0a090000_24"#,
            r#"fd09::2 comment "weft/c1/eth0" : jump masquerade_fd090000000000000000000000000000_64"#,
            "type nat hook postrouting priority srcnat; policy accept;",
            "ip saddr vmap @masquerade4",
            "ip6 saddr vmap @masquerade6",
            "ip daddr 10.9.0.0/24 return",
            "ip daddr 224.0.0.0/4 return",
            "ip6 daddr fd09::/64 return",
            "ip6 daddr ff00::/8 return",
            "ip daddr @unmasqueraded4 return",
            "ip6 daddr @unmasqueraded6 return",
        ]);
        assert_eq!(nft.find(ip("fd09::2")).unwrap().unwrap().owner, "weft/c1/eth0");
        let mut all: Vec<_> = nft.masqueraded().unwrap().iter().map(|found| found.address).collect();
        all.sort();
        assert_eq!(all, [ip("10.9.0.2"), ip("10.9.0.3"), ip("fd09::2")]);

        nft.stop_masquerading("weft/c1/eth0", &[ip("10.9.0.2"), ip("fd09::2"), ip("10.9.0.2")]).unwrap();
        nft.remove_unused_table().unwrap();
        assert!(ruleset().contains("10.9.0.3"), "a table in use stays");
        assert_eq!(nft.find(ip("10.9.0.2")).unwrap(), None);
        nft.stop_masquerading("weft/c1/eth0", &[ip("10.9.0.3")]).unwrap();
        assert!(nft.find(ip("10.9.0.3")).unwrap().is_some(), "what is somebody else's stays");
        nft.stop_masquerading("weft/c2/eth0", &[ip("10.9.0.3")]).unwrap();
        nft.remove_unused_table().unwrap();
        nft.remove_unused_table().unwrap();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn networks_that_nobody_is_masqueraded_to_come_and_go_in_one_step() {
    let set = |networks: &[&str]| networks.iter().map(|text| text.parse().unwrap()).collect();
    let of = |added, removed| Resettled { added, removed };
    in_fresh_namespace(|| {
        let nft = Nft::open().unwrap();
        assert_eq!(nft.set_unmasqueraded(&set(&[])).unwrap(), of(0, 0));
        assert_eq!(ruleset(), "", "nothing is made for nothing");
        let first = set(&["10.9.1.0/24", "10.9.2.0/24", "fd09:1::/64"]);
        assert_eq!(nft.set_unmasqueraded(&first).unwrap(), of(3, 0));
        assert_eq!(nft.set_unmasqueraded(&first).unwrap(), of(0, 0));
        assert_eq!(nft.unmasqueraded().unwrap(), first);
        nft.masquerade(&[masquerade("10.9.0.2/24", "weft/c1/eth0")]).unwrap();
        assert_shown(&["elements = { 10.9.1.0/24, 10.9.2.0/24 }", "elements = { fd09:1::/64 }"]);
        let second = set(&["10.9.2.0/24", "10.9.3.0/24", "192.168.0.0/16"]);
        assert_eq!(nft.set_unmasqueraded(&second).unwrap(), of(2, 2));
        assert_eq!(nft.unmasqueraded().unwrap(), second);
        assert!(nft.find(ip("10.9.0.2")).unwrap().is_some());

        nft.stop_masquerading("weft/c1/eth0", &[ip("10.9.0.2")]).unwrap();
        nft.remove_unused_table().unwrap();
        assert_eq!(nft.unmasqueraded().unwrap(), second, "the last pod takes nothing of the node's away");
        nft.set_unmasqueraded(&set(&["0.0.0.0/0", "10.9.0.0/16"])).unwrap();
        assert_eq!(nft.unmasqueraded().unwrap(), set(&["0.0.0.0/0"]));
        nft.set_unmasqueraded(&set(&[])).unwrap();
        nft.remove_unused_table().unwrap();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn as_many_networks_as_a_cluster_has_nodes_are_taken_at_once() {
    in_fresh_namespace(|| {
        let nft = Nft::open().unwrap();
        let all: BTreeSet<IpNetwork> = (0..2000_u32)
            .map(|node| IpNetwork::new(Ipv4Addr::from(0x0a00_0000 + (node << 8)).into(), 24).unwrap())
            .collect();
        assert_eq!(nft.set_unmasqueraded(&all).unwrap(), Resettled { added: 2000, removed: 0 });
        assert_eq!(nft.unmasqueraded().unwrap(), all);
    });
}

#[test]
fn a_flushed_ruleset_and_an_element_left_over_are_put_right() {
    in_fresh_namespace(|| {
        let nft = Nft::open().unwrap();
        nft.masquerade(&[masquerade("10.9.0.2/24", "weft/old/eth0")]).unwrap();
        nft.masquerade(&[masquerade("10.9.0.2/24", "weft/new/eth0")]).unwrap();
        assert!(ruleset().contains("weft/new/eth0") && !ruleset().contains("weft/old/eth0"));
        // Another subnet: the address moved to another network's range.
        nft.masquerade(&[masquerade("10.9.0.2/16", "weft/new/eth0")]).unwrap();
        assert!(ruleset().contains("jump masquerade_0a090000_16"));
        Command::new("nft").args(["flush", "ruleset"]).status().unwrap();
        nft.stop_masquerading("weft/new/eth0", &[ip("10.9.0.2")]).unwrap();
        assert_eq!(nft.find(ip("10.9.0.2")).unwrap(), None);
        nft.masquerade(&[masquerade("10.9.0.2/24", "weft/new/eth0")]).unwrap();
        assert!(nft.find(ip("10.9.0.2")).unwrap().unwrap().is_of("weft/new/eth0"));
    });
}

#[test]
fn many_processes_may_make_the_table_at_once() {
    in_fresh_namespace(|| {
        let node = NetNs::current().unwrap();
        thread::scope(|scope| {
            for worker in 0..8u8 {
                let node = &node;
                scope.spawn(move || {
                    let nft = node.run(Nft::open).unwrap().unwrap();
                    for pod in 0..20u8 {
                        let address = format!("10.{worker}.0.{pod}/24");
                        nft.masquerade(&[masquerade(&address, "weft/c/eth0")]).unwrap();
                        nft.stop_masquerading("weft/c/eth0", &[network(&address).ip()]).unwrap();
                        nft.remove_unused_table().unwrap();
                    }
                });
            }
        });
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn a_settled_pair_loses_not_even_its_first_packet() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version: Vec<u32> = release.split(['.', '-']).take(2).map(|part| part.parse().unwrap()).collect();
    if version < vec![6, 8] {
        eprintln!("skipped: Linux {release} takes note of a carrier only in its own time");
        return;
    }
    // A lost packet is sent again after a second.
    const SOON: Duration = Duration::from_millis(900);
    for _ in 0..20 {
        in_fresh_namespace(|| {
            let (veth, pod) = (pair(), fresh_namespace());
            let host = attach(&veth, &pod);
            settle(&host, &veth, &pod);
            for address in ["10.9.0.2", "fd09::2"].map(ip) {
                let listener = pod.run(|| TcpListener::bind((address, 0)).unwrap()).unwrap();
                TcpStream::connect_timeout(&listener.local_addr().unwrap(), SOON).unwrap();
            }
        });
    }
}

#[test]
fn the_addresses_of_a_settled_pair_are_its_own() {
    for _ in 0..50 {
        in_fresh_namespace(|| {
            let (veth, pod) = (pair(), fresh_namespace());
            let host = attach(&veth, &pod);
            settle(&host, &veth, &pod);
            let inside = pod.rtnl().unwrap();
            assert!(inside.is_local(ip("fd09::2")).unwrap());
            let link = inside.link("eth0").unwrap().unwrap();
            assert!(inside.is_settled(&link, &veth.pod.addresses).unwrap());
            assert!(!inside.is_settled(&link, &[network("fd09::3/64")]).unwrap(), "it is not the pod's");
            assert!(host.is_local(ip("fd09::1")).unwrap());
        });
    }
}

#[test]
fn what_does_not_settle_is_named() {
    in_fresh_namespace(|| {
        let (veth, pod) = (pair(), fresh_namespace());
        let host = attach(&veth, &pod);
        assert_eq!(host.settle("weft1", &[]).unwrap_err().errno(), Errno::ENODEV);
    });
}

#[test]
fn a_chain_that_somebody_flushed_is_named_and_can_be_restored() {
    in_fresh_namespace(|| {
        let nft = Nft::open().unwrap();
        let elements = [masquerade("10.9.0.2/24", "weft/c1/eth0"), masquerade("fd09::2/64", "weft/c1/eth0")];
        let broken = || -> Vec<String> {
            let chains = nft.chains(&elements, &[]).unwrap();
            assert_eq!(chains.len(), 3);
            chains.into_iter().filter(|chain| !chain.is_whole()).map(|chain| chain.name).collect()
        };
        nft.masquerade(&elements).unwrap();
        assert_eq!(broken(), [""; 0]);
        let flush = Command::new("nft").args(["flush", "chain", "inet", "weft", "postrouting"]).status();
        assert!(flush.unwrap().success());
        assert_eq!(broken(), ["postrouting"]);
        nft.restore_chains(&elements, &[]).unwrap();
        assert_eq!(broken(), [""; 0]);
        assert_eq!(nft.masqueraded().unwrap().len(), 2, "the elements stood all the time");
    });
}

#[test]
fn a_port_is_held_to_one_address_by_the_table_that_nft_shows() {
    in_fresh_namespace(|| {
        let nft = Nft::open().unwrap();
        let source =
            |mac| PinnedSource { port: "weft0".into(), mac: Mac::local(mac), owner: "weft/c1/eth0".into() };
        nft.pin_source(&source(1)).unwrap();
        nft.pin_source(&source(2)).unwrap();
        let mac = Mac::local(2);
        assert_shown(&[
            "table bridge weft {",
            &format!(r#""weft0" comment "weft/c1/eth0" : {mac}"#),
            &format!(r#""weft0" . {mac} comment "weft/c1/eth0""#),
            "type filter hook prerouting priority dstnat; policy accept;",
            "iifname . ether saddr != @pinned drop",
        ]);
        assert!(!ruleset().contains(&Mac::local(1).to_string()), "what stood for the port is replaced");
        assert_eq!(nft.pinned_source("weft0").unwrap(), Some(source(2)));
        assert_eq!(nft.pinned_sources().unwrap(), [source(2)]);
        assert!(nft.bridge_chains().unwrap().iter().all(Chain::is_whole));

        nft.unpin_source("weft0").unwrap();
        nft.unpin_source("weft0").unwrap();
        nft.remove_unused_table().unwrap();
        assert_eq!(ruleset(), "");
    });
}
