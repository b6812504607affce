//! Runs a program and decides, at every system call it makes, whether that happens.
//!
//! This is `strace -f --inject`, but for one counter: strace counts the calls of each thread by itself, so what a second
//! thread does could not be cut off at each of its calls while the first one waits.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The kernel carries it out.
    Happens,
    /// The kernel does not see it, and the program is told this.
    Fails(Errno),
    /// Nothing of it happens: the program is killed at its door.
    Kills,
}

/// A system call at the kernel's door.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) number: i64,
    /// Its first argument, where that is a file.
    pub(crate) file: u64,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit status; none where it was killed.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `command` with `stdin` to its end.
pub(crate) fn run(command: &mut Command, stdin: &str) -> Ended {
    let mut child = spawn(command);
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let code = child.wait().unwrap().code();
    Ended::new(code, child)
}

/// Runs `command` with `stdin` to its end, and asks `fate` about every system call from the first look at `stdin` on.
/// Returns when the program has ended and everything it started has closed standard error.
pub(crate) fn trace(command: &mut Command, stdin: &str, fate: impl FnMut(Call) -> Fate) -> Ended {
    let mut child = spawn(command);
    let leader = Pid::from_raw(child.id() as i32);
    // It cannot have got further than to where it waits for the configuration.
    ptrace::seize(leader, options()).unwrap();
    ptrace::interrupt(leader).unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let code = Tracer { leader, fate, reading: false, failing: HashMap::new() }.follow();
    Ended::new(code, child)
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

impl Ended {
    fn new(code: Option<i32>, child: Child) -> Self {
        let text = |pipe: &mut dyn Read| {
            let mut text = String::new();
            pipe.read_to_string(&mut text).unwrap();
            text
        };
        Self { code, stdout: text(&mut child.stdout.unwrap()), stderr: text(&mut child.stderr.unwrap()) }
    }
}

/// Threads are followed, other programs are not.
fn options() -> Options {
    Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL
}

struct Tracer<F> {
    leader: Pid,
    fate: F,
    /// Whether what comes before the first look at standard input is over.
    reading: bool,
    /// Threads inside a call that was turned away, and what they will be told.
    failing: HashMap<Pid, Errno>,
}

impl<F: FnMut(Call) -> Fate> Tracer<F> {
    /// To the end of the program: its exit status.
    fn follow(mut self) -> Option<i32> {
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).unwrap() {
                WaitStatus::Exited(pid, code) if pid == self.leader => return Some(code),
                WaitStatus::Signaled(pid, ..) if pid == self.leader => return None,
                WaitStatus::PtraceSyscall(thread) => self.pass(thread),
                WaitStatus::PtraceEvent(thread, ..) => resume(thread, None),
                WaitStatus::Stopped(thread, signal) => resume(thread, Some(signal)),
                _ => {}
            }
        }
    }

    /// A thread stands at the door to the kernel, on its way in or out.
    fn pass(&mut self, thread: Pid) {
        const ENTRY: u8 = 1;
        match ptrace::syscall_info(thread) {
            Ok(info) if info.op == ENTRY => self.enter(thread),
            Ok(_) => self.leave(thread),
            // Another thread has just ended them all.
            Err(_) => {}
        }
        resume(thread, None);
    }

    fn enter(&mut self, thread: Pid) {
        let Ok(mut registers) = ptrace::getregs(thread) else { return };
        let call = Call { number: registers.orig_rax as i64, file: registers.rdi };
        self.reading |= call.number == libc::SYS_read && call.file == 0;
        if !self.reading {
            return;
        }
        match (self.fate)(call) {
            Fate::Happens => {}
            Fate::Kills => kill(self.leader, Signal::SIGKILL).unwrap(),
            Fate::Fails(errno) => {
                registers.orig_rax = u64::MAX;
                ptrace::setregs(thread, registers).unwrap();
                self.failing.insert(thread, errno);
            }
        }
    }

    fn leave(&mut self, thread: Pid) {
        let Some(errno) = self.failing.remove(&thread) else { return };
        let mut registers = ptrace::getregs(thread).unwrap();
        registers.rax = i64::from(-(errno as i32)) as u64;
        ptrace::setregs(thread, registers).unwrap();
    }
}

/// One that is gone already needs no leave to go on.
fn resume(thread: Pid, signal: Option<Signal>) {
    match ptrace::syscall(thread, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("cannot resume {thread}: {error}"),
    }
}
