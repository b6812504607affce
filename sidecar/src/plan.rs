//! What a change of the files would change in Envoy: resource by resource and field by field, in the order in which a
//! publication goes, and which connections would drain.
//!
//! What Envoy 1.40 does to connections was measured, and depends on the type alone; [`Effect`] has the rules.

mod difference;
pub mod running;

use std::collections::BTreeMap;

use serde_json::Value;

pub use difference::Difference;

use crate::diagnostic::Origin;
use crate::translate::json::Shown;

/// Resources by type and name.
pub type Inventory = BTreeMap<(String, String), Item>;

/// A resource that is being compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// As JSON with the names of Envoy's documentation.
    pub value: Value,
    /// The document it comes from, where that is known.
    pub origin: Option<Origin>,
}

/// A resource that would change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its type, in the plural.
    pub of_type: String,
    /// Its name.
    pub name: String,
    /// The document it comes from, or came from.
    pub origin: Option<Origin>,
    /// How it would change.
    pub how: How,
    /// What that does to connections.
    pub effect: Effect,
}

/// How a resource would change.
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    /// It is new.
    Added,
    /// It is another one in these fields.
    Changed(Vec<Difference>),
    /// It goes.
    Removed,
}

/// What a change does to connections and requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// New: nobody is affected.
    New,
    /// It is in force at once, on every connection.
    AtOnce,
    /// It counts from the next handshake.
    NextHandshake,
    /// Endpoints that go get no new requests; those under way are finished.
    EndpointsGo,
    /// The cluster is made anew beside the old one and takes over when it is warm; connections of the old one drain.
    NewPools,
    /// The listener stays; connections of the filter chains that change go on by the old ones until they are drained.
    ChainsDrain,
    /// The listener is made anew; all its connections go on by the old one until they are drained.
    ListenerDrains,
}

/// The fields of a listener in which a change leaves the listener itself in place (`ListenerImpl`, filter chain only
/// update).
const IN_PLACE: &[&str] = &["filter_chains", "default_filter_chain", "filter_chain_matcher"];

/// What is translated, as something to compare.
pub fn inventory(resources: Vec<Shown>) -> Inventory {
    let item = |shown: Shown| {
        let origin = shown.parts.first().map(|part| part.origin.clone());
        ((shown.of_type.to_owned(), shown.name), Item { value: shown.value, origin })
    };
    resources.into_iter().map(item).collect()
}

/// What would change from `before` to `after`: what is added and changed, clusters first and routes last, as a publication goes;
/// then what is removed, the other way round.
pub fn plan(before: &Inventory, after: &Inventory) -> Vec<Change> {
    let mut changes: Vec<Change> =
        after.iter().filter_map(|(key, item)| came(key, before.get(key), item)).collect();
    changes.extend(before.iter().filter(|(key, _)| !after.contains_key(*key)).map(|(key, item)| Change {
        of_type: key.0.clone(),
        name: key.1.clone(),
        origin: item.origin.clone(),
        how: How::Removed,
        effect: effect(&key.0, None),
    }));
    changes.sort_by_key(turn);
    changes
}

fn came(key: &(String, String), before: Option<&Item>, now: &Item) -> Option<Change> {
    let (of_type, name) = key.clone();
    let change =
        |how, effect| Change { of_type: key.0.clone(), name, origin: now.origin.clone(), how, effect };
    let Some(before) = before else { return Some(change(How::Added, Effect::New)) };
    let differences = difference::between(&before.value, &now.value);
    let effect = effect(&of_type, Some(&differences));
    (!differences.is_empty()).then(|| change(How::Changed(differences), effect))
}

/// Of a removal, or of a change in these fields.
fn effect(of_type: &str, changed: Option<&[Difference]>) -> Effect {
    match of_type {
        "clusters" => Effect::NewPools,
        "endpoints" => Effect::EndpointsGo,
        "secrets" => Effect::NextHandshake,
        "listeners" => {
            let in_place = |difference: &Difference| {
                let field = difference.path.split(['.', '[']).next().unwrap_or_default();
                IN_PLACE.contains(&field)
            };
            match changed {
                Some(differences) if differences.iter().all(in_place) => Effect::ChainsDrain,
                _ => Effect::ListenerDrains,
            }
        }
        _ => Effect::AtOnce,
    }
}

fn turn(change: &Change) -> (bool, i32) {
    let place = match change.of_type.as_str() {
        "clusters" => 0,
        "endpoints" => 1,
        "secrets" => 2,
        "listeners" => 3,
        _ => 4,
    };
    let removed = change.how == How::Removed;
    (removed, if removed { -place } else { place })
}

impl Effect {
    /// Whether connections would drain.
    pub fn drains(self) -> bool {
        matches!(self, Self::NewPools | Self::ChainsDrain | Self::ListenerDrains)
    }

    /// One sentence.
    pub fn described(self) -> &'static str {
        match self {
            Self::New => "new; nobody is affected",
            Self::AtOnce => "in force at once, on every connection",
            Self::NextHandshake => "counts from the next handshake",
            Self::EndpointsGo => "in force at once; requests under way to endpoints that go are finished",
            Self::NewPools => "connections to its endpoints drain; new ones are opened once it is warm",
            Self::ChainsDrain => {
                "connections of the changed filter chains keep the old ones until they are drained"
            }
            Self::ListenerDrains => "all its connections keep the old listener until they are drained",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(of_type: &str, value: Value) -> Inventory {
        BTreeMap::from([((of_type.to_owned(), "x".to_owned()), Item { value, origin: None })])
    }

    fn effect_of(of_type: &str, before: Value, after: Value) -> Effect {
        plan(&one(of_type, before), &one(of_type, after))[0].effect
    }

    #[test]
    fn what_drains_depends_on_the_type_and_for_listeners_on_the_field() {
        let (a, b) = (json!({ "a": 1 }), json!({ "a": 2 }));
        assert_eq!(effect_of("routes", a.clone(), b.clone()), Effect::AtOnce);
        assert_eq!(effect_of("clusters", a.clone(), b.clone()), Effect::NewPools);
        assert_eq!(effect_of("endpoints", a.clone(), b.clone()), Effect::EndpointsGo);
        assert_eq!(effect_of("listeners", a.clone(), b), Effect::ListenerDrains);
        let chain = |name: &str| json!({ "a": 1, "filter_chains": [{ "name": name }] });
        assert_eq!(effect_of("listeners", chain("x"), chain("y")), Effect::ChainsDrain);
        assert_eq!(plan(&one("routes", a.clone()), &one("routes", a)), []);
    }

    #[test]
    fn what_is_added_comes_from_the_clusters_up_and_what_goes_the_other_way() {
        let all = |name: &str| -> Inventory {
            let types = ["routes", "listeners", "clusters", "endpoints"];
            let item = || Item { value: json!({}), origin: None };
            types.iter().map(|of_type| (((*of_type).to_owned(), name.to_owned()), item())).collect()
        };
        let changes = plan(&all("old"), &all("new"));
        let order: Vec<&str> = changes.iter().map(|change| change.of_type.as_str()).collect();
        assert_eq!(
            order,
            ["clusters", "endpoints", "listeners", "routes", "routes", "listeners", "endpoints", "clusters"]
        );
        assert!(changes[..4].iter().all(|change| change.how == How::Added && !change.effect.drains()));
    }
}
