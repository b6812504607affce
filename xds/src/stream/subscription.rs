//! What one stream has asked for, holds and is owed, for one type of resource.
//!
//! What a client holds is kept as one snapshot of the type that is in force (`base`), shared with all other streams,
//! and the names that differ from it (`held`). A client that is in sync costs its names, and nothing for what it
//! holds; under the wildcard not even those.

mod collections;
mod names;
mod world;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::due::{Due, Permit, Step};
use super::held::{Content, Held, Rejected, Sent};
use super::memory::Remembered;
use super::rejection;
use crate::snapshot::{Failure, Resources};
use crate::{Resource, Revision, TypeUrl, Version};

use self::collections::Collections;
pub(super) use self::names::Opening;

/// Responses that may wait for an answer before the oldest is forgotten. More than one waits only where a client
/// leaves responses unanswered for longer than [`Policy::answer_timeout`](super::Policy) each.
const MAX_IN_FLIGHT: usize = 16;

/// The state of one type on one stream.
#[derive(Debug)]
pub(super) struct Subscription {
    type_url: TypeUrl,
    wildcard: bool,
    /// No name was ever asked for: nothing in particular means everything.
    legacy: bool,
    explicit: BTreeSet<Arc<str>>,
    /// How long the names are together that the client has given.
    name_bytes: usize,
    collections: Collections,
    /// What there is.
    target: Resources,
    /// What the client has, except for what is in `held`. A name that was asked for and is in neither is known to be
    /// absent.
    base: Resources,
    held: BTreeMap<Arc<str>, Held>,
    /// Go out in a response of their own, because the client rejected them together and did not say which of
    /// them is at fault.
    suspects: BTreeSet<Arc<str>>,
    due: Due,
    in_flight: VecDeque<InFlight>,
    /// A first request is answered even with nothing: Envoy waits 15 s for it (measured with 1.40).
    owes_answer: bool,
    /// Nothing was ever sent: there is no last good state to protect.
    fresh: bool,
    /// When times to live were last renewed.
    beat_at: Option<Instant>,
    last_nonce: Option<u64>,
    /// Of the last response that was accepted.
    accepted_version: Option<Version>,
    /// Since when what is in `base` is in force: of what has changed after all of it was for the first time, and of the
    /// rest.
    changed_at: BTreeMap<Arc<str>, Instant>,
    settled_at: Option<Instant>,
}

/// A response that has not been answered.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) nonce: u64,
    pub(super) revision: Revision,
    pub(super) version: Version,
    pub(super) sent_at: Instant,
    reported: bool,
    /// Names and what they were said to be; nothing where the name was taken away.
    names: Names,
}

/// Names and what is said about each.
pub(super) type Names = Vec<(Arc<str>, Option<Resource>)>;

impl InFlight {
    pub(super) fn new(nonce: u64, revision: Revision, version: Version, now: Instant, names: Names) -> Self {
        Self { nonce, revision, version, sent_at: now, reported: false, names }
    }

    fn is_overdue(&self, now: Instant, timeout: Duration) -> bool {
        now >= self.sent_at + timeout
    }
}

impl Subscription {
    /// There is something else of this type. It costs what has changed.
    pub(super) fn retarget(&mut self, target: &Resources) {
        let old = std::mem::replace(&mut self.target, target.clone());
        let mut changed = Vec::new();
        old.for_each_difference(target, |name| changed.push(Arc::clone(name)));
        changed.iter().for_each(|name| self.touch(name));
    }

    /// Works out anew what a name is due.
    fn touch(&mut self, name: &Arc<str>) {
        let step = if self.is_subscribed(name) { self.step(name) } else { Step::Nothing };
        self.due.set(name, step);
    }

    fn step(&self, name: &str) -> Step {
        match (self.state(name), self.wanted(name)) {
            (Some(held), wanted) => held.step(wanted),
            (None, Some(_)) if self.fresh => Step::Answer,
            (None, Some(_)) => Step::Change,
            (None, None) => Step::Nothing,
        }
    }

    fn is_subscribed(&self, name: &str) -> bool {
        self.explicit.contains(name) || self.is_covered(name)
    }

    /// Whether a name is subscribed to by the wildcard or as part of a collection.
    fn is_covered(&self, name: &str) -> bool {
        self.wildcard || self.collections.cover(name)
    }

    /// What the client should have under this name. Under the wildcard an alias is nothing of its own.
    pub(super) fn wanted(&self, name: &str) -> Option<&Resource> {
        self.target.get(name).filter(|found| found.name() == name || self.explicit.contains(name))
    }

