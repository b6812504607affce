//! Bytes of rtnetlink: headers, and the few attributes that Weft speaks of. Names and numbers are the kernel's
//! (`linux/rtnetlink.h`, `linux/if_link.h`, `linux/if_addr.h`, `linux/neighbour.h`).

use std::net::IpAddr;

use crate::netlink::{Attributes, Purpose, Request};

pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_BRIDGE: u8 = 7;
pub(crate) const AF_INET6: u8 = 10;

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
pub(crate) const RTM_GETLINK: u16 = 18;
pub(crate) const RTM_SETLINK: u16 = 19;
pub(crate) const RTM_NEWADDR: u16 = 20;
pub(crate) const RTM_DELADDR: u16 = 21;
pub(crate) const RTM_GETADDR: u16 = 22;
pub(crate) const RTM_NEWROUTE: u16 = 24;
pub(crate) const RTM_DELROUTE: u16 = 25;
pub(crate) const RTM_GETROUTE: u16 = 26;
pub(crate) const RTM_NEWNEIGH: u16 = 28;
pub(crate) const RTM_GETNEIGH: u16 = 30;
pub(crate) const RTM_GETNETCONF: u16 = 82;

pub(crate) const IFF_UP: u32 = 0x1;
pub(crate) const IFF_PROMISC: u32 = 0x100;
pub(crate) const IFF_ALLMULTI: u32 = 0x200;

pub(crate) const IFLA_ADDRESS: u16 = 1;
pub(crate) const IFLA_IFNAME: u16 = 3;
pub(crate) const IFLA_MTU: u16 = 4;
pub(crate) const IFLA_LINK: u16 = 5;
pub(crate) const IFLA_MASTER: u16 = 10;
pub(crate) const IFLA_PROTINFO: u16 = 12;
pub(crate) const IFLA_TXQLEN: u16 = 13;
pub(crate) const IFLA_LINKINFO: u16 = 18;
pub(crate) const IFLA_IFALIAS: u16 = 20;
pub(crate) const IFLA_AF_SPEC: u16 = 26;
pub(crate) const IFLA_GROUP: u16 = 27;
pub(crate) const IFLA_NET_NS_FD: u16 = 28;
pub(crate) const IFLA_EXT_MASK: u16 = 29;
pub(crate) const IFLA_NUM_TX_QUEUES: u16 = 31;
pub(crate) const IFLA_NUM_RX_QUEUES: u16 = 32;

/// Inside `IFLA_LINKINFO`.
pub(crate) const IFLA_INFO_KIND: u16 = 1;
pub(crate) const IFLA_INFO_DATA: u16 = 2;
pub(crate) const IFLA_INFO_SLAVE_DATA: u16 = 5;
/// Inside `IFLA_INFO_DATA` of a pair.
pub(crate) const VETH_INFO_PEER: u16 = 1;
/// Inside `IFLA_INFO_DATA` of a bridge.
pub(crate) const IFLA_BR_VLAN_FILTERING: u16 = 7;
/// Inside `IFLA_PROTINFO`, and `IFLA_INFO_SLAVE_DATA`, of a bridge's port.
pub(crate) const IFLA_BRPORT_MODE: u16 = 4;
pub(crate) const IFLA_BRPORT_ISOLATED: u16 = 33;
/// Inside `IFLA_AF_SPEC` of a bridge's port.
pub(crate) const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
/// Inside what `IFLA_AF_SPEC` has of `AF_INET6`.
pub(crate) const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;

pub(crate) const IFA_ADDRESS: u16 = 1;
pub(crate) const IFA_LOCAL: u16 = 2;
pub(crate) const IFA_FLAGS: u16 = 8;
pub(crate) const IFA_F_NODAD: u32 = 0x02;
pub(crate) const IFA_F_PERMANENT: u32 = 0x80;
pub(crate) const IFA_F_NOPREFIXROUTE: u32 = 0x200;

pub(crate) const NDA_DST: u16 = 1;
pub(crate) const NDA_LLADDR: u16 = 2;
pub(crate) const NUD_PERMANENT: u16 = 0x80;

