//! `EnvoyPatch`es, applied to what was made of everything else: in the order of their documents, the last word.

use prost::{Message, Name};
use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde_json::{Map, Value};

use super::{Part, Resources, Sourced, json};
use crate::descriptors;
use crate::diagnostic::Diagnostic;
use crate::model::envoy_patch::{How, Kind};
use crate::model::{Mesh, Patch, Proxy};

/// A resource that was merged into has this among its parts' texts, so that a rejection is the patch's.
const ANYTHING: &str = "";

/// Merges into the resources what the patches have for them.
pub(super) fn merge<M: Message + Name + Default>(
    patches: &[Patch],
    kind: Kind,
    resources: &mut [Sourced<M>],
) {
    for patch in of(patches, kind, How::Merge) {
        for resource in resources.iter_mut().filter(|resource| resource.name == patch.change.name) {
            // What cannot be merged is reported by `mistakes`, so that it never comes here.
            if let Ok(message) = merged(&resource.message, &patch.change.value) {
                resource.message = message;
                resource.parts.push(part(patch));
            }
        }
    }
}

/// The resources that the patches add.
pub(super) fn added<M: Message + Name + Default>(patches: &[Patch], kind: Kind) -> Vec<Sourced<M>> {
    let read = |patch: &Patch| {
        let message = message(patch.change.value.clone()).ok()?;
        Some(Sourced { name: patch.change.name.clone(), message, parts: vec![part(patch)] })
    };
    of(patches, kind, How::Add).filter_map(read).collect()
}

/// What is wrong with the patches, seen together with what they are applied to.
pub fn mistakes(mesh: &Mesh) -> Vec<Diagnostic> {
    let Mesh { proxy, services } = mesh;
    if proxy.patches.is_empty() {
        return Vec::new();
    }
    let unpatched = Proxy { patches: Vec::new(), ..Proxy::clone(proxy) };
    let without = super::translate(&Mesh { proxy: unpatched.into(), services: services.clone() });
    let found = proxy.patches.iter().enumerate().filter_map(|(at, patch)| {
        let before = proxy.patches.get(..at).unwrap_or_default();
        mistake(&without, before, patch).map(|mistake| mistake.at(&patch.origin))
    });
    found.collect()
}

fn mistake(generated: &Resources, before: &[Patch], patch: &Patch) -> Option<Diagnostic> {
    match patch.change.kind {
        Kind::Listener => of_kind(&generated.listeners, before, patch),
        Kind::Cluster => of_kind(&generated.clusters, before, patch),
        Kind::ClusterLoadAssignment => of_kind(&generated.endpoints, before, patch),
        Kind::RouteConfiguration => of_kind(&generated.routes, before, patch),
        Kind::VirtualHost => {
            let routes = generated.routes.iter().find(|routes| routes.name == super::OUTBOUND)?;
            let hosts = routes.message.virtual_hosts.iter();
            let hosts: Vec<_> = hosts
                .map(|host| Sourced { name: host.name.clone(), message: host.clone(), parts: Vec::new() })
                .collect();
            of_kind(&hosts, before, patch)
        }
    }
}

fn of_kind<M: Message + Name + Default + Clone>(
    generated: &[Sourced<M>],
    before: &[Patch],
    patch: &Patch,
) -> Option<Diagnostic> {
    let change = &patch.change;
    let known = generated.iter().find(|resource| resource.name == change.name);
    let earlier = of(before, change.kind, How::Add).find(|other| other.change.name == change.name);
    match (change.how, known, earlier) {
        (How::Add, Some(_), _) => Some(
            Diagnostic::error(format!("there is a {} {:?} already", change.kind, change.name))
                .help("merge into it, or give this one another name"),
        ),
        (How::Add, None, Some(earlier)) => Some(
            Diagnostic::error(format!("the {} {:?} is added twice", change.kind, change.name))
                .help(format!("the first is at {}", earlier.origin)),
        ),
        (How::Add, None, None) => message::<M>(change.value.clone()).err().map(|why| misfit(patch, &why)),
        (How::Merge, Some(resource), _) => {
            merged(&resource.message, &change.value).err().map(|why| misfit(patch, &why))
        }
        (How::Merge, None, _) => {
            let names = generated.iter().map(|resource| resource.name.as_str());
            let mistake = Diagnostic::error(format!("no {} {:?} is generated", change.kind, change.name))
                .leading_nowhere();
            Some(mistake.nearest(&change.name, names))
        }
    }
}

