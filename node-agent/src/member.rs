//! The nodes of a cluster, as far as they concern the network: where each is, and which pods are its own.
//!
//! A source of membership tells of [`Candidate`]s; [`Members::judge`] decides which of them can be believed. It is the
//! only way to a [`Member`], so nothing after it looks at an address twice.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::Deserialize;
use weft_ipam::range::Range;

mod claims;

use claims::{Claims, Subnets};

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
    /// Whether there is an entry that is held back and belongs to nobody who is known: what stands for a node that is not among
    /// these may be that node's.
    pub is_partial: bool,
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

/// An entry of a source that is no candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Where it is: `entry 3, at line 5 column 7,`.
    pub place: String,
    /// The name in it, where it has one.
    pub name: Option<String>,
    /// Why it cannot be read.
    pub why: String,
}

/// What is wrong with a candidate, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Flaw {
    /// Its entry cannot be read.
    #[error("{}: {place} cannot be read: {why}", node.as_ref().map_or("an unknown node".to_owned(), |node| format!("node {node}")))]
    Unread {
        /// Whose, where the entry says.
        node: Option<NodeName>,
        /// Where it is.
        place: String,
        /// Why not.
        why: String,
    },
    /// It is not there any more, but who it is by an entry without a name is not known.
    #[error(
        "node {node} is not listed any more, but may be meant by the entry whose name cannot be read: it stays as it was until that entry is right, or gone"
    )]
    MayBeMeant {
        /// Whose.
        node: NodeName,
    },
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
    #[error("node {node}: {text:?} is not an address by which another node could reach it ({why})")]
    Address {
        /// Whose.
        node: NodeName,
        /// What was given.
        text: String,
        /// Why not, or what one is.
        why: String,
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
    #[error("node {node}: {text:?} is not a subnet for pods ({why})")]
    Subnet {
        /// Whose.
        node: NodeName,
        /// What was given.
        text: String,
        /// Why not, or what one is.
        why: String,
    },
    /// The name is another's.
    #[error("node {node} is there twice; the first counts")]
    Twice {
        /// Whose.
        node: NodeName,
    },
    /// The address is another's.
    #[error("node {node}: {address} is the address of {other}; what is new of {node} is left out")]
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
    /// It had a subnet, and has none.
    #[error(
        "node {node}: it has no subnet for pods any more; it stays as it was until it has one, or is not listed"
    )]
    NoSubnet {
        /// Whose.
        node: NodeName,
    },
    /// Somebody else wants the same, and nobody has said before whose it is.
    #[error(
        "node {node}: what is wrong with {other} may be its own mistake: what stands for it stays until one of them is right"
    )]
    Disputed {
        /// Whose.
        node: NodeName,
        /// Who wants the same.
        other: NodeName,
    },
    /// A node that is new would be looked for among the pods of another.
    #[error(
        "node {node}: {address} lies in {subnet}, whose pods are on {other}; what is new of {node} is left out"
    )]
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

impl Borrow<str> for NodeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Flaw {
    /// Whether something is left out because of another node, of one that was not there `before`.
    fn leaves_out_who_is_not_among(&self, before: &Members) -> bool {
        let is_of_two = matches!(
            self,
            Self::SharedAddress { .. }
                | Self::Overlap { .. }
                | Self::AmongPods { .. }
                | Self::NodeInside { .. }
        );
        is_of_two && self.node().is_some_and(|node| before.get(node).is_none())
    }

    /// Who else wants the same.
    fn rival(&self) -> Option<&NodeName> {
        match self {
            Self::SharedAddress { other, .. } | Self::Overlap { other, .. } => Some(other),
            _ => None,
        }
    }

