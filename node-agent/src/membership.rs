//! Who the nodes are: a source is read, judged, and its newest state kept for whoever wants to know.

mod file;
mod kubernetes;

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::clock::now;
use crate::kubernetes::Api;
use crate::member::{Candidate, Flaw, Members, NodeName, Unread, news};
use crate::status::{self, Board};

/// `None` until the source has told of the cluster for the first time. Nothing may be taken away before that: an empty
/// cluster and one that nobody has heard of yet are not the same.
pub type Known = Option<Arc<Members>>;

/// Where the nodes are told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, for clusters without Kubernetes.
    File(PathBuf),
    /// The Kubernetes API that this kubeconfig leads to; without one, as [`Api::new`] finds it.
    Kubernetes(Option<PathBuf>),
}

/// As a person is told where to mend something.
impl Display for Opened {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Kubernetes(_) => f.write_str("the Kubernetes API"),
        }
    }
}

/// Why a source cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be watched.
    #[error("cannot watch {}", path.display())]
    Watch {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The API cannot be asked at all.
    #[error("cannot use the Kubernetes API for the nodes: give --kubeconfig, or --nodes with a file")]
    Kubernetes(#[from] crate::kubernetes::Error),
}

/// Follows `source` for the node `own`, and publishes what is new; on the board is noted that it cannot be. Never ends but with an error.
///
/// # Errors
/// Where the source cannot be followed at all. One that is not there, or that has mistakes, is followed.
pub async fn follow(
    source: Source,
    own: NodeName,
    publish: watch::Sender<Known>,
    board: Board,
) -> Result<std::convert::Infallible, Error> {
    source.open().await?.follow(own, publish, board).await
}

/// A source that can be asked.
#[derive(Debug)]
pub(crate) enum Opened {
    File(PathBuf),
    Kubernetes(Api),
}

impl Source {
    /// Finds out whether it can be asked, before anything is done.
    pub(crate) async fn open(self) -> Result<Opened, Error> {
        Ok(match self {
            Self::File(path) => Opened::File(path),
            Self::Kubernetes(kubeconfig) => Opened::Kubernetes(Api::new(kubeconfig.as_deref()).await?),
        })
    }
}

impl Opened {
    pub(crate) async fn follow(
        self,
        own: NodeName,
        publish: watch::Sender<Known>,
        board: Board,
    ) -> Result<std::convert::Infallible, Error> {
        let register = Register::new(own.clone(), publish, board.clone());
        board.write(|status| status.membership.source = self.to_string());
        match self {
            Self::File(path) => file::follow(path, register).await,
            Self::Kubernetes(api) => Ok(kubernetes::follow(&api, &own, register, &board).await),
        }
    }
}

/// What a source hands the candidates to.
#[derive(Debug)]
pub(crate) struct Register {
    own: NodeName,
    publish: watch::Sender<Known>,
    board: Board,
    /// What has been complained about already.
    flaws: BTreeSet<Flaw>,
}

impl Register {
    pub(crate) fn new(own: NodeName, publish: watch::Sender<Known>, board: Board) -> Self {
        Self { own, publish, board, flaws: BTreeSet::new() }
    }

    /// Judges all nodes that there are, and publishes them where something changed. The order of the candidates decides who
    /// gets what two of them want, so it should be the same on every node.
    pub(crate) fn take(&mut self, candidates: &[Candidate], unread: &[Unread]) {
        let before = self.publish.borrow().clone().unwrap_or_else(|| Arc::new(Members::unknown()));
        let (members, flaws) = Members::judge(&self.own, candidates, unread, &before);
        for flaw in news(&flaws, &self.flaws) {
            tracing::warn!("{flaw}");
        }
        self.note(&members, &flaws);
        self.flaws = flaws.into_iter().collect();
        let others = members.others.len();
        if members.own.is_none() && before.own.is_some() || self.publish.borrow().is_none() {
            self.tell_about_itself(&members);
        }
        let is_new = self.publish.send_if_modified(|known| {
            let is_new = known.as_deref() != Some(&members);
            if is_new {
                *known = Some(Arc::new(members));
            }
            is_new
        });
        if is_new {
            tracing::info!(others, "the nodes are known");
            self.board.write(|status| status.membership.last_change_epoch_seconds = Some(now()));
        }
    }

    /// The source says nothing that could be judged, so the nodes stay as they are.
    pub(crate) fn unreadable(&self, why: &str) {
        self.board.write(|status| {
            status.membership.read = false;
            status.membership.problem = Some(why.to_owned());
        });
    }

    fn note(&self, members: &Members, flaws: &[Flaw]) {
        let own = self.own.as_str();
        let mistake = |flaw: &Flaw| status::Mistake {
            node: flaw.node().map(str::to_owned),
            is_own: flaw.node() == Some(own),
            what: flaw.to_string(),
        };
        self.board.write(|status| {
            let known = &mut status.membership;
            (known.read, known.problem) = (true, None);
            known.members = members.iter().count();
            known.is_partial = members.is_partial;
            known.mistakes = flaws.iter().map(mistake).collect();
        });
    }

    fn tell_about_itself(&self, members: &Members) {
        match &members.own {
            None => {
                tracing::warn!(node = %self.own, "this node is not among the nodes; no routes are made until it is")
            }
            Some(own) if own.pod_cidrs.is_empty() => {
                tracing::warn!(node = %self.own, "this node has no subnet for pods yet")
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, address: &str, subnet: &str) -> Candidate {
        Candidate { name: name.into(), addresses: vec![address.into()], pod_cidrs: vec![subnet.into()] }
    }

    #[test]
    fn only_what_is_new_is_published() {
        let (publish, mut known) = watch::channel(None);
        let board = Board::default();
        let mut register = Register::new("a".parse().unwrap(), publish, board.clone());
        assert!(known.borrow().is_none(), "an unknown cluster is not an empty one");
        let a = candidate("a", "192.0.2.1", "10.244.0.0/24");
        register.take(std::slice::from_ref(&a), &[]);
        assert!(known.has_changed().unwrap());
        assert!(known.borrow_and_update().as_ref().unwrap().others.is_empty());
        register.take(std::slice::from_ref(&a), &[]);
        assert!(!known.has_changed().unwrap());
        register.take(&[a, candidate("b", "192.0.2.2", "10.244.1.0/24")], &[]);
        assert_eq!(known.borrow_and_update().as_ref().unwrap().others.len(), 1);
        register.take(&[], &[]);
        assert_eq!(**known.borrow_and_update().as_ref().unwrap(), Members::default(), "known to be empty");
    }

    #[test]
    fn what_is_wrong_is_on_the_board_and_goes_from_there_when_it_is_mended() {
        let (publish, _known) = watch::channel(None);
        let board = Board::default();
        let mut register = Register::new("a".parse().unwrap(), publish, board.clone());
        register.unreadable("there is no file");
        assert_eq!(board.read().membership.problem.as_deref(), Some("there is no file"));
        assert!(!board.read().membership.read);
        let a = candidate("a", "192.0.2.1", "10.244.0.0/32");
        let b = Unread { place: "entry 2".into(), name: Some("b".into()), why: "it is none".into() };
        register.take(std::slice::from_ref(&a), &[b]);
        let seen = board.read().membership;
        assert_eq!((seen.read, seen.problem, seen.is_partial), (true, None, true));
        let mistakes: Vec<_> = seen.mistakes.iter().map(|one| (one.node.as_deref(), one.is_own)).collect();
        assert_eq!(mistakes, [(Some("b"), false), (Some("a"), true)]);
        assert!(board.read().readiness().unwrap_err().iter().any(|why| why.contains("10.244.0.0/32")));
        register.take(&[candidate("a", "192.0.2.1", "10.244.0.0/24")], &[]);
        let seen = board.read().membership;
        assert_eq!((seen.members, seen.mistakes.len(), seen.is_partial), (1, 0, false));
        assert!(seen.last_change_epoch_seconds.is_some());
    }
}
