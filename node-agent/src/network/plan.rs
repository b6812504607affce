//! Which way leads to the pods of each other node. Pure: from the nodes, and what this one's links are, to everything that
//! is to stand.
//!
//! A node whose address lies in a subnet of the link that has our own address is the next hop itself. Any other is behind
//! routers that know no pods; to it leads the VXLAN link, in packets from node to node.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;
use sha2::{Digest, Sha256};
use weft_datapath::{Mac, Vxlan};

use crate::member::{Member, Members, NodeName};

/// The mark of our routes (`rtm_protocol`). Below 64 numbers are the kernel's and of known programs, as are those from 186.
pub const PROTOCOL: u8 = 87;
/// The name of our VXLAN link.
pub const TUNNEL: &str = "weft.vxlan";
/// What says that the link is ours.
pub const ALIAS: &str = "weft: to the pods of other nodes";
/// The port that IANA gave VXLAN.
pub const PORT: u16 = 4789;
/// The VXLAN network identifier: above all VLAN ids, so that who derives the one from the other does not meet it.
pub const ID: u32 = 4183;

/// The kernel's own, which it shows for an IPv6 route that was given none.
const METRIC_V6: u32 = 1024;
const ETHERNET: u32 = 1500;
/// The headers of Ethernet inside, VXLAN and UDP, and the one of IP outside.
const OVERHEAD_V4: u32 = 14 + 8 + 8 + 20;
const OVERHEAD_V6: u32 = 14 + 8 + 8 + 40;
/// Below this a link cannot have IPv6 (RFC 8200).
const LEAST_MTU: u32 = 1280;

/// How packets may travel, and in what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whom the tunnel leads to.
    pub encapsulation: Encapsulation,
    /// The UDP port, the same on all nodes.
    pub port: u16,
    /// The VXLAN network identifier, the same on all nodes.
    pub id: u32,
}

/// Which nodes are reached through the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encapsulation {
    /// Those that share no link with this one.
    #[default]
    Auto,
    /// All: for networks whose switches drop what is not from a node's own address, as those of most clouds do.
    Always,
    /// None: a node that shares no link with this one is not reached.
    Never,
}

/// A link of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses with their subnets.
    pub addresses: Vec<IpNetwork>,
}

/// Everything that is to stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The tunnel, where any way leads through it.
    pub tunnel: Option<Tunnel>,
    /// The way to each subnet of another node.
    pub ways: BTreeMap<IpNetwork, Way>,
    /// Subnets to which there is none.
    pub unreached: BTreeMap<IpNetwork, (NodeName, Unreached)>,
    /// The MTU that pods should be given, where it is not that of the node's link.
    pub pod_mtu: Option<u32>,
    /// Whether what stands beside this stays, because it may belong to a node that is not known.
    pub is_partial: bool,
}

/// The VXLAN link, and what it knows of its far ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The link.
    pub link: Vxlan,
    /// Where each far end is.
    pub far_ends: BTreeMap<Mac, IpAddr>,
    /// Which far end each next hop is.
    pub neighbours: BTreeMap<IpAddr, Mac>,
}

/// A way to a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Whose subnet it is.
    pub node: NodeName,
    /// The address of that node.
    pub through: IpAddr,
    /// How.
    pub hop: Hop,
}

/// What is next on a way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// The other node, on a link of this one.
    Direct {
        /// The link's index.
        link: u32,
        /// And its name.
        name: String,
    },
    /// The far end that is this neighbour on the tunnel.
    Tunnel {
        /// Its address.
        gateway: IpAddr,
    },
}

/// Why there is no way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreached {
    /// Our own address is not on the node.
    NotHere(IpAddr),
    /// The two nodes have no address of the same family.
    NoCommonFamily,
    /// Only a tunnel would lead there.
    TunnelForbidden,
    /// The node's address is that of everybody on our link, or of nobody.
    NoHost(IpAddr, IpNetwork),
    /// The node's address is one of this node's.
    Ours(IpAddr),
}

impl Default for Options {
    fn default() -> Self {
        Self { encapsulation: Encapsulation::Auto, port: PORT, id: ID }
    }
}

