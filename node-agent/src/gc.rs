//! Ends what sandboxes have left that the runtime does not know any more.
//!
//! A runtime detaches a sandbox by DEL. One that lost its records, or was killed at the wrong moment, never will, and containerd
//! calls no GC. So the agent asks the runtime which sandboxes it has, and sees to the rest itself: by DEL for each, not by
//! GC for all, since pods are attached meanwhile, and a GC takes what it is not told of.
//!
//! containerd 1.6 lists a sandbox only after its ADD. [`Suspects::judge`] has what follows from it.

use std::collections::{BTreeSet, HashSet};
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use weft_ipam::lease::{Attachment, Lease};
use weft_ipam::{Ipam, chain};

use self::inhabited::Signs;
use crate::aside::aside;
use crate::cni::{self, Runtime};
use crate::conflist::List;
use crate::leases;
use crate::setup::InForce;
use crate::status::Board;

pub(crate) mod cri;
pub(crate) mod inhabited;

/// The note in a lease that `weft-ipam import` has made of one of host-local's.
const ADOPTED: &str = "fromHostLocal";

/// A lease, as far as it matters here.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) attachment: Attachment,
    pub(crate) since: SystemTime,
    /// Whether a runtime of Kubernetes made it: it alone names a pod. podman's containers, say, are in no list of sandboxes.
    pub(crate) is_of_pod: bool,
    /// Whether its namespace is there.
    pub(crate) has_namespace: bool,
    /// Whether somebody uses its namespace, whoever has lost the record ([`inhabited`]).
    pub(crate) is_inhabited: bool,
}

/// What a runtime said it has.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// When it was asked.
    pub(crate) asked: SystemTime,
    /// The ids of its sandboxes.
    pub(crate) sandboxes: HashSet<String>,
}

/// The leases that were missing from the list before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Suspects(BTreeSet<(Attachment, SystemTime)>);

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// What is to be detached.
    pub(crate) stale: Vec<Attachment>,
    /// How many look as if they were next.
    pub(crate) suspected: usize,
    /// Why nothing was judged.
    pub(crate) withheld: Option<String>,
}

/// Why a round came to nothing, or not to all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The runtime did not say what it has.
    #[error("cannot ask the runtime for its sandboxes")]
    Runtime(#[from] cri::Error),
    /// There are no leases to judge.
    #[error(transparent)]
    Open(#[from] leases::Error),
    /// The leases cannot be read.
    #[error("cannot read the leases of network {network}")]
    Leases { network: String, source: Box<weft_ipam::Error> },
    /// A DEL was refused.
    #[error("cannot detach {attachment}")]
    Detach { attachment: String, source: cni::Error },
}

/// What a round came to.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// What was detached.
    pub(crate) collected: Vec<Attachment>,
    /// How many look as if they were next.
    pub(crate) suspected: usize,
    /// Why nothing was judged.
    pub(crate) withheld: Option<String>,
    /// What could not be detached, and is tried again.
    pub(crate) failures: Vec<Error>,
}

impl Suspects {
    /// A lease is stale if its pod's sandbox is not listed, and
    ///
    /// - it was made more than `grace` before the list was asked for: a sandbox is listed only after its ADD, and kubelet
    ///   gives up one that takes longer than four minutes (`--runtime-request-timeout` twice);
    /// - it was not listed the last time either: a runtime that has just started may not have read all of its records;
    /// - nobody uses its namespace, as far as can be seen.
    ///
    /// Nothing is stale where the list is empty and namespaces of leases stand: that is a runtime with a fresh directory, or
    /// the wrong runtime.
    pub(crate) fn judge(&mut self, held: &[Held], listed: &Listed, grace: Duration) -> Verdict {
        let standing = held.iter().filter(|held| held.is_of_pod && held.has_namespace).count();
        if listed.sandboxes.is_empty() && standing > 0 {
            self.0.clear();
            let why = format!("the runtime lists no sandbox, but {standing} namespaces of pods stand");
            return Verdict { withheld: Some(why), ..Verdict::default() };
        }
        let is_old = |held: &Held| listed.asked.duration_since(held.since).is_ok_and(|age| age > grace);
        let is_missing = |held: &&Held| {
            held.is_of_pod
                && !held.is_inhabited
                && !listed.sandboxes.contains(held.attachment.container())
                && is_old(held)
        };
        let missing = held.iter().filter(is_missing).map(|held| (held.attachment.clone(), held.since));
        let before = std::mem::replace(&mut self.0, missing.collect());
        let stale: Vec<_> = self.0.intersection(&before).map(|(attachment, _)| attachment.clone()).collect();
        Verdict { suspected: self.0.len() - stale.len(), stale, withheld: None }
    }
}

