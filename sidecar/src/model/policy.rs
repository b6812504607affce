//! `TrafficPolicy` (weft.dev/v1alpha1): what a service or route wants beyond where its requests go.

/// What holds for the requests to a port of a service, or for those of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {}
