//! Lists a resource and watches it, for ever.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use kube::client::Body;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until, timeout_at};
use tower::BoxError;

use super::api::Api;
use super::backoff::Backoff;
use super::items::{Items, MAX_OBJECT, NoList};
use super::position::Position;

/// For how long the API may think, or be silent in the middle of a list.
const PATIENCE: Duration = Duration::from_secs(30);
/// For how long a watch is asked for. Each is shortened by chance, so that those of many nodes do not end together.
const WATCH: Duration = Duration::from_secs(300);
/// A watch that ends sooner counts as a failure: else one that ends at once would be asked for as fast as it fails.
const SHORT: Duration = Duration::from_secs(1);
/// How often it is looked whether the API has learned of a resource, or permits it.
const ABSENT: Duration = Duration::from_secs(60);
/// What of an error's body is read.
const MAX_ERROR: usize = 64 << 10;

/// A resource of the API: all of its objects, in all namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// Its paths without the plural name, the one to prefer first: `/apis/GROUP/VERSION`, or `/api/v1`.
    pub versions: &'static [&'static str],
    /// Its name in paths: `nodes`.
    pub plural: &'static str,
}

/// Who is told of a resource's objects, as the JSON that the API has of them.
///
/// An object may be told several times, and may be told after it has changed again. What is not told between
/// `list_begins` and `list_ends` is gone. When the API fails nothing is told: what was known goes on being known.
pub trait Follower {
    /// All objects are told anew. May come again before the list has ended.
    fn list_begins(&mut self);
    /// An object of the list, or one that is new or has changed.
    fn apply(&mut self, object: &[u8]);
    /// An object is gone. It is as it was last.
    fn delete(&mut self, object: &[u8]);
    /// All objects have been told.
    fn list_ends(&mut self);
    /// A whole list, or what came of a watch in one piece, has been told. On an error a list is told anew, after a pause.
    fn settle(&mut self) -> Result<(), Retry>;
    /// The API knows no such resource, and has said so for a minute more than the last time it was told.
    fn absent(&mut self);
    /// The resource cannot be followed, for this reason; or it can be again.
    fn troubled(&mut self, trouble: Option<&str>);
}

/// Why a follower wants to be told again.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Retry {
    /// What is wrong.
    pub what: String,
    /// Why, where that is known.
    pub source: Option<std::io::Error>,
}

