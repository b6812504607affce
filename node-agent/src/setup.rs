//! Keeps a node able to attach pods: the plugins, what host-local has left, a self-test, and last the configuration.
//!
//! ```text
//! plugins ─▶ own subnets known ─▶ list ─▶ host-local's leases ─▶ self-test ─▶ list in place ─▶ look now and then
//!                 ▲                                                                │
//!                 └───────── the subnets or the MTU change, or something fails ────┘
//! ```
//!
//! A list that stands is never taken away by a failure: pods that run need it for their DEL. It is replaced only by one that has
//! passed the test.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use tokio::sync::watch;
use weft_ipam::chain;

use crate::adopt::{self, Adoption};
use crate::cni::Runtime;
use crate::conflist::{Flaw, List, Template};
use crate::directory;
use crate::install::{self, Failure, Warning};
use crate::membership::Known;
use crate::selftest;
use crate::status::{Board, SelfTest};

/// How often it is looked whether all is still in its place.
const LOOK: Duration = Duration::from_secs(30);
/// After the first failure; each further one doubles it up to [`LOOK`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The list that is in force on the node.
pub(crate) type InForce = Option<Arc<List>>;

/// What is to be installed, and where.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The plugins' executables.
    pub(crate) plugins: Vec<PathBuf>,
    /// Where the runtime looks for configurations.
    pub(crate) conf_dir: PathBuf,
    /// The name of ours there.
    pub(crate) conf_name: String,
    /// What it says.
    pub(crate) template: Template,
    /// Where it is written to be tried.
    pub(crate) state_dir: PathBuf,
    /// Whom it is tried with; its directory is where the plugins go.
    pub(crate) runtime: Runtime,
    /// Where leases of host-local may be.
    pub(crate) adoption: Adoption,
}

