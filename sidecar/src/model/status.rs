//! How the objects of a configuration stand, in the words of the Gateway API: GatewayConditionType,
//! ListenerConditionType, RouteConditionType, PolicyConditionType and their reasons.
//!
//! All of it follows from the files: `Programmed` says that Envoy is given it, not that Envoy has it.

use serde_json::{Value, json};

use super::ServiceKey;
use super::reference::{ParentKind, ParentRef};

/// An object and its conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectStatus {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace and name.
    pub key: ServiceKey,
    /// What holds for all of it; of a route nothing does.
    pub conditions: Vec<Condition>,
    /// What holds for each listener of a Gateway, or of a route at each of its parents.
    pub parts: Vec<PartStatus>,
}

/// A listener of a Gateway, or a route at one of its parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartStatus {
    /// What it is called among the parts.
    pub name: String,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// How the API shows it, without the conditions.
    shape: Value,
}

/// A condition (meta/v1, Condition).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What it is about.
    pub of_type: &'static str,
    /// Whether it holds.
    pub is_true: bool,
    /// Why, in a word of the API.
    pub reason: &'static str,
    /// Why, for people; empty where the word says it all.
    pub message: String,
}

impl Condition {
    pub(super) fn yes(of_type: &'static str, reason: &'static str) -> Self {
        Self { of_type, is_true: true, reason, message: String::new() }
    }

    pub(super) fn no(of_type: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { of_type, is_true: false, reason, message: message.into() }
    }

    /// Whether it is as everybody would like it to be.
    pub fn is_good(&self) -> bool {
        self.is_true != (self.of_type == "Conflicted") && self.reason != "ListenersNotValid"
    }

    fn json(&self) -> Value {
        let status = if self.is_true { "True" } else { "False" };
        json!({ "type": self.of_type, "status": status, "reason": self.reason, "message": self.message })
    }
}

impl PartStatus {
    pub(super) fn listener(
        name: &str,
        kinds: &[&'static str],
        attached: usize,
        conditions: Vec<Condition>,
    ) -> Self {
        let group = "gateway.networking.k8s.io";
        let kinds: Vec<Value> = kinds.iter().map(|kind| json!({ "group": group, "kind": kind })).collect();
        let shape = json!({ "name": name, "supportedKinds": kinds, "attachedRoutes": attached });
        let routes = if attached == 1 { "route" } else { "routes" };
        Self { name: format!("listener {name}, {attached} {routes}"), conditions, shape }
    }

    pub(super) fn parent(parent: ServiceKey, reference: &ParentRef, conditions: Vec<Condition>) -> Self {
        let (group, kind) = match reference.kind {
            ParentKind::Gateway => ("gateway.networking.k8s.io", "Gateway"),
            ParentKind::Service => ("", "Service"),
        };
        let mut shape = json!({
            "group": group, "kind": kind, "namespace": parent.namespace, "name": parent.name,
        });
        let mut name = format!("at {kind} {parent}");
        if let (Some(fields), Some(section)) = (shape.as_object_mut(), &reference.section_name) {
            fields.insert("sectionName".into(), section.as_str().into());
            name = format!("{name}, {section}");
        }
        if let (Some(fields), Some(port)) = (shape.as_object_mut(), reference.port) {
            fields.insert("port".into(), port.into());
            name = format!("{name}, port {port}");
        }
        Self { name, conditions, shape: json!({ "controllerName": CONTROLLER, "parentRef": shape }) }
    }

    fn json(&self) -> Value {
        let mut shape = self.shape.clone();
        if let Some(fields) = shape.as_object_mut() {
            fields.insert("conditions".into(), all(&self.conditions));
        }
        shape
    }
}

/// Who sets the conditions.
const CONTROLLER: &str = "weft.dev/sidecar";

impl ObjectStatus {
    /// Everything that holds for it and its parts.
    pub fn all_conditions(&self) -> impl Iterator<Item = &Condition> {
        self.conditions.iter().chain(self.parts.iter().flat_map(|part| &part.conditions))
    }

    /// Kind, name and `status` as the API has them.
    pub fn json(&self) -> Value {
        let parts: Vec<Value> = self.parts.iter().map(PartStatus::json).collect();
        let status = match self.kind {
            "Gateway" => json!({ "conditions": all(&self.conditions), "listeners": parts }),
            "BackendTLSPolicy" => json!({ "conditions": all(&self.conditions) }),
            _ => json!({ "parents": parts }),
        };
        let metadata = json!({ "namespace": self.key.namespace, "name": self.key.name });
        json!({ "kind": self.kind, "metadata": metadata, "status": status })
    }

    /// For people: what is as it should be in a line, and the rest with its reason.
    pub fn human(&self) -> String {
        let mut text = format!("{} {}\n", self.kind, self.key);
        push(&mut text, "  ", &self.conditions);
        for part in &self.parts {
            text.push_str(&format!("  {}\n", part.name));
            push(&mut text, "    ", &part.conditions);
        }
        text
    }
}

fn all(conditions: &[Condition]) -> Value {
    conditions.iter().map(Condition::json).collect()
}

fn push(text: &mut String, indent: &str, conditions: &[Condition]) {
    let good: Vec<&str> =
        conditions.iter().filter(|one| one.is_good() && one.is_true).map(|one| one.of_type).collect();
    if !good.is_empty() {
        text.push_str(&format!("{indent}ok  {}\n", good.join(", ")));
    }
    for one in conditions.iter().filter(|one| !one.is_good()) {
        let is = if one.is_true { "" } else { "not " };
        text.push_str(&format!("{indent}!!  {is}{}: {}: {}\n", one.of_type, one.reason, one.message));
    }
}
