//! The expressions that Weft's rules are made of. A rule's expressions run in order and share registers; one that
//! does not match ends the rule.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::layout::Family;
use super::wire::Attributes;

/// The register that holds a verdict.
const VERDICT: u32 = 0;
/// The register that holds a value.
const VALUE: u32 = 1;
/// Registers of four bytes; the first lies where [`VALUE`] does (`NFT_REG32_00`).
const WORDS: u32 = 8;

/// Verdicts of `linux/netfilter/nf_tables.h`.
const NFT_JUMP: i32 = -3;
const NFT_RETURN: i32 = -5;
const NF_DROP: i32 = 0;

const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

/// Which address of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Source,
    Destination,
}

/// Which interface of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Through {
    Incoming,
    Outgoing,
}

/// A rule's expressions, as the value of `NFTA_RULE_EXPRESSIONS`.
#[derive(Clone, Debug, Default)]
pub(super) struct Expressions(Attributes);

impl Expressions {
    /// Matches packets of `family`.
    pub(super) fn family(self, family: Family) -> Self {
        const NFT_META_NFPROTO: u32 = 15;
        self.meta(NFT_META_NFPROTO, VALUE).equals(&[family.nfproto()])
    }

    /// Matches packets that come or go through another interface than the loopback.
    pub(super) fn not_loopback(self, through: Through) -> Self {
        const NFT_META_IIF: u32 = 4;
        const NFT_META_OIF: u32 = 5;
        // `LOOPBACK_IFINDEX` of `net/flow.h`, the same in every namespace.
        const LOOPBACK: u32 = 1;
        let key = match through {
            Through::Incoming => NFT_META_IIF,
            Through::Outgoing => NFT_META_OIF,
        };
        self.meta(key, VALUE).differs(&LOOPBACK.to_ne_bytes())
    }

    /// Matches packets that come from a bridge and go to one.
    pub(super) fn between_bridges(self) -> Self {
        const NFT_META_IIFKIND: u32 = 26;
        const NFT_META_OIFKIND: u32 = 27;
        // As wide as an interface's name, in which the kernel keeps it.
        const BRIDGE: &[u8; 16] = b"bridge\0\0\0\0\0\0\0\0\0\0";
        self.meta(NFT_META_IIFKIND, VALUE).equals(BRIDGE).meta(NFT_META_OIFKIND, VALUE).equals(BRIDGE)
    }

    /// Matches packets whose destination was translated.
    pub(super) fn translated(self) -> Self {
        const NFTA_CT_DREG: u16 = 1;
        const NFTA_CT_KEY: u16 = 2;
        const NFT_CT_STATUS: u32 = 2;
        const IPS_DST_NAT: u32 = 1 << 5;
        let load = Attributes::default().number(NFTA_CT_KEY, NFT_CT_STATUS).number(NFTA_CT_DREG, VALUE);
        self.push("ct", load).mask(&IPS_DST_NAT.to_ne_bytes()).differs(&[0; 4])
    }

    /// Matches packets to an address that this node has.
    pub(super) fn addressed_here(self) -> Self {
        const NFTA_FIB_DREG: u16 = 1;
        const NFTA_FIB_RESULT: u16 = 2;
        const NFTA_FIB_FLAGS: u16 = 3;
        const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
        const NFTA_FIB_F_DADDR: u32 = 2;
        const RTN_LOCAL: u32 = 2;
        let fib = Attributes::default()
            .number(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR)
            .number(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE)
            .number(NFTA_FIB_DREG, VALUE);
        self.push("fib", fib).equals(&RTN_LOCAL.to_ne_bytes())
    }

    /// Matches packets with these two of their addresses in `set`.
    pub(super) fn addresses_in(self, sides: [Side; 2], family: Family, set: &str) -> Self {
        let [first, second] = sides;
        self.family(family)
            .load(first, family)
            .load_into(WORDS + family.key_length() / 4, second, family)
            .found_in(set, VALUE)
    }

    /// Matches packets to an address in `set`.
    pub(super) fn destination_in(self, family: Family, set: &str) -> Self {
        self.family(family).load(Side::Destination, family).found_in(set, VALUE)
    }

