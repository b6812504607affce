//! Making snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::chunks::{Chunks, Finder};
use super::{Failure, Mistake, Resources, Revision, Snapshot, SnapshotError};
use crate::{Reference, Resource, TypeUrl};

/// Collects the resources of a [`Snapshot`], from nothing or from an earlier one.
#[derive(Debug)]
pub struct Builder {
    snapshot: Snapshot,
    touched: BTreeMap<TypeUrl, Chunks<()>>,
    mistakes: Vec<Mistake>,
}

impl Builder {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, touched: BTreeMap::new(), mistakes: Vec::new() }
    }

    /// Adds a resource, or replaces the one of its name in the snapshot this builder began with.
    ///
    /// One that is equal to what was there stays what it was, shared by all that have it.
    pub fn insert(&mut self, resource: Resource) -> &mut Self {
        self.mistakes.extend(naming_mistake(&resource));
        self.mark(resource.type_url(), resource.shared_name());
        let resources = self.snapshot.types.entry(resource.type_url().clone()).or_default();
        let found = resources.get(resource.name());
        if found == Some(&resource) {
            return self;
        }
        let other = |found: Option<&Resource>| found.is_some_and(|one| one.name() != resource.name());
        let own_name = Some(resource.shared_name()).filter(|_| other(found));
        let alias = || resource.aliases().iter().find(|alias| other(resources.get(alias)));
        if let Some(name) = own_name.or_else(alias) {
            let (type_url, name) = (resource.type_url().clone(), Arc::clone(name));
            self.mistakes.push(Mistake::Duplicate { type_url, name });
            return self;
        }
        let old = resources.insert(&resource);
        self.count(old.as_ref(), Some(&resource));
        self
    }

    /// Takes a resource out.
    pub fn remove(&mut self, type_url: &TypeUrl, name: &str) -> &mut Self {
        let resources = self.snapshot.types.get_mut(type_url);
        if let Some(old) = resources.and_then(|resources| resources.remove(name)) {
            self.touched.entry(type_url.clone()).or_default().insert(Arc::clone(old.shared_name()), ());
            self.count(Some(&old), None);
        }
        self
    }

    /// Takes out whatever was in the snapshot this builder began with and has not been inserted again. For owners that
    /// say everything each time, and want to share what is the same.
    pub fn remove_the_rest(&mut self) -> &mut Self {
        let untouched: Vec<_> = self
            .snapshot
            .iter()
            .filter(|(url, one)| self.touched.get(url).is_none_or(|names| names.get(one.name()).is_none()))
            .map(|(type_url, resource)| (type_url.clone(), Arc::clone(resource.shared_name())))
            .collect();
        for (type_url, name) in untouched {
            self.remove(&type_url, &name);
        }
        self
    }

    /// Says why there is no resource of this name, instead of a resource.
    pub fn fail(&mut self, type_url: TypeUrl, name: impl Into<Arc<str>>, failure: Failure) -> &mut Self {
        let name = name.into();
        self.mark(&type_url, &name);
        let old = self.snapshot.types.entry(type_url).or_default().fail(name, failure);
        self.count(old.as_ref(), None);
        self
    }

    /// Says that clients get this resource from elsewhere, such as their bootstrap: it may be referred to.
    pub fn external(&mut self, type_url: TypeUrl, name: impl Into<Arc<str>>) -> &mut Self {
        Arc::make_mut(&mut self.snapshot.external).insert((type_url, name.into()));
        self
    }

    /// Finishes the snapshot and leaves the builder empty.
    ///
    /// # Errors
    /// All mistakes of all insertions, and every [reference](Reference) that leads nowhere.
    pub fn build(&mut self, revision: Revision) -> Result<Snapshot, SnapshotError> {
        let Self { mut snapshot, touched, mut mistakes } =
            std::mem::replace(self, Self::new(Snapshot::default()));
        snapshot.revision = revision;
        mistakes.extend(dangling(&snapshot, &touched));
        if mistakes.is_empty() { Ok(snapshot) } else { Err(SnapshotError { mistakes }) }
    }

    fn mark(&mut self, type_url: &TypeUrl, name: &Arc<str>) {
        if self.touched.entry(type_url.clone()).or_default().insert(Arc::clone(name), ()).is_some() {
            let (type_url, name) = (type_url.clone(), Arc::clone(name));
            self.mistakes.push(Mistake::Duplicate { type_url, name });
        }
    }

    /// Keeps the count of what is needed.
    fn count(&mut self, old: Option<&Resource>, new: Option<&Resource>) {
        for reference in required(old) {
            let needed = self.snapshot.needed.entry(reference.type_url.clone()).or_default();
            match needed.get(&reference.name).copied().unwrap_or_default() {
                0 | 1 => _ = needed.remove(&reference.name),
                count => _ = needed.insert(Arc::clone(&reference.name), count - 1),
            }
        }
        for reference in required(new) {
            let needed = self.snapshot.needed.entry(reference.type_url.clone()).or_default();
            let count = needed.get(&reference.name).copied().unwrap_or_default();
            needed.insert(Arc::clone(&reference.name), count + 1);
        }
    }
}

