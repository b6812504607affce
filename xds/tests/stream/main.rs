//! The stream as its peers see it: a table of single rules, and random lives against a model of Envoy.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod conformance;
mod envoy;
mod peers;
mod simulation;