/// Whom it is asked, and how.
#[derive(Clone, Debug)]
pub(crate) struct Collector {
    pub(crate) runtime: Runtime,
    pub(crate) socket: PathBuf,
    pub(crate) grace: Duration,
    /// From one question to the next.
    pub(crate) interval: Duration,
}

impl Collector {
    /// Goes on for as long as the agent runs.
    ///
    /// # Errors
    /// Never.
    pub(crate) async fn keep(
        self,
        mut in_force: watch::Receiver<InForce>,
        board: Board,
    ) -> Result<Infallible, Infallible> {
        board.write(|status| status.gc.socket = Some(self.socket.clone()));
        let mut suspects = Suspects::default();
        loop {
            let list = in_force.borrow_and_update().clone();
            if let Some(list) = &list {
                self.visit(list, &mut suspects, &board).await;
            }
            let next = tokio::time::Instant::now() + self.interval;
            // Whatever list comes meanwhile is looked at by the next round; only the first is waited for.
            if list.is_none() {
                in_force.changed().await.ok();
            } else {
                tokio::time::sleep_until(next).await;
            }
        }
    }

    async fn visit(&self, list: &List, suspects: &mut Suspects, board: &Board) {
        let outcome = self.round(list, suspects).await;
        let known = board.read().gc.problem;
        let (round, problem) = match outcome {
            Ok(round) => {
                let problem = round.withheld.clone().or(round.failures.first().map(|error| chain(error)));
                (round, problem)
            }
            Err(error) => (Round::default(), Some(chain(&error))),
        };
        for collected in &round.collected {
            tracing::info!(attachment = %collected, "ended the lease of a sandbox that the runtime has forgotten");
        }
        if let Some(problem) = problem.as_ref().filter(|problem| known.as_ref() != Some(problem)) {
            tracing::warn!("nothing that sandboxes have left is collected, or not all: {problem}");
        }
        board.write(|status| {
            status.gc.rounds += 1;
            status.gc.collected += round.collected.len() as u64;
            status.gc.suspected = round.suspected;
            status.gc.problem = problem;
        });
    }

    /// Asks, judges, and detaches what is stale.
    ///
    /// # Errors
    /// Where nothing could be judged. A lease that could not be ended is in [`Round::failures`].
    pub(crate) async fn round(&self, list: &List, suspects: &mut Suspects) -> Result<Round, Error> {
        let network = list.clone();
        let ipam = aside(move || leases::open(&network)).await?;
        let asked = SystemTime::now();
        let sandboxes = cri::sandboxes(&self.socket).await?;
        let network = list.name.clone();
        let looked = aside(move || (held(&network, &ipam, &sandboxes), sandboxes));
        let (held, sandboxes) = looked.await;
        let held = held?;
        let verdict = suspects.judge(&held, &Listed { asked, sandboxes }, self.grace);
        let mut round =
            Round { suspected: verdict.suspected, withheld: verdict.withheld, ..Round::default() };
        for stale in verdict.stale {
            match self.detach(list, &stale).await {
                Ok(()) => round.collected.push(stale),
                Err(error) => round.failures.push(error),
            }
        }
        Ok(round)
    }

    async fn detach(&self, list: &List, stale: &Attachment) -> Result<(), Error> {
        let (container, ifname) = (stale.container().to_owned(), stale.ifname().to_owned());
        let attachment = cni::Attachment { container, ifname, netns: None };
        let detached = self.runtime.del(list, &attachment, None).await;
        detached.map_err(|source| Error::Detach { attachment: stale.to_string(), source })
    }
}

/// Of those that are listed nobody needs to know who is in there.
fn held(network: &str, ipam: &Ipam, listed: &HashSet<String>) -> Result<Vec<Held>, Error> {
    let unreadable = |error| Error::Leases { network: network.to_owned(), source: Box::new(error) };
    let (leases, _damaged) = ipam.readable_leases().map_err(unreadable)?.whose();
    let is_lost = |lease: &Lease| !listed.contains(lease.attachment.container());
    let signs = if leases.iter().any(is_lost) { Signs::read() } else { Signs::default() };
    let held = |lease: Lease| Held::of(is_lost(&lease) && signs.of(&lease), lease);
    Ok(leases.into_iter().map(held).collect())
}

