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
        ("-rwxr-xr-x root/root", "./usr/libexec/weft/weft-node"),
        ("-rwxr-xr-x root/root", "./usr/libexec/weft/weft-cni"),
        ("lrwxrwxrwx root/root", "./usr/sbin/weft-node -> ../libexec/weft/weft-node"),
        ("-rw-r--r-- root/root", "./usr/lib/systemd/system/weft-node.service"),
        ("-rw-r--r-- root/root", "./etc/default/weft-node"),
        ("-rw-r--r-- root/root", "./usr/share/doc/weft-node/examples/nodes.json"),
        ("-rw-r--r-- root/root", "./usr/share/doc/weft-node/changelog.gz"),
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
    fs::write(root.join("etc/weft/nodes.json"), "{}").unwrap();

    // The same, newer and older: neither changes what somebody has written, nor what pods need.
    for other in ["0.0.9", "99.0"] {
        dpkg(&root, &["--force-confold", "--install", as_version(&package, other).to_str().unwrap()]);
        assert!(bin.join("weft-cni").exists());
        assert!(fs::read_to_string(root.join("etc/default/weft-node")).unwrap().contains("--changed"));
    }

    dpkg(&root, &["--remove", "weft-node"]);
    assert!(bin.join("weft-cni").exists(), "pods that run need it for their DEL");
    assert!(root.join("etc/default/weft-node").exists(), "a conffile");
    dpkg(&root, &["--purge", "weft-node"]);
    assert_eq!(
        files(&root),
        ["/etc/cni/net.d/20-theirs.conflist", "/etc/weft/nodes.json", "/opt/cni/bin/weft-ipam"]
    );
}

/// The package with another version.
fn as_version(package: &Path, version: &str) -> PathBuf {
    let tree = package.with_file_name(format!("tree-{version}"));
    output(Command::new("dpkg-deb").arg("--raw-extract").args([package, &tree])).unwrap();
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).unwrap();
    fs::write(
        &control,
        text.replace(concat!("Version: ", env!("CARGO_PKG_VERSION")), &format!("Version: {version}")),
    )
    .unwrap();
    let other = package.with_file_name(format!("{version}.deb"));
    output(Command::new("dpkg-deb").args(["--root-owner-group", "-Znone", "--build"]).args([&tree, &other]))
        .unwrap();
    other
}

/// On a machine with systemd, of which there is here what the scripts see: they say what is done, and it is noted.
#[test]
fn the_scripts_start_restart_and_stop_the_agent_and_respect_who_has_disabled_it() {
    let node = Node::start().unwrap();
    for program in ["systemctl", "deb-systemd-invoke", "deb-systemd-helper"] {
        let noted = format!("#!/bin/sh\necho {program} \"$@\" >>/run/node/said\n");
        node.write(format!("/run/node/bin/{program}"), &noted).unwrap();
        node.sh(&format!("chmod 755 /run/node/bin/{program}")).unwrap();
    }
    node.sh("mkdir -p /run/systemd/system").unwrap();
    let said = |script: &str, words: &[&str]| {
        node.write("/run/node/said", "").unwrap();
        let mut command = Command::new(deploy().join("debian").join(script));
        command.args(words).env("PATH", "/run/node/bin:/usr/bin:/bin");
        node.run(|| output(&mut command)).unwrap().unwrap();
        node.sh("cat /run/node/said").unwrap()
    };
    assert!(said("postinst", &["configure", ""]).ends_with("deb-systemd-invoke start weft-node.service\n"));
    assert!(
        said("postinst", &["configure", "99.0"])
            .ends_with("deb-systemd-invoke try-restart weft-node.service\n")
    );
    assert_eq!(said("prerm", &["upgrade", "99.0"]), "", "the old one runs until the new one is there");
    assert_eq!(said("prerm", &["remove"]), "deb-systemd-invoke stop weft-node.service\n");
    assert!(said("postrm", &["remove"]).ends_with("deb-systemd-helper mask weft-node.service\n"));
}

/// What Debian's own checker says of a package, where it is installed.
#[test]
fn lintian_has_nothing_to_say() {
    let dir = tempfile::tempdir().unwrap();
    let package = build(dir.path());
    let checked =
        Command::new("lintian").args(["--allow-root", "--fail-on", "error,warning"]).arg(&package).output();
    let Ok(checked) = checked else {
        eprintln!("lintian is not installed, so the package was not checked");
        return;
    };
    // The programs of a debug build are linked in another way than those that are shipped.
    let of_build = |line: &&str| {
        !line.contains("unstripped")
            && !line.contains("missing-dependency-on-libc")
            && !line.contains("mismatched-override")
    };
    let said = String::from_utf8(checked.stdout).unwrap();
    let said: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("E:") || line.starts_with("W:"))
        .filter(of_build)
        .collect();
    assert_eq!(said, [""; 0]);
}

/// Of ten; what is left are the node's own network, namespaces and processes, which it is for.
#[test]
fn the_unit_is_shut_in() {
    let unit = deploy().join("systemd/weft-node.service");
    let mut analyze = Command::new("systemd-analyze");
    let checked = analyze.args(["security", "--offline=true", "--threshold=33"]).arg(unit).output();
    let Ok(checked) = checked else {
        eprintln!("systemd-analyze is not installed, so the unit was not checked");
        return;
    };
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
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
