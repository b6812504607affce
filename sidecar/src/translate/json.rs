//! Envoy messages as JSON, as Envoy itself reads and writes them.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use thiserror::Error;

use super::{Resources, Sourced};

/// The descriptors of every message that is emitted. Made from the `.proto` files of `envoy-types` and held equal to
/// them by a test (`tests/descriptors.rs`).
const DESCRIPTORS: &[u8] = include_bytes!("envoy.binpb");

static POOL: LazyLock<Result<DescriptorPool, prost_reflect::DescriptorError>> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS));

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

/// All resources, by type, each as a list.
pub fn resources(resources: &Resources) -> Result<Value, Error> {
    Ok(json!({
        "listeners": all(&resources.listeners)?,
        "routes": all(&resources.routes)?,
        "clusters": all(&resources.clusters)?,
        "endpoints": all(&resources.endpoints)?,
    }))
}

/// One message.
pub fn message<M: Message + Name>(message: &M) -> Result<Value, Error> {
    let name = M::full_name();
    let dynamic = dynamic(message)?;
    serde_json::to_value(dynamic).map_err(|source| Error::Json { message: name, source })
}

/// One message, to be walked through by its descriptor.
pub fn dynamic<M: Message + Name>(message: &M) -> Result<DynamicMessage, Error> {
    let name = M::full_name();
    let pool = POOL.as_ref().map_err(Error::Descriptors)?;
    let descriptor = pool.get_message_by_name(&name).ok_or_else(|| Error::Unknown(name.clone()))?;
    DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .map_err(|source| Error::Mismatch { message: name, source })
}

fn all<M: Message + Name>(of_type: &[Sourced<M>]) -> Result<Vec<Value>, Error> {
    of_type.iter().map(|resource| message(&resource.message)).collect()
}
