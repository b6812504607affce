//! The writer of a stream: the body of its HTTP response.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::codegen::http::HeaderMap;

use super::connection::{Line, now};
use super::metric;
use crate::stream::Variant;

/// Renders a response whenever HTTP/2 asks for more, which it does when it has room. Its frames are pieces of the
/// snapshot.
#[derive(Debug)]
pub(super) struct Responses {
    line: Arc<Line>,
    variant: Variant,
    /// What is left of the response that is being written.
    pieces: VecDeque<Bytes>,
    ended: bool,
}

impl Responses {
    pub(super) fn new(line: Arc<Line>, variant: Variant) -> Self {
        Self { line, variant, pieces: VecDeque::new(), ended: false }
    }

    fn render(&mut self) {
        let Some(response) = self.line.with_stream(|stream| stream.on_writable(now())) else { return };
        let (pieces, length) = response.encode_grpc();
        metric::sent(&response, self.variant, length);
        self.pieces = pieces.into();
        self.line.written.notify_one();
    }
}

impl Body for Responses {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        this.line.writer.register(context.waker());
        if this.pieces.is_empty() && this.line.may_write() {
            this.render();
        }
        if let Some(piece) = this.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(status) = this.line.end() else { return Poll::Pending };
        this.ended = true;
        let mut trailers = HeaderMap::new();
        // What cannot be a header leaves the client with an unknown error.
        status.add_header(&mut trailers).ok();
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

impl Drop for Responses {
    fn drop(&mut self) {
        self.line.hung_up.notify_one();
    }
}
