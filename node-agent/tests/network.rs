//! The ways to other nodes, against the real kernel in a namespace of its own.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows a test by its attribute, and these functions serve tests"
)]

use std::net::IpAddr;
use std::process::Command;
use std::thread;

use ipnetwork::IpNetwork;
use nix::sched::{CloneFlags, unshare};
use weft_datapath::{FarEnd, Interface, Link, MarkedRoute, NetNs, Route, Rtnl, Veth};
use weft_node::member::{Candidate, Members, Unread};
use weft_node::network::{Did, Kind, Network, Options, PROTOCOL, Report, TUNNEL};

/// A node called `a`, with its link to a network of other nodes.
struct Node {
    rtnl: Rtnl,
    eth0: Link,
    network: Network,
    /// The link lives as long as its other end does.
    _peer: NetNs,
}

impl Node {
    fn new() -> Self {
        let peer = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            NetNs::current().unwrap()
        });
        let peer = peer.join().unwrap();
        let rtnl = Rtnl::open().unwrap();
        let veth = Veth {
            host: Interface {
                addresses: vec![network("192.0.2.1/24"), network("2001:db8::1/64")],
                routes: vec![
                    Route::on_link(network("192.0.2.0/24")),
                    Route::on_link(network("2001:db8::/64")),
                ],
                ..Interface::named("eth0")
            },
            pod: Interface::named("eth0"),
        };
        let ends = rtnl.create_veth(&veth, &peer).unwrap();
        rtnl.configure_link(&veth.host, &ends.host).unwrap();
        Self { rtnl, eth0: ends.host, network: Network::open(Options::default()).unwrap(), _peer: peer }
    }

    fn reconcile(&self, others: &[Candidate]) -> Report {
        self.reconcile_beside(others, &[], &Members::default())
    }

    fn reconcile_beside(&self, others: &[Candidate], unread: &[Unread], before: &Members) -> Report {
        let own = node("a", &["192.0.2.1", "2001:db8::1"], &["10.244.0.0/24", "fd00:10:244::/64"]);
        let all: Vec<_> = [own].iter().chain(others).cloned().collect();
        let (members, flaws) = Members::judge(&"a".parse().unwrap(), &all, unread, before);
        assert_eq!(flaws.len(), unread.len(), "{flaws:?}");
        self.network.reconcile(&members).unwrap()
    }

    /// Each route of ours as `destination gateway`.
    fn routes(&self) -> Vec<String> {
        let shown = |route: &MarkedRoute| format!("{} {}", route.dst, route.gateway.unwrap());
        self.rtnl.marked_routes(PROTOCOL).unwrap().iter().map(shown).collect()
    }

    fn tunnel(&self) -> Option<Link> {
        self.rtnl.link(TUNNEL).unwrap()
    }
}

fn in_a_node(test: impl FnOnce(&Node) + Send) {
    let in_namespace = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests of the datapath need root");
        test(&Node::new());
    };
    let ran = thread::scope(|scope| scope.spawn(in_namespace).join());
    if let Err(panic) = ran {
        std::panic::resume_unwind(panic);
    }
}

fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn node(name: &str, addresses: &[&str], pod_cidrs: &[&str]) -> Candidate {
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    Candidate { name: name.into(), addresses: texts(addresses), pod_cidrs: texts(pod_cidrs) }
}

fn near() -> Candidate {
    node("b", &["192.0.2.2", "2001:db8::2"], &["10.244.1.0/24", "fd00:10:244:1::/64"])
}

fn far() -> Candidate {
    node("c", &["198.51.100.3"], &["10.244.2.0/24", "fd00:10:244:2::/64"])
}

fn done(report: &Report) -> Vec<(Kind, Did)> {
    assert_eq!(report.problems, Vec::<String>::new());
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    report.changes.iter().map(|change| (change.kind, change.did)).collect()
}

