//! Base chains: those that the kernel sends packets through by itself. Everybody's, for a packet goes on only where the last
//! word of each of them is to let it: what one table accepts, another may drop (nft(8), "VERDICT STATEMENTS").

use nix::errno::Errno;

use super::wire::{self, Attributes, message_in};
use super::{Nft, layout};
use crate::Error;
use crate::netlink::{Reply, attribute_of, attributes_of};

/// A base chain of another table than Weft's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// The family of its table: `ip`, `ip6` or `inet`.
    pub family: &'static str,
    /// Its table's name.
    pub table: String,
    /// Its own name.
    pub name: String,
    /// Where packets come to it.
    pub hook: Hook,
    /// Of two at one hook that with the lower number is first; of two with the same, that which was there first.
    pub priority: i32,
    /// Whether what none of its rules decides about is dropped: by its policy, or by a last rule without a condition.
    pub drops: bool,
}

/// Where a packet is, as far as pods care what others do there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// It has come in, and its destination may be translated.
    TranslatesDestination,
    /// It is passed on.
    Forward,
}

/// `inet weft ports`, as `nft` takes it.
impl std::fmt::Display for BaseChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.name)
    }
}

impl Nft {
    /// The base chains of others through which packets from and to pods come. It lists the chains of all tables, and the
    /// rules of those at the hook `forward`: not for the hot path. Tables of `iptables-legacy` are not among nf_tables'.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn foreign_chains(&self) -> Result<Vec<BaseChain>, Error> {
        const NFPROTO_UNSPEC: u8 = 0;
        let doing = "list the chains of nftables";
        let list = message_in(NFPROTO_UNSPEC, doing, wire::GETCHAIN, 0, Attributes::default());
        let mut chains: Vec<_> = self.socket.dump(&list)?.iter().filter_map(read).collect();
        for (protocol, chain) in &mut chains {
            chain.drops =
                chain.hook == Hook::Forward && (chain.drops || self.ends_in_drop(*protocol, chain)?);
        }
        Ok(chains.into_iter().map(|(_, chain)| chain).collect())
    }

    fn ends_in_drop(&self, protocol: u8, chain: &BaseChain) -> Result<bool, Error> {
        const NFTA_RULE_TABLE: u16 = 1;
        const NFTA_RULE_CHAIN: u16 = 2;
        const NFTA_RULE_EXPRESSIONS: u16 = 4;
        let of = Attributes::default().text(NFTA_RULE_TABLE, &chain.table).text(NFTA_RULE_CHAIN, &chain.name);
        let mut list = message_in(protocol, format!("list the rules of {chain}"), wire::GETRULE, 0, of);
        list.forgiven = &[Errno::ENOENT];
        let rules = self.socket.dump(&list)?;
        let last = rules.last().and_then(|rule| rule.body.get(wire::NFGENMSG..));
        Ok(last
            .and_then(|rule| attribute_of(rule, NFTA_RULE_EXPRESSIONS))
            .is_some_and(drops_without_condition))
    }
}

/// The chain in an answer, and the number of its family.
fn read(reply: &Reply) -> Option<(u8, BaseChain)> {
    const NFTA_CHAIN_TABLE: u16 = 1;
    const NFTA_CHAIN_NAME: u16 = 3;
    const NFTA_CHAIN_HOOK: u16 = 4;
    const NFTA_CHAIN_POLICY: u16 = 5;
    const NFTA_CHAIN_TYPE: u16 = 7;
    const NFTA_HOOK_HOOKNUM: u16 = 1;
    const NFTA_HOOK_PRIORITY: u16 = 2;
    const NF_DROP: u32 = 0;
    let protocol = *reply.body.first()?;
    let chain = reply.body.get(wire::NFGENMSG..)?;
    let hook = attribute_of(chain, NFTA_CHAIN_HOOK)?;
    let found = BaseChain {
        family: family(protocol)?,
        table: text(attribute_of(chain, NFTA_CHAIN_TABLE)?),
        name: text(attribute_of(chain, NFTA_CHAIN_NAME)?),
        hook: at(number(attribute_of(hook, NFTA_HOOK_HOOKNUM)?)?, attribute_of(chain, NFTA_CHAIN_TYPE)?)?,
        priority: number(attribute_of(hook, NFTA_HOOK_PRIORITY)?)?.cast_signed(),
        drops: attribute_of(chain, NFTA_CHAIN_POLICY).and_then(number) == Some(NF_DROP),
    };
    (found.table != layout::TABLE).then_some((protocol, found))
}

const fn family(protocol: u8) -> Option<&'static str> {
    match protocol {
        1 => Some("inet"),
        2 => Some("ip"),
        10 => Some("ip6"),
        _ => None,
    }
}

fn at(hook: u32, kind: &[u8]) -> Option<Hook> {
    match (hook, kind) {
        (0, b"nat\0") => Some(Hook::TranslatesDestination),
        (2, _) => Some(Hook::Forward),
        _ => None,
    }
}

/// Whether `expressions` of a rule drop or reject every packet, those of `iptables-nft` included.
fn drops_without_condition(expressions: &[u8]) -> bool {
    const NFTA_EXPR_NAME: u16 = 1;
    const NFTA_EXPR_DATA: u16 = 2;
    let mut drops = false;
    for (_, expression) in attributes_of(expressions) {
        let data = attribute_of(expression, NFTA_EXPR_DATA).unwrap_or_default();
        match attribute_of(expression, NFTA_EXPR_NAME) {
            Some(b"counter\0" | b"log\0") => {}
            Some(b"reject\0") => drops = true,
            Some(b"immediate\0") if is_drop(data) => drops = true,
            Some(b"target\0") if is_reject_target(data) => drops = true,
            _ => return false,
        }
    }
    drops
}

fn is_drop(immediate: &[u8]) -> bool {
    const NFTA_IMMEDIATE_DATA: u16 = 2;
    const NFTA_DATA_VERDICT: u16 = 2;
    const NFTA_VERDICT_CODE: u16 = 1;
    let verdict = attribute_of(immediate, NFTA_IMMEDIATE_DATA)
        .and_then(|data| attribute_of(data, NFTA_DATA_VERDICT))
        .and_then(|verdict| attribute_of(verdict, NFTA_VERDICT_CODE));
    verdict.and_then(number) == Some(0)
}

fn is_reject_target(target: &[u8]) -> bool {
    const NFTA_TARGET_NAME: u16 = 1;
    attribute_of(target, NFTA_TARGET_NAME).is_some_and(|name| name.starts_with(b"REJECT\0"))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into_owned()
}

/// In the order of the network, as nf_tables has them.
fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}
