//! What others do to the network of a namespace, as the kernel tells it while it happens.
//!
//! Of interest is what may be a loss: something was deleted, taken down, switched off, or replaced. Beside it, and told apart from
//! it, what may let that succeed which failed before: an address was added, a link came up. All else that is added is either
//! somebody else's or one's own, and would wake a listener for each pod that comes.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket as RawSocket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use crate::error::Doing;
use crate::netlink::{attribute_of, messages};
use crate::nft::wire::NFGENMSG;
use crate::{Error, Rtnl};

/// A listener in the namespace that it was opened in. Its descriptor is readable when there is something to [hear](Watch::heard).
#[derive(Debug)]
pub struct Watch {
    socket: RawSocket,
    meaning: Meaning,
}

/// What messages mean.
#[derive(Debug)]
enum Meaning {
    Network(network::Meaning),
    Firewall,
}

impl Meaning {
    fn of(&self, kind: u16, flags: u16, body: &[u8]) -> Option<Heard> {
        match self {
            Self::Network(network) => network.of(kind, flags, body),
            Self::Firewall => firewall::meaning(kind, body),
        }
    }
}

/// What there was to hear, the gravest of it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heard {
    /// Something came that others may have waited for: an address, or a link that is up. Or the tunnel is another than before.
    Gain,
    /// Something of one thing is gone, as it is with each pod that goes.
    Loss,
    /// What all pods share is gone, or it cannot be known what is.
    Ruin,
}

/// A burst of changes that does not fit is told as a loss; this is room for some ten thousand of them.
const ROOM: usize = 4 << 20;

impl Watch {
    /// Listens to links, addresses, routes, permanent forwarding entries and the forwarding of packets, and to neighbours and attributes of
    /// the link `tunnel`, whether or not it is there already.
    ///
    /// # Errors
    /// Where the kernel has no rtnetlink.
    pub fn of_network(tunnel: &str) -> Result<Self, Error> {
        // RTNLGRP_… of linux/rtnetlink.h.
        const LINK: u32 = 1;
        const NEIGH: u32 = 3;
        const IPV4_IFADDR: u32 = 5;
        const IPV4_ROUTE: u32 = 7;
        const IPV6_IFADDR: u32 = 9;
        const IPV6_ROUTE: u32 = 11;
        const IPV4_NETCONF: u32 = 24;
        const IPV6_NETCONF: u32 = 25;
        let groups =
            [LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE, IPV4_NETCONF, IPV6_NETCONF];
        let watch = Self::open(NETLINK_ROUTE, &groups, Meaning::Network(network::Meaning::about(tunnel)))?;
        // One that is made from now on is told of.
        let stands = Rtnl::open()?.link(tunnel)?;
        if let (Meaning::Network(meaning), Some(link)) = (&watch.meaning, stands) {
            meaning.is_now(link.index);
        }
        Ok(watch)
    }

    /// Listens to Weft's nftables tables.
    ///
    /// # Errors
    /// Where the kernel has no nfnetlink.
    pub fn of_firewall() -> Result<Self, Error> {
        const NFNLGRP_NFTABLES: u32 = 7;
        Self::open(NETLINK_NETFILTER, &[NFNLGRP_NFTABLES], Meaning::Firewall)
    }

    fn open(protocol: isize, groups: &[u32], meaning: Meaning) -> Result<Self, Error> {
        let doing = || "listen to the kernel";
        let mut socket = RawSocket::new(protocol).doing(doing)?;
        socket.bind(&SocketAddr::new(0, 0)).doing(doing)?;
        socket.set_non_blocking(true).doing(doing)?;
        // Without the right to more room there is less of it.
        let _refused = setsockopt(&socket, sockopt::RcvBufForce, &ROOM);
        groups.iter().try_for_each(|group| socket.add_membership(*group)).doing(doing)?;
        Ok(Self { socket, meaning })
    }

    /// Takes all that there is to hear, and says the gravest of it; `None` where nothing was of interest. What did not fit into
    /// the socket may have been anything.
    ///
    /// # Errors
    /// Where the socket is broken.
    pub fn heard(&self) -> Result<Option<Heard>, Error> {
        let mut buffer = Vec::with_capacity(32 << 10);
        let mut heard = None;
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => {
                    let all = messages(&buffer)
                        .filter_map(|(kind, flags, body)| self.meaning.of(kind, flags, body));
                    heard = heard.max(all.max());
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(heard),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(Errno::ENOBUFS as i32) => heard = Some(Heard::Ruin),
                Err(e) => return Err(e).doing(|| "listen to the kernel"),
            }
        }
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Messages of `linux/rtnetlink.h`.
mod network {
    use std::cell::Cell;

