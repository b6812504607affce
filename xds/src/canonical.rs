//! Equal messages, equal bytes.

use bytes::Bytes;

/// Encodes `message`.
pub fn encode<M: prost::Message + prost::Name>(message: &M) -> Bytes {
    message.encode_to_vec().into()
}
