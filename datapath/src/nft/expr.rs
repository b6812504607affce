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

/// Verdicts of `linux/netfilter/nf_tables.h`.
const NFT_JUMP: i32 = -3;
const NFT_RETURN: i32 = -5;

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

/// A rule's expressions, as the value of `NFTA_RULE_EXPRESSIONS`.
#[derive(Clone, Debug, Default)]
pub(super) struct Expressions(Attributes);

impl Expressions {
    /// Matches packets of `family`.
    pub(super) fn family(self, family: Family) -> Self {
        const NFTA_META_DREG: u16 = 1;
        const NFTA_META_KEY: u16 = 2;
        const NFT_META_NFPROTO: u32 = 15;
        let load =
            Attributes::default().number(NFTA_META_KEY, NFT_META_NFPROTO).number(NFTA_META_DREG, VALUE);
        self.push("meta", load).equals(&[family.nfproto()])
    }

    /// Takes the verdict for an address of the packet from a map; goes on where the map has none.
    pub(super) fn verdict_of(self, side: Side, family: Family, map: &str) -> Self {
        const NFTA_LOOKUP_SET: u16 = 1;
        const NFTA_LOOKUP_SREG: u16 = 2;
        const NFTA_LOOKUP_DREG: u16 = 3;
        let lookup = Attributes::default()
            .text(NFTA_LOOKUP_SET, map)
            .number(NFTA_LOOKUP_SREG, VALUE)
            .number(NFTA_LOOKUP_DREG, VERDICT);
        self.load(side, family).push("lookup", lookup)
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
        const NFTA_IMMEDIATE_DREG: u16 = 1;
        const NFTA_IMMEDIATE_DATA: u16 = 2;
        let verdict = verdict(NFT_RETURN, None);
        let immediate =
            Attributes::default().number(NFTA_IMMEDIATE_DREG, VERDICT).nested(NFTA_IMMEDIATE_DATA, verdict);
        self.push("immediate", immediate)
    }

    pub(super) fn into_attributes(self) -> Attributes {
        self.0
    }

    /// Loads an address of the packet's network header.
    fn load(self, side: Side, family: Family) -> Self {
        const NFTA_PAYLOAD_DREG: u16 = 1;
        const NFTA_PAYLOAD_BASE: u16 = 2;
        const NFTA_PAYLOAD_OFFSET: u16 = 3;
        const NFTA_PAYLOAD_LEN: u16 = 4;
        const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
        // Offsets of saddr and daddr in struct iphdr and struct ipv6hdr.
        let offset = match (family, side) {
            (Family::V4, Side::Source) => 12,
            (Family::V4, Side::Destination) => 16,
            (Family::V6, Side::Source) => 8,
            (Family::V6, Side::Destination) => 24,
        };
        let payload = Attributes::default()
            .number(NFTA_PAYLOAD_DREG, VALUE)
            .number(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER)
            .number(NFTA_PAYLOAD_OFFSET, offset)
            .number(NFTA_PAYLOAD_LEN, family.key_length());
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
        const NFTA_CMP_SREG: u16 = 1;
        const NFTA_CMP_OP: u16 = 2;
        const NFTA_CMP_DATA: u16 = 3;
        const NFT_CMP_EQ: u32 = 0;
        let cmp = Attributes::default()
            .number(NFTA_CMP_SREG, VALUE)
            .number(NFTA_CMP_OP, NFT_CMP_EQ)
            .nested(NFTA_CMP_DATA, value(expected));
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
