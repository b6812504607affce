//! Whether the rules still stand that give the elements their meaning. An element in a map that no rule looks into does
//! nothing, and stays there all the same: `nft flush chain` takes only the rules.

use super::layout;
use super::wire::{self, Attributes, NFPROTO_BRIDGE, NFPROTO_INET, message_in};
use super::{Elements, Masquerade, Nft, PortSources, Published, source};
use crate::Error;
use crate::netlink::{Request, attribute_of, attributes_of};

/// A chain of Weft's, and how many of its rules stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The family of its table, `inet` or `bridge`.
    pub family: &'static str,
    /// Its name.
    pub name: String,
    /// How many rules it should have.
    pub rules: usize,
    /// How many of them it has. What else is in it is not counted.
    pub standing: usize,
}

impl Chain {
    /// Whether nothing of it is missing.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.standing >= self.rules
    }
}

impl Nft {
    /// The chains that `masquerade` and `ports` stand on; none where there is neither. It lists the rules of one table,
    /// whose number grows with the node's subnets and not with its pods.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn chains(&self, masquerade: &[Masquerade], ports: &[Published]) -> Result<Vec<Chain>, Error> {
        let elements = Elements { masquerade, ports, sources: PortSources::Own };
        if masquerade.is_empty() && ports.is_empty() {
            return Ok(Vec::new());
        }
        self.compare(NFPROTO_INET, "inet", &elements.foundation())
    }

    /// The chain that ports of a bridge are held to their addresses by.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn bridge_chains(&self) -> Result<Vec<Chain>, Error> {
        self.compare(NFPROTO_BRIDGE, "bridge", &source::table())
    }

    /// Puts the rules back that `masquerade` and `ports` stand on. Packets on their way see the old rules or the new ones.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn restore_chains(&self, masquerade: &[Masquerade], ports: &[Published]) -> Result<(), Error> {
        self.batch(None, &Elements { masquerade, ports, sources: PortSources::Own }.foundation())
    }

    /// The same for ports of a bridge.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn restore_bridge_chains(&self) -> Result<(), Error> {
        self.batch(None, &source::table())
    }

    fn compare(
        &self,
        protocol: u8,
        family: &'static str,
        foundation: &[Request],
    ) -> Result<Vec<Chain>, Error> {
        let table = Attributes::default().text(NFTA_RULE_TABLE, layout::TABLE);
        let doing = format!("list the rules of the nftables table {family} weft");
        let mut list = message_in(protocol, doing, wire::GETRULE, 0, table);
        list.forgiven = &[nix::errno::Errno::ENOENT];
        let replies = self.socket.dump(&list)?;
        let found = replies.iter().filter_map(|reply| read(&reply.body)).collect();
        Ok(tally(family, planned(foundation), found))
    }
}

const NFTA_RULE_TABLE: u16 = 1;

/// A rule, as far as it is compared: its chain, and the names of its expressions. The kernel does not give back what is in
/// them byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    chain: String,
    expressions: Vec<String>,
}

/// The rules that there are after all of `requests`.
fn planned(requests: &[Request]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for request in requests {
        let Some(rule) = read(&request.body) else { continue };
        match request.kind & 0xff {
            wire::NEWRULE => rules.push(rule),
            // A chain is emptied before it is filled; two addresses of a subnet fill it twice.
            wire::DELRULE => rules.retain(|earlier| earlier.chain != rule.chain),
            _ => {}
        }
    }
    rules
}

/// Of each chain how many of the `planned` rules are among the `found` ones.
fn tally(family: &'static str, planned: Vec<Rule>, mut found: Vec<Rule>) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    for rule in planned {
        let stands = found.iter().position(|other| *other == rule);
        if let Some(index) = stands {
            found.swap_remove(index);
        }
        let standing = usize::from(stands.is_some());
        match chains.iter_mut().find(|chain| chain.name == rule.chain) {
            Some(chain) => {
                chain.rules += 1;
                chain.standing += standing;
            }
            None => chains.push(Chain { family, name: rule.chain, rules: 1, standing }),
        }
    }
    chains
}

/// The rule that a message names.
fn read(body: &[u8]) -> Option<Rule> {
    const NFTA_RULE_CHAIN: u16 = 2;
    const NFTA_RULE_EXPRESSIONS: u16 = 4;
    const NFTA_EXPR_NAME: u16 = 1;
    let attributes = body.get(wire::NFGENMSG..)?;
    let text =
        |value: &[u8]| String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into_owned();
    let expressions = attribute_of(attributes, NFTA_RULE_EXPRESSIONS).unwrap_or_default();
    let names =
        attributes_of(expressions).filter_map(|(_, expression)| attribute_of(expression, NFTA_EXPR_NAME));
    Some(Rule {
        chain: text(attribute_of(attributes, NFTA_RULE_CHAIN)?),
        expressions: names.map(text).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(addresses: &[&str]) -> Vec<Masquerade> {
        let element = |address: &&str| Masquerade { address: address.parse().unwrap(), owner: "o".into() };
        addresses.iter().map(element).collect()
    }

    fn rules(masquerade: &[Masquerade]) -> Vec<Rule> {
        planned(&Elements { masquerade, ports: &[], sources: PortSources::Own }.foundation())
    }

    fn standing(found: Vec<Rule>) -> Vec<(String, usize, usize)> {
        let chains = tally("inet", rules(&elements(&["10.0.0.2/24"])), found);
        chains.into_iter().map(|chain| (chain.name, chain.standing, chain.rules)).collect()
    }

    #[test]
    fn two_addresses_of_a_subnet_stand_on_the_same_rules() {
        let one = rules(&elements(&["10.0.0.2/24"]));
        assert_eq!(rules(&elements(&["10.0.0.2/24", "10.0.0.3/24"])), one);
        assert_eq!(one.len(), 6);
        assert!(one[0].expressions.contains(&"lookup".to_owned()), "{one:?}");
    }

    #[test]
    fn each_rule_counts_once_and_others_do_not() {
        let all = rules(&elements(&["10.0.0.2/24"]));
        let subnet = "masquerade_0a000000_24".to_owned();
        let whole = [("postrouting".to_owned(), 2, 2), (subnet.clone(), 4, 4)];
        assert_eq!(standing(all.clone()), whole);
        let flushed = all[2..].to_vec();
        assert_eq!(standing(flushed), [("postrouting".to_owned(), 0, 2), (subnet.clone(), 4, 4)]);
        let half = all[1..].to_vec();
        assert_eq!(standing(half), [("postrouting".to_owned(), 1, 2), (subnet, 4, 4)]);
        let strange = Rule { chain: "postrouting".into(), expressions: vec!["counter".into()] };
        assert_eq!(standing([vec![strange], all].concat()), whole);
    }
}
