//! The ways to the pods of other nodes: routes, and a VXLAN link to nodes behind routers.
//!
//! What is ours in the kernel says so: routes carry the number [`PROTOCOL`], the link has the name [`TUNNEL`] and the alias
//! [`ALIAS`], and everything that stands on it is ours. [`Network::reconcile`] looks at what stands, compares, and does the
//! difference; it may be called at any time, after any crash, and does nothing where all is as it should be. It never
//! touches a route of somebody else.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use weft_datapath::{Error, Link, MarkedRoute, Nft, Rtnl, VxlanLink};

use crate::aside::aside;
use crate::member::{Member, Members};
use crate::membership::Known;
use crate::repair::throttle::Throttle;
use crate::repair::{Told, healed};
use crate::status::{self, Board, By, seen};

mod difference;
mod kernel;
pub mod plan;

pub use plan::{ALIAS, Encapsulation, ID, Options, PORT, PROTOCOL, TUNNEL};

use plan::{Hop, Wanted, plan};

/// After this what could not be done is tried again.
const RETRY: Duration = Duration::from_secs(3);
/// How often it is looked whether all still stands, where nobody tells that something changed.
const LOOK: Duration = Duration::from_secs(30);

/// The way from the nodes to the kernel.
#[derive(Debug)]
pub struct Network {
    rtnl: Rtnl,
    options: Options,
    /// The addresses of this node that were on its links at some time.
    seen: RefCell<BTreeSet<IpAddr>>,
    /// The routes of ours that have stood, and are still wanted: what has taken the place of one of them came later.
    stood: RefCell<BTreeSet<kernel::Key>>,
}

/// What a look at the kernel led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Everything that was done, in its order.
    pub changes: Vec<Change>,
    /// What could not be done and concerns this node itself, with the next step.
    pub problems: Vec<String>,
    /// What could not be added, each with the reason. It costs the nodes that it is the way to, and they say so.
    pub refused: BTreeMap<(Kind, String), String>,
    /// The other nodes, and how their pods are reached.
    pub peers: Vec<status::Peer>,
    /// The MTU that pods should be given, where it is not left to the plugin.
    pub pod_mtu: Option<u32>,
    /// Whether nothing was looked at and all stays as it is, for the problem that there is.
    pub is_withheld: bool,
}

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// To a thing of which kind.
    pub kind: Kind,
    /// What.
    pub did: Did,
    /// To which one.
    pub of: String,
    /// What somebody had put in its place.
    pub in_place_of: Option<String>,
}

/// A kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The VXLAN link.
    Link,
    /// Where a far end of it is.
    Fdb,
    /// Who a next hop on it is.
    Neighbour,
    /// A route.
    Route,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// It was missing.
    Added,
    /// It was another.
    Replaced,
    /// It was one too many.
    Removed,
}

impl Network {
    /// For the namespace of the calling thread.
    ///
    /// # Errors
    /// Where the kernel has no netlink socket to give.
    pub fn open(options: Options) -> Result<Self, Error> {
        Rtnl::open().map(|rtnl| Self { rtnl, options, seen: RefCell::default(), stood: RefCell::default() })
    }

    /// Brings the kernel to where it should be for these nodes. Where this node is not among them, or has not its own address,
    /// everything stays.
    ///
    /// # Errors
    /// Where it cannot be seen what stands. What cannot be changed is a problem in the report, and keeps nothing else from
    /// being changed.
    pub fn reconcile(&self, members: &Members) -> Result<Report, Error> {
        let mut report = Report::default();
        let Some(own) = &members.own else {
            report.is_withheld = true;
            report.problems.push("this node is not among the nodes: add it, or mend its entry".to_owned());
            return Ok(report);
        };
        let links = kernel::links(&self.rtnl, own)?;
        if let Some(missing) = self.lost_address(own, &links) {
            report.is_withheld = true;
            report.problems.push(format!(
                "this node's own address {missing} is on none of its links: the ways to other nodes stay as they are until it is there, \
                 or the node's address is corrected"
            ));
            return Ok(report);
        }
        let wanted = plan(own, members, &links, self.options);
        kernel::Work::new(&self.rtnl, &mut report, &mut self.stood.borrow_mut()).bring_about(&wanted)?;
        report.peers = peers(members, &wanted, &report.refused);
        report.pod_mtu = wanted.pod_mtu;
        Ok(report)
    }
}

/// What stands of ours in the namespace of the calling thread.
///
/// # Errors
/// Where the kernel does not tell.
pub(crate) fn look() -> Result<seen::Kernel, Error> {
    let rtnl = Rtnl::open()?;
    let link =
        |index| rtnl.link_by_index(index).ok().flatten().map_or(format!("link {index}"), |link| link.name);
    let shown = |route: MarkedRoute| seen::Route {
        subnet: route.dst.to_string(),
        through: route.gateway,
        link: link(route.link),
    };
    let is_ours = |one: &VxlanLink| one.link.name == TUNNEL && one.link.alias.as_deref() == Some(ALIAS);
    let tunnel = rtnl.vxlans()?.into_iter().find(is_ours).map(|VxlanLink { link, id, port, .. }| {
        let far_ends = rtnl.far_ends(&link)?.len();
        Ok::<_, Error>(seen::Tunnel { link: link.name, up: link.up, id, port, mtu_bytes: link.mtu, far_ends })
    });
    let routes = rtnl.marked_routes(PROTOCOL)?.into_iter().map(shown).collect();
    Ok(seen::Kernel { routes, tunnel: tunnel.transpose()? })
}

