//! The plugin's binary in a network namespace of its own, where things go wrong: after every mishap the verbs that a
//! runtime has must bring the node back to where nothing is left, and no pod may be touched but the one that is named.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs::OpenOptions;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use weft_datapath::{NetNs, Nft, Rtnl};
use weft_ipam::lease::Attachment;
use weft_ipam::{Ipam, Request};

#[path = "shared/node.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod node;
#[path = "shared/pod.rs"]
mod pod;

use node::{PLUGIN, alone, answer, output, owners, remains};
use pod::Pod;

/// A node: the calling thread's namespace, and a data directory.
struct Node {
    dir: TempDir,
}

impl Node {
    /// Runs `test` on a node of its own, which must be empty afterwards.
    fn run(test: impl FnOnce(&Self) + Send + 'static) {
        alone(move || {
            test(&Self { dir: tempfile::tempdir().unwrap() });
            assert_eq!(remains(), Vec::<String>::new());
        });
    }

    /// Two IPv4 addresses, masqueraded.
    fn conf(&self, network: &str) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": network, "type": "weft-cni", "ipMasq": true,
            "ipam": {
                "type": "weft-ipam", "dataDir": self.dir.path(),
                "ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2", "rangeEnd": "10.1.0.3"}]],
            },
        })
    }

    fn leases(&self, network: &str) -> Ipam {
        Ipam::open(network, self.dir.path()).unwrap()
    }

    fn add(&self, pod: &Pod, conf: &Value) -> Value {
        answer(&exec("ADD", pod.name, &pod.netns, conf, Stdio::piped())).unwrap()
    }

    fn del(&self, name: &str, conf: &Value) {
        answer(&exec("DEL", name, "", conf, Stdio::piped())).unwrap();
    }
}

fn exec(verb: &str, container: &str, netns: &str, conf: &Value, stderr: Stdio) -> Output {
    let mut plugin = Command::new(PLUGIN);
    output(plugin.env_clear().env("CNI_IFNAME", "eth0").stderr(stderr), verb, container, netns, conf)
}

/// An ADD of which one system call fails, the `nth` of its kind.
fn add_with_failing(call: &str, error: &str, nth: usize, pod: &Pod, conf: &Value) -> Output {
    let fault = format!("inject={call}:error={error}:when={nth}");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-o", "/dev/null", "-e", &fault, PLUGIN])
        .env("CNI_IFNAME", "eth0")
        .stderr(Stdio::piped());
    output(&mut strace, "ADD", pod.name, &pod.netns, conf)
}

fn first_address(result: &Value) -> IpAddr {
    let address = result["ips"][0]["address"].as_str().unwrap();
    address.split_once('/').unwrap().0.parse().unwrap()
}

#[test]
fn an_add_whose_result_nobody_gets_is_undone() {
    Node::run(|node| {
        let (conf, pod) = (node.conf("weft"), Pod::new("a"));
        for stdout in [full_disk, closed_pipe] {
            let ended = add_onto(stdout(), &pod, &conf);
            assert_eq!(ended.status.code(), Some(1));
            let said = String::from_utf8(ended.stderr).unwrap();
            assert!(said.contains("it is undone"), "{said}");
            assert_eq!(remains(), Vec::<String>::new());
            assert!(node.leases("weft").is_empty().unwrap());
        }
    });
}

fn full_disk() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

fn closed_pipe() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

fn add_onto(stdout: Stdio, pod: &Pod, conf: &Value) -> Output {
    let mut plugin = Command::new(PLUGIN)
        .env_clear()
        .envs([("CNI_COMMAND", "ADD"), ("CNI_IFNAME", "eth0")])
        .envs([("CNI_CONTAINERID", pod.name), ("CNI_NETNS", &pod.netns)])
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    plugin.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
    plugin.wait_with_output().unwrap()
}

#[test]
fn what_is_no_namespace_is_refused_at_once_with_what_it_is() {
    Node::run(|node| {
        let conf = node.conf("weft");
        let fifo = node.dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (netns, what) in [(fifo.to_str().unwrap(), "is a pipe"), ("/proc", "is a directory")] {
            let (code, said) = answer(&exec("ADD", "a", netns, &conf, Stdio::piped())).unwrap_err();
            assert_eq!(code, 8, "{said}");
            assert!(said.contains(what), "{said}");
        }
    });
}

