//! `weft-ipam import` where what it is given is not what it should be, or has changed since.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

#[expect(dead_code, reason = "what runs the verbs is for other tests")]
#[path = "shared/node.rs"]
mod node;

use node::{BINARY, Namespace, Node};

/// host-local's directory of the network `pods`, the runtime's results, and the configuration to come.
struct Theirs {
    node: Node,
    dir: PathBuf,
    results: PathBuf,
    conf: PathBuf,
}

impl Theirs {
    fn new() -> Self {
        let node = Node::new();
        let at = |name: &str| node.dir.path().join(name);
        let (dir, results, conf) = (at("networks/pods"), at("results"), at("new.conf"));
        fs::create_dir_all(&dir).unwrap();
        fs::create_dir(&results).unwrap();
        fs::write(&conf, node.conf("1.0.0").to_string()).unwrap();
        fs::write(dir.join("lock"), "").unwrap();
        Self { dir, results, conf, node }
    }

    fn hold(&self, address: &str, container: &str) {
        fs::write(self.dir.join(address), format!("{container}\r\neth0")).unwrap();
    }

    /// As libcni remembers an ADD into `pod`.
    fn remember(&self, container: &str, pod: &Namespace) {
        let info = json!({ "containerId": container, "ifName": "eth0", "netns": pod.path, "result": {} });
        fs::write(self.results.join(format!("pods-{container}-eth0")), info.to_string()).unwrap();
    }

    fn import(&self) -> (i32, String, String) {
        let (conf, results) = (self.conf.to_str().unwrap(), self.results.to_str().unwrap());
        from_host_local(&self.dir, &["--conf", conf, "--results", results])
    }
}

fn from_host_local(dir: &Path, options: &[&str]) -> (i32, String, String) {
    run(&[&["import", "--from-host-local", dir.to_str().unwrap()], options].concat())
}

/// Exit code, standard output, standard error.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(BINARY).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn import_export(node: &Node, leases: &Value, ranges: &Value) -> (i32, String, String) {
    let first = json!({ "name": "first", "leases": [lease("c0", &["10.7.0.6/29"])] });
    let second = json!({ "name": "pods", "ranges": ranges, "leases": leases });
    let file = node.dir.path().join("export.json");
    fs::write(&file, json!({ "weftIpamExport": 1, "networks": [first, second] }).to_string()).unwrap();
    run(&["import", file.to_str().unwrap(), "--data-dir", node.dir.path().to_str().unwrap()])
}

fn lease(container: &str, addresses: &[&str]) -> Value {
    let addresses: Vec<_> = addresses.iter().map(|address| json!({ "address": address })).collect();
    json!({ "container": container, "ifname": "eth0", "addresses": addresses, "sinceUnixNanos": 1 })
}

#[test]
fn a_lease_without_an_address_is_refused_by_name_and_nothing_is_written() {
    let node = Node::new();
    let leases = json!([lease("c1", &["10.7.0.2/29"]), lease("c2", &[])]);
    let (code, text, error) = import_export(&node, &leases, &Value::Null);
    assert_eq!((code, text.as_str()), (1, ""));
    assert!(error.contains("the lease of eth0 of c2 in pods has no address"), "{error}");
    assert_eq!(node.lease_count(), 0, "neither of this network nor of the one before it");
}

#[test]
fn addresses_that_no_range_gives_out_are_taken_over_with_a_warning() {
    let node = Node::new();
    let leases = json!([lease("c1", &["10.7.0.1/29"]), lease("c2", &["10.9.0.2/29"])]);
    let (code, text, _) = import_export(&node, &leases, &json!([[{"subnet": "10.7.0.0/29"}]]));
    assert_eq!(code, 0, "{text}");
    for warning in [
        "warning: 10.7.0.1 of eth0 of c1 in pods: it is the gateway of its range\n",
        "warning: 10.9.0.2 of eth0 of c2 in pods: it is in none of the ranges\n",
    ] {
        assert!(text.contains(warning), "{text}");
    }
    assert_eq!(node.lease_count(), 3);
}

#[test]
fn a_directory_that_is_not_host_locals_is_refused_and_stays_as_it_is() {
    let theirs = Theirs::new();
    theirs.hold("10.7.0.2", "c1");
    let parent = theirs.dir.parent().unwrap();
    fs::create_dir(parent.join("empty")).unwrap();
    let (code, text, error) = from_host_local(parent, &["--conf", theirs.conf.to_str().unwrap()]);
    assert_eq!((code, text.as_str()), (1, ""));
    let (above, dir) = (parent.display(), theirs.dir.display());
    assert_eq!(error, format!("weft-ipam: no host-local leases in {above}; did you mean {dir}?\n"));
    assert!(!parent.join("lock").exists());

    let empty = parent.join("empty");
    let (code, _, error) = from_host_local(&empty, &["--conf", theirs.conf.to_str().unwrap()]);
    assert_eq!((code, error), (1, format!("weft-ipam: no host-local leases in {}\n", empty.display())));
    assert_eq!(fs::read_dir(empty).unwrap().count(), 0);
}

#[test]
fn a_network_of_host_local_without_pods_is_no_mistake() {
    let (code, text, error) = Theirs::new().import();
    assert_eq!((code, error.as_str()), (0, ""), "{text}");
    assert!(text.contains("took over 0 leases"), "{text}");
}

