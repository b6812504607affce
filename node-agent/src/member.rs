//! The nodes of a cluster, as far as they concern the network: where each is, and which pods are its own.
//!
//! A source of membership tells of [`Candidate`]s; [`Members::judge`] decides which of them can be believed. It is the
//! only way to a [`Member`], so nothing after it looks at an address twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::Deserialize;

/// The name of a node, which is a DNS name in lower case, as Kubernetes has it (RFC 1123).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

/// A node's own addresses, through which other nodes reach it: at most one of each family, and at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Its IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// Where it is.
    pub addresses: Addresses,
    /// The subnets of its pods, without host bits. None as long as nobody has given it any.
    pub pod_cidrs: Vec<IpNetwork>,
}

/// The cluster as this node sees it. No two of the nodes share a name, an address or a part of a subnet, and no node's
/// address lies in a subnet of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// This node, where it is known.
    pub own: Option<Member>,
    /// All others.
    pub others: BTreeMap<NodeName, Member>,
}

/// What a source tells of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// At most one address of each family.
    pub addresses: Vec<String>,
    /// The subnets of its pods.
    #[serde(rename = "podCIDRs", default)]
    pub pod_cidrs: Vec<String>,
}

/// What is wrong with a candidate, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Flaw {
    /// It is no name.
    #[error(
        "node {name:?}: the name must be a DNS name in lower case, of at most 253 letters, digits, '-' and '.'"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// There is no address at all.
    #[error("node {node}: it has no address")]
    NoAddress {
        /// Whose.
        node: NodeName,
    },
    /// It is no address that a node can have.
    #[error("node {node}: {text:?} is not an address by which another node could reach it")]
    Address {
        /// Whose.
        node: NodeName,
        /// What was given.
        text: String,
    },
    /// There is more than one of a family.
    #[error("node {node}: it has both {first} and {second}; give one address of each family")]
    SecondAddress {
        /// Whose.
        node: NodeName,
        /// The first.
        first: IpAddr,
        /// The one too many.
        second: IpAddr,
    },
    /// It is no subnet that pods can have.
    #[error("node {node}: {text:?} is not a subnet for pods{}", hint(text))]
    Subnet {
        /// Whose.
        node: NodeName,
        /// What was given.
        text: String,
    },
    /// The name is another's.
    #[error("node {node} is there twice; the first counts")]
    Twice {
        /// Whose.
        node: NodeName,
    },
    /// The address is another's.
    #[error("node {node}: {address} is the address of {other}; {node} is left out")]
    SharedAddress {
        /// Whose.
        node: NodeName,
        /// The address.
        address: IpAddr,
        /// Whose it is.
        other: NodeName,
    },
    /// A part of the subnet is another's.
    #[error("node {node}: {subnet} overlaps {theirs} of {other}, which keeps it; {subnet} is left out")]
    Overlap {
        /// Whose.
        node: NodeName,
        /// The subnet that is left out.
        subnet: IpNetwork,
        /// Who has it.
        other: NodeName,
        /// What they have.
        theirs: IpNetwork,
    },
    /// A node that is new would be looked for among the pods of another.
    #[error("node {node}: {address} lies in {subnet}, whose pods are on {other}; {node} is left out")]
    AmongPods {
        /// Whose.
        node: NodeName,
        /// Its address.
        address: IpAddr,
        /// The subnet that it lies in.
        subnet: IpNetwork,
        /// Whose pods that are.
        other: NodeName,
    },
    /// A node would be looked for among the pods.
    #[error("node {node}: {address} of node {other} lies in {subnet}; {subnet} is left out")]
    NodeInside {
        /// Whose.
        node: NodeName,
        /// The subnet that is left out.
        subnet: IpNetwork,
        /// The node inside.
        other: NodeName,
        /// Its address.
        address: IpAddr,
    },
}

impl FromStr for NodeName {
    type Err = Flaw;

    fn from_str(text: &str) -> Result<Self, Flaw> {
        let is_label = |label: &str| {
            let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !label.is_empty() && label.bytes().all(inside) && !label.starts_with('-') && !label.ends_with('-')
        };
        let is_name = text.len() <= 253 && text.split('.').all(is_label);
        is_name.then(|| Self(text.to_owned())).ok_or_else(|| Flaw::Name { name: text.to_owned() })
    }
}

