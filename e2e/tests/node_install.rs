//! `weft-node run` on a node: what it installs, when, and what becomes of it when something goes wrong.

#![cfg(test)]

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weft_e2e::{Attachment, Inventory, Network, Node, Pod, Process, binaries, output, wait};

const PATIENCE: Duration = Duration::from_secs(60);
const BIN: &str = "/run/node/bin";
const CONF: &str = "/run/node/net.d";
const NODES: &str = "/run/node/nodes.json";
const LIST: &str = "/run/node/net.d/10-weft.conflist";

/// The agent, on a node that is the only one of its cluster.
struct Agent {
    node: Node,
    process: Process,
}

impl Agent {
    fn start(node: &Node, subnets: &[&str]) -> Self {
        tell(node, subnets);
        Self::start_with(node, &[])
    }

    fn start_with(node: &Node, options: &[&str]) -> Self {
        Self::start_program(node, &binaries::weft("weft-node").unwrap(), options)
    }

    fn start_program(node: &Node, program: &Path, options: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(["run", "--node-name", "a", "--nodes", NODES, "--bin-dir", BIN, "--conf-dir", CONF]);
        command.args(["--cri-socket", "none"]).args(options);
        Self { node: node.clone(), process: node.spawn(command).unwrap() }
    }

    fn status(&self) -> Result<Value, String> {
        let program = binaries::weft("weft-node").unwrap();
        let text = self.node.sh(&format!("{} status --json --conf-dir {CONF}", program.display()));
        serde_json::from_str(&text.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
    }

    /// Waits until the status is as wanted, and returns it.
    fn until(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let seen = wait::until(what, PATIENCE, || match self.status() {
            Ok(status) if is_so(&status) => Ok(status),
            Ok(status) => Err(status.to_string()),
            Err(error) => Err(error),
        });
        seen.unwrap_or_else(|error| panic!("{error}\n{}", self.process.log()))
    }

    fn until_installed(&mut self) -> Value {
        self.until("the node to be set up", |status| {
            is_there(&self_conflist(status)) && status["install"]["problem"].is_null()
        })
    }

    fn kill(mut self) {
        self.process.signal(Signal::SIGKILL).unwrap();
        self.process.await_end(PATIENCE).unwrap();
    }
}

fn self_conflist(status: &Value) -> Value {
    status["install"]["conflist"].clone()
}

fn is_there(value: &Value) -> bool {
    !value.is_null()
}

fn tell(node: &Node, subnets: &[&str]) {
    let nodes = json!({ "nodes": [{ "name": "a", "addresses": ["192.0.2.1"], "podCIDRs": subnets }] });
    node.write(NODES, &nodes.to_string()).unwrap();
}

fn exists(node: &Node, path: &str) -> bool {
    node.run(|| Path::new(path).exists()).unwrap()
}

fn list_of(node: &Node) -> Value {
    let text = node.run(|| std::fs::read_to_string(LIST)).unwrap().unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The list that is in force, run as a runtime runs it, with the installed plugins.
fn network(node: &Node) -> Network {
    Network::new(list_of(node))
}

fn uninstall(node: &Node) {
    try_uninstall(node).unwrap();
}

fn try_uninstall(node: &Node) -> Result<String, String> {
    try_uninstall_with(node, "")
}

fn try_uninstall_with(node: &Node, options: &str) -> Result<String, String> {
    let program = binaries::weft("weft-node").unwrap();
    let done =
        node.sh(&format!("{} uninstall --bin-dir {BIN} --conf-dir {CONF} {options}", program.display()));
    done.map_err(|error| error.to_string())
}

/// Without what an agent or a first pod makes for good: of the firewall, only the elements that carry a pod's mark are a pod's.
fn pods_left(before: &Inventory, node: &Node) -> Vec<String> {
    let is_frame = |line: &String| line.contains(" nftables ") && !line.contains("weft/");
    let strange = |line: &String| !line.contains("/run/weft/node.lock") && !is_frame(line);
    before.diff(&node.inventory().unwrap()).into_iter().filter(strange).collect()
}

#[test]
fn a_node_is_set_up_after_a_pod_was_really_attached_and_reached() {
    let node = Node::start().unwrap();
    let before = node.inventory().unwrap();
    let mut agent = Agent::start(&node, &["10.244.7.0/24", "fd00:7::/64"]);
    let status = agent.until_installed();
    let test = &status["install"]["selfTest"];
    assert_eq!(
        (test["state"].as_str(), test["addresses"].as_array().map(Vec::len)),
        (Some("passed"), Some(2))
    );
    assert_eq!(list_of(&node)["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.7.0/24");
    assert_eq!(pods_left(&before, &node), [""; 0], "the self-test has left something");

    let pod = Pod::create(&node, "web").unwrap();
    let attachment = Attachment::of(&pod);
    let result = network(&node).add(&node, &attachment).unwrap();
    let held = agent.until("the lease to be seen", |status| status["leases"][0]["heldAddresses"] == 1);
    assert_eq!(held["leases"][0]["subnet"], "10.244.7.0/24");
    let refusal = try_uninstall(&node).unwrap_err();
    assert!(refusal.contains("another weft-node runs on this node"), "{refusal}");
    network(&node).del(&node, &attachment, &result).unwrap();
    drop(pod);

    agent.process.signal(Signal::SIGTERM).unwrap();
    assert!(agent.process.await_end(PATIENCE).unwrap().success());
    assert!(exists(&node, LIST), "pods that run need it for their DEL");
    uninstall(&node);
    assert!(!exists(&node, LIST) && !exists(&node, "/run/node/bin/weft-cni"));
}

#[test]
fn a_pod_that_cannot_be_reached_keeps_the_configuration_out_until_it_can_be() {
    let node = Node::start().unwrap();
    node.sh("nft add table inet wall").unwrap();
    node.sh("nft add chain inet wall out { type filter hook output priority 0 ; }").unwrap();
    node.sh("nft add rule inet wall out ip daddr 10.244.7.0/24 drop").unwrap();
    let before = node.inventory().unwrap();
    let mut agent = Agent::start(&node, &["10.244.7.0/24", "fd00:7::/64"]);
    let failed =
        agent.until("the self-test to fail", |status| status["install"]["selfTest"]["state"] == "failed");
    let why = failed["install"]["selfTest"]["why"].as_str().unwrap().to_owned();
    assert!(why.contains("cannot reach it at 10.244.7.2") && why.contains("weft-cni audit"), "{why}");
    assert!(!exists(&node, LIST), "a runtime would attach pods that nobody reaches");
    node.sh("nft delete table inet wall").unwrap();
    agent.until_installed();
    agent.kill();
    assert_eq!(pods_left(&before, &node), [""; 0]);
}

#[test]
fn a_list_that_the_plugin_refuses_is_not_installed() {
    let node = Node::start().unwrap();
    tell(&node, &["10.244.7.0/24"]);
    let template = json!({ "cniVersion": "1.0.0", "name": "weft", "plugins": [{ "type": "weft-cni", "modus": "routed" }] });
    node.write("/run/node/template.json", &template.to_string()).unwrap();
    let mut agent = Agent::start_with(&node, &["--template", "/run/node/template.json"]);
    let failed =
        agent.until("the self-test to fail", |status| status["install"]["selfTest"]["state"] == "failed");
    let why = failed["install"]["selfTest"]["why"].as_str().unwrap();
    assert!(why.contains("modus") && why.contains("STATUS"), "{why}");
    assert!(!exists(&node, LIST));
}

#[test]
fn another_subnet_rewrites_the_list_and_what_was_attached_is_detached_by_it() {
    let node = Node::start().unwrap();
    let mut agent = Agent::start(&node, &["10.244.7.0/24"]);
    agent.until_installed();
    let before = node.inventory().unwrap();
    let pod = Pod::create(&node, "web").unwrap();
    let attachment = Attachment::of(&pod);
    let result = network(&node).add(&node, &attachment).unwrap();
    tell(&node, &["10.244.8.0/24"]);
    wait::until("the new list", PATIENCE, || {
        let list = list_of(&node);
        let is_new = list["plugins"][0]["ipam"]["ranges"][0][0]["subnet"] == "10.244.8.0/24";
        if is_new { Ok(()) } else { Err(list.to_string()) }
    })
    .unwrap();
    let is_cut_off = |status: &Value| status["install"]["podsOutside"] == 1;
    agent.until("a word about the pod that nobody sends to any more", is_cut_off);
    network(&node).del(&node, &attachment, &result).unwrap();
    drop(pod);
    assert_eq!(pods_left(&before, &node), [""; 0]);
}

#[test]
fn a_configuration_that_comes_first_is_told_and_one_that_somebody_changed_is_left() {
    let node = Node::start().unwrap();
    node.write("/run/node/net.d/05-other.conf", "{}").unwrap();
    let mut agent = Agent::start(&node, &["10.244.7.0/24"]);
    let status = agent.until_installed();
    assert_eq!(status["install"]["beforeOurs"], json!(["/run/node/net.d/05-other.conf"]));
    assert!(agent.process.log().contains("another network configuration comes first"));
    agent.kill();
    node.write(LIST, "{\"edited\": true}").unwrap();
    let mut agent = Agent::start_with(&node, &[]);
    let status = agent.until("the edit to be noticed", |status| is_there(&status["install"]["problem"]));
    let problem = status["install"]["problem"].as_str().unwrap();
    assert!(problem.contains("was changed since; move it away first"), "{problem}");
    assert_eq!(list_of(&node), json!({ "edited": true }));
}

#[test]
fn an_agent_that_is_killed_at_any_moment_leaves_what_the_next_one_completes() {
    let node = Node::start().unwrap();
    let before = node.inventory().unwrap();
    tell(&node, &["10.244.7.0/24", "fd00:7::/64"]);
    // Each a little later, through plugins, self-test and configuration, until one gets to the end.
    for round in 0..40_u64 {
        let agent = Agent::start_with(&node, &[]);
        let killed_after = Duration::from_millis(round * 25);
        let finished = wait::until("the end", killed_after, || {
            if exists(&node, LIST) { Ok(()) } else { Err(String::new()) }
        });
        if exists(&node, LIST) {
            list_of(&node);
        }
        agent.kill();
        if finished.is_ok() && round > 20 {
            break;
        }
    }
    let mut agent = Agent::start_with(&node, &[]);
    agent.until_installed();
    agent.until("the self-test", |status| status["install"]["selfTest"]["state"] == "passed");
    agent.kill();
    assert_eq!(pods_left(&before, &node), [""; 0]);
    uninstall(&node);
    let left = node.run(|| output(Command::new("find").args([BIN, CONF, "-type", "f"]))).unwrap().unwrap();
    assert_eq!(left, "");
}

#[test]
fn uninstall_takes_down_the_ways_that_are_ours_where_it_is_asked_to() {
    let node = Node::start().unwrap();
    for line in [
        "link add uplink type bridge",
        "link set uplink up",
        "address add 192.0.2.1/24 dev uplink",
        "route add 10.9.0.0/24 via 192.0.2.2",
    ] {
        node.sh(&format!("ip {line}")).unwrap();
    }
    let before = node.inventory().unwrap();
    node.sh("ip route add 10.244.1.0/24 via 192.0.2.2 proto 87").unwrap();
    let program = binaries::weft("weft-node").unwrap();
    let line = format!("{} uninstall --bin-dir {BIN} --conf-dir {CONF} --network", program.display());
    assert_eq!(node.sh(&line).unwrap(), "removed    route 10.244.1.0/24\n");
    assert_eq!(before.diff(&node.inventory().unwrap()), [""; 0]);
    let nothing = format!("nothing    was to be removed: no file in {BIN} or {CONF} is ours\n");
    assert_eq!(node.sh(&line).unwrap(), nothing);
}

#[test]
fn a_second_agent_ends_and_names_the_first() {
    let node = Node::start().unwrap();
    let mut first = Agent::start(&node, &["10.244.7.0/24"]);
    first.until_installed();
    let mut second = Agent::start_with(&node, &["--admin", "127.0.0.1:15091"]);
    assert!(!second.process.await_end(PATIENCE).unwrap().success());
    assert!(second.process.log().contains("another weft-node runs on this node"), "{}", second.process.log());
    assert!(first.process.is_running());
}

#[test]
fn an_agent_with_another_state_directory_is_still_the_second_and_nothing_is_uninstalled_beside_one() {
    let node = Node::start().unwrap();
    let mut first = Agent::start(&node, &["10.244.7.0/24"]);
    first.until_installed();
    let named = format!("another weft-node runs on this node (process {})", first.process.id());
    let elsewhere = ["--state-dir", "/run/node/elsewhere"];
    let mut second = Agent::start_with(&node, &[&elsewhere[..], &["--admin", "127.0.0.1:15091"]].concat());
    assert!(!second.process.await_end(PATIENCE).unwrap().success());
    assert!(second.process.log().contains(&named), "{}", second.process.log());
    let refusal = try_uninstall_with(&node, &elsewhere.join(" ")).unwrap_err();
    assert!(refusal.contains(&named), "{refusal}");
    assert!(exists(&node, LIST) && first.process.is_running());
    first.kill();
    try_uninstall_with(&node, &elsewhere.join(" ")).unwrap();
    assert!(!exists(&node, LIST));
}

/// Far less than from one look to the next, and far more than it takes, which is printed.
const AT_ONCE: Duration = Duration::from_secs(15);

#[test]
fn what_somebody_removes_of_the_installation_comes_back_at_once_and_is_counted() {
    let node = Node::start().unwrap();
    let mut agent = Agent::start(&node, &["10.244.7.0/24"]);
    agent.until_installed();
    let plugins = ["weft-cni", "weft-ipam", "loopback"].map(|name| format!("/run/node/bin/{name}"));
    let is_whole = || exists(&node, LIST) && plugins.iter().all(|path| exists(&node, path));
    for insult in [
        format!("rm {LIST}"),
        format!("rm {}", plugins[0]),
        format!("mv {} /run/node/taken", plugins[1]),
        format!("rm {}", plugins[2]),
        format!("mv {CONF} /run/node/net.d.taken"),
        format!("mv {BIN} /run/node/bin.taken"),
        format!("rm {LIST}"),
    ] {
        let start = Instant::now();
        node.sh(&insult).unwrap();
        let seen = wait::until(&insult, AT_ONCE, || if is_whole() { Ok(()) } else { Err(String::new()) });
        seen.unwrap_or_else(|error| panic!("{error}\n{}", agent.process.log()));
        eprintln!("{insult}: back after {:?}", start.elapsed());
    }
    let start = Instant::now();
    node.write("/run/node/net.d/05-other.conf", "{}").unwrap();
    agent.until("the other one to be seen", |status| status["install"]["beforeOurs"] != json!([]));
    eprintln!("a configuration that comes first: told after {:?}", start.elapsed());
    assert!(start.elapsed() < AT_ONCE);
    let heals = agent.status().unwrap()["repair"]["heals"].clone();
    assert!(heals["conflist"].as_u64() >= Some(3) && heals["plugin"].as_u64() >= Some(5), "{heals}");
}

#[test]
fn who_removes_the_configuration_again_and_again_is_told_of_and_answered_more_slowly() {
    let node = Node::start().unwrap();
    let mut agent = Agent::start(&node, &["10.244.7.0/24"]);
    agent.until_installed();
    let status = agent.until("somebody to be told of", |status| {
        node.sh(&format!("rm -f {LIST}")).unwrap();
        status["repair"]["storms"].as_object().is_some_and(|storms| !storms.is_empty())
    });
    let storms = status["repair"]["storms"].to_string();
    assert!(storms.contains("times in the last minute") && storms.contains("10-weft.conflist"), "{storms}");
    let metrics = "weft_node_repairs_throttled 1";
    let (host, at) = (Pod::host(&node).unwrap(), "127.0.0.1:15090".parse().unwrap());
    let page = weft_e2e::http::get(&host, at, "node", "/metrics", &[]).unwrap();
    assert!(page.body.contains(metrics), "{}", page.body);
    agent.until("it to be back all the same", |_| exists(&node, LIST));
}

#[test]
fn the_template_is_followed_and_a_wrong_one_changes_nothing() {
    const TEMPLATE: &str = "/run/node/template/list";
    let node = Node::start().unwrap();
    tell(&node, &["10.244.7.0/24"]);
    let of_mtu = |mtu: u32| {
        let list =
            json!({ "cniVersion": "1.0.0", "name": "weft", "plugins": [{ "type": "weft-cni", "mtu": mtu }] });
        node.write(TEMPLATE, &list.to_string()).unwrap();
    };
    of_mtu(1400);
    let mut agent = Agent::start_with(&node, &["--template", TEMPLATE]);
    agent.until_installed();
    let start = Instant::now();
    of_mtu(1300);
    agent.until("the new list", |_| list_of(&node)["plugins"][0]["mtu"] == 1300);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    node.write(TEMPLATE, "{").unwrap();
    let status = agent.until("the mistake to be told", |status| is_there(&status["install"]["template"]));
    let told = status["install"]["template"].as_str().unwrap();
    assert!(
        told.contains("the template /run/node/template/list is wrong") && told.contains("not JSON"),
        "{told}"
    );
    assert_eq!(list_of(&node)["plugins"][0]["mtu"], 1300);
    of_mtu(1350);
    agent.until("the mended list", |status| {
        status["install"]["template"].is_null() && list_of(&node)["plugins"][0]["mtu"] == 1350
    });
}

/// The three programs in a folder of their own, as another build of the same: what follows the end of an ELF file is not read.
fn build(node: &Node, name: &str) -> String {
    let dir = format!("/run/node/{name}");
    let copy = |program: &str| -> std::io::Result<()> {
        let content = std::fs::read(binaries::weft(program).map_err(std::io::Error::other)?)?;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o755).open(format!("{dir}/{program}"))?;
        file.write_all(&content)?;
        file.write_all(name.as_bytes())
    };
    node.run(|| {
        std::fs::create_dir(&dir)?;
        ["weft-node", "weft-cni", "weft-ipam"].iter().try_for_each(|program| copy(program))
    })
    .unwrap()
    .unwrap();
    dir
}

#[test]
fn twenty_upgrades_fail_no_pod_and_break_no_connection() {
    const UPGRADES: usize = 20;
    let node = Node::start().unwrap();
    tell(&node, &["10.244.7.0/24"]);
    let builds = ["old", "new"].map(|name| build(&node, name));
    let run = |nth: usize| {
        let program = format!("{}/weft-node", builds[nth % 2]);
        let mut agent = Agent::start_program(&node, Path::new(&program), &[]);
        agent.until_installed();
        agent
    };
    let is_installed = |nth: usize| {
        let built = format!("{}/weft-cni", builds[nth % 2]);
        node.run(|| std::fs::read(built).unwrap() == std::fs::read(format!("{BIN}/weft-cni")).unwrap())
            .unwrap()
    };
    let mut agent = run(0);
    let network = network(&node).with_plugins_in(Path::new(BIN));
    let attach = |pod: &Pod| node.run(|| network.add_here(&Attachment::of(pod))).unwrap().unwrap();
    let detach = |pod: &Pod, result: &Value| {
        node.run(|| network.del_here(&Attachment::of(pod), result)).unwrap().unwrap();
    };
    let ends = ["one", "other"].map(|name| Pod::create(&node, name).unwrap());
    let addresses = ends.each_ref().map(|pod| weft_e2e::cni::address(&attach(pod), 0).unwrap());
    let listener = ends[1].run(|| std::net::TcpListener::bind((addresses[1], 0))).unwrap().unwrap();
    let at = listener.local_addr().unwrap();
    let mut sender = ends[0].run(|| std::net::TcpStream::connect(at)).unwrap().unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let attach_and_detach = |name: &str| {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                let pod = Pod::create(&node, name).unwrap();
                let result = attach(&pod);
                detach(&pod, &result);
                count += 1;
            }
            count
        };
        let pods = ["p", "q"].map(|name| scope.spawn(move || attach_and_detach(name)));
        let upgraded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for nth in 1..=UPGRADES {
                agent.process.signal(Signal::SIGTERM).unwrap();
                agent.process.await_end(PATIENCE).unwrap();
                agent = run(nth);
                wait::until("the other build", PATIENCE, || {
                    if is_installed(nth) { Ok(()) } else { Err(String::new()) }
                })
                .unwrap();
                sender.write_all(b"still here").unwrap();
                let mut word = [0; 10];
                std::io::Read::read_exact(&mut receiver, &mut word).unwrap();
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        let counts = pods.map(|pods| pods.join().unwrap());
        upgraded.unwrap();
        eprintln!("{UPGRADES} upgrades, {counts:?} pods attached and detached meanwhile");
        assert!(counts.iter().all(|count| *count > 0));
    });
}

