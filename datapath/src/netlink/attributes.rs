//! Attributes (`struct nlattr`): what every message of netlink consists of behind its header.

/// Attributes in the order in which they are written, behind a header where they are a message of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes(Vec<u8>);

/// Most messages fit, so that they are written without being moved.
const MOST: usize = 128;

impl Attributes {
    /// None yet, behind `header`.
    pub(crate) fn behind(header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(MOST);
        bytes.extend_from_slice(header);
        Self(bytes)
    }

    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.begin(kind, value.len());
        self.0.extend_from_slice(value);
        self.pad()
    }

    /// A number in the order of the network, as netfilter has them.
    pub(crate) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A number in the order of the machine, as rtnetlink has them.
    pub(crate) fn native(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A text with its final zero.
    pub(crate) fn text(mut self, kind: u16, value: &str) -> Self {
        self.begin(kind, value.len() + 1);
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(0);
        self.pad()
    }

    pub(crate) fn nested(self, kind: u16, inner: Self) -> Self {
        self.nested_bytes(kind, &inner.0)
    }

    /// An attribute of attributes, as they came from the kernel.
    pub(crate) fn nested_bytes(self, kind: u16, inner: &[u8]) -> Self {
        const NLA_F_NESTED: u16 = 0x8000;
        self.bytes(kind | NLA_F_NESTED, inner)
    }

    /// With what `add` adds for the value, if there is one.
    pub(crate) fn with<T>(self, value: Option<T>, add: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => add(self, value),
            None => self,
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn begin(&mut self, kind: u16, length: usize) {
        let [a, b] = ((4 + length) as u16).to_ne_bytes();
        let [c, d] = kind.to_ne_bytes();
        self.0.reserve(if self.0.is_empty() { MOST.max(8 + length) } else { 8 + length });
        self.0.extend_from_slice(&[a, b, c, d]);
    }

    /// The next one begins at a multiple of four.
    fn pad(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

/// The attributes in `bytes`, without the flags in their type.
pub(crate) fn attributes_of(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const KIND: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & KIND;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of this type in `bytes`.
pub(crate) fn attribute_of(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes_of(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// A number in the order of the machine.
pub(crate) fn native(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let inner = Attributes::default().text(3, "eth0").bytes(4, &[1, 2]);
        let message = Attributes::behind(&[9; 16])
            .native(1, 1500)
            .nested(18, inner)
            .with(Some(7), |a, n| a.native(2, n));
        let bytes = message.into_bytes();
        let (header, rest) = bytes.split_at(16);
        assert_eq!(header, [9; 16]);
        let kinds: Vec<_> = attributes_of(rest).map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [1, 18, 2], "the flag of a nested one is no part of its type");
        assert_eq!(attribute_of(rest, 1).and_then(native), Some(1500));
        let inner = attribute_of(rest, 18).unwrap();
        assert_eq!(attribute_of(inner, 3), Some(&b"eth0\0"[..]));
        assert_eq!(attribute_of(inner, 4), Some(&[1, 2][..]));
        assert_eq!(attribute_of(inner, 5), None);
    }

    #[test]
    fn an_attribute_that_is_cut_short_is_none() {
        let bytes = Attributes::default().bytes(1, &[1; 6]).into_bytes();
        for length in 0..4 + 6 {
            assert_eq!(attributes_of(&bytes[..length]).count(), 0, "{length}");
        }
        assert_eq!(native(&[1, 2, 3]), None);
    }
}
