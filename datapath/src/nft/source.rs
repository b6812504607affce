//! Ports of a bridge that may send from one hardware address only.
//!
//! ```text
//! table bridge weft {
//!     map sources {                           # who is held to which address
//!         type ifname : ether_addr
//!         elements = { "weft0123456789a" comment "weft/c1/eth0" : 02:00:00:00:00:01 }
//!     }
//!     set pinned {                            # what they may send
//!         type ifname . ether_addr
//!         elements = { "weft0123456789a" . 02:00:00:00:00:01 comment "weft/c1/eth0" }
//!     }
//!     chain prerouting {                      # before the bridge learns from the packet
//!         type filter hook prerouting priority dstnat; policy accept;
//!         iifname @sources iifname . ether saddr != @pinned drop
//!     }
//! }
//! ```
//!
//! The set is what a packet is compared with, since a rule cannot compare it with a map's value. The map makes the
//! set's element be found by the port's name alone. `nft list` leaves out `iifname @sources`: it has no words for a look
//! into a map that is only there to match.

use nix::errno::Errno;

use super::Nft;
use super::element::{self, bytes_of, comment, elements_of, owner_of};
use super::expr::{Expressions, value};
use super::layout::TABLE;
use super::wire::{self, Attributes, NFPROTO_BRIDGE, message_in};
use crate::netlink::{Purpose, Reply, Request, flag};
use crate::{Error, Mac};

const SOURCES: &str = "sources";
const PINNED: &str = "pinned";
const PREROUTING: &str = "prerouting";

const IFNAME_LENGTH: usize = 16;
const MAC_LENGTH: u32 = 6;
/// The parts of a concatenated key stand in registers of four bytes.
const PAIR_LENGTH: usize = IFNAME_LENGTH + 8;

/// Types by which `nft` prints what they are of (`TYPE_IFNAME`, `TYPE_ETHERADDR` of its `datatype.h`).
const TYPE_IFNAME: u32 = 41;
const TYPE_ETHERADDR: u32 = 9;
const TYPE_PAIR: u32 = TYPE_IFNAME << 6 | TYPE_ETHERADDR;

/// A port, and the one hardware address that it may send from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedSource {
    /// The port's name.
    pub port: String,
    /// The address.
    pub mac: Mac,
    /// Whose it is; `nft list` shows it beside the element. Up to 127 bytes are kept.
    pub owner: String,
}

impl PinnedSource {
    /// Whether it was pinned for `owner`. Of owners that share their first 127 bytes each has what the others have.
    #[must_use]
    pub fn is_of(&self, owner: &str) -> bool {
        self.owner == element::kept(owner)
    }
}

impl Nft {
    /// Drops from now on what `source.port` sends from any other address. What stood for the port is replaced.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn pin_source(&self, source: &PinnedSource) -> Result<(), Error> {
        let add = elements(source);
        match self.batch(None, &add) {
            Err(e) if e.errno() == Errno::ENOENT => {
                let mut requests = table();
                requests.extend(add);
                self.batch(None, &requests)
            }
            Err(e) if e.errno() == Errno::EEXIST => {
                self.unpin_source(&source.port)?;
                self.batch(None, &add)
            }
            answer => answer,
        }
    }

    /// Lets `port` send from any address again. One that is not pinned is no error.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn unpin_source(&self, port: &str) -> Result<(), Error> {
        let Some(source) = self.pinned_source(port)? else { return Ok(()) };
        let requests = [(SOURCES, name_key(port)), (PINNED, pair_key(port, source.mac))].map(|(set, key)| {
            let doing = format!("unpin the address that {port} sends from");
            of_bridge(doing, wire::DELSETELEM, 0, element::one_of(set, element::with_key(&key)))
        });
        match self.batch(None, &requests) {
            Err(e) if e.errno() == Errno::ENOENT => Ok(()),
            answer => answer,
        }
    }

    /// What `port` is held to; `None` where it is not.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn pinned_source(&self, port: &str) -> Result<Option<PinnedSource>, Error> {
        let doing = format!("look up the address that {port} sends from");
        let element = element::with_key(&name_key(port));
        let mut get = of_bridge(doing, wire::GETSETELEM, 0, element::one_of(SOURCES, element));
        get.forgiven = &[Errno::ENOENT];
        Ok(self.socket.get(&get)?.and_then(|reply| read(&reply).next()))
    }

    /// Every port that is held to an address. Its cost grows with the node: not for the hot path.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn pinned_sources(&self) -> Result<Vec<PinnedSource>, Error> {
        let all = element::all_of(SOURCES);
        let mut list = of_bridge("list the ports that are held to an address", wire::GETSETELEM, 0, all);
        list.forgiven = &[Errno::ENOENT];
        Ok(self.socket.dump(&list)?.iter().flat_map(read).collect())
    }

    /// Removes the table of the family `bridge` if nothing uses it; see [`Nft::remove_unused_table`].
    pub(super) fn remove_unused_bridge_table(&self) -> Result<(), Error> {
        let generation = self.generation()?;
        let name = || Attributes::default().text(NFTA_TABLE_NAME, TABLE);
        let mut get = of_bridge("look up the nftables table bridge weft", wire::GETTABLE, 0, name());
        get.forgiven = &[Errno::ENOENT];
        if self.socket.get(&get)?.is_none() || !self.pinned_sources()?.is_empty() {
            return Ok(());
        }
        let delete = of_bridge("delete the nftables table bridge weft", wire::DELTABLE, 0, name());
        match self.batch(Some(generation), &[delete]) {
            Err(e) if matches!(e.errno(), Errno::ENOENT | Errno::ERESTART) => Ok(()),
            answer => answer,
        }
    }
}

