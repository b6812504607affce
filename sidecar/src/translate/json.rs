//! Envoy messages as JSON, as Envoy itself reads and writes them.

use prost::{Message, Name};
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::{Part, Resources, Sourced};
use crate::descriptors;

/// A message cannot be shown as JSON.
#[derive(Debug, Error)]
pub enum Error {
    /// The descriptors do not fit together.
    #[error("the descriptors of Envoy's messages are damaged")]
    Descriptors(#[source] &'static prost_reflect::DescriptorError),
    /// There is no descriptor for the message.
    #[error("there is no descriptor for {0}")]
    Unknown(String),
    /// The descriptor is not that of the message.
    #[error("the descriptor of {message} does not fit")]
    Mismatch {
        /// The message.
        message: String,
        /// How it shows.
        source: prost::DecodeError,
    },
    /// A part of the message cannot be shown.
    #[error("{message} cannot be shown as JSON")]
    Json {
        /// The message.
        message: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// The names of fields, both of which Envoy reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// `connectTimeout`, as JSON has it.
    Json,
    /// `connect_timeout`, as Envoy's documentation and its `/config_dump` have it.
    Proto,
}

/// A resource of any type, to be shown.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its type, in the plural: one of [`TYPES`].
    pub of_type: &'static str,
    /// The name under which Envoy asks for it.
    pub name: String,
    /// What Envoy gets.
    pub value: Value,
    /// What it was made from.
    pub parts: Vec<Part>,
}

/// What is shown instead of a private key.
pub const REDACTED: &str = "(not shown)";

/// What [`each`] calls the types of resources, in its order.
pub const TYPES: &[&str] = &["listeners", "routes", "clusters", "endpoints", "secrets"];

/// All resources, by type, each as a list.
pub fn resources(resources: &Resources) -> Result<Value, Error> {
    let mut by_type: Map<String, Value> =
        TYPES.iter().map(|of| ((*of).to_owned(), Vec::<Value>::new().into())).collect();
    for shown in each(resources, Names::Json)? {
        if let Some(Value::Array(list)) = by_type.get_mut(shown.of_type) {
            list.push(shown.value);
        }
    }
    Ok(Value::Object(by_type))
}

/// All resources, one after the other: by type, then by name.
pub fn each(resources: &Resources, names: Names) -> Result<Vec<Shown>, Error> {
    let mut all = of_type("listeners", &resources.listeners, names)?;
    all.extend(of_type("routes", &resources.routes, names)?);
    all.extend(of_type("clusters", &resources.clusters, names)?);
    all.extend(of_type("endpoints", &resources.endpoints, names)?);
    let mut secrets = of_type("secrets", &resources.secrets, names)?;
    secrets.iter_mut().for_each(|secret| redact(&mut secret.value));
    all.extend(secrets);
    Ok(all)
}

/// Takes out what is secret: the private key of a certificate.
fn redact(secret: &mut Value) {
    let places =
        [("/tlsCertificate/privateKey", "inlineString"), ("/tls_certificate/private_key", "inline_string")];
    for (place, name) in places {
        if let Some(key) = secret.pointer_mut(place) {
            *key = json!({ name: REDACTED });
        }
    }
}

/// One message.
pub fn message<M: Message + Name>(message: &M, names: Names) -> Result<Value, Error> {
    let options = SerializeOptions::new().use_proto_field_name(names == Names::Proto);
    dynamic(message)?
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|source| Error::Json { message: M::full_name(), source })
}

/// JSON of a message, of whatever source, in the form that [`message`] gives it with Envoy's names.
pub fn normalized(message: &str, value: Value) -> Result<Value, Error> {
    let pool = descriptors::pool().map_err(Error::Descriptors)?;
    let descriptor = pool.get_message_by_name(message).ok_or_else(|| Error::Unknown(message.to_owned()))?;
    let failed = |source| Error::Json { message: message.to_owned(), source };
    let options = SerializeOptions::new().use_proto_field_name(true);
    DynamicMessage::deserialize(descriptor, value)
        .and_then(|dynamic| dynamic.serialize_with_options(serde_json::value::Serializer, &options))
        .map_err(failed)
}

/// One message, to be walked through by its descriptor.
pub fn dynamic<M: Message + Name>(message: &M) -> Result<DynamicMessage, Error> {
    let name = M::full_name();
    let pool = descriptors::pool().map_err(Error::Descriptors)?;
    let descriptor = pool.get_message_by_name(&name).ok_or_else(|| Error::Unknown(name.clone()))?;
    DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .map_err(|source| Error::Mismatch { message: name, source })
}

fn of_type<M: Message + Name>(
    of_type: &'static str,
    resources: &[Sourced<M>],
    names: Names,
) -> Result<Vec<Shown>, Error> {
    let shown = resources.iter().map(|resource| {
        let value = message(&resource.message, names)?;
        Ok(Shown { of_type, name: resource.name.clone(), value, parts: resource.parts.clone() })
    });
    shown.collect()
}
