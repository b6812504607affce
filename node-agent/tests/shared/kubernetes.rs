//! A stand-in for the Kubernetes API, as far as it is read: lists in pages, and watches.
//!
//! What it does is what the API's documentation ("Kubernetes API Concepts") and the real server's answers say: one counter
//! gives every change its `resourceVersion`; pages of a list are of the version of its first page; items of a list of built-in
//! types have neither `kind` nor `apiVersion`, those of events have; a watch begins behind a version, sends bookmarks where they are
//! allowed, and ends after `timeoutSeconds`; of versions that were compacted away it says 410, a watch in an event and a page
//! by its status. And it fails as a real one does, when it is told to: see [`Fault`] and [`Kubernetes::go_away`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::channel::{Channel, Sender};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

/// A running API. It ends when dropped.
#[derive(Debug)]
pub struct Kubernetes {
    address: SocketAddr,
    shared: Shared,
    server: Option<JoinHandle<()>>,
}

/// What becomes of a request that would otherwise be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status, and with this `Retry-After`.
    Status(u16, Option<u64>),
    /// The connection breaks after so many bytes of the answer's body.
    BreakAfter(usize),
    /// The answer comes in pieces of so many bytes.
    Slow(usize),
    /// It is never answered.
    Hang,
    /// It is answered with something that is no answer of an API.
    Nonsense,
}

#[derive(Debug, Clone)]
struct Shared {
    state: Arc<Mutex<State>>,
    /// Rises with every change of the state.
    changed: watch::Sender<u64>,
    /// Rises when connections are to break.
    broken: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    compacted: u64,
    resources: BTreeMap<String, BTreeMap<(String, String), Value>>,
    events: Vec<Change>,
    /// How many events were forgotten before the first of `events`.
    forgotten: usize,
    snapshots: HashMap<(String, u64), Arc<Vec<Value>>>,
    faults: VecDeque<(String, Fault)>,
    requests: Vec<String>,
    /// How many connections were broken at once because it was away.
    refused: usize,
    is_away: bool,
    is_over: bool,
}

#[derive(Debug, Clone)]
struct Change {
    version: u64,
    /// Of all resources, if it is a bookmark.
    path: Option<String>,
    kind: &'static str,
    object: Value,
}

type Body = Channel<Bytes, std::io::Error>;

impl Kubernetes {
    /// One that listens on a free port of the loopback address, and knows of no resource yet.
    pub fn start() -> Self {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"))
    }