#[test]
fn a_resolv_conf_that_never_ends_is_not_read() {
    Node::run(|node| {
        let (mut conf, pod) = (node.conf("weft"), Pod::new("a"));
        conf["ipam"]["resolvConf"] = "/dev/zero".into();
        let (code, said) = answer(&exec("ADD", pod.name, &pod.netns, &conf, Stdio::piped())).unwrap_err();
        assert_eq!((code, said.contains("not a regular file")), (5, true), "{said}");
    });
}

#[test]
fn pods_beside_a_damaged_lease_go_as_ever_although_the_index_is_lost() {
    Node::run(|node| {
        let (conf, [a, b]) = (node.conf("weft"), ["a", "b"].map(Pod::new));
        node.add(&a, &conf);
        node.add(&b, &conf);
        let log = node.dir.path().join("weft/leases.log");
        let text = std::fs::read_to_string(&log).unwrap();
        std::fs::write(&log, text.replacen(" a eth0 ", " X eth0 ", 1)).unwrap();
        std::fs::remove_file(node.dir.path().join("weft/leases.index")).unwrap();
        let add =
            |name| answer(&exec("ADD", name, &Pod::new(name).netns, &conf, Stdio::piped())).unwrap_err();
        let (code, said) = add("c");
        assert!(code == 5 && said.contains("is damaged at byte"), "{said}");
        node.del("b", &conf);
        assert_eq!(owners(), ["weft/a/eth0"]);
        let (code, said) = add("c");
        assert!(code == 5 && said.contains("is damaged at byte"), "{said}");
        node.del("a", &conf);
        std::fs::remove_dir_all(node.dir.path().join("weft")).unwrap();
        let (c, first) = (Pod::new("c"), "10.1.0.2".parse::<IpAddr>().unwrap());
        assert_eq!(first_address(&node.add(&c, &conf)), first, "an empty network begins anew");
        node.del("c", &conf);
    });
}

#[test]
fn a_reclaimed_lease_leaves_nothing_in_the_kernel() {
    Node::run(|node| {
        let conf = node.conf("weft");
        for pod in [Pod::new("gone1"), Pod::new("gone2")] {
            node.add(&pod, &conf);
        }
        let heir = Pod::new("heir");
        node.add(&heir, &conf);
        assert_eq!(owners(), ["weft/heir/eth0"]);
        for name in ["gone1", "gone2", "heir"] {
            node.del(name, &conf);
        }
    });
}

#[test]
fn status_names_what_is_in_the_way_of_every_add() {
    Node::run(|node| {
        let conf = node.conf("weft");
        let refusal = |conf: &Value| {
            let (code, said) = answer(&exec("STATUS", "", "", conf, Stdio::null())).unwrap_err();
            assert_eq!(code, 50, "{said}");
            said
        };
        let mut nowhere = conf.clone();
        nowhere["ipam"]["dataDir"] = "/proc/weft".into();
        assert!(
            refusal(&nowhere).contains("cannot write to ipam.dataDir /proc/weft"),
            "{}",
            refusal(&nowhere)
        );

        let mut bridged = conf.clone();
        bridged["bridge"] = "lo".into();
        assert!(refusal(&bridged).contains("lo exists, and is no bridge"), "{}", refusal(&bridged));

        let mut both = conf.clone();
        both["ipam"]["ranges"] = json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]]);
        assert!(answer(&exec("STATUS", "", "", &both, Stdio::null())).is_ok());
        weft_datapath::sysctl::set(&["ipv6", "conf", "all", "disable_ipv6"], "1").unwrap();
        assert!(refusal(&both).contains("IPv6 is disabled"), "{}", refusal(&both));
        let pod = Pod::new("a");
        answer(&exec("ADD", pod.name, &pod.netns, &both, Stdio::piped())).unwrap_err();

        let mut unprivileged = Command::new("setpriv");
        unprivileged
            .args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", PLUGIN])
            .stderr(Stdio::null());
        let (code, said) = answer(&output(&mut unprivileged, "STATUS", "", "", &conf)).unwrap_err();
        assert_eq!((code, said.contains("CAP_NET_ADMIN is missing")), (50, true), "{said}");
    });
}

