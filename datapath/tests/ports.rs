//! Host ports against the real kernel: a node, two pods and a machine outside, each in a namespace of its own, and real
//! connections between them.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows a test by its attribute, and these functions serve tests"
)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use weft_datapath::{
    HostPort, Interface, Mac, Masquerade, Neighbour, NetNs, Nft, Protocol, Published, Route, Rtnl, Veth,
    conntrack, sysctl,
};

#[path = "shared/namespace.rs"]
mod namespace;
#[path = "shared/ruleset.rs"]
mod ruleset;

use namespace::{fresh_namespace, in_fresh_namespace};
use ruleset::{assert_shown, ruleset};

const PATIENCE: Duration = Duration::from_secs(5);
/// Long enough for what comes at once, short enough to wait for what must not come.
const SHORT: Duration = Duration::from_millis(300);

/// The calling thread's namespace is the node; the table ends with it.
struct Node {
    outside: NetNs,
    pods: [NetNs; 2],
}

fn on_a_node(test: impl FnOnce(&Node) + Send) {
    in_fresh_namespace(|| test(&Node::new()));
}

impl Node {
    fn new() -> Self {
        shell("ip link set lo up");
        for forwarding in [["ipv4", "ip_forward"].as_slice(), &["ipv6", "conf", "all", "forwarding"]] {
            sysctl::set(forwarding, "1").unwrap();
        }
        let outside = connect("up0", ["192.0.2.1", "2001:db8::1"], ["192.0.2.9", "2001:db8::9"]);
        let pods = [
            connect("weft0", ["10.9.0.1", "fd09::1"], ["10.9.0.2", "fd09::2"]),
            connect("weft1", ["10.9.0.1", "fd09::1"], ["10.9.0.3", "fd09::3"]),
        ];
        for host_end in ["weft0", "weft1"] {
            sysctl::set(&["ipv4", "conf", host_end, "route_localnet"], "1").unwrap();
        }
        Self { outside, pods }
    }

    fn pod(&self) -> &NetNs {
        let [pod, _] = &self.pods;
        pod
    }
}

/// A namespace that a pair connects with the caller's.
fn connect(name: &str, here: [&str; 2], there: [&str; 2]) -> NetNs {
    let netns = fresh_namespace();
    let seed = name.bytes().fold(7, |seed: u64, byte| seed * 31 + u64::from(byte));
    let (host_mac, pod_mac) = (Mac::local(seed * 2), Mac::local(seed * 2 + 1));
    let end = |name: &str, mac, own: [&str; 2], others: [&str; 2], other_mac| Interface {
        mac: Some(mac),
        addresses: own.iter().map(|address| ip(address).into()).collect(),
        neighbours: others.iter().map(|other| Neighbour { ip: ip(other), mac: other_mac }).collect(),
        routes: others.iter().map(|other| Route::on_link(ip(other).into())).collect(),
        ..Interface::named(name)
    };
    let mut veth = Veth {
        host: end(name, host_mac, here, there, pod_mac),
        pod: end("eth0", pod_mac, there, here, host_mac),
    };
    let everything = ["0.0.0.0/0", "::/0"].map(|network| network.parse().unwrap());
    veth.pod.routes.extend(everything.into_iter().zip(here).map(|(dst, hop)| Route::via(dst, ip(hop))));
    let host = Rtnl::open().unwrap();
    host.create_veth(&veth, &netns).unwrap();
    host.configure(&veth.host).unwrap();
    let inside = netns.rtnl().unwrap();
    inside.configure(&veth.pod).unwrap();
    netns.run(|| inside.settle("eth0", &veth.pod.addresses)).unwrap().unwrap();
    host.settle(name, &veth.host.addresses).unwrap();
    netns
}

fn shell(command: &str) {
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "{command}");
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(address: &str, protocol: Protocol, port: u16) -> HostPort {
    HostPort { address: ip(address), protocol, port }
}

fn published(at: HostPort, to: &str) -> Published {
    Published { at, to: to.parse().unwrap(), owner: "weft/c1/eth0".to_owned() }
}

