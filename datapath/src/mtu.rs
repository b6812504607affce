//! How large a packet may be on its way (rtnetlink, and `netdevice(7)`).
#![expect(unsafe_code, reason = "the MTU of a link is asked for by `ioctl`")]

use std::collections::BTreeSet;
use std::mem;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc::ifreq;

use crate::error::Doing;
use crate::netlink::Request;
use crate::rtnl::get_route;
use crate::rtnl::wire::RTM_F_FIB_MATCH;
use crate::{Error, Rtnl, observe};

nix::ioctl_readwrite_bad! {
    /// `SIOCGIFNAME`: the name of the link with this index.
    name_of, 0x8910, ifreq
}

nix::ioctl_readwrite_bad! {
    /// `SIOCGIFMTU`: the MTU of the link with this name.
    mtu_of, 0x8921, ifreq
}

impl Rtnl {
    /// The smallest MTU of the paths to `destinations` as the routing table has it: a route's own, or its interface's.
    /// `None` where nothing leads there.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn path_mtu(&self, destinations: &[IpAddr]) -> Result<Option<u32>, Error> {
        let routes: Vec<_> = destinations.iter().map(|destination| get_way(*destination)).collect();
        let (mut found, mut links) = (Vec::new(), BTreeSet::new());
        for reply in self.socket.get_each(&routes)?.iter().flatten() {
            match observe::outgoing(reply) {
                (Some(mtu), _) => found.push(mtu),
                (None, through) => links.extend(through),
            }
        }
        for index in links {
            found.extend(self.link_mtu(index).doing(|| format!("look up the MTU of link {index}"))?);
        }
        Ok(found.into_iter().min())
    }

    /// An answer of netlink would have all else that there is to know of the link, and would wait for whoever changes any link of
    /// the node: of a burst of ADDs there is always one.
    fn link_mtu(&self, index: u32) -> Result<Option<u32>, Errno> {
        // SAFETY: it consists of numbers, all of which may be zero.
        let mut asked: ifreq = unsafe { mem::zeroed() };
        asked.ifr_ifru.ifru_ifindex = index.cast_signed();
        let socket = self.socket.as_raw_fd();
        // SAFETY: both write no more than the structure, and the second reads the name that the first has written.
        let answered =
            unsafe { name_of(socket, &raw mut asked).and_then(|_| mtu_of(socket, &raw mut asked)) };
        match answered {
            // SAFETY: it is what the kernel has written last.
            Ok(_) => Ok(u32::try_from(unsafe { asked.ifr_ifru.ifru_mtu }).ok()),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

/// Of IPv6 the route itself is asked for: with the way of a single packet the kernel says from which address it would leave, for which it
/// goes through all those of the node (`rt6_fill_node`, `__ipv6_dev_get_saddr`). Beside 1 000 pods that took a millisecond.
fn get_way(destination: IpAddr) -> Request {
    get_route(destination, if destination.is_ipv6() { RTM_F_FIB_MATCH } else { 0 })
}
