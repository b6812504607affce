//! Three nodes whose runtimes start many pods at once, as after a boot: through CRI, as kubelet asks, and all of them together.
//!
//! How many on each node `WEFT_CROWD` says; a full node's 200 take minutes here, most of them runc's and its shims'.

#![cfg(test)]

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use weft_e2e::cluster::Hosts;
use weft_e2e::{Containerd, Inventory, Sandbox, wait};

const PATIENCE: Duration = Duration::from_secs(30);
const ALL: [&str; 3] = ["a", "b", "c"];
/// So many samples are reached, spread over all.
const SAMPLES: usize = 24;

#[test]
fn many_sandboxes_at_once_on_three_nodes_are_joined_and_leave_nothing() {
    let crowd = std::env::var("WEFT_CROWD").map_or(8, |count| count.parse().unwrap());
    let mut hosts = Hosts::start().unwrap();
    hosts.tell(&ALL).unwrap();
    hosts.run_agents(&ALL).unwrap();
    let runtimes: Vec<_> = hosts
        .hosts
        .iter()
        .map(|host| Containerd::start(&host.node, host.network().unwrap().list()).unwrap())
        .collect();
    let inventories =
        || -> Vec<Inventory> { hosts.hosts.iter().map(|host| host.node.inventory().unwrap()).collect() };
    let before = inventories();

    let begun = Instant::now();
    let (sandboxes, mut times) = start_all(&runtimes, crowd);
    let took = begun.elapsed();
    times.sort();
    println!(
        "{crowd} sandboxes at once on each of three nodes: all in {took:?}, one in {:?} (middle) to {:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
    let addresses: BTreeSet<IpAddr> = sandboxes.iter().flat_map(|(_, sandbox)| addresses(sandbox)).collect();
    assert_eq!(addresses.len(), 2 * 3 * crowd, "each pod has an address of its own in both families");
    reach(&runtimes, &sandboxes);

    let begun = Instant::now();
    thread::scope(|scope| {
        for (runtime, sandbox) in &sandboxes {
            scope.spawn(|| {
                let runtime = &runtimes[*runtime];
                runtime.stop_sandbox(&sandbox.id).unwrap();
                runtime.remove_sandbox(&sandbox.id).unwrap();
            });
        }
    });
    println!("all of them stopped and removed in {:?}", begun.elapsed());
    wait::until("the nodes to be as they were", PATIENCE, || {
        let left: Vec<_> = before.iter().zip(inventories()).flat_map(|(then, now)| then.diff(&now)).collect();
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    })
    .unwrap();
}

/// All together. Returns them with their runtime's number, and how long each took.
fn start_all(runtimes: &[Containerd], crowd: usize) -> (Vec<(usize, Sandbox)>, Vec<Duration>) {
    let one = |number: usize, pod: usize| {
        let begun = Instant::now();
        let sandbox = runtimes[number].run_sandbox(&format!("p{pod}")).unwrap();
        ((number, sandbox), begun.elapsed())
    };
    thread::scope(|scope| {
        let all = (0..crowd).flat_map(|pod| (0..runtimes.len()).map(move |number| (number, pod)));
        let started: Vec<_> = all.map(|(number, pod)| scope.spawn(move || one(number, pod))).collect();
        started.into_iter().map(|one| one.join().unwrap()).unzip()
    })
}

fn addresses(sandbox: &Sandbox) -> [IpAddr; 2] {
    [&sandbox.ip, &sandbox.additional_ips[0]].map(|text| text.parse().unwrap())
}

/// Each sample from a pod of each other node, in both families.
fn reach(runtimes: &[Containerd], sandboxes: &[(usize, Sandbox)]) {
    let from: Vec<_> = (0..runtimes.len())
        .map(|number| sandboxes.iter().find(|(of, _)| *of == number).unwrap())
        .map(|(number, sandbox)| runtimes[*number].pod(sandbox).unwrap())
        .collect();
    for (number, sandbox) in sandboxes.iter().rev().step_by(sandboxes.len().div_ceil(SAMPLES)) {
        let to = runtimes[*number].pod(sandbox).unwrap();
        for address in addresses(sandbox) {
            let listener = to.run(|| TcpListener::bind((address, 0)).unwrap()).unwrap();
            let place = listener.local_addr().unwrap();
            for (_, from) in from.iter().enumerate().filter(|(other, _)| other != number) {
                let reached = from.run(|| TcpStream::connect_timeout(&place, PATIENCE)).unwrap();
                assert!(reached.is_ok(), "{address}: {reached:?}");
            }
        }
    }
}
