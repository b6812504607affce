//! `make demo` is the first thing that anybody runs: it works, and it leaves nothing, however it ends.

#![cfg(test)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use weft_e2e::{Node, Process, wait};

/// The design allows a minute; a machine that is busy with other tests gets more.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn the_demo_says_ok_at_its_end_and_leaves_nothing() {
    let node = Node::start().unwrap();
    let before = node.inventory().unwrap();
    let mut demo = demo(&node);
    let status = demo.await_end(LIMIT).unwrap();
    let log = demo.log();
    assert!(status.success(), "{log}");
    assert_eq!(log.lines().last(), Some("demo: ok"), "{log}");
    assert!(log.lines().all(|line| line.chars().count() <= 80), "wider than a terminal: {log}");
    assert!(!log.contains('\x1b'), "colour without a terminal: {log}");
    assert_eq!(before.diff(&node.inventory().unwrap()), [""; 0]);
}

#[test]
fn an_interrupt_ends_the_demo_with_status_130_and_leaves_nothing() {
    let node = Node::start().unwrap();
    let before = node.inventory().unwrap();
    let mut demo = demo(&node);
    demo.await_line("the first pod", LIMIT, |line| line.contains("10.244.0.").then_some(())).unwrap();
    // A terminal sends it to every process of the foreground group; unshare ignores it.
    let inner = nix::unistd::Pid::from_raw(first_process(&demo).parse().unwrap());
    nix::sys::signal::kill(inner, Signal::SIGINT).unwrap();
    assert_eq!(demo.await_end(LIMIT).unwrap().code(), Some(130), "{}", demo.log());
    assert_eq!(before.diff(&node.inventory().unwrap()), [""; 0]);
}

#[test]
fn a_killed_demo_takes_everything_with_it() {
    let node = Node::start().unwrap();
    let mut demo = demo(&node);
    demo.await_line("Envoy", LIMIT, |line| line.contains("is live").then_some(())).unwrap();
    let inner = Path::new("/proc").join(first_process(&demo));
    drop(demo);
    // With the first process of a pid namespace the kernel ends all others, before it is gone itself.
    let gone = || if inner.exists() { Err(format!("{} is there", inner.display())) } else { Ok(()) };
    wait::until("the end of the demo", LIMIT, gone).unwrap();
}

/// The demo itself, the child of `unshare`.
fn first_process(demo: &Process) -> String {
    let children = format!("/proc/{0}/task/{0}/children", demo.id());
    std::fs::read_to_string(children).unwrap().trim().to_owned()
}

/// `scripts/demo` without the build.
fn demo(node: &Node) -> Process {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.arg(env!("CARGO_BIN_EXE_weft-demo"));
    node.spawn(command).unwrap()
}
