//! The two ends of one stream, which share its state: a reader and a writer.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tonic::{Code, Status};
use tracing::{debug, warn};

use super::frame::Messages;
use super::metric;
use super::pace::Pace;
use super::service::Shared;
use crate::stream::{Action, Recollection, Refusal, Request, Stream, Variant};
use crate::{Event, Snapshot, StreamId};

/// What reader and writer share.
pub(super) struct Line {
    id: StreamId,
    stream: Mutex<Stream>,
    /// Wakes the writer: there may be something to send.
    pub(super) writer: AtomicWaker,
    /// Wakes the reader: something was sent, so that other deadlines count.
    pub(super) written: Notify,
    /// Wakes the reader for good: the client no longer reads.
    pub(super) hung_up: Notify,
    /// How the stream ends.
    end: OnceLock<Status>,
    /// The client has said all that it will say, and may still read.
    listens: AtomicBool,
}

impl Line {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            id: stream.id(),
            stream: Mutex::new(stream),
            writer: AtomicWaker::new(),
            written: Notify::new(),
            hung_up: Notify::new(),
            end: OnceLock::new(),
            listens: AtomicBool::new(false),
        }
    }

    pub(super) fn id(&self) -> StreamId {
        self.id
    }

    /// Looks at the stream, or changes it. Never for long, and never across an await.
    pub(super) fn with_stream<T>(&self, act: impl FnOnce(&mut Stream) -> T) -> T {
        act(&mut self.stream.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How the stream has ended, if it has.
    pub(super) fn end(&self) -> Option<&Status> {
        self.end.get()
    }

    /// Whether what is due may still be written.
    pub(super) fn may_write(&self) -> bool {
        self.end().is_none() || self.listens.load(Ordering::Relaxed)
    }

    fn close(&self, status: Status) {
        // Only the reader closes, and once.
        self.end.get_or_init(|| status);
        self.writer.wake();
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("id", &self.id).field("end", &self.end).finish_non_exhaustive()
    }
}

/// The task that reads.
pub(super) struct Reader {
    pub(super) line: Arc<Line>,
    pub(super) shared: Arc<Shared>,
    pub(super) requests: Messages,
    pub(super) variant: Variant,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) pace: Pace,
    /// Its client has been made to wait.
    pub(super) slowed: bool,
    pub(super) open: metric::OpenStream,
}

/// The snapshots of the client's group; nothing before its first request.
type Snapshots = Option<watch::Receiver<Option<Arc<Snapshot>>>>;

/// What the task was woken by.
enum Wake {
    Stop,
    HungUp,
    /// `None` once the client has ended its half.
    Request(Option<Box<Request>>),
    Snapshot,
    /// Something was written, or a pause is over.
    Again,
    Time,
}

impl Reader {
    /// Reads until the stream ends, and ends it with a status other than `OK`.
    pub(super) async fn run(mut self) {
        let Err(status) = self.read_all().await;
        let stream = self.line.id();
        debug!(stream = stream.0, code = ?status.code(), reason = status.message(), "xDS stream ended");
        metric::ended(status.code());
        self.line.close(status);
        self.shared.registry.leave(&self.line, self.shared.config.max_recollections);
        if self.line.with_stream(|stream| stream.node().is_some()) {
            self.notify(Event::Disconnected { stream }).await;
        }
        drop(self.open);
    }

    async fn read_all(&mut self) -> Result<Infallible, Status> {
        let mut snapshots = None;
        loop {
            let actions = match self.wake(&mut snapshots).await? {
                Wake::Stop => return Err(Status::unavailable("the xDS server is stopping")),
                Wake::HungUp => return Err(Status::cancelled("the client has left")),
                Wake::Request(None) => {
                    // One that asks once, as tools do, is answered.
                    self.line.listens.store(true, Ordering::Relaxed);
                    return Err(Status::cancelled("the client has said all it will say"));
                }
                Wake::Request(Some(request)) => self.take(*request, &mut snapshots),
                Wake::Snapshot => self.adopt(&mut snapshots),
                Wake::Again => continue,
                Wake::Time => self.line.with_stream(|stream| stream.on_tick(now())),
            };
            self.line.writer.wake();
            self.perform(actions).await?;
        }
    }