/// What is to stand on the node `own`, which has these `links`. There are ways to pods of the families that it has pods of.
#[must_use]
pub fn plan(own: &Member, members: &Members, links: &[Link], options: Options) -> Wanted {
    let planner = Planner { own, links, options };
    let mut wanted = Wanted { is_partial: members.is_partial, ..Wanted::default() };
    for member in members.others.values() {
        for subnet in member.pod_cidrs.iter().filter(|subnet| has_family(own, **subnet)) {
            match planner.way(member, *subnet) {
                Ok(way) => drop(wanted.ways.insert(*subnet, way)),
                Err(why) => drop(wanted.unreached.insert(*subnet, (member.name.clone(), why))),
            }
        }
    }
    wanted.tunnel = planner.tunnel(&wanted.ways);
    wanted.pod_mtu = wanted.tunnel.as_ref().map(|tunnel| planner.pod_mtu(tunnel, &wanted.ways));
    wanted
}

/// The hardware address of a node's end of the tunnel. It follows from the name, so nobody needs to be told of it.
#[must_use]
pub fn mac_of(node: &NodeName) -> Mac {
    let digest = Sha256::digest(node.as_str());
    Mac::local(digest.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte)))
}

/// The metric of our route to `subnet`.
#[must_use]
pub fn metric_of(subnet: IpNetwork) -> u32 {
    if subnet.is_ipv4() { 0 } else { METRIC_V6 }
}

struct Planner<'a> {
    own: &'a Member,
    links: &'a [Link],
    options: Options,
}

impl Planner<'_> {
    fn way(&self, member: &Member, subnet: IpNetwork) -> Result<Way, Unreached> {
        let way = |through, hop| Way { node: member.name.clone(), through, hop };
        if let Some((through, link)) = self.direct(member, subnet) {
            self.expect_host(through)?;
            return Ok(way(through, Hop::Direct { link: link.index, name: link.name.clone() }));
        }
        let local = self.outer();
        self.holding(local).ok_or(Unreached::NotHere(local))?;
        let remote = member.addresses.of_family(local).ok_or(Unreached::NoCommonFamily)?;
        self.expect_host(remote)?;
        match self.options.encapsulation {
            Encapsulation::Never => Err(Unreached::TunnelForbidden),
            _ => Ok(way(remote, Hop::Tunnel { gateway: gateway_of(member, subnet) })),
        }
    }

    /// The node's address of the subnet's family and our link, if the one lies in a subnet of the other.
    fn direct(&self, member: &Member, subnet: IpNetwork) -> Option<(IpAddr, &Link)> {
        let (ours, theirs) =
            (self.own.addresses.of_family(subnet.ip())?, member.addresses.of_family(subnet.ip())?);
        let link = self.holding(ours).filter(|_| self.options.encapsulation != Encapsulation::Always)?;
        link.addresses.iter().any(|address| address.contains(theirs)).then_some((theirs, link))
    }

    /// Only who knows the link's netmask knows which of its addresses are nobody's. The kernel refuses them as a next hop.
    fn expect_host(&self, address: IpAddr) -> Result<(), Unreached> {
        for here in self.links.iter().flat_map(|link| &link.addresses) {
            if here.ip() == address {
                return Err(Unreached::Ours(address));
            }
            let is_end = [here.network(), here.broadcast()].contains(&address);
            if is_end && here.is_ipv4() && here.prefix() < 31 {
                return Err(Unreached::NoHost(address, *here));
            }
        }
        Ok(())
    }

    /// One link carries packets of one family, so all nodes should have the one that this picks: IPv4, where there is one.
    fn outer(&self) -> IpAddr {
        let addresses = self.own.addresses;
        let unspecified = Ipv6Addr::UNSPECIFIED.into();
        addresses.iter().next().unwrap_or(unspecified)
    }

    /// Where a loopback and another link both have the address, it is the other.
    fn holding(&self, address: IpAddr) -> Option<&Link> {
        let holds = |link: &&Link| link.addresses.iter().any(|here| here.ip() == address);
        let mut holding = self.links.iter().filter(holds);
        holding.clone().find(|link| !link.is_loopback()).or_else(|| holding.next())
    }

    fn tunnel(&self, ways: &BTreeMap<IpNetwork, Way>) -> Option<Tunnel> {
        let (mut far_ends, mut neighbours) = (BTreeMap::new(), BTreeMap::new());
        for way in ways.values() {
            if let Hop::Tunnel { gateway } = way.hop {
                let mac = mac_of(&way.node);
                far_ends.insert(mac, way.through);
                neighbours.insert(gateway, mac);
            }
        }
        let link = self.link();
        (!far_ends.is_empty()).then_some(Tunnel { link, far_ends, neighbours })
    }

    fn link(&self) -> Vxlan {
        let local = self.outer();
        // A loopback's MTU says nothing of the way.
        let under = self.holding(local).filter(|link| !link.is_loopback()).map_or(ETHERNET, |link| link.mtu);
        let overhead = if local.is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 };
        Vxlan {
            name: TUNNEL.into(),
            alias: ALIAS.into(),
            id: self.options.id,
            port: self.options.port,
            local,
            mac: mac_of(&self.own.name),
            mtu: under.saturating_sub(overhead).max(LEAST_MTU),
            addresses: own_ends(self.own),
        }
    }

    /// What fits through every way.
    fn pod_mtu(&self, tunnel: &Tunnel, ways: &BTreeMap<IpNetwork, Way>) -> u32 {
        let direct = ways.values().filter_map(|way| match &way.hop {
            Hop::Direct { link, .. } => self.links.iter().find(|here| here.index == *link),
            Hop::Tunnel { .. } => None,
        });
        direct.map(|link| link.mtu).min().map_or(tunnel.link.mtu, |mtu| mtu.min(tunnel.link.mtu))
    }
}