    use super::{Heard, attribute_of};
    use crate::netlink::flag;
    use crate::rtnl::wire::{RT_TABLE_MAIN, RTN_UNICAST};

    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    /// Length of `struct ifinfomsg`.
    const IFINFOMSG: usize = 16;
    const RTM_NEWLINK: u16 = 16;
    const RTM_DELLINK: u16 = 17;
    const RTM_NEWADDR: u16 = 20;
    const RTM_DELADDR: u16 = 21;
    const RTM_NEWROUTE: u16 = 24;
    const RTM_DELROUTE: u16 = 25;
    const RTM_DELNEIGH: u16 = 29;
    const RTM_NEWNETCONF: u16 = 80;

    /// Knows the tunnel when it sees it.
    #[derive(Debug)]
    pub(super) struct Meaning {
        tunnel: Box<str>,
        index: Cell<Option<u32>>,
    }

    impl Meaning {
        pub(super) fn about(tunnel: &str) -> Self {
            Self { tunnel: tunnel.into(), index: Cell::new(None) }
        }

        pub(super) fn is_now(&self, index: u32) {
            self.index.set(Some(index));
        }

        pub(super) fn of(&self, kind: u16, flags: u16, body: &[u8]) -> Option<Heard> {
            match kind {
                RTM_NEWLINK if is_called(&self.tunnel, body) == Some(true) => {
                    self.index.set(number(body, 4));
                    Some(was_switched(body).unwrap_or(Heard::Gain))
                }
                RTM_DELNEIGH if is_neighbour_on(self.index.get(), body) => Some(Heard::Loss),
                _ => meaning(kind, flags, body),
            }
        }
    }

    fn meaning(kind: u16, flags: u16, body: &[u8]) -> Option<Heard> {
        let (meaning, is_so) = match kind {
            RTM_NEWLINK => return was_switched(body),
            RTM_DELLINK => (Heard::Ruin, connects_more_than_a_pod(body)),
            RTM_NEWADDR => (Heard::Gain, is_of_the_universe(body)),
            RTM_DELADDR => (Heard::Loss, is_of_the_universe(body)),
            // The kernel says so of the one that has taken another's place (`fib_table_insert`, `fib6_add_rt2node`).
            RTM_NEWROUTE if flags & flag::REPLACE != 0 => (Heard::Loss, is_in_the_way(body)),
            RTM_DELROUTE => return was_anybodys_route(body),
            RTM_DELNEIGH => (Heard::Loss, is_permanent(body)),
            RTM_NEWNETCONF => (Heard::Ruin, is_not_forwarding(body)),
            _ => return None,
        };
        is_so?.then_some(meaning)
    }

    /// `struct ifinfomsg`: flags, and which of them changed. A link that is made is told with all of them changed, and down.
    fn was_switched(body: &[u8]) -> Option<Heard> {
        const IFF_UP: u32 = 1;
        let (flags, change) = (number(body, 8)?, number(body, 12)?);
        let is_switched = change != u32::MAX && change & IFF_UP != 0;
        is_switched.then_some(if flags & IFF_UP == 0 { Heard::Loss } else { Heard::Gain })
    }

    fn is_called(name: &str, body: &[u8]) -> Option<bool> {
        const IFLA_IFNAME: u16 = 3;
        let called = attribute_of(body.get(IFINFOMSG..)?, IFLA_IFNAME)?;
        Some(called.strip_suffix(b"\0").unwrap_or(called) == name.as_bytes())
    }

    /// `struct ndmsg`: its family and link. On a tunnel there are none but those that somebody has put there.
    fn is_neighbour_on(link: Option<u32>, body: &[u8]) -> bool {
        let is_of_ip = body.first().is_some_and(|family| [AF_INET, AF_INET6].contains(family));
        is_of_ip && link.is_some() && number(body, 4) == link
    }

