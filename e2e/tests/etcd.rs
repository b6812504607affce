//! The shipped `weft-ipam` with a pool that nodes share, on real etcd servers.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weft_e2e::cni::call;
use weft_e2e::etcd::Certificates;
use weft_e2e::{Attachment, Cluster, Network, Node, Pod, Reply, binaries, wait};

/// What a pod's network namespace is to IPAM: something that is there.
const NETNS: &str = "/proc/self/ns/uts";

/// A network whose leases are in etcd, as one of its nodes is configured.
#[derive(Clone)]
struct Client {
    node: Node,
    conf: Value,
}

impl Client {
    fn new(node: &Node, name: &str, endpoints: &[String]) -> Self {
        let ranges = json!([[{ "subnet": "10.7.0.0/22" }], [{ "subnet": "fd07::/64" }]]);
        let store = json!({ "type": "etcd", "endpoints": endpoints, "node": name });
        let ipam = json!({ "type": "weft-ipam", "ranges": ranges, "store": store });
        Self {
            node: node.clone(),
            conf: json!({ "cniVersion": "1.1.0", "name": "pods", "type": "any", "ipam": ipam }),
        }
    }

    fn with_store(mut self, keys: Value) -> Self {
        let store = self.conf["ipam"]["store"].as_object_mut().unwrap();
        store.extend(keys.as_object().unwrap().clone());
        self
    }

    fn with_ranges(mut self, ranges: Value) -> Self {
        self.conf["ipam"]["ranges"] = ranges;
        self
    }

    fn run(&self, verb: &str, container: &str) -> Reply {
        let env: [(&str, OsString); 5] = [
            ("CNI_COMMAND", verb.into()),
            ("CNI_CONTAINERID", container.into()),
            ("CNI_IFNAME", "eth0".into()),
            ("CNI_NETNS", NETNS.into()),
            ("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={container}").into()),
        ];
        call(&self.node, &binaries::weft("weft-ipam").unwrap(), &env, &self.conf.to_string()).unwrap()
    }

    /// The addresses, or the error's code and message.
    fn add(&self, container: &str) -> Result<Vec<IpAddr>, (u64, String)> {
        let document = answer(&self.run("ADD", container))?;
        let ips = document["ips"].as_array().unwrap().iter();
        Ok(ips
            .map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap())
            .collect())
    }

    fn del(&self, container: &str) -> Result<(), (u64, String)> {
        answer(&self.run("DEL", container)).map(drop)
    }

    /// What a person runs on this node: `weft-ipam COMMAND --conf …`.
    fn command(&self, words: &str) -> weft_e2e::Result<String> {
        let name = self.conf["ipam"]["store"]["node"].as_str().unwrap();
        let conf = format!("/run/node/{name}.conf");
        self.node.write(&conf, &self.conf.to_string())?;
        let program = binaries::weft("weft-ipam")?;
        self.node.sh(&format!("{} {words} --conf {conf}", program.display()))
    }

    /// Node and container → addresses, for all nodes.
    fn leases(&self) -> BTreeMap<(String, String), Vec<IpAddr>> {
        let listed: Value = serde_json::from_str(&self.command("list --json").unwrap()).unwrap();
        let leases =
            listed["networks"].as_array().unwrap().iter().flat_map(|one| one["leases"].as_array().unwrap());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let address = |ip: &Value| text(&ip["address"]).split('/').next().unwrap().parse().unwrap();
        leases
            .map(|lease| {
                let addresses = lease["addresses"].as_array().unwrap().iter().map(address).collect();
                ((text(&lease["node"]), text(&lease["container"])), addresses)
            })
            .collect()
    }
}

fn answer(reply: &Reply) -> Result<Value, (u64, String)> {
    let document = if reply.stdout.is_empty() { Value::Null } else { reply.json().unwrap() };
    match reply.status.code() {
        Some(0) => Ok(document),
        _ => Err((
            document["code"].as_u64().unwrap_or_else(|| panic!("{reply:?}")),
            document["msg"].as_str().unwrap().to_owned(),
        )),
    }
}

