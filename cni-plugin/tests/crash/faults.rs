//! Failed by the kernel at every system call of ADD and DEL that can fail.

use nix::errno::Errno;
use nix::libc;

use crate::scenario::{Node, Scenario, WHOLE};
use crate::state::State;
use crate::tracer::{Call, Ended, Fate};

/// How many nodes share the calls of a verb.
const NODES: usize = 4;

macro_rules! failed_at_every_system_call {
    ($($add:ident, $del:ident: $scenario:ident,)*) => {
        $(
            #[test] fn $add() { failed_at_every_call(add_that_fails, Scenario::$scenario); }
            #[test] fn $del() { failed_at_every_call(del_that_fails, Scenario::$scenario); }
        )*
    };
}

failed_at_every_system_call! {
    a_failed_add_of_a_routed_pod_is_undone, a_failed_del_of_a_routed_pod_is_repeated: Routed,
    a_failed_add_of_a_pod_on_a_bridge_is_undone, a_failed_del_of_a_pod_on_a_bridge_is_repeated: Bridged,
    a_failed_add_behind_another_plugin_is_undone, a_failed_del_behind_another_plugin_is_repeated: Chained,
    a_failed_add_with_addresses_of_another_plugin_is_undone,
    a_failed_del_with_addresses_of_another_plugin_is_repeated: Delegated,
}

/// A verb that is told `errno` at its nth call, and what must be so afterwards. Whether it came to that call.
type Attempt = fn(&Node, &State, Fault) -> bool;

fn failed_at_every_call(attempt: Attempt, scenario: Scenario) {
    let share = |first| {
        Node::run(scenario, true, move |node| {
            let before = State::at_a_glance(node);
            let mut nths = (first..).step_by(NODES);
            nths.find(|nth| !attempt(node, &before, Fault { nth: *nth, calls: 0, failed: None }))
                .unwrap_or_default()
        })
    };
    let shares: Vec<_> = (1..=NODES).map(share).collect();
    let calls = shares.into_iter().map(|share| share.join().unwrap()).min().unwrap_or_default();
    assert!(calls > 20, "only {calls} system calls: what is traced here?");
}

/// Success although something failed, or an error document and nothing left.
fn add_that_fails(node: &Node, before: &State, mut fault: Fault) -> bool {
    node.begin();
    let begun = State::at_a_glance(node);
    let ended = node.add(Some(&mut |call| fault.fate(call)));
    let answer = (!has_given_up(&ended, fault)).then(|| ended.answer());
    match answer {
        None => drop(node.del(None, WHOLE).answer().unwrap()),
        Some(Ok(result)) => {
            node.check(&result).answer().unwrap();
            node.del(Some(&result), WHOLE).answer().unwrap();
        }
        Some(Err(refusal)) => {
            let left = begun.diff(&State::at_a_glance(node));
            assert_eq!(left, [""; 0], "{fault:?} made ADD answer {refusal:?}: {}", ended.stderr);
        }
    }
    node.end();
    assert_eq!(before.diff(&State::at_a_glance(node)), [""; 0], "{fault:?} {ended:?}");
    fault.calls >= fault.nth
}

/// Success and nothing left, or an error document; then the runtime's second DEL leaves nothing.
fn del_that_fails(node: &Node, before: &State, mut fault: Fault) -> bool {
    node.begin();
    let result = node.add(WHOLE).answer().unwrap();
    let ended = node.del(Some(&result), Some(&mut |call| fault.fate(call)));
    if has_given_up(&ended, fault) || ended.answer().is_err() {
        node.del(Some(&result), WHOLE).answer().unwrap();
    }
    node.end();
    assert_eq!(before.diff(&State::at_a_glance(node)), [""; 0], "{fault:?} {ended:?}");
    fault.calls >= fault.nth
}

/// Who cannot leave a pod's namespace gives up, and is cleaned up after like any who was killed.
fn has_given_up(ended: &Ended, fault: Fault) -> bool {
    ended.code.is_none() && fault.failed == Some(libc::SYS_setns)
}

/// One call of those that can fail, counted from the first look at the configuration.
#[derive(Clone, Copy, Debug)]
struct Fault {
    nth: usize,
    calls: usize,
    /// The number of the call that was failed.
    failed: Option<i64>,
}

impl Fault {
    fn fate(&mut self, call: Call) -> Fate {
        let errnos = failures_of(call);
        self.calls += usize::from(!errnos.is_empty());
        match errnos.get(self.nth % errnos.len().max(1)) {
            Some(errno) if self.calls == self.nth => {
                self.failed = Some(call.number);
                Fate::Fails(*errno)
            }
            _ => Fate::Happens,
        }
    }
}

/// How the kernel could answer `call`; nothing for those that do not fail, or nobody asks whether they did. Nor are the
/// standard streams failed here: an answer that cannot be told is another matter.
fn failures_of(call: Call) -> &'static [Errno] {
    const STDOUT: u64 = 1;
    const STDERR: u64 = 2;
    match call.number {
        libc::SYS_write if [STDOUT, STDERR].contains(&call.file) => &[],
        libc::SYS_socket | libc::SYS_pipe2 => &[Errno::EMFILE, Errno::ENOMEM, Errno::ENFILE],
        libc::SYS_connect | libc::SYS_setsockopt => &[Errno::ENOMEM, Errno::EPERM],
        libc::SYS_sendto | libc::SYS_sendmsg => &[Errno::ENOBUFS, Errno::EINTR, Errno::ENOMEM],
        libc::SYS_recvfrom | libc::SYS_recvmsg => &[Errno::ENOBUFS, Errno::EINTR, Errno::ENOMEM, Errno::EIO],
        libc::SYS_clone3 | libc::SYS_setns => &[Errno::EAGAIN, Errno::ENOMEM],
        libc::SYS_openat
        | libc::SYS_read
        | libc::SYS_write
        | libc::SYS_mkdir
        | libc::SYS_rename
        | libc::SYS_ftruncate
        | libc::SYS_statx
        | libc::SYS_newfstatat
        | libc::SYS_fstatfs
        | libc::SYS_flock
        | libc::SYS_lseek => &[Errno::EIO, Errno::ENOSPC, Errno::EROFS],
        _ => &[],
    }
}