#[test]
fn a_namespace_in_which_ipv6_is_off_gets_its_addresses_all_the_same() {
    Node::run(|node| {
        let (mut conf, pod) = (node.conf("weft"), Pod::new("a"));
        conf["ipam"]["ranges"] = json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]]);
        conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
        for (rate, burst) in [("ingressRate", "ingressBurst"), ("egressRate", "egressBurst")] {
            (conf[rate], conf[burst]) = (8_000_000.into(), 8_000_000.into());
        }
        let netns = NetNs::open(pod.netns.as_ref()).unwrap();
        let turn_off =
            || weft_datapath::sysctl::set(&["ipv6", "conf", "default", "disable_ipv6"], "1").unwrap();
        netns.run(turn_off).unwrap();
        let result = answer(&exec("ADD", pod.name, &pod.netns, &conf, Stdio::piped())).unwrap();
        let mut checked = conf.clone();
        checked["prevResult"] = result;
        answer(&exec("CHECK", pod.name, &pod.netns, &checked, Stdio::piped())).unwrap();
        let show = || Command::new("ip").args(["-6", "address", "show", "dev", "eth0"]).output().unwrap();
        let link_local = netns.run(show).unwrap();
        let link_local = String::from_utf8(link_local.stdout).unwrap();
        assert!(link_local.contains("fe80::") && !link_local.contains("tentative"), "{link_local}");
        answer(&exec("DEL", pod.name, &pod.netns, &conf, Stdio::null())).unwrap();
    });
}

#[test]
fn a_route_that_is_in_the_way_is_told_with_its_link() {
    Node::run(|node| {
        let (conf, pod) = (node.conf("weft"), Pod::new("a"));
        for command in ["link add other type bridge", "link set other up", "route add 10.1.0.2/32 dev other"]
        {
            assert!(Command::new("ip").args(command.split(' ')).status().unwrap().success());
        }
        let (code, said) = answer(&exec("ADD", pod.name, &pod.netns, &conf, Stdio::piped())).unwrap_err();
        assert_eq!((code, said.contains("10.1.0.2 is routed to other already")), (102, true), "{said}");
        assert!(Command::new("ip").args(["link", "delete", "other"]).status().unwrap().success());
    });
}

#[test]
fn a_pod_may_be_on_two_networks_without_a_bridge_unless_they_have_the_same_gateway() {
    Node::run(|node| {
        let pod = Pod::new("a");
        let network = |name: &str, subnet: &str| {
            let mut conf = node.conf(name);
            conf["ipam"] = json!({
                "type": "weft-ipam", "dataDir": node.dir.path(), "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]
            });
            conf
        };
        let add = |ifname: &str, conf: &Value| {
            let mut plugin = Command::new(PLUGIN);
            plugin.env("CNI_IFNAME", ifname).stderr(Stdio::null());
            answer(&output(&mut plugin, "ADD", pod.name, &pod.netns, conf))
        };
        let (first, second) = (network("first", "10.1.0.0/24"), network("second", "10.2.0.0/24"));
        add("eth0", &first).unwrap();
        add("net1", &second).unwrap();
        let (code, said) = add("net2", &first).unwrap_err();
        assert_eq!(code, 102, "{said}");
        assert!(said.contains("the pod reaches 10.1.0.1/32 through its eth0 already"), "{said}");
        for (ifname, conf) in [("net2", &first), ("net1", &second), ("eth0", &first)] {
            let mut plugin = Command::new(PLUGIN);
            plugin.env("CNI_IFNAME", ifname).stderr(Stdio::null());
            answer(&output(&mut plugin, "DEL", pod.name, &pod.netns, conf)).unwrap();
        }
    });
}

#[test]
fn a_missing_privilege_is_told_with_what_it_takes() {
    Node::run(|node| {
        let (conf, pod) = (node.conf("weft"), Pod::new("a"));
        let mut unprivileged = Command::new("setpriv");
        unprivileged.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", PLUGIN]);
        unprivileged.env("CNI_IFNAME", "eth0").stderr(Stdio::null());
        let (code, said) =
            answer(&output(&mut unprivileged, "ADD", pod.name, &pod.netns, &conf)).unwrap_err();
        assert_eq!(
            (code, said.ends_with("it takes root, or CAP_NET_ADMIN and CAP_SYS_ADMIN")),
            (102, true),
            "{said}"
        );
    });
}