    /// One on this socket, which may be of another network namespace.
    pub fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("a bound socket has an address");
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        let state = State { version: 1000, compacted: 1000, ..State::default() };
        let shared = Shared {
            state: Arc::new(Mutex::new(state)),
            changed: watch::Sender::new(0),
            broken: watch::Sender::new(0),
        };
        let of_thread = shared.clone();
        let server = std::thread::spawn(move || run(listener, of_thread));
        Self { address, shared, server: Some(server) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A kubeconfig for it.
    pub fn kubeconfig(&self) -> String {
        let server = format!("http://{}", self.address);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        })
        .to_string()
    }

    /// From now on there is the resource `path`, as `/api/v1/nodes`.
    pub fn serve(&self, path: &str) {
        self.shared.change(|state| {
            state.resources.entry(path.to_owned()).or_default();
        });
    }

    /// Creates or replaces an object, which must have a `metadata.name`.
    pub fn apply(&self, path: &str, object: Value) {
        self.shared.change(|state| state.apply(path, object));
    }

    /// Deletes an object; of what has no namespace, that is empty.
    pub fn delete(&self, path: &str, namespace: &str, name: &str) {
        self.shared.change(|state| state.delete(path, namespace, name));
    }

    /// Deletes an object without telling anyone who watches: what an event that got lost looks like.
    pub fn delete_unseen(&self, path: &str, namespace: &str, name: &str) {
        self.shared.change(|state| {
            state.delete(path, namespace, name);
            state.events.pop();
        });
    }

    /// Tells everybody who watches the present version, and nothing else.
    pub fn bookmark(&self) {
        self.shared.change(|state| {
            let version = state.version;
            let object =
                json!({"metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null}});
            state.events.push(Change { version, path: None, kind: "BOOKMARK", object });
        });
    }

    /// Tells everybody who watches `path` all of its last events again.
    pub fn repeat_events(&self, path: &str) {
        self.shared.change(|state| {
            let of_path = |change: &&Change| change.path.as_deref() == Some(path);
            let again: Vec<Change> = state.events.iter().filter(of_path).cloned().collect();
            let version = state.version;
            state.events.extend(again.into_iter().map(|change| Change { version, ..change }));
        });
    }

    /// Forgets all versions before the present one.
    pub fn compact(&self) {
        self.shared.change(|state| {
            state.compacted = state.version;
            state.forgotten += state.events.len();
            state.events.clear();
            state.snapshots.clear();
        });
    }

    /// Breaks the connections that there are.
    pub fn break_connections(&self) {
        self.shared.broken.send_modify(|count| *count += 1);
    }

    /// Breaks all connections, also those that are made until [`Self::come_back`].
    pub fn go_away(&self) {
        self.shared.change(|state| state.is_away = true);
        self.break_connections();
    }

    /// How many connections were made and broken while it was away.
    pub fn refused(&self) -> usize {
        self.shared.lock().refused
    }

    /// Answers again.
    pub fn come_back(&self) {
        self.shared.change(|state| state.is_away = false);
    }

    /// The next request whose path and query have `part` in them meets this; several wait for their requests in order.
    pub fn fail(&self, part: &str, fault: Fault) {
        self.shared.change(|state| state.faults.push_back((part.to_owned(), fault)));
    }

    /// The paths and queries that were asked for so far.
    pub fn requests(&self) -> Vec<String> {
        self.shared.lock().requests.clone()
    }

    /// How many requests had `part` in their paths and queries.
    pub fn count(&self, part: &str) -> usize {
        self.shared.lock().requests.iter().filter(|request| request.contains(part)).count()
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        self.shared.change(|state| state.is_over = true);
        self.break_connections();
        if let Some(server) = self.server.take() {
            server.join().ok();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.send_modify(|count| *count += 1);
    }
}

impl State {
    fn apply(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        let version = self.version;
        let metadata = metadata_of(&mut object);
        let key = (text(metadata.get("namespace")), text(metadata.get("name")));
        metadata.insert("resourceVersion".into(), version.to_string().into());
        metadata.entry("uid").or_insert_with(|| format!("uid-of-{}-{}", key.0, key.1).into());
        metadata.entry("creationTimestamp").or_insert_with(|| "2026-01-01T00:00:00Z".into());
        metadata.insert("managedFields".into(), json!([{"manager": "somebody", "operation": "Update"}]));
        let objects = self.resources.entry(path.to_owned()).or_default();
        let kind = if objects.insert(key, object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        self.events.push(Change { version, path: Some(path.to_owned()), kind, object });
    }

    fn delete(&mut self, path: &str, namespace: &str, name: &str) {
        self.version += 1;
        let version = self.version;
        let objects = self.resources.entry(path.to_owned()).or_default();
        let mut object =
            objects.remove(&(namespace.to_owned(), name.to_owned())).expect("what is deleted is there");
        metadata_of(&mut object).insert("resourceVersion".into(), version.to_string().into());
        self.events.push(Change { version, path: Some(path.to_owned()), kind: "DELETED", object });
    }

    /// The lines for a watch from this version that has been `sent` so many of all events; `None` if it is too old.
    fn news(
        &self,
        path: &str,
        from: u64,
        allows_bookmarks: bool,
        sent: &mut Option<usize>,
    ) -> Option<Vec<Bytes>> {
        let start = match sent {
            Some(sent) => sent.saturating_sub(self.forgotten),
            None if from < self.compacted => return None,
            None => self.events.partition_point(|change| change.version <= from),
        };
        *sent = Some(self.forgotten + self.events.len());
        let ours = self.events.iter().skip(start).filter(|change| match &change.path {
            Some(of) => of == path,
            None => allows_bookmarks,
        });
        Some(ours.map(|change| event(change.kind, &change.object)).collect())
    }

    fn take_fault(&mut self, request: &str) -> Option<Fault> {
        let at = self.faults.iter().position(|(part, _)| request.contains(part.as_str()))?;
        self.faults.remove(at).map(|(_, fault)| fault)
    }

    /// A page of the list, or `None` if its version is no more.
    fn page(&mut self, path: &str, query: &Query) -> Option<Value> {
        let limit = query.number("limit").filter(|limit| *limit > 0);
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let (version, start) = match query.get("continue") {
            Some(token) => {
                let (version, start) = token.strip_suffix('=')?.split_once('/')?;
                (version.parse().ok()?, start.parse().ok()?)
            }
            None => (self.snapshot(path), 0),
        };
        let all = Arc::clone(self.snapshots.get(&(path.to_owned(), version))?);
        let items: Vec<Value> = all.iter().skip(start).take(limit).map(|item| as_item(path, item)).collect();
        let mut metadata = Map::from_iter([("resourceVersion".to_owned(), version.to_string().into())]);
        let end = start + items.len();
        if end < all.len() {
            metadata.insert("continue".into(), format!("{version}/{end}=").into());
            metadata.insert("remainingItemCount".into(), (all.len() - end).into());
        }
        Some(json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
    }

    fn snapshot(&mut self, path: &str) -> u64 {
        let all = self.resources.get(path).map(|objects| objects.values().cloned().collect());
        self.snapshots.insert((path.to_owned(), self.version), Arc::new(all.unwrap_or_default()));
        self.version
    }
}

fn metadata_of(object: &mut Value) -> &mut Map<String, Value> {
    object.get_mut("metadata").and_then(Value::as_object_mut).expect("an object has metadata")
}

/// The API leaves out of a typed list what all its items have in common.
fn as_item(path: &str, object: &Value) -> Value {
    let mut item = object.clone();
    let is_built_in = path.starts_with("/api/") || path.starts_with("/apis/discovery.k8s.io/");
    if let Some(fields) = item.as_object_mut().filter(|_| is_built_in) {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    item
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

struct Query(HashMap<String, String>);

impl Query {
    fn of(query: &str) -> Self {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(key, value)| (key.to_owned(), decoded(value))).collect())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.parse().ok()
    }
}

fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut decoded, part| {
        let (code, rest) = part.split_at_checked(2).expect("two digits");
        decoded.push(char::from(u8::from_str_radix(code, 16).expect("a code")));
        decoded + rest
    })
}

fn run(listener: TcpListener, shared: Shared) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket of the runtime");
        let mut broken = shared.broken.subscribe();
        while !shared.lock().is_over {
            tokio::select! {
                Ok((stream, _)) = listener.accept() => {
                    if shared.lock().is_away {
                        shared.lock().refused += 1;
                    } else {
                        stream.set_nodelay(true).ok();
                        tokio::spawn(serve(stream, shared.clone()));
                    }
                }
                _ = broken.changed() => {}
            }
        }
    });
}