/// Takes away the routes and the tunnel that are ours, in the namespace of the calling thread. Nothing of anybody else's is touched.
///
/// # Errors
/// Where it cannot be seen what stands. What cannot be removed is a problem in the report.
pub fn remove() -> Result<Report, Error> {
    let (rtnl, mut report) = (Rtnl::open()?, Report::default());
    kernel::Work::new(&rtnl, &mut report, &mut BTreeSet::new()).bring_about(&Wanted::default())?;
    Ok(report)
}

/// Whether no pod is attached in the namespace of the calling thread: no host end of a pair stands, and no element of the firewall.
/// Leases are not asked, for a pod whose lease is lost still talks.
///
/// # Errors
/// Where the kernel does not tell, for want of `CAP_NET_ADMIN`, say.
pub fn is_unused() -> Result<bool, Error> {
    let is_pod = |link: &Link| {
        let owner = link.alias.as_deref().map(|alias| alias.split('/').count());
        link.name.starts_with("weft") && owner == Some(3)
    };
    if Rtnl::open()?.observe()?.links.iter().any(is_pod) {
        return Ok(false);
    }
    Nft::open_if_any()?.map_or(Ok(true), |nft| nft.is_unused())
}

impl Network {
    /// An address of this node that was here and is not, or any where none is: a lease is renewed, or comes late. Without it
    /// nobody knows any more which ways are right.
    fn lost_address(&self, own: &Member, links: &[plan::Link]) -> Option<IpAddr> {
        let held = |address: &IpAddr| {
            links.iter().flat_map(|link| &link.addresses).any(|held| held.ip() == *address)
        };
        let (here, missing): (Vec<_>, Vec<_>) = own.addresses.iter().partition(held);
        let mut seen = self.seen.borrow_mut();
        let lost = missing.iter().find(|address| here.is_empty() || seen.contains(address)).copied();
        seen.extend(here);
        lost
    }
}

impl Report {
    /// Whether all ways stand.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.problems.is_empty() && self.peers.iter().all(|peer| peer.unreached.is_empty())
    }

    /// What was done to things of this kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(move |change| change.kind == kind)
    }
}

impl Kind {
    /// As it is called in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Fdb => "fdb",
            Self::Neighbour => "neighbour",
            Self::Route => "route",
        }
    }
}

/// Keeps the ways as the nodes want them, whenever those change or something was lost.
/// Nothing is done before the nodes are known.
///
/// # Errors
/// Where the kernel has no netlink socket to give.
pub(crate) async fn follow(
    options: Options,
    mut members: watch::Receiver<Known>,
    told: Told,
    board: Board,
    mtu: watch::Sender<Option<u32>>,
) -> Result<Infallible, Error> {
    let Told { mut losses, mut gains } = told;
    let mut network = Network::open(options)?;
    let mut throttle = Throttle::of("the ways to other nodes", &board);
    let (mut problems, mut before) = (BTreeSet::new(), None);
    loop {
        losses.mark_unchanged();
        gains.mark_unchanged();
        let known = members.borrow_and_update().clone();
        let is_new = std::mem::replace(&mut before, known.clone()) != known;
        let mut pause = LOOK;
        if let Some(members) = known {
            let looked = aside(move || {
                let report = network.reconcile(&members);
                (network, report)
            });
            let (back, report) = looked.await;
            network = back;
            if let Some(report) = report.as_ref().ok().filter(|report| !report.is_withheld) {
                mtu.send_if_modified(|now| std::mem::replace(now, report.pod_mtu) != report.pod_mtu);
            }
            let report = report.unwrap_or_else(|error| Report::failed(&error));
            tell(&report, &mut problems, is_new, &board);
            if let Some(last) = report.changes.last().filter(|_| !is_new) {
                throttle.note(last.to_string());
            }
            if !report.problems.is_empty() || !report.refused.is_empty() {
                pause = RETRY;
            }
        }
        sleep_until(Instant::now() + throttle.pause()).await;
        tokio::select! {
            Ok(()) = members.changed() => {}
            Ok(()) = losses.changed() => {}
            Ok(()) = gains.changed() => {}
            () = sleep_until(Instant::now() + pause) => {}
        }
    }
}

