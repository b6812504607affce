//! The server, and what it hears.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use weft_xds::server::{Config, ServeError};
use weft_xds::snapshot::Builder;
use weft_xds::{Event, Publisher, Revision, Server, Snapshot, TypeUrl};

use crate::proxy::PATIENCE;

/// A server at `xds.sock` in a directory of its own.
pub(crate) struct Control {
    directory: TempDir,
    snapshot: Arc<Snapshot>,
    running: Running,
    /// What happened since the last publication, or the start.
    pub(crate) heard: Vec<Event>,
}

struct Running {
    publisher: Publisher,
    events: mpsc::Receiver<Event>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Control {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let running = Running::start(directory.path());
        Self { directory, snapshot: Arc::default(), running, heard: Vec::new() }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Publishes the last revision with these changes.
    pub(crate) fn publish(&mut self, change: impl FnOnce(&mut Builder)) {
        let mut builder = self.snapshot.edit();
        change(&mut builder);
        let next = Revision(self.snapshot.revision().0 + 1);
        self.snapshot = Arc::new(builder.build(next).unwrap());
        self.heard.clear();
        self.running.publisher.publish(Arc::clone(&self.snapshot));
    }

    /// Ends the server and starts another, which knows nothing of the first and has the same revision.
    pub(crate) async fn restart(&mut self) {
        let fresh = || {
            fs::remove_file(self.directory.path().join("xds.sock")).unwrap();
            Running::start(self.directory.path())
        };
        let old = std::mem::replace(&mut self.running, fresh());
        old.stop.send(()).unwrap();
        old.served.await.unwrap().unwrap();
        self.heard.clear();
        self.running.publisher.publish(Arc::clone(&self.snapshot));
    }

    /// Waits until the newest revision of these types has been accepted.
    pub(crate) async fn accepted(&mut self, types: &[TypeUrl]) {
        let revision = self.snapshot.revision();
        let is_it = |event: &Event, wanted: &TypeUrl| matches!(event, Event::Acked { type_url, revision: of, .. } if type_url == wanted && *of == revision);
        self.hear(|heard| types.iter().all(|wanted| heard.iter().any(|event| is_it(event, wanted)))).await;
    }

    /// Waits until `count` streams have everything of the newest revision.
    pub(crate) async fn in_sync(&mut self, count: usize) {
        let newest = self.snapshot.revision();
        let is_it = |event: &&Event| matches!(event, Event::InSync { revision, .. } if *revision == newest);
        self.hear(|heard| heard.iter().filter(is_it).count() >= count).await;
    }

    /// Listens until what was heard is enough.
    pub(crate) async fn hear(&mut self, enough: impl Fn(&[Event]) -> bool) {
        let Self { running, heard, .. } = self;
        let listening = async {
            while !enough(heard) {
                heard.push(running.events.recv().await.unwrap());
            }
        };
        assert!(timeout(PATIENCE, listening).await.is_ok(), "only heard {}", digest(heard));
    }

    /// The types that were accepted, in the order in which they first were.
    pub(crate) fn order(&self) -> Vec<&TypeUrl> {
        let mut order = Vec::new();
        for event in &self.heard {
            if let Event::Acked { type_url, .. } = event
                && !order.contains(&type_url)
            {
                order.push(type_url);
            }
        }
        order
    }
}

impl Running {
    fn start(directory: &Path) -> Self {
        let listener = UnixListener::bind(directory.join("xds.sock")).unwrap();
        let (server, publisher, events) = Server::new(Config::default());
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server.serve_unix(listener, async {
            drop(stopped.await);
        }));
        Self { publisher, events, stop, served }
    }
}

/// An Envoy introduces itself in 61 KB.
fn digest(heard: &[Event]) -> String {
    let tell = |event: &Event| match event {
        Event::Connected { stream, .. } => format!("Connected {stream:?}\n"),
        other => format!("{other:?}\n"),
    };
    let (first, last) = heard.split_at(heard.len().saturating_sub(20));
    format!("{} events, at last\n{}", first.len() + last.len(), last.iter().map(tell).collect::<String>())
}
