//! What people run: the shipped binary's commands, and their exit codes.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

#[path = "shared/node.rs"]
mod node;

use node::{BINARY, Namespace, Node, answer, exec, on_a_fresh_node, reference};

/// Exit code, standard output, standard error.
fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn document(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// An ADD for a pod that lives as long as `pod`.
fn add(node: &Node, container: &str, pod: &Namespace) -> Value {
    let env = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", container),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", pod.path.to_str().unwrap()),
        ("CNI_ARGS", &format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={container}")),
    ];
    answer(&exec(Path::new(BINARY), &env, &node.conf("1.1.0"))).unwrap()
}

#[test]
fn a_lease_is_shown_by_its_address_its_pod_and_its_container() {
    let (node, pod) = (Node::new(), Namespace::new());
    add(&node, "cart7d9f", &pod);
    for subject in ["10.7.0.2", "fd07::2", "shop/cart7d9f", "cart7d9f", "cart"] {
        let (code, text, _) = said(&node.command("show", &[subject]));
        assert_eq!(code, 0, "{subject}");
        for part in [
            "network    pods",
            "10.7.0.2/29, gateway 10.7.0.1",
            "fd07::2/64",
            "shop/cart7d9f",
            "state      lives",
        ] {
            assert!(text.contains(part), "{subject}: {part} is missing in\n{text}");
        }
        assert!(text.contains(pod.path.to_str().unwrap()), "{text}");
        let shown = document(&node.command("show", &["--json", subject]));
        assert_eq!(shown["leases"][0]["state"], "lives");
    }
    let (code, text, error) = said(&node.command("show", &["10.7.0.6"]));
    assert_eq!((code, text.as_str()), (3, ""));
    assert_eq!(
        error,
        "weft-ipam: nobody holds the address 10.7.0.6; `weft-ipam list` shows who holds what\n"
    );
}

#[test]
fn a_living_pods_lease_is_released_only_by_force() {
    let (node, pod) = (Node::new(), Namespace::new());
    add(&node, "c1", &pod);
    let (code, text, error) = said(&node.command("release", &["c1"]));
    assert_eq!((code, text.as_str()), (4, ""));
    assert!(error.contains("its namespace") && error.contains("--force"), "{error}");
    assert_eq!(node.lease_count(), 1);
    let (code, text, _) = said(&node.command("release", &["c1", "--force"]));
    assert_eq!((code, text.as_str()), (0, "released 10.7.0.2, fd07::2 of eth0 of c1 in pods (shop/c1)\n"));
    assert_eq!(node.lease_count(), 0);
    assert_eq!(said(&node.command("release", &["c1"])).0, 3);
}

#[test]
fn a_release_that_fails_in_the_middle_says_that_something_was_done() {
    let (node, pod) = (Node::new(), Namespace::new());
    add(&node, "c1", &pod);
    let pods = node.dir.path().join("pods");
    let (first, last) = (node.dir.path().join("first"), node.dir.path().join("quits"));
    for copy in [&first, &last] {
        fs::create_dir(copy).unwrap();
        for file in ["leases.log", "leases.lock"] {
            fs::copy(pods.join(file), copy.join(file)).unwrap();
        }
    }
    fs::remove_dir_all(&pods).unwrap();
    // Of an older format it can be read, and a writer cannot make the new log.
    let log = fs::read_to_string(last.join("leases.log")).unwrap();
    let (_, lines) = log.split_once('\n').unwrap();
    fs::write(last.join("leases.log"), format!("weft-ipam leases 1\n{lines}")).unwrap();
    fs::create_dir(last.join("leases.new")).unwrap();
    let (code, _, error) = said(&node.command("release", &["c1", "--force"]));
    assert!(
        code == 1 && error.contains("cannot change all leases of quits; what was done before stays"),
        "{error}"
    );
    assert_eq!(node.lease_count(), 1);
    let (code, _, error) = said(&node.command("release", &["c1", "--force"]));
    assert!(code == 1 && error.contains("nothing was changed"), "{error}");
}

#[test]
fn the_beginning_of_two_ids_releases_neither() {
    let (node, pod) = (Node::new(), Namespace::new());
    for container in ["aaaa1", "aaaa2", "aaaa"] {
        add(&node, container, &pod);
    }
    let (code, _, error) = said(&node.command("release", &["aaa", "--force"]));
    assert_eq!(code, 4);
    assert!(error.contains("may be any of aaaa, aaaa1, aaaa2"), "{error}");
    assert_eq!(said(&node.command("release", &["aaaa", "--force"])).0, 0);
    assert_eq!(node.lease_count(), 2, "a whole id is meant before the beginning of another");
}

