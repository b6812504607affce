//! The first process of a pid namespace: what a runtime starts there ends with it, also when the test is killed.

use std::process::Command;
use std::time::Duration;

use crate::binaries;
use crate::error::Result;
use crate::node::Node;
use crate::process::{self, Process};

/// A pid namespace on a node. All of its processes end when it is dropped.
///
/// Its mount table is a copy of the node's in which `/run` stays shared with it.
#[derive(Debug)]
pub(crate) struct Init {
    node: Node,
    process: Process,
}

impl Init {
    pub(crate) fn start(node: &Node) -> Result<Self> {
        let mut command = Command::new(binaries::system("unshare")?);
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "unchanged", "--"]);
        // A shell that waits buries every orphan it inherits.
        command.args(["sh", "-c", "echo ready; sleep infinity & wait"]);
        let mut process = node.spawn(command)?;
        process
            .await_line("a pid namespace", Duration::from_secs(10), |line| (line == "ready").then_some(()))?;
        Ok(Self { node: node.clone(), process })
    }

    /// Runs a program in it to its end, and returns what it wrote to stdout.
    pub(crate) fn output(&self, program: &Command) -> Result<String> {
        let mut command = self.entering(program)?;
        self.node.run(|| process::output(&mut command))?
    }

    /// Keeps a program running in it. A signal to the guard's process is not passed on.
    pub(crate) fn spawn(&self, program: &Command) -> Result<Process> {
        self.node.spawn(self.entering(program)?)
    }

    fn entering(&self, program: &Command) -> Result<Command> {
        let namespace = |kind: &str| format!("/proc/{}/ns/{kind}", self.process.id());
        let mut command = Command::new(binaries::system("nsenter")?);
        command.arg(format!("--mount={}", namespace("mnt")));
        command.arg(format!("--pid={}", namespace("pid_for_children")));
        command.arg("--").arg(program.get_program()).args(program.get_args());
        command.envs(program.get_envs().filter_map(|(key, value)| Some((key, value?))));
        Ok(command)
    }
}
