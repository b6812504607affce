//! Keeps a node able to attach pods: the plugins, what host-local has left, a self-test, and last the configuration.
//!
//! ```text
//! plugins ─▶ own subnets known ─▶ list ─▶ host-local's leases ─▶ self-test ─▶ list in place ─▶ wait
//!    ▲                                                                                          │
//!    └── the subnets, the MTU or the template change, something happens in a directory, or failed ┘
//! ```
//!
//! What somebody removes is put back as soon as the kernel tells of it; nothing that somebody has put in its place is replaced.
//!
//! A list that stands is never taken away by a failure: pods that run need it for their DEL. It is replaced only by one that has
//! passed the test.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use weft_ipam::chain;

use crate::adopt::{self, Adoption};
use crate::aside::{aside, write_programs};
use crate::cni::Runtime;
use crate::conflist::{Flaw, List, Template};
use crate::directory;
use crate::install::{self, Failure, Warning};
use crate::leases;
use crate::membership::Known;
use crate::repair::healed;
use crate::repair::throttle::Throttle;
use crate::selftest;
use crate::status::{Board, SelfTest};
use crate::watched::Watched;

/// How often it is looked whether there is room for the self-test.
const ROOM: Duration = Duration::from_secs(5);
/// How often it is looked without any word of the kernel's: some file systems tell nothing.
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
    /// The file that says what it says, where there is one.
    pub(crate) followed: Option<PathBuf>,
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
    /// The list that was put in its place.
    placed: Option<String>,
    /// What was put back since the last look.
    healed: Option<String>,
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
    mut setup: Setup,
    mut members: watch::Receiver<Known>,
    mut mtu: watch::Receiver<Option<u32>>,
    board: Board,
    in_force: watch::Sender<InForce>,
) -> Result<Infallible, Infallible> {
    let (mut progress, mut pause) = (Progress::default(), FIRST_PAUSE);
    let mut throttle = Throttle::of("the plugins or the network configuration", &board);
    let watched = setup.watched();
    let standing = setup.clone();
    aside(move || standing.standing()).await.into_iter().for_each(|list| publish(&in_force, list));
    loop {
        if let Some(watched) = &watched {
            watched.watch();
        }
        setup.follow_template(&board).await;
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
                note_pods_outside(&list, subnets.clone().unwrap_or_default(), &board).await;
                publish(&in_force, list);
                if progress.tested.is_some() { LOOK } else { ROOM }
            }
            Err(error) => {
                setup.complain(&error, &board, &mut progress);
                if pause == LOOK { FIRST_PAUSE } else { (pause * 2).min(LOOK) }
            }
        };
        if let Some(healed) = progress.healed.take() {
            throttle.note(healed);
        }
        // Who fails changes files, too, and would wake itself by that.
        let least =
            throttle.pause().max(if progress.complaint.is_some() { FIRST_PAUSE } else { Duration::ZERO });
        let something = async {
            sleep_until(Instant::now() + least).await;
            match &watched {
                Some(watched) => watched.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed(&mut members, subnets.as_deref()) => pause = FIRST_PAUSE,
            Ok(()) = mtu.changed() => pause = FIRST_PAUSE,
            () = something => {}
            () = sleep_until(Instant::now() + pause.max(least)) => {}
        }
    }
}

