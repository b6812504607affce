//! A VXLAN link whose far ends are all known (rtnetlink): nothing is learned from packets, and nothing is flooded.
//!
//! For each far end stands an entry in the link's forwarding database, from its hardware address to the node's address,
//! and permanent neighbours from next hops to that hardware address. What has no entry is dropped.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nix::errno::Errno;

use crate::netlink::{Attributes, Purpose, Reply, Request, attribute_of, attributes_of, flag, native};
use crate::observe;
use crate::rtnl::{add_neighbour, address_message, get_link, wire::*};
use crate::{Error, Interface, Link, LinkLocal, Mac, Neighbour, Refusal, Rtnl};

/// How a VXLAN link is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// Its name, 1 to 15 bytes.
    pub name: String,
    /// By which it is known as ours. A link of this name with another one is somebody else's.
    pub alias: String,
    /// The VXLAN network identifier, 24 bits.
    pub id: u32,
    /// The UDP port that every node listens on.
    pub port: u16,
    /// This node's address, from which packets are sent; the family is that of all far ends.
    pub local: IpAddr,
    /// Its hardware address.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses; it has no others.
    pub addresses: Vec<IpAddr>,
}

/// What had to be done for a link to be as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// Nothing.
    Stood,
    /// Something of it was set anew, while it stayed.
    Adjusted,
    /// It was made.
    Created,
    /// It had been made for another id, port or address, and was made again; all that stood on it is gone.
    Replaced,
}

/// A VXLAN link that stands, whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VxlanLink {
    /// The link.
    pub link: Link,
    /// Its VXLAN network identifier.
    pub id: u32,
    /// Its UDP port.
    pub port: u16,
    /// The address from which it sends, where it has one.
    pub local: Option<IpAddr>,
}

/// Where the far end with a hardware address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FarEnd {
    /// Its hardware address.
    pub mac: Mac,
    /// The address of its node.
    pub remote: IpAddr,
}

/// What cannot be changed of a link that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fixed {
    id: u32,
    port: u16,
    local: Option<IpAddr>,
    learns: bool,
}

const RTM_DELNEIGH: u16 = 29;
const NTF_SELF: u8 = 0x02;
const NUD_NOARP: u16 = 0x40;
const NDA_IFINDEX: u16 = 8;

/// Inside `IFLA_INFO_DATA` of a VXLAN link.
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const IFLA_VXLAN_UDP_CSUM: u16 = 18;

impl Rtnl {
    /// Makes sure that the link is there and as it should be. What it has of far ends and neighbours stays.
    ///
    /// The kernel takes no alias in the message that makes a link (`rtnl_create_link`; only `do_setlink` reads `IFLA_IFALIAS`), so
    /// between the two messages the link is known by its hardware address, which it has from the first moment: it follows
    /// from the node's name, and no other link gets it.
    ///
    /// # Errors
    /// `EEXIST` where somebody else's link has the name, or the same id and port. It stays as it is.
    pub fn ensure_vxlan(&self, wanted: &Vxlan) -> Result<(Link, Ensured), Error> {
        let Some((link, fixed)) = self.vxlan(wanted)? else {
            return Ok((self.create_vxlan(wanted)?, Ensured::Created));
        };
        if fixed != wanted.fixed() {
            self.delete_link(&link)?;
            return Ok((self.create_vxlan(wanted)?, Ensured::Replaced));
        }
        let was_set = !wanted.is_set(&link);
        let were_addressed = self.address_vxlan(wanted, &link, was_set)?;
        let ensured = if was_set || were_addressed { Ensured::Adjusted } else { Ensured::Stood };
        Ok((link, ensured))
    }

