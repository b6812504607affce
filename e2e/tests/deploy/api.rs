//! The types of the Kubernetes API, as its own description has them.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What the API does not know of an object, or does not take: it drops unknown fields without a word, and with them perhaps a
/// privilege that was to be taken away.
pub(crate) fn stray(object: &Value) -> Option<String> {
    let kept = match (object["apiVersion"].as_str()?, object["kind"].as_str()?) {
        ("v1", "Namespace") => kept::<Namespace>(object),
        ("v1", "ServiceAccount") => kept::<ServiceAccount>(object),
        ("v1", "ConfigMap") => kept::<ConfigMap>(object),
        ("v1", "Pod") => kept::<Pod>(object),
        ("v1", "Service") => kept::<Service>(object),
        ("apps/v1", "DaemonSet") => kept::<DaemonSet>(object),
        ("apps/v1", "Deployment") => kept::<Deployment>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => kept::<ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => kept::<ClusterRoleBinding>(object),
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy") => {
            kept::<ValidatingAdmissionPolicy>(object)
        }
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding") => {
            kept::<ValidatingAdmissionPolicyBinding>(object)
        }
        other => Err(format!("{other:?} is a kind that this test does not know")),
    };
    match kept {
        Err(wrong) => Some(wrong),
        Ok(kept) => first_difference(object, &kept, String::new()),
    }
}

fn kept<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, String> {
    let typed: T = serde_json::from_value(object.clone()).map_err(|error| format!("{error} in {object}"))?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

fn first_difference(written: &Value, kept: &Value, place: String) -> Option<String> {
    match (written, kept) {
        (Value::Object(written), Value::Object(kept)) => written.iter().find_map(|(name, value)| {
            let place = format!("{place}.{name}");
            kept.get(name).map_or(Some(format!("{place} is unknown")), |kept| {
                first_difference(value, kept, place.clone())
            })
        }),
        (Value::Array(written), Value::Array(kept)) if written.len() == kept.len() => {
            let pairs = written.iter().zip(kept).enumerate();
            pairs
                .map(|(index, (written, kept))| first_difference(written, kept, format!("{place}[{index}]")))
                .find_map(|found| found)
        }
        _ => (written != kept).then(|| format!("{place} is {written}, and is read as {kept}")),
    }
}
