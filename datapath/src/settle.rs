//! When an interface carries packets (rtnetlink).
//!
//! The kernel answers that an interface is up with all that it holds before it is: two workers finish the rest in their own
//! time, which takes microseconds on a node that is idle, and tens of milliseconds on a busy one. What is sent or arrives until
//! then is thrown away.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use netlink_packet_route::route::RouteAttribute;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use crate::netlink::{Request, Socket};
use crate::observe::{self, Link};
use crate::rtnl::kind::RTM_GETROUTE;
use crate::rtnl::{UNREACHABLE, full, request, route_message};
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

    /// The first of `addresses` that the node would not take packets to from `link`. IPv4 addresses are owned as soon as they
    /// are there.
    fn first_not_owned(&self, link: &Link, addresses: &[IpNetwork]) -> Result<Option<IpAddr>, Error> {
        for address in addresses.iter().map(IpNetwork::ip).filter(IpAddr::is_ipv6) {
            let reply = self.socket.get(&route_through(link, address))?;
            if !reply.is_some_and(|reply| observe::is_local(&reply)) {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }
}

/// Routes of IPv6 that come and go, of `linux/rtnetlink.h`. The kernel tells of one after it has put it into the table.
const RTNLGRP_IPV6_ROUTE: u32 = 11;

/// By interface, for the same address may stand on several, and a bridge may have a table of its own.
fn route_through(link: &Link, destination: IpAddr) -> Request {
    let mut message = route_message(destination.is_ipv4());
    message.header.destination_prefix_length = full(destination);
    message
        .attributes
        .extend([RouteAttribute::Destination(destination.into()), RouteAttribute::Oif(link.index)]);
    let doing = format!("look up the route to {destination} through {}", link.name);
    Request { forgiven: UNREACHABLE, ..request(doing, RTM_GETROUTE, &message, 0) }
}