#[test]
fn too_little_of_an_id_names_nobody_and_by_force_more_is_needed() {
    let (node, pod) = (Node::new(), Namespace::new());
    add(&node, "3f2a9c51d0e47b", &pod);
    for (command, subject, code) in [
        ("show", "", 2),
        ("release", "", 2),
        ("release", "/", 2),
        ("show", "3f", 3),
        ("show", "3f2", 0),
        ("show", "10.7.0.2/29", 0),
    ] {
        assert_eq!(said(&node.command(command, &[subject])).0, code, "{command} {subject:?}");
    }
    let (code, _, error) = said(&node.command("release", &["3f2a9c51d0e", "--force"]));
    assert_eq!(code, 4);
    assert!(error.contains("3f2a9c51d0e is only the beginning of 3f2a9c51d0e47b"), "{error}");
    assert_eq!(node.lease_count(), 1);
    assert_eq!(said(&node.command("release", &["3f2a9c51d0e4", "--force"])).0, 0);
    assert_eq!(node.lease_count(), 0);
}

#[test]
fn an_address_of_two_networks_is_released_in_the_one_that_is_named() {
    let node = Node::new();
    for name in ["pods", "other"] {
        let mut conf = node.conf("1.1.0");
        conf["name"] = name.into();
        node.run("ADD", name, &conf).unwrap();
    }
    let (code, _, error) = said(&node.command("release", &["10.7.0.2", "--force"]));
    assert_eq!(code, 4);
    assert!(error.contains("the address 10.7.0.2 is held in other, pods; name one"), "{error}");
    assert_eq!(node.lease_count(), 2);
    let named = node.command("release", &["10.7.0.2", "--force", "--network", "other"]);
    assert_eq!(said(&named).1, "released 10.7.0.2, fd07::2 of eth0 of other in other\n");
}

#[test]
fn reclaim_ends_the_leases_of_pods_that_are_gone_and_no_others() {
    let node = Node::new();
    // A name of its own, which outlives neither the namespace nor the test: what `ip netns` does.
    let (lives, gone) = (Namespace::new(), Namespace::new());
    add(&node, "lives", &lives);
    add(&node, "gone", &gone);
    drop(gone);
    let (code, text, _) = said(&node.command("reclaim", &["--dry-run"]));
    assert_eq!(code, 0);
    assert_eq!(
        text,
        "would reclaim 10.7.0.3, fd07::3 of eth0 of gone in pods (shop/gone)\nwould reclaim 1 lease\n"
    );
    assert_eq!(node.lease_count(), 2);
    let done = document(&node.command("reclaim", &["--json"]));
    assert_eq!(done["networks"][0]["reclaimed"][0]["container"], "gone");
    assert_eq!(node.lease_count(), 1);
    assert_eq!(said(&node.command("reclaim", &[])).1, "reclaimed 0 leases\n");
}

#[test]
fn a_pid_of_another_pid_namespace_is_not_judged() {
    let (node, pod, gone) = (Node::new(), Namespace::new(), Namespace::new());
    add(&node, "c1", &pod);
    add(&node, "c2", &gone);
    drop(gone);
    let elsewhere = |command: &str| {
        let mut process = Command::new("unshare");
        process.args(["--pid", "--fork", "--mount-proc", BINARY, command, "--json", "--data-dir"]);
        document(&process.arg(node.dir.path()).output().unwrap())
    };
    let listed = elsewhere("list");
    let states = [0, 1].map(|lease| listed["networks"][0]["leases"][lease]["state"].clone());
    assert_eq!(states, ["unknown", "unknown"]);
    assert_eq!(elsewhere("reclaim")["networks"][0]["reclaimed"], json!([]));
    assert!(said(&node.command("show", &["c1"])).1.contains(" of pid namespace "));
    assert_eq!(
        document(&node.command("reclaim", &["--json"]))["networks"][0]["reclaimed"][0]["container"],
        "c2"
    );
    assert_eq!(node.lease_count(), 1);
}