fn misfit(patch: &Patch, why: &str) -> Diagnostic {
    Diagnostic::error(format!("this does not make a {}: {why}", patch.change.kind))
}

fn of(patches: &[Patch], kind: Kind, how: How) -> impl Iterator<Item = &Patch> {
    patches.iter().filter(move |patch| patch.change.kind == kind && patch.change.how == how)
}

fn part(patch: &Patch) -> Part {
    Part { origin: patch.origin.clone(), mentions: vec![ANYTHING.into()] }
}

fn merged<M: Message + Name + Default>(message_of: &M, patch: &Value) -> Result<M, String> {
    let mut value = json::message(message_of, json::Names::Json).map_err(|error| error.to_string())?;
    let descriptor = descriptor(&M::full_name());
    into(&mut value, patch, descriptor.as_ref());
    message(value)
}

fn message<M: Message + Name + Default>(value: Value) -> Result<M, String> {
    let descriptor = descriptor(&M::full_name()).ok_or("nothing is known of it")?;
    let dynamic = DynamicMessage::deserialize(descriptor, value).map_err(|error| error.to_string())?;
    M::decode(dynamic.encode_to_vec().as_slice()).map_err(|error| error.to_string())
}

fn descriptor(name: &str) -> Option<MessageDescriptor> {
    descriptors::pool().ok()?.get_message_by_name(name)
}

/// RFC 7396: fields are merged, null removes one, a list stands in for the other. Of fields that exclude each other the
/// patch's stays; a message of another `@type` stands in for the other.
fn into(target: &mut Value, patch: &Value, of: Option<&MessageDescriptor>) {
    let (Value::Object(target), Value::Object(patch)) = (&mut *target, patch) else {
        target.clone_from(patch);
        return;
    };
    let kind = patch.get("@type").and_then(Value::as_str);
    if kind.is_some() && target.get("@type").and_then(Value::as_str) != kind {
        target.clear();
    }
    let any = kind.and_then(|kind| descriptor(kind.rsplit('/').next().unwrap_or_default()));
    let of = any.as_ref().or(of);
    for (key, value) in patch {
        exclude(target, key, of);
        if value.is_null() {
            target.remove(key);
            continue;
        }
        let inner = of.and_then(|of| of.get_field_by_json_name(key)).and_then(|field| match field.kind() {
            prost_reflect::Kind::Message(inner) if field.is_map() => {
                inner.map_entry_value_field().kind().as_message().cloned()
            }
            prost_reflect::Kind::Message(inner) => Some(inner),
            _ => None,
        });
        into(target.entry(key.clone()).or_insert_with(|| Value::Object(Map::new())), value, inner.as_ref());
    }
}

/// Removes what cannot stand beside the field `key`.
fn exclude(target: &mut Map<String, Value>, key: &str, of: Option<&MessageDescriptor>) {
    let one = of.and_then(|of| of.get_field_by_json_name(key)).and_then(|field| field.containing_oneof());
    let others =
        one.iter().flat_map(|one| one.fields().map(|field| field.json_name().to_owned()).collect::<Vec<_>>());
    for other in others.filter(|other| other != key) {
        target.remove(&other);
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::config::cluster::v3::cluster::ClusterDiscoveryType;
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_merged_removed_and_replaced() {
        let cluster: Cluster = message(json!({
            "name": "a", "type": "EDS", "connectTimeout": "5s", "altStatName": "x",
            "circuitBreakers": {"thresholds": [{"maxRequests": 1}, {"maxRequests": 2}]},
            "metadata": {"filterMetadata": {"a": {"x": "1"}}}
        }))
        .expect("a cluster");
        let patch = json!({
            "connectTimeout": "1s", "altStatName": null,
            "clusterType": {"name": "other"},
            "circuitBreakers": {"thresholds": [{"maxRequests": 3}]},
            "metadata": {"filterMetadata": {"b": {"y": "2"}}}
        });
        let after = merged(&cluster, &patch).expect("it fits");
        assert_eq!(after.name, "a");
        assert_eq!(after.connect_timeout.map(|time| time.seconds), Some(1));
        assert_eq!(after.alt_stat_name, "");
        assert!(
            matches!(after.cluster_discovery_type, Some(ClusterDiscoveryType::ClusterType(_))),
            "not both"
        );
        assert_eq!(after.circuit_breakers.expect("some").thresholds.len(), 1, "a list is replaced");
        assert_eq!(after.metadata.expect("some").filter_metadata.len(), 2, "a mapping is merged");
    }
}
