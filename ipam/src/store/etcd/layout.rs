//! How leases are spelled as keys and values.

use std::net::IpAddr;

use crate::address::{Family, number};
use crate::lease::{Assigned, Holder, Record, Timestamp};

pub(super) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The format of a lease's value.
const FORMAT: &str = "1";

/// The keys of one network.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: String,
}

/// What an address's key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// It is in the lease with this key, without what all leases' keys begin with.
    Held(String),
    /// It was freed then.
    Free(Timestamp),
}

impl Layout {
    pub(super) fn new(prefix: &str, network: &str) -> Self {
        Self { root: format!("{prefix}/{network}/") }
    }

    pub(super) fn ranges(&self) -> String {
        format!("{}ranges", self.root)
    }

    pub(super) fn node(&self, node: &str) -> String {
        format!("{}nodes/{node}", self.root)
    }

    pub(super) fn leases(&self) -> String {
        format!("{}leases/", self.root)
    }

    pub(super) fn leases_of(&self, node: &str) -> String {
        format!("{}leases/{node}/", self.root)
    }

    /// The first key that may be another node's: `0` follows `/`.
    pub(super) fn behind_node(&self, node: &str) -> String {
        format!("{}leases/{node}0", self.root)
    }

    pub(super) fn lease(&self, node: &str, holder: &Holder) -> String {
        format!("{}{}", self.leases(), lease_name(node, holder))
    }

    /// The key of the lease that [`Address::Held`] names.
    pub(super) fn named_lease(&self, name: &str) -> String {
        format!("{}{name}", self.leases())
    }

    pub(super) fn node_of(&self, key: &str) -> Option<String> {
        let (node, _) = key.strip_prefix(&self.leases())?.split_once('/')?;
        Some(node.to_owned())
    }

    pub(super) fn holder_of(&self, key: &str) -> Option<Holder> {
        let (_, rest) = key.strip_prefix(&self.leases())?.split_once('/')?;
        let (container, ifname) = rest.split_once('/')?;
        Some(Holder(format!("{container} {ifname}")))
    }

    pub(super) fn addresses(&self, family: Family) -> String {
        format!("{}addresses/{}/", self.root, digit(family))
    }

    pub(super) fn address(&self, address: IpAddr) -> String {
        format!("{}{}", self.addresses(Family::of(address)), hex(address))
    }

    /// The address of an address's key, or of one in the order of reuse.
    pub(super) fn address_of(family: Family, key: &str) -> Option<IpAddr> {
        let (_, hex) = key.rsplit_once('/')?;
        Some(family.address(u128::from_str_radix(hex, 16).ok()?))
    }

    pub(super) fn freed(&self, family: Family) -> String {
        format!("{}freed/{}/", self.root, digit(family))
    }

    pub(super) fn freed_at(&self, address: IpAddr, at: Timestamp) -> String {
        format!("{}{:016x}/{}", self.freed(Family::of(address)), at.0, hex(address))
    }

    /// When, according to a key of the order of reuse.
    pub(super) fn time_of(key: &str) -> Option<Timestamp> {
        let mut parts = key.rsplit('/');
        parts.next()?;
        u64::from_str_radix(parts.next()?, 16).ok().map(Timestamp)
    }
}

/// The first key that does not begin with `prefix`. Prefixes end with a character that has a successor.
pub(super) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

pub(super) fn lease_name(node: &str, holder: &Holder) -> String {
    format!("{node}/{}", holder.0.replacen(' ', "/", 1))
}

fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

fn hex(address: IpAddr) -> String {
    let width = usize::from(Family::of(address).bits()) / 4;
    format!("{:0width$x}", number(address))
}

impl Address {
    pub(super) fn parse(value: &str) -> Option<Self> {
        match value.split_once(' ')? {
            ("held", name) => Some(Self::Held(name.to_owned())),
            ("free", at) => at.parse().ok().map(|at| Self::Free(Timestamp(at))),
            _ => None,
        }
    }

    pub(super) fn value(&self) -> String {
        match self {
            Self::Held(name) => format!("held {name}"),
            Self::Free(at) => format!("free {}", at.0),
        }
    }
}