/// One TCP server in the pod that tells who it was that asked, for as long as the listener's namespace lives.
fn serve(netns: &NetNs, at: &str) {
    let at: SocketAddr = at.parse().unwrap();
    let listener = netns.run(|| TcpListener::bind(at).unwrap()).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let peer = stream.peer_addr().unwrap().ip();
            let _gone = stream.write_all(peer.to_string().as_bytes());
        }
    });
}

/// Asks the server at `to` who it sees, from the calling thread's namespace.
fn ask(to: &str) -> Result<String, std::io::Error> {
    ask_within(to, PATIENCE)
}

fn ask_within(to: &str, patience: Duration) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect_timeout(&to.parse().unwrap(), patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn udp(netns: &NetNs, at: &str) -> UdpSocket {
    let at: SocketAddr = at.parse().unwrap();
    let socket = netns.run(|| UdpSocket::bind(at).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn received(socket: &UdpSocket) -> Option<(String, SocketAddr)> {
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).ok()?;
    Some((String::from_utf8_lossy(buffer.get(..length)?).into_owned(), from))
}

fn tcp_on_both_families() -> Vec<Published> {
    vec![
        published(at("0.0.0.0", Protocol::Tcp, 8080), "10.9.0.2:80"),
        published(at("::", Protocol::Tcp, 8080), "[fd09::2]:80"),
    ]
}

#[test]
fn a_published_port_is_reached_from_outside_with_the_clients_own_address() {
    on_a_node(|node| {
        Nft::open().unwrap().install(&[], &tcp_on_both_families()).unwrap();
        for address in ["10.9.0.2:80", "[fd09::2]:80"] {
            serve(node.pod(), address);
        }
        let answers = node.outside.run(|| [ask("192.0.2.1:8080"), ask("[2001:db8::1]:8080")]).unwrap();
        assert_eq!(answers.map(Result::unwrap), ["192.0.2.9", "2001:db8::9"]);
        let other = node.outside.run(|| ask("192.0.2.1:8081")).unwrap().unwrap_err();
        assert_eq!(other.raw_os_error(), Some(Errno::ECONNREFUSED as i32), "another port is not published");
    });
}

#[test]
fn a_published_port_is_reached_from_the_node_and_from_its_own_loopback() {
    on_a_node(|node| {
        Nft::open().unwrap().install(&[], &tcp_on_both_families()).unwrap();
        for address in ["10.9.0.2:80", "[fd09::2]:80"] {
            serve(node.pod(), address);
        }
        assert_eq!(ask("192.0.2.1:8080").unwrap(), "192.0.2.1");
        assert_eq!(ask("[2001:db8::1]:8080").unwrap(), "2001:db8::1");
        assert_eq!(ask("127.0.0.1:8080").unwrap(), "10.9.0.1");
        assert_eq!(ask("127.7.7.7:8080").unwrap(), "10.9.0.1");
        let refused = ask("[::1]:8080").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::ECONNREFUSED as i32), "at once: clients try the next");
    });
}

#[test]
fn a_pod_reaches_itself_and_its_neighbour_reaches_it_through_a_port_of_the_node() {
    on_a_node(|node| {
        Nft::open().unwrap().install(&[], &tcp_on_both_families()).unwrap();
        for address in ["10.9.0.2:80", "[fd09::2]:80"] {
            serve(node.pod(), address);
        }
        let [pod, neighbour] = &node.pods;
        let own = pod.run(|| [ask("192.0.2.1:8080"), ask("[2001:db8::1]:8080")]).unwrap();
        assert_eq!(own.map(Result::unwrap), ["10.9.0.1", "fd09::1"]);
        let neighbours = neighbour.run(|| [ask("192.0.2.1:8080"), ask("[2001:db8::1]:8080")]).unwrap();
        assert_eq!(neighbours.map(Result::unwrap), ["10.9.0.3", "fd09::3"]);
    });
}