#[test]
fn a_full_disk_is_told_and_nothing_stays_half_written() {
    let node = Node::start().unwrap();
    node.sh("mkdir /run/node/net.d").unwrap();
    node.sh("mount -t tmpfs -o size=4k,nr_inodes=20 full /run/node/net.d").unwrap();
    node.write("/run/node/net.d/filler", &"x".repeat(4096)).unwrap();
    let mut agent = Agent::start(&node, &["10.244.7.0/24"]);
    let status = agent.until("the disk to be full", |status| is_there(&status["install"]["problem"]));
    let problem = status["install"]["problem"].as_str().unwrap();
    assert!(problem.contains("No space left on device"), "{problem}");
    let names = node.sh("ls -A /run/node/net.d").unwrap();
    assert_eq!(names.trim(), "filler");
    node.sh("rm /run/node/net.d/filler").unwrap();
    node.sh("mount -o remount,size=64k /run/node/net.d").unwrap();
    agent.until_installed();
}

/// As in an upgrade: nothing is wrong with the node, and the next agents must not wait for it.
#[test]
fn an_agent_that_starts_on_a_full_node_is_ready_and_says_that_it_is_full() {
    let node = Node::start().unwrap();
    let mut agent = Agent::start(&node, &["10.244.7.0/29"]);
    agent.until_installed();
    let network = network(&node);
    let pods: Vec<_> = (0..5).map(|nth| Pod::create(&node, &format!("pod-{nth}")).unwrap()).collect();
    let results: Vec<_> = pods.iter().map(|pod| network.add(&node, &Attachment::of(pod)).unwrap()).collect();
    network.add(&node, &Attachment::of(&Pod::create(&node, "unlucky").unwrap())).unwrap_err();
    agent.kill();
    let mut agent = Agent::start_with(&node, &[]);
    let is_tested = |is: &'static str| move |status: &Value| status["install"]["selfTest"]["state"] == is;
    let status = agent.until("the test to be put off", is_tested("noRoom"));
    assert!(status["install"]["problem"].is_null(), "{status}");
    network.del(&node, &Attachment::of(&pods[0]), &results[0]).unwrap();
    agent.until("the test to be made up for", is_tested("passed"));
}

