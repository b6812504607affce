//! What the start of a process is spared.

use nix::errno::Errno;
use nix::libc::{c_int, c_void};

/// Stands in place of the C library's own, where a binary carries that library with it.
///
/// Rust asks for the stack of a thread as it begins, so that one that overflows is told from other faults. The C library finds
/// the first thread's in `/proc/self/maps`, which the kernel writes and `sscanf` reads: 35 µs of each start, and 96 KiB. Where it
/// is not known, an overflow ends the process with `SIGSEGV`, and not with `SIGABRT` and a line on standard error.
#[expect(unsafe_code, reason = "it takes the name of a function of the C library")]
// SAFETY: it has that function's arguments and result. Where it answers with an error, nobody reads what was to be filled in.
#[unsafe(no_mangle)]
extern "C" fn pthread_getattr_np(_thread: *mut c_void, _attributes: *mut c_void) -> c_int {
    Errno::ENOSYS as c_int
}