impl Held {
    fn of(is_inhabited: bool, lease: Lease) -> Self {
        let netns = lease.netns.as_ref();
        Self {
            since: lease.since,
            // host-local did not know pods, and a runtime's memory of them may be gone.
            is_of_pod: lease.pod.is_some() || lease.notes.contains_key(ADOPTED),
            has_namespace: netns.is_some_and(|netns| netns.is_there()),
            is_inhabited,
            attachment: lease.attachment,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn held(container: &str, since: u64) -> Held {
        Held {
            attachment: Attachment::new("weft", container, "eth0").unwrap(),
            since: at(since),
            is_of_pod: true,
            has_namespace: true,
            is_inhabited: false,
        }
    }

    fn listed(asked: u64, sandboxes: &[&str]) -> Listed {
        Listed { asked: at(asked), sandboxes: sandboxes.iter().map(ToString::to_string).collect() }
    }

    /// The containers that are stale after these rounds, each with what is held then.
    fn judged(rounds: &[(&[Held], Listed)]) -> Vec<String> {
        let mut suspects = Suspects::default();
        let verdicts = rounds.iter().map(|(held, listed)| suspects.judge(held, listed, GRACE));
        let last = verdicts.last().unwrap();
        last.stale.iter().map(|attachment| attachment.container().to_owned()).collect()
    }

    #[test]
    fn a_lease_that_is_old_and_missing_twice_is_stale() {
        let all = [held("runs", 1), held("lost", 1)];
        assert_eq!(judged(&[(&all, listed(1000, &["runs"]))]), [""; 0]);
        assert_eq!(judged(&[(&all, listed(1000, &["runs"])), (&all, listed(1060, &["runs"]))]), ["lost"]);
    }

    #[test]
    fn one_that_is_being_made_is_never_stale() {
        let all = [held("runs", 1), held("new", 900)];
        let rounds: Vec<_> = (0..4).map(|n| (&all[..], listed(1000 + n * 50, &["runs"]))).collect();
        assert_eq!(judged(&rounds), [""; 0], "at 1150 it is 250 s old");
        let ahead = [held("runs", 1), held("future", 5000)];
        assert_eq!(judged(&[(&ahead, listed(1000, &["runs"])), (&ahead, listed(1060, &["runs"]))]), [""; 0]);
    }

    #[test]
    fn one_that_was_listed_in_between_begins_anew_and_so_does_one_that_was_made_anew() {
        let all = [held("runs", 1), held("slow", 1)];
        let missing = listed(1000, &["runs"]);
        let rounds =
            [(&all[..], missing.clone()), (&all[..], listed(1010, &["runs", "slow"])), (&all[..], missing)];
        assert_eq!(judged(&rounds), [""; 0]);
        let again = [held("runs", 1), held("slow", 2)];
        assert_eq!(judged(&[(&all, listed(1000, &["runs"])), (&again, listed(1060, &["runs"]))]), [""; 0]);
    }

    #[test]
    fn an_empty_list_beside_namespaces_that_stand_says_nothing() {
        let all = [held("lost", 1)];
        let mut suspects = Suspects::default();
        for asked in [1000, 1060, 1120] {
            let verdict = suspects.judge(&all, &listed(asked, &[]), GRACE);
            assert_eq!((verdict.stale.len(), verdict.suspected), (0, 0));
            assert!(verdict.withheld.unwrap().contains("1 namespaces of pods stand"));
        }
        let gone = [Held { has_namespace: false, ..held("lost", 1) }];
        assert_eq!(judged(&[(&gone, listed(1000, &[])), (&gone, listed(1060, &[]))]), ["lost"]);
    }

    #[test]
    fn what_somebody_lives_in_and_what_is_of_no_pod_stays() {
        let inhabited = Held { is_inhabited: true, ..held("orphan", 1) };
        let of_podman = Held { is_of_pod: false, ..held("podman", 1) };
        let all = [held("runs", 1), inhabited, of_podman];
        assert_eq!(judged(&[(&all, listed(1000, &["runs"])), (&all, listed(1060, &["runs"]))]), [""; 0]);
    }
}