impl NodeName {
    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for NodeName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Addresses {
    /// Both families, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.v4.map(IpAddr::from).into_iter().chain(self.v6.map(IpAddr::from))
    }

    /// The address of the family that `other` is of.
    #[must_use]
    pub fn of_family(&self, other: IpAddr) -> Option<IpAddr> {
        match other {
            IpAddr::V4(_) => self.v4.map(IpAddr::from),
            IpAddr::V6(_) => self.v6.map(IpAddr::from),
        }
    }

    fn parse(node: &NodeName, texts: &[String]) -> Result<Self, Vec<Flaw>> {
        let (mut found, mut flaws) = (Self { v4: None, v6: None }, Vec::new());
        for text in texts {
            match text.parse().ok().filter(|address| is_reachable(*address)) {
                Some(address) => flaws.extend(found.take(node, address).err()),
                None => flaws.push(Flaw::Address { node: node.clone(), text: text.clone() }),
            }
        }
        if texts.is_empty() {
            flaws.push(Flaw::NoAddress { node: node.clone() });
        }
        if flaws.is_empty() { Ok(found) } else { Err(flaws) }
    }

    fn take(&mut self, node: &NodeName, second: IpAddr) -> Result<(), Flaw> {
        if let Some(first) = self.of_family(second) {
            return Err(Flaw::SecondAddress { node: node.clone(), first, second });
        }
        match second {
            IpAddr::V4(address) => self.v4 = Some(address),
            IpAddr::V6(address) => self.v6 = Some(address),
        }
        Ok(())
    }
}

impl Member {
    fn parse(candidate: &Candidate) -> Result<Self, Vec<Flaw>> {
        let name: NodeName = candidate.name.parse().map_err(|flaw| vec![flaw])?;
        let mut flaws = Vec::new();
        let addresses = Addresses::parse(&name, &candidate.addresses).map_err(|found| flaws.extend(found));
        let mut pod_cidrs = Vec::new();
        for text in &candidate.pod_cidrs {
            match parse_subnet(text) {
                Some(subnet) => pod_cidrs.push(subnet),
                None => flaws.push(Flaw::Subnet { node: name.clone(), text: text.clone() }),
            }
        }
        match addresses {
            Ok(addresses) if flaws.is_empty() => Ok(Self { name, addresses, pod_cidrs }),
            _ => Err(flaws),
        }
    }
}

impl Members {
    /// Which of the `candidates` make up the cluster of the node `own`, and what is wrong with the others.
    ///
    /// A node with a mistake stays as it was `before`, if it was; everybody else's changes take effect. Where two nodes want
    /// the same, who had it before keeps it; where neither had, it is the first of the `candidates`.
    #[must_use]
    pub fn judge(own: &NodeName, candidates: &[Candidate], before: &Self) -> (Self, Vec<Flaw>) {
        let (mut members, mut stand_ins, mut flaws) = (Vec::new(), Vec::new(), Vec::new());
        for candidate in candidates {
            match Member::parse(candidate) {
                Ok(member) => members.push(member),
                Err(found) => {
                    flaws.extend(found);
                    stand_ins.extend(before.get(&candidate.name).cloned());
                }
            }
        }
        members.append(&mut stand_ins);
        // A node that starts anew knows nothing of before, and is itself all the same.
        members.sort_by_key(|member| (member.name != *own, before.get(member.name.as_str()) != Some(member)));
        let members = without_those_among_pods(members, before, &mut flaws);
        let mut admitted = admit_each(members, before, &mut flaws);
        leave_out_subnets_around_nodes(&mut admitted, &mut flaws);
        let (own, others) = admitted.into_iter().partition(|member| member.name == *own);
        (Self::of(own, others), flaws)
    }