fn required(resource: Option<&Resource>) -> impl Iterator<Item = &Reference> {
    resource.into_iter().flat_map(Resource::references).filter(|reference| reference.required)
}

/// The references that lead nowhere. Only what was touched can have broken one.
fn dangling(snapshot: &Snapshot, touched: &BTreeMap<TypeUrl, Chunks<()>>) -> Vec<Mistake> {
    let (mut found, mut there) = (Vec::new(), There::new(snapshot));
    for (type_url, names) in touched {
        let mut resources = snapshot.types.get(type_url).map(Resources::finder);
        for (name, ()) in names.iter() {
            match resources.as_mut().and_then(|resources| resources.get(name)) {
                Some(resource) => found.extend(leads_nowhere(&mut there, resource)),
                None if is_needed(snapshot, type_url, name) && !there.has(type_url, name) => {
                    return all_dangling(snapshot);
                }
                None => {}
            }
        }
    }
    sorted(found)
}

/// The same, with a look at everything: something is gone, and who refers to it is not known.
fn all_dangling(snapshot: &Snapshot) -> Vec<Mistake> {
    let mut there = There::new(snapshot);
    sorted(snapshot.iter().flat_map(|(_, one)| leads_nowhere(&mut there, one)).collect())
}

fn sorted(mut found: Vec<Mistake>) -> Vec<Mistake> {
    found.sort_by_key(ToString::to_string);
    found.dedup();
    found
}

fn leads_nowhere(there: &mut There<'_>, resource: &Resource) -> Vec<Mistake> {
    let lost = required(Some(resource)).filter(|one| !there.has(&one.type_url, &one.name));
    lost.map(|reference| Mistake::Dangling {
        type_url: resource.type_url().clone(),
        name: Arc::clone(resource.shared_name()),
        needed_type: reference.type_url.clone(),
        needed: Arc::clone(&reference.name),
    })
    .collect()
}

fn is_needed(snapshot: &Snapshot, type_url: &TypeUrl, name: &str) -> bool {
    snapshot.needed.get(type_url).is_some_and(|needed| needed.get(name).is_some())
}

/// What can be referred to. Names are often asked for in the order of those that refer to them.
struct There<'a> {
    snapshot: &'a Snapshot,
    finders: BTreeMap<&'a TypeUrl, Finder<'a, Resource>>,
}

impl<'a> There<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let finders = snapshot.types.iter().map(|(type_url, all)| (type_url, all.finder())).collect();
        Self { snapshot, finders }
    }

    fn has(&mut self, type_url: &TypeUrl, name: &Arc<str>) -> bool {
        let found = self.finders.get_mut(type_url).is_some_and(|finder| finder.get(name).is_some());
        let failure = || self.snapshot.types.get(type_url).and_then(|all| all.failure(name));
        let external = || self.snapshot.external.contains(&(type_url.clone(), Arc::clone(name)));
        found || failure().is_some() || external()
    }
}