impl Link {
    fn is_loopback(&self) -> bool {
        self.name == "lo"
    }
}

impl Display for Unreached {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHere(address) => {
                write!(
                    f,
                    "this node's own address {address} is on none of its links; correct the node's address"
                )
            }
            Self::NoHost(address, here) => {
                let what = if *address == here.network() { "network" } else { "broadcast" };
                let (network, prefix) = (here.network(), here.prefix());
                write!(
                    f,
                    "{address} is the {what} address of {network}/{prefix} here; correct the node's address"
                )
            }
            Self::Ours(address) => {
                write!(
                    f,
                    "{address} is an address of this node, too; correct the other node's, or take it off this one"
                )
            }
            Self::NoCommonFamily => {
                f.write_str("it has no address of the family in which this node sends to others; give it one")
            }
            Self::TunnelForbidden => {
                f.write_str("it shares no link with this node, and --vxlan never forbids the tunnel")
            }
        }
    }
}

fn has_family(own: &Member, subnet: IpNetwork) -> bool {
    own.pod_cidrs.iter().any(|ours| ours.is_ipv4() == subnet.is_ipv4())
}

/// The next hop is nobody's address, only a name for the far end. For IPv4 it is the subnet's own address, which no pod
/// has. For IPv6 that would be looked up, and found behind whatever way leads to the subnet before: so it is the
/// link-local address that follows from the hardware address (RFC 4291, appendix A).
fn gateway_of(member: &Member, subnet: IpNetwork) -> IpAddr {
    if subnet.is_ipv4() { subnet.network() } else { link_local(mac_of(&member.name)).into() }
}

fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.octets();
    let tail = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(tail))
}