#[test]
fn pods_of_host_local_keep_their_addresses_and_nobody_else_gets_them() {
    let node = Node::start().unwrap();
    let subnets = json!([[{ "subnet": "10.244.7.0/24" }]]);
    let reference = json!({
        "cniVersion": "1.0.0", "name": "cbr0",
        "plugins": [{ "type": "bridge", "bridge": "cni0", "isGateway": true,
                      "ipam": { "type": "host-local", "ranges": subnets } }] });
    let old = Pod::create(&node, "old").unwrap();
    let result = Network::new(reference).add(&node, &Attachment::of(&old)).unwrap();
    assert_eq!(result["ips"][0]["address"], "10.244.7.2/24");
    let mut agent = Agent::start(&node, &["10.244.7.0/24"]);
    let status = agent.until_installed();
    assert_eq!(status["install"]["adopted"], 1);
    let new = Pod::create(&node, "new").unwrap();
    let result = network(&node).add(&node, &Attachment::of(&new)).unwrap();
    assert_ne!(result["ips"][0]["address"], "10.244.7.2/24");
    let audit = node.sh(&format!("{BIN}/weft-cni audit --conf-dir {CONF}")).unwrap();
    assert!(audit.contains("another plugin attached it") && !audit.contains("delete the pod"), "{audit}");
    agent.kill();
    let mut agent = Agent::start_with(&node, &[]);
    assert_eq!(agent.until_installed()["install"]["adopted"], 1, "nothing changes by doing it again");
}
