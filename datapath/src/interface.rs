//! What an interface is to hold, as plain values.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::{Mac, Port, Shaping};

/// A pair of virtual Ethernet interfaces, one end on the host and one in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// The end in the namespace of the socket that makes the pair.
    pub host: Interface,
    /// The end in the pod's namespace.
    pub pod: Interface,
}

/// An interface and all that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name, 1 to 15 bytes.
    pub name: String,
    /// Its hardware address; where there is none, the kernel chooses one, or it stays as it is.
    pub mac: Option<Mac>,
    /// Its MTU in bytes; where there is none, the kernel's default (1500), or it stays as it is.
    pub mtu: Option<u32>,
    /// Its alias (`ip link show` prints it): whose it is. Up to 255 bytes.
    pub alias: Option<String>,
    /// Whether it is brought up; where not, it stays as it is.
    pub up: bool,
    /// The group of links that it is in from its first moment until it gets its alias, which cannot come with a link. Who
    /// makes it may be killed in between; the group then says whose it is.
    pub group: Option<u32>,
    /// Which IPv6 link-local address it has when it comes up.
    pub link_local: LinkLocal,
    /// Whether it takes frames that are for others; where nothing is said, it stays as it is.
    pub promisc: Option<bool>,
    /// Whether it takes all multicast frames; where nothing is said, it stays as it is.
    pub allmulti: Option<bool>,
    /// Length of its transmit queue in packets; the kernel's default (1000) where there is none.
    pub tx_queue_len: Option<u32>,
    /// How what leaves by it is slowed down. It is before the first packet can leave.
    pub shaping: Option<Shaping>,
    /// What it is on a bridge, where it is a port of one.
    pub port: Option<Port>,
    /// Its addresses. None of them brings a route for its prefix, and none waits for duplicate address detection.
    pub addresses: Vec<IpNetwork>,
    /// Neighbours that are known for good.
    pub neighbours: Vec<Neighbour>,
    /// Routes through it, in the order in which they are added.
    pub routes: Vec<Route>,
}

impl Interface {
    /// An interface that holds nothing yet.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            mac: None,
            mtu: None,
            alias: None,
            up: true,
            group: None,
            link_local: LinkLocal::Detected,
            promisc: None,
            allmulti: None,
            tx_queue_len: None,
            shaping: None,
            port: None,
            addresses: Vec::new(),
            neighbours: Vec::new(),
            routes: Vec::new(),
        }
    }
}

/// Where an interface's IPv6 link-local address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLocal {
    /// The kernel gives it one, which it may use when nobody else on the link is found to have it: after a second or two.
    Detected,
    /// It has the one of its hardware address (RFC 4291, appendix A) at once. As with its other addresses, the kernel takes it away when
    /// the interface goes down, and does not give it back.
    AtOnce,
    /// It has none.
    None,
}

/// A permanent entry of the neighbour table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub ip: IpAddr,
    /// Its hardware address.
    pub mac: Mac,
}

/// A route through an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Destination; host bits are cleared.
    pub dst: IpNetwork,
    /// Next hop; without one the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The address that packets along it are sent from, where they have none yet.
    pub source: Option<IpAddr>,
    /// Path MTU in bytes.
    pub mtu: Option<u32>,
    /// Maximal segment size to advertise, in bytes.
    pub advmss: Option<u32>,
    /// Priority (metric), lower first.
    pub priority: Option<u32>,
    /// Table; the main one where there is none.
    pub table: Option<u32>,
    /// Scope; where there is none, link without a gateway and global with one.
    pub scope: Option<u8>,
}

impl Route {
    /// A route for what is on the link itself.
    #[must_use]
    pub const fn on_link(dst: IpNetwork) -> Self {
        Self {
            dst,
            gateway: None,
            source: None,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }
    }

    /// A route through a next hop.
    #[must_use]
    pub const fn via(dst: IpNetwork, gateway: IpAddr) -> Self {
        Self { gateway: Some(gateway), ..Self::on_link(dst) }
    }
}
