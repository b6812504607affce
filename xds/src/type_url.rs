//! The name of a resource type.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The type of an xDS resource, as it is written on the wire.
///
/// Any text is a type: a client may ask for types this crate has never heard of. Cloning never copies text.
///
/// The order is the one in which a change must reach a client to be make-before-break: clusters, endpoints,
/// secrets, listeners, routes, scopes, virtual hosts, then everything else by name
/// ([eventual consistency considerations][order] of the xDS protocol).
///
/// [order]: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
#[derive(Clone)]
pub struct TypeUrl(Text);

/// A well-known type has one form alone, so that its place says which it is: types are compared far more often than read.
#[derive(Clone)]
enum Text {
    WellKnown(u8),
    Shared(Arc<str>),
}

impl TypeUrl {
    /// CDS: upstream clusters.
    pub const CLUSTER: Self = Self(Text::WellKnown(0));
    /// EDS: the endpoints of one cluster.
    pub const ENDPOINT: Self = Self(Text::WellKnown(1));
    /// SDS: certificates and keys.
    pub const SECRET: Self = Self(Text::WellKnown(2));
    /// LDS: listeners.
    pub const LISTENER: Self = Self(Text::WellKnown(3));
    /// RDS: route configurations.
    pub const ROUTE: Self = Self(Text::WellKnown(4));
    /// SRDS: the choice of a route configuration per request.
    pub const SCOPED_ROUTE: Self = Self(Text::WellKnown(5));
    /// VHDS: virtual hosts on demand.
    pub const VIRTUAL_HOST: Self = Self(Text::WellKnown(6));
    /// ECDS: configuration of single filters.
    pub const EXTENSION_CONFIG: Self = Self(Text::WellKnown(7));
    /// RTDS: runtime layers.
    pub const RUNTIME: Self = Self(Text::WellKnown(8));

    /// In make-before-break order.
    const WELL_KNOWN: [&'static str; 9] = [
        "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "type.googleapis.com/envoy.config.listener.v3.Listener",
        "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration",
        "type.googleapis.com/envoy.config.route.v3.VirtualHost",
        "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "type.googleapis.com/envoy.service.runtime.v3.Runtime",
    ];

    /// The type called `url`. Well-known types are found again without an allocation.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let known = (0..).zip(Self::WELL_KNOWN).find(|(_, known)| *known == url);
        Self(known.map_or_else(|| Text::Shared(url.into()), |(place, _)| Text::WellKnown(place)))
    }

    /// The type of the message `M`.
    #[must_use]
    pub fn of_message<M: prost::Name>() -> Self {
        Self::new(&M::type_url())
    }

    /// The text on the wire, if it is one of those above.
    pub(crate) fn well_known(&self) -> Option<&'static str> {
        match &self.0 {
            Text::WellKnown(place) => Self::WELL_KNOWN.get(usize::from(*place)).copied(),
            Text::Shared(_) => None,
        }
    }

    /// The name of the message: what comes after the last slash.
    pub(crate) fn message_name(&self) -> &str {
        self.as_str().rsplit('/').next().unwrap_or_default()
    }

    /// The text on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::WellKnown(_) => self.well_known().unwrap_or_default(),
            Text::Shared(text) => text,
        }
    }

    /// Whether clients find resources of this type by names they have learned from another resource. Of all other
    /// types a request for nothing in particular asks for everything: Envoy still asks so for clusters, listeners,
    /// scoped routes (`subscription_->start({})`) and the types of its extensions.
    pub(crate) fn is_named(&self) -> bool {
        let named = [
            Self::ENDPOINT,
            Self::SECRET,
            Self::ROUTE,
            Self::VIRTUAL_HOST,
            Self::EXTENSION_CONFIG,
            Self::RUNTIME,
        ];
        named.contains(self)
    }

    /// Whether requests are routed *to* resources of this type: such a resource must be there before, and may
    /// go only after, whatever refers to it.
    pub(crate) fn is_supply(&self) -> bool {
        self.rank() <= 2
    }

    /// What has no place in the order comes last.
    fn rank(&self) -> u8 {
        match &self.0 {
            Text::WellKnown(place @ 0..=6) => *place,
            Text::WellKnown(_) | Text::Shared(_) => u8::MAX,
        }
    }
}

impl PartialEq for TypeUrl {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Text::WellKnown(one), Text::WellKnown(other)) => one == other,
            (Text::Shared(one), Text::Shared(other)) => one == other,
            _ => false,
        }
    }
}

impl Eq for TypeUrl {}

impl Hash for TypeUrl {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Ord for TypeUrl {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.rank(), other.rank()) {
            (u8::MAX, u8::MAX) => self.as_str().cmp(other.as_str()),
            (one, other) => one.cmp(&other),
        }
    }
}

impl PartialOrd for TypeUrl {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TypeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TypeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;

    #[test]
    fn types_sort_in_make_before_break_order() {
        let mut types = vec![
            TypeUrl::RUNTIME,
            TypeUrl::ROUTE,
            TypeUrl::LISTENER,
            TypeUrl::SECRET,
            TypeUrl::ENDPOINT,
            TypeUrl::CLUSTER,
        ];
        types.sort();
        types.reverse();
        assert_eq!(types.pop(), Some(TypeUrl::CLUSTER));
        assert_eq!(types.pop(), Some(TypeUrl::ENDPOINT));
        assert_eq!(types.pop(), Some(TypeUrl::SECRET));
        assert_eq!(types.pop(), Some(TypeUrl::LISTENER));
        assert_eq!(types.pop(), Some(TypeUrl::ROUTE));
    }

    #[test]
    fn a_type_is_the_same_however_it_was_made() {
        assert_eq!(TypeUrl::of_message::<Cluster>(), TypeUrl::CLUSTER);
        assert_eq!(TypeUrl::new("type.googleapis.com/x.Y"), TypeUrl::new("type.googleapis.com/x.Y"));
        assert_ne!(TypeUrl::new("type.googleapis.com/x.Y"), TypeUrl::CLUSTER);
    }
}
