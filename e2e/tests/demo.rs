//! `make demo` is the first thing that anybody runs: it works, and it leaves nothing, however it ends.

#![cfg(test)]

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use weft_e2e::{Node, Process};

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
    let inner = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", demo.id())).unwrap();
    let inner = nix::unistd::Pid::from_raw(inner.trim().parse().unwrap());
    nix::sys::signal::kill(inner, Signal::SIGINT).unwrap();
    assert_eq!(demo.await_end(LIMIT).unwrap().code(), Some(130), "{}", demo.log());
    assert_eq!(before.diff(&node.inventory().unwrap()), [""; 0]);
}

/// `scripts/demo` without the build.
fn demo(node: &Node) -> Process {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.arg(env!("CARGO_BIN_EXE_weft-demo"));
    node.spawn(command).unwrap()
}
