//! Which of the many services a stream is on.

use envoy_types::pb::envoy::config::core::v3::Node;

use super::Refusal;
use crate::TypeUrl;

/// The service a stream is on: which variant of the protocol, and for which type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Which variant of the protocol.
    pub variant: Variant,
    /// The one type it is for; `None` on the aggregated service.
    pub type_url: Option<TypeUrl>,
}

/// The two ways to tell a client what has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Single resources, with versions of their own (`DELTA_GRPC`).
    Incremental,
    /// All names with every request; of clusters, listeners and whatever is asked for as a whole, all resources with every
    /// response (`GRPC`).
    StateOfTheWorld,
}

impl Service {
    /// The aggregated service (ADS): all types on one stream, in a safe order.
    #[must_use]
    pub fn aggregated(variant: Variant) -> Self {
        Self { variant, type_url: None }
    }

    /// The service for one type (CDS, EDS, and so on).
    #[must_use]
    pub fn of_type(type_url: TypeUrl, variant: Variant) -> Self {
        Self { variant, type_url: Some(type_url) }
    }

    /// The type that a request is about.
    pub(super) fn resolve(&self, url: &str) -> Result<TypeUrl, Refusal> {
        match (&self.type_url, url) {
            (None, "") => Err(Refusal::MissingTypeUrl),
            (None, url) => Ok(TypeUrl::new(url)),
            (Some(own), url) if url.is_empty() || own.as_str() == url => Ok(own.clone()),
            (Some(_), _) => Err(Refusal::WrongType),
        }
    }
}

impl Variant {
    /// Whether a client can take times to live, by the [client features][features] it lists. In the state of the world
    /// they need wrappers around the resources.
    ///
    /// [features]: https://www.envoyproxy.io/docs/envoy/latest/api/client_features
    pub(super) fn has_ttl(self, node: &Node) -> bool {
        let lists = |feature: &str| node.client_features.iter().any(|listed| listed == feature);
        lists("xds.config.supports-resource-ttl")
            && (self == Self::Incremental || lists("xds.config.supports-resource-in-sotw"))
    }
}
