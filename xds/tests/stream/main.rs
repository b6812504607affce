//! The protocol engine as its clients see it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod conformance;
mod envoy;
mod peers;
mod simulation;
