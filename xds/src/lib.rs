//! An xDS server for Envoy: the protocol as a pure state machine, and its gRPC transport.
//!
//! Give it immutable [`Snapshot`]s; it brings every connected client to the newest one, in an order in which no request
//! fails, and tells how far each has got.
//!
//! ```no_run
//! use envoy_types::pb::envoy::config::cluster::v3::Cluster;
//! use tokio::net::UnixListener;
//! use weft_xds::server::Config;
//! use weft_xds::{Event, Resource, Revision, Server, Snapshot, TypeUrl};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let (server, publisher, mut events) = Server::new(Config::default());
//!
//!     let cluster = Cluster { name: "web".into(), ..Default::default() };
//!     let mut snapshot = Snapshot::builder();
//!     snapshot.insert(Resource::encode("web", &cluster));
//!     publisher.publish(snapshot.build(Revision(1))?.into());
//!
//!     let listener = UnixListener::bind("/run/weft/xds.sock")?;
//!     let serving = tokio::spawn(server.serve_unix(listener, async {
//!         std::future::pending().await // or a signal
//!     }));
//!     while let Some(event) = events.recv().await {
//!         match event {
//!             Event::InSync { revision, .. } => println!("revision {revision} is in force"),
//!             Event::Nacked { resources, message, .. } => println!("rejected: {resources:?} {message}"),
//!             _ => {}
//!         }
//!     }
//!     Ok(serving.await??)
//! }
//! ```
//!
//! # What may be relied on
//!
//! - **Make before break.** New clusters, endpoints and secrets come first; listeners and routes follow once the
//!   clusters are warm; what is gone goes last. See [`stream`].
//! - **Nothing is sent for nothing.** Versions are hashes of the content: a restart of the server or an equal snapshot
//!   under a new revision sends nothing.
//! - **No queues.** A response is rendered when the transport can take it, from the newest snapshot.
//! - **A rejection is final until the content changes**, and is reported per resource.
//! - **Every subscription is answered**, if only to say that there is nothing.
//!
//! # What is in it
//!
//! [`stream::Stream`] is the protocol without socket, clock or task: for tests, simulations and other transports.
//! [`server`] puts it on gRPC over a Unix socket, as the incremental aggregated service
//! (`DeltaAggregatedResources`).
#![forbid(unsafe_code)]

pub mod canonical;
mod event;
mod resource;
pub mod server;
pub mod snapshot;
pub mod stream;
mod type_url;
mod wire;

pub use event::{Event, StreamId};
pub use resource::{Reference, Resource, Version};
pub use server::{Publisher, Server};
pub use snapshot::{Revision, Snapshot, SnapshotError};
pub use type_url::TypeUrl;
