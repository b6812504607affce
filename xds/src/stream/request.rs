//! What a client says, in either variant.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DiscoveryRequest, ResourceLocator,
};
use envoy_types::pb::google::rpc::Status;

/// A request of either variant. Both discovery messages convert into it.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) node: Option<Node>,
    pub(super) type_url: String,
    pub(super) nonce: String,
    pub(super) error: Option<Status>,
    pub(super) wants: Wants,
}

/// What a request says about its subscriptions.
#[derive(Clone, Debug)]
pub(super) enum Wants {
    /// Incremental: what changes, and on the first request of a type what the client holds, with versions.
    Change { subscribe: Vec<String>, unsubscribe: Vec<String>, holds: HashMap<String, String> },
    /// State of the world: all names, and the last version that was good.
    All { names: Vec<String>, version: String },
}

impl Request {
    /// Who sends it, if it says so: only the first request of a stream must.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// The type it is about, as the client has written it.
    #[must_use]
    pub fn type_url(&self) -> &str {
        &self.type_url
    }

    /// The same request with a node.
    #[must_use]
    pub fn with_node(self, node: Node) -> Self {
        Self { node: Some(node), ..self }
    }

    /// What remembering it takes, about.
    pub(super) fn name_bytes(&self) -> usize {
        self.type_url.len() + self.wants.name_bytes()
    }
}

impl Wants {
    /// Whether the client has been here before, and holds something.
    pub(super) fn resumes(&self) -> bool {
        match self {
            Self::Change { holds, .. } => !holds.is_empty(),
            Self::All { version, .. } => !version.is_empty(),
        }
    }

    /// Whether the names are more than those before, and not all there are.
    pub(super) fn adds(&self) -> bool {
        matches!(self, Self::Change { subscribe, .. } if !subscribe.is_empty())
    }

    /// How long the names are together.
    pub(super) fn name_bytes(&self) -> usize {
        match self {
            Self::Change { subscribe, holds, .. } => {
                subscribe.iter().chain(holds.keys()).map(String::len).sum()
            }
            Self::All { names, .. } => names.iter().map(String::len).sum(),
        }
    }

    pub(super) fn names(&self) -> usize {
        match self {
            Self::Change { subscribe, holds, .. } => subscribe.len() + holds.len(),
            Self::All { names, .. } => names.len(),
        }
    }
}

impl From<DeltaDiscoveryRequest> for Request {
    fn from(request: DeltaDiscoveryRequest) -> Self {
        let wants = Wants::Change {
            subscribe: located(request.resource_names_subscribe, request.resource_locators_subscribe),
            unsubscribe: located(request.resource_names_unsubscribe, request.resource_locators_unsubscribe),
            holds: request.initial_resource_versions,
        };
        Self {
            node: request.node,
            type_url: request.type_url,
            nonce: request.response_nonce,
            error: request.error_detail,
            wants,
        }
    }
}

impl From<DiscoveryRequest> for Request {
    fn from(request: DiscoveryRequest) -> Self {
        let names = located(request.resource_names, request.resource_locators);
        Self {
            node: request.node,
            type_url: request.type_url,
            nonce: request.response_nonce,
            error: request.error_detail,
            wants: Wants::All { names, version: request.version_info },
        }
    }
}

/// A locator is a name with parameters (xRFC TP2). There is one variant of each resource here, so that the parameters
/// make no difference.
fn located(mut names: Vec<String>, locators: Vec<ResourceLocator>) -> Vec<String> {
    names.extend(locators.into_iter().map(|locator| locator.name));
    names
}
