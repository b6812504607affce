//! What sandboxes have left is ended by `weft-node`, and what runs is not touched.

#![cfg(test)]

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use weft_e2e::{Attachment, Containerd, Network, Node, Pod, Process, binaries, wait};

const PATIENCE: Duration = Duration::from_secs(60);

/// The agent beside a containerd that uses its configuration.
struct Agent {
    node: Node,
    process: Process,
}

impl Agent {
    fn start(containerd: &Containerd, node: &Node, grace: &str, interval: &str) -> Self {
        let subnets = ["10.244.0.0/24", "fd00:10:244::/64"];
        let nodes = json!({ "nodes": [{ "name": "a", "addresses": ["192.0.2.1"], "podCIDRs": subnets }] });
        node.write("/run/node/nodes.json", &nodes.to_string()).unwrap();
        let mut command = Command::new(binaries::weft("weft-node").unwrap());
        let [bin, conf] = containerd.cni_dirs();
        command.args(["run", "--node-name", "a", "--nodes", "/run/node/nodes.json"]);
        command
            .arg("--bin-dir")
            .arg(bin)
            .arg("--conf-dir")
            .arg(conf)
            .args(["--conf-name", "05-weft.conflist"]);
        command.arg("--cri-socket").arg(containerd.cri_socket());
        command.args(["--gc-grace", grace, "--gc-interval", interval]);
        let mut agent = Self { node: node.clone(), process: node.spawn(command).unwrap() };
        agent.until("rounds of collection", |status| status["gc"]["rounds"].as_u64() > Some(0));
        agent
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let program = binaries::weft("weft-node").unwrap();
        let seen = wait::until(what, PATIENCE, || {
            let text = self.node.sh(&format!("{} status --json", program.display()));
            let text = text.map_err(|error| error.to_string())?;
            let status: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            if is_so(&status) { Ok(status) } else { Err(status.to_string()) }
        });
        seen.unwrap_or_else(|error| panic!("{error}\n{}", self.process.log()))
    }

    /// Waits for `count` more rounds.
    fn after_rounds(&mut self, count: u64) -> Value {
        let now = self.until("a status", |_| true)["gc"]["rounds"].as_u64().unwrap();
        self.until("more rounds", |status| status["gc"]["rounds"].as_u64() >= Some(now + count))
    }
}

fn leases(node: &Node) -> BTreeSet<String> {
    let program = binaries::weft("weft-ipam").unwrap();
    let text = node.sh(&format!("{} list --json", program.display())).unwrap();
    let networks: Value = serde_json::from_str(&text).unwrap();
    let networks = networks["networks"].as_array().into_iter().flatten();
    let leases = networks.flat_map(|network| network["leases"].as_array().into_iter().flatten());
    leases.map(|lease| lease["container"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The pairs that the node has an end of, by the container in the mark.
fn pairs(node: &Node, container: &str) -> usize {
    node.inventory().unwrap().matching(&format!("alias weft/{container}/eth0")).len()
}

#[test]
fn a_sandbox_that_the_runtime_has_forgotten_loses_its_lease_and_its_pair_and_the_others_keep_theirs() {
    let node = Node::start().unwrap();
    let mut containerd = Containerd::start(&node, Network::routed(0).list()).unwrap();
    let mut agent = Agent::start(&containerd, &node, "1s", "300ms");
    let (runs, lost) = (containerd.run_sandbox("runs").unwrap(), containerd.run_sandbox("lost").unwrap());
    containerd.lose_sandbox(&lost.id).unwrap();
    let listed = agent.after_rounds(6);
    assert_eq!(listed["gc"]["collected"], 0, "as long as it is listed it is the runtime's");
    assert_eq!(pairs(&node, &lost.id), 1);

    containerd.kill().unwrap();
    let silent = agent.until("the runtime to be silent", |status| !status["gc"]["problem"].is_null());
    assert!(silent["gc"]["problem"].as_str().unwrap().contains("containerd.sock"), "{silent}");
    assert_eq!(leases(&node).len(), 2, "a runtime that does not answer has said nothing");

    containerd.start_again().unwrap();
    agent.until("the lease to end", |status| status["gc"]["collected"] == 1);
    assert_eq!(leases(&node), BTreeSet::from([runs.id.clone()]));
    assert_eq!((pairs(&node, &lost.id), pairs(&node, &runs.id)), (0, 1));
    agent.after_rounds(6);
    assert_eq!(leases(&node), BTreeSet::from([runs.id.clone()]), "a pod that runs is never touched");
    containerd.stop_sandbox(&runs.id).unwrap();
    assert_eq!(leases(&node), BTreeSet::new());
}

#[test]
fn a_runtime_that_lists_nothing_while_namespaces_stand_is_not_believed() {
    let node = Node::start().unwrap();
    let containerd = Containerd::start(&node, Network::routed(0).list()).unwrap();
    let pod = Pod::create(&node, "of-another-runtime").unwrap();
    Network::routed(0).add(&node, &Attachment::of(&pod)).unwrap();
    let mut agent = Agent::start(&containerd, &node, "1ms", "100ms");
    let status = agent.after_rounds(5);
    let problem = status["gc"]["problem"].as_str().unwrap();
    assert!(problem.contains("lists no sandbox, but 1 namespaces of pods stand"), "{problem}");
    assert_eq!(leases(&node).len(), 1);
    // With the first sandbox the list says something. A socket in the namespace says that somebody uses it: it is this thread's, and
    // the process of this thread is seen elsewhere, as nobody's is seen in a container.
    let used = pod.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    let sandbox = containerd.run_sandbox("first").unwrap();
    assert_eq!(agent.after_rounds(5)["gc"]["collected"], 0);
    // And without one the lease is nobody's.
    drop(used);
    agent.until("the lease to end", |status| status["gc"]["collected"] == 1);
    assert_eq!(leases(&node), BTreeSet::from([sandbox.id]));
}

#[test]
fn fifty_sandboxes_made_at_once_lose_nothing_to_a_collection_that_never_rests() {
    let node = Node::start().unwrap();
    let containerd = Containerd::start(&node, Network::routed(0).list()).unwrap();
    let _first = containerd.run_sandbox("first").unwrap();
    let mut agent = Agent::start(&containerd, &node, "45s", "20ms");
    let sandboxes = thread::scope(|scope| {
        let run = |n: usize| {
            let containerd = &containerd;
            scope.spawn(move || containerd.run_sandbox(&format!("pod-{n}")).unwrap().id)
        };
        let running: Vec<_> = (0..50).map(run).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect::<BTreeSet<_>>()
    });
    let status = agent.after_rounds(10);
    assert_eq!(status["gc"]["collected"], 0, "{}", agent.process.log());
    let held = leases(&node);
    assert!(sandboxes.is_subset(&held), "{:?} lost their leases", sandboxes.difference(&held));
    assert!(sandboxes.iter().all(|id| pairs(&node, id) == 1));
}
