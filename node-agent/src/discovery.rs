//! Kubernetes' services and routes as files, for the sidecars of this node.
//!
//! The agent watches a few resources once per node and keeps their objects below one directory; sidecars mount the part of
//! it that is theirs, read-only, and follow it as they follow any other. So a pod needs no credential for the API, the API
//! serves one watch a node instead of one a pod, and while it is away everything goes on with what was known.
//!
//! ```text
//! DIR/shop/service.web.json
//! DIR/shop/endpointslice.web-x7k2p.json
//! DIR/shop/httproute.web.json
//! DIR/shop/gateways/httproute.public.json     routes that are attached to Gateways only
//! ```
//!
//! - A file is replaced whole, by a rename, and only if its bytes differ. What no sidecar reads is left out
//!   (`discovery/document.rs` has the table), so that most of what happens in a cluster changes no file.
//! - What the API deletes is removed when it says so, or when a whole list does not have it; never because it is silent.
//! - Directories are never removed: a pod that has one mounted would not see its successor.

mod document;
mod files;
mod kind;
mod tree;

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use tokio::task::JoinSet;

use crate::kubernetes::{Api, follow};
use crate::status::Board;
use files::Files;
use kind::KINDS;
use tree::Tree;

/// Why nothing can be kept in the directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made, or not be read.
    #[error("cannot use {} for the files of sidecars", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The API cannot be asked at all.
    #[error(
        "the files of --discovery-dir come from the Kubernetes API: give --kubeconfig, or leave --discovery-dir out"
    )]
    Kubernetes(#[from] crate::kubernetes::Error),
    /// A task has died.
    #[error("following a resource ended badly")]
    Died(#[source] tokio::task::JoinError),
}

/// What is kept, and where.
#[derive(Clone, Debug)]
pub struct Discovery {
    directory: PathBuf,
    kubeconfig: Option<PathBuf>,
}

/// The API and the directory, of which both can be used.
#[derive(Debug)]
pub(crate) struct Opened {
    api: Api,
    tree: Tree,
}

/// Removes what an agent has kept in `directory`, and nothing of anybody else's. Returns how many files that were.
///
/// # Errors
/// Where something cannot be read or removed.
pub(crate) fn remove(directory: &Path) -> Result<usize, Error> {
    tree::remove(directory).map_err(|source| Error::Directory { path: directory.into(), source })
}

impl Discovery {
    /// Files in `directory`, from the API that [`Api::new`] finds by this kubeconfig.
    #[must_use]
    pub fn new(directory: PathBuf, kubeconfig: Option<PathBuf>) -> Self {
        Self { directory, kubeconfig }
    }

    /// Keeps the directory as the API has it, and notes on the board what cannot be followed. Must be called within a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    /// If the directory or the API cannot be used at all when it begins. What fails later is logged and tried again.
    pub async fn keep(self, board: Board) -> Result<Infallible, Error> {
        self.open().await?.keep(board).await
    }

    /// Finds out whether it can be done, before anything is.
    pub(crate) async fn open(self) -> Result<Opened, Error> {
        let api = Api::new(self.kubeconfig.as_deref()).await?;
        let tree = Tree::open(&self.directory)
            .map_err(|source| Error::Directory { path: self.directory.clone(), source })?;
        Ok(Opened { api, tree })
    }
}

impl Opened {
    pub(crate) async fn keep(self, board: Board) -> Result<Infallible, Error> {
        let Self { api, tree } = self;
        let mut tasks = JoinSet::new();
        for kind in KINDS {
            let (api, mut files) = (api.clone(), Files::new(kind, tree.shelf(kind), board.clone()));
            tasks.spawn_local(async move { follow(&api, kind.resource, &mut files).await });
        }
        drop(tree);
        match tasks.join_next().await {
            Some(Err(source)) => Err(Error::Died(source)),
            Some(Ok(never)) => match never {},
            None => std::future::pending().await,
        }
    }
}