async fn serve(stream: tokio::net::TcpStream, shared: Shared) {
    let mut broken = shared.broken.subscribe();
    let service = service_fn(|request| answer(request, shared.clone()));
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = connection => {}
        _ = broken.changed() => {}
    }
}

async fn answer(request: Request<Incoming>, shared: Shared) -> Result<Response<Body>, Infallible> {
    let uri = request.uri();
    let asked = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let (path, query) = (uri.path().to_owned(), Query::of(uri.query().unwrap_or_default()));
    let fault = {
        let mut state = shared.lock();
        state.requests.push(asked.clone());
        state.take_fault(&asked)
    };
    let is_there = shared.lock().resources.contains_key(&path);
    Ok(match fault {
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Status(code, retry_after)) => status(code, retry_after),
        Some(Fault::Nonsense) => whole(200, Bytes::from_static(b"<html>Please log in</html>"), None),
        _ if !is_there => status(404, None),
        _ if query.get("watch") == Some("true") => watch_answer(path, &query, shared, fault),
        _ => {
            let page = shared.lock().page(&path, &query);
            page.map_or_else(|| status(410, None), |page| whole(200, page.to_string().into(), fault))
        }
    })
}

fn watch_answer(path: String, query: &Query, shared: Shared, fault: Option<Fault>) -> Response<Body> {
    let from = query.number("resourceVersion").expect("a watch from a version");
    let allows_bookmarks = query.get("allowWatchBookmarks") == Some("true");
    let end = Duration::from_secs(query.number("timeoutSeconds").unwrap_or(300));
    let (sender, body) = Channel::new(1);
    let output = Output { sender, fault, left: bytes_until_break(fault) };
    tokio::spawn(async move {
        tokio::time::timeout(end, watch_events(path, from, allows_bookmarks, shared, output)).await.ok();
    });
    respond(200, body)
}

