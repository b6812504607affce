//! What pods need of the node, as the plugin that attached them knows it: `weft-cni audit --repair`.

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use weft_ipam::chain;

use super::throttle::Throttle;
use super::{Losses, healed, reason_to_look};
use crate::aside::spawn;
use crate::conflist::List;
use crate::selftest;
use crate::setup::InForce;
use crate::status::Board;

/// Every pod that goes is a loss, too. Of the time that pods go audits take no more than a third, however many there are. What
/// all pods share is not waited with, and neither is who has just taken something away.
const PAUSE_PER_AUDIT: u32 = 2;
/// Who takes away the routes of all pods does so one by one; an audit in the middle of it would have to be repeated.
const BURST: Burst = Burst { quiet: Duration::from_millis(20), longest: Duration::from_millis(200) };
/// An audit waits up to two seconds for a pod that is just being attached.
const DEADLINE: Duration = Duration::from_secs(30);

/// Asks the installed plugin.
#[derive(Clone, Debug)]
pub(crate) struct Auditor {
    /// Where plugins are.
    pub(crate) bin_dir: PathBuf,
    /// Where configurations are.
    pub(crate) conf_dir: PathBuf,
}

/// What an audit came to, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Audit {
    findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    container: String,
    problem: String,
    what: String,
    repaired: bool,
    remedy: String,
}

/// Why there was no audit.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot run {} audit", plugin.display())]
    Run { plugin: PathBuf, source: std::io::Error },
    #[error("{} audit took longer than {} s and was killed", plugin.display(), DEADLINE.as_secs())]
    Late { plugin: PathBuf },
    #[error("{} audit could not look: {said}", plugin.display())]
    Wordless { plugin: PathBuf, said: String },
}

impl Auditor {
    /// Keeps all pods as they were attached.
    pub(crate) async fn keep(
        self,
        mut in_force: watch::Receiver<InForce>,
        mut losses: watch::Receiver<Losses>,
        board: Board,
    ) -> Result<Infallible, Infallible> {
        let mut throttle = Throttle::of("what pods need", &board);
        loop {
            let ruins = losses.borrow_and_update().ruins;
            let list = in_force.borrow_and_update().clone();
            if let Some(list) = list {
                BURST.ends(&mut losses).await;
                let start = Instant::now();
                let (has_repaired, problem) = self.repair(&list, &board, &mut throttle).await;
                tell(&board, problem);
                // Of its own: what is looked at by waiting counts as seen.
                let mut ruined = losses.clone();
                let of_audit = if has_repaired { 0 } else { PAUSE_PER_AUDIT };
                let longest = start.elapsed().saturating_mul(of_audit);
                let pause = throttle.pause();
                sleep_until(Instant::now() + pause).await;
                tokio::select! {
                    () = sleep_until(Instant::now() + longest.saturating_sub(pause)) => {}
                    _ = ruined.wait_for(|losses| losses.ruins != ruins) => {}
                }
            }
            reason_to_look(&mut losses, &mut in_force).await;
        }
    }

    /// Repairs what can be; whether that was anything, and what could not be.
    async fn repair(&self, list: &List, board: &Board, throttle: &mut Throttle) -> (bool, Option<String>) {
        let audit = match self.audit(list).await {
            Ok(audit) => audit,
            Err(error) => return (false, Some(chain(&error))),
        };
        // The agent's own pod is just being made, or taken down.
        let of_pods = audit.findings.iter().filter(|finding| finding.container != selftest::CONTAINER);
        let (repaired, left): (Vec<_>, Vec<_>) = of_pods.partition(|finding| finding.repaired);
        if let Some(first) = repaired.first() {
            let Finding { container, problem, what, .. } = first;
            tracing::warn!(
                count = repaired.len(),
                container,
                problem,
                what,
                "put back what pods need; the first of them"
            );
            throttle.note(format!("{container}: {problem}: {what}"));
            healed(board, "pod", repaired.len() as u64);
        }
        (!repaired.is_empty(), left.first().map(|finding| finding.says(left.len())))
    }

    async fn audit(&self, list: &List) -> Result<Audit, Error> {
        let plugin = self.bin_dir.join("weft-cni");
        let mut command = Command::new(&plugin);
        command.args(["audit", "--repair", "--json", "--conf-dir"]).arg(&self.conf_dir).arg(&list.name);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let audit = async { spawn(&mut command).await?.wait_with_output().await };
        let output = timeout(DEADLINE, audit)
            .await
            .map_err(|_elapsed| Error::Late { plugin: plugin.clone() })?
            .map_err(|source| Error::Run { plugin: plugin.clone(), source })?;
        serde_json::from_slice(&output.stdout).map_err(|_no_document| {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            // Killed, it has said nothing.
            let said = if said.is_empty() { output.status.to_string() } else { said };
            Error::Wordless { plugin, said }
        })
    }
}

/// Losses that belong together.
struct Burst {
    /// So long after the last of them nothing more was lost.
    quiet: Duration,
    /// Somebody who goes on is not waited for.
    longest: Duration,
}

impl Burst {
    /// Waits for the end, if one is going on. What is lost meanwhile counts as seen.
    async fn ends(&self, losses: &mut watch::Receiver<Losses>) {
        let is_quiet = async { while let Ok(Ok(())) = timeout(self.quiet, losses.changed()).await {} };
        // Whether it has ended or goes on: now it is looked.
        let _over = timeout(self.longest, is_quiet).await;
    }
}

impl Finding {
    fn says(&self, count: usize) -> String {
        let Self { container, problem, what, remedy, .. } = self;
        let more = if count > 1 { format!(", and {} more", count - 1) } else { String::new() };
        format!("{container}: {problem}: {what} ({remedy}){more}; `weft-cni audit` shows all")
    }
}

fn tell(board: &Board, problem: Option<String>) {
    if let Some(problem) =
        problem.as_deref().filter(|problem| board.read().repair.problem.as_deref() != Some(problem))
    {
        tracing::error!("{problem}");
    }
    board.write(|status| status.repair.problem = problem);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn a_burst_is_over_when_nothing_more_is_lost() {
        let burst = Burst { quiet: Duration::from_millis(20), longest: LONG };
        let (sender, mut losses) = watch::channel(Losses::default());
        sender.send_modify(|losses| losses.network += 1);
        burst.ends(&mut losses).await;
        assert!(!losses.has_changed().unwrap(), "one audit sees all of it");
    }

    #[tokio::test]
    async fn who_goes_on_taking_away_is_not_waited_for() {
        let burst = Burst { quiet: LONG, longest: Duration::from_millis(20) };
        let (sender, mut losses) = watch::channel(Losses::default());
        let goes_on = async {
            loop {
                sender.send_modify(|losses| losses.network += 1);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = goes_on => {}
            () = burst.ends(&mut losses) => {}
        }
    }
}
