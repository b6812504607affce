//! Weft's nftables table, over nfnetlink.
//!
//! All of Weft's firewall state is one table, `inet weft`. A pod is an element of a map, never a rule, so that what a
//! packet costs, and what an ADD costs, does not grow with the pods:
//!
//! ```text
//! table inet weft {
//!     map masquerade4 {                       # who is masqueraded, and by which subnet's exceptions
//!         type ipv4_addr : verdict
//!         elements = { 10.244.0.2 comment "weft/c1/eth0" : jump masquerade_0af40000_24 }
//!     }
//!     map masquerade6 { type ipv6_addr : verdict … }
//!     set unmasqueraded4 {                    # destinations to which nobody is: pods of other nodes
//!         type ipv4_addr; flags interval
//!         elements = { 10.244.1.0/24 }
//!     }
//!     set unmasqueraded6 { type ipv6_addr; flags interval … }
//!     chain postrouting {
//!         type nat hook postrouting priority srcnat; policy accept;
//!         ip saddr vmap @masquerade4
//!         ip6 saddr vmap @masquerade6
//!     }
//!     chain masquerade_0af40000_24 {          # one for each subnet
//!         ip daddr 10.244.0.0/24 return
//!         ip daddr 224.0.0.0/4 return
//!         ip daddr @unmasqueraded4 return
//!         masquerade
//!     }
//! }
//! ```
//!
//! An ADD tries the one element first and makes the table only where it is missing (or was flushed), in one atomic
//! batch that any number of processes may run at the same time. A chain cannot go while an element jumps to it, so
//! nothing here needs a lock of its own.
//!
//! Where a pod has host ports, the table also has the maps and chains that [`Published`] draws. A node without any
//! pays nothing for them.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use crate::Error;
use crate::netlink::{Reply, Request, Socket, attribute_of};

mod base;
mod chains;
mod element;
mod expr;
mod layout;
mod ports;
mod source;
mod unmasqueraded;
pub(crate) mod wire;

pub use base::{BaseChain, Hook};
pub use chains::Chain;
pub use ports::{HostPort, PortSources, Protocol, Published};
pub use source::PinnedSource;
pub use unmasqueraded::Resettled;

use layout::Family;
pub(crate) use layout::TABLE;
use wire::{Attributes, message};

/// One address whose traffic to the outside gets the node's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// The pod's address, with the prefix of its subnet: traffic within the subnet keeps its address, as does
    /// multicast.
    pub address: IpNetwork,
    /// Whose it is; `nft list` shows it beside the element. Up to 127 bytes are kept.
    pub owner: String,
}

/// An address that is masqueraded, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masqueraded {
    /// The address.
    pub address: IpAddr,
    /// Whose it is, as far as it was kept; empty where nobody said so.
    pub owner: String,
}

impl Masqueraded {
    /// Whether it was masqueraded for `owner`. Of owners that share their first 127 bytes each has what the others have.
    #[must_use]
    pub fn is_of(&self, owner: &str) -> bool {
        self.owner == element::kept(owner)
    }
}

/// What is put into the table together.
#[derive(Clone, Copy, Debug)]
struct Elements<'a> {
    masquerade: &'a [Masquerade],
    ports: &'a [Published],
    sources: PortSources,
}

impl Elements<'_> {
    /// The elements themselves.
    fn add(self) -> Vec<Request> {
        let masquerade = self.masquerade.iter().map(layout::add_element);
        masquerade.chain(ports::add_elements(self.ports, self.sources)).collect()
    }

    /// What they need to stand on.
    fn foundation(self) -> Vec<Request> {
        let mut requests = layout::table();
        // Once for each subnet: a node's pods share theirs.
        let is_first = |(index, element): &(usize, &Masquerade)| {
            !self.masquerade.iter().take(*index).any(|earlier| is_of_one_subnet(earlier, element))
        };
        let of_subnets = self.masquerade.iter().enumerate().filter(is_first);
        requests.extend(of_subnets.flat_map(|(_, element)| layout::subnet_chain(element)));
        if !self.ports.is_empty() {
            requests.extend(ports::foundation());
        }
        requests
    }
}

fn is_of_one_subnet(one: &Masquerade, other: &Masquerade) -> bool {
    one.address.prefix() == other.address.prefix() && one.address.network() == other.address.network()
}