    /// Removes the link of this name, if there is one with this alias. True if there was.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn remove_vxlan(&self, name: &str, alias: &str) -> Result<bool, Error> {
        match self.link(name)? {
            Some(link) if link.alias.as_deref() == Some(alias) => self.delete_link(&link).map(|()| true),
            _ => Ok(false),
        }
    }

    /// All addresses, with the index of the link each is on.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn addresses(&self) -> Result<Vec<(u32, IpNetwork)>, Error> {
        let list =
            request(Purpose::from("list the addresses"), RTM_GETADDR, AddressHeader::default().message(), 0);
        Ok(self.socket.dump(&list)?.iter().filter_map(|reply| observe::read_address(&reply.body)).collect())
    }

    /// All VXLAN links.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn vxlans(&self) -> Result<Vec<VxlanLink>, Error> {
        let list =
            request(Purpose::from("list the VXLAN links"), RTM_GETLINK, LinkHeader::default().message(), 0);
        let read = |reply: &Reply| {
            let Fixed { id, port, local, .. } = Fixed::read(reply)?;
            Some(VxlanLink { link: observe::link(reply)?, id, port, local })
        };
        Ok(self.socket.dump(&list)?.iter().filter_map(read).collect())
    }

    /// The far ends that `link` knows.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn far_ends(&self, link: &Link) -> Result<Vec<FarEnd>, Error> {
        // Of the two headers that the kernel takes, only this one makes it leave out all other links.
        let message = LinkHeader { family: AF_BRIDGE, ..LinkHeader::of(link.index) }.message();
        let list = request(Purpose::of("list the far ends of", &link.name), RTM_GETNEIGH, message, 0);
        Ok(self.socket.dump(&list)?.iter().filter_map(|reply| read_far_end(link, reply)).collect())
    }

    /// Makes `link` know this far end, and forget where it was before.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_far_end(&self, link: &Link, end: &FarEnd) -> Result<(), Error> {
        let message = far_end_message(link, end);
        let doing = Purpose::of("add the far end", end.remote).and("to", &link.name);
        self.socket.carry_out(&[request(doing, RTM_NEWNEIGH, message, flag::CREATE | flag::REPLACE)])
    }

    /// Makes `link` forget this far end. One that it does not know is no error.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn remove_far_end(&self, link: &Link, end: &FarEnd) -> Result<(), Error> {
        let message = far_end_message(link, end);
        let doing = Purpose::of("remove the far end", end.remote).and("from", &link.name);
        self.socket
            .carry_out(&[Request { forgiven: &[Errno::ENOENT], ..request(doing, RTM_DELNEIGH, message, 0) }])
    }

    /// The permanent neighbours on `link`.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn neighbours_on(&self, link: &Link) -> Result<Vec<Neighbour>, Error> {
        let message = NeighbourHeader::default().message().native(NDA_IFINDEX, link.index);
        let list = request(Purpose::of("list the neighbours on", &link.name), RTM_GETNEIGH, message, 0);
        let all = self.socket.dump(&list)?;
        let all = all.iter().filter_map(|reply| observe::read_neighbour(&reply.body));
        Ok(all.filter(|(index, _)| *index == link.index).map(|(_, neighbour)| neighbour).collect())
    }

    /// Adds a permanent neighbour, or changes the one with its address.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_neighbour(&self, link: &Link, neighbour: &Neighbour) -> Result<(), Error> {
        self.socket.carry_out(&[add_neighbour(&link.name, link.index, neighbour)])
    }

    /// Removes the neighbour with this address. One that is gone is no error.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn remove_neighbour(&self, link: &Link, address: IpAddr) -> Result<(), Error> {
        let header =
            NeighbourHeader { family: family_of(address), index: link.index, ..NeighbourHeader::default() };
        let doing = Purpose::of("remove neighbour", address).and("from", &link.name);
        let delete = request(doing, RTM_DELNEIGH, header.message().ip(NDA_DST, address), 0);
        self.socket.carry_out(&[Request { forgiven: &[Errno::ENOENT], ..delete }])
    }

    fn vxlan(&self, wanted: &Vxlan) -> Result<Option<(Link, Fixed)>, Error> {
        let Some(reply) = self.socket.get(&get_link(&wanted.name))? else { return Ok(None) };
        let Some(link) = observe::link(&reply) else { return Ok(None) };
        match Fixed::read(&reply).filter(|_| wanted.is_known_by(&link)) {
            Some(fixed) => Ok(Some((link, fixed))),
            None => {
                let refusal = Refusal { errno: Errno::EEXIST, explanation: Some(of_somebody_else(&link)) };
                Err(Error::new(format!("make the VXLAN link {}", wanted.name), refusal))
            }
        }
    }

    fn create_vxlan(&self, wanted: &Vxlan) -> Result<Link, Error> {
        let info = Attributes::default().text(IFLA_INFO_KIND, "vxlan").nested(IFLA_INFO_DATA, wanted.data());
        let message = LinkHeader::default()
            .message()
            .text(IFLA_IFNAME, &wanted.name)
            .bytes(IFLA_ADDRESS, &wanted.mac.octets())
            .native(IFLA_MTU, wanted.mtu)
            .nested(IFLA_LINKINFO, info);
        let doing = Purpose::of("make the VXLAN link", &wanted.name);
        let create = request(doing, RTM_NEWLINK, message, flag::CREATE | flag::EXCL);
        self.socket.carry_out(&[create])?;
        let gone = || Error::new(format!("make the VXLAN link {}", wanted.name), Errno::ENODEV);
        let link = self.link(&wanted.name)?.ok_or_else(gone)?;
        self.configure_link(&wanted.interface(wanted.addresses.clone()), &link)?;
        Ok(link)
    }

    /// Sets what may change, where something of it is different. True if addresses were.
    fn address_vxlan(&self, wanted: &Vxlan, link: &Link, set: bool) -> Result<bool, Error> {
        let here = self.addresses()?.into_iter().filter(|(index, _)| *index == link.index);
        let here: Vec<_> = here.map(|(_, address)| address).collect();
        let missing: Vec<_> =
            wanted.addresses.iter().filter(|ip| !here.contains(&IpNetwork::from(**ip))).copied().collect();
        let strange: Vec<_> = here.into_iter().filter(|there| !wanted.has(*there)).collect();
        if set || !missing.is_empty() {
            self.configure_link(&wanted.interface(missing.clone()), link)?;
        }
        for address in &strange {
            let doing = Purpose::of("remove address", *address).and("from", &link.name);
            self.socket.carry_out(&[request(
                doing,
                RTM_DELADDR,
                address_message(link.index, *address, 0),
                0,
            )])?;
        }
        Ok(!missing.is_empty() || !strange.is_empty())
    }
}

