//! An xDS server for Envoy and gRPC: the protocol as a pure state machine, and its gRPC transport.
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
//!     let first = Snapshot::builder().insert(Resource::encode("web", &cluster)).build(Revision(1))?;
//!     publisher.publish(first.clone().into());
//!
//!     let listener = UnixListener::bind("/run/weft/xds.sock")?;
//!     let serving = tokio::spawn(server.serve_unix(listener, async {
//!         std::future::pending().await // or a signal
//!     }));
//!
//!     // The next snapshot is made of the last, and shares with it what stays.
//!     let next = first.edit().remove(&TypeUrl::CLUSTER, "web").build(Revision(2))?;
//!     publisher.publish(next.into());
//!
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
//! `examples/smallest.rs` is a whole server in a hundred lines.
//!
//! # How to think about it
//!
//! - A [`Resource`] is bytes with a name, a type and a version, which is a hash of the bytes. It is encoded once.
//! - A [`Snapshot`] is all resources of one [`Revision`]. Names that lead nowhere do not make one, so what is published can
//!   be followed from the listener to the endpoint. Resources that come from elsewhere are declared
//!   [`external`](snapshot::Builder::external).
//! - A [`Publisher`] gives snapshots to all clients, or to those of a group that [`server::Grouping`] chooses by their node.
//! - [`Event`]s say what clients make of it. [`Event::InSync`] is the one to wait for: a client has accepted everything of a
//!   revision, which for clusters Envoy says only once they are warm. [`Event::Nacked`] names the guilty resources, as
//!   far as the client does.
//! - [`Server::status`] and the Client Status Discovery Service show, for each stream and resource, what it should be, was
//!   sent, is accepted, or was rejected, why and since when.
//!
//! # What may be relied on
//!
//! - **Make before break.** New clusters, endpoints and secrets come first; listeners and routes follow once the
//!   clusters are warm; what is gone goes last. See [`stream`].
//! - **Nothing is sent for nothing.** Versions are hashes of the content: a restart of the server or an equal snapshot
//!   under a new revision sends nothing to an incremental client.
//! - **A change costs the change.** Snapshots share what is the same, and so do the streams: one endpoint changed among
//!   ten thousand is found, rendered and written without a look at the others.
//! - **No queues.** A response is rendered when the transport can take it, from the newest snapshot; large resources are
//!   written from where they are.
//! - **A rejection is final until the content changes**, over reconnects too, and is reported per resource. The innocent
//!   are sent without the guilty, whose last good content stays.
//! - **Every subscription is answered**, if only to say that there is nothing.
//! - **A message that would break a stream is not sent**, but reported ([`Event::Withheld`]).
//!
//! # Names
//!
//! A name is any text but `*`. Names of the form `xdstp://…` are compared as they are written, parameters included, and one that
//! ends in `/*` before its parameters subscribes to a collection: all resources one step below, as Envoy's
//! `cds_resources_locator` and `lds_resources_locator` ask for. An empty collection is answered by its own name among what is removed, or in the state of the world with nothing. Of a list
//! collection (`envoy.config.cluster.v3.ClusterCollection`, inline entries) nothing is known here: it is a resource like
//! any other, and its owner makes it. The parameters of a `ResourceLocator` (xRFC TP2) choose no variant.
//!
//! # Which services
//!
//! The aggregated service (ADS), and one each for clusters, endpoints, listeners, routes, scoped routes, virtual hosts,
//! secrets, runtime layers and extension configurations, in the incremental and the state-of-the-world variant (virtual hosts
//! in the former only); any other type on the aggregated service. Use the aggregated one: only there is an order kept between
//! types. Prefer the incremental variant (`DELTA_GRPC`): a client of the other is sent all clusters for a change of one,
//! and what it holds is not known to a server that has restarted.
//!
//! # What is in it
//!
//! [`stream::Stream`] is the protocol without socket, clock or task: for tests, simulations and other transports.
//! [`server`] puts it on gRPC, over a Unix socket with peer credentials or TCP. Features: `tls` (TLS, with client
//! certificates if wanted), `health` (`grpc.health.v1`), `reflection` (for `grpcurl`).
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