/// The value of a lease's key. The nonce tells one attempt to make it from another.
pub(super) fn lease_value(record: &Record, nonce: u64) -> String {
    let addresses: Vec<_> = record.addresses.iter().map(Assigned::to_string).collect();
    format!("{FORMAT} {} {nonce:016x} {} {}", record.since.0, addresses.join(","), record.detail)
}

pub(super) fn parse_lease(holder: Holder, value: &str) -> Option<Record> {
    let mut fields = value.splitn(5, ' ');
    let mut next = || fields.next();
    if next()? != FORMAT {
        return None;
    }
    let since = Timestamp(next()?.parse().ok()?);
    u64::from_str_radix(next()?, 16).ok()?;
    let addresses = next()?.split(',').map(Assigned::parse).collect::<Option<_>>()?;
    Some(Record { holder, addresses, since, detail: next()?.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_their_addresses() {
        let layout = Layout::new("/weft/ipam", "pods");
        let key = |text: &str| layout.address(text.parse().unwrap());
        assert_eq!(key("10.1.0.2"), "/weft/ipam/pods/addresses/4/0a010002");
        assert_eq!(key("fd00::2"), "/weft/ipam/pods/addresses/6/fd000000000000000000000000000002");
        assert!(key("9.255.255.255") < key("10.0.0.0") && key("10.0.0.255") < key("10.0.1.0"));
        for (family, text) in [(Family::V4, "10.1.0.2"), (Family::V6, "fd00::2")] {
            assert_eq!(Layout::address_of(family, &key(text)), Some(text.parse().unwrap()));
        }
    }

    #[test]
    fn a_leases_key_says_whose_it_is() {
        let layout = Layout::new("/weft/ipam", "pods");
        let holder = Holder("3f2a eth0".into());
        let key = layout.lease("node-a", &holder);
        assert_eq!(key, "/weft/ipam/pods/leases/node-a/3f2a/eth0");
        assert_eq!((layout.node_of(&key), layout.holder_of(&key)), (Some("node-a".into()), Some(holder)));
        assert!(key < layout.behind_node("node-a"));
        assert!(layout.behind_node("node-a") < layout.leases_of("node-b"));
        assert!(layout.leases_of("node-a1") > layout.behind_node("node-a"), "no node is passed over");
    }

    #[test]
    fn the_order_of_reuse_is_that_of_time() {
        let layout = Layout::new("/p", "n");
        let key = |at| layout.freed_at("10.0.0.9".parse().unwrap(), Timestamp(at));
        assert_eq!(key(16), "/p/n/freed/4/0000000000000010/0a000009");
        assert!(key(9) < key(10) && key(10) < key(1 << 60));
        assert_eq!(Layout::time_of(&key(1 << 60)), Some(Timestamp(1 << 60)));
        assert!(key(u64::MAX).into_bytes() < end_of(&layout.freed(Family::V4)));
    }

    #[test]
    fn a_lease_is_read_as_it_was_written() {
        let record = Record {
            holder: Holder("3f2a eth0".into()),
            addresses: ["10.1.0.2/24@10.1.0.1", "fd00::2/64"]
                .map(|text| Assigned::parse(text).unwrap())
                .into(),
            since: Timestamp(7),
            detail: r#"{"pod":{"namespace":"a b","name":"c"}}"#.into(),
        };
        let value = lease_value(&record, 255);
        assert_eq!(
            value,
            r#"1 7 00000000000000ff 10.1.0.2/24@10.1.0.1,fd00::2/64 {"pod":{"namespace":"a b","name":"c"}}"#
        );
        assert_eq!(parse_lease(record.holder.clone(), &value), Some(record.clone()));
        for wrong in
            ["", "2 7 0 10.1.0.2/24 {}", "1 x 0 10.1.0.2/24 {}", "1 7 0 10.1.0.2 {}", "1 7 0 10.1.0.2/24"]
        {
            assert_eq!(parse_lease(record.holder.clone(), wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_address_is_held_or_free() {
        for address in [Address::Held("node/3f2a/eth0".into()), Address::Free(Timestamp(12))] {
            assert_eq!(Address::parse(&address.value()), Some(address));
        }
        assert_eq!(Address::parse("free x"), None);
    }
}
