//! Writing the protobuf wire format by hand, as far as responses need it
//! (<https://protobuf.dev/programming-guides/encoding/>).
//!
//! A response is written around bytes that are encoded already. An encoder of whole messages would copy all of them.

use prost::encoding::{encode_varint, encoded_len_varint};

/// Writes the field `number` with `length` bytes of payload to follow.
pub(crate) fn open(out: &mut Vec<u8>, number: u8, length: usize) {
    out.push(number << 3 | 2);
    encode_varint(length as u64, out);
}

/// Writes a field of bytes, a text or a message. Nothing, the default of the field, is left out.
pub(crate) fn put(out: &mut Vec<u8>, number: u8, payload: &[u8]) {
    if !payload.is_empty() {
        open(out, number, payload.len());
        out.extend_from_slice(payload);
    }
}

/// How long a field with `length` bytes of payload is.
pub(crate) fn field_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// How long [`put`] makes a field.
pub(crate) fn put_len(length: usize) -> usize {
    if length == 0 { 0 } else { field_len(length) }
}