    /// Waits for something to do. Requests come first: an ACK or a subscription changes what is sent next.
    async fn wake(&mut self, snapshots: &mut Snapshots) -> Result<Wake, Status> {
        let deadline = self.line.with_stream(|stream| stream.deadline(now()));
        let paused = self.pace.paused_until(now());
        let line = Arc::clone(&self.line);
        Ok(tokio::select! {
            biased;
            _ = self.stopping.wait_for(|stop| *stop) => Wake::Stop,
            () = line.hung_up.notified() => Wake::HungUp,
            request = receive(&mut self.requests, self.variant), if paused.is_none() => {
                Wake::Request(request?.map(Box::new))
            }
            () = changed(snapshots) => Wake::Snapshot,
            () = line.written.notified() => Wake::Again,
            () = at(paused), if paused.is_some() => Wake::Again,
            () = at(deadline), if deadline.is_some() => Wake::Time,
        })
    }

    fn take(&mut self, request: Request, snapshots: &mut Snapshots) -> Vec<Action> {
        let mut actions = Vec::new();
        self.slow_down();
        if let (None, Some(node)) = (&snapshots, request.node().filter(|node| !node.id.is_empty())) {
            let shared = &self.shared;
            let known = shared.registry.recall(self.line.id(), &node.id);
            let policy = shared.config.policy.suited_to(node);
            let mut of_group = shared.publisher.subscribe(&shared.config.groups.of(node));
            let newest = of_group.borrow_and_update().clone();
            actions = self.line.with_stream(|stream| prepare(stream, policy, known, newest));
            *snapshots = Some(of_group);
        }
        actions.extend(self.line.with_stream(|stream| stream.on_request(now(), request)));
        actions
    }

    /// The next request waits if there are too many.
    fn slow_down(&mut self) {
        self.pace.take(now());
        if self.pace.paused_until(now()).is_none() {
            return;
        }
        metric::delayed();
        if !std::mem::replace(&mut self.slowed, true) {
            let stream = self.line.id();
            warn!(stream = stream.0, "an xDS client sends too many requests; they are made to wait");
        }
    }

    fn adopt(&self, snapshots: &mut Snapshots) -> Vec<Action> {
        let newest = snapshots.as_mut().and_then(|snapshots| snapshots.borrow_and_update().clone());
        let adopt = |snapshot| self.line.with_stream(|stream| stream.on_snapshot(now(), snapshot));
        newest.map(adopt).unwrap_or_default()
    }

    async fn perform(&mut self, actions: Vec<Action>) -> Result<(), Status> {
        for action in actions {
            match action {
                Action::Notify(event) => self.notify(event).await,
                Action::Close(refusal) => return Err(refused(refusal)),
            }
        }
        Ok(())
    }

    async fn notify(&mut self, event: Event) {
        // The owner knows what to say about it, and to whom.
        debug!(stream = event.stream().0, ?event, "xDS");
        metric::happened(&event);
        // The owner may have stopped listening; its clients are served all the same.
        drop(self.shared.events.send(event).await);
    }
}

fn prepare(
    stream: &mut Stream,
    policy: crate::stream::Policy,
    known: Recollection,
    newest: Option<Arc<Snapshot>>,
) -> Vec<Action> {
    stream.suit(policy);
    stream.recall(known);
    newest.map(|snapshot| stream.on_snapshot(now(), snapshot)).unwrap_or_default()
}

async fn receive(requests: &mut Messages, variant: Variant) -> Result<Option<Request>, Status> {
    let received = match variant {
        Variant::Incremental => {
            requests.next::<DeltaDiscoveryRequest>().await?.map(|(one, size)| (one.into(), size))
        }
        Variant::StateOfTheWorld => {
            requests.next::<DiscoveryRequest>().await?.map(|(one, size)| (one.into(), size))
        }
    };
    Ok(received.map(|(request, size): (Request, usize)| {
        metric::received(request.type_url(), size);
        request
    }))
}

/// Completes with a new snapshot. Without a publisher the last one stays.
async fn changed(snapshots: &mut Snapshots) {
    if let Some(snapshots) = snapshots
        && snapshots.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

async fn at(deadline: Option<std::time::Instant>) {
    if let Some(deadline) = deadline {
        sleep_until(Instant::from_std(deadline)).await;
    }
}

pub(super) fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn refused(refusal: Refusal) -> Status {
    let code = match refusal {
        Refusal::MissingNode | Refusal::MissingTypeUrl | Refusal::WrongType => Code::InvalidArgument,
        Refusal::TooManyNames(_) | Refusal::NamesTooLong(_) | Refusal::TooManyTypes(_) => {
            Code::ResourceExhausted
        }
    };
    Status::new(code, refusal.to_string())
}
