//! `GRPCRoute` (gateway.networking.k8s.io/v1).

use super::matching::grpc_match;
use super::route::{Route, RouteKind};
use crate::read::Node;
use crate::read::decode::Report;

/// Reads the `spec` of a `GRPCRoute`.
pub fn decode(spec: &Node, report: &mut Report) -> Option<Route> {
    Route::decode(RouteKind::Grpc, spec, report, grpc_match, |_, _| {})
}