#[test]
fn pods_on_one_bridge_reach_each_other_and_themselves_through_a_port_of_the_node() {
    on_a_node(|node| {
        shell("ip link add cni0 type bridge");
        // With `br_netfilter` the answers pass the firewall on the bridge, and nothing has to be done for them.
        let filtered = ["bridge", "bridge-nf-call-iptables"];
        if sysctl::get(&filtered).unwrap().is_some() {
            sysctl::set(&filtered, "0").unwrap();
        }
        shell("ip link set cni0 address 02:00:00:00:00:99 up");
        for (index, pod) in node.pods.iter().enumerate() {
            let host_end = format!("weft{index}");
            shell(&format!("ip addr flush dev {host_end}"));
            shell(&format!("ip route flush dev {host_end}"));
            shell(&format!("ip link set {host_end} master cni0"));
            pod.run(|| shell("ip neigh flush dev eth0 nud permanent")).unwrap();
            pod.run(|| shell("ip route add 10.9.0.0/24 dev eth0")).unwrap();
        }
        shell("ip addr add 10.9.0.1/24 dev cni0");
        // It has a carrier from its first port on, of which the kernel takes note in its own time.
        Rtnl::open().unwrap().settle("cni0", &[]).unwrap();
        let port = published(at("0.0.0.0", Protocol::Tcp, 8080), "10.9.0.2:80");
        Nft::open().unwrap().install(&[], &[port]).unwrap();
        let [pod, neighbour] = &node.pods;
        serve(pod, "10.9.0.2:80");
        for asking in [pod, neighbour] {
            assert_eq!(asking.run(|| ask("192.0.2.1:8080")).unwrap().unwrap(), "10.9.0.1");
        }
        assert_eq!(
            neighbour.run(|| ask("10.9.0.2:80")).unwrap().unwrap(),
            "10.9.0.3",
            "not what goes there directly"
        );
        assert_eq!(node.outside.run(|| ask("192.0.2.1:8080")).unwrap().unwrap(), "192.0.2.9");
    });
}

#[test]
fn what_goes_through_the_node_to_the_same_port_elsewhere_is_left_alone() {
    on_a_node(|node| {
        Nft::open().unwrap().install(&[], &tcp_on_both_families()).unwrap();
        serve(&node.outside, "192.0.2.9:8080");
        serve(node.pod(), "10.9.0.2:80");
        let [_, neighbour] = &node.pods;
        assert_eq!(neighbour.run(|| ask("192.0.2.9:8080")).unwrap().unwrap(), "10.9.0.3");
        assert_eq!(ask("192.0.2.9:8080").unwrap(), "192.0.2.1");
    });
}

#[test]
fn a_port_on_one_address_comes_before_the_same_on_all() {
    on_a_node(|node| {
        let nft = Nft::open().unwrap();
        let everywhere = published(at("0.0.0.0", Protocol::Tcp, 8080), "10.9.0.2:80");
        let here = published(at("192.0.2.1", Protocol::Tcp, 8080), "10.9.0.2:81");
        nft.install(&[], &[everywhere.clone(), here.clone()]).unwrap();
        let pod = node.pod();
        let tell = |port: u16, words: &'static str| {
            let listener = pod.run(|| TcpListener::bind((ip("10.9.0.2"), port)).unwrap()).unwrap();
            thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let _gone = stream.write_all(words.as_bytes());
                }
            });
        };
        tell(80, "everywhere");
        tell(81, "here");
        assert_eq!(ask("192.0.2.1:8080").unwrap(), "here");
        assert_eq!(ask("127.0.0.1:8080").unwrap(), "everywhere");
        nft.unpublish(&[here]).unwrap();
        assert_eq!(ask("192.0.2.1:8080").unwrap(), "everywhere");
        assert_eq!(nft.published().unwrap(), [everywhere]);
    });
}

