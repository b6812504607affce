//! `Gateway` (gateway.networking.k8s.io/v1): where requests from outside enter.

/// A gateway that this workload's Envoy plays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gateway {}