    /// Whose entry it is, where that is known.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Unread { node, .. } => node.as_ref().map(NodeName::as_str),
            Self::Name { name } => Some(name),
            Self::MayBeMeant { node }
            | Self::NoAddress { node }
            | Self::Address { node, .. }
            | Self::SecondAddress { node, .. }
            | Self::Subnet { node, .. }
            | Self::Twice { node }
            | Self::SharedAddress { node, .. }
            | Self::Overlap { node, .. }
            | Self::NoSubnet { node }
            | Self::Disputed { node, .. }
            | Self::AmongPods { node, .. }
            | Self::NodeInside { node, .. } => Some(node.as_str()),
        }
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
            match parse_address(text) {
                Ok(address) => flaws.extend(found.take(node, address).err()),
                Err(why) => flaws.push(Flaw::Address { node: node.clone(), text: text.clone(), why }),
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
                Ok(subnet) => pod_cidrs.push(subnet),
                Err(why) => flaws.push(Flaw::Subnet { node: name.clone(), text: text.clone(), why }),
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
    /// A node with a mistake stays as it was `before`, if it was; everybody else's changes take effect. So does one whose entry is
    /// `unread`, and as long as an entry is there that nobody knows the name of, nobody is taken away: it may be theirs.
    /// Where two nodes want the same, who had it before keeps it, this node not excepted; where neither had, it is this node, or else the
    /// first of the `candidates`. Where nobody knows of before, neither of two others has it, and what stands for them stays.
    #[must_use]
    pub fn judge(
        own: &NodeName,
        candidates: &[Candidate],
        unread: &[Unread],
        before: &Self,
    ) -> (Self, Vec<Flaw>) {
        let (mut members, held_back, mut flaws) = sorted_out(candidates, unread);
        let unknown =
            held_back.iter().any(|name| name.as_ref().is_none_or(|name| before.get(name).is_none()));
        members.extend(stand_ins(candidates, held_back, before, &mut flaws));
        members.sort_by_cached_key(|member| {
            (before.get(member.name.as_str()) != Some(member), member.name != *own)
        });
        let members = with_subnets_as_before(members, before, &mut flaws);
        let members = without_those_among_pods(members, own, before, &mut flaws);
        let members = without_new_subnets_around_nodes(members, before, &mut flaws);
        let admitted = admit_each(members, before, &mut flaws);
        let admitted =
            if before.is_partial { undisputed(admitted, own, before, &mut flaws) } else { admitted };
        let unknown = unknown || flaws.iter().any(|flaw| flaw.leaves_out_who_is_not_among(before));
        let (own, others) = admitted.into_iter().partition(|member| member.name == *own);
        (Self { is_partial: unknown && before.is_partial, ..Self::of(own, others) }, flaws)
    }

    /// Before anybody has told of them: whatever stands may be somebody's.
    #[must_use]
    pub fn unknown() -> Self {
        Self { is_partial: true, ..Self::default() }
    }

    /// The node of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Member> {
        self.own.as_ref().filter(|own| own.name.as_str() == name).or_else(|| self.others.get(name))
    }

    /// All nodes, this one first.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.own.iter().chain(self.others.values())
    }

    fn of(own: Vec<Member>, others: Vec<Member>) -> Self {
        let by_name = |member: Member| (member.name.clone(), member);
        let others = others.into_iter().map(by_name).collect();
        Self { own: own.into_iter().next(), others, is_partial: false }
    }
}

/// The names of entries that are held back, where they have one.
type HeldBack<'a> = Vec<Option<&'a str>>;

fn sorted_out<'a>(
    candidates: &'a [Candidate],
    unread: &'a [Unread],
) -> (Vec<Member>, HeldBack<'a>, Vec<Flaw>) {
    let (mut members, mut held_back, mut flaws) = (Vec::new(), Vec::new(), Vec::new());
    for entry in unread {
        let name = entry.name.as_deref().and_then(|name| Some((name, name.parse().ok()?)));
        held_back.push(name.as_ref().map(|(name, _)| *name));
        let node = name.map(|(_, node)| node);
        flaws.push(Flaw::Unread { node, place: entry.place.clone(), why: entry.why.clone() });
    }
    for candidate in candidates {
        match Member::parse(candidate) {
            Ok(member) => members.push(member),
            Err(found) => {
                let is_nameless = matches!(found.first(), Some(Flaw::Name { .. }));
                held_back.push((!is_nameless).then_some(candidate.name.as_str()));
                flaws.extend(found);
            }
        }
    }
    (members, held_back, flaws)
}

