//! Who the nodes are: a source is read, judged, and its newest state kept for whoever wants to know.

mod file;
mod kubernetes;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::kubernetes::Api;
use crate::member::{Candidate, Flaw, Members, NodeName, news};
use crate::status::Board;

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
    #[error("cannot use the Kubernetes API")]
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
    let register = Register::new(own.clone(), publish);
    match source {
        Source::File(path) => file::follow(path, register).await,
        Source::Kubernetes(kubeconfig) => {
            let api = Api::new(kubeconfig.as_deref()).await?;
            Ok(kubernetes::follow(&api, &own, register, &board).await)
        }
    }
}

/// What a source hands the candidates to.
#[derive(Debug)]
pub(crate) struct Register {
    own: NodeName,
    publish: watch::Sender<Known>,
    /// What has been complained about already.
    flaws: BTreeSet<Flaw>,
}

impl Register {
    pub(crate) fn new(own: NodeName, publish: watch::Sender<Known>) -> Self {
        Self { own, publish, flaws: BTreeSet::new() }
    }

    /// Judges all nodes that there are, and publishes them where something changed. The order of the candidates decides who
    /// gets what two of them want, so it should be the same on every node.
    pub(crate) fn take(&mut self, candidates: &[Candidate]) {
        let before = self.publish.borrow().clone().unwrap_or_default();
        let (members, flaws) = Members::judge(&self.own, candidates, &before);
        for flaw in news(&flaws, &self.flaws) {
            tracing::warn!("{flaw}");
        }
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
        }
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
        let mut register = Register::new("a".parse().unwrap(), publish);
        assert!(known.borrow().is_none(), "an unknown cluster is not an empty one");
        let a = candidate("a", "192.0.2.1", "10.244.0.0/24");
        register.take(std::slice::from_ref(&a));
        assert!(known.has_changed().unwrap());
        assert!(known.borrow_and_update().as_ref().unwrap().others.is_empty());
        register.take(std::slice::from_ref(&a));
        assert!(!known.has_changed().unwrap());
        register.take(&[a, candidate("b", "192.0.2.2", "10.244.1.0/24")]);
        assert_eq!(known.borrow_and_update().as_ref().unwrap().others.len(), 1);
        register.take(&[]);
        assert_eq!(**known.borrow_and_update().as_ref().unwrap(), Members::default(), "known to be empty");
    }
}