#[test]
fn tcp_and_udp_may_have_the_same_port() {
    on_a_node(|node| {
        let [pod, neighbour] = &node.pods;
        let ports = [
            published(at("0.0.0.0", Protocol::Tcp, 53), "10.9.0.2:80"),
            published(at("0.0.0.0", Protocol::Udp, 53), "10.9.0.3:5353"),
            published(at("::", Protocol::Udp, 53), "[fd09::3]:5353"),
        ];
        Nft::open().unwrap().install(&[], &ports).unwrap();
        serve(pod, "10.9.0.2:80");
        assert_eq!(node.outside.run(|| ask("192.0.2.1:53")).unwrap().unwrap(), "192.0.2.9");
        for (server, client, to) in [
            ("10.9.0.3:5353", "192.0.2.9:0", "192.0.2.1:53"),
            ("[fd09::3]:5353", "[2001:db8::9]:0", "[2001:db8::1]:53"),
        ] {
            let (server, client) = (udp(neighbour, server), udp(&node.outside, client));
            client.send_to(b"question", to).unwrap();
            let (question, from) = received(&server).unwrap();
            assert_eq!((question.as_str(), from), ("question", client.local_addr().unwrap()));
            server.send_to(b"answer", from).unwrap();
            assert_eq!(received(&client).unwrap(), ("answer".to_owned(), to.parse().unwrap()));
        }
    });
}

#[test]
fn a_udp_client_that_goes_on_sending_reaches_the_next_pod_of_the_port() {
    on_a_node(|node| {
        let nft = Nft::open().unwrap();
        for (there, first, second, from) in [
            ("192.0.2.1:5000", "10.9.0.2:5001", "10.9.0.3:5001", "192.0.2.9:4000"),
            ("[2001:db8::1]:5000", "[fd09::2]:5001", "[fd09::3]:5001", "[2001:db8::9]:4000"),
        ] {
            let everywhere = if there.starts_with('[') { "::" } else { "0.0.0.0" };
            let port = |to| [published(at(everywhere, Protocol::Udp, 5000), to)];
            let [one, other] = &node.pods;
            let servers = [udp(one, first), udp(other, second)];
            let client = udp(&node.outside, from);
            client.connect(there).unwrap();
            let send = || client.send(b"x").map(|_| ());

            // Before there is any pod: the node itself refuses, and remembers that it was asked.
            send().unwrap();
            let refused = client.recv(&mut [0]).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(Errno::ECONNREFUSED as i32));
            nft.install(&[], &port(first)).unwrap();
            conntrack::forget_others(&port(first)).unwrap();
            send().unwrap();
            assert!(received(&servers[0]).is_some(), "the flow from before is forgotten");

            nft.unpublish(&port(first)).unwrap();
            nft.install(&[], &port(second)).unwrap();
            send().unwrap();
            assert!(received(&servers[0]).is_some(), "or this tests nothing: the flow keeps its way");
            conntrack::forget(&port(first)).unwrap();
            send().unwrap();
            assert!(received(&servers[1]).is_some(), "the old pod's flow is forgotten");

            nft.unpublish(&port(second)).unwrap();
            nft.install(&[], &port(first)).unwrap();
            conntrack::forget_others(&port(first)).unwrap();
            send().unwrap();
            assert!(received(&servers[0]).is_some(), "also where the old pod's end was missed");
            nft.unpublish(&port(first)).unwrap();
        }
    });
}

#[test]
fn flows_that_only_pass_through_or_lead_to_the_pod_already_are_not_forgotten() {
    on_a_node(|node| {
        let nft = Nft::open().unwrap();
        // Whoever masquerades sees by its client's port whether a flow was forgotten.
        let network = "10.9.0.2/32".parse().unwrap();
        let masquerade = Masquerade { address: network, owner: "weft/c1/eth0".to_owned() };
        let ports = [published(at("0.0.0.0", Protocol::Udp, 5000), "10.9.0.3:5001")];
        nft.install(&[masquerade], &ports).unwrap();
        let (server, client) = (udp(&node.outside, "192.0.2.9:5000"), udp(node.pod(), "10.9.0.2:4000"));
        client.send_to(b"x", "192.0.2.9:5000").unwrap();
        let (_, seen) = received(&server).unwrap();
        assert_eq!(seen.ip(), ip("192.0.2.1"));
        nft.stop_masquerading("weft/c1/eth0", &[ip("10.9.0.2")]).unwrap();
        conntrack::forget_others(&ports).unwrap();
        conntrack::forget(&ports).unwrap();
        client.send_to(b"x", "192.0.2.9:5000").unwrap();
        assert_eq!(received(&server).unwrap().1, seen);
    });
}

