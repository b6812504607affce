//! The shipped binary on directories as a node has them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tempfile::TempDir;

const LIST: &str = r#"{"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "weft-cni"}]}"#;

/// A node's two directories, and what is to be installed.
struct Node {
    dir: TempDir,
}

impl Node {
    fn new() -> Self {
        let node = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(node.path("weft-cni"), "#!/bin/sh\n# one\n").unwrap();
        fs::write(node.path("10-weft.conflist"), LIST).unwrap();
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn weft_node(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-node"));
        command
            .args(arguments)
            .arg("--bin-dir")
            .arg(self.path("bin"))
            .arg("--conf-dir")
            .arg(self.path("net.d"));
        command.output().unwrap()
    }

    fn install(&self) -> Output {
        let (conf, plugin) = (self.path("10-weft.conflist"), self.path("weft-cni"));
        self.weft_node(&["install", "--conf", conf.to_str().unwrap(), "--plugin", plugin.to_str().unwrap()])
    }

    fn uninstall(&self) -> Output {
        // Another one may run an agent on this machine.
        self.weft_node(&["uninstall", "--state-dir", self.path("state").to_str().unwrap()])
    }

    fn names(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(dir)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", errors(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn plugins_and_configuration_are_installed_with_their_modes_and_removed_without_a_trace() {
    let node = Node::new();
    let installed = succeeded(&node.install());
    assert_eq!(installed.matches("installed").count(), 3, "{installed}");
    let mode = |path: &str| fs::metadata(node.path(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("bin/weft-cni"), mode("net.d/10-weft.conflist")), (0o755, 0o644));
    let checked = Command::new("sha256sum")
        .args(["--check", ".weft-node.owned"])
        .current_dir(node.path("bin"))
        .output();
    assert!(checked.unwrap().status.success());
    assert_eq!(succeeded(&node.uninstall()).matches("removed").count(), 3);
    assert_eq!((node.names("bin"), node.names("net.d")), (vec![], vec![]));
    assert!(succeeded(&node.uninstall()).starts_with("nothing    was to be removed: no file in "));
}

#[test]
fn installing_again_touches_nothing() {
    let node = Node::new();
    succeeded(&node.install());
    let inode = |path: &str| fs::metadata(node.path(path)).unwrap().ino();
    let all = ["bin/weft-cni", "net.d/10-weft.conflist", "bin/.weft-node.owned", "net.d/.weft-node.owned"];
    let before = all.map(inode);
    assert_eq!(succeeded(&node.install()).matches("unchanged").count(), 3);
    assert_eq!(all.map(inode), before, "a runtime that watches the directory would read it again");
}

#[test]
fn a_plugin_that_is_running_is_replaced_and_goes_on_running() {
    let node = Node::new();
    fs::copy("/bin/sleep", node.path("weft-cni")).unwrap();
    succeeded(&node.install());
    let mut running = Command::new(node.path("bin/weft-cni")).arg("60").spawn().unwrap();
    fs::write(node.path("weft-cni"), "#!/bin/sh\n# two\n").unwrap();
    let replaced = node.install();
    let is_running = running.try_wait().unwrap().is_none();
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(is_running && succeeded(&replaced).contains("replaced"));
    assert!(Command::new(node.path("bin/weft-cni")).stdin(Stdio::null()).status().unwrap().success());
}

#[test]
fn a_watcher_sees_the_configuration_appear_whole_under_its_name_and_after_the_plugins() {
    let node = Node::new();
    for dir in ["bin", "net.d"] {
        fs::create_dir(node.path(dir)).unwrap();
    }
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    for dir in ["bin", "net.d"] {
        inotify.add_watch(&node.path(dir), AddWatchFlags::IN_ALL_EVENTS).unwrap();
    }
    succeeded(&node.install());
    let changes = AddWatchFlags::IN_ACCESS | AddWatchFlags::IN_OPEN | AddWatchFlags::IN_CLOSE_NOWRITE;
    let mut seen: Vec<(String, AddWatchFlags)> = Vec::new();
    while let Ok(events) = inotify.read_events() {
        seen.extend(
            events.into_iter().filter_map(|event| Some((event.name?.into_string().unwrap(), event.mask))),
        );
    }
    seen.retain(|(name, mask)| !name.starts_with('.') && !mask.intersects(changes));
    let expected = ["weft-cni", "loopback", "10-weft.conflist"]
        .map(|name| (name.to_owned(), AddWatchFlags::IN_MOVED_TO));
    assert_eq!(seen, expected);
}

#[test]
fn only_what_is_ours_is_removed() {
    let node = Node::new();
    succeeded(&node.install());
    fs::write(node.path("bin/bridge"), "theirs").unwrap();
    fs::write(node.path("net.d/10-weft.conflist"), "edited").unwrap();
    let output = node.uninstall();
    assert!(succeeded(&output).contains("kept"));
    assert!(errors(&output).contains("10-weft.conflist was changed since it was installed, and stays"));
    assert_eq!(node.names("bin"), ["bridge"]);
    assert_eq!(fs::read_to_string(node.path("net.d/10-weft.conflist")).unwrap(), "edited");
}

#[test]
fn what_somebody_else_put_there_is_not_replaced_and_nothing_is_half_done() {
    let node = Node::new();
    fs::create_dir(node.path("net.d")).unwrap();
    fs::write(node.path("net.d/10-weft.conflist"), "theirs").unwrap();
    let output = node.install();
    assert!(!output.status.success());
    assert!(
        errors(&output).contains("10-weft.conflist was not installed by weft-node"),
        "{}",
        errors(&output)
    );
    assert_eq!(node.names("bin"), Vec::<String>::new());
    assert_eq!(fs::read_to_string(node.path("net.d/10-weft.conflist")).unwrap(), "theirs");
}

#[test]
fn all_mistakes_are_named_and_nothing_is_installed() {
    let node = Node::new();
    fs::write(node.path("weft-cni"), "neither").unwrap();
    fs::write(node.path("10-weft.conflist"), r#"{"name": "pods", "plugins": []}"#).unwrap();
    let output = node.install();
    let text = errors(&output);
    for mistake in ["is not an executable", "cniVersion must be a text", "plugins must be a list"] {
        assert!(text.contains(mistake), "{text}");
    }
    assert!(!output.status.success() && !node.path("bin").exists() && !node.path("net.d").exists());
}

/// containerd calls it for every sandbox, and starts none without it.
#[test]
fn a_loopback_is_installed_where_there_is_none_and_another_ones_stays() {
    let node = Node::new();
    succeeded(&node.install());
    assert_eq!(fs::read(node.path("bin/loopback")).unwrap(), fs::read(node.path("weft-cni")).unwrap());
    succeeded(&node.uninstall());
    assert!(!node.path("bin/loopback").exists());

    fs::write(node.path("bin/loopback"), "#!/bin/sh\n# another one's\n").unwrap();
    succeeded(&node.install());
    succeeded(&node.uninstall());
    assert!(fs::read_to_string(node.path("bin/loopback")).unwrap().contains("another one's"));
}

#[test]
fn a_configuration_that_comes_before_ours_and_a_missing_plugin_are_warned_of() {
    let node = Node::new();
    fs::create_dir(node.path("net.d")).unwrap();
    for name in ["05-other.conf", "20-later.conflist", "01-notes.txt"] {
        fs::write(node.path("net.d").join(name), "{}").unwrap();
    }
    let list = LIST.replace(r#"[{"#, r#"[{"type": "firewall"}, {"#);
    fs::write(node.path("10-weft.conflist"), list).unwrap();
    let output = node.install();
    succeeded(&output);
    let text = errors(&output);
    assert_eq!(text.matches("warning").count(), 2, "{text}");
    assert!(text.contains("05-other.conf comes before 10-weft.conflist"), "{text}");
    assert!(text.contains("names the plugin firewall, which is not in"), "{text}");
}

#[test]
fn installations_at_the_same_time_take_turns() {
    let node = Node::new();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..6).map(|_| scope.spawn(|| node.install())).collect();
        runs.into_iter().for_each(|run| drop(succeeded(&run.join().unwrap())));
    });
    assert_eq!(node.names("bin"), [".weft-node.owned", "loopback", "weft-cni"]);
    assert_eq!(fs::read_to_string(node.path("net.d/10-weft.conflist")).unwrap(), LIST);
    assert!(Path::new(&node.path("net.d/.weft-node.owned")).exists());
}
