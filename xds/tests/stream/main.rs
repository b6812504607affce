//! The protocol engine as its clients see it.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod client;
mod conformance;
mod envoy;
mod interleavings;
mod peers;
mod simulation;
