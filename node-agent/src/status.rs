//! What the agent knows of the node, as plain values: each task writes its own part, and health, metrics and the picture are
//! made of the whole.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::member::Member;

pub mod picture;
pub mod seen;

/// Everything, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// Whether Weft was taken off this node, as somebody asked: then there is nothing else to tell.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub uninstalled: bool,
    /// This node.
    pub node: Node,
    /// Who the nodes are.
    pub membership: Membership,
    /// What lets pods be attached.
    pub install: Install,
    /// What joins them with those of other nodes.
    pub network: Network,
    /// What somebody took away, and the agent put back.
    pub repair: Repair,
    /// What runtimes have left.
    pub gc: Gc,
    /// The files for sidecars, by the kind of what is in them; nothing where there are none.
    pub discovery: BTreeMap<String, Kept>,
    /// Resources of the Kubernetes API that cannot be followed, each with the reason. What was known of them stays in force.
    pub kubernetes: BTreeMap<String, String>,
    /// How full each range is.
    pub leases: Vec<Range>,
    /// Every other part's warnings are here once, in the order in which they should be read.
    pub warnings: Vec<String>,
}

/// A node, as its cluster knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The subnets of its pods.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
}

/// Who the nodes are, as far as that can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Membership {
    /// Who tells of them: a file, or the Kubernetes API.
    pub source: String,
    /// Whether all of it could be read the last time.
    pub read: bool,
    /// Why not.
    pub problem: Option<String>,
    /// How many nodes there are, with this one.
    pub members: usize,
    /// What is wrong with entries, each of which is held back alone.
    pub mistakes: Vec<Mistake>,
    /// Whether ways of nodes that nobody knows stay, because one of the entries may be theirs.
    pub is_partial: bool,
    /// When something of the nodes changed.
    pub last_change_epoch_seconds: Option<u64>,
}

/// What is wrong with an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mistake {
    /// Whose entry it is, where that is known.
    pub node: Option<String>,
    /// Whether it is this node's.
    pub is_own: bool,
    /// What it is, and what became of the entry.
    pub what: String,
}

/// Objects of the Kubernetes API that are files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Kept {
    /// How many files there are.
    pub files: usize,
    /// How many were written since the agent began.
    pub written: u64,
    /// How many were removed.
    pub removed: u64,
    /// How often an object could not be read.
    pub refused: u64,
    /// How often all objects were listed: once, and whenever a watch could not go on from where it was.
    pub lists: u64,
    /// When a file was written or removed.
    pub last_change_epoch_seconds: Option<u64>,
}

/// Whether pods can be attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Install {
    /// Where the configuration is, when it is.
    pub conflist: Option<PathBuf>,
    /// The network's name.
    pub network: Option<String>,
    /// What the self-test said.
    pub self_test: SelfTest,
    /// Configurations that runtimes prefer to ours.
    pub before_ours: Vec<PathBuf>,
    /// How many leases of host-local were taken over.
    pub adopted: u64,
    /// How many pods have addresses of no subnet of this node, since that has changed.
    pub pods_outside: usize,
    /// What a person should see to, that keeps nothing from working.
    pub remarks: Vec<String>,
    /// Why the template is not followed, while what it said before stays in force.
    pub template: Option<String>,
    /// Why it is not as it should be, with the next step.
    pub problem: Option<String>,
}

/// What the self-test said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum SelfTest {
    /// It has not been run yet.
    #[default]
    Pending,
    /// A pod was attached, reached, checked and detached.
    Passed {
        /// How long that took.
        milliseconds: u64,
        /// Where it was reached.
        addresses: Vec<IpAddr>,
    },
    /// Pods hold every address. What stands has passed it before, so that nothing is wrong with the node but that it is full.
    NoRoom,
    /// It could not be.
    Failed {
        /// Why, with the next step.
        why: String,
    },
}

/// Whether the ways to other nodes stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// Whether all of them do.
    pub stands: bool,
    /// Whether it is known which they are.
    pub is_known: bool,
    /// The other nodes, by name.
    pub peers: Vec<Peer>,
    /// The MTU that pods are given, where it is not left to the plugin.
    pub pod_mtu_bytes: Option<u32>,
    /// What is not as it should be on this node, with the next step. What keeps one other node from being reached is with that node.
    pub problems: Vec<String>,
}

/// Another node, and the ways to its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Peer {
    /// Who it is.
    #[serde(flatten)]
    pub node: Node,
    /// One for each of its subnets that is reached.
    pub ways: Vec<Way>,
    /// Subnets that are not, each with the reason.
    pub unreached: Vec<String>,
}

/// How a subnet of another node is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Way {
    /// The subnet.
    pub subnet: String,
    /// How.
    pub by: By,
    /// The address of the other node that packets are sent to.
    pub through: IpAddr,
    /// The link that they leave by.
    pub link: String,
}