#[test]
fn a_node_joins_changes_its_subnet_and_leaves_and_nothing_is_done_twice() {
    in_a_node(|a| {
        assert!(a.reconcile(&[]).changes.is_empty());
        let joined = a.reconcile(&[near()]);
        assert_eq!(done(&joined), [(Kind::Route, Did::Added); 2]);
        assert!(joined.stands() && joined.pod_mtu.is_none());
        assert_eq!(a.routes(), ["10.244.1.0/24 192.0.2.2", "fd00:10:244:1::/64 2001:db8::2"]);
        assert!(a.reconcile(&[near()]).changes.is_empty());
        let moved = node("b", &["192.0.2.2"], &["10.244.9.0/24"]);
        let changed = a.reconcile(std::slice::from_ref(&moved));
        assert_eq!(
            done(&changed),
            [(Kind::Route, Did::Added), (Kind::Route, Did::Removed), (Kind::Route, Did::Removed)]
        );
        let elsewhere = node("b", &["192.0.2.7"], &["10.244.9.0/24"]);
        assert_eq!(done(&a.reconcile(&[elsewhere])), [(Kind::Route, Did::Replaced)]);
        assert_eq!(a.routes(), ["10.244.9.0/24 192.0.2.7"]);
        assert_eq!(done(&a.reconcile(&[])), [(Kind::Route, Did::Removed)]);
        assert_eq!(a.routes(), [""; 0]);
    });
}

#[test]
fn a_tunnel_is_there_from_the_first_node_behind_a_router_to_the_last() {
    in_a_node(|a| {
        let joined = a.reconcile(&[near(), far()]);
        assert_eq!(joined.pod_mtu, Some(1450));
        let tunnel = a.tunnel().unwrap();
        assert_eq!((tunnel.mtu, tunnel.up), (1450, true));
        assert_eq!(a.rtnl.far_ends(&tunnel).unwrap().len(), 1);
        assert_eq!(a.rtnl.neighbours_on(&tunnel).unwrap().len(), 2);
        assert_eq!(a.routes().len(), 4);
        assert!(a.reconcile(&[near(), far()]).changes.is_empty());
        // The node is given another address: the far end moves, and no route is touched.
        let moved = Candidate { addresses: vec!["198.51.100.9".into()], ..far() };
        assert_eq!(done(&a.reconcile(&[near(), moved])), [(Kind::Fdb, Did::Replaced)]);
        let remotes: Vec<_> =
            a.rtnl.far_ends(&tunnel).unwrap().into_iter().map(|end: FarEnd| end.remote).collect();
        assert_eq!(remotes, [ip("198.51.100.9")]);
        // It moves onto our link: the IPv4 route takes the place of the one through the tunnel, IPv6 stays inside.
        let onto = Candidate { addresses: vec!["192.0.2.9".into()], ..far() };
        assert!(done(&a.reconcile(&[near(), onto])).contains(&(Kind::Route, Did::Replaced)));
        assert!(a.routes().contains(&"10.244.2.0/24 192.0.2.9".to_owned()));
        let left = a.reconcile(&[near()]);
        assert!(done(&left).contains(&(Kind::Link, Did::Removed)) && a.tunnel().is_none());
        assert_eq!(a.routes().len(), 2);
    });
}

#[test]
fn what_somebody_took_away_or_added_under_our_mark_is_put_right() {
    in_a_node(|a| {
        let all = [near(), far()];
        a.reconcile(&all);
        let routes = a.routes();
        for route in a.rtnl.marked_routes(PROTOCOL).unwrap() {
            a.rtnl.delete_marked_route(PROTOCOL, &route).unwrap();
        }
        let stale = MarkedRoute {
            dst: network("10.250.0.0/24"),
            priority: 0,
            gateway: Some(ip("192.0.2.99")),
            link: a.eth0.index,
            onlink: false,
        };
        a.rtnl.add_marked_route(PROTOCOL, &stale).unwrap();
        let wrong = MarkedRoute { dst: network("10.244.1.0/24"), ..stale };
        a.rtnl.add_marked_route(PROTOCOL, &wrong).unwrap();
        let mut put_right = done(&a.reconcile(&all));
        put_right.sort_by_key(|(_, did)| *did as u8);
        let route = |did| (Kind::Route, did);
        assert_eq!(
            put_right,
            [
                route(Did::Added),
                route(Did::Added),
                route(Did::Added),
                route(Did::Replaced),
                route(Did::Removed)
            ]
        );
        assert_eq!(a.routes(), routes);
        a.rtnl.delete_link(&a.tunnel().unwrap()).unwrap();
        let again = a.reconcile(&all);
        assert_eq!(done(&again).first(), Some(&(Kind::Link, Did::Added)));
        assert_eq!(again.of_kind(Kind::Route).count(), 2, "those into the tunnel had gone with it");
        assert_eq!(a.routes(), routes);
    });
}

