//! Connections, for as long as the kernel has room for them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::warn;

/// How long nothing is accepted after a failure.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections of a listener, without its failures: after one, nothing is accepted for a while.
///
/// Where a process has no file descriptors left, `accept` fails at once, and fails again: whoever just repeats it uses a
/// whole CPU until somebody leaves (measured with tonic 0.14, which does).
#[derive(Debug)]
pub(super) struct Accepting<S> {
    incoming: S,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S> Accepting<S> {
    pub(super) fn new(incoming: S) -> Self {
        Self { incoming, pause: None }
    }
}

impl<S: Stream<Item = io::Result<C>> + Unpin, C> Stream for Accepting<S> {
    type Item = io::Result<C>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match ready!(Pin::new(&mut self.incoming).poll_next(context)) {
                Some(Err(error)) => {
                    warn!(%error, "cannot accept connections for xDS; trying again in {PAUSE:?}");
                    self.pause = Some(Box::pin(sleep_until(Instant::now() + PAUSE)));
                }
                accepted => return Poll::Ready(accepted),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use std::time::Instant;

    #[tokio::test]
    async fn a_failure_is_followed_by_a_pause_and_not_by_the_next() {
        let full = || Err(io::Error::from_raw_os_error(24));
        let incoming = futures_util::stream::iter([full(), full(), Ok("connection")]);
        let mut accepting = Accepting::new(incoming);
        let begun = Instant::now();
        assert_eq!(accepting.next().await.unwrap().unwrap(), "connection");
        assert!(begun.elapsed() >= 2 * PAUSE);
        assert!(accepting.next().await.is_none());
    }
}
