//! What somebody takes away under traffic comes back, and an agent that dies takes nothing with it.
//!
//! How many pods the full node has `WEFT_PODS` says; attaching 1 000 takes a minute.

#![cfg(test)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use weft_e2e::cluster::{Host, Hosts};
use weft_e2e::{Attachment, Node, Pod, cni, wait};

const ALL: [&str; 3] = ["a", "b", "c"];
/// Far above what healing takes; how long it takes is printed.
const PATIENCE: Duration = Duration::from_secs(20);
/// An answer within the cluster takes less than a millisecond.
const ANSWER: Duration = Duration::from_millis(20);
/// So many answers in a row say that it is healed.
const WELL: usize = 20;
/// So often each is taken away.
const ROUNDS: usize = 3;

/// A pod with a server that tells each caller who it is.
struct Attached {
    pod: Pod,
    addresses: [IpAddr; 2],
}

fn attach(host: &Host, name: &str) -> Attached {
    let pod = Pod::create(&host.node, name).unwrap();
    let result = host.network().unwrap().add(&host.node, &Attachment::of(&pod)).unwrap();
    let addresses = [0, 1].map(|nth| cni::address(&result, nth).unwrap());
    addresses
        .iter()
        .for_each(|address| tell_callers(pod.run(|| UdpSocket::bind((*address, 7))).unwrap().unwrap()));
    Attached { pod, addresses }
}

/// Answers every packet with the address that it came from. It ends with the process.
fn tell_callers(server: UdpSocket) {
    thread::spawn(move || {
        let mut packet = [0; 64];
        while let Ok((_, caller)) = server.recv_from(&mut packet) {
            // Who is not reached any more is told nothing.
            server.send_to(caller.ip().to_string().as_bytes(), caller).ok();
        }
    });
}

/// Whom a server sees when this pod calls it, by a connection that nobody has seen before.
fn seen_as(pod: &Pod, server: IpAddr) -> Option<IpAddr> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = pod.run(|| UdpSocket::bind(any)).unwrap().unwrap();
    socket.set_read_timeout(Some(ANSWER)).unwrap();
    socket.send_to(b"?", (server, 7)).ok()?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer).ok()?;
    std::str::from_utf8(&answer[..length]).ok()?.parse().ok()
}

/// How long after `insult` there was still no good answer.
fn heals(node: &Node, insult: &str, is_well: impl Fn() -> bool) -> Duration {
    // The first packet of all has to find who is next.
    wait::until(&format!("all to be well before {insult:?}"), PATIENCE, || {
        if is_well() { Ok(()) } else { Err(String::new()) }
    })
    .unwrap();
    let start = Instant::now();
    for command in insult.split("; ") {
        node.sh(command).unwrap_or_else(|error| panic!("{command}: {error}"));
    }
    let (mut last_failure, mut well) = (start, 0);
    while well < WELL {
        assert!(start.elapsed() < PATIENCE, "not healed from {insult:?}");
        if is_well() {
            well += 1;
        } else {
            (last_failure, well) = (Instant::now(), 0);
        }
    }
    last_failure - start
}