#[test]
fn a_route_of_somebody_else_stays_and_is_named_and_no_other_way_waits_for_it() {
    const STATIC: u8 = 4;
    in_a_node(|a| {
        let theirs = MarkedRoute {
            dst: network("10.244.1.0/24"),
            priority: 0,
            gateway: Some(ip("192.0.2.99")),
            link: a.eth0.index,
            onlink: false,
        };
        a.rtnl.add_marked_route(STATIC, &theirs).unwrap();
        let report = a.reconcile(&[near()]);
        assert_eq!(report.problems, [""; 0], "nothing is wrong with this node");
        assert_eq!(
            report.peers[0].unreached,
            [
                "10.244.1.0/24: it is routed through eth0 via 192.0.2.99 (proto static) by somebody else since before; remove that route \
                 (`ip route show 10.244.1.0/24`), or stop who makes it"
            ]
        );
        assert!(!report.stands());
        assert_eq!(a.routes(), ["fd00:10:244:1::/64 2001:db8::2"]);
        assert!(a.rtnl.marked_routes(STATIC).unwrap().contains(&theirs));
        a.reconcile(&[]);
        assert!(a.rtnl.marked_routes(STATIC).unwrap().contains(&theirs));
        a.rtnl.delete_marked_route(STATIC, &theirs).unwrap();
        assert_eq!(done(&a.reconcile(&[near()])).len(), 2);
    });
}

fn ip_does(line: &str) {
    assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "{line}");
}

#[test]
fn one_node_with_a_bad_address_costs_its_own_way_and_no_other() {
    in_a_node(|a| {
        let broadcast = node("d", &["192.0.2.255"], &["10.244.4.0/24"]);
        let report = a.reconcile(&[near(), broadcast]);
        assert_eq!(
            (&report.problems[..], report.refused.len()),
            (&[][..], 0),
            "the kernel is not even asked"
        );
        assert_eq!(a.routes().len(), 2);
        let d = report.peers.iter().find(|peer| peer.node.name == "d").unwrap();
        assert!(
            d.ways.is_empty() && d.unreached[0].contains("192.0.2.255 is the broadcast address"),
            "{d:?}"
        );
    });
}

#[test]
fn who_starts_anew_takes_nothing_away_while_an_entry_cannot_be_read() {
    in_a_node(|a| {
        a.reconcile(&[near(), far()]);
        let (routes, tunnel) = (a.routes(), a.tunnel());
        let unread = Unread { place: "entry 2".into(), name: Some("c".into()), why: "no".into() };
        assert!(a.reconcile_beside(&[near()], &[unread], &Members::unknown()).changes.is_empty());
        assert_eq!((a.routes(), a.tunnel()), (routes, tunnel));
        assert_eq!(a.reconcile(&[near()]).changes.len(), 3, "mended: two routes and the tunnel");
    });
}

#[test]
fn whoever_has_the_tunnels_number_or_port_is_named_with_the_option_that_takes_another() {
    in_a_node(|a| {
        ip_does("link add name cilium_vxlan type vxlan id 4183 dstport 4789 local 192.0.2.1");
        ip_does("link set cilium_vxlan up");
        let report = a.reconcile(&[near(), far()]);
        let [problem] = &report.problems[..] else { panic!("{report:?}") };
        assert!(problem.contains("the VXLAN link cilium_vxlan has the same number 4183"), "{problem}");
        assert!(problem.contains("--vxlan-id"), "{problem}");
        let c = report.peers.iter().find(|peer| peer.node.name == "c").unwrap();
        assert_eq!(c.unreached[0], "10.244.2.0/24: there is no tunnel");
        assert_eq!(a.routes().len(), 2, "the near one is reached");
        ip_does("link del cilium_vxlan");
        let taken = std::net::UdpSocket::bind("0.0.0.0:4789").unwrap();
        let report = a.reconcile(&[near(), far()]);
        let [problem] = &report.problems[..] else { panic!("{report:?}") };
        assert!(
            problem.contains("`ss -lunp 'sport = :4789'`") && problem.contains("--vxlan-port"),
            "{problem}"
        );
        drop(taken);
        assert!(a.reconcile(&[near(), far()]).stands());
    });
}

