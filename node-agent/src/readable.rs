//! Descriptors that tokio waits for.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Makes tokio wait until `source` can be read.
#[expect(
    deprecated,
    reason = "its successor is unsafe; what that demands holds for all that is given to it: none ever changes its descriptor"
)]
pub(crate) fn readable<T: AsRawFd>(source: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(source, Interest::READABLE)
}