#[test]
fn a_log_without_its_beginning_is_recovered_as_its_error_says() {
    Node::run(|node| {
        let (conf, pod) = (node.conf("weft"), Pod::new("a"));
        node.add(&pod, &conf);
        let directory = node.dir.path().join("weft");
        let log = OpenOptions::new().write(true).open(directory.join("leases.log")).unwrap();
        log.write_all_at(b"garbage", 0).unwrap();
        let (code, said) = answer(&exec("DEL", pod.name, "", &conf, Stdio::piped())).unwrap_err();
        assert_eq!((code, said.contains("remove the directory that it is in")), (5, true), "{said}");
        std::fs::remove_dir_all(directory).unwrap();
        node.del(pod.name, &conf);
    });
}

#[test]
fn status_reclaims_as_an_add_does() {
    Node::run(|node| {
        let conf = node.conf("weft");
        for pod in [Pod::new("gone1"), Pod::new("gone2")] {
            node.add(&pod, &conf);
        }
        answer(&exec("STATUS", "", "", &conf, Stdio::null())).unwrap();
        assert_eq!(owners(), Vec::<String>::new());
        node.del("gone1", &conf);
    });
}

#[test]
fn an_add_is_answered_even_where_nobody_can_be_told_what_it_reclaimed() {
    Node::run(|node| {
        let conf = node.conf("weft");
        for pod in [Pod::new("gone1"), Pod::new("gone2")] {
            node.add(&pod, &conf);
        }
        let heir = Pod::new("heir");
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        answer(&exec("ADD", "heir", &heir.netns, &conf, full.into())).unwrap();
        node.del("heir", &conf);
    });
}

#[test]
fn a_killed_add_in_a_network_of_the_same_range_takes_nothing_from_the_other() {
    Node::run(|node| {
        let (one, other) = (node.conf("one"), node.conf("other"));
        let pod = Pod::new("alive");
        let address = first_address(&node.add(&pod, &one));
        // All that an ADD had done that was killed right after its reservation.
        let pool = weft_ipam::config::parse_ranges(&other["ipam"]["ranges"]).unwrap();
        let attachment = Attachment::new("other", "killed", "eth0").unwrap();
        let lease = node.leases("other").reserve(&pool, Request::new(attachment)).unwrap().keep();
        assert_eq!(lease.addresses[0].address.ip(), address, "or this tests nothing");
        node.del("killed", &other);
        assert_eq!(owners(), ["one/alive/eth0"]);
        node.del("alive", &one);
    });
}

#[test]
fn the_table_goes_even_if_the_del_that_ended_the_last_lease_was_killed() {
    Node::run(|node| {
        let conf = node.conf("weft");
        let pod = Pod::new("c");
        let address = first_address(&node.add(&pod, &conf));
        // All that such a DEL had done.
        let leases = node.leases("weft");
        Nft::open().unwrap().stop_masquerading("weft/c/eth0", &[address]).unwrap();
        let host = Rtnl::open().unwrap();
        let link = host.observe().unwrap().links.into_iter().find(|link| link.alias.is_some()).unwrap();
        host.delete_link(&link).unwrap();
        leases.end(&leases.leases().unwrap()[0]).unwrap();
        assert_eq!(remains(), ["table inet weft"], "or this tests nothing");
        node.del("c", &conf);
    });
}

#[test]
fn del_finds_everything_although_the_leases_were_lost() {
    Node::run(|node| {
        let conf = node.conf("weft");
        let pod = Pod::new("c");
        node.add(&pod, &conf);
        std::fs::remove_dir_all(node.dir.path().join("weft")).unwrap();
        node.del("c", &conf);
    });
}

#[test]
fn gc_finds_elements_that_no_lease_and_no_pair_knows_of_and_leaves_those_of_others() {
    Node::run(|node| {
        let (one, other) = (node.conf("one"), node.conf("other"));
        let mut elsewhere = other.clone();
        elsewhere["ipam"]["ranges"] = json!([[{"subnet": "10.2.0.0/24"}]]);
        let (lost, valid, neighbour) = (Pod::new("lost"), Pod::new("valid"), Pod::new("neighbour"));
        node.add(&lost, &one);
        node.add(&neighbour, &elsewhere);
        std::fs::remove_dir_all(node.dir.path().join("one")).unwrap();
        let host = Rtnl::open().unwrap();
        let links = host.observe().unwrap().links;
        let pair = links.iter().find(|link| link.alias.as_deref() == Some("one/lost/eth0")).unwrap();
        host.delete_link(pair).unwrap();
        let mut collect = one.clone();
        collect["ipam"]["ranges"][0][0]["rangeStart"] = json!("10.1.0.3");
        node.add(&valid, &collect);
        collect["cni.dev/valid-attachments"] = json!([{"containerID": "valid", "ifname": "eth0"}]);
        answer(&exec("GC", "", "", &collect, Stdio::null())).unwrap();
        let mut left = owners();
        left.sort();
        assert_eq!(left, ["one/valid/eth0", "other/neighbour/eth0"]);
        node.del("valid", &one);
        node.del("neighbour", &elsewhere);
    });
}

