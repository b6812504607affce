//! Everything one revision of the configuration says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::{Resource, TypeUrl};

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
/// ```
/// use envoy_types::pb::envoy::config::cluster::v3::Cluster;
/// use weft_xds::{Resource, Revision, Snapshot, TypeUrl};
///
/// let cluster = Cluster { name: "web".into(), ..Default::default() };
/// let mut builder = Snapshot::builder();
/// builder.insert(TypeUrl::CLUSTER, Resource::encode("web", &cluster));
/// let snapshot = builder.build(Revision(1))?;
/// assert!(snapshot.get(&TypeUrl::CLUSTER, "web").is_some());
/// # Ok::<(), weft_xds::SnapshotError>(())
/// ```
#[derive(Debug, Default)]
pub struct Snapshot {
    revision: Revision,
    types: BTreeMap<TypeUrl, Resources>,
    eds_names: BTreeMap<Arc<str>, Arc<str>>,
}

/// The resources of one type, in the order of their names.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    sorted: Vec<Resource>,
    fingerprint: u64,
}

/// Why resources do not make a snapshot. Every mistake is in the list.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the resources do not make a snapshot: {}", list(.mistakes))]
pub struct SnapshotError {
    /// All mistakes, in the order of insertion. Never empty.
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
        /// The name of both.
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
}

/// Collects the resources of a [`Snapshot`].
#[derive(Debug, Default)]
pub struct Builder {
    types: BTreeMap<TypeUrl, BTreeMap<Arc<str>, Resource>>,
    eds_names: BTreeMap<Arc<str>, Arc<str>>,
    mistakes: Vec<Mistake>,
}

impl Snapshot {
    /// Starts an empty snapshot.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The owner's number for this snapshot.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The resource of this type and name.
    #[must_use]
    pub fn get(&self, type_url: &TypeUrl, name: &str) -> Option<&Resource> {
        self.of_type(type_url).get(name)
    }

    /// The names of all resources of a type, sorted.
    pub fn names(&self, type_url: &TypeUrl) -> impl Iterator<Item = &str> {
        self.of_type(type_url).iter().map(Resource::name)
    }

    /// All resources, by type in make-before-break order, then by name.
    pub fn iter(&self) -> impl Iterator<Item = (&TypeUrl, &Resource)> {
        self.types.iter().flat_map(|(type_url, resources)| resources.iter().map(move |r| (type_url, r)))
    }

    /// The name under which a cluster's endpoints are asked for, if it takes them from EDS.
    #[must_use]
    pub fn eds_name(&self, cluster: &str) -> Option<&str> {
        self.eds_names.get(cluster).map(AsRef::as_ref)
    }

    pub(crate) fn of_type(&self, type_url: &TypeUrl) -> &Resources {
        static NONE: Resources = Resources { sorted: Vec::new(), fingerprint: 0 };
        self.types.get(type_url).unwrap_or(&NONE)
    }
}