const NFTA_TABLE_NAME: u16 = 1;

/// The table with all that is in it but elements. What stands already stays.
pub(super) fn table() -> Vec<Request> {
    const NFTA_CHAIN_TABLE: u16 = 1;
    const NFTA_CHAIN_NAME: u16 = 3;
    const NFTA_RULE_TABLE: u16 = 1;
    const NFTA_RULE_CHAIN: u16 = 2;
    const NFTA_RULE_EXPRESSIONS: u16 = 4;
    let name = Attributes::default().text(NFTA_TABLE_NAME, TABLE);
    let chain = Attributes::default().text(NFTA_CHAIN_TABLE, TABLE).text(NFTA_CHAIN_NAME, PREROUTING);
    let in_chain = || Attributes::default().text(NFTA_RULE_TABLE, TABLE).text(NFTA_RULE_CHAIN, PREROUTING);
    let rule = in_chain().nested(NFTA_RULE_EXPRESSIONS, only_pinned().into_attributes());
    vec![
        of_bridge("create the nftables table bridge weft", wire::NEWTABLE, flag::CREATE, name),
        of_bridge("create the map sources", wire::NEWSET, flag::CREATE, sources()),
        of_bridge("create the set pinned", wire::NEWSET, flag::CREATE, pinned()),
        of_bridge("create the chain prerouting", wire::NEWCHAIN, flag::CREATE, on_prerouting(chain)),
        of_bridge("empty the chain prerouting", wire::DELRULE, 0, in_chain()),
        of_bridge("add a rule to the chain prerouting", wire::NEWRULE, flag::CREATE, rule),
    ]
}

fn sources() -> Attributes {
    const NFTA_SET_FLAGS: u16 = 3;
    const NFTA_SET_DATA_TYPE: u16 = 6;
    const NFTA_SET_DATA_LEN: u16 = 7;
    const NFTA_SET_USERDATA: u16 = 13;
    const NFT_SET_MAP: u32 = 0x8;
    // `NFTNL_UDATA_SET_KEYBYTEORDER` and its length, then the host's order: else `nft` prints names backwards.
    let mut order = vec![0, 4];
    order.extend_from_slice(&1u32.to_ne_bytes());
    set(SOURCES, TYPE_IFNAME, IFNAME_LENGTH, 1)
        .number(NFTA_SET_FLAGS, NFT_SET_MAP)
        .number(NFTA_SET_DATA_TYPE, TYPE_ETHERADDR)
        .number(NFTA_SET_DATA_LEN, MAC_LENGTH)
        .bytes(NFTA_SET_USERDATA, &order)
}

fn pinned() -> Attributes {
    set(PINNED, TYPE_PAIR, PAIR_LENGTH, 2)
}