#[test]
fn what_is_taken_away_under_traffic_comes_back() {
    let mut hosts = Hosts::start().unwrap();
    hosts.tell(&ALL).unwrap();
    hosts.run_agents(&ALL).unwrap();
    let [a, b, c] = ALL.map(|name| attach(hosts.host(name), name));
    let outside: [IpAddr; 2] = ["192.0.2.254".parse().unwrap(), "2001:db8::fe".parse().unwrap()];
    for address in outside {
        tell_callers(hosts.router().run(|| UdpSocket::bind((address, 7))).unwrap().unwrap());
    }
    let host = hosts.host("a");
    let node_addresses: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let reaches = |to: [IpAddr; 2], as_whom: [IpAddr; 2]| {
        (0..2).all(|family| seen_as(&a.pod, to[family]) == Some(as_whom[family]))
    };
    let neighbours = || reaches(b.addresses, a.addresses) && reaches(c.addresses, a.addresses);
    let world = || reaches(outside, node_addresses);
    let both = || neighbours() && world();
    let insults: [(&str, &dyn Fn() -> bool); 13] = [
        ("nft flush ruleset", &both),
        ("nft flush set inet weft unmasqueraded4; nft flush set inet weft unmasqueraded6", &neighbours),
        ("nft flush chain inet weft postrouting", &world),
        ("ip route flush proto 87; ip -6 route flush proto 87", &neighbours),
        ("ip route flush root 10.244.0.0/24; ip -6 route flush root fd00:10:244::/64", &both),
        (
            "ip route replace 10.244.1.0/24 via 192.0.2.99 proto static; ip -6 route replace blackhole fd00:10:244:1::/64",
            &neighbours,
        ),
        (
            "ip address del 192.0.2.1/24 dev eth0; ip address add 192.0.2.1/24 dev eth0; ip route add default via 192.0.2.254",
            &both,
        ),
        (
            "ip link set eth0 down; ip link set eth0 up; ip address replace 2001:db8::1/64 dev eth0 nodad; \
             ip route replace default via 192.0.2.254; ip -6 route replace default via 2001:db8::fe dev eth0",
            &both,
        ),
        ("ip link del weft.vxlan", &neighbours),
        ("ip link set weft.vxlan down", &neighbours),
        ("ip neigh flush nud all dev weft.vxlan; ip -6 neigh flush nud all dev weft.vxlan", &neighbours),
        ("ip link set weft.vxlan mtu 1300; ip neigh del 10.244.2.0 dev weft.vxlan", &neighbours),
        ("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0", &both),
    ];
    let mut took = BTreeMap::<&str, Vec<Duration>>::new();
    for _ in 0..ROUNDS {
        for (insult, is_well) in insults {
            took.entry(insult).or_default().push(heals(&host.node, insult, is_well));
        }
    }
    for (insult, mut times) in took {
        times.sort();
        eprintln!("{insult}: healed in {:?}, at most {:?}", times[ROUNDS / 2], times[ROUNDS - 1]);
    }
    let status = host.status().unwrap();
    let heals = status["repair"]["heals"].as_object().unwrap();
    assert!(heals.contains_key("unmasqueraded") && heals.contains_key("pod"), "{status}");
}

#[test]
fn what_is_taken_from_a_full_node_comes_back_to_all_of_its_pods() {
    const SAMPLES: usize = 8;
    let count: usize = std::env::var("WEFT_PODS").map_or(24, |count| count.parse().unwrap());
    let mut hosts = Hosts::start().unwrap();
    hosts.host_mut("a").pods = ["10.245.0.0/20".to_owned(), "fd00:10:245::/64".to_owned()];
    hosts.tell(&ALL).unwrap();
    hosts.run_agents(&ALL).unwrap();
    let b = attach(hosts.host("b"), "b");
    let outside: IpAddr = "192.0.2.254".parse().unwrap();
    tell_callers(hosts.router().run(|| UdpSocket::bind((outside, 7))).unwrap().unwrap());
    let host = hosts.host("a");
    let pods: Vec<_> = (0..count).map(|nth| attach(host, &format!("p{nth}"))).collect();
    let samples: Vec<_> = pods.iter().rev().step_by(count.div_ceil(SAMPLES)).collect();
    let node: IpAddr = "192.0.2.1".parse().unwrap();
    let reach_pods = |sample: &&Attached| {
        (0..2).all(|family| seen_as(&sample.pod, b.addresses[family]) == Some(sample.addresses[family]))
    };
    let neighbours = || samples.iter().all(reach_pods);
    let all = || neighbours() && samples.iter().all(|sample| seen_as(&sample.pod, outside) == Some(node));
    let pods_routes =
        format!("ip route flush root {}; ip -6 route flush root {}", host.pods[0], host.pods[1]);
    let insults: [(&str, &dyn Fn() -> bool); 3] = [
        ("nft flush ruleset", &all),
        (&pods_routes, &all),
        ("ip route flush proto 87; ip -6 route flush proto 87", &neighbours),
    ];
    for (insult, is_well) in insults {
        let took: Vec<_> = (0..ROUNDS).map(|_| heals(&host.node, insult, is_well)).collect();
        eprintln!("{count} pods, {insult}: healed in {took:?}");
    }
}

