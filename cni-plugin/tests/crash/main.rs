//! The plugin's binary, killed or failed by the kernel at every single system call. Whatever was cut off, the next verb that
//! a runtime has brings the node and the pod back to where they were, to the last link, element, address and parameter.
//!
//! Calls that change nothing but the process's own memory are passed over: to be killed before one of them is the same as
//! to be killed before the next that is seen outside.

#![cfg(target_arch = "x86_64")]
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod faults;
mod kills;
mod scenario;
mod state;
mod tracer;

#[path = "../shared/pod.rs"]
mod pod;

use nix::libc;

use tracer::Call;

/// Whether nobody but the process itself could tell that `call` was carried out.
fn is_private(call: Call) -> bool {
    const PRIVATE: [i64; 18] = [
        libc::SYS_brk,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_mprotect,
        libc::SYS_madvise,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sigaltstack,
        libc::SYS_sched_getaffinity,
        libc::SYS_prctl,
        libc::SYS_getrandom,
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_fcntl,
        libc::SYS_rseq,
        libc::SYS_set_robust_list,
        libc::SYS_restart_syscall,
    ];
    PRIVATE.contains(&call.number)
}