fn set(name: &str, key_type: u32, key_length: usize, id: u32) -> Attributes {
    const NFTA_SET_TABLE: u16 = 1;
    const NFTA_SET_NAME: u16 = 2;
    const NFTA_SET_KEY_TYPE: u16 = 4;
    const NFTA_SET_KEY_LEN: u16 = 5;
    const NFTA_SET_ID: u16 = 10;
    Attributes::default()
        .text(NFTA_SET_TABLE, TABLE)
        .text(NFTA_SET_NAME, name)
        .number(NFTA_SET_KEY_TYPE, key_type)
        .number(NFTA_SET_KEY_LEN, key_length as u32)
        .number(NFTA_SET_ID, id)
}

fn on_prerouting(chain: Attributes) -> Attributes {
    const NFTA_CHAIN_HOOK: u16 = 4;
    const NFTA_CHAIN_POLICY: u16 = 5;
    const NFTA_CHAIN_TYPE: u16 = 7;
    const NFTA_HOOK_HOOKNUM: u16 = 1;
    const NFTA_HOOK_PRIORITY: u16 = 2;
    const NF_BR_PRE_ROUTING: u32 = 0;
    const NF_BR_PRI_NAT_DST_BRIDGED: i32 = -300;
    const NF_ACCEPT: u32 = 1;
    let hook = Attributes::default()
        .number(NFTA_HOOK_HOOKNUM, NF_BR_PRE_ROUTING)
        .bytes(NFTA_HOOK_PRIORITY, &NF_BR_PRI_NAT_DST_BRIDGED.to_be_bytes());
    chain.nested(NFTA_CHAIN_HOOK, hook).number(NFTA_CHAIN_POLICY, NF_ACCEPT).text(NFTA_CHAIN_TYPE, "filter")
}

fn only_pinned() -> Expressions {
    const NFT_META_IIFNAME: u32 = 6;
    const NFT_PAYLOAD_LL_HEADER: u32 = 0;
    /// Of `h_source` in `struct ethhdr`.
    const SOURCE_OFFSET: u32 = 6;
    // Registers of 16 bytes: the address stands right behind the name, as in the set's key.
    const NAME: u32 = 1;
    const ADDRESS: u32 = 2;
    Expressions::default()
        .meta(NFT_META_IIFNAME, NAME)
        // Kernels take a map without a register for its value only since a few releases.
        .value_from(SOURCES, NAME, ADDRESS)
        .payload(NFT_PAYLOAD_LL_HEADER, SOURCE_OFFSET, MAC_LENGTH, ADDRESS)
        .missing_in(PINNED, NAME)
        .drop_packet()
}

fn elements(source: &PinnedSource) -> [Request; 2] {
    let owner = comment(&source.owner);
    let name = element::with_key(&name_key(&source.port))
        .nested(element::DATA, value(&source.mac.octets()))
        .bytes(element::USERDATA, &owner);
    let pair = element::with_key(&pair_key(&source.port, source.mac)).bytes(element::USERDATA, &owner);
    [(SOURCES, name), (PINNED, pair)].map(|(set, element)| {
        let doing = format!("hold {} to {}", source.port, source.mac);
        of_bridge(doing, wire::NEWSETELEM, flag::CREATE | flag::EXCL, element::one_of(set, element))
    })
}

/// A name as `meta iifname` loads it: filled up with zeros.
fn name_key(port: &str) -> Vec<u8> {
    let mut key = port.as_bytes().to_vec();
    key.resize(IFNAME_LENGTH, 0);
    key
}

fn pair_key(port: &str, mac: Mac) -> Vec<u8> {
    let mut key = name_key(port);
    key.extend_from_slice(&mac.octets());
    key.resize(PAIR_LENGTH, 0);
    key
}

fn read(reply: &Reply) -> impl Iterator<Item = PinnedSource> {
    elements_of(reply).filter_map(read_element)
}

fn read_element(element: &[u8]) -> Option<PinnedSource> {
    let name = bytes_of(element, element::KEY)?.split(|byte| *byte == 0).next()?;
    Some(PinnedSource {
        port: String::from_utf8_lossy(name).into_owned(),
        mac: Mac::from_bytes(bytes_of(element, element::DATA)?)?,
        owner: owner_of(element),
    })
}

fn of_bridge(doing: impl Into<Purpose>, kind: u16, flags: u16, attributes: Attributes) -> Request {
    message_in(NFPROTO_BRIDGE, doing, kind, flags, attributes)
}
