//! The xDS protocol as a pure state machine, and its gRPC transport.
#![forbid(unsafe_code)]

pub mod canonical;
mod event;
mod resource;
pub mod server;
pub mod snapshot;
pub mod stream;
mod type_url;

pub use event::{Event, StreamId};
pub use resource::{Resource, Version};
pub use server::{Publisher, Server};
pub use snapshot::{Revision, Snapshot, SnapshotError};
pub use type_url::TypeUrl;