/// The address that this node itself sends to pods behind the tunnel from, one for each family: it must lie in a subnet to
/// which they have a way, and no pod may have it.
fn own_ends(own: &Member) -> Vec<IpAddr> {
    let first = |is_v4: bool| {
        let mut roomy = own.pod_cidrs.iter().filter(|subnet| subnet.prefix() < if is_v4 { 31 } else { 127 });
        roomy.find(|subnet| subnet.is_ipv4() == is_v4).map(|subnet| subnet.network())
    };
    [first(true), first(false)].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::member::Candidate;

    fn node(name: &str, addresses: &[&str], pod_cidrs: &[&str]) -> Candidate {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        Candidate { name: name.into(), addresses: texts(addresses), pod_cidrs: texts(pod_cidrs) }
    }

    fn members(candidates: &[Candidate]) -> Members {
        let (members, flaws) = Members::judge(&"a".parse().unwrap(), candidates, &[], &Members::default());
        assert!(flaws.is_empty(), "{flaws:?}");
        members
    }

    fn eth0() -> Link {
        let addresses = ["192.0.2.1/24", "2001:db8::1/64"].map(|text| text.parse().unwrap()).into();
        Link { index: 2, name: "eth0".into(), mtu: 1500, addresses }
    }

    fn planned(candidates: &[Candidate], links: &[Link], options: Options) -> Wanted {
        let members = members(candidates);
        plan(members.own.as_ref().unwrap(), &members, links, options)
    }

    /// One line for each subnet.
    fn shown(wanted: &Wanted) -> Vec<String> {
        let way = |(subnet, way): (&IpNetwork, &Way)| match &way.hop {
            Hop::Direct { name, .. } => format!("{subnet} direct {} {name}", way.through),
            Hop::Tunnel { gateway } => format!("{subnet} vxlan {} {gateway}", way.through),
        };
        let unreached =
            wanted.unreached.iter().map(|(subnet, (node, why))| format!("{subnet} of {node}: {why:?}"));
        wanted.ways.iter().map(way).chain(unreached).collect()
    }

    const A: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
    const PODS_A: [&str; 2] = ["10.244.0.0/24", "fd00:10:244::/64"];

    #[test]
    fn who_shares_a_link_is_the_next_hop_and_who_does_not_is_behind_the_tunnel() {
        let nodes = [
            node("a", &A, &PODS_A),
            node("b", &["192.0.2.2", "2001:db8::2"], &["10.244.1.0/24", "fd00:10:244:1::/64"]),
            node("c", &["198.51.100.3", "2001:db8:1::3"], &["10.244.2.0/24", "fd00:10:244:2::/64"]),
        ];
        let wanted = planned(&nodes, &[eth0()], Options::default());
        let c = mac_of(&"c".parse().unwrap());
        assert_eq!(
            shown(&wanted),
            [
                "10.244.1.0/24 direct 192.0.2.2 eth0".to_owned(),
                "10.244.2.0/24 vxlan 198.51.100.3 10.244.2.0".to_owned(),
                "fd00:10:244:1::/64 direct 2001:db8::2 eth0".to_owned(),
                format!("fd00:10:244:2::/64 vxlan 198.51.100.3 {}", link_local(c)),
            ]
        );
        let tunnel = wanted.tunnel.unwrap();
        assert_eq!(tunnel.far_ends, [(c, "198.51.100.3".parse().unwrap())].into());
        assert_eq!(tunnel.neighbours.len(), 2);
        assert_eq!((tunnel.link.mtu, wanted.pod_mtu), (1450, Some(1450)));
        let ends: [IpAddr; 2] = ["10.244.0.0".parse().unwrap(), "fd00:10:244::".parse().unwrap()];
        assert_eq!(tunnel.link.addresses, ends);
    }

    #[test]
    fn each_family_of_pods_over_each_family_of_nodes() {
        let table = [
            // This node, the other, what leads to the other's IPv4 and IPv6 pods, and the tunnel's MTU.
            ("192.0.2.1", "198.51.100.3", ["vxlan 198.51.100.3", "vxlan 198.51.100.3"], 1450),
            ("2001:db8::1", "2001:db8:1::3", ["vxlan 2001:db8:1::3", "vxlan 2001:db8:1::3"], 1430),
            ("192.0.2.1", "192.0.2.3", ["direct 192.0.2.3", "vxlan 192.0.2.3"], 1450),
            ("2001:db8::1", "2001:db8::3", ["vxlan 2001:db8::3", "direct 2001:db8::3"], 1430),
        ];
        for (own, other, expected, mtu) in table {
            let nodes =
                [node("a", &[own], &PODS_A), node("c", &[other], &["10.244.2.0/24", "fd00:10:244:2::/64"])];
            let wanted = planned(&nodes, &[eth0()], Options::default());
            let shown: Vec<_> = shown(&wanted)
                .iter()
                .map(|line| line.split(' ').skip(1).take(2).collect::<Vec<_>>().join(" "))
                .collect();
            assert_eq!(shown, expected, "{own:?} to {other:?}");
            assert_eq!(wanted.tunnel.unwrap().link.mtu, mtu);
        }
    }

    #[test]
    fn without_a_tunnel_the_mtu_is_left_to_the_plugin() {
        let nodes = [node("a", &A, &PODS_A), node("b", &["192.0.2.2"], &["10.244.1.0/24"])];
        let wanted = planned(&nodes, &[eth0()], Options::default());
        assert_eq!((wanted.tunnel, wanted.pod_mtu), (None, None));
    }

    #[test]
    fn what_cannot_be_reached_is_said_with_the_reason() {
        let nodes = [
            node("a", &A, &PODS_A),
            node("b", &["192.0.2.2"], &["10.244.1.0/24"]),
            node("c", &["198.51.100.3"], &["10.244.2.0/24"]),
            node("d", &["2001:db8:1::4"], &["10.244.3.0/24"]),
        ];
        let with = |encapsulation| Options { encapsulation, ..Options::default() };
        assert_eq!(
            shown(&planned(&nodes, &[eth0()], with(Encapsulation::Never))),
            [
                "10.244.1.0/24 direct 192.0.2.2 eth0",
                "10.244.2.0/24 of c: TunnelForbidden",
                "10.244.3.0/24 of d: NoCommonFamily",
            ]
        );
        assert_eq!(
            shown(&planned(&nodes, &[eth0()], with(Encapsulation::Always))),
            [
                "10.244.1.0/24 vxlan 192.0.2.2 10.244.1.0",
                "10.244.2.0/24 vxlan 198.51.100.3 10.244.2.0",
                "10.244.3.0/24 of d: NoCommonFamily",
            ]
        );
        let nowhere = planned(&nodes, &[], Options::default());
        assert!(nowhere.ways.is_empty() && nowhere.tunnel.is_none());
        assert_eq!(nowhere.unreached.len(), 3);
    }

    #[test]
    fn an_address_that_is_nobodys_on_our_link_costs_that_node_alone() {
        let nodes = [
            node("a", &A, &PODS_A),
            node("b", &["192.0.2.2"], &["10.244.1.0/24"]),
            node("c", &["192.0.2.255"], &["10.244.2.0/24"]),
            node("d", &["192.0.2.0"], &["10.244.3.0/24"]),
            node("e", &["192.0.2.77"], &["10.244.4.0/24"]),
        ];
        let mut link = eth0();
        link.addresses.push("192.0.2.77/32".parse().unwrap());
        for encapsulation in [Encapsulation::Auto, Encapsulation::Always] {
            let wanted =
                planned(&nodes, std::slice::from_ref(&link), Options { encapsulation, ..Options::default() });
            assert_eq!(wanted.ways.len(), 1);
            let reasons: Vec<_> =
                wanted.unreached.values().map(|(node, why)| format!("{node}: {why}")).collect();
            assert_eq!(
                reasons,
                [
                    "c: 192.0.2.255 is the broadcast address of 192.0.2.0/24 here; correct the node's address",
                    "d: 192.0.2.0 is the network address of 192.0.2.0/24 here; correct the node's address",
                    "e: 192.0.2.77 is an address of this node, too; correct the other node's, or take it off this one",
                ]
            );
        }
    }

    #[test]
    fn an_address_on_the_loopback_gives_no_mtu_and_no_neighbour() {
        let nodes = [node("a", &["192.0.2.1"], &PODS_A), node("b", &["192.0.2.2"], &["10.244.1.0/24"])];
        let lo = Link {
            index: 1,
            name: "lo".into(),
            mtu: 65536,
            addresses: vec!["127.0.0.1/8".parse().unwrap(), "192.0.2.1/32".parse().unwrap()],
        };
        let wanted = planned(&nodes, std::slice::from_ref(&lo), Options::default());
        assert_eq!(shown(&wanted), ["10.244.1.0/24 vxlan 192.0.2.2 10.244.1.0"]);
        assert_eq!(wanted.pod_mtu, Some(1450));
        let wanted = planned(&nodes, &[lo, eth0()], Options::default());
        assert_eq!(shown(&wanted), ["10.244.1.0/24 direct 192.0.2.2 eth0"]);
    }

    #[test]
    fn the_end_of_a_tunnel_follows_from_the_nodes_name_alone() {
        let mac = |name: &str| mac_of(&name.parse().unwrap());
        assert_eq!(mac("a"), mac("a"));
        assert_ne!(mac("a"), mac("b"));
        assert_eq!(
            link_local("02:00:5e:10:00:01".parse().unwrap()),
            "fe80::5eff:fe10:1".parse::<Ipv6Addr>().unwrap()
        );
    }

    fn any_cluster() -> impl Strategy<Value = (Members, Options)> {
        let other = |i: u8| {
            (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
                move |(near, has_v4, has_v6, pods_v4, pods_v6)| {
                    let net = if near { "192.0.2" } else { "198.51.100" };
                    let v6 = if near { "2001:db8:" } else { "2001:db8:1:" };
                    let mut node = node(&format!("n{i}"), &[], &[]);
                    node.addresses.extend((has_v4 || !has_v6).then(|| format!("{net}.{}", i + 10)));
                    node.addresses.extend(has_v6.then(|| format!("{v6}:{:x}", i + 10)));
                    node.pod_cidrs.extend(pods_v4.then(|| format!("10.244.{}.0/24", i + 1)));
                    node.pod_cidrs.extend(pods_v6.then(|| format!("fd00:10:244:{:x}::/64", i + 1)));
                    node
                },
            )
        };
        let encapsulation =
            prop_oneof![Just(Encapsulation::Auto), Just(Encapsulation::Always), Just(Encapsulation::Never)];
        let others: Vec<_> = (0..6).map(other).collect();
        (others, 1..4usize, 1..4usize, encapsulation).prop_map(|(others, own, pods, encapsulation)| {
            let both = |bits: usize, of: [&'static str; 2]| {
                of.into_iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, one)| one).collect()
            };
            let (addresses, pods): (Vec<_>, Vec<_>) = (both(own, A), both(pods, PODS_A));
            let mut all = others;
            all.push(node("a", &addresses, &pods));
            (members(&all), Options { encapsulation, ..Options::default() })
        })
    }

    proptest! {
        #[test]
        fn every_subnet_of_a_family_that_has_pods_here_has_one_way_or_one_reason((members, options) in any_cluster()) {
            let own = members.own.as_ref().unwrap();
            let wanted = plan(own, &members, &[eth0()], options);
            for subnet in members.others.values().flat_map(|member| &member.pod_cidrs) {
                let (way, reason) = (wanted.ways.contains_key(subnet), wanted.unreached.contains_key(subnet));
                prop_assert_eq!(way ^ reason, has_family(own, *subnet));
            }
            for subnet in wanted.ways.keys().chain(wanted.unreached.keys()) {
                prop_assert!(!own.pod_cidrs.contains(subnet), "nothing of our own is led away");
            }
        }

        #[test]
        fn whatever_leads_through_the_tunnel_ends_at_the_right_node((members, options) in any_cluster()) {
            let wanted = plan(members.own.as_ref().unwrap(), &members, &[eth0()], options);
            let mut far_ends = 0;
            for way in wanted.ways.values() {
                if let Hop::Tunnel { gateway } = way.hop {
                    let tunnel = wanted.tunnel.as_ref().unwrap();
                    let remote = tunnel.far_ends[&tunnel.neighbours[&gateway]];
                    prop_assert!(members.others[&way.node].addresses.iter().any(|address| address == remote));
                    prop_assert_eq!(remote.is_ipv4(), tunnel.link.local.is_ipv4());
                    far_ends += 1;
                }
            }
            prop_assert_eq!(far_ends > 0, wanted.tunnel.is_some(), "there is a link only where it is needed");
        }
    }
}
