//! The Debian package for nodes without Kubernetes: what is in it, what it leaves, and whether its unit lets the agent work.

#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use weft_e2e::{Node, binaries, output, wait};

const UNIT: &str = include_str!("../../deploy/systemd/weft-node.service");

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("deploy")
}

fn build(into: &Path) -> PathBuf {
    let mut build = Command::new(deploy().join("debian/build"));
    output(build.arg(binaries::weft_dir()).arg(into)).unwrap().trim().into()
}

fn dpkg(root: &Path, arguments: &[&str]) -> String {
    let mut dpkg = Command::new("dpkg");
    dpkg.arg(format!("--root={}", root.display())).args(["--force-script-chrootless", "--log=/dev/null"]);
    output(dpkg.args(arguments)).unwrap()
}

fn files(root: &Path) -> Vec<String> {
    let found = output(Command::new("find").arg(root).args([
        "-not",
        "-type",
        "d",
        "-not",
        "-path",
        "*/var/lib/dpkg/*",
        "-printf",
        "/%P\n",
    ]));
    let mut files: Vec<_> = found.unwrap().lines().map(str::to_owned).collect();
    files.sort();
    files
}

#[test]
fn the_package_has_its_files_with_their_modes_and_is_the_same_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| build(&dir.path().join(name)));
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
    let contents = output(Command::new("dpkg-deb").arg("--contents").arg(&one)).unwrap();
    for (mode, path) in [
        ("-rwxr-xr-x root/root", "./usr/lib/weft/weft-node"),
        ("-rwxr-xr-x root/root", "./usr/lib/weft/weft-cni"),
        ("lrwxrwxrwx root/root", "./usr/sbin/weft-node -> ../lib/weft/weft-node"),
        ("-rw-r--r-- root/root", "./usr/lib/systemd/system/weft-node.service"),
        ("-rw-r--r-- root/root", "./etc/default/weft-node"),
        ("-rw-r--r-- root/root", "./usr/share/doc/weft-node/examples/nodes.json"),
    ] {
        let is_so = |line: &str| line.starts_with(mode) && line.ends_with(path);
        assert!(contents.lines().any(is_so), "{mode} {path} is not in\n{contents}");
    }
    let about = output(Command::new("dpkg-deb").arg("--info").arg(&one)).unwrap();
    assert!(about.contains("Package: weft-node\n") && about.contains("conffiles"), "{about}");
}

#[test]
fn an_installed_package_runs_and_a_purge_leaves_what_is_not_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let package = build(dir.path());
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("var/lib/dpkg")).unwrap();
    fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    dpkg(&root, &["--install", package.to_str().unwrap()]);
    let weft_node = root.join("usr/sbin/weft-node");
    assert!(output(Command::new(&weft_node).arg("--version")).unwrap().starts_with("weft-node "));

    // What the agent puts there, with its plugins beside the program that the link leads to.
    let (bin, conf) = (root.join("opt/cni/bin"), root.join("etc/cni/net.d"));
    let example = root.join("usr/share/doc/weft-node/examples/10-weft.conflist");
    let mut install = Command::new(&weft_node);
    install.args(["install", "--conf"]).arg(example).arg("--bin-dir").arg(&bin).arg("--conf-dir").arg(&conf);
    output(&mut install).unwrap();
    fs::write(conf.join("20-theirs.conflist"), "{}").unwrap();
    fs::write(bin.join("weft-ipam"), "edited").unwrap();
    fs::write(root.join("etc/default/weft-node"), "WEFT_NODE_OPTIONS=--changed\n").unwrap();

    dpkg(&root, &["--remove", "weft-node"]);
    assert!(bin.join("weft-cni").exists(), "pods that run need it for their DEL");
    assert!(root.join("etc/default/weft-node").exists(), "a conffile");
    dpkg(&root, &["--purge", "weft-node"]);
    assert_eq!(files(&root), ["/etc/cni/net.d/20-theirs.conflist", "/opt/cni/bin/weft-ipam"]);
}

#[test]
fn systemd_understands_every_line_of_the_unit() {
    let unit = deploy().join("systemd/weft-node.service");
    let verified = Command::new("systemd-analyze").arg("verify").arg(unit).output();
    let Ok(verified) = verified else {
        eprintln!("systemd-analyze is not installed, so the unit was not verified");
        return;
    };
    let said = String::from_utf8(verified.stderr).unwrap();
    let of_ours = |line: &&str| {
        line.contains("weft-node.service") && !line.contains("/usr/sbin/weft-node is not executable")
    };
    assert_eq!(said.lines().filter(of_ours).collect::<Vec<_>>(), [""; 0]);
}

/// The unit's capabilities are all that the agent and its plugins have: a pod is attached, reached, checked and detached.
#[test]
fn the_capabilities_of_the_unit_are_enough() {
    let node = Node::start().unwrap();
    let line = UNIT.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let capabilities: Vec<_> =
        line.split(' ').map(|name| name.trim_start_matches("CAP_").to_lowercase()).collect();
    assert_eq!(capabilities, ["net_admin", "sys_admin", "sys_ptrace"]);
    let bounding = format!("-all,+{}", capabilities.join(",+"));
    node.write("/run/node/nodes.json", &fs::read_to_string(deploy().join("debian/nodes.json")).unwrap())
        .unwrap();
    let mut agent = Command::new("setpriv");
    agent
        .args(["--bounding-set", &bounding, "--no-new-privs", "--"])
        .arg(binaries::weft("weft-node").unwrap());
    agent.args(["run", "--node-name", "a", "--nodes", "/run/node/nodes.json", "--cri-socket", "none"]);
    agent.args(["--bin-dir", "/run/node/bin", "--conf-dir", "/run/node/net.d"]);
    let agent = node.spawn(agent).unwrap();
    let status = format!("{} status --json", binaries::weft("weft-node").unwrap().display());
    let passed = wait::until("the self-test", Duration::from_secs(60), || {
        let text = node.sh(&status).map_err(|error| error.to_string())?;
        let status: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        match status["install"]["selfTest"]["state"].as_str() {
            Some("passed") if status["install"]["conflist"].is_string() => Ok(()),
            _ => Err(text),
        }
    });
    assert!(passed.is_ok(), "{passed:?}\n{}", agent.log());
}