/// Sends events until the client has gone, or the fault ends it.
async fn watch_events(path: String, from: u64, allows_bookmarks: bool, shared: Shared, mut output: Output) {
    let mut changed = shared.changed.subscribe();
    changed.mark_changed();
    let mut sent = None;
    while changed.changed().await.is_ok() {
        let news = shared.lock().news(&path, from, allows_bookmarks, &mut sent);
        let Some(lines) = news else {
            output.send(event("ERROR", &status_object(410))).await;
            return;
        };
        for line in lines {
            if !output.send(line).await {
                return output.abort();
            }
        }
    }
}

fn event(kind: &str, object: &Value) -> Bytes {
    // The server's order of fields is that of its type, which a map would not keep.
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into()
}

fn status_object(code: u16) -> Value {
    let (reason, message) = match code {
        404 => ("NotFound", "the server could not find the requested resource"),
        410 => ("Expired", "too old resource version"),
        429 => ("TooManyRequests", "please try again later"),
        403 => ("Forbidden", "nodes is forbidden: User cannot list resource"),
        _ => ("InternalError", "something went wrong"),
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

fn status(code: u16, retry_after: Option<u64>) -> Response<Body> {
    let mut answer = whole(code, status_object(code).to_string().into(), None);
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert("retry-after", seconds.into());
    }
    answer
}

fn whole(code: u16, content: Bytes, fault: Option<Fault>) -> Response<Body> {
    let (sender, body) = Channel::new(1);
    let mut output = Output { sender, fault, left: bytes_until_break(fault) };
    tokio::spawn(async move {
        if !output.send(content).await {
            output.abort();
        }
    });
    respond(code, body)
}

fn respond(code: u16, body: Body) -> Response<Body> {
    let answer = Response::builder().status(code).header("content-type", "application/json");
    answer.body(body).expect("a status and a header make a response")
}

fn bytes_until_break(fault: Option<Fault>) -> Option<usize> {
    match fault {
        Some(Fault::BreakAfter(bytes)) => Some(bytes),
        _ => None,
    }
}

/// The body of an answer, as whole as the fault leaves it.
struct Output {
    sender: Sender<Bytes, std::io::Error>,
    fault: Option<Fault>,
    left: Option<usize>,
}

impl Output {
    /// Whether more can be sent.
    async fn send(&mut self, content: Bytes) -> bool {
        let size = match self.fault {
            Some(Fault::Slow(size)) => size,
            _ => content.len().max(1),
        };
        for piece in content.chunks(size) {
            let may_go = self.left.unwrap_or(usize::MAX).min(piece.len());
            let piece_sent = self
                .sender
                .send_data(Bytes::copy_from_slice(piece.get(..may_go).unwrap_or_default()))
                .await
                .is_ok();
            self.left = self.left.map(|left| left - may_go);
            if !piece_sent || self.left == Some(0) {
                return false;
            }
            // What is sent in one turn of the runtime would be written together.
            tokio::task::yield_now().await;
        }
        true
    }

    fn abort(self) {
        self.sender.abort(std::io::Error::other("told to break"));
    }
}
