//! Token buckets on the real kernel, measured with TCP between two fresh namespaces.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows a test by its attribute, and these functions serve tests"
)]

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use weft_datapath::{Interface, NetNs, Route, Rtnl, Shaping, Veth};

#[path = "shared/namespace.rs"]
mod namespace;

use namespace::{fresh_namespace, in_fresh_namespace};

const HOST: &str = "10.9.0.1";
const POD: &str = "10.9.0.2";

/// A thread in a namespace of its own, as the host, with a pod; `host` and `pod` say what leaves by each end.
fn on_a_pair(host: Option<Shaping>, pod: Option<Shaping>, mtu: u32, test: impl FnOnce(&NetNs) + Send) {
    in_fresh_namespace(|| {
        let netns = fresh_namespace();
        attach(&netns, host, pod, mtu);
        test(&netns);
    });
}

fn attach(netns: &NetNs, host: Option<Shaping>, pod: Option<Shaping>, mtu: u32) {
    let end = |name: &str, own: &str, other: &str, shaping| Interface {
        addresses: vec![own.parse().unwrap()],
        routes: vec![Route::on_link(other.parse().unwrap())],
        shaping,
        mtu: Some(mtu),
        ..Interface::named(name)
    };
    let veth = Veth { host: end("weft0", HOST, POD, host), pod: end("eth0", POD, HOST, pod) };
    let rtnl = Rtnl::open().unwrap();
    rtnl.create_veth(&veth, netns).unwrap();
    rtnl.configure(&veth.host).unwrap();
    netns.rtnl().unwrap().configure(&veth.pod).unwrap();
}

/// A TCP stream that sends as fast as it may, for about `time`: what arrived, and how long it really took from before the
/// first byte of it was sent.
fn stream(from: &NetNs, to: &NetNs, address: &str, time: Duration) -> (f64, f64) {
    let ip: IpAddr = address.parse().unwrap();
    let listener = to.run(|| TcpListener::bind((ip, 0)).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut sender = from.run(|| TcpStream::connect(address).unwrap()).unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    let start = Instant::now();
    // Until the receiver has gone.
    let sending = thread::spawn(move || while sender.write_all(&[0; 64 << 10]).is_ok() {});
    let (mut buffer, mut total) = (vec![0; 256 << 10], 0);
    while start.elapsed() < time {
        total += receiver.read(&mut buffer).unwrap();
    }
    let elapsed = start.elapsed();
    drop(receiver);
    sending.join().unwrap();
    (total as f64, elapsed.as_secs_f64())
}

const TO_POD: bool = true;
const FROM_POD: bool = false;

/// The rate of a stream in bytes a second, of which `burst` bytes are not counted.
fn rate(to_pod: bool, host: Option<Shaping>, pod: Option<Shaping>, mtu: u32, burst: u32) -> f64 {
    const TIME: Duration = Duration::from_millis(400);
    let (sender, receiver) = mpsc::channel();
    on_a_pair(host, pod, mtu, |netns| {
        let own = NetNs::current().unwrap();
        let (bytes, seconds) =
            if to_pod { stream(&own, netns, POD, TIME) } else { stream(netns, &own, HOST, TIME) };
        sender.send((bytes - f64::from(burst)) / seconds).unwrap();
    });
    receiver.recv().unwrap()
}

#[test]
fn each_direction_is_held_to_its_rate_from_the_first_byte_and_comes_near_it() {
    let shaping = Shaping { rate: 25_000_000, burst: 500_000 };
    for (direction, host, pod) in [(TO_POD, Some(shaping), None), (FROM_POD, None, Some(shaping))] {
        let rate = rate(direction, host, pod, 1500, shaping.burst);
        assert!((15e6..=25e6).contains(&rate), "{rate} to the pod: {direction}");
    }
}

#[test]
fn the_other_direction_is_as_fast_as_ever() {
    let shaping = Shaping { rate: 25_000_000, burst: 500_000 };
    for (direction, host, pod) in [(FROM_POD, Some(shaping), None), (TO_POD, None, Some(shaping))] {
        let rate = rate(direction, host, pod, 1500, 0);
        assert!(rate > 75e6, "{rate} to the pod: {direction}");
    }
}

#[test]
fn packets_of_any_mtu_pass_whatever_the_burst() {
    for mtu in [1500, 9000, 65_535] {
        let rate = rate(TO_POD, Some(Shaping { rate: 5_000_000, burst: 1 }), None, mtu, 0);
        assert!(rate > 1e6, "{rate} with an MTU of {mtu}");
    }
}

#[test]
fn what_stands_is_seen_and_replaced_and_gone_with_the_pair() {
    let shaping = Shaping { rate: 1_250_000, burst: 25_000 };
    on_a_pair(Some(shaping), None, 1500, |netns| {
        let (host, inside) = (Rtnl::open().unwrap(), netns.rtnl().unwrap());
        let link = host.link("weft0").unwrap().unwrap();
        assert_eq!(host.observe().unwrap().shaped, [(link.index, shaping.shaped(1500))]);
        assert_eq!(inside.observe().unwrap().shaped, []);
        // A rate that takes more than 32 bits.
        let faster = Shaping { rate: 12_500_000_000, burst: 250_000_000 };
        host.configure(&Interface { shaping: Some(faster), ..Interface::named("weft0") }).unwrap();
        assert_eq!(host.observe().unwrap().shaped, [(link.index, faster.shaped(1500))]);
        host.delete_link(&link).unwrap();
        assert_eq!(host.observe().unwrap().shaped, []);
    });
}

#[test]
fn attributes_of_a_link_are_seen_as_they_were_asked_for() {
    on_a_pair(None, None, 1500, |netns| {
        let inside = netns.rtnl().unwrap();
        let seen = |rtnl: &Rtnl| {
            let link = rtnl.link("eth0").unwrap().unwrap();
            (link.promisc, link.allmulti, link.tx_queue_len)
        };
        assert_eq!(seen(&inside), (false, false, 1000));
        let configure = |promisc, allmulti, tx_queue_len| {
            let interface = Interface { promisc, allmulti, tx_queue_len, ..Interface::named("eth0") };
            inside.configure(&interface).unwrap();
        };
        configure(Some(true), Some(true), Some(0));
        assert_eq!(seen(&inside), (true, true, 0));
        configure(None, Some(false), None);
        assert_eq!(seen(&inside), (true, false, 0));
    });
}