impl Vxlan {
    const fn fixed(&self) -> Fixed {
        Fixed { id: self.id, port: self.port, local: Some(self.local), learns: false }
    }

    /// By its alias; before it has one, by its hardware address.
    fn is_known_by(&self, link: &Link) -> bool {
        link.alias.as_ref().map_or(link.mac == Some(self.mac), |alias| *alias == self.alias)
    }

    fn is_set(&self, link: &Link) -> bool {
        let alias = link.alias.as_ref() == Some(&self.alias);
        alias && link.up && link.mtu == self.mtu && link.mac == Some(self.mac)
    }

    fn has(&self, address: IpNetwork) -> bool {
        self.addresses.iter().any(|ip| IpNetwork::from(*ip) == address)
    }

    /// Without a link-local address of its own: no router is looked for here, and no group joined.
    fn interface(&self, addresses: Vec<IpAddr>) -> Interface {
        Interface {
            mac: Some(self.mac),
            mtu: Some(self.mtu),
            alias: Some(self.alias.clone()),
            link_local: LinkLocal::None,
            addresses: addresses.into_iter().map(IpNetwork::from).collect(),
            ..Interface::named(&self.name)
        }
    }

    fn data(&self) -> Attributes {
        let local = if self.local.is_ipv4() { IFLA_VXLAN_LOCAL } else { IFLA_VXLAN_LOCAL6 };
        Attributes::default()
            .native(IFLA_VXLAN_ID, self.id)
            .ip(local, self.local)
            .bytes(IFLA_VXLAN_LEARNING, &[0])
            .bytes(IFLA_VXLAN_PORT, &self.port.to_be_bytes())
            // With a checksum outside, a receiver's card vouches for the packets inside, and they are joined before they
            // come up. Without one each is a packet of its own, and cards that fill in checksums inside tunnels spoil it
            // where the outer one is zero and the packet's source is rewritten.
            .bytes(IFLA_VXLAN_UDP_CSUM, &[1])
    }
}

impl Fixed {
    /// `None` where it is no VXLAN link.
    fn read(reply: &Reply) -> Option<Self> {
        let (_, attributes) = LinkHeader::read(&reply.body)?;
        let info = attribute_of(attributes, IFLA_LINKINFO)?;
        if attribute_of(info, IFLA_INFO_KIND)? != b"vxlan\0" {
            return None;
        }
        let mut fixed = Self { id: 0, port: 0, local: None, learns: false };
        for (kind, value) in attributes_of(attribute_of(info, IFLA_INFO_DATA)?) {
            match kind {
                IFLA_VXLAN_ID => fixed.id = native(value)?,
                IFLA_VXLAN_PORT => fixed.port = u16::from_be_bytes(value.try_into().ok()?),
                IFLA_VXLAN_LOCAL | IFLA_VXLAN_LOCAL6 => fixed.local = ip(value),
                IFLA_VXLAN_LEARNING => fixed.learns = value != [0],
                _ => {}
            }
        }
        Some(fixed)
    }
}

fn of_somebody_else(link: &Link) -> String {
    let kind = link.kind.as_deref().unwrap_or("hardware");
    let alias = link.alias.as_ref().map_or("no alias".to_owned(), |alias| format!("the alias {alias:?}"));
    format!(
        "a link of that name is there and is somebody else's ({kind}, with {alias}): it stays as it is until whoever needs it renames \
         it, or it is deleted (`ip link delete {}`)",
        link.name
    )
}

fn far_end_message(link: &Link, end: &FarEnd) -> Attributes {
    let state = NUD_NOARP | NUD_PERMANENT;
    NeighbourHeader { family: AF_BRIDGE, index: link.index, state, flags: NTF_SELF }
        .message()
        .bytes(NDA_LLADDR, &end.mac.octets())
        .ip(NDA_DST, end.remote)
}

fn read_far_end(link: &Link, reply: &Reply) -> Option<FarEnd> {
    let (header, attributes) = NeighbourHeader::read(&reply.body)?;
    if header.index != link.index || header.family != AF_BRIDGE {
        return None;
    }
    let remote = ip(attribute_of(attributes, NDA_DST)?)?;
    Some(FarEnd { mac: Mac::from_bytes(attribute_of(attributes, NDA_LLADDR)?)?, remote })
}
