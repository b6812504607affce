//! The connection: one member at a time, the next one when it does not answer, and an end to the waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use etcd_client::{
    Certificate, Client, ConnectOptions, GetOptions, GetResponse, Identity, KvClient, TlsOptions,
};
use tokio::runtime::Runtime;
use tonic::Code;

use super::commit::{Guard, Outcome, Transaction};
use super::{Error, Settings, random};

/// Between two attempts, so that servers that refuse are not asked in a loop.
const PAUSE: Duration = Duration::from_millis(20);

/// Talks to one member until that fails.
pub(super) struct Connection {
    settings: Settings,
    runtime: Runtime,
    session: Mutex<Session>,
}

#[derive(Default)]
struct Session {
    /// Counts through the endpoints.
    turn: usize,
    client: Option<Client>,
}

/// What an attempt has come to, short of an answer.
enum Failure {
    /// The next member may do it.
    Passing(String),
    /// This member would do the same again.
    Distrusted(String),
    /// No member would.
    Final(Error),
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(settings: Settings) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::Setup(error.to_string()))?;
        // Not everybody begins with the same one.
        let turn = random() as usize;
        Ok(Self { settings, runtime, session: Mutex::new(Session { turn, client: None }) })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn get(
        &self,
        key: &str,
        options: &GetOptions,
        deadline: Instant,
    ) -> Result<GetResponse, Error> {
        self.call("reading", deadline, |mut kv| {
            let (key, options) = (key.to_owned(), options.clone());
            async move { kv.get(key, Some(options)).await }
        })
    }

    /// Carries the transaction out, if the guard lets it.
    pub(super) fn commit(
        &self,
        transaction: &Transaction,
        guard: Option<&Guard>,
        deadline: Instant,
    ) -> Result<Outcome, Error> {
        let response = self.call("writing", deadline, |mut kv| {
            let txn = transaction.request(guard);
            async move { kv.txn(txn).await }
        });
        match response {
            Ok(response) => Ok(transaction.outcome(guard, &response)),
            Err(Error::Unavailable { doing, timeout, members, .. }) => {
                Err(Error::Unavailable { doing, timeout, members, sent: true })
            }
            Err(error) => Err(error),
        }
    }

    fn call<T, F>(
        &self,
        doing: &'static str,
        deadline: Instant,
        ask: impl Fn(KvClient) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let (mut members, mut distrusted) = (BTreeMap::new(), BTreeSet::new());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let members =
                    members.into_iter().map(|(endpoint, why)| format!("{endpoint}: {why}")).collect();
                return Err(Error::Unavailable {
                    doing,
                    timeout: self.settings.timeout,
                    members,
                    sent: false,
                });
            }
            let endpoint = self.endpoint();
            let limit = left.min(self.settings.attempt);
            match self.runtime.block_on(self.attempt(doing, &endpoint, limit, &ask)) {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                // The last attempt is cut short, and then says less than the one before.
                Err(Failure::Passing(_))
                    if limit < self.settings.attempt && members.contains_key(&endpoint) => {}
                Err(Failure::Passing(why)) => drop(members.insert(endpoint, why)),
                Err(Failure::Distrusted(why)) => {
                    distrusted.insert(endpoint.clone());
                    if self.settings.endpoints.iter().all(|one| distrusted.contains(one)) {
                        let reason = format!("{endpoint}: {why}; cacert must have who signed it");
                        return Err(Error::Setup(reason));
                    }
                    members.insert(endpoint, why);
                }
            }
            self.next_member();
            std::thread::sleep(PAUSE.min(left));
        }
    }

    async fn attempt<T, F>(
        &self,
        doing: &'static str,
        endpoint: &str,
        limit: Duration,
        ask: impl Fn(KvClient) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let answer = async {
            let client = self.client(endpoint).await?;
            ask(client.kv_client()).await.map_err(|error| judge(doing, endpoint, error))
        };
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Passing(format!("no answer within {} ms", limit.as_millis()))),
        }
    }

    async fn client(&self, endpoint: &str) -> Result<Client, Failure> {
        if let Some(client) = &self.session().client {
            return Ok(client.clone());
        }
        let options = self.options().map_err(Failure::Final)?;
        let client = Client::connect([endpoint], Some(options)).await;
        let client = client.map_err(|error| judge("logging in", endpoint, error))?;
        self.session().client = Some(client.clone());
        Ok(client)
    }

    fn options(&self) -> Result<ConnectOptions, Error> {
        // A member that has lost the others says so at once, and not when its patience ends.
        let mut options =
            ConnectOptions::new().with_require_leader(true).with_connect_timeout(self.settings.attempt);
        let tls = &self.settings.tls;
        if self.settings.endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
            let mut client = TlsOptions::new();
            if let Some(path) = &tls.ca {
                let authority = pem("the certificate of the authority", path, "CERTIFICATE")?;
                client = client.ca_certificate(Certificate::from_pem(authority));
            }
            if let Some((certificate, key)) = &tls.identity {
                let certificate = pem("the client's certificate", certificate, "CERTIFICATE")?;
                drop(secret("the client's key", key)?);
                let key = pem("the client's key", key, "PRIVATE KEY")?;
                client = client.identity(Identity::from_pem(certificate, key));
            }
            options = options.with_tls(client);
        }
        if let Some((user, path)) = &self.settings.user {
            let password = secret("the password", path)?;
            options = options.with_user(user, password.trim_end_matches(['\r', '\n']));
        }
        Ok(options)
    }

    fn endpoint(&self) -> String {
        let turn = self.session().turn;
        let endpoints = &self.settings.endpoints;
        endpoints.get(turn % endpoints.len().max(1)).cloned().unwrap_or_default()
    }

    fn next_member(&self) {
        let mut session = self.session();
        *session = Session { turn: session.turn.wrapping_add(1), client: None };
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file(what: &'static str, path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File { what, path: path.into(), source })
}

/// A file that has something of this kind in it. Where it has not, TLS would do without, and fail later for another reason.
fn pem(what: &'static str, path: &Path, kind: &'static str) -> Result<String, Error> {
    let text = file(what, path)?;
    let is_begin =
        |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{kind}-----"));
    if !text.lines().any(is_begin) {
        return Err(Error::Pem { what, path: path.into(), kind });
    }
    Ok(text)
}

/// What everybody on the node may read is no secret.
fn secret(what: &'static str, path: &Path) -> Result<String, Error> {
    const OTHERS: u32 = 0o007;
    let metadata = fs::metadata(path).map_err(|source| Error::File { what, path: path.into(), source })?;
    match metadata.permissions().mode() {
        mode if mode & OTHERS != 0 => Err(Error::Open { what, path: path.into(), mode: mode & 0o777 }),
        _ => file(what, path),
    }
}

/// What etcd answers is final where it is about the request or whoever makes it. The rest is about the member: it is down, cut off,
/// starting, or has no leader. (`etcdserver/api/v3rpc/rpctypes/error.go` has the codes.)
fn judge(doing: &'static str, endpoint: &str, error: etcd_client::Error) -> Failure {
    let etcd_client::Error::GRpcStatus(status) = &error else {
        return match &error {
            etcd_client::Error::InvalidArgs(_) | etcd_client::Error::InvalidUri(_) => {
                Failure::Final(Error::Setup(error.to_string()))
            }
            // Nothing was sent yet (etcd-client, `build_endpoint`): a certificate or a key cannot be used.
            other @ etcd_client::Error::TransportError(_) => {
                Failure::Final(Error::Setup(root(other, &other.to_string())))
            }
            other => Failure::Passing(root(other, &other.to_string())),
        };
    };
    let reason = format!("{endpoint}: {}", status.message());
    match status.code() {
        Code::OutOfRange => Failure::Final(Error::Stale(reason)),
        // The members have seen a change of users that this one has not.
        Code::InvalidArgument if status.message().contains("revision in header is old") => {
            Failure::Passing(reason)
        }
        Code::InvalidArgument
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::Unimplemented => Failure::Final(Error::Refused { doing, reason }),
        Code::ResourceExhausted if !status.message().contains("too many requests") => {
            Failure::Final(Error::Refused { doing, reason })
        }
        _ => match root(status, status.message()) {
            // As rustls says it.
            why if why.contains("invalid peer certificate") => Failure::Distrusted(why),
            why => Failure::Passing(hinted(endpoint, why)),
        },
    }
}

/// A member that does not believe the client's certificate says so only by hanging up: in TLS 1.3 it
/// sees it after the client is done with the handshake.
fn hinted(endpoint: &str, reason: String) -> String {
    let lower = reason.to_lowercase();
    let hung_up =
        ["connection closed", "broken pipe", "connection reset"].iter().any(|how| lower.contains(how));
    if endpoint.starts_with("https://") && hung_up {
        return format!("{reason}, as by a member that wants another certificate (cert, key) of the client");
    }
    reason
}

/// The transport wraps its errors many times, and the innermost says what happened; a member's own words have no cause.
fn root(error: &dyn std::error::Error, words: &str) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.last().map_or_else(|| words.to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_hung_up_on_by_a_member_with_tls_hears_of_certificates() {
        for reason in [
            "connection closed",
            "stream closed because of a broken pipe",
            "Connection reset by peer (os error 104)",
        ] {
            assert!(hinted("https://a:1", reason.into()).contains("certificate"), "{reason}");
            assert_eq!(hinted("http://a:1", reason.into()), reason);
        }
        assert_eq!(hinted("https://a:1", "Connection refused".into()), "Connection refused");
    }
}
