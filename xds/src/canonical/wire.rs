//! The protobuf wire format, as far as finding fields needs it
//! (<https://protobuf.dev/programming-guides/encoding/>).

use std::ops::Range;

/// Where a field is in the bytes of its message.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    /// From the beginning of its tag to the end of its payload.
    pub(super) length: usize,
    payload: Range<usize>,
}

impl Field {
    /// The field that `bytes` begins with. `None` at the end, and where there is no field.
    pub(super) fn first(bytes: &[u8]) -> Option<Self> {
        let (tag, start) = varint(bytes)?;
        let number = u32::try_from(tag >> 3).ok()?;
        let after_tag = bytes.get(start..)?;
        let payload = match tag & 7 {
            0 => start..start + varint(after_tag)?.1,
            1 => start..start + 8,
            2 => {
                let (size, width) = varint(after_tag)?;
                let start = start + width;
                start..start.checked_add(usize::try_from(size).ok()?)?
            }
            5 => start..start + 4,
            // Groups are not used by proto3.
            _ => return None,
        };
        (payload.end <= bytes.len()).then_some(Self { number, length: payload.end, payload })
    }

    /// The first field of this number.
    pub(super) fn numbered(bytes: &[u8], number: u32) -> Option<Self> {
        let mut start = 0;
        loop {
            let Self { number: found, length, payload } = Self::first(bytes.get(start..)?)?;
            if found == number {
                let payload = payload.start + start..payload.end + start;
                return Some(Self { number, length: length + start, payload });
            }
            start += length;
        }
    }

    /// What the field holds, out of the bytes it was found in.
    pub(super) fn payload<'a>(&self, bytes: &'a mut [u8]) -> &'a mut [u8] {
        bytes.get_mut(self.payload.clone()).unwrap_or_default()
    }
}

/// A number, and how many bytes it takes.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, place + 1));
        }
    }
    None
}
