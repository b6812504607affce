//! The stream as its peers see it: a table of single rules, and random lives against a model of Envoy.

mod conformance;
mod envoy;
mod peers;
mod simulation;
