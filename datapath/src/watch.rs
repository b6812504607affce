//! What others do to the network of a namespace, as the kernel tells it while it happens.
//!
//! Only what may be a loss is of interest: something was deleted, taken down or switched off. What is added is either somebody
//! else's or one's own, and would wake a listener for each pod that comes.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket as RawSocket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use crate::Error;
use crate::error::Doing;
use crate::netlink::{attribute_of, messages};
use crate::nft::wire::NFGENMSG;

/// A listener in the namespace that it was opened in. Its descriptor is readable when there is something to [hear](Watch::heard).
#[derive(Debug)]
pub struct Watch {
    socket: RawSocket,
    is_loss: fn(u16, &[u8]) -> bool,
}

/// A burst of changes that does not fit is told as a loss; this is room for some ten thousand of them.
const ROOM: usize = 4 << 20;

impl Watch {
    /// Listens to links, addresses, routes, permanent forwarding entries and the forwarding of packets.
    ///
    /// # Errors
    /// Where the kernel has no rtnetlink.
    pub fn of_network() -> Result<Self, Error> {
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
        Self::open(NETLINK_ROUTE, &groups, network::is_loss)
    }

    /// Listens to Weft's nftables tables.
    ///
    /// # Errors
    /// Where the kernel has no nfnetlink.
    pub fn of_firewall() -> Result<Self, Error> {
        const NFNLGRP_NFTABLES: u32 = 7;
        Self::open(NETLINK_NETFILTER, &[NFNLGRP_NFTABLES], firewall::is_loss)
    }

    fn open(protocol: isize, groups: &[u32], is_loss: fn(u16, &[u8]) -> bool) -> Result<Self, Error> {
        let doing = || "listen to the kernel";
        let mut socket = RawSocket::new(protocol).doing(doing)?;
        socket.bind(&SocketAddr::new(0, 0)).doing(doing)?;
        socket.set_non_blocking(true).doing(doing)?;
        // Without the right to more room there is less of it.
        let _refused = setsockopt(&socket, sockopt::RcvBufForce, &ROOM);
        groups.iter().try_for_each(|group| socket.add_membership(*group)).doing(doing)?;
        Ok(Self { socket, is_loss })
    }

    /// Takes all that there is to hear, and says whether something may be missing now. What did not fit into the socket may
    /// have been anything.
    ///
    /// # Errors
    /// Where the socket is broken.
    pub fn heard(&self) -> Result<bool, Error> {
        let mut buffer = Vec::with_capacity(32 << 10);
        let mut lost = false;
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => lost |= messages(&buffer).any(|(kind, body)| (self.is_loss)(kind, body)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(lost),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(Errno::ENOBUFS as i32) => lost = true,
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
    use super::attribute_of;
    use crate::rtnl::wire::{RT_TABLE_MAIN, RTN_UNICAST};

    const RTM_NEWLINK: u16 = 16;
    const RTM_DELLINK: u16 = 17;
    const RTM_DELADDR: u16 = 21;
    const RTM_DELROUTE: u16 = 25;
    const RTM_DELNEIGH: u16 = 29;
    const RTM_NEWNETCONF: u16 = 80;

    pub(super) fn is_loss(kind: u16, body: &[u8]) -> bool {
        let found = match kind {
            RTM_NEWLINK => was_taken_down(body),
            RTM_DELLINK => connects_more_than_a_pod(body),
            RTM_DELADDR => is_of_the_universe(body),
            RTM_DELROUTE => is_anybodys_route(body),
            RTM_DELNEIGH => is_permanent(body),
            RTM_NEWNETCONF => is_not_forwarding(body),
            _ => None,
        };
        found.unwrap_or(false)
    }

    /// `struct ifinfomsg`: flags, and which of them changed. A link that is made is told with all of them changed, and down.
    fn was_taken_down(body: &[u8]) -> Option<bool> {
        const IFF_UP: u32 = 1;
        let (flags, change) = (number(body, 8)?, number(body, 12)?);
        Some(change != u32::MAX && change & IFF_UP != 0 && flags & IFF_UP == 0)
    }

    /// A pod's pair goes with its pod. What the node has for all of them somebody has taken away.
    fn connects_more_than_a_pod(body: &[u8]) -> Option<bool> {
        const IFINFOMSG: usize = 16;
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
    /// itself.
    fn is_anybodys_route(body: &[u8]) -> Option<bool> {
        const RTPROT_KERNEL: u8 = 2;
        const RTPROT_RA: u8 = 9;
        let [table, protocol, _scope, kind] = *body.get(4..)?.first_chunk()?;
        let is_told = protocol != RTPROT_KERNEL && protocol != RTPROT_RA;
        Some(u32::from(table) == RT_TABLE_MAIN && kind == RTN_UNICAST && is_told)
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
    use super::{NFGENMSG, attribute_of};
    use crate::nft::TABLE;

    const NFT_MSG_DELTABLE: u8 = 2;
    const NFT_MSG_DELCHAIN: u8 = 5;
    const NFT_MSG_DELRULE: u8 = 8;
    const NFT_MSG_DELSET: u8 = 11;
    const NFT_MSG_DELSETELEM: u8 = 14;

    /// In each of them the first attribute is the table's name.
    pub(super) fn is_loss(kind: u16, body: &[u8]) -> bool {
        const TABLE_NAME: u16 = 1;
        let [message, _subsystem] = kind.to_le_bytes();
        let deletes = matches!(
            message,
            NFT_MSG_DELTABLE | NFT_MSG_DELCHAIN | NFT_MSG_DELRULE | NFT_MSG_DELSET | NFT_MSG_DELSETELEM
        );
        let table = || attribute_of(body.get(NFGENMSG..)?, TABLE_NAME);
        deletes && table().is_some_and(|name| name.strip_suffix(b"\0") == Some(TABLE.as_bytes()))
    }
}