/// How packets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum By {
    /// As they are: the nodes share a link.
    Direct,
    /// Within others: a router in between knows no pods.
    Vxlan,
}

/// What was restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Repair {
    /// How often, by what it was: `route`, `neighbour`, `fdb`, `link`, `nftables`, `sysctl` …
    pub heals: BTreeMap<String, u64>,
    /// When the last was.
    #[serde(rename = "lastEpochSeconds")]
    pub last: Option<u64>,
    /// What could not be, with the next step.
    pub problem: Option<String>,
    /// What somebody takes away again and again, so that it is put back more slowly, with who it was the last time.
    pub storms: BTreeMap<String, String>,
}

/// What was collected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Gc {
    /// The runtime's socket, where there is one.
    pub socket: Option<PathBuf>,
    /// How often it was asked.
    pub rounds: u64,
    /// How many attachments were ended.
    pub collected: u64,
    /// How many look as if they were next.
    pub suspected: usize,
    /// Why nothing is collected, with the next step.
    pub problem: Option<String>,
}

/// How full a range is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Range {
    /// The network.
    pub network: String,
    /// The range's subnet.
    pub subnet: String,
    /// How many addresses are held.
    #[serde(rename = "heldAddresses")]
    pub held: u64,
    /// How many there are. The largest number stands for what is larger: a range of IPv6 may be.
    #[serde(rename = "totalAddresses")]
    pub size: u64,
}

impl Status {
    /// Whether this node does its part: pods can be attached, and its own end of the ways to other nodes is as it should be. Another
    /// node that cannot be reached is a warning, for else one with a mistake would make all others unready.
    ///
    /// # Errors
    /// What is in the way.
    pub fn readiness(&self) -> Result<(), Vec<String>> {
        if self.uninstalled {
            return Ok(());
        }
        let mut missing = Vec::new();
        match &self.install.self_test {
            SelfTest::Passed { .. } | SelfTest::NoRoom => {}
            SelfTest::Pending => missing.push("the self-test has not been run yet".to_owned()),
            SelfTest::Failed { why } => missing.push(format!("the self-test failed: {why}")),
        }
        if self.install.conflist.is_none() {
            missing.push("the network configuration is not installed".to_owned());
        }
        missing.extend(self.install.problem.clone());
        missing.extend(self.mistakes().filter(|(mistake, _)| mistake.is_own).map(|(_, text)| text));
        let problems = self.network.problems.iter();
        missing.extend(problems.map(|why| format!("the ways to other nodes do not stand: {why}")));
        if !self.network.is_known && self.network.problems.is_empty() {
            let why = self.membership.problem.as_ref().or(self.kubernetes.get("nodes"));
            let why = why.map_or("nobody has told of them yet", String::as_str);
            missing.push(format!("it is not known who the nodes are: {why}"));
        }
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    /// Everything that somebody should know, most pressing first.
    #[must_use]
    pub fn all_warnings(&self) -> Vec<String> {
        let mut all = Vec::new();
        all.extend(self.install.problem.clone());
        if let SelfTest::Failed { why } = &self.install.self_test {
            all.push(format!("the self-test failed: {why}"));
        }
        if self.install.self_test == SelfTest::NoRoom {
            all.push(
                "pods hold every address of this node: no other can be attached, and the self-test waits until one has gone"
                    .to_owned(),
            );
        }
        let preferred = self.install.before_ours.iter();
        all.extend(
            preferred
                .map(|theirs| format!("{} comes first: runtimes use it, and not Weft", theirs.display())),
        );
        if let count @ 1.. = self.install.pods_outside {
            all.push(format!(
                "pods with addresses outside of this node's subnets, which other nodes do not send to: {count}; make them anew"
            ));
        }
        all.extend(self.install.remarks.iter().cloned());
        all.extend(self.install.template.clone());
        let source = &self.membership.source;
        all.extend(
            self.membership
                .problem
                .iter()
                .map(|why| format!("{source}: {why}; the nodes stay as they are until it is right")),
        );
        all.extend(self.mistakes().map(|(_, text)| text));
        if self.membership.is_partial {
            all.push(
                "until these entries are right, or gone, no way to a node that is not known is taken away"
                    .into(),
            );
        }
        all.extend(self.network.problems.iter().cloned());
        all.extend(self.network.peers.iter().flat_map(Peer::troubles));
        all.extend(self.repair.storms.values().cloned());
        all.extend([&self.repair.problem, &self.gc.problem].into_iter().flatten().cloned());
        let unknown = self.kubernetes.iter();
        all.extend(unknown.map(|(resource, why)| {
            format!("cannot follow {resource} of the Kubernetes API, so that they stay as they were: {why}")
        }));
        all.extend(self.warnings.iter().cloned());
        all
    }
}

impl Status {
    /// This node's own first.
    fn mistakes(&self) -> impl Iterator<Item = (&Mistake, String)> {
        let Membership { source, mistakes, .. } = &self.membership;
        let of = move |is_own| mistakes.iter().filter(move |mistake| mistake.is_own == is_own);
        of(true)
            .chain(of(false))
            .map(move |mistake| (mistake, format!("{source}: {}; mend it there", mistake.what)))
    }
}

impl Peer {
    /// Why its pods are not reached, in words that say whose.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = String> {
        self.unreached.iter().map(|why| format!("{}: {why}", self.node.name))
    }
}

