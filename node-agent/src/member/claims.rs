//! Who has which address and which subnet, found without looking at everybody: the nodes of a large cluster are judged as often as one of
//! them changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Flaw, Member, NodeName};

/// What nodes have already.
#[derive(Debug, Default)]
pub(super) struct Claims {
    names: BTreeSet<NodeName>,
    addresses: BTreeMap<IpAddr, NodeName>,
    subnets: Subnets,
}

/// Subnets of which no two share an address, by their first one.
#[derive(Debug, Default)]
pub(super) struct Subnets(BTreeMap<IpAddr, (IpNetwork, NodeName)>);

impl Claims {
    /// Somebody has its name or an address already.
    pub(super) fn against(&self, member: &Member) -> Option<Flaw> {
        let node = || member.name.clone();
        if self.names.contains(&member.name) {
            return Some(Flaw::Twice { node: node() });
        }
        let held = |address| Some((address, self.addresses.get(&address)?));
        let (address, other) = member.addresses.iter().find_map(held)?;
        Some(Flaw::SharedAddress { node: node(), address, other: other.clone() })
    }

    /// The node has its name and addresses from now on.
    pub(super) fn take(&mut self, member: &Member) {
        self.names.insert(member.name.clone());
        self.addresses.extend(member.addresses.iter().map(|address| (address, member.name.clone())));
    }

    /// The node has its subnets from now on, but for those that are left out because somebody has a part of them.
    pub(super) fn take_subnets(&mut self, member: &mut Member) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        for subnet in std::mem::take(&mut member.pod_cidrs) {
            match self.subnets.overlapping(subnet) {
                Some((theirs, other)) => {
                    let (node, theirs, other) = (member.name.clone(), *theirs, other.clone());
                    flaws.push(Flaw::Overlap { node, subnet, other, theirs });
                }
                None => {
                    self.subnets.insert(subnet, &member.name);
                    member.pod_cidrs.push(subnet);
                }
            }
        }
        flaws
    }

    /// Nobody has these any more.
    pub(super) fn give_back(&mut self, subnets: &[IpNetwork]) {
        subnets.iter().for_each(|subnet| drop(self.subnets.0.remove(&subnet.network())));
    }

    /// A node that is looked for within the subnet.
    pub(super) fn node_inside(&self, subnet: IpNetwork) -> Option<(IpAddr, &NodeName)> {
        let mut inside = self.addresses.range(subnet.network()..=subnet.broadcast());
        inside.next().map(|(address, node)| (*address, node))
    }
}

impl Subnets {
    pub(super) fn insert(&mut self, subnet: IpNetwork, node: &NodeName) {
        self.0.insert(subnet.network(), (subnet, node.clone()));
    }

    /// Who has a part of it. As no two overlap, the last that begins within or before it is the one to ask.
    pub(super) fn overlapping(&self, subnet: IpNetwork) -> Option<&(IpNetwork, NodeName)> {
        let (_, last) = self.0.range(..=subnet.broadcast()).next_back()?;
        let (theirs, _) = last;
        (theirs.contains(subnet.network()) || subnet.contains(theirs.network())).then_some(last)
    }

    /// Whose pods have this address.
    pub(super) fn around(&self, address: IpAddr) -> Option<&(IpNetwork, NodeName)> {
        self.overlapping(address.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subnet((at, length): (u8, u8)) -> IpNetwork {
        let text = format!("10.0.0.{at}/{}", 24 + length % 9);
        let given: IpNetwork = text.parse().unwrap();
        IpNetwork::new(given.network(), given.prefix()).unwrap()
    }

    proptest! {
        #[test]
        fn a_subnet_overlaps_one_of_those_there_exactly_if_a_look_at_each_says_so(
            taken: Vec<(u8, u8)>, asked: (u8, u8),
        ) {
            let (mut subnets, mut all) = (Subnets::default(), Vec::<IpNetwork>::new());
            for one in taken.into_iter().map(subnet) {
                if subnets.overlapping(one).is_none() {
                    subnets.insert(one, &"a".parse().unwrap());
                    all.push(one);
                }
            }
            let asked = subnet(asked);
            let overlaps = |one: &IpNetwork| one.contains(asked.ip()) || asked.contains(one.ip());
            match subnets.overlapping(asked) {
                Some((found, _)) => prop_assert!(overlaps(found)),
                None => prop_assert!(!all.iter().any(overlaps)),
            }
        }
    }
}