#[test]
fn without_ranges_nothing_is_taken_over_from_host_local() {
    let theirs = Theirs::new();
    theirs.hold("10.7.0.2", "c1");
    let (code, _, error) =
        from_host_local(&theirs.dir, &["--data-dir", theirs.node.dir.path().to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(error.contains("nobody says which ranges pods has") && error.contains("--conf"), "{error}");
    assert_eq!(theirs.node.lease_count(), 0);
    // Once they are known, they need not be said again.
    assert_eq!(theirs.import().0, 0);
    theirs.hold("10.7.0.3", "c2");
    let again = from_host_local(&theirs.dir, &["--data-dir", theirs.node.dir.path().to_str().unwrap()]);
    assert_eq!((again.0, theirs.node.lease_count()), (0, 2), "{}", again.1);
}

#[test]
fn what_host_local_released_between_two_imports_ends_with_the_second() {
    let theirs = Theirs::new();
    let (gone, lives) = (Namespace::new(), Namespace::new());
    for (address, container, pod) in [
        ("10.7.0.2", "gone", Some(&gone)),
        ("10.7.0.3", "lives", Some(&lives)),
        ("10.7.0.4", "nobody-knows", None),
    ] {
        theirs.hold(address, container);
        pod.into_iter().for_each(|pod| theirs.remember(container, pod));
    }
    assert_eq!(theirs.import().0, 0);
    drop(gone);
    // host-local's DEL of all, and an ADD that gets the first address again.
    for address in ["10.7.0.2", "10.7.0.3", "10.7.0.4"] {
        fs::remove_file(theirs.dir.join(address)).unwrap();
    }
    theirs.hold("10.7.0.2", "next");

    let (code, text, _) = theirs.import();
    assert_eq!(code, 4, "two of them may be lived on: {text}");
    for part in [
        "took over 10.7.0.2 of eth0 of next in pods\n",
        "ended 10.7.0.2 of eth0 of gone in pods: host-local has released it since",
        "left 10.7.0.3 of eth0 of lives in pods: host-local has no file of it any more, but its namespace is there",
        "left 10.7.0.4 of eth0 of nobody-knows in pods:",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert_eq!(theirs.node.lease_count(), 3);
}

#[test]
fn what_the_runtime_remembers_under_the_networks_earlier_name_is_found() {
    let theirs = Theirs::new();
    let mut conf = theirs.node.conf("1.0.0");
    conf["name"] = "renamed".into();
    fs::write(&theirs.conf, conf.to_string()).unwrap();
    let (lives, gone) = (Namespace::new(), Namespace::new());
    for (address, container, pod) in [("10.7.0.2", "lives", &lives), ("10.7.0.3", "gone", &gone)] {
        theirs.hold(address, container);
        theirs.remember(container, pod);
    }
    drop(gone);
    let (code, text, _) = theirs.import();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("skipped 10.7.0.3: of gone: its network namespace"), "{text}");
    assert!(text.contains("took over 1 lease,"), "{text}");
}

#[test]
fn a_lease_of_host_local_is_reclaimed_like_any_other() {
    let theirs = Theirs::new();
    let pod = Namespace::new();
    theirs.hold("10.7.0.2", "c1");
    theirs.remember("c1", &pod);
    assert_eq!(theirs.import().0, 0);
    drop(pod);
    let reclaimed = theirs.node.command("reclaim", &[]);
    assert_eq!(
        String::from_utf8(reclaimed.stdout).unwrap(),
        "reclaimed 10.7.0.2 of eth0 of c1 in pods\nreclaimed 1 lease\n"
    );
}

#[test]
fn an_address_of_which_nobody_can_read_whose_it_is_refuses_the_import_and_nobody_waits_for_it() {
    let theirs = Theirs::new();
    theirs.hold("10.7.0.2", "c1");
    fs::write(theirs.dir.join("10.7.0.4"), b"c\xff\r\neth0").unwrap();
    symlink("/nowhere", theirs.dir.join("10.7.0.5")).unwrap();
    for name in ["10.7.0.3", "last_reserved_ip.0"] {
        assert!(Command::new("mkfifo").arg(theirs.dir.join(name)).status().unwrap().success());
    }
    let (code, text, error) = theirs.import();
    assert_eq!((code, text.as_str()), (4, ""), "{error}");
    for (file, why) in [("10.7.0.3", "it is no file"), ("10.7.0.4", "UTF-8"), ("10.7.0.5", "No such file")] {
        let at = error.split(&format!("{} (", theirs.dir.join(file).display())).nth(1);
        assert!(at.is_some_and(|at| at.split(')').next().unwrap().contains(why)), "{file} in {error}");
    }
    assert!(!error.contains("last_reserved_ip"), "{error}");
    assert!(
        !theirs.node.dir.path().join("pods").exists(),
        "nothing is taken over, so that ADDs stay refused"
    );

    theirs.hold("10.7.0.4", "c2");
    for name in ["10.7.0.3", "10.7.0.5"] {
        fs::remove_file(theirs.dir.join(name)).unwrap();
    }
    let (code, text, _) = theirs.import();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("skipped last_reserved_ip.0: cannot read it: it is no file"), "{text}");
    assert_eq!(theirs.node.lease_count(), 2);
}

#[test]
fn many_leases_come_in_lines_that_are_quickly_read() {
    let node = Node::new();
    let leases: Value =
        (0..1_000).map(|n| lease(&format!("c{n}"), &[&format!("10.8.{}.{}/16", n / 256, n % 256)])).collect();
    let (code, _, _) = import_export(&node, &leases, &json!([[{"subnet": "10.8.0.0/16"}]]));
    assert_eq!(code, 0);
    let log = fs::read_to_string(node.dir.path().join("pods/leases.log")).unwrap();
    let longest = log.lines().map(str::len).max().unwrap();
    assert!(log.contains("c999") && longest < 4_096, "{longest} bytes");
}