impl From<&Member> for Node {
    fn from(member: &Member) -> Self {
        Self {
            name: member.name.to_string(),
            addresses: member.addresses.iter().collect(),
            pod_cidrs: member.pod_cidrs.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Where the tasks write what they know. Clones write to the same one.
#[derive(Clone, Debug)]
pub struct Board(watch::Sender<Status>);

impl Default for Board {
    fn default() -> Self {
        let status = Status { version: env!("CARGO_PKG_VERSION").to_owned(), ..Status::default() };
        Self(watch::Sender::new(status))
    }
}

impl Board {
    /// Notes whether a resource of the Kubernetes API can be followed, and if not why.
    pub(crate) fn follows(&self, resource: &str, trouble: Option<&str>) {
        self.write(|status| {
            match trouble {
                Some(why) => status.kubernetes.insert(resource.to_owned(), why.to_owned()),
                None => status.kubernetes.remove(resource),
            };
        });
    }

    /// Changes a part of it that changes often, and wakes nobody.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Status)) {
        self.0.send_if_modified(|status| {
            change(status);
            false
        });
    }

    /// Changes a part of it. Who follows is woken only where that changed something.
    pub fn write(&self, change: impl FnOnce(&mut Status)) {
        self.0.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }

    /// What is known now.
    #[must_use]
    pub fn read(&self) -> Status {
        self.0.borrow().clone()
    }

    /// Follows what is known.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_when_pods_were_attached_and_the_ways_stand() {
        let mut status = Status::default();
        let missing = status.readiness().unwrap_err();
        assert_eq!(missing.len(), 3, "{missing:?}");
        status.install.self_test = SelfTest::Passed { milliseconds: 20, addresses: vec![] };
        status.install.conflist = Some("/etc/cni/net.d/10-weft.conflist".into());
        status.network.is_known = true;
        assert_eq!(status.readiness(), Ok(()));
        status.install.problem = Some("somebody edited it".into());
        assert_eq!(status.readiness(), Err(vec!["somebody edited it".to_owned()]));
    }

    #[test]
    fn another_node_that_is_not_reached_makes_this_one_no_less_ready() {
        let mut status = Status::default();
        status.install.self_test = SelfTest::Passed { milliseconds: 20, addresses: vec![] };
        status.install.conflist = Some("/etc/cni/net.d/10-weft.conflist".into());
        status.network.is_known = true;
        let unreached = vec!["10.244.1.0/24: 192.0.2.255 is a broadcast address".to_owned()];
        status.network.peers = vec![Peer { unreached, ..Peer::default() }];
        let mistake = Mistake { node: Some("b".into()), is_own: false, what: "it is wrong".into() };
        status.membership.mistakes = vec![mistake.clone()];
        assert_eq!(status.readiness(), Ok(()));
        assert_eq!(status.all_warnings().len(), 2);
        status.membership.mistakes.push(Mistake { is_own: true, what: "so is this".into(), ..mistake });
        assert_eq!(status.readiness(), Err(vec![": so is this; mend it there".to_owned()]));
        status.membership.mistakes.clear();
        status.network.problems = vec!["the tunnel cannot be made".into()];
        assert!(status.readiness().is_err());
    }

    #[test]
    fn what_cannot_be_followed_is_a_warning() {
        let mut status = Status::default();
        status.kubernetes.insert("nodes".into(), "no connection".into());
        let warnings = status.all_warnings();
        assert!(matches!(&warnings[..], [one] if one.contains("nodes") && one.ends_with("no connection")));
    }

    #[test]
    fn what_is_written_is_read_back_and_who_follows_is_woken_only_by_what_is_new() {
        let board = Board::default();
        let mut follower = board.follow();
        board.write(|status| status.gc.rounds = 1);
        assert!(follower.has_changed().unwrap());
        follower.mark_unchanged();
        board.write(|status| status.gc.rounds = 1);
        assert!(!follower.has_changed().unwrap());
        let text = serde_json::to_string(&board.read()).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), board.read());
    }

    #[test]
    fn a_status_of_another_version_is_read_as_far_as_it_goes() {
        let read: Status =
            serde_json::from_str(r#"{"version": "9", "new": 1, "node": {"name": "a"}}"#).unwrap();
        assert_eq!((read.version.as_str(), read.node.name.as_str()), ("9", "a"));
    }
}