impl Change {
    /// Whether the same was done to another thing of the kind, and nobody is to be named.
    fn is_like(&self, other: &Self) -> bool {
        (self.kind, self.did) == (other.kind, other.did)
            && self.in_place_of.is_none()
            && other.in_place_of.is_none()
    }
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "the {} {}", self.kind.name(), self.of)?;
        self.in_place_of.as_ref().map_or(Ok(()), |theirs| write!(f, ", which somebody had routed {theirs}"))
    }
}

impl Report {
    fn failed(error: &Error) -> Self {
        let problem = format!("{error}: {}; it is tried again", error.refusal);
        Self { problems: vec![problem], ..Self::default() }
    }
}

/// Says what was done, and each problem once. What is done while the nodes stay the same repairs what somebody spoiled.
fn tell(report: &Report, problems: &mut BTreeSet<String>, is_new: bool, board: &Board) {
    report.changes.chunk_by(Change::is_like).for_each(|alike| tell_of(alike, is_new));
    for problem in report.problems.iter().filter(|problem| !problems.contains(*problem)) {
        tracing::error!("{problem}");
    }
    let unreached = report.peers.iter().flat_map(status::Peer::troubles);
    let unreached: Vec<_> = unreached.filter(|_| !report.is_withheld).collect();
    for trouble in unreached.iter().filter(|trouble| !problems.contains(*trouble)) {
        tracing::warn!("{trouble}");
    }
    *problems = report.problems.iter().cloned().chain(unreached).collect();
    board.write(|status| {
        let before = std::mem::take(&mut status.network);
        let (peers, pod_mtu) = if report.is_withheld {
            (before.peers, before.pod_mtu_bytes)
        } else {
            (report.peers.clone(), report.pod_mtu)
        };
        status.network = status::Network {
            stands: report.stands(),
            is_known: true,
            peers,
            pod_mtu_bytes: pod_mtu,
            problems: report.problems.clone(),
        };
    });
    for change in report.changes.iter().filter(|_| !is_new) {
        healed(board, change.kind.name(), 1);
    }
}

/// Of changes that are alike. A thousand nodes may come at once, or lose their routes.
fn tell_of(alike: &[Change], is_new: bool) {
    const SPELLED_OUT: usize = 10;
    if let [first, .., last] = alike
        && alike.len() > SPELLED_OUT
    {
        let (count, kind, did) = (alike.len(), first.kind.name(), first.did);
        let (first, last) = (&first.of, &last.of);
        match is_new {
            true => tracing::info!(count, kind, first, last, "{did:?}"),
            false => tracing::warn!(count, kind, first, last, "{did:?}; somebody had changed them"),
        }
        return;
    }
    for Change { kind, did, of, in_place_of } in alike {
        let kind = kind.name();
        match in_place_of {
            None if is_new => tracing::info!(kind, of, "{did:?}"),
            None => tracing::warn!(kind, of, "{did:?}; somebody had changed it"),
            Some(theirs) => {
                tracing::warn!(kind, of, theirs, "{did:?}; somebody had put another in its place")
            }
        }
    }
}

fn peers(
    members: &Members,
    wanted: &Wanted,
    refused: &BTreeMap<(Kind, String), String>,
) -> Vec<status::Peer> {
    let peer = |member| status::Peer { node: member, ..status::Peer::default() };
    let mut peers: BTreeMap<_, _> =
        members.others.iter().map(|(name, member)| (name.as_str(), peer(member.into()))).collect();
    for (subnet, way) in &wanted.ways {
        let Some(peer) = peers.get_mut(way.node.as_str()) else { continue };
        match refusal(*subnet, way, refused) {
            None => peer.ways.push(shown(&subnet.to_string(), way)),
            Some(why) => peer.unreached.push(format!("{subnet}: {why}")),
        }
    }
    for (subnet, (node, why)) in &wanted.unreached {
        let peer = peers.get_mut(node.as_str());
        peer.into_iter().for_each(|peer| peer.unreached.push(format!("{subnet}: {why}")));
    }
    peers.into_values().collect()
}

/// Whatever of a way could not be made, it does not lead there.
fn refusal<'a>(
    subnet: IpNetwork,
    way: &plan::Way,
    refused: &'a BTreeMap<(Kind, String), String>,
) -> Option<&'a String> {
    if refused.is_empty() {
        return None;
    }
    let of = |kind, of: String| refused.get(&(kind, of));
    let route = of(Kind::Route, subnet.to_string());
    match way.hop {
        Hop::Direct { .. } => route,
        Hop::Tunnel { gateway } => of(Kind::Link, TUNNEL.to_owned())
            .or_else(|| of(Kind::Fdb, way.through.to_string()))
            .or_else(|| of(Kind::Neighbour, gateway.to_string()))
            .or(route),
    }
}

fn shown(subnet: &str, way: &plan::Way) -> status::Way {
    let (by, link) = match &way.hop {
        Hop::Direct { name, .. } => (By::Direct, name.clone()),
        Hop::Tunnel { .. } => (By::Vxlan, TUNNEL.to_owned()),
    };
    status::Way { subnet: subnet.to_owned(), by, through: way.through, link }
}
