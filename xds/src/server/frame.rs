//! The messages in the body of a request ("Length-Prefixed-Message" of gRPC over HTTP/2).

use std::pin::Pin;

use bytes::{Buf, BytesMut};
use http_body::Body as _;
use tonic::{Code, Status};

/// A flag for compression, and a length.
const PREFIX: usize = 5;

/// Reads messages out of a body.
#[derive(Debug)]
pub(super) struct Messages {
    body: tonic::body::Body,
    received: BytesMut,
    limit: usize,
}

impl Messages {
    pub(super) fn new(body: tonic::body::Body, limit: usize) -> Self {
        Self { body, received: BytesMut::new(), limit }
    }

    /// The next message; `None` once the client has ended its half. Cancel-safe.
    pub(super) async fn next<M: prost::Message + Default>(&mut self) -> Result<Option<(M, usize)>, Status> {
        loop {
            if let Some(message) = self.take()? {
                let length = message.len();
                let decoded =
                    M::decode(message).map_err(|error| Status::invalid_argument(error.to_string()))?;
                return Ok(Some((decoded, length)));
            }
            let frame = std::future::poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(&error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.received.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    /// A message that has been received in full.
    fn take(&mut self) -> Result<Option<BytesMut>, Status> {
        let Some((&[compressed, a, b, c, d], rest)) = self.received.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        if compressed != 0 {
            return Err(Status::unimplemented("compressed requests are not supported"));
        }
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > self.limit {
            let text = format!("a request of {length} bytes, and {} are allowed", self.limit);
            return Err(Status::resource_exhausted(text));
        }
        if rest.len() < length {
            // No room is made ahead: a length is what the client says.
            return Ok(None);
        }
        self.received.advance(PREFIX);
        Ok(Some(self.received.split_to(length)))
    }
}

fn broken(error: &Status) -> Status {
    Status::new(Code::Cancelled, format!("the client has left: {}", error.message()))
}