/// As they were before: those whose entries are held back, and those who may be meant by one that has no name.
fn stand_ins(
    candidates: &[Candidate],
    held_back: HeldBack<'_>,
    before: &Members,
    flaws: &mut Vec<Flaw>,
) -> Vec<Member> {
    let mut named: BTreeSet<_> = held_back.iter().copied().flatten().collect();
    let mut kept: Vec<_> = named.iter().filter_map(|name| before.get(name)).cloned().collect();
    if held_back.contains(&None) {
        named.extend(candidates.iter().map(|candidate| candidate.name.as_str()));
        let missing: Vec<_> = before.iter().filter(|member| !named.contains(member.name.as_str())).collect();
        flaws.extend(missing.iter().map(|member| Flaw::MayBeMeant { node: member.name.clone() }));
        kept.extend(missing.into_iter().cloned());
    }
    kept
}

/// Who had subnets and has none has lost them by mistake: a node that goes is not listed.
fn with_subnets_as_before(members: Vec<Member>, before: &Members, flaws: &mut Vec<Flaw>) -> Vec<Member> {
    let has_lost_all =
        |member: &Member, former: &&Member| member.pod_cidrs.is_empty() && !former.pod_cidrs.is_empty();
    let kept = members.into_iter().map(|member| {
        let former = before.get(member.name.as_str()).filter(|former| has_lost_all(&member, former));
        flaws.extend(former.map(|_| Flaw::NoSubnet { node: member.name.clone() }));
        former.cloned().unwrap_or(member)
    });
    kept.collect()
}

/// Who comes with an address that is a pod's does not take the subnet from those who had it before, or from this node.
fn without_those_among_pods(
    members: Vec<Member>,
    own: &NodeName,
    before: &Members,
    flaws: &mut Vec<Flaw>,
) -> Vec<Member> {
    let former = |member: &Member| before.get(member.name.as_str());
    let mut standing = Subnets::default();
    let stands =
        |member: &&Member| former(member) == Some(*member) || former(member).is_none() && member.name == *own;
    for member in members.iter().filter(stands) {
        member.pod_cidrs.iter().for_each(|subnet| standing.insert(*subnet, &member.name));
    }
    let among = |member: &Member| {
        let has_moved = former(member).is_none_or(|former| former.addresses != member.addresses);
        let around = |address| {
            let (subnet, other) = standing.around(address).filter(|(_, other)| *other != member.name)?;
            let (node, other) = (member.name.clone(), other.clone());
            Some(Flaw::AmongPods { node, address, subnet: *subnet, other })
        };
        has_moved.then(|| member.addresses.iter().find_map(around)).flatten()
    };
    let judged = members.into_iter().filter_map(|member| match among(&member) {
        None => Some(member),
        Some(flaw) => {
            flaws.push(flaw);
            former(&member).cloned()
        }
    });
    judged.collect()
}

/// Who had other subnets before keeps those instead of one that a node is in.
fn without_new_subnets_around_nodes(
    members: Vec<Member>,
    before: &Members,
    flaws: &mut Vec<Flaw>,
) -> Vec<Member> {
    let mut nodes = Claims::default();
    members.iter().for_each(|member| nodes.take(member));
    let judged = members.into_iter().map(|member| {
        let former = before.get(member.name.as_str()).filter(|former| former.pod_cidrs != member.pod_cidrs);
        let Some(former) = former else { return member };
        let found: Vec<_> = nodes_inside(&member, &nodes).collect();
        let is_wrong = !found.is_empty();
        flaws.extend(found);
        if is_wrong { former.clone() } else { member }
    });
    judged.collect()
}

