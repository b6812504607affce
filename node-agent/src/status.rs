//! What the agent knows of the node, as plain values: each task writes its own part, and health, metrics and the picture are
//! made of the whole.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::member::Member;

pub mod picture;

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
    /// What lets pods be attached.
    pub install: Install,
    /// What joins them with those of other nodes.
    pub network: Network,
    /// What somebody took away, and the agent put back.
    pub repair: Repair,
    /// What runtimes have left.
    pub gc: Gc,
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
    /// The other nodes, by name.
    pub peers: Vec<Peer>,
    /// The MTU that pods are given, where it is not left to the plugin.
    pub pod_mtu: Option<u32>,
    /// Why it is not as it should be, with the next step.
    pub problem: Option<String>,
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
    /// When the last was, in seconds of the epoch.
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
    pub held: f64,
    /// How many there are. A range of IPv6 has more than a whole number of JSON can say.
    pub size: f64,
}

impl Status {
    /// Whether pods can be attached and reach other nodes, or everything that is in the way.
    ///
    /// # Errors
    /// What is in the way.
    pub fn readiness(&self) -> Result<(), Vec<String>> {
        if self.uninstalled {
            return Ok(());
        }
        let mut missing = Vec::new();
        match &self.install.self_test {
            SelfTest::Passed { .. } => {}
            SelfTest::Pending => missing.push("the self-test has not been run yet".to_owned()),
            SelfTest::Failed { why } => missing.push(format!("the self-test failed: {why}")),
        }
        if self.install.conflist.is_none() {
            missing.push("the network configuration is not installed".to_owned());
        }
        missing.extend(self.install.problem.clone());
        if !self.network.stands {
            let why = self.network.problem.as_deref().unwrap_or("nobody has told of them yet");
            missing.push(format!("the ways to other nodes do not stand: {why}"));
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
        let preferred = self.install.before_ours.iter();
        all.extend(
            preferred
                .map(|theirs| format!("{} comes first: runtimes use it, and not Weft", theirs.display())),
        );
        all.extend(self.install.remarks.iter().cloned());
        all.extend(self.install.template.clone());
        all.extend(self.network.problem.clone());
        let unreached = self
            .network
            .peers
            .iter()
            .flat_map(|peer| peer.unreached.iter().map(|why| format!("{}: {why}", peer.node.name)));
        all.extend(unreached);
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
        status.network.stands = true;
        assert_eq!(status.readiness(), Ok(()));
        status.install.problem = Some("somebody edited it".into());
        assert_eq!(status.readiness(), Err(vec!["somebody edited it".to_owned()]));
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