/// Who has changed a node's subnet has cut them off.
async fn note_pods_outside(list: &List, subnets: Vec<IpNetwork>, board: &Board) {
    let list = list.clone();
    let count = aside(move || leases::outside(&list, &subnets)).await;
    if count > board.read().install.pods_outside {
        tracing::warn!(
            count,
            "pods have addresses outside of this node's subnets: other nodes do not send to them; make them anew"
        );
    }
    board.write(|status| status.install.pods_outside = count);
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
        self.place_plugins(progress, board).await.map_err(Error::Plugins)?;
        let Some(subnets) = subnets else { return Ok(Reached::Nothing) };
        if subnets.is_empty() {
            return Err(Error::NoSubnet);
        }
        let text = self.template.list(subnets, mtu);
        let list = List::parse(Path::new(&self.conf_name), text.as_bytes()).map_err(Error::List)?;
        board.write(|status| status.install.network = Some(list.name.clone()));
        if progress.tested.as_ref() != Some(&text) {
            self.adopt(&text, subnets, board).await?;
            match self.test(&list, board).await {
                Ok(()) => progress.tested = Some(text.clone()),
                Err(error) if error.may_be_for_want_of_an_address() && self.is_full(&list, &text).await => {
                    board.write(|status| status.install.self_test = SelfTest::NoRoom);
                }
                Err(error) => return Err(error),
            }
        }
        // The ways to other nodes are found meanwhile, and with them the MTU.
        if !is_current() {
            return Ok(Reached::Outdated);
        }
        let is_new = self.place(&text, board, progress).await?;
        if is_new {
            // Pods that the old plugins have attached between the first look and now.
            self.adopt(&text, subnets, board).await?;
        }
        Ok(Reached::InForce(list))
    }

    /// Whether pods that were attached with this very list hold all addresses of a range.
    async fn is_full(&self, list: &List, text: &str) -> bool {
        let (path, list, text) = (self.conf_dir.join(&self.conf_name), list.clone(), text.to_owned());
        let look = move || {
            fs::read_to_string(path).is_ok_and(|standing| standing == text)
                && leases::ranges(&list).iter().any(|range| range.held >= range.size)
        };
        aside(look).await
    }

    /// The list that an earlier agent has left: pods are attached with it until there is another.
    fn standing(&self) -> Option<List> {
        let path = self.conf_dir.join(&self.conf_name);
        let is_ours = directory::owned_in(&self.conf_dir).contains(&self.conf_name);
        List::parse(&path, &fs::read(&path).ok().filter(|_| is_ours)?).ok()
    }

    /// Where something that concerns it may happen. Without it, it is looked now and then.
    fn watched(&self) -> Option<Watched> {
        let directories = [&self.runtime.bin_dir, &self.conf_dir].map(PathBuf::from);
        let template = self.followed.as_deref().and_then(Path::parent).map(PathBuf::from);
        let watched = Watched::new(directories.into_iter().chain(template));
        watched
            .map_err(|error| tracing::warn!(%error, "cannot watch directories; looking every 30 s instead"))
            .ok()
    }

    /// One that is wrong, or gone, is told, and what it said before stays in force.
    async fn follow_template(&mut self, board: &Board) {
        let Some(path) = self.followed.clone() else { return };
        let problem = match aside(move || Template::read(&path)).await {
            Ok(template) => {
                self.template = template;
                None
            }
            Err(error) => Some(format!("{}; the network configuration stays as it is", chain(&error))),
        };
        if let Some(problem) =
            problem.as_ref().filter(|now| board.read().install.template.as_ref() != Some(*now))
        {
            tracing::error!("{problem}");
        }
        board.write(|status| status.install.template = problem);
    }

    /// Compared by content only where something was done to them: reading all of it each time would cost more than the rest.
    async fn place_plugins(&self, progress: &mut Progress, board: &Board) -> Result<(), Failure> {
        let is_as_left = |left: &(PathBuf, Option<Stamp>)| left.1.is_some() && stamp_of(&left.0) == left.1;
        let were_placed = !progress.plugins.is_empty();
        progress.plugins.retain(is_as_left);
        let stands = |name: &OsStr| progress.plugins.iter().any(|(path, _)| path.file_name() == Some(name));
        let is_left = |plugin: &PathBuf| install::names_of(plugin).all(stands);
        let plugins: Vec<_> = self.plugins.iter().filter(|plugin| !is_left(plugin)).cloned().collect();
        if plugins.is_empty() {
            return Ok(());
        }
        let bin_dir = self.runtime.bin_dir.clone();
        let placed = write_programs(move || install::place_plugins(&plugins, &bin_dir)).await?;
        for (path, placed) in placed {
            if placed != directory::Placed::Unchanged {
                tracing::info!(path = %path.display(), "a plugin is in place");
                if were_placed {
                    progress.put_back("plugin", &path, board);
                }
            }
            let stamp = stamp_of(&path);
            progress.plugins.retain(|(known, _)| *known != path);
            progress.plugins.push((path, stamp));
        }
        Ok(())
    }

    async fn adopt(&self, text: &str, subnets: &[IpNetwork], board: &Board) -> Result<(), Error> {
        let path = self.state_dir.join("node.candidate.conflist");
        let (candidate, text) = (path.clone(), text.to_owned());
        let written = aside(move || fs::write(&candidate, text)).await;
        written.map_err(|source| Error::Candidate { path: path.clone(), source })?;
        let adopted = self.adoption.run(&path, subnets).await;
        aside(move || fs::remove_file(&path)).await.ok();
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
    async fn place(&self, text: &str, board: &Board, progress: &mut Progress) -> Result<bool, Error> {
        let (name, list, dir) = (self.conf_name.clone(), text.to_owned(), self.conf_dir.clone());
        let placed = aside(move || install::place_list(&name, &list, &dir)).await;
        let (path, placed, warnings) = placed.map_err(Error::Conflist)?;
        let before: Vec<_> = warnings.into_iter().filter_map(Warning::theirs).collect();
        let known = board.read().install.before_ours;
        for theirs in before.iter().filter(|theirs| !known.contains(theirs)) {
            tracing::warn!(theirs = %theirs.display(), ours = %self.conf_name,
                "another network configuration comes first: runtimes use it, and not Weft");
        }
        if placed != directory::Placed::Unchanged {
            tracing::info!(path = %path.display(), "the network configuration is in place");
            if progress.placed.as_deref() == Some(text) {
                progress.put_back("conflist", &path, board);
            }
        }
        progress.placed = Some(text.to_owned());
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

impl Error {
    const fn may_be_for_want_of_an_address(&self) -> bool {
        matches!(self, Self::SelfTest(selftest::Failure::Status(_) | selftest::Failure::Attach(_)))
    }
}

impl Progress {
    fn put_back(&mut self, what: &str, path: &Path, board: &Board) {
        tracing::warn!(path = %path.display(), "somebody had removed it, or changed its mode");
        healed(board, what, 1);
        self.healed = Some(path.display().to_string());
    }
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.ino(), found.size(), found.mtime(), found.ctime()))
}

fn list_of(flaws: &[Flaw]) -> String {
    flaws.iter().map(Flaw::to_string).collect::<Vec<_>>().join("; ")
}