fn nodes_inside<'a>(member: &'a Member, nodes: &'a Claims) -> impl Iterator<Item = Flaw> + use<'a> {
    member.pod_cidrs.iter().filter_map(|subnet| {
        let (address, other) = nodes.node_inside(*subnet)?;
        let (node, other) = (member.name.clone(), other.clone());
        Some(Flaw::NodeInside { node, subnet: *subnet, other, address })
    })
}

/// One after the other, without what somebody before has already. Who would lose by that stays as it was, where that is free.
fn admit_each(members: Vec<Member>, before: &Members, flaws: &mut Vec<Flaw>) -> Vec<Member> {
    let (mut admitted, mut claims) = (Vec::<Member>::new(), Claims::default());
    for mut member in members {
        let former = before.get(member.name.as_str()).filter(|former| **former != member);
        let former = former.filter(|former| claims.against(former).is_none());
        if let Some(flaw) = claims.against(&member) {
            flaws.push(flaw);
            let Some(former) = former else { continue };
            member = former.clone();
        }
        let overlaps = claims.take_subnets(&mut member);
        if let Some(former) = former.filter(|former| !overlaps.is_empty() && **former != member) {
            claims.give_back(&member.pod_cidrs);
            member = former.clone();
            claims.take_subnets(&mut member);
        }
        flaws.extend(overlaps);
        claims.take(&member);
        admitted.push(member);
    }
    leave_out_subnets_around_nodes(&mut admitted, &claims, flaws);
    admitted
}

/// Without those who are in a dispute that nobody can decide who has not heard of them before. This node is itself all the same.
fn undisputed(admitted: Vec<Member>, own: &NodeName, before: &Members, flaws: &mut Vec<Flaw>) -> Vec<Member> {
    let is_known = |node: &str| node == own.as_str() || before.get(node).is_some();
    let disputed: Vec<_> = flaws
        .iter()
        .filter_map(|flaw| {
            let (node, other) = (flaw.rival()?.clone(), flaw.node()?.parse().ok()?);
            (!is_known(node.as_str())).then_some(Flaw::Disputed { node, other })
        })
        .collect();
    let is_free = |member: &Member| {
        let named = |flaw: &Flaw| flaw.node() == Some(member.name.as_str());
        is_known(member.name.as_str())
            || !disputed
                .iter()
                .chain(&*flaws)
                .any(|flaw| named(flaw) && (flaw.rival().is_some() || matches!(flaw, Flaw::Disputed { .. })))
    };
    let free = admitted.into_iter().filter(is_free).collect();
    flaws.extend(disputed);
    free
}

fn leave_out_subnets_around_nodes(members: &mut [Member], claims: &Claims, flaws: &mut Vec<Flaw>) {
    for member in members {
        flaws.extend(nodes_inside(member, claims));
        member.pod_cidrs.retain(|subnet| claims.node_inside(*subnet).is_none());
    }
}

/// Why no other node could reach it there.
fn unreachable(address: IpAddr) -> Option<&'static str> {
    let kind = match address {
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V4(v4) if v4.is_link_local() => "of a single link",
        IpAddr::V4(v4) if v4.octets()[0] == 0 && !v4.is_unspecified() => "of \"this network\" (0.0.0.0/8)",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "of a single link",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            "an IPv4 address in IPv6's clothes: write it as IPv4"
        }
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_loopback() => "a loopback's",
        _ if address.is_multicast() => "a multicast address",
        _ => return None,
    };
    Some(kind)
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    let address = text.parse().map_err(|_not_one| match text.parse::<IpNetwork>() {
        Ok(network) => format!("an address has no prefix: did you mean {}?", network.ip()),
        Err(_) => "one is, for example, 192.0.2.1".to_owned(),
    })?;
    unreachable(address).map_or(Ok(address), |kind| Err(format!("it is {kind}")))
}