/// Every key below the prefix, by its kind: held and free addresses, places in the order of reuse, leases.
fn keys(cluster: &Cluster) -> [usize; 4] {
    let dump: Value = serde_json::from_str(&cluster.ctl("get --prefix /weft -w json").unwrap()).unwrap();
    let decode = |text: &Value| base64(text.as_str().unwrap_or_default());
    let mut counts = [0; 4];
    for found in dump["kvs"].as_array().into_iter().flatten() {
        let (key, value) = (decode(&found["key"]), decode(&found["value"]));
        let kind = match key.split('/').nth(4) {
            Some("addresses") if value.starts_with("held ") => 0,
            Some("addresses") => 1,
            Some("freed") => 2,
            Some("leases") => 3,
            _ => continue,
        };
        counts[kind] += 1;
    }
    counts
}

const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(text: &str) -> String {
    let mut bytes = Vec::new();
    let (mut bits, mut width) = (0u32, 0);
    for digit in text.bytes().filter_map(|byte| BASE64.iter().position(|digit| *digit == byte)) {
        (bits, width) = ((bits << 6) | u32::try_from(digit).unwrap(), width + 6);
        if width >= 8 {
            width -= 8;
            bytes.push(u8::try_from((bits >> width) & 0xff).unwrap());
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn nodes_share_a_pool_and_each_sees_to_its_own() {
    let node = Node::start().unwrap();
    let cluster = Cluster::start(&node, 1).unwrap();
    let range = json!([[{ "subnet": "10.7.0.0/29" }], [{ "subnet": "fd07::/125" }]]);
    let [a, b] =
        ["a", "b"].map(|name| Client::new(&node, name, &cluster.endpoints()).with_ranges(range.clone()));

    // Five addresses of IPv4 and six of IPv6 for both: nobody gets one twice, and then there is none.
    let mut given = BTreeSet::new();
    for (client, container) in [(&a, "a1"), (&b, "b1"), (&a, "a2"), (&b, "b2"), (&a, "a3")] {
        for address in client.add(container).unwrap() {
            assert!(given.insert(address), "{address} was given twice");
        }
    }
    let (code, why) = b.add("b3").unwrap_err();
    assert!(code == 11 && why.contains("no address is free in 10.7.0.0/29: 5 of 5 are held"), "{code} {why}");
    assert_eq!(answer(&b.run("STATUS", "")).unwrap_err().0, 50);
    assert_eq!(a.add("a1").unwrap_err().0, 100, "an attachment that has addresses gets no others");
    assert_eq!(keys(&cluster), [10, 0, 0, 5]);

    // GC and DEL see their own node's leases only; a freed address goes to whoever asks next.
    let mut gc = a.clone();
    gc.conf["cni.dev/valid-attachments"] = json!([{ "containerID": "a1", "ifname": "eth0" }]);
    answer(&gc.run("GC", "")).unwrap();
    b.del("a1").unwrap();
    let left: Vec<_> = a.leases().into_keys().map(|(_, container)| container).collect();
    assert_eq!(left, ["a1", "b1", "b2"]);
    b.add("b3").unwrap();
    b.del("b3").unwrap();
    b.del("b3").unwrap();

    // A node that is gone for good is released by its name; one that may live is not.
    let refused = b.command("release 10.7.0.99").unwrap_err().to_string();
    assert!(refused.contains("nobody holds the address 10.7.0.99"), "{refused}");
    let refused = b.command("release a1").unwrap_err().to_string();
    assert!(refused.contains("the lease is a's, and only that can tell whether it lives"), "{refused}");
    let refused = b.command("release --node a").unwrap_err().to_string();
    assert!(refused.contains("a holds 1 lease, and only a can tell"), "{refused}");
    let released = b.command("release --node a --force").unwrap();
    assert!(
        released.starts_with("released ") && released.contains(" of eth0 of a1 in pods (shop/a1)"),
        "{released}"
    );
    assert_eq!(b.leases().len(), 2);
    for container in ["b1", "b2"] {
        b.del(container).unwrap();
    }
    assert_eq!(keys(&cluster), [0, 11, 11, 0], "every address is free and in the order of reuse");
}

/// What tells one machine from another, as the node sees it from now on.
fn become_machine(node: &Node, id: &str, boot: &str) {
    for (name, text, place) in
        [("machine-id", id, "/etc/machine-id"), ("boot-id", boot, "/proc/sys/kernel/random/boot_id")]
    {
        let path = format!("/run/node/{name}");
        // The machine before it, if this is not the first.
        drop(node.sh(&format!("umount {place}")));
        node.write(&path, &format!("{text}\n")).unwrap();
        node.sh(&format!("mount --bind {path} {place}")).unwrap();
    }
}

#[test]
fn two_machines_of_one_name_do_not_end_each_others_leases() {
    let node = Node::start().unwrap();
    let cluster = Cluster::start(&node, 1).unwrap();
    let client = Client::new(&node, "a", &cluster.endpoints());
    become_machine(&node, "first", "boot-1");
    client.add("c1").unwrap();
    become_machine(&node, "first", "boot-2");
    client.del("c0").unwrap();
    let held = || client.leases().into_keys().map(|(_, container)| container).collect::<Vec<_>>();
    assert_eq!(held(), ["c1"]);
    client.add("c2").unwrap();
    assert_eq!(held(), ["c2"], "its first ADD after a boot ends what the machine held before");
    client.add("c1").unwrap();
    assert_eq!(held(), ["c1", "c2"]);
    let before = client.leases();

    become_machine(&node, "second", "boot-3");
    for error in [client.add("c3").unwrap_err(), client.del("c1").unwrap_err()] {
        assert_eq!(error.0, 7, "{error:?}");
        let whose =
            "the leases of node a belong to another machine (first boot-2; this one is second boot-3)";
        assert!(error.1.contains(whose), "{error:?}");
    }
    let (code, why) = answer(&client.run("STATUS", "")).unwrap_err();
    assert!(code == 50 && why.contains("belong to another machine (first boot-2"), "{code} {why}");
    client.del("unknown").unwrap();
    let refused = client.command("reclaim").unwrap_err().to_string();
    assert!(refused.contains("weft-ipam claim --conf"), "{refused}");
    assert_eq!(client.leases(), before);

    // It takes the place of the first one, whose leases are of an earlier boot then.
    let claimed = client.command("claim").unwrap();
    assert_eq!(
        claimed.trim(),
        "the leases of pods on a are this machine's; they were those of the machine first boot-2"
    );
    client.add("c3").unwrap();
    assert!(client.command("reclaim").unwrap().contains("reclaimed 2 leases"));
    become_machine(&node, "first", "boot-2");
    assert_eq!(client.add("c4").unwrap_err().0, 7, "the other one has it now");

    // Where nothing can be lost, nobody has to decide.
    become_machine(&node, "second", "boot-3");
    client.del("c3").unwrap();
    become_machine(&node, "first", "boot-2");
    client.add("c4").unwrap();
    assert_eq!(keys(&cluster)[3], 1);
}

#[test]
fn a_lease_that_somebody_has_written_over_is_told_and_ends_as_any_other() {
    let node = Node::start().unwrap();
    let cluster = Cluster::start(&node, 1).unwrap();
    let mut client = Client::new(&node, "a", &cluster.endpoints());
    let held = ["c1", "c2", "c3", "c4"].map(|container| client.add(container).unwrap());
    let key = |container: &str| format!("/weft/ipam/pods/leases/a/{container}");
    for container in ["c1", "c2", "c3"] {
        cluster.ctl(&format!("put {}/eth0 rubbish", key(container))).unwrap();
    }

    // It is named with its key and its addresses, which stay held, and the others are served.
    let listed = client.command("list").unwrap_err().to_string();
    let told = format!("the value of {}/eth0 cannot be read: \"rubbish\"", key("c1"));
    assert!(listed.contains(&told) && listed.contains(&held[0][0].to_string()), "{listed}");
    assert!(client.command("reclaim").unwrap_err().to_string().contains(&told));
    assert!(client.add("c1").unwrap_err().1.contains(&told));
    answer(&client.run("STATUS", "")).unwrap();
    client.add("c5").unwrap();

    client.del("c1").unwrap();
    client.del("c1").unwrap();
    assert_eq!(keys(&cluster), [8, 2, 2, 4], "its addresses are free");
    let refused = client.command(&format!("release {}", held[1][0])).unwrap_err().to_string();
    assert!(refused.contains("nobody can tell whether it lives"), "{refused}");
    let released = client.command(&format!("release {} --force", held[1][0])).unwrap();
    assert!(released.contains("eth0 of c2 in pods"), "{released}");

    // What was never a lease has a key that says so; it is in nobody's way.
    cluster.ctl(&format!("put {} rubbish", key("junk"))).unwrap();
    client.conf["cni.dev/valid-attachments"] = json!([{ "containerID": "c5", "ifname": "eth0" }]);
    let (_, why) = answer(&client.run("GC", "")).unwrap_err();
    assert!(why.contains(&key("junk")), "{why}");
    cluster.ctl(&format!("del {}", key("junk"))).unwrap();
    answer(&client.run("GC", "")).unwrap();
    assert_eq!(client.leases().into_keys().collect::<Vec<_>>(), [("a".to_owned(), "c5".to_owned())]);
    assert_eq!(keys(&cluster), [2, 8, 8, 1]);
}

#[test]
fn a_pod_of_weft_cni_gets_its_addresses_from_the_shared_pool() {
    let node = Node::start().unwrap();
    let cluster = Cluster::start(&node, 1).unwrap();
    let before = node.inventory().unwrap();
    let ranges = json!([[{ "subnet": "10.7.0.0/24" }], [{ "subnet": "fd07::/64" }]]);
    let store = json!({ "type": "etcd", "endpoints": cluster.endpoints(), "node": "a" });
    let network = Network::routed(0).with(json!({ "ipam": {
        "type": "weft-ipam", "ranges": ranges, "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }], "store": store,
    }}));
    let pods = ["one", "two"].map(|name| Pod::create(&node, name).unwrap());
    let results = pods.each_ref().map(|pod| network.add(&node, &Attachment::of(pod)).unwrap());
    let [one, two] = results.each_ref().map(|result| weft_e2e::cni::address(result, 0).unwrap());
    assert_ne!(one, two);
    let _server = weft_e2e::Upstream::start(&pods[1], 8080, "two").unwrap();
    let reached = weft_e2e::http::get(&pods[0], (two, 8080).into(), "x", "/", &[]).unwrap();
    assert_eq!(reached.echo().unwrap().name, "two");
    network.check(&node, &Attachment::of(&pods[0]), &results[0]).unwrap();
    assert_eq!(keys(&cluster)[3], 2);
    for (pod, result) in pods.iter().zip(&results) {
        network.del(&node, &Attachment::of(pod), result).unwrap();
    }
    assert_eq!(keys(&cluster), [0, 4, 4, 0]);
    drop((_server, pods));
    assert_eq!(before.diff(&node.inventory().unwrap()), [""; 0]);
}

#[test]
fn without_a_majority_the_error_is_clear_and_comes_in_time() {
    let node = Node::start().unwrap();
    let mut cluster = Cluster::start(&node, 3).unwrap();
    let client = Client::new(&node, "a", &cluster.endpoints())
        .with_store(json!({ "timeout": "2s", "attemptTimeout": "400ms" }));
    client.add("c1").unwrap();
    cluster.kill(0).unwrap();
    cluster.kill(1).unwrap();
    for verb in ["ADD", "DEL"] {
        let start = Instant::now();
        let (code, why) = answer(&client.run(verb, if verb == "ADD" { "c2" } else { "c1" })).unwrap_err();
        let took = start.elapsed();
        assert_eq!(code, 11, "{why}");
        assert!(took < Duration::from_secs(4), "{verb} took {took:?}");
        assert!(why.starts_with("no member of etcd answered within 2s"), "{why}");
        assert!(why.contains("http://127.0.0.1:2379: Connection refused"), "{why}");
    }
    let start = Instant::now();
    let (code, why) = answer(&client.run("STATUS", "")).unwrap_err();
    assert!(code == 50 && start.elapsed() < Duration::from_secs(2), "{code} {why} {:?}", start.elapsed());
    cluster.restart(0).unwrap();
    client.del("c1").unwrap();
    client.add("c2").unwrap();
    assert_eq!(client.leases().len(), 1);
}

#[test]
fn members_and_clients_prove_who_they_are() {
    let node = Node::start().unwrap();
    let certificates = Certificates::create(&node, &["weft", "other"]).unwrap();
    let cluster = Cluster::start_secure(&node, 1, &certificates).unwrap();
    let dir = Certificates::DIR;
    let own = |name: &str| json!({ "cacert": format!("{dir}/ca.pem"), "cert": format!("{dir}/{name}.pem"), "key": format!("{dir}/{name}.key") });
    let secured = Client::new(&node, "a", &cluster.endpoints()).with_store(own("weft"));
    secured.add("tls").unwrap();

    node.write(format!("{dir}/password"), "secret\n").unwrap();
    node.write(format!("{dir}/wrong"), "guess\n").unwrap();
    node.sh(&format!("chmod 600 {dir}/password {dir}/wrong")).unwrap();
    node.write(format!("{dir}/open"), "secret\n").unwrap();
    node.sh(&format!("chmod 644 {dir}/open")).unwrap();
    for words in [
        "user add root:root",
        "user grant-role root root",
        "role add weft",
        "role grant-permission weft --prefix=true readwrite /weft/ipam/",
        "user add weft:secret",
        "user grant-role weft weft",
        "user add server:x",
        "user grant-role server root",
        "user add other:x",
        "auth enable",
    ] {
        cluster.ctl(words).unwrap();
    }
    // The certificate's name is a user: no password is needed.
    secured.add("by-certificate").unwrap();
    let user = |file: &str| json!({ "username": "weft", "passwordFile": format!("{dir}/{file}") });
    let with_password = secured.clone().with_store(own("other")).with_store(user("password"));
    with_password.add("by-password").unwrap();
    with_password.del("by-password").unwrap();
    for (what, client, expected) in [
        (
            "a wrong password",
            secured.clone().with_store(user("wrong")),
            "authentication failed, invalid user ID or password",
        ),
        ("a user without the permission", secured.clone().with_store(own("other")), "permission denied"),
        (
            "a file that is not there",
            secured.clone().with_store(user("gone")),
            "cannot read the password /run/node/pki/gone",
        ),
        (
            "a password for everybody to read",
            secured.clone().with_store(user("open")),
            "the password /run/node/pki/open is open to everybody (mode 644)",
        ),
    ] {
        let start = Instant::now();
        let (code, why) = client.add("refused").unwrap_err();
        assert!(code == 5 && why.contains(expected), "{what}: {code} {why}");
        assert!(
            start.elapsed() < Duration::from_secs(4),
            "{what} will not pass by itself, so nothing is waited for"
        );
    }
    // STATUS has the time for a password, and says what is wrong with one.
    for _ in 0..5 {
        assert_eq!(answer(&with_password.run("STATUS", "")), Ok(Value::Null));
    }
    let wrong = secured.clone().with_store(user("wrong"));
    let (code, why) = answer(&wrong.run("STATUS", "")).unwrap_err();
    assert!(code == 50 && why.contains("authentication failed"), "{code} {why}");
    // What no member would take otherwise is not tried until the time is up.
    for (keys, expected) in [
        (json!({ "cacert": format!("{dir}/stranger.pem") }), "cacert must have who signed it"),
        (json!({ "cacert": format!("{dir}/password") }), "has no CERTIFICATE in it"),
        (json!({ "cert": format!("{dir}/weft.key") }), "has no CERTIFICATE in it"),
        (json!({ "key": format!("{dir}/password") }), "has no PRIVATE KEY in it"),
    ] {
        let start = Instant::now();
        let client = secured.clone().with_store(keys).with_store(json!({ "timeout": "60s" }));
        let (code, why) = client.add("mistaken").unwrap_err();
        assert!(code == 5 && why.contains(expected), "{code} {why}");
        assert!(start.elapsed() < Duration::from_secs(20), "{why}: {:?}", start.elapsed());
    }
    // A member that refuses a client sends an alert and hangs up; which of them is seen first is a matter of luck.
    let client = secured
        .with_store(json!({ "cert": null, "key": null }))
        .with_store(json!({ "timeout": "1s", "attemptTimeout": "500ms" }));
    let (code, why) = client.add("distrusted").unwrap_err();
    assert!(code == 11 && why.to_lowercase().contains("certificate"), "{code} {why}");
}

/// Stands before a member and passes everything on, but for one answer: that to the first transaction which makes a lease.
struct LosesAnAnswer {
    endpoint: String,
    lost: std::sync::Arc<AtomicUsize>,
}

impl LosesAnAnswer {
    fn start(node: &Node, port: u16) -> Self {
        let listener = node.run(|| TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let lost = std::sync::Arc::new(AtomicUsize::new(0));
        let (count, node) = (lost.clone(), node.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = node.run(|| TcpStream::connect(("127.0.0.1", port)).unwrap()).unwrap();
                let count = count.clone();
                thread::spawn(move || pass_on(&client, &server, &count));
            }
        });
        Self { endpoint, lost }
    }
}

fn pass_on(client: &TcpStream, server: &TcpStream, lost: &AtomicUsize) {
    let cut = AtomicBool::new(false);
    let copy = |mut from: &TcpStream, mut to: &TcpStream, upwards: bool| {
        let mut buffer = [0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let makes_a_lease = buffer[..length].windows(5).any(|part| part == b"held ");
            if upwards && makes_a_lease && lost.load(Ordering::SeqCst) == 0 {
                lost.fetch_add(1, Ordering::SeqCst);
                cut.store(true, Ordering::SeqCst);
            } else if !upwards && cut.load(Ordering::SeqCst) {
                break;
            }
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        drop([from, to].map(|end| end.shutdown(std::net::Shutdown::Both)));
    };
    thread::scope(|scope| {
        scope.spawn(|| copy(client, server, true));
        copy(server, client, false);
    });
}

#[test]
fn a_lease_whose_answer_was_lost_is_found_again() {
    let node = Node::start().unwrap();
    let cluster = Cluster::start(&node, 1).unwrap();
    let between = LosesAnAnswer::start(&node, 2379);
    let client = Client::new(&node, "a", std::slice::from_ref(&between.endpoint));
    let addresses = client.add("c1").unwrap();
    assert_eq!(between.lost.load(Ordering::SeqCst), 1, "the answer was not lost");
    assert_eq!(client.leases(), BTreeMap::from([(("a".into(), "c1".into()), addresses)]));
    assert_eq!(keys(&cluster), [2, 0, 0, 1], "nothing was made twice");
}

/// What the writers are told.
#[derive(Default)]
struct Board {
    held: Mutex<BTreeMap<IpAddr, String>>,
    /// Containers of which nobody knows whether they hold something.
    unsure: Mutex<BTreeSet<(usize, String)>>,
    doubled: Mutex<Vec<String>>,
    /// When ADDs began that succeeded, and when they ended.
    successes: Mutex<Vec<(Instant, Instant)>>,
    refused: AtomicUsize,
    is_over: AtomicBool,
}

const NODES: usize = 3;
const WRITERS: usize = 16;

impl Board {
    /// Attaches and detaches containers until the end; afterwards it still holds some.
    fn write(&self, clients: &[Client], node: usize, writer: usize) -> Vec<(usize, String)> {
        let mut mine: Vec<String> = Vec::new();
        for number in 0.. {
            if self.is_over.load(Ordering::SeqCst) {
                break;
            }
            if mine.len() >= 3 {
                self.detach(&clients[node], node, mine.remove(number % 3));
            } else if let Some(container) =
                self.attach(&clients[node], node, format!("w{node}-{writer}-{number}"))
            {
                mine.push(container);
            }
        }
        mine.into_iter().map(|container| (node, container)).collect()
    }

    fn attach(&self, client: &Client, node: usize, container: String) -> Option<String> {
        let start = Instant::now();
        match client.add(&container) {
            Ok(addresses) => {
                self.successes.lock().unwrap().push((start, Instant::now()));
                let mut held = self.held.lock().unwrap();
                for address in addresses {
                    if let Some(other) = held.insert(address, container.clone()) {
                        self.doubled
                            .lock()
                            .unwrap()
                            .push(format!("{address} is {other}'s and {container}'s"));
                    }
                }
                Some(container)
            }
            Err((code, why)) => {
                assert_eq!(code, 11, "{why}");
                self.refused.fetch_add(1, Ordering::SeqCst);
                self.unsure.lock().unwrap().insert((node, container));
                None
            }
        }
    }

    /// Before it is asked for: from then on somebody else may have the addresses.
    fn detach(&self, client: &Client, node: usize, container: String) {
        self.held.lock().unwrap().retain(|_, holder| *holder != container);
        if let Err((code, why)) = client.del(&container) {
            assert_eq!(code, 11, "{why}");
            self.refused.fetch_add(1, Ordering::SeqCst);
            self.unsure.lock().unwrap().insert((node, container));
        }
    }

    /// How long after `event` the first ADD was answered that began after it.
    fn recovered(&self, event: Instant) -> Option<Duration> {
        let successes = self.successes.lock().unwrap();
        successes.iter().filter(|(start, _)| *start > event).map(|(_, end)| *end - event).min()
    }

    fn await_success_since(&self, event: Instant) -> Duration {
        let limit = Duration::from_secs(30);
        wait::until("an ADD to succeed again", limit, || self.recovered(event).ok_or_else(String::new))
            .unwrap()
    }

    /// Waits for so many more ADDs.
    fn await_more(&self, more: usize) {
        let count = || self.successes.lock().unwrap().len();
        let until = count() + more;
        let limit = Duration::from_secs(60);
        wait::until("the writers", limit, || {
            (count() >= until).then_some(()).ok_or_else(|| count().to_string())
        })
        .unwrap();
    }
}

#[test]
fn forty_eight_writers_lose_and_double_nothing_while_members_come_and_go() {
    let node = Node::start().unwrap();
    let mut cluster = Cluster::start(&node, 3).unwrap();
    let endpoints = cluster.endpoints();
    let clients: Vec<_> =
        (0..NODES).map(|number| Client::new(&node, &format!("node-{number}"), &endpoints)).collect();
    let board = Board::default();
    let (steady, without_one, without_leader, kept) = thread::scope(|scope| {
        let writers: Vec<_> = (0..NODES * WRITERS)
            .map(|number| {
                let (board, clients) = (&board, &clients);
                scope.spawn(move || board.write(clients, number % NODES, number / NODES))
            })
            .collect();
        let events = {
            // Whatever goes wrong here, the writers end.
            let _end = EndsTheWriters(&board);
            disturb(&board, &mut cluster)
        };
        let kept: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        (events.0, events.1, events.2, kept)
    });
    assert_eq!(*board.doubled.lock().unwrap(), [""; 0]);

    // What was answered stands, and nothing else but what nobody could answer.
    let standing = clients[0].leases();
    let (held, unsure) = (board.held.lock().unwrap().clone(), board.unsure.lock().unwrap().clone());
    let mut addresses = BTreeMap::new();
    for ((on, container), leased) in &standing {
        let is_unsure =
            unsure.iter().any(|(node, unsure)| unsure == container && *on == format!("node-{node}"));
        for address in leased {
            assert_eq!(addresses.insert(*address, container.clone()), None, "{address} is in two leases");
            assert!(
                is_unsure || held.get(address) == Some(container),
                "{address} of {container} was never answered, or is gone"
            );
        }
    }
    let lost: Vec<_> =
        held.iter().filter(|(address, holder)| addresses.get(address) != Some(holder)).collect();
    assert_eq!(lost, []);
    let [held_keys, free, order, leases] = keys(&cluster);
    assert_eq!(
        (held_keys, free, leases),
        (addresses.len(), order, standing.len()),
        "the keys agree with each other"
    );

    // A DEL settles what was not answered.
    for (on, container) in kept.iter().chain(&unsure) {
        clients[*on].del(container).unwrap();
    }
    let [held_keys, free, order, leases] = keys(&cluster);
    assert_eq!((held_keys, leases, free), (0, 0, order));
    let (adds, refused) = (board.successes.lock().unwrap().len(), board.refused.load(Ordering::SeqCst));
    eprintln!(
        "{adds} ADDs by {} writers; the first one: {steady:?} (undisturbed), {without_one:?} after a member was killed, \
         {without_leader:?} after the leader was cut off; {refused} requests without an answer in time, all settled",
        NODES * WRITERS
    );
}

struct EndsTheWriters<'a>(&'a Board);

impl Drop for EndsTheWriters<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

/// A member is killed and brought back, then the leader is cut off. Says how long after each the next ADD was answered.
fn disturb(board: &Board, cluster: &mut Cluster) -> (Duration, Duration, Duration) {
    const ADDS: usize = 96;
    board.await_more(ADDS);
    let steady = board.await_success_since(Instant::now());

    let victim = (cluster.leader().unwrap() + 1) % 3;
    let killed = Instant::now();
    cluster.kill(victim).unwrap();
    let without_one = board.await_success_since(killed);
    board.await_more(ADDS);
    cluster.restart(victim).unwrap();

    let leader = cluster.leader().unwrap();
    let cut_off = Instant::now();
    cluster.signal(leader, Signal::SIGSTOP).unwrap();
    let without_leader = board.await_success_since(cut_off);
    board.await_more(ADDS);
    cluster.signal(leader, Signal::SIGCONT).unwrap();
    board.await_more(ADDS);
    cluster.leader().unwrap();
    (steady, without_one, without_leader)
}

#[test]
fn an_allocation_does_not_read_the_pool() {
    let node = Node::start().unwrap();
    let cluster = Cluster::start(&node, 1).unwrap();
    let client =
        Client::new(&node, "a", &cluster.endpoints()).with_ranges(json!([[{ "subnet": "10.8.0.0/16" }]]));
    let median = || {
        let mut times: Vec<Duration> = (0..9)
            .map(|number| {
                let (container, start) = (format!("probe{number}"), Instant::now());
                client.add(&container).unwrap();
                let took = start.elapsed();
                client.del(&container).unwrap();
                took
            })
            .collect();
        times.sort();
        times[times.len() / 2]
    };
    let empty = median();
    // As this allocator fills a pool: one address in a hundred is free, anywhere.
    fill(&node, (2..0xfffe).filter(|number| number % 100 != 0));
    let full = median();
    // And as an import might: no gap for 60 000 addresses.
    fill(&node, 2..60_000);
    let stretch = median();
    eprintln!(
        "an ADD as a process: {empty:?} in an empty /16, {full:?} in one that is 99 % full, {stretch:?} where 60 000 have no gap"
    );
    // Reading the pool would take seconds; the machine may be busy with other things.
    assert!(full < empty * 4 + Duration::from_millis(100), "{empty:?} {full:?}");
}

/// Addresses of a node that nobody asks, by etcd's JSON gateway: 60 000 ADDs would take minutes.
fn fill(node: &Node, numbers: impl Iterator<Item = u32>) {
    let put = |number: &u32| {
        let key = format!("/weft/ipam/pods/addresses/4/{:08x}", 0x0a08_0000 + number);
        json!({ "requestPut": { "key": to_base64(&key), "value": to_base64("held other/c/eth0") } })
    };
    for some in numbers.collect::<Vec<_>>().chunks(100) {
        let body = json!({ "success": some.iter().map(put).collect::<Vec<_>>() }).to_string();
        let request = format!(
            "POST /v3/kv/txn HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut answer = String::new();
        node.run(|| {
            let mut server = TcpStream::connect("127.0.0.1:2379").unwrap();
            server.write_all(request.as_bytes()).unwrap();
            server.read_to_string(&mut answer).unwrap();
        })
        .unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

fn to_base64(text: &str) -> String {
    let digits =
        text.as_bytes().chunks(3).flat_map(|three| {
            let bits = three.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte))
                << (8 * (3 - three.len()));
            (0..4).map(move |digit| {
                if digit <= three.len() { BASE64[(bits >> (18 - 6 * digit)) as usize & 63] } else { b'=' }
            })
        });
    digits.map(char::from).collect()
}