    /// Gives the packet the destination that `map` has for its protocol and port; goes on where it has none. With
    /// `at_address` the packet's destination address is a part of the key.
    pub(super) fn destination_from(self, family: Family, at_address: bool, map: &str) -> Self {
        const NFT_META_L4PROTO: u32 = 16;
        let start = self.family(family);
        let (start, protocol) = if at_address {
            (start.load(Side::Destination, family), WORDS + family.key_length() / 4)
        } else {
            (start, WORDS)
        };
        start
            .meta(NFT_META_L4PROTO, protocol)
            .load_port(protocol + 1)
            .value_from(map, VALUE, VALUE)
            .dnat(family)
    }

    /// To the address in the first registers, and the port in the one behind it.
    fn dnat(self, family: Family) -> Self {
        const NFTA_NAT_TYPE: u16 = 1;
        const NFTA_NAT_FAMILY: u16 = 2;
        const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
        const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
        const NFT_NAT_DNAT: u32 = 1;
        let nat = Attributes::default()
            .number(NFTA_NAT_TYPE, NFT_NAT_DNAT)
            .number(NFTA_NAT_FAMILY, family.nfproto().into())
            .number(NFTA_NAT_REG_ADDR_MIN, VALUE)
            .number(NFTA_NAT_REG_PROTO_MIN, WORDS + family.key_length() / 4);
        self.push("nat", nat)
    }