/// A prefix is part of it, nothing is beyond the prefix, and it has room for a pod.
fn parse_subnet(text: &str) -> Result<IpNetwork, String> {
    let example = || "one is, for example, 10.244.1.0/24".to_owned();
    let subnet = text.parse::<IpNetwork>().ok().filter(|subnet| text.contains('/') && subnet.prefix() > 0);
    let subnet = subnet.ok_or_else(example)?;
    if subnet.ip() != subnet.network() {
        let whole = format!("{}/{}", subnet.network(), subnet.prefix());
        return Err(parse_subnet(&whole).map_or_else(|why| why, |right| format!("did you mean {right}?")));
    }
    if let Some(kind) = unreachable(subnet.network()) {
        return Err(format!("{} is {kind}", subnet.network()));
    }
    let smallest = if subnet.is_ipv4() { 30 } else { 126 };
    if subnet.prefix() > smallest {
        let usual = if subnet.is_ipv4() { 24 } else { 64 };
        return Err(format!(
            "beside its first address and the gateway's it has no room for a pod: give it a /{smallest} or larger, usually a /{usual}"
        ));
    }
    let refused =
        |flaws: Vec<weft_ipam::range::Error>| flaws.iter().map(ToString::to_string).collect::<Vec<_>>();
    Range::new(subnet.into()).map_or_else(|flaws| Err(refused(flaws).join("; ")), |_| Ok(subnet))
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
        let (members, flaws) = Members::judge(&"a".parse().unwrap(), candidates, &[], before);
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
                "node c: \"127.0.0.1\" is not an address by which another node could reach it (it is a loopback's)",
                "node c: \"fe80::1\" is not an address by which another node could reach it (it is of a single link)",
                "node c: it has both 192.0.2.1 and 192.0.2.2; give one address of each family",
                "node c: \"ff00::/8\" is not a subnet for pods (ff00:: is a multicast address)",
                "node d is there twice; the first counts",
                "node e: 192.0.2.4 is the address of d; what is new of e is left out",
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
        assert_eq!(
            flaws,
            ["node z: 10.244.0.9 lies in 10.244.0.0/24, whose pods are on a; what is new of z is left out"]
        );
        assert_eq!(after, before);
    }

    #[test]
    fn a_node_that_starts_anew_is_itself_whoever_has_taken_its_address() {
        let mut candidates = good();
        candidates.insert(0, node("0z", &["192.0.2.1"], &["10.244.0.0/24"]));
        let (members, flaws) = judge(&candidates, &Members::default());
        assert_eq!(flaws, ["node 0z: 192.0.2.1 is the address of a; what is new of 0z is left out"]);
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

    /// A mistake that somebody makes.
    type Slip<'a, T = Candidate> = &'a dyn Fn(&mut T);

    #[test]
    fn whatever_two_entries_disagree_about_the_one_that_changed_stays_as_it_was() {
        let mut nodes = good();
        nodes[2].pod_cidrs = vec!["10.244.2.0/24".into()];
        let (before, _) = judge(&nodes, &Members::default());
        let slips: [(usize, Slip, &str); 8] = [
            (
                1,
                &|b| b.addresses = vec!["2001:db8::1".into()],
                "node b: 2001:db8::1 is the address of a; what is new of b is left out",
            ),
            (
                1,
                &|b| b.addresses = vec!["192.0.2.3".into()],
                "node b: 192.0.2.3 is the address of c; what is new of b is left out",
            ),
            (
                1,
                &|b| b.addresses = vec!["10.244.0.4".into()],
                "node b: 10.244.0.4 lies in 10.244.0.0/24, whose pods are on a; what is new of b is left out",
            ),
            (
                1,
                &|b| b.pod_cidrs = vec!["192.0.2.0/24".into()],
                "node b: 192.0.2.1 of node a lies in 192.0.2.0/24; 192.0.2.0/24 is left out",
            ),
            (
                2,
                &|c| c.pod_cidrs = vec![],
                "node c: it has no subnet for pods any more; it stays as it was until it has one, or is not listed",
            ),
            (
                0,
                &|a| a.pod_cidrs = vec!["10.244.1.0/24".into()],
                "node a: 10.244.1.0/24 overlaps 10.244.1.0/24 of b, which keeps it; 10.244.1.0/24 is left out",
            ),
            (
                0,
                &|a| a.pod_cidrs = vec!["192.0.2.0/24".into()],
                "node a: 192.0.2.1 of node a lies in 192.0.2.0/24; 192.0.2.0/24 is left out",
            ),
            (
                0,
                &|a| a.pod_cidrs = vec![],
                "node a: it has no subnet for pods any more; it stays as it was until it has one, or is not listed",
            ),
        ];
        for (index, slip, said) in slips {
            let mut candidates = nodes.clone();
            slip(&mut candidates[index]);
            let (after, flaws) = judge(&candidates, &before);
            assert_eq!(flaws, [said]);
            assert_eq!(after, before, "{said}");
        }
    }

    #[test]
    fn who_starts_anew_decides_no_dispute_of_others_and_takes_nothing_of_them_away() {
        let slips: [(Slip<[Candidate]>, &[&str]); 3] = [
            (&|nodes| nodes[1].addresses = vec!["192.0.2.3".into()], &["a"]),
            (&|nodes| nodes[1].pod_cidrs = vec!["10.244.2.0/24".into()], &["a"]),
            (&|nodes| nodes[2].addresses = vec!["10.244.0.4".into()], &["a", "b"]),
        ];
        for (slip, left) in slips {
            let mut nodes = good();
            nodes[2].pod_cidrs = vec!["10.244.2.0/24".into()];
            slip(&mut nodes);
            let (first, flaws) = judge(&nodes, &Members::unknown());
            assert!(first.is_partial, "{flaws:?}");
            assert_eq!(
                first.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(),
                left,
                "{flaws:?}"
            );
            let (again, _) = judge(&nodes, &first);
            assert_eq!(again, first, "for as long as it takes");
            let (mended, flaws) = judge(&good(), &again);
            assert!(flaws.is_empty() && !mended.is_partial && mended.others.len() == 2, "{flaws:?}");
        }
    }

    fn judge_with(
        candidates: &[Candidate],
        unread: &[Option<&str>],
        before: &Members,
    ) -> (Members, Vec<String>) {
        let entry = |name: &Option<&str>| Unread {
            place: "entry 9".into(),
            name: name.map(str::to_owned),
            why: "no".into(),
        };
        let unread: Vec<_> = unread.iter().map(entry).collect();
        let (members, flaws) = Members::judge(&"a".parse().unwrap(), candidates, &unread, before);
        (members, flaws.iter().map(Flaw::to_string).collect())
    }

    #[test]
    fn an_entry_that_cannot_be_read_keeps_its_own_node_as_it_was_and_nobody_elses() {
        let (before, _) = judge(&good(), &Members::default());
        let (after, flaws) = judge_with(&good()[..1], &[Some("b")], &before);
        assert_eq!(flaws, ["node b: entry 9 cannot be read: no"]);
        assert_eq!(after.get("b"), before.get("b"));
        assert!(after.get("c").is_none(), "c has left");
    }

    #[test]
    fn who_vanishes_while_an_entry_has_no_name_may_be_meant_by_it_and_stays_until_it_is_mended() {
        let (before, _) = judge(&good(), &Members::default());
        let misspelt = [good()[0].clone(), node("B_", &["192.0.2.2"], &[])];
        for (candidates, unread) in [(&good()[..1], &[None][..]), (&misspelt, &[])] {
            let (after, flaws) = judge_with(candidates, unread, &before);
            assert_eq!(flaws.len(), 3, "{flaws:?}");
            assert!(flaws[1].starts_with("node b is not listed any more, but may be meant"), "{flaws:?}");
            assert_eq!(after, before);
            let (again, _) = judge_with(candidates, unread, &after);
            assert_eq!(again, before, "for as long as it takes");
        }
        let (mended, flaws) = judge(&good()[..2], &before);
        assert!(flaws.is_empty() && mended.get("c").is_none());
    }

    #[test]
    fn who_starts_anew_does_not_take_away_what_may_belong_to_an_entry_that_is_held_back() {
        let (first, _) = judge_with(&good(), &[Some("d")], &Members::unknown());
        assert!(first.is_partial);
        let (still, _) = judge_with(&good(), &[None], &first);
        assert!(still.is_partial);
        let (whole, _) = judge_with(&good(), &[], &still);
        assert!(!whole.is_partial);
        let (later, _) = judge_with(&good(), &[Some("d")], &whole);
        assert!(!later.is_partial, "d is new, and nothing of it stands");
    }

    #[test]
    fn addresses_that_nobody_can_have_are_refused_with_the_reason() {
        for (text, why) in [
            ("0.0.0.0", "unspecified"),
            ("::", "unspecified"),
            ("0.1.2.3", "this network"),
            ("127.8.8.8", "loopback"),
            ("::1", "loopback"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("169.254.1.1", "single link"),
            ("fe80::1", "single link"),
            ("::ffff:192.0.2.1", "write it as IPv4"),
            ("192.0.2.1/24", "did you mean 192.0.2.1?"),
            ("node-b", "for example, 192.0.2.1"),
        ] {
            let (members, flaws) = judge(&[node("b", &[text], &[])], &Members::default());
            assert!(members.others.is_empty() && flaws[0].contains(why), "{text}: {flaws:?}");
        }
    }

    #[test]
    fn a_subnet_without_room_for_a_pod_is_refused_with_what_to_give() {
        for (text, why) in [
            ("10.244.0.1/32", "no room for a pod: give it a /30 or larger, usually a /24"),
            ("10.244.0.0/31", "no room for a pod"),
            ("fd00::/128", "no room for a pod: give it a /126 or larger, usually a /64"),
            ("fd00::/127", "no room for a pod"),
            ("0.0.0.0/8", "0.0.0.0 is the unspecified address"),
            ("64.0.0.0/2", "cannot be given to pods"),
        ] {
            let (members, flaws) = judge(&[node("a", &["192.0.2.1"], &[text])], &Members::default());
            assert!(members.own.is_none() && flaws[0].contains(why), "{text}: {flaws:?}");
        }
        for text in ["10.244.0.0/30", "fd00::/126", "10.0.0.0/8"] {
            let (members, flaws) = judge(&[node("a", &["192.0.2.1"], &[text])], &Members::default());
            assert!(members.own.is_some(), "{text}: {flaws:?}");
        }
    }

    fn many(count: u32) -> Vec<Candidate> {
        let of = |number: u32| {
            let name = if number == 0 { "a".to_owned() } else { format!("n{number}") };
            let address = Ipv4Addr::from_bits(0x6440_0000 + number).to_string();
            let subnet = format!("{}/28", Ipv4Addr::from_bits(0x0a00_0000 + (number << 4)));
            node(&name, &[&address], &[&subnet])
        };
        (0..count).map(of).collect()
    }

    #[test]
    fn thousands_of_nodes_are_judged_again_and_again() {
        let mut nodes = many(5_000);
        let (before, flaws) = judge(&nodes, &Members::unknown());
        assert!(flaws.is_empty() && before.others.len() == 4_999);
        for node in &mut nodes[1..] {
            node.addresses = vec![node.addresses[0].replace("100.", "101.")];
        }
        let began = std::time::Instant::now();
        let (after, flaws) = judge(&nodes, &before);
        println!("5000 nodes, all of them changed: {:?}", began.elapsed());
        assert!(flaws.is_empty() && after.others.len() == 4_999 && after != before);
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
