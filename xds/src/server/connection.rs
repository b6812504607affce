//! One stream on the wire: carries bytes between the transport and the [`Stream`].

use std::convert::Infallible;
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::debug;

use crate::stream::{Action, Stream};
use crate::{Event, Snapshot};

/// The task behind one stream.
pub(super) struct Connection {
    stream: Stream,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    events: mpsc::Sender<Event>,
    connected: bool,
    /// The stream may have something to say.
    stirred: bool,
}

/// What a task was woken by.
enum Wake<'a> {
    Stop,
    /// `None` once the client has ended its half.
    Request(Option<Box<DeltaDiscoveryRequest>>),
    Snapshot,
    Room(mpsc::Permit<'a, DeltaDiscoveryResponse>),
    Time,
}

impl Connection {
    /// Starts the task; the result is what the client reads. It always ends with a status other than `OK`.
    pub(super) fn spawn(
        stream: Stream,
        requests: Streaming<DeltaDiscoveryRequest>,
        mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
        stopping: watch::Receiver<bool>,
        events: mpsc::Sender<Event>,
    ) -> impl futures_util::Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send + use<> {
        // One response waits here for the transport to encode it; more would be older than need be.
        let (responses, sent) = mpsc::channel(1);
        let (end, ended) = oneshot::channel();
        snapshots.mark_changed();
        let connection = Self { stream, snapshots, events, connected: false, stirred: false };
        tokio::spawn(async move {
            let status = connection.run(requests, responses, stopping).await;
            // The transport has gone if it no longer wants the status.
            drop(end.send(status));
        });
        let last =
            async { Err(ended.await.unwrap_or_else(|_| Status::internal("the stream's task has ended"))) };
        ReceiverStream::new(sent).map(Ok).chain(futures_util::stream::once(last))
    }

    async fn run(
        mut self,
        requests: Streaming<DeltaDiscoveryRequest>,
        responses: mpsc::Sender<DeltaDiscoveryResponse>,
        stopping: watch::Receiver<bool>,
    ) -> Status {
        let Err(status) = self.carry(requests, responses, stopping).await;
        let stream = self.stream.id();
        debug!(stream = stream.0, code = ?status.code(), reason = status.message(), "xDS stream ended");
        if self.connected {
            self.notify(Event::Disconnected { stream }).await;
        }
        status
    }

    async fn carry(
        &mut self,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        responses: mpsc::Sender<DeltaDiscoveryResponse>,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<Infallible, Status> {
        loop {
            match self.wake(&mut requests, &responses, &mut stopping).await? {
                Wake::Stop => return Err(Status::unavailable("the xDS server is stopping")),
                Wake::Request(request) => self.read(request).await?,
                Wake::Snapshot => self.adopt().await?,
                Wake::Room(room) => self.write(room),
                Wake::Time => self.tick().await?,
            }
        }
    }

    /// Waits for something to do. Requests come before responses: an ACK or a subscription changes what is sent
    /// next.
    async fn wake<'a>(
        &mut self,
        requests: &mut Streaming<DeltaDiscoveryRequest>,
        responses: &'a mpsc::Sender<DeltaDiscoveryResponse>,
        stopping: &mut watch::Receiver<bool>,
    ) -> Result<Wake<'a>, Status> {
        let deadline = self.stream.deadline(now());
        Ok(tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => Wake::Stop,
            request = requests.message() => Wake::Request(request?.map(Box::new)),
            // Without a publisher the last snapshot stays.
            Ok(()) = self.snapshots.changed() => Wake::Snapshot,
            room = responses.reserve(), if self.stirred => Wake::Room(room.map_err(|_closed| client_left())?),
            () = at(deadline), if deadline.is_some() => Wake::Time,
        })
    }

    async fn read(&mut self, request: Option<Box<DeltaDiscoveryRequest>>) -> Result<(), Status> {
        let actions = self.stream.on_request(now(), *request.ok_or_else(client_left)?);
        self.perform(actions).await
    }

    async fn adopt(&mut self) -> Result<(), Status> {
        let newest = self.snapshots.borrow_and_update().clone();
        let actions = newest.map_or_else(Vec::new, |snapshot| self.stream.on_snapshot(now(), snapshot));
        self.perform(actions).await
    }

    fn write(&mut self, room: mpsc::Permit<'_, DeltaDiscoveryResponse>) {
        match self.stream.on_writable(now()) {
            Some(response) => {
                if let Some(response) = response.to_delta() {
                    room.send(response);
                }
            }
            None => self.stirred = false,
        }
    }

    async fn tick(&mut self) -> Result<(), Status> {
        let actions = self.stream.on_tick(now());
        self.perform(actions).await
    }

    async fn perform(&mut self, actions: Vec<Action>) -> Result<(), Status> {
        self.stirred = true;
        for action in actions {
            match action {
                Action::Notify(event) => self.notify(event).await,
                Action::Close(refusal) => return Err(Status::invalid_argument(refusal.to_string())),
            }
        }
        Ok(())
    }

    async fn notify(&mut self, event: Event) {
        // The owner knows what to say about it, and to whom.
        debug!(stream = event.stream().0, ?event, "xDS");
        self.connected |= matches!(event, Event::Connected { .. });
        // The owner may have stopped listening; its clients are served all the same.
        drop(self.events.send(event).await);
    }
}

async fn at(deadline: Option<std::time::Instant>) {
    if let Some(deadline) = deadline {
        sleep_until(Instant::from_std(deadline)).await;
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn client_left() -> Status {
    Status::cancelled("the client has left")
}
