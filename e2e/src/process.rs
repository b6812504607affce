//! Programs: run to their end, or kept running for as long as a guard lives.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Doing, Error, Result};
use crate::wait;

/// Runs a command to its end and returns what it wrote to stdout.
pub fn output(command: &mut Command) -> Result<String> {
    let line = line_of(command);
    let output = command.stdin(Stdio::null()).output().doing(|| format!("run `{line}`"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = tail(&(text(&output.stdout) + &text(&output.stderr)), 20);
    Err(Error::Command { command: line, status: output.status, said })
}

/// A program in the background. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: File,
}

impl Process {
    /// Starts `command` from the calling thread, whose namespaces it inherits and with which it dies: the kernel
    /// kills it when that thread ends, whatever ends it. Its stdout and stderr go to the log.
    pub(crate) fn start(command: &Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = tempfile::tempfile().doing(|| "create a log file".to_owned())?;
        let sink = || log.try_clone().doing(|| "share a log file".to_owned());
        let mut bound = bound_to_its_parent(command);
        bound.stdin(Stdio::null()).stdout(sink()?).stderr(sink()?);
        let mut child = bound.spawn().doing(|| format!("start `{}`", line_of(command)))?;
        await_the_bond(&mut child)?;
        Ok(Self { name, child, log })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has printed so far, stdout and stderr together.
    pub fn log(&self) -> String {
        let length = self.log.metadata().map_or(0, |metadata| metadata.len());
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let read = self.log.read_at(&mut bytes, 0).unwrap_or(0);
        bytes.truncate(read);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until a line of the log satisfies `pick`, and returns what it picked from the first such line.
    pub fn await_line<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> Result<T> {
        wait::until(what, limit, || self.log().lines().find_map(&mut pick).ok_or_else(|| self.last_words()))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // Not reaped before `drop` or `await_end`, so the id is still this process's.
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).doing(|| format!("signal {}", self.name))
    }

    /// Waits for its end.
    pub fn await_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait::until(&what, limit, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(tail(&self.log(), 10)),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of the log, and the exit status if there is one: what an error message about it needs.
    pub fn last_words(&mut self) -> String {
        let state = match self.child.try_wait() {
            Ok(Some(status)) => format!("{} has ended with {status}", self.name),
            _ => format!("{} is running", self.name),
        };
        format!("{state}; its log ends with\n{}", tail(&self.log(), 15))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A child is first a copy of this thread, then `setpriv`, which binds it, then the program. Until it is that, its
/// parent's death might go unnoticed.
fn await_the_bond(child: &mut Child) -> Result<()> {
    let comm = |task: &str| std::fs::read_to_string(format!("/proc/{task}/comm")).unwrap_or_default();
    let unbound = [comm("thread-self"), "setpriv\n".to_owned()];
    let id = child.id().to_string();
    wait::until("setpriv to have done its work", Duration::from_secs(10), || {
        let ended = !matches!(child.try_wait(), Ok(None));
        let name = comm(&id);
        if ended || !unbound.contains(&name) { Ok(()) } else { Err(name) }
    })
}

fn bound_to_its_parent(command: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(key, value),
            None => bound.env_remove(key),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        bound.current_dir(dir);
    }
    bound
}

pub(crate) fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}