/// All that it mounts ends with it.
const ANOTHER_RUN_NETNS: &str = r#"
    add() {
        touch "$netns/$1"
        mount --bind "$2" "$netns/$1"
        CNI_COMMAND=ADD CNI_CONTAINERID=$1 CNI_IFNAME=eth0 CNI_NETNS=$netns/$1 "$weft" < "$dir/conf" > "$dir/result"
    }
    list() { "$weft" list --json --data-dir "$dir"; }
    mkdir "$netns"
    add lives "$first"
    add gone "$second"
    mount -t tmpfs none "$netns"
    list
    "$weft" reclaim --json --data-dir "$dir"
    umount "$netns"
    umount "$netns/gone"
    rm "$netns/gone"
    list
"#;

#[test]
fn a_mount_namespace_with_another_directory_in_that_place_judges_nobody() {
    let (node, first, second) = (Node::new(), Namespace::new(), Namespace::new());
    fs::write(node.dir.path().join("conf"), node.conf("1.1.0").to_string()).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-ec", ANOTHER_RUN_NETNS])
        .envs([("weft", Path::new(BINARY)), ("dir", node.dir.path())])
        .envs([("netns", &node.dir.path().join("netns")), ("first", &first.path), ("second", &second.path)])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Vec<Value> =
        serde_json::Deserializer::from_slice(&output.stdout).into_iter().map(Result::unwrap).collect();
    let states = |of: &Value| [0, 1].map(|lease| of["networks"][0]["leases"][lease]["state"].clone());
    assert_eq!(states(&said[0]), ["unknown", "unknown"]);
    assert_eq!(said[1]["networks"][0]["reclaimed"], json!([]));
    assert_eq!(states(&said[2]), ["lives", "gone"]);
}

#[test]
fn a_lease_of_a_process_whose_pid_namespace_nobody_noted_is_held() {
    let node = Node::new();
    // As a release before pidNamespace wrote it.
    let gone = json!({ "path": "/proc/4194305/ns/net", "inode": 1 });
    let lease = json!({ "container": "c1", "ifname": "eth0", "addresses": [{ "address": "10.7.0.2/29" }],
                        "netns": gone, "sinceUnixNanos": 1 });
    let export = json!({ "weftIpamExport": 1, "networks": [{ "name": "pods", "leases": [lease] }] });
    let file = node.dir.path().join("export.json");
    fs::write(&file, export.to_string()).unwrap();
    assert_eq!(said(&node.command("import", &[file.to_str().unwrap()])).0, 0);
    assert_eq!(document(&node.command("list", &["--json"]))["networks"][0]["leases"][0]["state"], "unknown");
    assert_eq!(document(&node.command("reclaim", &["--json"]))["networks"][0]["reclaimed"], json!([]));
}

#[test]
fn an_export_is_imported_elsewhere_with_all_it_has() {
    let (node, other, pod) = (Node::new(), Node::new(), Namespace::new());
    for container in ["c1", "c2", "c3"] {
        add(&node, container, &pod);
    }
    node.run("DEL", "c2", &node.conf("1.1.0")).unwrap();
    let file = node.dir.path().join("export.json");
    fs::write(&file, node.command("export", &[]).stdout).unwrap();

    let (code, text, error) = said(&other.command("import", &[file.to_str().unwrap()]));
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(text.ends_with("took over 2 leases, 0 stood already, 0 skipped, 0 conflicts\n"), "{text}");
    assert_eq!(document(&other.command("export", &[])), document(&node.command("export", &[])));
    let again = said(&other.command("import", &[file.to_str().unwrap()]));
    assert!(
        again.1.ends_with("took over 0 leases, 2 stood already, 0 skipped, 0 conflicts\n"),
        "{}",
        again.1
    );
    assert_eq!(other.run("ADD", "c4", &other.conf("1.1.0")).unwrap()["ips"][0]["address"], "10.7.0.5/29");
}

