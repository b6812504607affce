//! Host ports: ports of the node that lead into pods.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::element::kept;
use super::layout::Family;
use super::{Nft, layout};
use crate::Error;
use crate::netlink::Request;

mod elements;
mod foundation;

use elements::{Hairpin, Slot};

pub(super) use foundation::foundation;

/// A transport protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its number in the IP header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    const fn of_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The node's address; `0.0.0.0` or `::` for all that the node has of the family.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// `8080/tcp`, or with its address where it is not on all of them.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.address.is_unspecified() {
            write!(f, "{}/{}", self.port, self.protocol)
        } else {
            write!(f, "{}/{}", SocketAddr::new(self.address, self.port), self.protocol)
        }
    }
}

/// Which connections over a port of the node get an address of the node as their source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortSources {
    /// None: neither the pod nor a neighbour on its bridge reaches it over its own port.
    Keep,
    /// Those that would be answered past the node: the pod's own, and those of its neighbours on a bridge.
    #[default]
    Own,
    /// All of them: for a pod whose answers would not come back through the node.
    All,
}

/// A port of the node that leads into a pod. Each is one element of a map:
///
/// ```text
/// map ports4_at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
/// map ports4 {
///     type inet_proto . inet_service : ipv4_addr . inet_service
///     elements = { tcp . 8080 comment "weft/c1/eth0" : 10.244.0.2 . 80 }
/// }
/// set hairpin4 {                              # pods that may reach themselves through a port of the node
///     type ipv4_addr . ipv4_addr
///     elements = { 10.244.0.2 . 10.244.0.2 comment "weft/c1/eth0" }
/// }
/// set from_anybody4 { type ipv4_addr; }       # pods that see nobody's address but the node's
/// chain ports {                               # a port on one address comes before one on all
///     dnat ip to ip daddr . meta l4proto . th dport map @ports4_at
///     meta nfproto ipv4 dnat ip to meta l4proto . th dport map @ports4
///     …
/// }
/// chain prerouting { type nat hook prerouting priority dstnat; fib daddr type local jump ports; }
/// chain output { type nat hook output priority -100; ip6 daddr ::1 return; fib daddr type local jump ports; }
/// chain hairpin {
///     type nat hook postrouting priority srcnat;
///     ip saddr . ip daddr @hairpin4 masquerade
///     meta iifkind "bridge" meta oifkind "bridge" ct status dnat ip daddr . ip daddr @hairpin4 masquerade
///     ct status dnat ip daddr @from_anybody4 masquerade
///     oif != "lo" ip saddr 127.0.0.0/8 masquerade
///     …
/// }
/// chain loopback {                            # `route_localnet` must not open the node's loopback to its pods
///     type filter hook prerouting priority raw;
///     iif != "lo" ip saddr 127.0.0.0/8 drop
///     iif != "lo" ip daddr 127.0.0.0/8 drop
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where it is reached.
    pub at: HostPort,
    /// The pod's address and port; of the same family.
    pub to: SocketAddr,
    /// Whose it is; `nft list` shows it beside the element. Up to 127 bytes are kept.
    pub owner: String,
}

impl Published {
    /// Whether it was published for `owner`. Of owners that share their first 127 bytes each has what the others have.
    #[must_use]
    pub fn is_of(&self, owner: &str) -> bool {
        self.owner == kept(owner)
    }
}