    /// The node of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Member> {
        self.iter().find(|member| member.name.as_str() == name)
    }

    /// All nodes, this one first.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.own.iter().chain(self.others.values())
    }

    fn of(own: Vec<Member>, others: Vec<Member>) -> Self {
        let by_name = |member: Member| (member.name.clone(), member);
        Self { own: own.into_iter().next(), others: others.into_iter().map(by_name).collect() }
    }
}

/// One after the other, without what somebody before has already.
fn admit_each(members: Vec<Member>, before: &Members, flaws: &mut Vec<Flaw>) -> Vec<Member> {
    let mut admitted: Vec<Member> = Vec::new();
    for mut member in members {
        if let Some(flaw) = taken_by_another(&admitted, &member) {
            flaws.push(flaw);
            continue;
        }
        let overlaps = leave_out_overlapping(&admitted, &mut member);
        let former =
            before.get(member.name.as_str()).filter(|former| !overlaps.is_empty() && **former != member);
        if let Some(former) = former.filter(|former| taken_by_another(&admitted, former).is_none()) {
            member = former.clone();
            leave_out_overlapping(&admitted, &mut member);
        }
        flaws.extend(overlaps);
        admitted.push(member);
    }
    admitted
}

fn leave_out_overlapping(admitted: &[Member], member: &mut Member) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    for subnet in std::mem::take(&mut member.pod_cidrs) {
        match overlapping(admitted.iter().chain([&*member]), subnet) {
            Some((other, theirs)) => {
                let (node, other) = (member.name.clone(), other.clone());
                flaws.push(Flaw::Overlap { node, subnet, other, theirs });
            }
            None => member.pod_cidrs.push(subnet),
        }
    }
    flaws
}

/// Who comes with an address that is a pod's does not take the subnet from those who had it before.
fn without_those_among_pods(members: Vec<Member>, before: &Members, flaws: &mut Vec<Flaw>) -> Vec<Member> {
    let had = |member: &Member| before.get(member.name.as_str()).map(|former| former.addresses);
    let standing: Vec<_> =
        members.iter().filter(|member| before.get(member.name.as_str()) == Some(*member)).cloned().collect();
    let is_welcome = |member: &Member| {
        if had(member) == Some(member.addresses) {
            return true;
        }
        let others = standing.iter().filter(|other| other.name != member.name);
        let mut inside = others
            .flat_map(|other| other.pod_cidrs.iter().map(move |subnet| (other, *subnet)))
            .filter_map(|(other, subnet)| {
                let address = member.addresses.iter().find(|address| subnet.contains(*address))?;
                Some(Flaw::AmongPods {
                    node: member.name.clone(),
                    address,
                    subnet,
                    other: other.name.clone(),
                })
            });
        let flaw = inside.next();
        flaws.extend(flaw.clone());
        flaw.is_none()
    };
    let mut is_welcome = is_welcome;
    members.into_iter().filter(|member| is_welcome(member)).collect()
}

fn taken_by_another(admitted: &[Member], member: &Member) -> Option<Flaw> {
    let node = member.name.clone();
    if admitted.iter().any(|other| other.name == node) {
        return Some(Flaw::Twice { node });
    }
    let holder = |address| admitted.iter().find(|other| other.addresses.of_family(address) == Some(address));
    let mut shared = member.addresses.iter().filter_map(|address| Some((address, holder(address)?)));
    let (address, other) = shared.next()?;
    Some(Flaw::SharedAddress { node, address, other: other.name.clone() })
}

fn overlapping<'a>(
    members: impl Iterator<Item = &'a Member>,
    subnet: IpNetwork,
) -> Option<(&'a NodeName, IpNetwork)> {
    let mut all = members.flat_map(|member| member.pod_cidrs.iter().map(|theirs| (&member.name, *theirs)));
    all.find(|(_, theirs)| theirs.contains(subnet.network()) || subnet.contains(theirs.network()))
}

fn leave_out_subnets_around_nodes(members: &mut [Member], flaws: &mut Vec<Flaw>) {
    let nodes: Vec<_> = members
        .iter()
        .flat_map(|member| member.addresses.iter().map(|address| (member.name.clone(), address)))
        .collect();
    for member in members {
        member.pod_cidrs.retain(|subnet| {
            let inside = nodes.iter().find(|(_, address)| subnet.contains(*address));
            flaws.extend(inside.map(|(other, address)| Flaw::NodeInside {
                node: member.name.clone(),
                subnet: *subnet,
                other: other.clone(),
                address: *address,
            }));
            inside.is_none()
        });
    }
}