/// Why the API's answer ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no connection")]
    Connection(#[source] BoxError),
    #[error("no answer for {} s", PATIENCE.as_secs())]
    Silence,
    #[error("the answer broke off")]
    Broken(#[source] BoxError),
    #[error("the API says {status}: {message}")]
    Refused { status: StatusCode, message: String, retry_after: Option<Duration> },
    #[error("the version is too old to go on from")]
    Gone,
    #[error("no list of the API")]
    List(#[from] NoList),
    #[error("the list has no version")]
    NoVersion,
    #[error("no event of the API")]
    Event(#[source] serde_json::Error),
    #[error("an event is larger than any object of the API")]
    TooLarge,
    #[error("a watch ended at once")]
    Short,
    #[error(transparent)]
    Follower(#[from] Retry),
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Versioned {
    metadata: Version,
}

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "resourceVersion")]
    version: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
    code: u16,
    reason: String,
}

/// One resource being followed.
struct Following<'a, F> {
    api: &'a Api,
    resource: Resource,
    follower: &'a mut F,
    /// Which of the resource's versions is asked for.
    at: usize,
    position: Position,
    backoff: Backoff,
    is_troubled: bool,
    is_absent: bool,
}

/// Tells `follower` of the objects of `resource`, until it is dropped.
pub async fn follow(api: &Api, resource: Resource, follower: &mut impl Follower) -> Infallible {
    let mut following = Following {
        api,
        resource,
        follower,
        at: 0,
        position: Position::default(),
        backoff: Backoff::default(),
        is_troubled: false,
        is_absent: false,
    };
    loop {
        let outcome = match following.position {
            Position::Listing { .. } => following.list().await,
            Position::Watching { .. } => following.watch().await,
        };
        if let Err(failure) = outcome {
            let pause = following.after(&failure);
            sleep_until(Instant::now() + pause).await;
        }
    }
}

impl<F: Follower> Following<'_, F> {
    async fn list(&mut self) -> Result<(), Failure> {
        if self.position.is_at_the_start() {
            self.follower.list_begins();
        }
        let mut body = self.ask(0).await?;
        let mut items = Items::default();
        while let Some(bytes) = next(&mut body, Instant::now() + PATIENCE).await? {
            items.read(&bytes, |object| self.follower.apply(object))?;
        }
        let next = self.position.listed(items.finish()?).ok_or(Failure::NoVersion)?;
        // Only then, so that what cannot be done about one object does not keep the pages behind it from coming.
        if matches!(next, Position::Watching { .. }) {
            self.follower.list_ends();
            self.follower.settle()?;
        }
        self.position = next;
        self.is_absent = false;
        self.is_well();
        Ok(())
    }

    async fn watch(&mut self) -> Result<(), Failure> {
        let length = self.backoff.shortened(WATCH);
        let began = Instant::now();
        let mut body = self.ask(length.as_secs()).await?;
        let mut line = Vec::new();
        loop {
            let bytes = next(&mut body, began + length + PATIENCE);
            // A watch that stays open is well, though it may be long until something happens.
            let bytes = match self.is_troubled {
                false => bytes.await?,
                true => match timeout_at(began + SHORT, bytes).await {
                    Ok(bytes) => bytes?,
                    Err(_elapsed) => {
                        self.is_well();
                        continue;
                    }
                },
            };
            let Some(bytes) = bytes else { break };
            self.events(&mut line, &bytes)?;
        }
        if began.elapsed() < SHORT { Err(Failure::Short) } else { Ok(()) }
    }

    /// Events are lines. `line` is the beginning of one that has not ended yet.
    fn events(&mut self, line: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Failure> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if line.len() > MAX_OBJECT {
                return Err(Failure::TooLarge);
            }
            if line.ends_with(b"\n") {
                self.event(line)?;
                line.clear();
            }
        }
        line.shrink_to(64 << 10);
        self.follower.settle()?;
        Ok(())
    }

    fn event(&mut self, line: &[u8]) -> Result<(), Failure> {
        let Event { kind, object } = serde_json::from_slice(line).map_err(Failure::Event)?;
        let object = object.get();
        if kind == "ERROR" {
            return Err(refusal(StatusCode::OK, object.as_bytes(), None));
        }
        let Versioned { metadata } = serde_json::from_str(object).map_err(Failure::Event)?;
        match kind {
            "ADDED" | "MODIFIED" => self.follower.apply(object.as_bytes()),
            "DELETED" => self.follower.delete(object.as_bytes()),
            // A bookmark only has a version; what else may come later is not for us.
            _ => {}
        }
        self.position.saw(&metadata.version);
        self.is_well();
        Ok(())
    }

    async fn ask(&self, seconds: u64) -> Result<Body, Failure> {
        let Resource { versions, plural } = self.resource;
        let version = versions.get(self.at).copied().unwrap_or_default();
        let path = format!("{version}/{plural}?{}", self.position.query(seconds));
        let answer = in_time(Instant::now() + PATIENCE, self.api.get(&path)).await?;
        let (head, body) = answer.map_err(Failure::Connection)?.into_parts();
        if head.status == StatusCode::OK {
            return Ok(body);
        }
        let retry_after = head.headers.get(http::header::RETRY_AFTER);
        let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        Err(refusal(head.status, &start_of(body).await, seconds.map(Duration::from_secs)))
    }

    /// What to do about it, and how long to wait before.
    fn after(&mut self, failure: &Failure) -> Duration {
        match failure {
            Failure::Refused { status: StatusCode::NOT_FOUND, .. } => return self.not_found(),
            // Whatever a watch was told that is no event, a list makes good.
            Failure::Gone | Failure::Event(_) | Failure::TooLarge | Failure::Follower(_) => {
                self.position = Position::default();
            }
            _ => {}
        }
        match failure {
            // Nothing is wrong with an API that ends a watch, or has forgotten an old version.
            Failure::Gone | Failure::Short => {
                tracing::debug!(resource = self.resource.plural, reason = %failure, "watching anew");
            }
            _ => self.complain(failure),
        }
        let pause = self.backoff.pause();
        match failure {
            Failure::Refused { status: StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED, .. } => {
                pause.max(self.backoff.shortened(ABSENT / 4))
            }
            Failure::Refused { retry_after: Some(asked), .. } => pause.max((*asked).min(ABSENT)),
            _ => pause,
        }
    }

    /// The API may know the resource in another version. What was known stays: an API that is starting knows of few.
    fn not_found(&mut self) -> Duration {
        self.position = Position::default();
        self.at = (self.at + 1) % self.resource.versions.len().max(1);
        if self.at != 0 {
            return Duration::ZERO;
        }
        self.is_well();
        if !std::mem::replace(&mut self.is_absent, true) {
            let Resource { versions, plural } = self.resource;
            tracing::info!(
                resource = plural,
                ?versions,
                "the Kubernetes API has no such resource; it is asked again every minute"
            );
        }
        self.follower.absent();
        self.backoff.shortened(ABSENT)
    }

    fn complain(&mut self, failure: &Failure) {
        let (resource, reason) = (self.resource.plural, chain(failure));
        self.follower.troubled(Some(&reason));
        if std::mem::replace(&mut self.is_troubled, true) {
            return tracing::debug!(resource, reason, "the Kubernetes API still fails");
        }
        let server = self.api.server();
        tracing::warn!(
            resource,
            server,
            reason,
            "cannot follow the Kubernetes API; what was known stays in force"
        );
    }

    fn is_well(&mut self) {
        self.backoff.reset();
        if std::mem::take(&mut self.is_troubled) {
            self.follower.troubled(None);
            tracing::info!(resource = self.resource.plural, "following the Kubernetes API again");
        }
    }
}

async fn in_time<T>(end: Instant, answer: impl Future<Output = T>) -> Result<T, Failure> {
    timeout_at(end, answer).await.map_err(|_elapsed| Failure::Silence)
}

async fn next(body: &mut Body, end: Instant) -> Result<Option<bytes::Bytes>, Failure> {
    match in_time(end, body.frame()).await? {
        None => Ok(None),
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(error)) => Err(Failure::Broken(error.into())),
    }
}

/// Of a body that says why, as much as there is.
async fn start_of(mut body: Body) -> Vec<u8> {
    let mut start = Vec::new();
    while let Ok(Some(bytes)) = next(&mut body, Instant::now() + PATIENCE).await {
        start.extend_from_slice(&bytes);
        if start.len() > MAX_ERROR {
            break;
        }
    }
    start
}

/// `meta/v1 Status`, or whatever somebody on the way has answered with.
fn refusal(status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> Failure {
    let said: Status = serde_json::from_slice(body).unwrap_or_default();
    let status = StatusCode::from_u16(said.code).unwrap_or(status);
    if status == StatusCode::GONE || matches!(said.reason.as_str(), "Expired" | "Gone") {
        return Failure::Gone;
    }
    let message = match said.message {
        message if message.is_empty() => String::from_utf8_lossy(body).trim().chars().take(200).collect(),
        message => message,
    };
    Failure::Refused { status, message, retry_after }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