/// An nfnetlink socket, in the namespace it was opened in.
///
/// Closing one waits until the kernel has freed what was deleted last by anybody, which takes a grace period
/// (`nft_rcv_nl_event` in `net/netfilter/nf_tables_api.c`; 26 ms were measured). Whoever has something else to do that
/// takes as long should do it before.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
}

impl Nft {
    /// Opens a socket in the namespace of the calling thread.
    ///
    /// # Errors
    /// Where the kernel has no nfnetlink.
    pub fn open() -> Result<Self, Error> {
        Socket::open(NETLINK_NETFILTER).map(|socket| Self { socket })
    }

    /// Opens one, unless the kernel has no nf_tables: then nothing of what is found here can stand.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn open_if_any() -> Result<Option<Self>, Error> {
        // Without nfnetlink there is no such socket; without nf_tables it does not know the message (`nfnetlink_rcv_msg`).
        let is_absent = |e: &Error| matches!(e.errno(), Errno::EPROTONOSUPPORT | Errno::EINVAL);
        let found = Self::open().and_then(|nft| nft.generation().map(|_any| nft));
        found.map(Some).or_else(|e| if is_absent(&e) { Ok(None) } else { Err(e) })
    }

    /// Masquerades all of `elements`, or none. What stands for one of the addresses from an owner that never cleaned
    /// up is replaced: the address is the caller's now.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn masquerade(&self, elements: &[Masquerade]) -> Result<(), Error> {
        self.install(elements, &[])
    }

    /// Masquerades all of `masquerade` and publishes all of `ports`, in one atomic batch: all of it, or none. What stands
    /// for one of the addresses from an owner that never cleaned up is replaced, and so is what stands for one of the ports
    /// from the same owner.
    ///
    /// # Errors
    /// Where the kernel refuses. With `EEXIST` a port is another owner's; [`Nft::published_at`] says whose.
    pub fn install(&self, masquerade: &[Masquerade], ports: &[Published]) -> Result<(), Error> {
        self.install_for(masquerade, ports, PortSources::Own)
    }

    /// The same, where it is said which connections over the ports get another source.
    ///
    /// # Errors
    /// As for [`Nft::install`].
    pub fn install_for(
        &self,
        masquerade: &[Masquerade],
        ports: &[Published],
        sources: PortSources,
    ) -> Result<(), Error> {
        let elements = Elements { masquerade, ports, sources };
        let add = elements.add();
        if add.is_empty() {
            return Ok(());
        }
        // A table that an earlier release made lacks the rule for it.
        if sources == PortSources::All {
            return self.install_anew(elements, &add);
        }
        match self.batch(None, &add) {
            Err(e) if e.errno() == Errno::ENOENT => self.install_anew(elements, &add),
            Err(e) if matches!(e.errno(), Errno::EEXIST | Errno::EBUSY) => self.install_instead(elements),
            answer => answer,
        }
    }

    /// [`Nft::withdraw`] of masquerading alone.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn stop_masquerading(&self, owner: &str, addresses: &[IpAddr]) -> Result<(), Error> {
        self.withdraw(owner, addresses, &[])
    }

    /// Ends the masquerading of `addresses` for `owner`, and what `ports` say as far as it is their owners'. One that does
    /// not stand is no error, and one that stands for somebody else stays: two networks may have the same range.
    ///
    /// All of it is one batch, because the kernel frees what a batch has deleted after a grace period of its own, which
    /// closing the socket waits for.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn withdraw(&self, owner: &str, addresses: &[IpAddr], ports: &[Published]) -> Result<(), Error> {
        let mut own = Vec::new();
        for address in addresses {
            if self.find(*address)?.is_some_and(|found| found.is_of(owner)) {
                own.push(layout::delete_element(*address));
            }
        }
        own.extend(self.deletions(ports)?);
        self.delete(&own)
    }

    /// How packets from `address` are masqueraded; `None` where they are not.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn find(&self, address: IpAddr) -> Result<Option<Masqueraded>, Error> {
        let reply = self.socket.get(&layout::get_element(address))?;
        Ok(reply.and_then(|reply| layout::elements(&reply, Family::of(address)).pop()))
    }

    /// Every address that is masqueraded. Its cost grows with the node: not for the hot path.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn masqueraded(&self) -> Result<Vec<Masqueraded>, Error> {
        let mut all = Vec::new();
        for family in [Family::V4, Family::V6] {
            let replies = self.socket.dump(&layout::list_elements(family))?;
            all.extend(replies.iter().flat_map(|reply| layout::elements(reply, family)));
        }
        Ok(all)
    }

    /// Removes the tables if nothing uses them. A change by anybody between the look and the removal makes the kernel
    /// refuse the removal (the batch names the generation it was decided on), and the table stays.
    ///
    /// # Errors
    /// Where the kernel refuses for another reason.
    pub fn remove_unused_table(&self) -> Result<(), Error> {
        self.remove_unused_bridge_table()?;
        let generation = self.generation()?;
        // A batch that fails takes a grace period of the kernel (`nf_tables_abort`), and runtimes repeat a DEL.
        let is_used = || Ok::<_, Error>(self.is_used()? || !self.unmasqueraded()?.is_empty());
        if self.socket.get(&layout::get_table())?.is_none() || is_used()? {
            return Ok(());
        }
        match self.batch(Some(generation), &[layout::delete_table()]) {
            Err(e) if matches!(e.errno(), Errno::ENOENT | Errno::ERESTART) => Ok(()),
            answer => answer,
        }
    }

    /// Whether there is no element in any of Weft's maps.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn is_unused(&self) -> Result<bool, Error> {
        Ok(!self.is_used()? && self.pinned_sources()?.is_empty())
    }

    fn is_used(&self) -> Result<bool, Error> {
        Ok(!self.masqueraded()?.is_empty() || !self.published()?.is_empty())
    }

    /// The table is missing or incomplete: makes it, then the elements. Both in one batch, so that a flush in between
    /// cannot come between.
    fn install_anew(&self, elements: Elements<'_>, add: &[Request]) -> Result<(), Error> {
        let mut requests = elements.foundation();
        requests.extend_from_slice(add);
        match self.batch(None, &requests) {
            Err(e) if matches!(e.errno(), Errno::EEXIST | Errno::EBUSY) => self.install_instead(elements),
            answer => answer,
        }
    }

    /// At least one of the elements stands already: takes out those that may be replaced, and puts all in as they
    /// should be.
    fn install_instead(&self, elements: Elements<'_>) -> Result<(), Error> {
        let mut standing: Vec<_> =
            elements.masquerade.iter().map(|element| layout::delete_element(element.address.ip())).collect();
        standing.extend(self.replaceable(elements.ports)?);
        self.delete(&standing)?;
        let mut requests = elements.foundation();
        requests.extend(elements.add());
        self.batch(None, &requests)
    }

    /// In one batch, unless somebody is removing them at the same time: one that is missing would keep the others.
    fn delete(&self, deletions: &[Request]) -> Result<(), Error> {
        if deletions.is_empty() {
            return Ok(());
        }
        let absent = |e: &Error| e.errno() == Errno::ENOENT;
        match self.batch(None, deletions) {
            Err(e) if absent(&e) => deletions.iter().try_for_each(|request| {
                self.batch(None, std::slice::from_ref(request))
                    .or_else(|e| if absent(&e) { Ok(()) } else { Err(e) })
            }),
            answer => answer,
        }
    }

    fn generation(&self) -> Result<u32, Error> {
        const NFTA_GEN_ID: u16 = 1;
        let get = message("read the ruleset's generation", wire::GETGEN, 0, Attributes::default());
        let id = |reply: Reply| {
            let body = reply.body.get(wire::NFGENMSG..)?;
            attribute_of(body, NFTA_GEN_ID)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
        };
        let unreadable = || Error::new("read the ruleset's generation", Errno::EBADMSG);
        self.socket.get(&get)?.and_then(id).ok_or_else(unreadable)
    }

    /// Carries out all of `requests` or none; with a `generation`, only if nothing has changed since it.
    fn batch(&self, generation: Option<u32>, requests: &[Request]) -> Result<(), Error> {
        self.socket.make_room(requests);
        self.socket.transact(&wire::batch_begin(generation), requests, &wire::batch_end())
    }
}
