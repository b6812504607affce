//! What a resource says, as a number.

use std::fmt;

use sha2::{Digest, Sha256};

/// What a resource says, in one number: the first 64 bits of the SHA-256 of its encoded body.
///
/// Equal content has an equal version in every process, release and machine, so a client that reconnects after
/// a restart of the server is sent nothing it already has. On the wire it is written as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// The version of `body`.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        Self(Sha256::digest(body).iter().take(8).fold(0, |hash, byte| (hash << 8) | u64::from(*byte)))
    }

    /// Reads what [`Display`](fmt::Display) wrote. `None` for any other text: a version of another server.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let ours = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        ours.then(|| u64::from_str_radix(text, 16).ok()).flatten().map(Self)
    }

    /// The version of many resources together, whatever their order: names and versions decide.
    #[must_use]
    pub fn of_all<'a>(resources: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        Self(resources.into_iter().fold(0, |sum, (name, version)| sum.wrapping_add(version.named(name))))
    }

    /// The share of one resource in [`of_all`](Self::of_all).
    pub(crate) fn named(self, name: &str) -> u64 {
        let mix = |hash: u64, bits: u64| (hash.rotate_left(5) ^ bits).wrapping_mul(0x517c_c1b7_2722_0a95);
        let named = name.bytes().fold(self.0, |hash, byte| mix(hash, u64::from(byte)));
        mix(named, named >> 32)
    }

    /// The same text as [`Display`](fmt::Display) writes.
    pub(crate) fn digits(self) -> [u8; 16] {
        let mut nibbles = (0..16).rev().map(|place| (self.0 >> (4 * place) & 0xf) as u8);
        std::array::from_fn(|_| match nibbles.next().unwrap_or_default() {
            digit @ 0..=9 => b'0' + digit,
            letter => b'a' - 10 + letter,
        })
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_content_never_changes_between_releases() {
        // The first 8 bytes of the well-known SHA-256 of "abc" (FIPS 180-2, appendix B.1).
        assert_eq!(Version::of(b"abc").to_string(), "ba7816bf8f01cfea");
    }

    #[test]
    fn a_version_is_read_back_from_its_text_and_foreign_ones_are_not() {
        let version = Version::of(b"x");
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        assert_eq!(version.digits(), version.to_string().as_bytes());
        assert_eq!(Version::parse("7"), None);
        assert_eq!(Version::parse("BA7816BF8F01CFEA"), None);
        assert_eq!(Version::parse("+a7816bf8f01cfea"), None);
    }

    #[test]
    fn many_are_the_same_exactly_when_names_and_versions_are() {
        let of = |texts: &[(&'static str, &'static str)]| {
            Version::of_all(texts.iter().map(|(name, body)| (*name, Version::of(body.as_bytes()))))
        };
        assert_eq!(of(&[("a", "1"), ("b", "2")]), of(&[("b", "2"), ("a", "1")]));
        for other in [&[("a", "2"), ("b", "1")][..], &[("a", "1")], &[("ab", "1"), ("b", "2")], &[]] {
            assert_ne!(of(&[("a", "1"), ("b", "2")]), of(other));
        }
    }
}