/// One that is not of a single host or link, and not of many.
fn is_reachable(address: IpAddr) -> bool {
    let is_linklocal = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_linklocal)
}

/// A prefix is part of it, and nothing is beyond the prefix.
fn parse_subnet(text: &str) -> Option<IpNetwork> {
    let subnet: IpNetwork = text.parse().ok()?;
    let is_written_whole = text.contains('/') && subnet.ip() == subnet.network();
    (is_written_whole && subnet.prefix() > 0 && is_reachable(subnet.network())).then_some(subnet)
}

fn hint(text: &str) -> String {
    let corrected = text.parse::<IpNetwork>().ok().filter(|_| text.contains('/'));
    let corrected = corrected.map(|subnet| format!("{}/{}", subnet.network(), subnet.prefix()));
    corrected.filter(|right| parse_subnet(right).is_some()).map_or_else(
        || " (one is, for example, 10.244.1.0/24)".to_owned(),
        |right| format!(" (did you mean {right}?)"),
    )
}

/// What is new among `flaws`: what was said of them once need not be said again.
#[must_use]
pub fn news<'a>(flaws: &'a [Flaw], known: &BTreeSet<Flaw>) -> Vec<&'a Flaw> {
    flaws.iter().filter(|flaw| !known.contains(flaw)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, addresses: &[&str], pod_cidrs: &[&str]) -> Candidate {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        Candidate { name: name.into(), addresses: texts(addresses), pod_cidrs: texts(pod_cidrs) }
    }

    fn judge(candidates: &[Candidate], before: &Members) -> (Members, Vec<String>) {
        let (members, flaws) = Members::judge(&"a".parse().unwrap(), candidates, before);
        (members, flaws.iter().map(Flaw::to_string).collect())
    }

    fn good() -> Vec<Candidate> {
        vec![
            node("a", &["192.0.2.1", "2001:db8::1"], &["10.244.0.0/24", "fd00:10:244::/64"]),
            node("b", &["2001:db8::2"], &["10.244.1.0/24"]),
            node("c", &["192.0.2.3"], &[]),
        ]
    }

    #[test]
    fn a_good_list_is_this_node_and_all_others() {
        let (members, flaws) = judge(&good(), &Members::default());
        assert!(flaws.is_empty(), "{flaws:?}");
        let own = members.own.as_ref().unwrap();
        assert_eq!(own.pod_cidrs.len(), 2);
        assert_eq!(own.addresses.iter().count(), 2);
        assert_eq!(members.others.keys().map(NodeName::as_str).collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let candidates = [
            node("A_", &[], &[]),
            node("b", &[], &["10.244.1.7/24", "10.244.2.0", "x", "0.0.0.0/0"]),
            node("c", &["127.0.0.1", "fe80::1", "192.0.2.1", "192.0.2.2"], &["ff00::/8"]),
            node("d", &["192.0.2.4"], &["10.244.4.0/24"]),
            node("d", &["192.0.2.5"], &["10.244.5.0/24"]),
            node("e", &["192.0.2.4"], &["10.244.6.0/24"]),
            node("f", &["192.0.2.6"], &["10.244.0.0/16", "192.0.2.0/24", "10.245.0.0/24"]),
        ];
        let (members, flaws) = judge(&candidates, &Members::default());
        assert_eq!(
            flaws,
            [
                "node \"A_\": the name must be a DNS name in lower case, of at most 253 letters, digits, '-' and '.'",
                "node b: it has no address",
                "node b: \"10.244.1.7/24\" is not a subnet for pods (did you mean 10.244.1.0/24?)",
                "node b: \"10.244.2.0\" is not a subnet for pods (one is, for example, 10.244.1.0/24)",
                "node b: \"x\" is not a subnet for pods (one is, for example, 10.244.1.0/24)",
                "node b: \"0.0.0.0/0\" is not a subnet for pods (one is, for example, 10.244.1.0/24)",
                "node c: \"127.0.0.1\" is not an address by which another node could reach it",
                "node c: \"fe80::1\" is not an address by which another node could reach it",
                "node c: it has both 192.0.2.1 and 192.0.2.2; give one address of each family",
                "node c: \"ff00::/8\" is not a subnet for pods (one is, for example, 10.244.1.0/24)",
                "node d is there twice; the first counts",
                "node e: 192.0.2.4 is the address of d; e is left out",
                "node f: 10.244.0.0/16 overlaps 10.244.4.0/24 of d, which keeps it; 10.244.0.0/16 is left out",
                "node f: 192.0.2.4 of node d lies in 192.0.2.0/24; 192.0.2.0/24 is left out",
            ]
        );
        assert_eq!(members.others.keys().map(NodeName::as_str).collect::<Vec<_>>(), ["d", "f"]);
        assert_eq!(members.get("f").unwrap().pod_cidrs, ["10.245.0.0/24".parse().unwrap()]);
    }

    #[test]
    fn a_node_with_a_mistake_stays_as_it_was_and_the_others_change() {
        let (before, _) = judge(&good(), &Members::default());
        let mut candidates = good();
        candidates[1].addresses = vec!["2001:db8::".into(), "oops".into()];
        candidates[2].pod_cidrs = vec!["10.244.2.0/24".into()];
        let (after, flaws) = judge(&candidates, &before);
        assert_eq!(flaws.len(), 1, "{flaws:?}");
        assert_eq!(after.get("b"), before.get("b"));
        assert_eq!(after.get("c").unwrap().pod_cidrs.len(), 1);
    }

    #[test]
    fn who_had_a_subnet_keeps_it_against_one_that_is_written_above_it() {
        let (before, _) = judge(&good(), &Members::default());
        let mut candidates = good();
        candidates.insert(0, node("new", &["192.0.2.9"], &["10.244.1.0/25"]));
        let (after, flaws) = judge(&candidates, &before);
        assert_eq!(
            flaws,
            [
                "node new: 10.244.1.0/25 overlaps 10.244.1.0/24 of b, which keeps it; 10.244.1.0/25 is left out"
            ]
        );
        assert_eq!(after.get("b"), before.get("b"));
        assert!(after.get("new").unwrap().pod_cidrs.is_empty());
    }

    #[test]
    fn who_joins_with_an_address_of_pods_is_left_out_and_the_pods_keep_their_subnet() {
        let (before, _) = judge(&good(), &Members::default());
        let mut candidates = good();
        candidates.insert(0, node("z", &["10.244.0.9"], &["10.244.15.0/24"]));
        let (after, flaws) = judge(&candidates, &before);
        assert_eq!(flaws, ["node z: 10.244.0.9 lies in 10.244.0.0/24, whose pods are on a; z is left out"]);
        assert_eq!(after, before);
    }

    #[test]
    fn a_node_that_starts_anew_is_itself_whoever_has_taken_its_address() {
        let mut candidates = good();
        candidates.insert(0, node("0z", &["192.0.2.1"], &["10.244.0.0/24"]));
        let (members, flaws) = judge(&candidates, &Members::default());
        assert_eq!(flaws, ["node 0z: 192.0.2.1 is the address of a; 0z is left out"]);
        assert_eq!(members.own.unwrap().pod_cidrs.len(), 2);
    }

    #[test]
    fn a_node_whose_new_subnet_is_anothers_keeps_the_one_it_had() {
        let (before, _) = judge(&good(), &Members::default());
        let mut candidates = good();
        candidates[1].pod_cidrs = vec!["10.244.0.0/16".into()];
        let (after, flaws) = judge(&candidates, &before);
        assert_eq!(flaws.len(), 1, "{flaws:?}");
        assert_eq!(after, before);
    }

    #[test]
    fn names_are_dns_names() {
        for good in ["a", "node-1", "ip-10-0-0-1.eu-1.compute.internal", "0"] {
            assert!(good.parse::<NodeName>().is_ok(), "{good}");
        }
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", ".", &"a".repeat(254)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
    }
}