#[test]
fn the_nodes_loopback_stays_closed_to_pods_although_packets_of_it_are_routed() {
    on_a_node(|node| {
        Nft::open().unwrap().install(&[], &tcp_on_both_families()).unwrap();
        serve(&NetNs::current().unwrap(), "127.0.0.1:9");
        // A pod that may change its own routes: its loopback is down, and so 127.0.0.0/8 is nobody's there.
        let attack = || {
            sysctl::set(&["ipv4", "conf", "eth0", "route_localnet"], "1").unwrap();
            shell("ip route add 127.0.0.0/8 via 10.9.0.1 dev eth0");
            ask_within("127.0.0.1:9", SHORT)
        };
        assert!(node.pod().run(attack).unwrap().is_err());
        shell("nft delete chain inet weft loopback");
        let again = node.pod().run(|| ask("127.0.0.1:9")).unwrap();
        assert_eq!(again.unwrap(), "10.9.0.2", "or this tests nothing");
    });
}

#[test]
fn ports_are_shown_by_nft_with_their_owners_and_go_with_them() {
    on_a_node(|_| {
        let nft = Nft::open().unwrap();
        let ports = [
            published(at("0.0.0.0", Protocol::Sctp, 3868), "10.9.0.2:3868"),
            published(at("192.0.2.1", Protocol::Tcp, 8080), "10.9.0.2:80"),
            published(at("::", Protocol::Udp, 53), "[fd09::2]:53"),
            published(at("2001:db8::1", Protocol::Tcp, 443), "[fd09::2]:8443"),
        ];
        nft.install(&[], &ports).unwrap();
        assert_shown(&[
            r#"sctp . 3868 comment "weft/c1/eth0" : 10.9.0.2 . 3868"#,
            r#"192.0.2.1 . tcp . 8080 comment "weft/c1/eth0" : 10.9.0.2 . 80"#,
            r#"udp . 53 comment "weft/c1/eth0" : fd09::2 . 53"#,
            r#"2001:db8::1 . tcp . 443 comment "weft/c1/eth0" : fd09::2 . 8443"#,
            r#"10.9.0.2 . 10.9.0.2 comment "weft/c1/eth0""#,
            "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
            "dnat ip to ip daddr . meta l4proto . th dport map @ports4_at",
            "dnat ip to meta l4proto . th dport map @ports4",
            "dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6_at",
            "dnat ip6 to meta l4proto . th dport map @ports6",
            "type nat hook prerouting priority dstnat; policy accept;",
            "type nat hook output priority -100; policy accept;",
            "fib daddr type local jump ports",
            "ip6 daddr ::1 return",
            "ip6 saddr . ip6 daddr @hairpin6 masquerade",
            r#"meta iifkind "bridge" meta oifkind "bridge" ct status dnat ip daddr . ip daddr @hairpin4 masquerade"#,
            r#"oif != "lo" ip saddr 127.0.0.0/8 masquerade"#,
            r#"iif != "lo" ip daddr 127.0.0.0/8 drop"#,
        ]);
        let mut listed = nft.published().unwrap();
        listed.sort_by_key(|port| port.at);
        assert_eq!(listed.len(), ports.len());
        for port in &ports {
            assert!(listed.contains(port), "{port:?}");
            assert_eq!(nft.published_at(&port.at).unwrap().as_ref(), Some(port));
        }
        let absent = at("0.0.0.0", Protocol::Tcp, 1);
        let asked = ports.iter().map(|port| port.at).chain([absent]);
        let standing = ports.iter().cloned().map(Some).chain([None]);
        assert_eq!(nft.published_at_each(asked).unwrap(), standing.collect::<Vec<_>>());
        // More than one message may ask for.
        let often = nft.published_at_each(std::iter::repeat_n(ports[0].at, 1000)).unwrap();
        assert_eq!(often, vec![Some(ports[0].clone()); 1000]);
        nft.remove_unused_table().unwrap();
        assert_eq!(nft.published().unwrap().len(), ports.len(), "a table in use stays");
        nft.unpublish(&ports).unwrap();
        nft.unpublish(&ports).unwrap();
        assert!(!ruleset().contains("weft/c1/eth0"), "{}", ruleset());
        nft.remove_unused_table().unwrap();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn a_port_that_is_taken_refuses_everything_and_tells_whose_it_is() {
    on_a_node(|_| {
        let nft = Nft::open().unwrap();
        let first = published(at("0.0.0.0", Protocol::Tcp, 8080), "10.9.0.2:80");
        nft.install(&[], std::slice::from_ref(&first)).unwrap();
        let second = Published {
            to: "10.9.0.3:80".parse().unwrap(),
            owner: "weft/c2/eth0".to_owned(),
            ..first.clone()
        };
        let free = Published { at: at("0.0.0.0", Protocol::Tcp, 8081), ..second.clone() };
        let masquerade =
            Masquerade { address: "10.9.0.3/24".parse().unwrap(), owner: "weft/c2/eth0".to_owned() };
        let before = ruleset();
        let error = nft.install(&[masquerade], &[free, second.clone()]).unwrap_err();
        assert_eq!(error.errno(), Errno::EEXIST, "{error}");
        assert_eq!(nft.published_at(&second.at).unwrap().unwrap().owner, "weft/c1/eth0");
        assert_eq!(ruleset(), before);
        nft.unpublish(&[second]).unwrap();
        assert_eq!(ruleset(), before, "what is somebody else's stays");
    });
}

#[test]
fn what_an_owner_left_is_replaced_by_the_owner_and_a_flushed_ruleset_is_put_right() {
    on_a_node(|node| {
        let nft = Nft::open().unwrap();
        let old = published(at("0.0.0.0", Protocol::Tcp, 8080), "10.9.0.3:80");
        let new = published(old.at, "10.9.0.2:80");
        // Somebody else was killed with the same address.
        let lost = Published {
            owner: "weft/lost/eth0".to_owned(),
            ..published(at("0.0.0.0", Protocol::Tcp, 1), "10.9.0.2:80")
        };
        nft.install(&[], std::slice::from_ref(&lost)).unwrap();
        nft.install(&[], &[old]).unwrap();
        nft.install(&[], std::slice::from_ref(&new)).unwrap();
        assert_eq!(nft.published_at(&new.at).unwrap().as_ref(), Some(&new));
        nft.unpublish(&[lost]).unwrap();
        assert!(ruleset().contains("10.9.0.2 . 10.9.0.2"), "the way to itself is the new owner's");
        shell("nft flush ruleset");
        nft.unpublish(std::slice::from_ref(&new)).unwrap();
        nft.install(&[], std::slice::from_ref(&new)).unwrap();
        serve(node.pod(), "10.9.0.2:80");
        assert_eq!(ask("192.0.2.1:8080").unwrap(), "192.0.2.1");
    });
}

#[test]
fn many_processes_may_publish_at_once() {
    on_a_node(|_| {
        let node = NetNs::current().unwrap();
        thread::scope(|scope| {
            for worker in 0..8u16 {
                let node = &node;
                scope.spawn(move || {
                    let nft = node.run(Nft::open).unwrap().unwrap();
                    for round in 0..20u16 {
                        let port = 1000 + 100 * worker + round;
                        let to = format!("10.9.{worker}.{round}:80");
                        let ports = [published(at("0.0.0.0", Protocol::Tcp, port), &to)];
                        nft.install(&[], &ports).unwrap();
                        nft.unpublish(&ports).unwrap();
                        nft.remove_unused_table().unwrap();
                    }
                });
            }
        });
        assert_eq!(ruleset(), "");
    });
}
