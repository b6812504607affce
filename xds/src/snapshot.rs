//! Everything one revision of the configuration says.

mod builder;
mod chunks;
mod mistake;
mod resources;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

pub use self::builder::Builder;
use self::chunks::Chunks;
pub use self::mistake::{Mistake, SnapshotError};
pub(crate) use self::resources::Resources;
use crate::{Resource, TypeUrl, Version};

/// The owner's number for a snapshot. It comes back in every [`Event`](crate::Event) about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// All resources of one revision. It never changes; share it as `Arc<Snapshot>`.
///
/// The next one is made out of the last with [`edit`](Self::edit). That costs what changes, not what there is: the two
/// share the rest, and so do all streams that are brought from one to the other.
///
/// ```
/// use envoy_types::pb::envoy::config::cluster::v3::Cluster;
/// use weft_xds::{Resource, Revision, Snapshot, TypeUrl};
///
/// let cluster = |name: &str| Resource::encode(name, &Cluster { name: name.into(), ..Default::default() });
/// let mut builder = Snapshot::builder();
/// builder.insert(cluster("web")).insert(cluster("db"));
/// let first = builder.build(Revision(1))?;
///
/// let mut edit = first.edit();
/// edit.remove(&TypeUrl::CLUSTER, "db").insert(cluster("cache"));
/// let second = edit.build(Revision(2))?;
/// assert_eq!(second.names(&TypeUrl::CLUSTER).collect::<Vec<_>>(), ["cache", "web"]);
/// # Ok::<(), weft_xds::SnapshotError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    revision: Revision,
    types: BTreeMap<TypeUrl, Resources>,
    /// How often a name is needed.
    needed: BTreeMap<TypeUrl, Chunks<u32>>,
    /// What is needed and comes from elsewhere.
    external: Arc<BTreeSet<(TypeUrl, Arc<str>)>>,
}

/// Why a name that clients may ask for has no resource. It goes to clients that know the field `resource_errors`
/// ([xRFC TP3][tp3]); to all others the name just does not exist.
///
/// [tp3]: https://github.com/cncf/xds/blob/main/proposals/TP3-xds-error-propagation.md
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A gRPC status. A client drops what it has for 5 (`NOT_FOUND`) and 7 (`PERMISSION_DENIED`), and keeps it for
    /// 2, 13 and 14 (`UNKNOWN`, `INTERNAL`, `UNAVAILABLE`).
    pub code: i32,
    /// For the operator of the client.
    pub message: Arc<str>,
}

impl Snapshot {
    /// Starts an empty snapshot.
    #[must_use]
    pub fn builder() -> Builder {
        Self::default().edit()
    }

    /// Starts a snapshot that has everything of this one.
    #[must_use]
    pub fn edit(&self) -> Builder {
        Builder::new(self.clone())
    }

    /// The owner's number for this snapshot.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The resource of this type and name, or alias.
    #[must_use]
    pub fn get(&self, type_url: &TypeUrl, name: &str) -> Option<&Resource> {
        self.types.get(type_url)?.get(name)
    }

    /// The types of which there is something, in make-before-break order.
    pub fn types(&self) -> impl Iterator<Item = &TypeUrl> {
        self.types.iter().filter(|(_, resources)| !resources.is_empty()).map(|(type_url, _)| type_url)
    }

    /// The names of all resources of a type, sorted.
    pub fn names(&self, type_url: &TypeUrl) -> impl Iterator<Item = &str> {
        self.types.get(type_url).into_iter().flat_map(Resources::iter).map(Resource::name)
    }

    /// All resources, by type in make-before-break order, then by name.
    pub fn iter(&self) -> impl Iterator<Item = (&TypeUrl, &Resource)> {
        self.types.iter().flat_map(|(type_url, resources)| resources.iter().map(move |r| (type_url, r)))
    }

    /// The version of all resources of a type together: `version_info` of a state-of-the-world response.
    #[must_use]
    pub fn version(&self, type_url: &TypeUrl) -> Version {
        self.of_type(type_url).version()
    }

    /// The name under which a cluster's endpoints are asked for, if it takes them from here.
    #[must_use]
    pub fn eds_name(&self, cluster: &str) -> Option<&str> {
        self.get(&TypeUrl::CLUSTER, cluster)?.eds_name()
    }

    /// Whether both say the same, whatever their revisions. It costs what differs.
    #[must_use]
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        let mut differs = false;
        for type_url in self.types.keys().chain(other.types.keys()) {
            self.of_type(type_url).for_each_difference(&other.of_type(type_url), |_| differs = true);
        }
        !differs
    }

    pub(crate) fn of_type(&self, type_url: &TypeUrl) -> Resources {
        self.types.get(type_url).cloned().unwrap_or_default()
    }

    pub(crate) fn has_any(&self, type_url: &TypeUrl) -> bool {
        self.types.get(type_url).is_some_and(|resources| !resources.is_empty())
    }
}
