//! An Envoy that asks nobody: everything it would ask the sidecar for stands in its bootstrap, route configurations in their
//! listeners, endpoints in their clusters, secrets beside them. `--mode validate` looks at nothing else.

use serde_json::{Map, Value, json};

/// `bootstrap` with all of `resources` in it: the lists by type that `weft-sidecar translate --output json` prints, with
/// either names of fields.
pub fn self_contained(mut bootstrap: Value, resources: &Value) -> Value {
    let mut listeners = resources.get("listeners").cloned().unwrap_or_default();
    settle(&mut listeners, resources);
    let own = bootstrap.pointer("/static_resources/clusters").and_then(Value::as_array);
    let mut clusters = own.cloned().unwrap_or_default();
    clusters.extend(list(resources, "clusters").iter().map(|cluster| settled(cluster, resources)));
    let all = json!({ "listeners": listeners, "clusters": clusters, "secrets": list(resources, "secrets") });
    if let Some(fields) = bootstrap.as_object_mut() {
        fields.insert("static_resources".into(), all);
    }
    bootstrap
}

/// A cluster with its endpoints in it.
fn settled(cluster: &Value, resources: &Value) -> Value {
    let mut cluster = cluster.clone();
    settle(&mut cluster, resources);
    if let Some(fields) = cluster.as_object_mut().filter(|fields| fields.get("type") == Some(&json!("EDS"))) {
        take(fields, "eds_cluster_config");
        fields.insert("type".into(), json!("STATIC"));
        let name = fields.get("name").cloned().unwrap_or_default();
        fields.insert("load_assignment".into(), named(resources, "endpoints", "cluster_name", &name));
    }
    cluster
}

/// Puts in what is otherwise asked for: route configurations by `rds`, secrets by a name of their own.
fn settle(value: &mut Value, resources: &Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| settle(item, resources)),
        Value::Object(fields) => {
            settle_routes(fields, resources);
            take(fields, "sds_config");
            fields.values_mut().for_each(|field| settle(field, resources));
        }
        _ => {}
    }
}

/// A static route configuration may name only clusters that exist; one that is asked for may name any.
fn settle_routes(fields: &mut Map<String, Value>, resources: &Value) {
    if let Some(mut rds) = fields.remove("rds") {
        let name = rds.as_object_mut().and_then(|rds| take(rds, "route_config_name")).unwrap_or_default();
        let mut routes = named(resources, "routes", "name", &name);
        if let Some(routes) = routes.as_object_mut() {
            routes.insert("validate_clusters".into(), json!(false));
        }
        fields.insert("route_config".into(), routes);
    }
}

fn named(resources: &Value, of_type: &str, field: &str, name: &Value) -> Value {
    let is_it = |one: &&Value| one.as_object().and_then(|one| get(one, field)) == Some(name);
    list(resources, of_type).iter().find(is_it).cloned().unwrap_or_else(|| json!({ field: name }))
}

fn list<'r>(resources: &'r Value, of_type: &str) -> &'r [Value] {
    resources.get(of_type).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn get<'f>(fields: &'f Map<String, Value>, name: &str) -> Option<&'f Value> {
    fields.get(name).or_else(|| fields.get(&camel_case(name)))
}

fn take(fields: &mut Map<String, Value>, name: &str) -> Option<Value> {
    fields.remove(name).or_else(|| fields.remove(&camel_case(name)))
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let mut letters = word.chars();
        name + &letters
            .next()
            .map(|letter| letter.to_ascii_uppercase())
            .into_iter()
            .chain(letters)
            .collect::<String>()
    })
}
