//! What pods need of the node, as the plugin that attached them knows it: `weft-cni audit --repair`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use weft_ipam::chain;

use super::{Losses, healed, reason_to_look};
use crate::conflist::List;
use crate::selftest;
use crate::setup::InForce;
use crate::status::Board;

/// Between two audits, so that a burst of losses is one of them.
const PAUSE: Duration = Duration::from_millis(100);
/// Every pod that goes is a loss, too. Of the time that pods go audits take no more than a third, however many there are.
const PAUSE_PER_AUDIT: u32 = 2;
/// An audit waits up to two seconds for a pod that is just being attached.
const DEADLINE: Duration = Duration::from_secs(30);
/// So many repairs within [`STORM`] are somebody's doing.
const MANY: usize = 10;
const STORM: Duration = Duration::from_secs(60);
/// Between two audits while somebody goes on taking things away.
const STORM_PAUSE: Duration = Duration::from_secs(1);

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

/// When things were put back of late.
#[derive(Debug, Default)]
struct Recent(VecDeque<Instant>);

impl Auditor {
    /// Keeps all pods as they were attached.
    pub(crate) async fn keep(
        self,
        mut in_force: watch::Receiver<InForce>,
        mut losses: watch::Receiver<Losses>,
        board: Board,
    ) -> Result<Infallible, Infallible> {
        let mut recent = Recent::default();
        loop {
            losses.mark_unchanged();
            let list = in_force.borrow_and_update().clone();
            if let Some(list) = list {
                let start = Instant::now();
                let problem = self.repair(&list, &board, &mut recent).await;
                tell(&board, problem);
                sleep_until(Instant::now() + recent.pause(start.elapsed())).await;
            }
            reason_to_look(&mut losses, &mut in_force).await;
        }
    }

    /// Repairs what can be, and says what cannot.
    async fn repair(&self, list: &List, board: &Board, recent: &mut Recent) -> Option<String> {
        let audit = match self.audit(list).await {
            Ok(audit) => audit,
            Err(error) => return Some(chain(&error)),
        };
        // The agent's own pod is just being made, or taken down.
        let of_pods = audit.findings.iter().filter(|finding| finding.container != selftest::CONTAINER);
        let (repaired, left): (Vec<_>, Vec<_>) = of_pods.partition(|finding| finding.repaired);
        if let Some(first) = repaired.first() {
            recent.note(Instant::now());
            let Finding { container, problem, what, .. } = first;
            tracing::warn!(
                count = repaired.len(),
                container,
                problem,
                what,
                "put back what pods need; the first of them"
            );
            healed(board, "pod", repaired.len() as u64);
        }
        recent.complaint(Instant::now()).or_else(|| left.first().map(|finding| finding.says(left.len())))
    }

    async fn audit(&self, list: &List) -> Result<Audit, Error> {
        let plugin = self.bin_dir.join("weft-cni");
        let mut command = Command::new(&plugin);
        command.args(["audit", "--repair", "--json", "--conf-dir"]).arg(&self.conf_dir).arg(&list.name);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = timeout(DEADLINE, command.output())
            .await
            .map_err(|_elapsed| Error::Late { plugin: plugin.clone() })?
            .map_err(|source| Error::Run { plugin: plugin.clone(), source })?;
        serde_json::from_slice(&output.stdout).map_err(|_no_document| {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Error::Wordless { plugin, said }
        })
    }
}

impl Finding {
    fn says(&self, count: usize) -> String {
        let Self { container, problem, what, remedy, .. } = self;
        let more = if count > 1 { format!(", and {} more", count - 1) } else { String::new() };
        format!("{container}: {problem}: {what} ({remedy}){more}; `weft-cni audit` shows all")
    }
}

impl Recent {
    fn note(&mut self, now: Instant) {
        self.0.push_back(now);
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        while self.0.front().is_some_and(|first| now.duration_since(*first) > STORM) {
            self.0.pop_front();
        }
    }

    /// After an audit that took so long.
    fn pause(&self, took: Duration) -> Duration {
        let least = if self.0.len() < MANY { PAUSE } else { STORM_PAUSE };
        least.max(took.saturating_mul(PAUSE_PER_AUDIT))
    }

    fn complaint(&mut self, now: Instant) -> Option<String> {
        self.forget(now);
        (self.0.len() >= MANY).then(|| {
            format!(
                "somebody goes on removing what pods need: it was put back {} times in the last minute; `nft monitor` and `ip monitor` show \
                 what happens, the agent's log what was missing",
                self.0.len()
            )
        })
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

    #[test]
    fn who_removes_things_again_and_again_is_named_and_slowed_down() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        for second in 0..10 {
            assert_eq!((recent.pause(Duration::ZERO), recent.complaint(start)), (PAUSE, None));
            recent.note(start + Duration::from_secs(second));
        }
        assert_eq!(recent.pause(Duration::ZERO), STORM_PAUSE);
        assert!(
            recent
                .complaint(start + Duration::from_secs(10))
                .unwrap()
                .contains("10 times in the last minute")
        );
        assert_eq!(recent.complaint(start + Duration::from_secs(65)), None, "it is over");
        assert_eq!(recent.pause(Duration::ZERO), PAUSE);
        assert_eq!(recent.pause(Duration::from_secs(1)), Duration::from_secs(2), "a node with many pods");
    }
}
