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

use crate::netlink::{Reply, Request, Socket};
use crate::observe::{self, Link};
use crate::rtnl::wire::*;
use crate::rtnl::{UNREACHABLE, get_link_by_index};
use crate::{Error, Refusal, Rtnl};

/// Far above what the kernel's workers take, far below a runtime's patience.
const PATIENCE: Duration = Duration::from_secs(10);

impl Rtnl {
    /// Sees to it that the link called `name`, which is up with a carrier and holds `addresses`, carries packets from now on.
    /// To be called in the namespace that the socket is of.
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
        let doing = || format!("settle {name}");
        let gone = || Error::new(doing(), Errno::ENODEV);
        let link = self.link(name)?.ok_or_else(gone)?;
        let Some(first) = self.first_not_owned(&link, addresses)? else { return Ok(()) };
        // It listens from before the next look, so that nothing is missed in between.
        let routes = Socket::listen(NETLINK_ROUTE, RTNLGRP_IPV6_ROUTE)?;
        let (deadline, mut missing) = (Instant::now() + PATIENCE, Some(first));
        while let Some(address) = missing {
            if Instant::now() > deadline {
                let words = format!("the kernel has not made {address} its own within {PATIENCE:?}");
                let refusal = Refusal { errno: Errno::ETIMEDOUT, explanation: Some(words) };
                return Err(Error::new(doing(), refusal));
            }
            let link = self.link(name)?.ok_or_else(gone)?;
            missing = self.first_not_owned(&link, addresses)?;
            if missing.is_some() {
                routes.wait(deadline)?;
            }
        }
        Ok(())
    }

    /// Whether `link` carries packets, as [`Rtnl::settle`] would have it: one look, from any namespace. Of what is sent, the
    /// look is all that it takes.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn is_settled(&self, link: &Link, addresses: &[IpNetwork]) -> Result<bool, Error> {
        let awaited = awaited(addresses).map(|address| route_through(link, address));
        let requests: Vec<_> = std::iter::once(get_link_by_index(link.index)).chain(awaited).collect();
        let replies = self.socket.get_each(&requests)?;
        let (found, routes) =
            replies.split_first().map_or((false, [].as_slice()), |(link, routes)| (link.is_some(), routes));
        Ok(found && routes.iter().all(is_owned))
    }

    /// The first of `addresses` that the node would not take packets to from `link`.
    fn first_not_owned(&self, link: &Link, addresses: &[IpNetwork]) -> Result<Option<IpAddr>, Error> {
        for address in awaited(addresses) {
            if !is_owned(&self.socket.get(&route_through(link, address))?) {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }
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

/// By interface, for the same address may stand on several, and a bridge may have a table of its own.
fn route_through(link: &Link, destination: IpAddr) -> Request {
    let (family, prefix) = (family_of(destination), IpNetwork::from(destination).prefix());
    let header = RouteHeader { family, prefix, ..RouteHeader::default() };
    let message = header.message().ip(RTA_DST, destination).native(RTA_OIF, link.index);
    let doing = format!("look up the route to {destination} through {}", link.name);
    Request { forgiven: UNREACHABLE, ..request(doing, RTM_GETROUTE, message, 0) }
}