/// `linux/netconf.h`.
pub(crate) const NETCONFA_IFINDEX: u16 = 1;
pub(crate) const NETCONFA_FORWARDING: u16 = 2;
pub(crate) const NETCONFA_IFINDEX_ALL: i32 = -1;

pub(crate) const RTA_DST: u16 = 1;
pub(crate) const RTA_OIF: u16 = 4;
pub(crate) const RTA_GATEWAY: u16 = 5;
pub(crate) const RTA_PRIORITY: u16 = 6;
pub(crate) const RTA_PREFSRC: u16 = 7;
pub(crate) const RTA_METRICS: u16 = 8;
pub(crate) const RTA_MULTIPATH: u16 = 9;
pub(crate) const RTA_TABLE: u16 = 15;
/// Inside `RTA_METRICS`.
pub(crate) const RTAX_MTU: u16 = 2;
pub(crate) const RTAX_ADVMSS: u16 = 8;

pub(crate) const RT_TABLE_MAIN: u32 = 254;
pub(crate) const RTPROT_STATIC: u8 = 4;
pub(crate) const RT_SCOPE_UNIVERSE: u8 = 0;
pub(crate) const RT_SCOPE_LINK: u8 = 253;
pub(crate) const RTN_UNICAST: u8 = 1;
pub(crate) const RTN_LOCAL: u8 = 2;
pub(crate) const RTM_F_FIB_MATCH: u32 = 0x2000;

/// `struct ifinfomsg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkHeader {
    pub(crate) family: u8,
    pub(crate) index: u32,
    pub(crate) flags: u32,
    /// Which of the flags are meant.
    pub(crate) change: u32,
}

/// `struct ifaddrmsg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AddressHeader {
    pub(crate) family: u8,
    pub(crate) prefix: u8,
    pub(crate) index: u32,
}

/// `struct ndmsg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NeighbourHeader {
    pub(crate) family: u8,
    pub(crate) index: u32,
    pub(crate) state: u16,
    pub(crate) flags: u8,
}

/// `struct rtmsg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteHeader {
    pub(crate) family: u8,
    pub(crate) prefix: u8,
    pub(crate) table: u8,
    pub(crate) protocol: u8,
    pub(crate) scope: u8,
    pub(crate) kind: u8,
    pub(crate) flags: u32,
}

impl LinkHeader {
    /// Of the link with this index.
    pub(crate) fn of(index: u32) -> Self {
        Self { index, ..Self::default() }
    }

    pub(crate) fn message(self) -> Attributes {
        let Self { family, index, flags, change } = self;
        Attributes::behind_words([u32::from_ne_bytes([family, 0, 0, 0]), index, flags, change])
    }

    /// The header at the beginning of `body`, and the attributes behind it.
    pub(crate) fn read(body: &[u8]) -> Option<(Self, &[u8])> {
        let ([first, index, flags, change], attributes) = split_words(body)?;
        let [family, ..] = first.to_ne_bytes();
        Some((Self { family, index, flags, change }, attributes))
    }
}

impl AddressHeader {
    pub(crate) fn message(self) -> Attributes {
        Attributes::behind_words([u32::from_ne_bytes([self.family, self.prefix, 0, 0]), self.index])
    }

    /// The header at the beginning of `body`, and the attributes behind it.
    pub(crate) fn read(body: &[u8]) -> Option<(Self, &[u8])> {
        let ([first, index], attributes) = split_words(body)?;
        let [family, prefix, ..] = first.to_ne_bytes();
        Some((Self { family, prefix, index }, attributes))
    }
}

impl NeighbourHeader {
    pub(crate) fn message(self) -> Attributes {
        let [a, b] = self.state.to_ne_bytes();
        let (first, last) =
            (u32::from_ne_bytes([self.family, 0, 0, 0]), u32::from_ne_bytes([a, b, self.flags, 0]));
        Attributes::behind_words([first, self.index, last])
    }

