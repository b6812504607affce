//! A node for tests of the plugin's binary, and what a runtime does with the binary.

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use weft_datapath::{Nft, Rtnl};

pub(crate) const PLUGIN: &str = env!("CARGO_BIN_EXE_weft-cni");

/// An error document's code, and its message with the details.
pub(crate) type Refusal = (u64, String);

/// Runs `test` on a node of its own: a network namespace.
pub(crate) fn alone(test: impl FnOnce() + Send + 'static) {
    within(CloneFlags::CLONE_NEWNET, test);
}

/// The same, with a namespace of mounts of its own, and nothing in `directories`.
pub(crate) fn alone_without(directories: &'static [&'static str], test: impl FnOnce() + Send + 'static) {
    within(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS, move || {
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        for directory in directories {
            mount(none, *directory, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        }
        test();
    });
}

fn within(namespaces: CloneFlags, test: impl FnOnce() + Send + 'static) {
    let on_node = move || {
        unshare(namespaces).expect("these tests need root");
        test();
    };
    if let Err(panic) = thread::spawn(on_node).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Links, whose elements there are, and tables of the firewall, as far as they are there.
pub(crate) fn remains() -> Vec<String> {
    let links = Rtnl::open().unwrap().observe().unwrap().links;
    let mut remains: Vec<_> = links.into_iter().map(|link| link.name).filter(|name| name != "lo").collect();
    remains.extend(owners());
    let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
    remains.extend(String::from_utf8(tables.stdout).unwrap().lines().map(str::to_owned));
    remains
}

/// Who is masqueraded.
pub(crate) fn owners() -> Vec<String> {
    Nft::open().unwrap().masqueraded().unwrap().into_iter().map(|found| found.owner).collect()
}

/// Starts `command`, which is the plugin or runs it, and hands it the configuration. What else is in its environment is the
/// caller's.
pub(crate) fn start(command: &mut Command, verb: &str, container: &str, netns: &str, conf: &Value) -> Child {
    let mut plugin = command
        .envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", container), ("CNI_NETNS", netns)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    plugin.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
    plugin
}

/// What `command` says on its outputs, as far as they are piped.
pub(crate) fn output(
    command: &mut Command,
    verb: &str,
    container: &str,
    netns: &str,
    conf: &Value,
) -> Output {
    start(command, verb, container, netns, conf).wait_with_output().unwrap()
}

/// What the plugin answers for `eth0`.
pub(crate) fn exec(verb: &str, container: &str, netns: &str, conf: &Value) -> Result<Value, Refusal> {
    let mut plugin = Command::new(PLUGIN);
    answer(&output(plugin.env_clear().env("CNI_IFNAME", "eth0"), verb, container, netns, conf))
}

/// The document of an answer, null where there is none, or the refusal.
pub(crate) fn answer(output: &Output) -> Result<Value, Refusal> {
    let text = str::from_utf8(&output.stdout).unwrap();
    let document = if text.is_empty() { Value::Null } else { serde_json::from_str(text).unwrap() };
    match output.status.code() {
        Some(0) => Ok(document),
        Some(1) => {
            let said = ["msg", "details"].map(|key| document[key].as_str().unwrap_or_default());
            Err((document["code"].as_u64().unwrap(), said.join(": ").trim_end_matches(": ").to_owned()))
        }
        _ => panic!("{output:?}"),
    }
}
