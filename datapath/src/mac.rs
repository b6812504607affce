//! Hardware addresses.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::Ipv6Addr;
use std::str::FromStr;

/// An Ethernet address that one interface can own: not multicast, not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// A locally administered unicast address made of the low 46 bits of `seed`.
    ///
    /// Weft sets the address of both ends of a pair itself, because an address that the kernel chose at random is
    /// rewritten by udev (`MACAddressPolicy=persistent`) at some later moment.
    #[must_use]
    pub fn local(seed: u64) -> Self {
        let [_, _, first, b, c, d, e, f] = seed.to_be_bytes();
        Self([(first & 0xfc) | 0x02, b, c, d, e, f])
    }

    /// A locally administered unicast address that nobody else has, as far as chance goes.
    #[must_use]
    pub(crate) fn random() -> Self {
        // The standard library's seed is from the kernel's generator, and good enough for a name.
        Self::local(RandomState::new().hash_one(std::process::id()))
    }

    /// The six bytes, in the order they are sent.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// The IPv6 link-local address of an interface that has it (RFC 4291, appendix A).
    pub(crate) const fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::from_octets([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 0x02, b, c, 0xff, 0xfe, d, e, f])
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// The text is no hardware address that an interface could own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a unicast hardware address such as 02:00:5e:10:00:01")]
pub struct InvalidMac {
    text: String,
}

impl FromStr for Mac {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let invalid = || InvalidMac { text: text.to_owned() };
        let byte = |part: &str| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2);
        let bytes: Option<Vec<u8>> = text.split([':', '-']).map(byte).collect();
        let bytes: [u8; 6] = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(invalid)?;
        let [first, ..] = bytes;
        let unicast = first & 1 == 0 && bytes != [0; 6];
        if unicast { Ok(Self(bytes)) } else { Err(invalid()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_address_is_local_and_unicast() {
        for seed in [0, u64::MAX, 0x1234_5678_9abc_def0] {
            let [first, ..] = Mac::local(seed).octets();
            assert_eq!(first & 0b11, 0b10, "{seed:x}");
        }
    }

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let mac: Mac = "02:00:5e:10:00:01".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:01");
        for bad in [
            "",
            "02:00:5e:10:00",
            "03:00:5e:10:00:01",
            "00:00:00:00:00:00",
            "2:0:5e:10:0:1",
            "zz:00:5e:10:00:01",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