    /// The header at the beginning of `body`, and the attributes behind it.
    pub(crate) fn read(body: &[u8]) -> Option<(Self, &[u8])> {
        let ([first, index, last], attributes) = split_words(body)?;
        let ([family, ..], [a, b, flags, _]) = (first.to_ne_bytes(), last.to_ne_bytes());
        Some((Self { family, index, state: u16::from_ne_bytes([a, b]), flags }, attributes))
    }
}

impl RouteHeader {
    pub(crate) fn message(self) -> Attributes {
        let Self { family, prefix, table, protocol, scope, kind, flags } = self;
        let first = u32::from_ne_bytes([family, prefix, 0, 0]);
        let second = u32::from_ne_bytes([table, protocol, scope, kind]);
        Attributes::behind_words([first, second, flags])
    }

    /// The header at the beginning of `body`, and the attributes behind it.
    pub(crate) fn read(body: &[u8]) -> Option<(Self, &[u8])> {
        let ([first, second, flags], attributes) = split_words(body)?;
        let [family, prefix, ..] = first.to_ne_bytes();
        let [table, protocol, scope, kind] = second.to_ne_bytes();
        Some((Self { family, prefix, table, protocol, scope, kind, flags }, attributes))
    }
}

fn split_words<const N: usize>(bytes: &[u8]) -> Option<([u32; N], &[u8])> {
    let (header, rest) = bytes.split_at_checked(4 * N)?;
    let (chunks, _) = header.as_chunks::<4>();
    let mut words = [0; N];
    words.iter_mut().zip(chunks).for_each(|(word, chunk)| *word = u32::from_ne_bytes(*chunk));
    Some((words, rest))
}

/// A request whose message is `message`.
pub(crate) fn request(doing: impl Into<Purpose>, kind: u16, message: Attributes, flags: u16) -> Request {
    Request { doing: doing.into(), kind, flags, body: message.into_bytes(), forgiven: &[] }
}

pub(crate) const fn family_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

impl Attributes {
    /// Headers are words in the order of the machine, some of them with fields of a byte inside.
    fn behind_words<const N: usize>(words: [u32; N]) -> Self {
        Self::behind(words.map(u32::to_ne_bytes).as_flattened())
    }

    /// An address as it is in packets.
    pub(crate) fn ip(self, kind: u16, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(ip) => self.bytes(kind, &ip.octets()),
            IpAddr::V6(ip) => self.bytes(kind, &ip.octets()),
        }
    }
}

/// The address in an attribute, whose length tells its family.
pub(crate) fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let link = LinkHeader { family: AF_BRIDGE, index: 7, flags: IFF_UP, change: IFF_UP | IFF_PROMISC };
        let address = AddressHeader { family: AF_INET6, prefix: 64, index: 0x0102_0304 };
        let neighbour = NeighbourHeader { family: AF_INET, index: 7, state: NUD_PERMANENT, flags: 2 };
        let route = RouteHeader {
            family: AF_INET,
            prefix: 24,
            table: 254,
            protocol: RTPROT_STATIC,
            scope: RT_SCOPE_LINK,
            kind: RTN_UNICAST,
            flags: RTM_F_FIB_MATCH,
        };
        let behind = |message: Attributes| message.bytes(1, &[5]).into_bytes();
        let attribute = [5, 0, 1, 0, 5, 0, 0, 0].as_slice();
        assert_eq!(LinkHeader::read(&behind(link.message())), Some((link, attribute)));
        assert_eq!(AddressHeader::read(&behind(address.message())), Some((address, attribute)));
        assert_eq!(NeighbourHeader::read(&behind(neighbour.message())), Some((neighbour, attribute)));
        assert_eq!(RouteHeader::read(&behind(route.message())), Some((route, attribute)));
    }

    #[test]
    fn headers_have_the_kernels_length_and_what_is_shorter_is_none() {
        let messages = [
            LinkHeader::default().message(),
            AddressHeader::default().message(),
            NeighbourHeader::default().message(),
            RouteHeader::default().message(),
        ];
        assert_eq!(messages.map(|message| message.as_bytes().len()), [16, 8, 12, 12]);
        assert_eq!(LinkHeader::read(&[0; 15]), None);
    }
}
