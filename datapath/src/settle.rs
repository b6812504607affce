//! When an interface carries packets (rtnetlink).
//!
//! The kernel answers that an interface is up with all that it holds before it is: two workers finish the rest in their own
//! time, which takes microseconds on a node that is idle, and tens of milliseconds on a busy one. What is sent or arrives until
//! then is thrown away.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use crate::netlink::{Purpose, Reply, Request, Socket};
use crate::observe::{self, Link};
use crate::rtnl::wire::*;
use crate::rtnl::{UNREACHABLE, get_link_by_index};
use crate::{Error, NetNs, Refusal, Rtnl};

/// Far above what the kernel's workers take, far below a runtime's patience.
const PATIENCE: Duration = Duration::from_secs(10);

impl Rtnl {
    /// Sees to it that the link called `name`, which is up with a carrier and holds `addresses`, carries packets from now on.
    ///
    /// *What is sent* the kernel throws away until a worker has taken note of the carrier (`linkwatch` calls
    /// `dev_activate`): of 480 connections opened right after their pair had come up, 52 lost their first packet and with it
    /// a second. To answer for a single link, the kernel takes note at once (`rtnl_getlink`, since 6.8; before, this does no
    /// harm). A bridge has a carrier from when one of its ports has been settled, so it comes after that.
    ///
    /// *What comes to an IPv6 address* is nobody's until a worker has put the address into the routing table and joined the
    /// group in which neighbours ask for it (`addrconf_dad_work`), also where no duplicate is looked for: of 60 pairs that
    /// came up on a busy node, 42 did not own an address at first, some for 40 ms. That is waited for.
    ///
    /// # Errors
    /// Where there is no such link, or it does not own its addresses after ten seconds.
    pub fn settle(&self, name: &str, addresses: &[IpNetwork]) -> Result<(), Error> {
        let link = self.link(name)?.ok_or_else(|| Error::new(settling(name), Errno::ENODEV))?;
        self.settle_link(&link, addresses)
    }

    /// [`Rtnl::settle`], where it is known what `link` it is.
    ///
    /// # Errors
    /// The same.
    pub fn settle_link(&self, link: &Link, addresses: &[IpNetwork]) -> Result<(), Error> {
        let (deadline, mut listener) = (Instant::now() + PATIENCE, None::<Socket>);
        while let Some(missing) = self.first_not_owned(link, addresses)? {
            if Instant::now() > deadline {
                let words = format!("the kernel has not made {missing} its own within {PATIENCE:?}");
                let refusal = Refusal { errno: Errno::ETIMEDOUT, explanation: Some(words) };
                return Err(Error::new(settling(&link.name), refusal));
            }
            match &listener {
                Some(listener) => listener.wait(deadline)?,
                // It listens from before the next look, after which it waits, so that nothing is missed in between.
                None => listener = Some(self.listener()?),
            }
        }
        Ok(())
    }

    /// Whether `link` carries packets, as [`Rtnl::settle`] would have it: one look, from any namespace. Of what is sent, the
    /// look is all that it takes.
    ///
    /// # Errors
    /// Where there is no such link any more, or the kernel does not tell.
    pub fn is_settled(&self, link: &Link, addresses: &[IpNetwork]) -> Result<bool, Error> {
        Ok(self.first_not_owned(link, addresses)?.is_none())
    }

    /// It hears of the namespace that the socket is of, wherever this is called. Few need it, so nobody opens it beforehand.
    fn listener(&self) -> Result<Socket, Error> {
        NetNs::of(&self.socket)?.run(|| {
            let listener = Socket::open(NETLINK_ROUTE)?;
            listener.listen(RTNLGRP_IPV6_ROUTE).map(|()| listener)
        })?
    }

    /// The first of `addresses` that the node would not take packets to from `link`.
    fn first_not_owned(&self, link: &Link, addresses: &[IpNetwork]) -> Result<Option<IpAddr>, Error> {
        let routes = awaited(addresses).map(|address| route_through(link, address));
        let requests: Vec<_> = std::iter::once(get_link_by_index(link.index)).chain(routes).collect();
        let replies = self.socket.get_each(&requests)?;
        let Some((Some(_), routes)) = replies.split_first() else {
            return Err(Error::new(settling(&link.name), Errno::ENODEV));
        };
        let mut owned = awaited(addresses).zip(routes);
        Ok(owned.find_map(|(address, route)| (!is_owned(route)).then_some(address)))
    }
}

fn settling(name: &str) -> String {
    format!("settle {name}")
}

/// IPv4 addresses are owned as soon as they are there.
fn awaited(addresses: &[IpNetwork]) -> impl Iterator<Item = IpAddr> {
    addresses.iter().map(IpNetwork::ip).filter(IpAddr::is_ipv6)
}

fn is_owned(route: &Option<Reply>) -> bool {
    route.as_ref().is_some_and(observe::is_local)
}

/// Routes of IPv6 that come and go, of `linux/rtnetlink.h`. The kernel tells of one after it has put it into the table.
const RTNLGRP_IPV6_ROUTE: u32 = 11;

/// By interface, for the same address may stand on several, and a bridge may have a table of its own. The route itself, for of a packet's way
/// the kernel would say which of all the node's addresses it leaves from.
fn route_through(link: &Link, destination: IpAddr) -> Request {
    let (family, prefix) = (family_of(destination), IpNetwork::from(destination).prefix());
    let header = RouteHeader { family, prefix, flags: RTM_F_FIB_MATCH, ..RouteHeader::default() };
    let message = header.message().ip(RTA_DST, destination).native(RTA_OIF, link.index);
    let doing = Purpose::of("look up the route to", destination).and("through", &link.name);
    Request { forgiven: UNREACHABLE, ..request(doing, RTM_GETROUTE, message, 0) }
}
