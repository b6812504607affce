//! Puts back what somebody took away: a firewall's restart that flushed the ruleset, a route that was deleted, forwarding that
//! was switched off.
//!
//! ```text
//! kernel ── what was lost ─▶ Losses ─┬─▶ networks to which nobody is masqueraded   (at once, over netlink)
//!                                    ├─▶ routes to other nodes                     (at once, over netlink)
//!                                    └─▶ pods: `weft-cni audit --repair`           (the plugin knows what a pod needs)
//! ```
//!
//! What goes on being taken away is put back more and more slowly, and told of ([`throttle`]).
//!
//! Nothing is counted on but that the kernel tells *that* something was lost: each of the three compares all of its own with what
//! stands. Where the kernel's word was missed, a slow look once a minute finds it.

pub(crate) mod pods;
pub(crate) mod throttle;
pub(crate) mod unmasqueraded;

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use weft_datapath::{Heard, Watch};

use crate::clock::now;
use crate::network::TUNNEL;
use crate::readable::readable;
use crate::status::Board;

/// How often it is looked without any word of the kernel's.
pub(crate) const LOOK: Duration = Duration::from_secs(60);

/// How often something was lost. That one of the numbers is new is all they say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    /// Links, addresses, routes, forwarding.
    pub(crate) network: u64,
    /// Weft's tables of nftables.
    pub(crate) firewall: u64,
    /// Those of both that concern all pods.
    pub(crate) ruins: u64,
}

/// What the kernel tells, for who waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// That something was lost.
    pub(crate) losses: watch::Receiver<Losses>,
    /// That something came, an address or a link, for which something may have waited.
    pub(crate) gains: watch::Receiver<u64>,
}

/// Why the kernel cannot be listened to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not tell.
    #[error(transparent)]
    Kernel(#[from] weft_datapath::Error),
    /// Nobody can wait for it.
    #[error("cannot wait for the kernel")]
    Wait(#[source] io::Error),
}

/// Hears what is lost.
#[derive(Debug)]
pub(crate) struct Listener {
    network: AsyncFd<Watch>,
    firewall: AsyncFd<Watch>,
    losses: watch::Sender<Losses>,
    gains: watch::Sender<u64>,
}

impl Listener {
    /// Listens from now on, so that nothing is missed between a first look and the first word.
    pub(crate) fn open() -> Result<(Self, Told), Error> {
        let (losses, lost) = watch::channel(Losses::default());
        let (gains, gained) = watch::channel(0);
        let network = readable(Watch::of_network(TUNNEL)?).map_err(Error::Wait)?;
        let firewall = readable(Watch::of_firewall()?).map_err(Error::Wait)?;
        Ok((Self { network, firewall, losses, gains }, Told { losses: lost, gains: gained }))
    }

    /// Goes on listening.
    pub(crate) async fn keep(self) -> Result<Infallible, Error> {
        loop {
            tokio::select! {
                heard = next(&self.network) => self.pass_on(heard?, |losses| &mut losses.network),
                heard = next(&self.firewall) => self.pass_on(heard?, |losses| &mut losses.firewall),
            }
        }
    }

    fn pass_on(&self, heard: Option<Heard>, of: impl Fn(&mut Losses) -> &mut u64) {
        let Some(heard) = heard else { return };
        if heard == Heard::Gain {
            return self.gains.send_modify(|gains| *gains += 1);
        }
        self.losses.send_modify(|losses| {
            *of(losses) += 1;
            losses.ruins += u64::from(heard == Heard::Ruin);
        });
    }
}

/// What there was to hear next.
async fn next(watch: &AsyncFd<Watch>) -> Result<Option<Heard>, Error> {
    let mut ready = watch.readable().await.map_err(Error::Wait)?;
    // It is read until there is no more, and what comes after that makes it readable again.
    ready.clear_ready();
    Ok(watch.get_ref().heard()?)
}

/// Waits for a word of the kernel's, for `other` to change, or until it is time to look anyway.
pub(crate) async fn reason_to_look<T, U>(losses: &mut watch::Receiver<T>, other: &mut watch::Receiver<U>) {
    let anyway = Instant::now() + LOOK;
    // A sender that is gone has nothing new for anybody; the agent is ending.
    tokio::select! {
        Ok(()) = losses.changed() => {}
        Ok(()) = other.changed() => {}
        () = sleep_until(anyway) => {}
    }
}

/// Writes down that `count` things of a kind were put back.
pub(crate) fn healed(board: &Board, what: &str, count: u64) {
    board.write(|status| {
        *status.repair.heals.entry(what.to_owned()).or_default() += count;
        status.repair.last = Some(now());
    });
}