    /// A pod's pair goes with its pod. What the node has for all of them somebody has taken away.
    fn connects_more_than_a_pod(body: &[u8]) -> Option<bool> {
        const IFLA_LINKINFO: u16 = 18;
        const IFLA_INFO_KIND: u16 = 1;
        let kind = attribute_of(attribute_of(body.get(IFINFOMSG..)?, IFLA_LINKINFO)?, IFLA_INFO_KIND)?;
        Some(matches!(kind.strip_suffix(b"\0").unwrap_or(kind), b"vxlan" | b"bridge"))
    }

    /// `struct ifaddrmsg`: its scope.
    fn is_of_the_universe(body: &[u8]) -> Option<bool> {
        body.get(3).map(|scope| *scope == 0)
    }

    /// `struct rtmsg`: table, protocol and kind. What the kernel has made, and what it was told by routers, comes and goes by
    /// itself. One that led nowhere may have been in the way.
    fn was_anybodys_route(body: &[u8]) -> Option<Heard> {
        const RTPROT_KERNEL: u8 = 2;
        const RTPROT_RA: u8 = 9;
        let [table, protocol, _scope, kind] = *body.get(4..)?.first_chunk()?;
        let is_told = protocol != RTPROT_KERNEL && protocol != RTPROT_RA;
        let is_told = is_told && u32::from(table) == RT_TABLE_MAIN;
        is_told.then_some(if kind == RTN_UNICAST { Heard::Loss } else { Heard::Gain })
    }

    /// The same of one that took another's place, whatever it does with packets.
    fn is_in_the_way(body: &[u8]) -> Option<bool> {
        const RTPROT_RA: u8 = 9;
        let [table, protocol] = *body.get(4..)?.first_chunk()?;
        Some(u32::from(table) == RT_TABLE_MAIN && protocol != RTPROT_RA)
    }

    /// `struct ndmsg`: its state. That is told of forwarding entries alone: a neighbour has failed before it is deleted, as
    /// all that the kernel forgets by itself do every minute (`neigh_update` in `net/core/neighbour.c`).
    fn is_permanent(body: &[u8]) -> Option<bool> {
        const NUD_PERMANENT: u16 = 0x80;
        let state = u16::from_ne_bytes(*body.get(8..)?.first_chunk()?);
        Some(state & NUD_PERMANENT != 0)
    }

    /// Of the whole namespace: each new link is told of too, with whatever it begins with.
    fn is_not_forwarding(body: &[u8]) -> Option<bool> {
        const NETCONFMSG: usize = 4;
        const NETCONFA_IFINDEX: u16 = 1;
        const NETCONFA_FORWARDING: u16 = 2;
        const NETCONFA_IFINDEX_ALL: u32 = u32::MAX;
        let attributes = body.get(NETCONFMSG..)?;
        let link = number(attribute_of(attributes, NETCONFA_IFINDEX)?, 0)?;
        let forwards = number(attribute_of(attributes, NETCONFA_FORWARDING)?, 0)?;
        Some(link == NETCONFA_IFINDEX_ALL && forwards == 0)
    }

    fn number(body: &[u8], at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(*body.get(at..)?.first_chunk()?))
    }
}

/// Messages of `linux/netfilter/nf_tables.h`.
mod firewall {
    use super::{Heard, NFGENMSG, attribute_of};
    use crate::nft::TABLE;

    const NFT_MSG_DELTABLE: u8 = 2;
    const NFT_MSG_DELCHAIN: u8 = 5;
    const NFT_MSG_DELRULE: u8 = 8;
    const NFT_MSG_DELSET: u8 = 11;
    const NFT_MSG_DELSETELEM: u8 = 14;

    /// In each of them the first attribute is the table's name. A pod that goes takes elements with it, and nothing else.
    pub(super) fn meaning(kind: u16, body: &[u8]) -> Option<Heard> {
        const TABLE_NAME: u16 = 1;
        let [message, _subsystem] = kind.to_le_bytes();
        let meaning = match message {
            NFT_MSG_DELTABLE | NFT_MSG_DELCHAIN | NFT_MSG_DELRULE | NFT_MSG_DELSET => Heard::Ruin,
            NFT_MSG_DELSETELEM => Heard::Loss,
            _ => return None,
        };
        let table = attribute_of(body.get(NFGENMSG..)?, TABLE_NAME)?;
        (table.strip_suffix(b"\0")? == TABLE.as_bytes()).then_some(meaning)
    }
}
