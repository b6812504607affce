//! Pods are seen by pods of other nodes as who they are: the networks of all nodes, and those that the operator names, are
//! destinations to which nobody is masqueraded.

use std::collections::BTreeSet;
use std::convert::Infallible;

use ipnetwork::IpNetwork;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use weft_datapath::{Error, Nft, Resettled};
use weft_ipam::chain;

use super::throttle::Throttle;
use super::{Losses, healed, reason_to_look};
use crate::aside::aside;
use crate::member::Members;
use crate::membership::Known;
use crate::status::Board;

/// Keeps them so. While nobody knows the nodes, nothing is changed.
pub(crate) async fn keep(
    named: Vec<IpNetwork>,
    mut members: watch::Receiver<Known>,
    mut losses: watch::Receiver<Losses>,
    board: Board,
) -> Result<Infallible, Infallible> {
    let throttle = Throttle::of("the networks to which nobody is masqueraded", &board);
    let mut settler = Settler { board, throttle, settled: BTreeSet::new(), complaint: None };
    loop {
        losses.mark_unchanged();
        let known = members.borrow_and_update().clone();
        // A node that is not among the nodes changes nothing.
        if let Some(members) = known.filter(|members| members.own.is_some()) {
            settler.settle(&members, wanted(&members, &named)).await;
        }
        sleep_until(Instant::now() + settler.throttle.pause()).await;
        reason_to_look(&mut losses, &mut members).await;
    }
}

/// Takes all of them away, and with the last pod gone Weft's table; says which there were.
pub(crate) fn remove() -> Result<BTreeSet<IpNetwork>, Error> {
    let Some(nft) = Nft::open_if_any()? else { return Ok(BTreeSet::new()) };
    let standing = nft.unmasqueraded()?;
    nft.set_unmasqueraded(&BTreeSet::new())?;
    nft.remove_unused_table()?;
    Ok(standing)
}

struct Settler {
    board: Board,
    throttle: Throttle,
    /// What stood when it was left.
    settled: BTreeSet<IpNetwork>,
    complaint: Option<String>,
}

impl Settler {
    async fn settle(&mut self, members: &Members, wanted: BTreeSet<IpNetwork>) {
        let (mut networks, is_partial) = (wanted.clone(), members.is_partial);
        let settled = aside(move || {
            let nft = Nft::open()?;
            // What stands may be a node's that is not known.
            networks.extend(if is_partial { nft.unmasqueraded()? } else { BTreeSet::new() });
            nft.set_unmasqueraded(&networks)
        });
        match settled.await {
            Ok(Resettled { added: 0, removed: 0 }) => self.complaint = None,
            Ok(Resettled { added, removed }) => {
                tracing::info!(added, removed, "networks that pods reach under their own addresses");
                if self.settled == wanted {
                    healed(&self.board, "unmasqueraded", (added + removed) as u64);
                    self.throttle.note(format!(
                        "{added} missing and {removed} too many in the sets unmasqueraded4 and unmasqueraded6"
                    ));
                }
                self.complaint = None;
            }
            Err(error) => self.complain(chain(&error)),
        }
        self.settled = wanted;
    }

    fn complain(&mut self, problem: String) {
        if self.complaint.as_ref() != Some(&problem) {
            tracing::error!("{problem}");
        }
        self.complaint = Some(problem);
    }
}

fn wanted(members: &Members, named: &[IpNetwork]) -> BTreeSet<IpNetwork> {
    let all = members.own.iter().chain(members.others.values());
    all.flat_map(|member| &member.pod_cidrs).chain(named).copied().collect()
}