#[test]
fn an_add_whose_answers_from_the_kernel_are_lost_leaves_nothing_behind() {
    Node::run(|node| {
        let (pod, conf) = (Pod::new("c"), node.conf("weft"));
        let mut failures = 0;
        for nth in 1.. {
            let output = add_with_failing("recvfrom", "EIO", nth, &pod, &conf);
            if answer(&output).is_ok() {
                break;
            }
            failures += 1;
            assert!(node.leases("weft").is_empty().unwrap(), "{nth}: {output:?}");
            let remains = remains();
            assert!(remains.iter().all(|thing| thing == "table inet weft"), "{nth}: {remains:?}");
        }
        assert!(failures > 5, "only {failures} answers were lost");
        node.del("c", &conf);
    });
}

#[test]
fn an_add_succeeds_on_a_node_without_a_thread_to_spare() {
    Node::run(|node| {
        let (pod, conf) = (Pod::new("c"), node.conf("weft"));
        answer(&add_with_failing("clone3", "EAGAIN", 1, &pod, &conf)).unwrap();
        node.del("c", &conf);
        assert_eq!(remains(), Vec::<String>::new());
    });
}

#[test]
fn check_tells_that_a_mark_was_lost() {
    Node::run(|node| {
        let (pod, conf) = (Pod::new("c"), node.conf("weft"));
        let mut check = conf.clone();
        check["prevResult"] = node.add(&pod, &conf);
        let host = check["prevResult"]["interfaces"][0]["name"].as_str().unwrap();
        let arguments = ["link", "set", host, "alias", ""];
        assert!(Command::new("ip").args(arguments).status().unwrap().success());
        let (code, msg) = answer(&exec("CHECK", "c", &pod.netns, &check, Stdio::null())).unwrap_err();
        assert_eq!(code, 101);
        assert!(msg.ends_with(&format!("node {host}: alias weft/c/eth0 is missing")), "{msg}");
        node.del("c", &conf);
    });
}

#[test]
fn the_longest_names_are_attached_marked_checked_and_detached() {
    Node::run(|node| {
        let (mut conf, container) = (node.conf(&"n".repeat(200)), "c".repeat(200));
        let pod = Pod::new("");
        let run = |verb, conf: &Value| answer(&exec(verb, &container, &pod.netns, conf, Stdio::null()));
        let result = run("ADD", &conf).unwrap();
        conf["prevResult"] = result;
        run("CHECK", &conf).unwrap();
        run("DEL", &conf).unwrap();
    });
}

#[test]
fn what_is_no_network_namespace_is_refused_as_such() {
    Node::run(|node| {
        for path in ["/proc/self/ns/uts", "/proc/self/status", "/proc"] {
            let (code, msg) = answer(&exec("ADD", "c", path, &node.conf("weft"), Stdio::null())).unwrap_err();
            assert_eq!(code, 8, "{path}: {msg}");
        }
    });
}