#[test]
fn who_replaces_a_route_again_and_again_is_answered_more_slowly_and_named() {
    let mut hosts = Hosts::start().unwrap();
    hosts.tell(&ALL).unwrap();
    hosts.run_agents(&ALL).unwrap();
    let host = hosts.host("a");
    let fight = |status: &serde_json::Value| {
        host.node.sh("ip route replace 10.244.1.0/24 via 192.0.2.99 proto static").unwrap();
        status["repair"]["storms"].as_object().is_some_and(|storms| !storms.is_empty())
    };
    let status = host.until("somebody to be told of", fight).unwrap();
    let storms = status["repair"]["storms"].to_string();
    assert!(storms.contains("the route 10.244.1.0/24"), "{storms}");
    assert!(storms.contains("through eth0 via 192.0.2.99 (proto static)"), "{storms}");
    host.until("the route to be back all the same", |_| {
        host.node.sh("ip route show 10.244.1.0/24").unwrap().contains("proto 87")
    })
    .unwrap();
}

/// A connection on which numbered words are sent for as long as it is wanted, each of which must come.
struct Flow {
    wanted: Arc<AtomicBool>,
    sender: thread::JoinHandle<u64>,
    receiver: thread::JoinHandle<u64>,
}

impl Flow {
    fn start(from: &Pod, to: &Pod, address: IpAddr) -> Self {
        let listener = to.run(|| TcpListener::bind((address, 0))).unwrap().unwrap();
        let at: SocketAddr = listener.local_addr().unwrap();
        let receiver = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let (mut word, mut count) = ([0; 8], 0_u64);
            while stream.read_exact(&mut word).is_ok() {
                assert_eq!(u64::from_be_bytes(word), count, "to {address}");
                count += 1;
            }
            count
        });
        let mut stream = from.run(|| TcpStream::connect_timeout(&at, PATIENCE)).unwrap().unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let wanted = Arc::new(AtomicBool::new(true));
        let is_wanted = Arc::clone(&wanted);
        let sender = thread::spawn(move || {
            let mut count = 0_u64;
            while is_wanted.load(Ordering::Relaxed) {
                // A thousand at a time, and a pause that the kernel makes: a full socket.
                let words: Vec<u8> = (count..count + 1000).flat_map(u64::to_be_bytes).collect();
                stream.write_all(&words).unwrap();
                count += 1000;
            }
            count
        });
        Self { wanted, sender, receiver }
    }

    fn ends_whole(self) {
        self.wanted.store(false, Ordering::Relaxed);
        let sent = self.sender.join().unwrap();
        assert_eq!(self.receiver.join().unwrap(), sent);
        assert!(sent > 0);
    }
}

#[test]
fn connections_outlive_the_agents_death_its_next_start_and_every_repair() {
    let mut hosts = Hosts::start().unwrap();
    hosts.tell(&ALL).unwrap();
    hosts.run_agents(&ALL).unwrap();
    let [a, b, c] = ALL.map(|name| attach(hosts.host(name), name));
    let flows: Vec<_> = [&b, &c]
        .iter()
        .flat_map(|to| to.addresses.map(|address| Flow::start(&a.pod, &to.pod, address)))
        .collect();
    for name in ALL {
        hosts.host_mut(name).kill_agent();
    }
    // Nobody is there to put it back yet.
    hosts.host("a").node.sh("ip route flush proto 87").unwrap();
    hosts.host("a").node.sh("nft flush ruleset").unwrap();
    hosts.run_agents(&ALL).unwrap();
    hosts.tell(&["a", "c"]).unwrap();
    hosts
        .host("a")
        .until("b to be gone", |status| {
            status["network"]["peers"].as_array().is_some_and(|peers| peers.len() == 1)
        })
        .unwrap();
    hosts.tell(&ALL).unwrap();
    hosts
        .host("a")
        .until("b to be back", |status| {
            status["network"]["peers"].as_array().is_some_and(|peers| peers.len() == 2)
        })
        .unwrap();
    hosts.host("a").node.sh("ip link del weft.vxlan").unwrap();
    flows.into_iter().for_each(Flow::ends_whole);
}