#[test]
fn an_import_that_conflicts_says_with_whom_and_takes_the_rest() {
    let (node, other, pod) = (Node::new(), Node::new(), Namespace::new());
    for container in ["c1", "c2"] {
        add(&node, container, &pod);
    }
    add(&other, "x", &pod);
    let export = node.command("export", &["--json"]).stdout;
    let mut import = Command::new(BINARY)
        .args(["import", "-", "--data-dir", other.dir.path().to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut import.stdin.take().unwrap(), &export).unwrap();
    let (code, text, _) = said(&import.wait_with_output().unwrap());
    assert_eq!(code, 4);
    assert!(
        text.contains(
            "conflict: 10.7.0.2, fd07::2 of eth0 of c1 in pods (shop/c1): 10.7.0.2 is held by eth0 of x"
        ),
        "{text}"
    );
    assert!(text.contains("took over 1 lease, 0 stood already, 0 skipped, 1 conflict\n"), "{text}");
    assert_eq!(other.lease_count(), 2);
}

#[test]
fn a_document_that_is_no_export_is_refused_by_name() {
    let node = Node::new();
    let file = node.dir.path().join("x.json");
    let cases = [
        ("[1", "is no JSON document"),
        ("{}", "it is no export: the key \"weftIpamExport\" is missing"),
        (r#"{"weftIpamExport": 2}"#, "it is an export of version 2, and this release reads 1"),
        (r#"{"weftIpamExport": 1, "networks": [{"name": "a", "leases": [{}]}]}"#, "missing field"),
        (r#"{"weftIpamExport": 1, "networks": [{"name": "../a", "leases": []}]}"#, "network name"),
    ];
    for (text, why) in cases {
        fs::write(&file, text).unwrap();
        let (code, _, error) = said(&node.command("import", &[file.to_str().unwrap()]));
        assert!(code == 1 && error.contains(why), "{text}: {code} {error}");
    }
    assert_eq!(node.lease_count(), 0);
}

#[test]
fn a_network_that_an_export_does_not_have_is_no_success() {
    let (node, other) = (Node::new(), Node::new());
    node.run("ADD", "c1", &node.conf("1.1.0")).unwrap();
    let file = node.dir.path().join("export.json");
    fs::write(&file, node.command("export", &[]).stdout).unwrap();
    let path = file.to_str().unwrap();
    let (code, text, error) = said(&other.command("import", &[path, "--network", "pods", "--network", "X"]));
    assert_eq!((code, text.as_str()), (3, ""));
    assert_eq!(error, format!("weft-ipam: there is no network X in {path}; there are pods\n"));
    assert_eq!(other.lease_count(), 0);
    assert_eq!(said(&other.command("import", &[path, "--network", "pods"])).0, 0);
}

#[test]
fn wrong_usage_has_a_code_of_its_own_and_help_teaches() {
    let run = |arguments: &[&str]| said(&Command::new(BINARY).args(arguments).output().unwrap());
    for wrong in [&["import"][..], &["show"], &["lst"], &["import", "x", "--from-host-local", "y"]] {
        assert_eq!(run(wrong).0, 2, "{wrong:?}");
    }
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for part in ["Exit codes:", "Examples:", "reclaim --dry-run", "import --from-host-local"] {
        assert!(help.contains(part), "{part} is missing in\n{help}");
    }
}

/// What a runtime leaves of an ADD (libcni, `cachedInfo`).
fn remember(results: &Path, container: &str, pod: &Namespace, result: &Value) {
    let info = json!({
        "kind": "cniCacheV1", "containerId": container, "ifName": "eth0", "networkName": "pods", "config": "e30=",
        "cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", container]],
        "result": result, "netns": pod.path,
    });
    fs::write(results.join(format!("pods-{container}-eth0")), info.to_string()).unwrap();
}

#[test]
fn a_node_moves_over_from_host_local_without_restarting_a_pod() {
    on_a_fresh_node(|| {
        let node = Node::new();
        let (theirs, results) = (node.dir.path().join("networks"), node.dir.path().join("results"));
        fs::create_dir(&results).unwrap();
        let mut before = node.conf("1.0.0");
        before["bridge"] = "weft-old0".into();
        before["ipam"]["type"] = "host-local".into();
        before["ipam"]["dataDir"] = theirs.to_str().into();
        let mut after = before.clone();
        after["ipam"]["type"] = "weft-ipam".into();
        after["ipam"]["dataDir"] = node.dir.path().to_str().into();
        let conf = node.dir.path().join("after.conf");
        fs::write(&conf, after.to_string()).unwrap();

        // The reference attaches three pods; one of them goes without a DEL.
        let pods = ["c1", "c2", "c3"].map(|container| (container, Namespace::new()));
        for (container, pod) in &pods {
            let result = reference("bridge", "ADD", container, pod, &before).unwrap();
            remember(&results, container, pod, &result);
        }
        let [(_, first), (_, second), (_, third)] = pods;
        drop(third);
        let import = || {
            let arguments = ["import", "--from-host-local", &format!("{}/pods", theirs.display())];
            let options = ["--conf", conf.to_str().unwrap(), "--results", results.to_str().unwrap()];
            said(&Command::new(BINARY).args(arguments).args(options).output().unwrap())
        };
        let (code, text, error) = import();
        assert_eq!((code, error.as_str()), (0, ""), "{text}");
        assert!(text.contains("took over 10.7.0.2, fd07::2 of eth0 of c1 in pods (shop/c1)"), "{text}");
        assert!(text.contains("skipped 10.7.0.4, fd07::4: of c3: its network namespace"), "{text}");
        assert!(text.ends_with("took over 2 leases, 0 stood already, 1 skipped, 0 conflicts\n"), "{text}");
        assert!(said(&node.list(&[])).1.contains("2 of 5 held"));

        // A pod comes between the import and the new configuration; the second import has it.
        let between = Namespace::new();
        let result = reference("bridge", "ADD", "c4", &between, &before).unwrap();
        remember(&results, "c4", &between, &result);
        let (code, text, _) = import();
        assert!(
            code == 0 && text.ends_with("took over 1 lease, 2 stood already, 1 skipped, 0 conflicts\n"),
            "{text}"
        );

        // With the new type: the pods' addresses are never given out, and their DEL frees them.
        let newcomer = Namespace::new();
        let result = reference("bridge", "ADD", "c5", &newcomer, &after).unwrap();
        let held = ["10.7.0.2/29", "10.7.0.3/29", "10.7.0.5/29"];
        assert!(!held.contains(&result["ips"][0]["address"].as_str().unwrap()), "{result}");
        for (container, pod) in [("c1", &first), ("c2", &second), ("c4", &between), ("c5", &newcomer)] {
            assert_eq!(reference("bridge", "DEL", container, pod, &after), Ok(Value::Null));
        }
        assert_eq!(node.lease_count(), 0);

        // host-local's files are still there, and do not bring back what was released.
        let (code, text, _) = import();
        assert!(code == 0 && text.contains("10.7.0.2 was released here since"), "{text}");
        assert_eq!(node.lease_count(), 0);
    });
}

#[test]
fn an_import_waits_for_host_local_and_keeps_it_waiting() {
    let node = Node::new();
    let theirs = node.dir.path().join("pods");
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("10.7.0.2"), "c1\r\neth0").unwrap();
    let conf = node.dir.path().join("new.conf");
    fs::write(&conf, node.conf("1.0.0").to_string()).unwrap();
    let lock = fs::File::create(theirs.join("lock")).unwrap();
    lock.lock().unwrap();
    let mut import = Command::new(BINARY)
        .args(["import", "--from-host-local", theirs.to_str().unwrap()])
        .args(["--conf", conf.to_str().unwrap(), "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It has the file open and waits: only then can it be asked.
    let descriptors = format!("/proc/{}/fd", import.id());
    let opened = || {
        let mut all = fs::read_dir(&descriptors).into_iter().flatten().flatten();
        all.any(|one| fs::read_link(one.path()).is_ok_and(|to| to == theirs.join("lock")))
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !opened() {
        assert!(std::time::Instant::now() < deadline, "it never came to the lock");
        std::thread::yield_now();
    }
    fs::write(theirs.join("10.7.0.3"), "c2\r\neth0").unwrap();
    assert!(import.try_wait().unwrap().is_none());
    drop(lock);
    let done = document(&import.wait_with_output().unwrap());
    assert_eq!(done["imported"].as_array().unwrap().len(), 2, "{done}");
    assert_eq!(done["imported"][0]["addresses"][0]["address"], "10.7.0.2/29");
}

/// Without the right to look into what is somebody else's.
fn unprivileged(node: &Node, command: &str) -> (i32, String, String) {
    let dir = node.dir.path().to_str().unwrap();
    let mut process = Command::new("setpriv");
    process.args(["--bounding-set=-dac_override,-dac_read_search", BINARY, command, "--data-dir", dir]);
    said(&process.output().unwrap())
}

#[test]
fn leases_that_may_not_be_looked_at_are_not_told_as_none() {
    let node = Node::new();
    node.run("ADD", "c1", &node.conf("1.1.0")).unwrap();
    std::os::unix::fs::chown(node.dir.path().join("pods"), Some(65_534), None).unwrap();
    for command in ["list", "reclaim", "export"] {
        let (code, text, error) = unprivileged(&node, command);
        assert_eq!(code, 1, "{command}: {text}");
        assert!(error.contains("of pods") && error.contains("Permission denied"), "{command}: {error}");
    }
}

#[test]
fn a_place_that_does_not_exist_is_told() {
    let node = Node::new();
    node.run("ADD", "c1", &node.conf("1.1.0")).unwrap();
    for command in ["list", "reclaim", "export"] {
        let (code, text, error) = said(&node.command(command, &["--network", "nope"]));
        assert_eq!((code, text.as_str()), (3, ""), "{command}");
        assert!(
            error.contains("there is no network nope in") && error.ends_with("; there are pods\n"),
            "{error}"
        );
        let typo = node.dir.path().join("typo");
        let output = Command::new(BINARY).args([command, "--data-dir"]).arg(&typo).output().unwrap();
        let (code, _, error) = said(&output);
        assert_eq!((code, error), (3, format!("weft-ipam: there is no directory {}\n", typo.display())));
        assert!(!typo.exists());
    }
}

#[test]
fn a_configuration_of_another_ipam_plugin_is_refused() {
    let node = Node::new();
    let mut conf = node.conf("1.1.0");
    conf["ipam"]["type"] = "host-local".into();
    let file = node.dir.path().join("old.conf");
    fs::write(&file, conf.to_string()).unwrap();
    let file = file.to_str().unwrap();
    for arguments in [&["list"][..], &["reclaim"], &["release", "c1"], &["import", "--from-host-local", "/"]]
    {
        let output = Command::new(BINARY).args(arguments).args(["--conf", file]).output().unwrap();
        let (code, _, error) = said(&output);
        assert_eq!(code, 1, "{arguments:?}");
        assert!(error.contains("are kept by host-local, not by weft-ipam"), "{error}");
    }
}

#[test]
fn a_damaged_network_does_not_hide_the_others() {
    let node = Node::new();
    for name in ["damaged", "pods"] {
        let mut conf = node.conf("1.1.0");
        conf["name"] = name.into();
        node.run("ADD", &format!("of-{name}"), &conf).unwrap();
    }
    let log = node.dir.path().join("damaged/leases.log");
    fs::write(&log, "no log").unwrap();
    let (code, text, error) = said(&node.command("list", &[]));
    assert_eq!(code, 1);
    assert!(text.starts_with("pods: 1 lease\n") && error.contains(log.to_str().unwrap()), "{text}{error}");
    let (code, text, error) = said(&node.command("show", &["of-pods"]));
    assert!(code == 1 && text.contains("of-pods") && error.contains(log.to_str().unwrap()), "{text}{error}");
    let (code, text, error) = said(&node.command("show", &["nobody"]));
    assert_eq!((code, text.as_str()), (1, ""), "who can tell that it is nowhere? {error}");
    let (code, text, _) = said(&node.command("reclaim", &["--json"]));
    assert_eq!(code, 1);
    let names = serde_json::from_str::<Value>(&text).unwrap()["networks"].clone();
    assert_eq!((&names[0]["name"], &names[1]), (&json!("pods"), &Value::Null));
    let (code, text, _) = said(&node.command("export", &["--json"]));
    let names = serde_json::from_str::<Value>(&text).unwrap()["networks"].clone();
    assert_eq!((code, &names[0]["name"], &names[1]), (1, &json!("pods"), &Value::Null));
    assert_eq!(said(&node.command("export", &["--network", "pods"])).0, 0);
    assert_eq!(said(&node.command("release", &["of-pods", "--force", "--network", "pods"])).0, 0);
}

#[test]
fn a_damaged_lease_does_not_hide_the_others_of_its_network() {
    // The first line also has the ranges.
    for (damaged, address) in [("c1", "10.7.0.2, fd07::2"), ("c2", "10.7.0.3, fd07::3")] {
        let node = Node::new();
        for container in ["c1", "c2", "c3"] {
            node.run("ADD", container, &node.conf("1.1.0")).unwrap();
        }
        let log = node.dir.path().join("pods/leases.log");
        let text = fs::read_to_string(&log).unwrap();
        fs::write(&log, text.replace(&format!("{damaged} eth0"), "cX eth0")).unwrap();

        let (code, text, error) = said(&node.command("list", &[]));
        assert_eq!(code, 1, "{text}");
        assert!(text.starts_with("pods: 2 leases\n"), "{text}");
        let warning = format!(
            "cannot read the lease of {address} in pods; it stays until its DEL, or `weft-ipam release CONTAINER --force`: {} is damaged at byte",
            log.display()
        );
        assert!(error.contains(&warning), "{error}");
        let (code, text, _) = said(&node.command("show", &["c3"]));
        assert!(code == 1 && text.contains("10.7.0.4"), "{text}");
        let exported = node.command("export", &["--json"]);
        let (code, _, error) = said(&exported);
        assert!(code == 1 && error.contains("the export lacks what could not be read"), "{error}");
        let network = &serde_json::from_slice::<Value>(&exported.stdout).unwrap()["networks"][0];
        assert_eq!(network["leases"].as_array().unwrap().len(), 2);
        assert_eq!(network["damaged"][0]["addresses"], json!(address.split(", ").collect::<Vec<_>>()));
        let (other, file) = (Node::new(), node.dir.path().join("export.json"));
        fs::write(&file, &exported.stdout).unwrap();
        let (code, text, _) = said(&other.command("import", &[file.to_str().unwrap()]));
        assert!(code == 4 && text.contains(&format!("not in the export: the lease of {address}")), "{text}");
        assert!(text.contains("took over 2 leases"), "{text}");
        let (code, text, error) = said(&node.command("reclaim", &[]));
        assert_eq!((code, text.as_str()), (1, "reclaimed 0 leases\n"), "{error}");
        assert_eq!(said(&node.command("release", &["c3", "--force"])).0, 0);
        assert_eq!(said(&node.command("release", &[damaged])).0, 4, "nobody can tell whether it lives");
        assert_eq!(node.run("DEL", damaged, &node.conf("1.1.0")), Ok(Value::Null));
        let (code, text, _) = said(&node.command("show", &["10.7.0.4"]));
        assert_eq!((code, text.as_str()), (3, ""), "with the damage the error is gone");
    }
}

#[test]
fn a_damaged_lease_is_released_by_the_whole_id_and_hides_nothing_from_reclaiming_and_gc() {
    let (node, gone) = (Node::new(), Namespace::new());
    for container in ["c1", "c2", "c3"] {
        add(&node, container, &gone);
    }
    drop(gone);
    let log = node.dir.path().join("pods/leases.log");
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.replace("c2 eth0", "cX eth0")).unwrap();
    let mut gc = node.conf("1.1.0");
    gc["cni.dev/valid-attachments"] = json!([{ "containerID": "c3", "ifname": "eth0" }]);
    assert!(node.run("GC", "", &gc).unwrap_err().contains("is damaged at byte"), "nobody knows whose it is");
    let (code, text, _) = said(&node.command("reclaim", &[]));
    assert_eq!((code, text.lines().last().unwrap()), (1, "reclaimed 1 lease"), "GC has ended c1, {text}");
    assert_eq!(said(&node.command("release", &["c2"])).0, 4);
    let (code, text, error) = said(&node.command("release", &["c2", "--force"]));
    assert_eq!((code, text.as_str()), (0, "released 10.7.0.3, fd07::3 of eth0 of c2 in pods\n"), "{error}");
    assert_eq!(document(&node.command("list", &["--json"]))["networks"][0]["leases"], json!([]));
}

#[test]
fn a_network_whose_log_is_gone_is_not_told_as_empty() {
    let node = Node::new();
    node.run("ADD", "c1", &node.conf("1.1.0")).unwrap();
    fs::remove_file(node.dir.path().join("pods/leases.log")).unwrap();
    let (code, text, error) = said(&node.command("list", &[]));
    assert_eq!((code, text.as_str()), (1, ""));
    assert!(error.contains("cannot read the leases of pods: leases.log is missing"), "{error}");
}

#[test]
fn a_missing_lock_hides_no_lease() {
    let node = Node::new();
    node.run("ADD", "c1", &node.conf("1.1.0")).unwrap();
    fs::remove_file(node.dir.path().join("pods/leases.lock")).unwrap();
    assert_eq!(node.lease_count(), 1);
}