/// Why a node cannot be set up, and what to do.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// Nobody has said which addresses are the pods'.
    #[error(
        "this node has no subnet for pods: give it one (`podCIDRs` in the nodes file, or `--allocate-node-cidrs` of the controller manager)"
    )]
    NoSubnet,
    /// The plugins cannot be put in their place.
    #[error("cannot install the plugins")]
    Plugins(#[source] Failure),
    /// The filled-in template is no list.
    #[error("the template gives no list: {}", list_of(.0))]
    List(Vec<Flaw>),
    /// The list cannot be written to be tried.
    #[error("cannot write {}", path.display())]
    Candidate { path: PathBuf, source: io::Error },
    /// host-local's leases cannot be taken over.
    #[error(transparent)]
    Adopt(#[from] adopt::Error),
    /// The test failed.
    #[error("the self-test failed")]
    SelfTest(#[source] selftest::Failure),
    /// The list cannot be put in its place.
    #[error("cannot install the network configuration")]
    Conflist(#[source] directory::Error),
}

/// What was reached so far.
#[derive(Debug, Default)]
struct Progress {
    /// The plugins, as they were left.
    plugins: Vec<(PathBuf, Option<Stamp>)>,
    /// The list that has passed the test.
    tested: Option<String>,
    /// What was said of the last failure.
    complaint: Option<String>,
}

/// How far it came.
enum Reached {
    /// Nobody has told of the nodes.
    Nothing,
    /// The list is another meanwhile.
    Outdated,
    /// This list.
    InForce(List),
}

/// What tells a file that was replaced or written to.
type Stamp = (u64, u64, i64, i64);

/// Does it, and goes on doing it. Nothing here ends the agent: what fails is said, and tried again.
///
/// # Errors
/// Never.
pub(crate) async fn keep(
    setup: Setup,
    mut members: watch::Receiver<Known>,
    mut mtu: watch::Receiver<Option<u32>>,
    board: Board,
    in_force: watch::Sender<InForce>,
) -> Result<Infallible, Infallible> {
    let (mut progress, mut pause) = (Progress::default(), FIRST_PAUSE);
    setup.standing().into_iter().for_each(|list| publish(&in_force, list));
    loop {
        let subnets = own_subnets(&members.borrow_and_update());
        let mtu_now = *mtu.borrow_and_update();
        let is_current = || *mtu.borrow() == mtu_now;
        let outcome = setup.bring_about(subnets.as_deref(), mtu_now, is_current, &board, &mut progress);
        pause = match outcome.await {
            Ok(Reached::Nothing) => LOOK,
            Ok(Reached::Outdated) => continue,
            Ok(Reached::InForce(list)) => {
                progress.complaint = None;
                board.write(|status| status.install.problem = None);
                publish(&in_force, list);
                LOOK
            }
            Err(error) => {
                setup.complain(&error, &board, &mut progress);
                if pause == LOOK { FIRST_PAUSE } else { (pause * 2).min(LOOK) }
            }
        };
        tokio::select! {
            () = changed(&mut members, subnets.as_deref()) => pause = FIRST_PAUSE,
            Ok(()) = mtu.changed() => pause = FIRST_PAUSE,
            () = tokio::time::sleep_until(tokio::time::Instant::now() + pause) => {}
        }
    }
}

fn publish(in_force: &watch::Sender<InForce>, list: List) {
    in_force.send_if_modified(|now| {
        let is_new = now.as_deref() != Some(&list);
        if is_new {
            *now = Some(Arc::new(list));
        }
        is_new
    });
}

/// Waits until this node has other subnets than `before`: whatever becomes of the others concerns nobody here.
async fn changed(members: &mut watch::Receiver<Known>, before: Option<&[IpNetwork]>) {
    while members.changed().await.is_ok() {
        if own_subnets(&members.borrow_and_update()).as_deref() != before {
            return;
        }
    }
    std::future::pending().await
}

/// `None` as long as nobody has told of the nodes.
fn own_subnets(known: &Known) -> Option<Vec<IpNetwork>> {
    let own = known.as_ref()?.own.as_ref();
    Some(own.map(|own| own.pod_cidrs.clone()).unwrap_or_default())
}

impl Setup {
    async fn bring_about(
        &self,
        subnets: Option<&[IpNetwork]>,
        mtu: Option<u32>,
        is_current: impl Fn() -> bool,
        board: &Board,
        progress: &mut Progress,
    ) -> Result<Reached, Error> {
        self.place_plugins(progress).map_err(Error::Plugins)?;
        let Some(subnets) = subnets else { return Ok(Reached::Nothing) };
        if subnets.is_empty() {
            return Err(Error::NoSubnet);
        }
        let text = self.template.list(subnets, mtu);
        let list = List::parse(Path::new(&self.conf_name), text.as_bytes()).map_err(Error::List)?;
        board.write(|status| status.install.network = Some(list.name.clone()));
        if progress.tested.as_ref() != Some(&text) {
            self.adopt(&text, subnets, board).await?;
            self.test(&list, board).await?;
            progress.tested = Some(text.clone());
        }
        // The ways to other nodes are found meanwhile, and with them the MTU.
        if !is_current() {
            return Ok(Reached::Outdated);
        }
        let is_new = self.place(&text, board)?;
        if is_new {
            // Pods that the old plugins have attached between the first look and now.
            self.adopt(&text, subnets, board).await?;
        }
        Ok(Reached::InForce(list))
    }

    /// The list that an earlier agent has left: pods are attached with it until there is another.
    fn standing(&self) -> Option<List> {
        let path = self.conf_dir.join(&self.conf_name);
        let is_ours = directory::owned_in(&self.conf_dir).contains(&self.conf_name);
        List::parse(&path, &fs::read(&path).ok().filter(|_| is_ours)?).ok()
    }

    /// Compared by content only where something was done to them: reading all of it each time would cost more than the rest.
    fn place_plugins(&self, progress: &mut Progress) -> Result<(), Failure> {
        let is_as_left =
            |(path, stamp): &(PathBuf, Option<Stamp>)| stamp.is_some() && stamp_of(path) == *stamp;
        if !progress.plugins.is_empty() && progress.plugins.iter().all(is_as_left) {
            return Ok(());
        }
        let placed = install::place_plugins(&self.plugins, &self.runtime.bin_dir)?;
        for (path, _) in placed.iter().filter(|(_, placed)| *placed != directory::Placed::Unchanged) {
            tracing::info!(path = %path.display(), "a plugin is in place");
        }
        progress.plugins = placed.into_iter().map(|(path, _)| (path.clone(), stamp_of(&path))).collect();
        Ok(())
    }

    async fn adopt(&self, text: &str, subnets: &[IpNetwork], board: &Board) -> Result<(), Error> {
        let path = self.state_dir.join("node.candidate.conflist");
        fs::write(&path, text).map_err(|source| Error::Candidate { path: path.clone(), source })?;
        let adopted = self.adoption.run(&path, subnets).await;
        fs::remove_file(&path).ok();
        let adopted = adopted?;
        if adopted.new > 0 {
            tracing::info!(leases = adopted.new, "took over leases of host-local");
        }
        for remark in &adopted.remarks {
            tracing::warn!("{remark}");
        }
        board.write(|status| {
            status.install.adopted = (adopted.new + adopted.known) as u64;
            status.install.remarks = adopted.remarks;
        });
        Ok(())
    }

    async fn test(&self, list: &List, board: &Board) -> Result<(), Error> {
        let outcome = selftest::run(&self.runtime, list).await;
        let milliseconds = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let said = match &outcome {
            Ok(passed) => SelfTest::Passed {
                milliseconds: milliseconds(passed.took),
                addresses: passed.addresses.clone(),
            },
            Err(failure) => SelfTest::Failed { why: chain(failure) },
        };
        board.write(|status| status.install.self_test = said);
        let passed = outcome.map_err(Error::SelfTest)?;
        tracing::info!(took_ms = milliseconds(passed.took), addresses = ?passed.addresses, "self-test passed");
        Ok(())
    }

    /// Whether it was not there before.
    fn place(&self, text: &str, board: &Board) -> Result<bool, Error> {
        let placed = install::place_list(&self.conf_name, text, &self.conf_dir);
        let (path, placed, warnings) = placed.map_err(Error::Conflist)?;
        let before: Vec<_> = warnings.into_iter().filter_map(Warning::theirs).collect();
        let known = board.read().install.before_ours;
        for theirs in before.iter().filter(|theirs| !known.contains(theirs)) {
            tracing::warn!(theirs = %theirs.display(), ours = %self.conf_name,
                "another network configuration comes first: runtimes use it, and not Weft");
        }
        if placed != directory::Placed::Unchanged {
            tracing::info!(path = %path.display(), "the network configuration is in place");
        }
        board.write(|status| {
            status.install.conflist = Some(path);
            status.install.before_ours = before;
        });
        Ok(placed == directory::Placed::New)
    }

    /// Once for each cause.
    fn complain(&self, error: &Error, board: &Board, progress: &mut Progress) {
        let text = chain(error);
        let ours = self.conf_dir.join(&self.conf_name);
        board.write(|status| {
            status.install.conflist = ours.exists().then_some(ours);
            // The test's own words are there already.
            status.install.problem = Some(text.clone()).filter(|_| !matches!(error, Error::SelfTest(_)));
        });
        if progress.complaint.as_ref() != Some(&text) {
            tracing::error!("{text}");
            progress.complaint = Some(text);
        }
    }
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.ino(), found.size(), found.mtime(), found.ctime()))
}

fn list_of(flaws: &[Flaw]) -> String {
    flaws.iter().map(Flaw::to_string).collect::<Vec<_>>().join("; ")
}
