//! One rule per test, in both variants where both have it. "Proto" is Envoy's `docs/root/api-docs/xds_protocol.rst`;
//! "1.40" is what an Envoy 1.40.0 was measured to do.

mod answers;
mod collections;
mod limits;
mod missing;
mod names;
mod opening;
mod order;
mod resuming;
mod status;
mod sync;
mod ttl;
mod world;
