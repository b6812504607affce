//! Why resources do not make a snapshot.

use std::collections::BTreeSet;
use std::sync::Arc;

use thiserror::Error;

use crate::TypeUrl;

/// Why resources do not make a snapshot. Every mistake is in the list.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the resources do not make a snapshot: {}", list(.mistakes))]
pub struct SnapshotError {
    /// All mistakes: those of single resources in the order of insertion, then those between resources. Never empty.
    pub mistakes: Vec<Mistake>,
}

/// One reason why resources do not make a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Mistake {
    /// A client rejects a whole response that holds one name twice.
    #[error("{type_url} {name:?} is there twice")]
    Duplicate {
        /// The type of both.
        type_url: TypeUrl,
        /// The name, or alias, of both.
        name: Arc<str>,
    },
    /// `""` and `*` cannot be subscribed to: the protocol gives both another meaning.
    #[error("{type_url} {name:?}: a resource cannot have this name")]
    ReservedName {
        /// The type of the resource.
        type_url: TypeUrl,
        /// Its name.
        name: Arc<str>,
    },
    /// The message calls itself something else. Envoy accepts this in silence and then holds one resource
    /// under two names (measured with 1.40).
    #[error("{type_url} {name:?} calls itself {inner:?}")]
    NameMismatch {
        /// The type of the resource.
        type_url: TypeUrl,
        /// The name it was inserted under.
        name: Arc<str>,
        /// The name in its body.
        inner: String,
    },
    /// A resource needs one that is not there: a route to such a cluster fails requests, a listener with such routes
    /// never opens its port (measured with Envoy 1.40).
    #[error("{type_url} {name:?} refers to {needed_type} {needed:?}, which does not exist")]
    Dangling {
        /// The type of the resource that refers.
        type_url: TypeUrl,
        /// Its name.
        name: Arc<str>,
        /// The type of what is missing.
        needed_type: TypeUrl,
        /// Its name.
        needed: Arc<str>,
    },
}

fn list(mistakes: &[Mistake]) -> String {
    let texts: BTreeSet<_> = mistakes.iter().map(ToString::to_string).collect();
    texts.into_iter().collect::<Vec<_>>().join("; ")
}