#[test]
fn a_route_of_ours_that_somebody_replaced_comes_back_and_who_it_was_is_told() {
    in_a_node(|a| {
        a.reconcile(&[near()]);
        let routes = a.routes();
        for (theirs, told) in [
            (
                "route replace 10.244.1.0/24 via 192.0.2.99 proto static",
                "through eth0 via 192.0.2.99 (proto static)",
            ),
            ("route change 10.244.1.0/24 dev eth0", "through eth0 (proto boot)"),
            ("route replace blackhole 10.244.1.0/24 proto bird", "into a blackhole (proto bird)"),
            ("-6 route replace fd00:10:244:1::/64 dev eth0 proto static", "through eth0 (proto static)"),
        ] {
            assert!(Command::new("ip").args(theirs.split(' ')).status().unwrap().success(), "{theirs}");
            let report = a.reconcile(&[near()]);
            assert_eq!(done(&report), [(Kind::Route, Did::Replaced)], "{theirs}");
            assert_eq!(report.changes[0].in_place_of.as_deref(), Some(told), "{theirs}");
            let (mut now, mut before) = (a.routes(), routes.clone());
            now.sort();
            before.sort();
            assert_eq!(now, before);
        }
        // Who was wanted no more is a newcomer when it is wanted again.
        a.reconcile(&[]);
        assert!(
            Command::new("ip")
                .args(["route", "add", "blackhole", "10.244.1.0/24"])
                .status()
                .unwrap()
                .success()
        );
        let report = a.reconcile(&[near()]);
        assert!(
            report.peers[0].unreached[0].contains("routed into a blackhole (proto boot) by somebody else"),
            "{report:?}"
        );
    });
}

#[test]
fn a_link_of_somebody_else_with_our_tunnels_name_is_left_alone_and_named() {
    in_a_node(|a| {
        let made =
            Command::new("ip").args("link add weft.vxlan type vxlan id 9 dstport 4799".split(' ')).status();
        assert!(made.unwrap().success());
        let before = a.tunnel();
        let report = a.reconcile(&[near(), far()]);
        assert!(
            matches!(&report.problems[..], [one] if one.contains("is somebody else's (vxlan, with no alias)")),
            "{:?}",
            report.problems
        );
        assert_eq!(a.tunnel(), before);
        assert_eq!(a.routes().len(), 2, "the node on the same link is reached");
        a.reconcile(&[]);
        assert_eq!(a.tunnel(), before);
    });
}

#[test]
fn a_node_that_is_not_among_the_nodes_leaves_everything_as_it_is() {
    in_a_node(|a| {
        a.reconcile(&[near(), far()]);
        let routes = a.routes();
        let report = a.network.reconcile(&Members::default()).unwrap();
        assert_eq!(report.problems, ["this node is not among the nodes: add it, or mend its entry"]);
        assert_eq!(a.routes(), routes);
    });
}

#[test]
fn a_node_that_loses_its_address_for_a_moment_keeps_its_ways() {
    in_a_node(|a| {
        let ip = |line: &str| {
            assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "{line}")
        };
        a.reconcile(&[near(), far()]);
        let tunnel = |a: &Node| a.rtnl.link(TUNNEL).unwrap().map(|link| link.index);
        let before = tunnel(a).unwrap();
        ip("address del 192.0.2.1/24 dev eth0");
        let report = a.reconcile(&[near(), far()]);
        assert!(report.is_withheld && report.changes.is_empty() && !report.stands(), "{report:?}");
        assert!(report.problems[0].contains("192.0.2.1 is on none of its links"), "{report:?}");
        assert_eq!(tunnel(a), Some(before), "the same tunnel");
        ip("address add 192.0.2.1/24 dev eth0");
        assert!(a.reconcile(&[near(), far()]).stands());
        assert_eq!(tunnel(a), Some(before));
    });
}