impl Nft {
    /// Where `port` leads; `None` where it is not published.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn published_at(&self, port: &HostPort) -> Result<Option<Published>, Error> {
        let reply = self.socket.get(&elements::get(&Slot::of(port)))?;
        Ok(reply.and_then(|reply| elements::read_ports(&reply, Family::of(port.address)).pop()))
    }

    /// [`Nft::published_at`] for each of `ports`, all asked for at once.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn published_at_each(
        &self,
        ports: impl Iterator<Item = HostPort>,
    ) -> Result<Vec<Option<Published>>, Error> {
        let (families, requests): (Vec<_>, Vec<_>) =
            ports.map(|port| (Family::of(port.address), elements::get(&Slot::of(&port)))).unzip();
        let found = |(reply, family): (Option<_>, _)| elements::read_ports(&reply?, family).pop();
        Ok(self.socket.get_each(&requests)?.into_iter().zip(families).map(found).collect())
    }

    /// Every port that is published. Its cost grows with the node: not for the hot path.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn published(&self) -> Result<Vec<Published>, Error> {
        let mut all = Vec::new();
        for (map, family) in elements::MAPS {
            let replies = self.socket.dump(&elements::list(map))?;
            all.extend(replies.iter().flat_map(|reply| elements::read_ports(reply, family)));
        }
        Ok(all)
    }

    /// [`Nft::withdraw`] of ports alone.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn unpublish(&self, ports: &[Published]) -> Result<(), Error> {
        self.withdraw("", &[], ports)
    }

    /// What removes `ports`, as far as they stand for their owners.
    pub(super) fn deletions(&self, ports: &[Published]) -> Result<Vec<Request>, Error> {
        let hairpins = hairpins(ports).map(|hairpin| (hairpin.slot(), hairpin.owner));
        self.own(leading(ports).chain(hairpins))
    }

    /// What removes that in whose place `ports` may come: what the same owner has left at the same place, and what anybody
    /// has left for the address of the pod, which is nobody else's any more.
    pub(super) fn replaceable(&self, ports: &[Published]) -> Result<Vec<Request>, Error> {
        let mut all = self.own(leading(ports))?;
        all.extend(hairpins(ports).map(|hairpin| elements::delete(&hairpin.slot())));
        Ok(all)
    }

    fn own<'a>(&self, slots: impl Iterator<Item = (Slot, &'a str)>) -> Result<Vec<Request>, Error> {
        let mut own = Vec::new();
        for (slot, owner) in slots {
            if self.owner_of(&slot)?.is_some_and(|found| found == kept(owner)) {
                own.push(elements::delete(&slot));
            }
        }
        Ok(own)
    }

    fn owner_of(&self, slot: &Slot) -> Result<Option<String>, Error> {
        let reply = self.socket.get(&elements::get(slot))?;
        Ok(reply.and_then(|reply| elements::owners(&reply).pop()))
    }
}

/// Adds everything that `ports` need.
pub(super) fn add_elements(ports: &[Published], sources: PortSources) -> Vec<Request> {
    let leading = ports.iter().map(elements::add_port);
    let asked = |hairpin: &Hairpin<'_>| match sources {
        PortSources::Keep => false,
        PortSources::Own => !hairpin.from_anybody,
        PortSources::All => true,
    };
    leading.chain(hairpins(ports).filter(asked).map(|hairpin| hairpin.add())).collect()
}

/// The places of `ports`, each with its owner.
fn leading(ports: &[Published]) -> impl Iterator<Item = (Slot, &str)> {
    ports.iter().map(|port| (Slot::of(&port.at), port.owner.as_str()))
}

/// Two for each address that something leads to: for the pod itself, and for everybody.
fn hairpins(ports: &[Published]) -> impl Iterator<Item = Hairpin<'_>> {
    let is_first = |(index, port): &(usize, &Published)| {
        !ports.iter().take(*index).any(|earlier| earlier.to.ip() == port.to.ip())
    };
    let first = ports.iter().enumerate().filter(is_first);
    first.flat_map(|(_, port)| {
        [false, true].map(|from_anybody| Hairpin { pod: port.to.ip(), from_anybody, owner: &port.owner })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_written_as_people_write_it() {
        let port =
            |address: &str| HostPort { address: address.parse().unwrap(), protocol: Protocol::Udp, port: 53 };
        assert_eq!(port("0.0.0.0").to_string(), "53/udp");
        assert_eq!(port("::").to_string(), "53/udp");
        assert_eq!(port("192.0.2.1").to_string(), "192.0.2.1:53/udp");
        assert_eq!(port("2001:db8::1").to_string(), "[2001:db8::1]:53/udp");
    }

    #[test]
    fn a_pod_with_many_ports_has_one_way_to_itself_of_each_family() {
        let published = |port, to: &str| Published {
            at: HostPort { address: [0; 4].into(), protocol: Protocol::Tcp, port },
            to: to.parse().unwrap(),
            owner: "o".to_owned(),
        };
        let ports = [published(1, "10.0.0.2:1"), published(2, "10.0.0.2:2"), published(3, "[fd00::2]:1")];
        let own = hairpins(&ports).filter(|hairpin| !hairpin.from_anybody);
        assert_eq!(own.map(|hairpin| hairpin.pod.to_string()).collect::<Vec<_>>(), ["10.0.0.2", "fd00::2"]);
        let elements =
            [PortSources::Keep, PortSources::Own, PortSources::All].map(|of| add_elements(&ports, of).len());
        assert_eq!(elements, [3, 5, 7]);
    }
}