fn naming_mistake(resource: &Resource) -> Option<Mistake> {
    let named = || (resource.type_url().clone(), Arc::clone(resource.shared_name()));
    if matches!(resource.name(), "" | "*") {
        let (type_url, name) = named();
        return Some(Mistake::ReservedName { type_url, name });
    }
    let inner = inner_name(resource.type_url(), &resource.body()).filter(|inner| inner != resource.name())?;
    let (type_url, name) = named();
    Some(Mistake::NameMismatch { type_url, name, inner })
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

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;

    fn cluster(name: &str) -> Resource {
        Resource::encode(name, &Cluster { name: name.into(), ..Default::default() })
    }

    fn runtime(name: &'static str, body: &'static str) -> Resource {
        Resource::from_bytes(TypeUrl::RUNTIME, name, body.into())
    }

    fn route_to(cluster: &str) -> Resource {
        let needs = Reference::required(TypeUrl::CLUSTER, cluster);
        Resource::from_bytes(TypeUrl::SCOPED_ROUTE, "r", Default::default()).refers_to(needs)
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let mut builder = Snapshot::builder();
        builder.insert(cluster("a")).insert(cluster("a"));
        builder.insert(Resource::encode("b", &Cluster { name: "c".into(), ..Default::default() }));
        builder.insert(runtime("*", "")).insert(route_to("nowhere"));
        let SnapshotError { mistakes } = builder.build(Revision(1)).unwrap_err();
        let dangling = Mistake::Dangling {
            type_url: TypeUrl::SCOPED_ROUTE,
            name: "r".into(),
            needed_type: TypeUrl::CLUSTER,
            needed: "nowhere".into(),
        };
        assert_eq!(
            mistakes,
            [
                Mistake::Duplicate { type_url: TypeUrl::CLUSTER, name: "a".into() },
                Mistake::NameMismatch { type_url: TypeUrl::CLUSTER, name: "b".into(), inner: "c".into() },
                Mistake::ReservedName { type_url: TypeUrl::RUNTIME, name: "*".into() },
                dangling,
            ]
        );
    }

    #[test]
    fn resources_come_by_type_then_by_name() {
        let mut builder = Snapshot::builder();
        let eds = Reference::optional(TypeUrl::ENDPOINT, "b-hosts");
        builder.insert(runtime("r", "")).insert(cluster("b").refers_to(eds)).insert(cluster("a"));
        let snapshot = builder.build(Revision(1)).unwrap();
        assert_eq!(snapshot.iter().map(|(_, resource)| resource.name()).collect::<Vec<_>>(), ["a", "b", "r"]);
        assert_eq!(snapshot.names(&TypeUrl::CLUSTER).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((snapshot.eds_name("a"), snapshot.eds_name("b")), (None, Some("b-hosts")));
    }

    #[test]
    fn what_is_still_referred_to_cannot_be_removed() {
        let first =
            Snapshot::builder().insert(cluster("a")).insert(route_to("a")).build(Revision(1)).unwrap();
        let error = first.edit().remove(&TypeUrl::CLUSTER, "a").build(Revision(2)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the resources do not make a snapshot: \
             type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration \"r\" refers to \
             type.googleapis.com/envoy.config.cluster.v3.Cluster \"a\", which does not exist"
        );
        let mut both = first.edit();
        both.remove(&TypeUrl::CLUSTER, "a").insert(cluster("b")).insert(route_to("b"));
        assert!(both.build(Revision(2)).is_ok());
        let mut bootstrap = first.edit();
        bootstrap.remove(&TypeUrl::CLUSTER, "a").external(TypeUrl::CLUSTER, "a");
        let bootstrap = bootstrap.build(Revision(2)).unwrap();
        assert!(bootstrap.edit().insert(route_to("a")).build(Revision(3)).is_ok(), "it stays external");
    }

    #[test]
    fn an_edit_changes_the_version_of_what_it_changes_and_of_nothing_else() {
        let first =
            Snapshot::builder().insert(cluster("a")).insert(runtime("r", "1")).build(Revision(1)).unwrap();
        let second = first.edit().insert(runtime("r", "2")).build(Revision(2)).unwrap();
        assert_eq!(first.version(&TypeUrl::CLUSTER), second.version(&TypeUrl::CLUSTER));
        assert_ne!(first.version(&TypeUrl::RUNTIME), second.version(&TypeUrl::RUNTIME));
        let third = second.edit().insert(runtime("r", "1")).build(Revision(3)).unwrap();
        assert_eq!(first.version(&TypeUrl::RUNTIME), third.version(&TypeUrl::RUNTIME));
    }

    #[test]
    fn whoever_says_everything_again_shares_what_is_the_same() {
        let first = Snapshot::builder().insert(cluster("a")).insert(cluster("b")).build(Revision(1)).unwrap();
        let second = first.edit().insert(cluster("a")).remove_the_rest().build(Revision(2)).unwrap();
        assert_eq!(second.names(&TypeUrl::CLUSTER).collect::<Vec<_>>(), ["a"]);
        let address = |snapshot: &Snapshot| snapshot.get(&TypeUrl::CLUSTER, "a").unwrap().body().as_ptr();
        assert_eq!(address(&first), address(&second));
    }

    #[test]
    fn a_virtual_host_is_found_by_its_aliases_and_counted_once() {
        let host = |aliases: [&'static str; 2]| {
            Resource::from_bytes(TypeUrl::VIRTUAL_HOST, "r/v", Default::default()).with_aliases(aliases)
        };
        let first = Snapshot::builder().insert(host(["r/a", "r/b"])).build(Revision(1)).unwrap();
        assert_eq!(first.get(&TypeUrl::VIRTUAL_HOST, "r/b").map(Resource::name), Some("r/v"));
        assert_eq!(first.names(&TypeUrl::VIRTUAL_HOST).collect::<Vec<_>>(), ["r/v"]);
        let second = first.edit().insert(host(["r/a", "r/c"])).build(Revision(2)).unwrap();
        assert!(second.get(&TypeUrl::VIRTUAL_HOST, "r/b").is_none());
        assert!(second.get(&TypeUrl::VIRTUAL_HOST, "r/c").is_some());
    }
}
