//! Which ports a process of the node waits at (sock_diag).
//!
//! The kernel looks for the socket that a packet would be given to, which costs the same however many there are
//! (`inet_diag_dump_one_icsk` in `net/ipv4/inet_diag.c`, `udp_dump_one` in `net/ipv4/udp_diag.c`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::errno::Errno;

use crate::netlink::{Object, Purpose, Request, Socket};
use crate::rtnl::wire::family_of;
use crate::{Error, HostPort, Protocol};

/// Those of `ports` to which a process of the calling thread's namespace listens. Of a port on all addresses it is told of who
/// listens on all of them, or on the loopback's. Nothing is told where the kernel cannot be asked (`CONFIG_INET_DIAG`), and of
/// SCTP.
///
/// # Errors
/// Where the kernel refuses.
pub fn listened_to(ports: impl Iterator<Item = HostPort>) -> Result<Vec<HostPort>, Error> {
    let ports: Vec<_> = ports.filter(|port| port.protocol != Protocol::Sctp).collect();
    let Ok(socket) = Socket::open(NETLINK_SOCK_DIAG) else { return Ok(Vec::new()) };
    let requests: Vec<_> = ports.iter().map(look_up).collect();
    let found = socket.get_each(&requests)?;
    Ok(ports.into_iter().zip(found).filter_map(|(port, found)| found.map(|_| port)).collect())
}

/// `struct inet_diag_req_v2`. For TCP the node's end is the source and for UDP the destination, so it is both; nothing is
/// connected so.
fn look_up(port: &HostPort) -> Request {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const ANY_STATE: u32 = u32::MAX;
    const NO_COOKIE: [u8; 8] = [0xff; 8];
    let address = address_to_ask(port.address);
    let [high, low] = port.port.to_be_bytes();
    let mut octets = [0; 16];
    match address {
        IpAddr::V4(ip) => octets[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => octets = ip.octets(),
    }
    let mut body = vec![family_of(address), port.protocol.number(), 0, 0];
    body.extend(ANY_STATE.to_ne_bytes());
    body.extend([high, low, high, low]);
    body.extend(octets);
    body.extend(octets);
    body.extend([0; 4]);
    body.extend(NO_COOKIE);
    // EINVAL and ENOENT also where the kernel, or its module for the protocol, is without it.
    let forgiven = &[Errno::ENOENT, Errno::EINVAL, Errno::EOPNOTSUPP];
    Request {
        doing: Purpose::of("look up who listens on", Object::Port(*port)),
        kind: SOCK_DIAG_BY_FAMILY,
        flags: 0,
        body,
        forgiven,
    }
}

const fn address_to_ask(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address => address,
    }
}