impl Resources {
    fn new(sorted: Vec<Resource>) -> Self {
        let mix = |hash: u64, bits: u64| (hash.rotate_left(5) ^ bits).wrapping_mul(0x517c_c1b7_2722_0a95);
        let fingerprint = sorted.iter().fold(0, |hash, resource| {
            let named = resource.name().bytes().fold(hash, |hash, byte| mix(hash, u64::from(byte)));
            mix(named, resource.version().bits())
        });
        Self { sorted, fingerprint }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Resource> {
        let at = self.sorted.binary_search_by(|resource| resource.name().cmp(name)).ok()?;
        self.sorted.get(at)
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Resource> {
        self.sorted.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Whether both hold the same names at the same versions.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint && self.sorted.len() == other.sorted.len()
    }
}

impl Builder {
    /// Adds a resource.
    ///
    /// A cluster that takes its endpoints from EDS goes through [`insert_cluster`](Self::insert_cluster).
    pub fn insert(&mut self, type_url: TypeUrl, resource: Resource) -> &mut Self {
        self.mistakes.extend(naming_mistake(&type_url, &resource));
        let name = Arc::clone(resource.shared_name());
        let names = self.types.entry(type_url.clone()).or_default();
        if names.insert(Arc::clone(&name), resource).is_some() {
            self.mistakes.push(Mistake::Duplicate { type_url, name });
        }
        self
    }

    /// Adds a cluster and says under which name it asks for its endpoints; `None` if not through EDS.
    ///
    /// A changed cluster warms until its endpoints arrive once more, and an incremental client does not ask for
    /// them again: without this name the server could not know that it must repeat them, and the change
    /// would take effect 15 s late (measured with Envoy 1.40).
    pub fn insert_cluster(&mut self, cluster: Resource, eds_name: Option<&str>) -> &mut Self {
        if let Some(eds_name) = eds_name {
            self.eds_names.insert(Arc::clone(cluster.shared_name()), eds_name.into());
        }
        self.insert(TypeUrl::CLUSTER, cluster)
    }

    /// Finishes the snapshot and leaves the builder empty.
    ///
    /// Whether every reference between resources can be followed is the caller's to know: only the caller can
    /// read every message.
    ///
    /// # Errors
    /// All mistakes of all insertions.
    pub fn build(&mut self, revision: Revision) -> Result<Snapshot, SnapshotError> {
        let Self { types, eds_names, mistakes } = std::mem::take(self);
        if !mistakes.is_empty() {
            return Err(SnapshotError { mistakes });
        }
        let sorted = |names: BTreeMap<_, Resource>| Resources::new(names.into_values().collect());
        let types = types.into_iter().map(|(type_url, names)| (type_url, sorted(names))).collect();
        Ok(Snapshot { revision, types, eds_names })
    }
}

fn naming_mistake(type_url: &TypeUrl, resource: &Resource) -> Option<Mistake> {
    let (type_url, name) = (type_url.clone(), Arc::clone(resource.shared_name()));
    if matches!(&*name, "" | "*") {
        return Some(Mistake::ReservedName { type_url, name });
    }
    let inner = inner_name(&type_url, resource.body())?;
    (inner != *name).then_some(Mistake::NameMismatch { type_url, name, inner })
}

/// The name a message gives itself. The five types that clients look up by name all keep it in field 1, which
/// an encoder writes first.
fn inner_name(type_url: &TypeUrl, body: &[u8]) -> Option<String> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
    }
    let named = [TypeUrl::CLUSTER, TypeUrl::ENDPOINT, TypeUrl::SECRET, TypeUrl::LISTENER, TypeUrl::ROUTE];
    let named = named.contains(type_url).then(|| <Named as prost::Message>::decode(body).ok());
    named.flatten().map(|named| named.name)
}

fn list(mistakes: &[Mistake]) -> String {
    mistakes
        .iter()
        .map(ToString::to_string)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;

    fn cluster(name: &str) -> Resource {
        Resource::encode(name, &Cluster { name: name.into(), ..Default::default() })
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let mut builder = Snapshot::builder();
        builder.insert(TypeUrl::CLUSTER, cluster("a")).insert(TypeUrl::CLUSTER, cluster("a"));
        builder.insert(
            TypeUrl::CLUSTER,
            Resource::encode("b", &Cluster { name: "c".into(), ..Default::default() }),
        );
        builder.insert(TypeUrl::RUNTIME, Resource::from_bytes("*", Default::default()));
        let SnapshotError { mistakes } = builder.build(Revision(1)).unwrap_err();
        assert_eq!(
            mistakes,
            [
                Mistake::Duplicate { type_url: TypeUrl::CLUSTER, name: "a".into() },
                Mistake::NameMismatch { type_url: TypeUrl::CLUSTER, name: "b".into(), inner: "c".into() },
                Mistake::ReservedName { type_url: TypeUrl::RUNTIME, name: "*".into() },
            ]
        );
    }

    #[test]
    fn resources_come_by_type_then_by_name() {
        let mut builder = Snapshot::builder();
        builder.insert(TypeUrl::RUNTIME, Resource::from_bytes("r", Default::default()));
        builder.insert_cluster(cluster("b"), Some("b-hosts")).insert(TypeUrl::CLUSTER, cluster("a"));
        let snapshot = builder.build(Revision(1)).unwrap();
        assert_eq!(snapshot.iter().map(|(_, resource)| resource.name()).collect::<Vec<_>>(), ["a", "b", "r"]);
        assert_eq!(snapshot.names(&TypeUrl::CLUSTER).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((snapshot.eds_name("a"), snapshot.eds_name("b")), (None, Some("b-hosts")));
    }

    #[test]
    fn resources_are_the_same_exactly_when_names_and_versions_are() {
        let of = |texts: &[(&'static str, &'static str)]| {
            Resources::new(
                texts.iter().map(|(n, body)| Resource::from_bytes(*n, body.as_bytes().into())).collect(),
            )
        };
        assert!(of(&[("a", "1"), ("b", "2")]).same(&of(&[("a", "1"), ("b", "2")])));
        for other in [&[("a", "2"), ("b", "1")][..], &[("a", "1")], &[("ab", "1"), ("b", "2")], &[]] {
            assert!(!of(&[("a", "1"), ("b", "2")]).same(&of(other)));
        }
    }
}