    /// Why there is nothing under this name.
    pub(super) fn failure(&self, name: &str) -> Option<&Failure> {
        self.target.failure(name)
    }

    /// What the client has under a name; `None` if it has never heard of it.
    pub(super) fn state(&self, name: &str) -> Option<Cow<'_, Held>> {
        if let Some(held) = self.held.get(name) {
            return Some(Cow::Borrowed(held));
        }
        let explicit = self.explicit.contains(name);
        let covered = |found: &&Resource| explicit || found.name() == name && self.is_covered(name);
        match self.base.get(name).filter(covered) {
            Some(resource) => Some(Cow::Owned(Held::settled(resource))),
            None => explicit.then(|| Cow::Owned(Held::absent())),
        }
    }

    fn held_mut(&mut self, name: &Arc<str>) -> &mut Held {
        if !self.held.contains_key(name) {
            let held = self.state(name).map(Cow::into_owned).unwrap_or_default();
            self.held.insert(Arc::clone(name), held);
        }
        self.held.entry(Arc::clone(name)).or_default()
    }

    /// Works out everything anew.
    fn touch_all(&mut self) {
        self.due = Due::default();
        let mut names: Vec<_> = self.held.keys().cloned().collect();
        self.base.for_each_difference(&self.target, |name| names.push(Arc::clone(name)));
        names.iter().for_each(|name| self.touch(name));
    }

    /// Has `name` sent once more, if the client is subscribed to it.
    pub(super) fn repeat(&mut self, name: &str) {
        if !self.is_subscribed(name) || self.state(name).is_none() {
            return;
        }
        let name = self.shared(name);
        let held = self.held_mut(&name);
        (held.sent, held.rejected) = (Sent::Nothing, None);
        self.touch(&name);
    }

    /// The text, as it is held elsewhere already if it is.
    fn shared(&self, name: &str) -> Arc<str> {
        let known = self.explicit.get(name);
        let named = || self.target.get(name).map(Resource::shared_name).filter(|known| &***known == name);
        known.or_else(named).cloned().unwrap_or_else(|| name.into())
    }

    /// The version the client has said it accepted.
    pub(super) fn accepted(&self, name: &str) -> Option<Version> {
        self.state(name)?.accepted.as_ref().map(Content::version)
    }

    /// The content of a name that the client has accepted last.
    pub(super) fn last_good(&self, name: &str) -> Option<Resource> {
        match &self.state(name)?.accepted {
            Some(Content::Ours(accepted)) => Some(accepted.clone()),
            _ => None,
        }
    }

    pub(super) fn due(&self) -> &Due {
        &self.due
    }

    /// Whether the client still wants anything of this type. Envoy drops responses for a type it has left
    /// without an answer, so nobody waits for that answer.
    pub(super) fn is_live(&self) -> bool {
        self.wildcard || !self.explicit.is_empty() || !self.collections.is_empty()
    }

    pub(super) fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The collections that the client has asked for.
    pub(super) fn collections(&self) -> impl Iterator<Item = &Arc<str>> {
        self.collections.iter()
    }

    /// Those of them in which there is nothing.
    pub(super) fn empty_collections(&self) -> impl Iterator<Item = &Arc<str>> {
        let is_empty =
            |one: &&Arc<str>| !self.target.iter().any(|found| Collections::holds(one, found.name()));
        self.collections.iter().filter(is_empty)
    }

    /// Whether the client has asked for this very name.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.explicit.contains(name)
    }

    /// How many names the client has given.
    pub(super) fn named(&self) -> usize {
        self.explicit.len().max(self.held.len()) + self.collections.iter().len()
    }

    /// How long they are together.
    pub(super) fn name_bytes(&self) -> usize {
        self.name_bytes
    }

    /// The names of the next response: `None` if there is nothing that may be sent.
    pub(super) fn batch(&self, permit: Permit) -> Option<Vec<Arc<str>>> {
        if !self.due.has_permitted(permit) {
            return (self.owes_answer && permit.answers).then(Vec::new);
        }
        let suspect = |name: &&Arc<str>| self.suspects.contains(*name);
        let suspect = (!self.suspects.is_empty()).then(|| self.due.permitted(permit).find(suspect));
        Some(match suspect.flatten() {
            Some(name) => vec![Arc::clone(name)],
            None => self.due.permitted(permit).cloned().collect(),
        })
    }

    /// Whether a response is owed even if there is nothing to say.
    pub(super) fn owes_answer(&self) -> bool {
        self.owes_answer
    }

    /// Records a response that is about to be written.
    pub(super) fn sending(&mut self, response: InFlight) {
        (self.owes_answer, self.fresh, self.last_nonce) = (false, false, Some(response.nonce));
        for (name, resource) in &response.names {
            self.record_sent(name, resource.as_ref(), response.sent_at);
        }
        self.in_flight.push_back(response);
        if self.in_flight.len() > MAX_IN_FLIGHT {
            self.in_flight.pop_front();
        }
    }

    /// Records what a client is told under a name.
    pub(super) fn record_sent(&mut self, name: &Arc<str>, resource: Option<&Resource>, now: Instant) {
        let held = self.held_mut(name);
        held.sent = resource.map_or(Sent::Absent, |sent| Sent::Content(Content::Ours(sent.clone())));
        (held.rejected, held.since) = (None, Some(now));
        if resource.is_none() {
            held.accepted = None;
        }
        if resource.is_some_and(|sent| sent.ttl().is_some()) {
            self.beat_at.get_or_insert(now);
        }
        self.touch(name);
    }

    /// Holds a content back, as if the client had rejected it.
    pub(super) fn withhold(&mut self, name: &Arc<str>, version: Version, reason: Arc<str>, now: Instant) {
        self.held_mut(name).rejected = Some(Rejected { version, reason, at: now });
        self.touch(name);
    }

    /// Takes the responses that an answer to `nonce` settles, in the order they were sent: those before it too,
    /// because a client answers in order. Empty if the nonce is stale.
    pub(super) fn settle(&mut self, nonce: u64) -> Vec<InFlight> {
        let count = self.in_flight.iter().position(|sent| sent.nonce == nonce).map_or(0, |at| at + 1);
        self.in_flight.drain(..count).collect()
    }

    /// Whether `nonce` is of the newest response.
    pub(super) fn is_newest(&self, nonce: u64) -> bool {
        self.last_nonce == Some(nonce)
    }

    /// The client has accepted `response`.
    pub(super) fn accept(&mut self, response: &InFlight, now: Instant) {
        for (name, resource) in &response.names {
            self.suspects.remove(name);
            if let Some(held) = self.held.get_mut(name) {
                held.accepted = resource.clone().map(Content::Ours);
                (held.doubtful, held.since) = (false, Some(now));
            }
        }
        self.accepted_version = Some(response.version);
        if self.in_flight.is_empty() && self.due.is_empty() {
            self.rest(now);
        }
    }

    /// Everything is as it should be, or parked: what is settled is no longer an exception.
    fn rest(&mut self, now: Instant) {
        let first = self.settled_at.is_none();
        self.settled_at.get_or_insert(now);
        self.base = self.target.clone();
        let (target, explicit) = (&self.target, &self.explicit);
        let wanted =
            |name: &str| target.get(name).filter(|one| one.name() == name || explicit.contains(name));
        let changed_at = &mut self.changed_at;
        self.held.retain(|name, held| {
            let settled = held.is_settled(wanted(name));
            match held.since.filter(|_| settled && !first) {
                Some(since) => drop(changed_at.insert(Arc::clone(name), since)),
                None if settled => drop(changed_at.remove(name)),
                None => {}
            }
            !settled
        });
    }

    /// Since when the client has what it has of a name, if that is settled.
    pub(super) fn settled_since(&self, name: &str) -> Option<Instant> {
        self.changed_at.get(name).copied().or(self.settled_at)
    }

    /// The client has rejected `response`; `message` is split over the names that were in it. Returns the guilty.
    ///
    /// They are parked. The innocent are sent again without them: whether a client has applied them
    /// differs by type, and none remembers their versions.
    pub(super) fn reject(
        &mut self,
        response: &InFlight,
        message: &str,
        now: Instant,
    ) -> Vec<(Arc<str>, String)> {
        let offered = response.names.iter().filter_map(|(name, resource)| Some((name, resource.as_ref()?)));
        let names: Vec<_> = offered.clone().map(|(name, _)| Arc::clone(name)).collect();
        let guilty = rejection::blame(message, &names);
        let reasons: BTreeMap<_, _> = guilty.iter().map(|(name, reason)| (name, reason.as_str())).collect();
        for (name, resource) in offered {
            self.record_rejected(name, resource.version(), reasons.get(name).copied(), now);
            if guilty.is_empty() {
                self.suspects.insert(Arc::clone(name));
            }
        }
        for (name, _) in response.names.iter().filter(|(_, resource)| resource.is_none()) {
            self.held_mut(name).doubtful = true;
        }
        guilty
    }

    fn record_rejected(&mut self, name: &Arc<str>, version: Version, reason: Option<&str>, now: Instant) {
        let sent = |held: &Held| matches!(&held.sent, Sent::Content(sent) if sent.version() == version);
        let Some(held) = self.held.get_mut(name).filter(|held| sent(held)) else { return };
        held.since = Some(now);
        match reason {
            Some(reason) => held.rejected = Some(Rejected { version, reason: reason.into(), at: now }),
            None => {
                held.doubtful = true;
                // What was held before may still be in use, so that it must not go as if it had never been there.
                held.sent = if held.accepted.is_some() { Sent::Unknown } else { Sent::Nothing };
            }
        }
        self.touch(name);
    }

    /// Whether a response may be sent: at most one is unanswered, unless the client lets it wait too long.
    pub(super) fn is_free(&self, now: Instant, timeout: Duration) -> bool {
        !self.is_in_flight(now, timeout)
    }

    /// Whether a response younger than `timeout` is unanswered, and an answer to it can be expected.
    pub(super) fn is_in_flight(&self, now: Instant, timeout: Duration) -> bool {
        self.is_live() && self.in_flight.iter().any(|sent| !sent.is_overdue(now, timeout))
    }

    /// Whether the client has, and has accepted, everything it should.
    pub(super) fn is_in_sync(&self) -> bool {
        let settled = self.in_flight.is_empty() || !self.is_live();
        settled && !self.owes_answer && self.due.is_empty() && self.due.parked() == 0
    }

    /// The revisions of responses that have now waited for `timeout`; each is reported once.
    pub(super) fn overdue(&mut self, now: Instant, timeout: Duration) -> Vec<Revision> {
        let waiting =
            self.in_flight.iter_mut().filter(|sent| !sent.reported && sent.is_overdue(now, timeout));
        waiting.map(|sent| (sent.reported = true, sent.revision).1).collect()
    }

    /// When the responses in flight were sent, and whether each has been reported as overdue.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (Instant, bool)> {
        self.in_flight.iter().map(|sent| (sent.sent_at, sent.reported))
    }

    /// The newest response without an answer.
    pub(super) fn unanswered(&self) -> Option<&InFlight> {
        self.in_flight.back()
    }

    /// When times to live have to be renewed: three times within the shortest.
    pub(super) fn beat_due(&self) -> Option<Instant> {
        let subscribed = |resource: &Resource| self.is_subscribed(resource.name());
        let shortest = self.target.timed().filter(|(one, _)| subscribed(one)).map(|(_, ttl)| ttl).min()?;
        Some(self.beat_at? + shortest / 3)
    }

    /// What is to be renewed: what the client has, and should have.
    pub(super) fn beat(&mut self, now: Instant) -> Vec<Resource> {
        self.beat_at = Some(now);
        let held = |resource: &&Resource| {
            let state = self.state(resource.name()).filter(|_| self.is_subscribed(resource.name()));
            state.is_some_and(|held| held.is_settled(Some(resource)))
        };
        self.target.timed().map(|(resource, _)| resource).filter(held).cloned().collect()
    }

    /// Every name the client has, or should have.
    pub(super) fn all_names(&self) -> BTreeSet<Arc<str>> {
        let shared = |resource: &Resource| Arc::clone(resource.shared_name());
        let wild = self.wildcard || !self.collections.is_empty();
        let wild = [&self.base, &self.target].into_iter().filter(|_| wild);
        let wild = wild.flat_map(Resources::iter).filter(|one| self.is_covered(one.name())).map(shared);
        self.held.keys().chain(&self.explicit).cloned().chain(wild).collect()
    }

    /// What of this the client will not say when it comes back.
    pub(super) fn recollect(&self, whole_world: bool) -> Remembered {
        let mut held = self.held.clone();
        for (name, _) in self.in_flight.iter().flat_map(|sent| &sent.names) {
            held.entry(Arc::clone(name)).or_default().doubtful = true;
        }
        held.retain(|_, held| whole_world || held.doubtful || held.rejected.is_some());
        let versions =
            self.accepted_version.into_iter().chain(self.in_flight.iter().map(|sent| sent.version));
        let in_force = whole_world.then(|| (versions.collect(), self.base.clone()));
        Remembered { held, in_force }
    }
}