    /// Loads the destination port, which TCP, UDP and SCTP have at the same place.
    fn load_port(self, register: u32) -> Self {
        const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
        self.payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, register)
    }

    /// Matches packets whose `key`, a register, is in `set`.
    pub(super) fn found_in(self, set: &str, key: u32) -> Self {
        self.push("lookup", lookup(set, key))
    }

    /// Matches packets whose `key` is not.
    pub(super) fn missing_in(self, set: &str, key: u32) -> Self {
        const NFTA_LOOKUP_FLAGS: u16 = 5;
        const NFT_LOOKUP_F_INV: u32 = 1;
        self.push("lookup", lookup(set, key).number(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV))
    }

    /// Puts what `map` has for `key` into the register `to`; goes on behind the rule where it has nothing.
    pub(super) fn value_from(self, map: &str, key: u32, to: u32) -> Self {
        const NFTA_LOOKUP_DREG: u16 = 3;
        self.push("lookup", lookup(map, key).number(NFTA_LOOKUP_DREG, to))
    }

    /// Loads what the kernel knows of the packet.
    pub(super) fn meta(self, key: u32, register: u32) -> Self {
        const NFTA_META_DREG: u16 = 1;
        const NFTA_META_KEY: u16 = 2;
        let load = Attributes::default().number(NFTA_META_KEY, key).number(NFTA_META_DREG, register);
        self.push("meta", load)
    }

    /// Takes the verdict for an address of the packet from a map; goes on where the map has none.
    pub(super) fn verdict_of(self, side: Side, family: Family, map: &str) -> Self {
        self.load(side, family).value_from(map, VALUE, VERDICT)
    }

    /// Matches packets with an address in `network`.
    pub(super) fn within(self, side: Side, network: IpNetwork) -> Self {
        let family = Family::of(network.ip());
        self.load(side, family).mask(&octets(network.mask())).equals(&octets(network.network()))
    }

    /// Gives the source the address of the interface that the packet leaves through.
    pub(super) fn masquerade(self) -> Self {
        self.push("masq", Attributes::default())
    }

    /// Goes back to the calling chain.
    pub(super) fn return_to_caller(self) -> Self {
        self.verdict(NFT_RETURN, None)
    }

    /// Goes through `chain`, and on behind the rule.
    pub(super) fn jump(self, chain: &str) -> Self {
        self.verdict(NFT_JUMP, Some(chain))
    }

    /// Drops the packet.
    pub(super) fn drop_packet(self) -> Self {
        self.verdict(NF_DROP, None)
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        const NFTA_IMMEDIATE_DREG: u16 = 1;
        const NFTA_IMMEDIATE_DATA: u16 = 2;
        let immediate = Attributes::default()
            .number(NFTA_IMMEDIATE_DREG, VERDICT)
            .nested(NFTA_IMMEDIATE_DATA, verdict(code, chain));
        self.push("immediate", immediate)
    }

    pub(super) fn into_attributes(self) -> Attributes {
        self.0
    }

    /// Loads an address of the packet's network header.
    fn load(self, side: Side, family: Family) -> Self {
        self.load_into(VALUE, side, family)
    }

    fn load_into(self, register: u32, side: Side, family: Family) -> Self {
        const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
        // Offsets of saddr and daddr in struct iphdr and struct ipv6hdr.
        let offset = match (family, side) {
            (Family::V4, Side::Source) => 12,
            (Family::V4, Side::Destination) => 16,
            (Family::V6, Side::Source) => 8,
            (Family::V6, Side::Destination) => 24,
        };
        self.payload(NFT_PAYLOAD_NETWORK_HEADER, offset, family.key_length(), register)
    }

    /// Loads bytes of one of the packet's headers.
    pub(super) fn payload(self, base: u32, offset: u32, length: u32, register: u32) -> Self {
        const NFTA_PAYLOAD_DREG: u16 = 1;
        const NFTA_PAYLOAD_BASE: u16 = 2;
        const NFTA_PAYLOAD_OFFSET: u16 = 3;
        const NFTA_PAYLOAD_LEN: u16 = 4;
        let payload = Attributes::default()
            .number(NFTA_PAYLOAD_DREG, register)
            .number(NFTA_PAYLOAD_BASE, base)
            .number(NFTA_PAYLOAD_OFFSET, offset)
            .number(NFTA_PAYLOAD_LEN, length);
        self.push("payload", payload)
    }

    fn mask(self, mask: &[u8]) -> Self {
        const NFTA_BITWISE_SREG: u16 = 1;
        const NFTA_BITWISE_DREG: u16 = 2;
        const NFTA_BITWISE_LEN: u16 = 3;
        const NFTA_BITWISE_MASK: u16 = 4;
        const NFTA_BITWISE_XOR: u16 = 5;
        let bitwise = Attributes::default()
            .number(NFTA_BITWISE_SREG, VALUE)
            .number(NFTA_BITWISE_DREG, VALUE)
            .number(NFTA_BITWISE_LEN, mask.len() as u32)
            .nested(NFTA_BITWISE_MASK, value(mask))
            .nested(NFTA_BITWISE_XOR, value(&vec![0; mask.len()]));
        self.push("bitwise", bitwise)
    }

    fn equals(self, expected: &[u8]) -> Self {
        const NFT_CMP_EQ: u32 = 0;
        self.compare(NFT_CMP_EQ, expected)
    }

    fn differs(self, from: &[u8]) -> Self {
        const NFT_CMP_NEQ: u32 = 1;
        self.compare(NFT_CMP_NEQ, from)
    }

    fn compare(self, operator: u32, operand: &[u8]) -> Self {
        const NFTA_CMP_SREG: u16 = 1;
        const NFTA_CMP_OP: u16 = 2;
        const NFTA_CMP_DATA: u16 = 3;
        let cmp = Attributes::default()
            .number(NFTA_CMP_SREG, VALUE)
            .number(NFTA_CMP_OP, operator)
            .nested(NFTA_CMP_DATA, value(operand));
        self.push("cmp", cmp)
    }

    fn push(self, name: &str, data: Attributes) -> Self {
        const NFTA_LIST_ELEM: u16 = 1;
        const NFTA_EXPR_NAME: u16 = 1;
        const NFTA_EXPR_DATA: u16 = 2;
        let expression = Attributes::default().text(NFTA_EXPR_NAME, name).nested(NFTA_EXPR_DATA, data);
        Self(self.0.nested(NFTA_LIST_ELEM, expression))
    }
}

/// A look for what is in the register `key`.
fn lookup(set: &str, key: u32) -> Attributes {
    const NFTA_LOOKUP_SET: u16 = 1;
    const NFTA_LOOKUP_SREG: u16 = 2;
    Attributes::default().text(NFTA_LOOKUP_SET, set).number(NFTA_LOOKUP_SREG, key)
}

/// The data of a map's element: a jump to `chain`.
pub(super) fn jump(chain: &str) -> Attributes {
    verdict(NFT_JUMP, Some(chain))
}

/// A value, as data.
pub(super) fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().bytes(NFTA_DATA_VALUE, bytes)
}

/// The bytes of an address, in the order they are sent.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn verdict(code: i32, chain: Option<&str>) -> Attributes {
    let inner = Attributes::default().bytes(NFTA_VERDICT_CODE, &code.to_be_bytes());
    let inner = match chain {
        Some(name) => inner.text(NFTA_VERDICT_CHAIN, name),
        None => inner,
    };
    Attributes::default().nested(NFTA_DATA_VERDICT, inner)
}