#[test]
fn a_variable_that_is_no_text_is_named_and_not_passed_over() {
    use std::os::unix::ffi::OsStrExt;
    let output = Command::new(PLUGIN)
        .env_clear()
        .env("CNI_COMMAND", std::ffi::OsStr::from_bytes(b"ADD\xff"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (code, _) = answer(&output).unwrap_err();
    assert_eq!(
        code, 6,
        "the configuration is missing; without a verb the plugin would have explained itself"
    );
}

fn audit(node: &Node, options: &[&str]) -> (Option<i32>, Value) {
    let mut audit = Command::new(PLUGIN);
    audit.env_clear().args(["audit", "--json", "--data-dir"]).arg(node.dir.path()).args(options);
    audit.arg("--conf-dir").arg(node.dir.path()).arg("--cache-dir").arg(node.dir.path());
    let output = audit.output().unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn an_audit_finds_what_missed_dels_and_lost_leases_left_and_repairs_it() {
    Node::run(|node| {
        let conf = node.conf("weft");
        node.add(&Pod::new("gone"), &conf);
        let pod = Pod::new("lost");
        node.add(&pod, &conf);
        assert_eq!(audit(node, &[]).1["findings"][0]["problem"], "abandoned lease");
        // The lease of a pod that lives is lost: nothing but marks knows of it any more.
        let leases = node.leases("weft");
        let lost = leases.leases().unwrap().into_iter().find(|lease| lease.attachment.container() == "lost");
        leases.end(&lost.unwrap()).unwrap();

        let (code, report) = audit(node, &[]);
        let problems: Vec<_> =
            report["findings"].as_array().unwrap().iter().map(|finding| &finding["problem"]).collect();
        assert_eq!(problems, ["abandoned lease", "interface without lease"]);
        assert_eq!(code, Some(1));
        // A pod that lives is not cut off, whoever gave it its addresses.
        let (code, report) = audit(node, &["--repair"]);
        assert_eq!(code, Some(1), "{report}");
        let (_, report) = audit(node, &[]);
        assert_eq!(report["findings"].as_array().unwrap().len(), 1, "{report}");
        assert_eq!(owners(), ["weft/lost/eth0"]);
        node.del("lost", &conf);
        let (code, report) = audit(node, &[]);
        assert_eq!((code, &report["findings"]), (Some(0), &json!([])));
    });
}

#[test]
fn rules_that_somebody_flushed_are_missed_by_check_and_put_back_by_a_repair() {
    Node::run(|node| {
        let (pod, conf) = (Pod::new("c"), node.conf("weft"));
        let mut check = conf.clone();
        check["prevResult"] = node.add(&pod, &conf);
        let drift = || answer(&exec("CHECK", "c", &pod.netns, &check, Stdio::null()));
        let flush = ["flush", "chain", "inet", "weft", "postrouting"];
        assert!(Command::new("nft").args(flush).status().unwrap().success());
        let (code, msg) = drift().unwrap_err();
        assert_eq!(code, 101);
        assert!(
            msg.ends_with("chain is postrouting, 0 of 2 rules instead of postrouting, 2 of 2 rules"),
            "{msg}"
        );
        let (status, report) = audit(node, &[]);
        assert_eq!(
            (status, report["findings"][0]["problem"].as_str()),
            (Some(1), Some("firewall rules missing"))
        );
        assert_eq!(audit(node, &["--repair"]).0, Some(0));
        assert_eq!(audit(node, &[]).0, Some(0));
        drift().unwrap();
        node.del("c", &conf);
    });
}

/// Between the lease and the answer of an ADD, and while a DEL removes, an attachment is not as planned, and nothing is wrong.
#[test]
fn an_audit_leaves_alone_what_an_add_or_a_del_is_at_work_on() {
    Node::run(|node| {
        let (conf, pod) = (node.conf("pods"), Pod::new("busy"));
        std::fs::write(node.dir.path().join("pods.conf"), conf.to_string()).unwrap();
        node.add(&pod, &conf);
        let nft = Nft::open().unwrap();
        let element = nft.masqueraded().unwrap().remove(0);
        nft.stop_masquerading(&element.owner, &[element.address]).unwrap();

        let ipam = Ipam::open("pods", node.dir.path()).unwrap();
        let work = ipam.begin_work(&Attachment::new("pods", "busy", "eth0").unwrap()).unwrap();
        let (code, report) = audit(node, &["--repair"]);
        assert_eq!((code, &report["findings"]), (Some(0), &json!([])), "{report}");
        assert!(nft.masqueraded().unwrap().is_empty(), "nobody has put it back");

        drop(work);
        let (code, report) = audit(node, &["--repair"]);
        assert_eq!(code, Some(0), "{report}");
        assert_eq!(nft.masqueraded().unwrap().len(), 1, "{report}");
        node.del("busy", &conf);
    });
}

#[test]
fn an_audit_of_a_network_without_leases_is_refused() {
    Node::run(|node| {
        let mut audit = Command::new(PLUGIN);
        audit.env_clear().args(["audit", "--repair", "nowhere", "--data-dir"]).arg(node.dir.path());
        let output = audit.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains("no leases of nowhere are kept in"));
    });
}
