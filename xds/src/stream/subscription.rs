//! What one stream has asked for, holds and is owed, for one type of resource.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use crate::snapshot::Resources;
use crate::{Revision, TypeUrl, Version};

/// Responses that may wait for an answer before the oldest is forgotten. More than one waits only where a client
/// leaves responses unanswered for longer than [`Policy::answer_timeout`](super::Policy) each.
const MAX_IN_FLIGHT: usize = 16;

/// The state of one type on one stream.
#[derive(Debug)]
pub(super) struct Subscription {
    wildcard: bool,
    names: BTreeMap<Arc<str>, Held>,
    in_flight: VecDeque<InFlight>,
    /// A first request is answered even with nothing: Envoy waits 15 s for it (measured with 1.40).
    owes_answer: bool,
    /// Nothing was ever sent: there is no last good state to protect.
    fresh: bool,
    /// What the client lacks; `None` is the dirty mark.
    due: Option<Due>,
}

/// What a client has of one name.
#[derive(Debug, Default)]
struct Held {
    /// Subscribed to by name, not only through the wildcard.
    explicit: bool,
    sent: Sent,
    accepted: Option<Version>,
    rejected: Option<Version>,
    /// Goes out in a response of its own, because the client rejected it together with others and did not say
    /// which of them is at fault.
    alone: bool,
}

/// What was last sent under a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sent {
    /// Nothing yet, or the client asks again.
    #[default]
    Nothing,
    /// That it does not exist.
    Absent,
    /// Something we cannot tell: from another server, or out of a response rejected for the sake of another name.
    Unknown,
    /// This content.
    Version(Version),
}

/// A response that has not been answered.
#[derive(Debug)]
pub(super) struct InFlight {
    nonce: u64,
    pub(super) revision: Revision,
    sent_at: Instant,
    reported: bool,
    /// Names and versions; no version where the name was taken away.
    names: Vec<(Arc<str>, Option<Version>)>,
}

/// The difference between what a client holds and what it should.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Asked for by name and not answered yet, or all of a subscription that never got anything.
    pub(super) answers: Vec<Arc<str>>,
    /// Held in another version, or new under the wildcard.
    pub(super) changes: Vec<Arc<str>>,
    /// Held and no longer there.
    pub(super) removals: Vec<Arc<str>>,
    /// Held back because the client has rejected this very content.
    pub(super) parked: usize,
}

/// Which part of what is due may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Permit {
    pub(super) answers: bool,
    pub(super) changes: bool,
    pub(super) removals: bool,
}

impl Due {
    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.changes.is_empty() && self.removals.is_empty()
    }

    fn permitted(&self, permit: Permit) -> impl Iterator<Item = &Arc<str>> {
        let list = |allowed: bool, names: &'_ [Arc<str>]| if allowed { names.len() } else { 0 };
        let answers = self.answers.iter().take(list(permit.answers, &self.answers));
        let changes = self.changes.iter().take(list(permit.changes, &self.changes));
        let removals = self.removals.iter().take(list(permit.removals, &self.removals));
        answers.chain(changes).chain(removals)
    }

    fn add(&mut self, name: &Arc<str>, step: Step) {
        match step {
            Step::Nothing => {}
            Step::Answer => self.answers.push(Arc::clone(name)),
            Step::Change => self.changes.push(Arc::clone(name)),
            Step::Remove => self.removals.push(Arc::clone(name)),
            Step::Park => self.parked += 1,
        }
    }
}

/// What a name is due.
enum Step {
    Nothing,
    Answer,
    Change,
    Remove,
    Park,
}

impl Held {
    fn explicit() -> Self {
        Self { explicit: true, ..Self::default() }
    }

    fn from_earlier_stream(version: &str) -> Self {
        let accepted = Version::parse(version);
        Self { sent: accepted.map_or(Sent::Unknown, Sent::Version), accepted, ..Self::default() }
    }

    fn step(&self, wanted: Option<Version>) -> Step {
        match (wanted, self.sent) {
            (Some(wanted), Sent::Version(sent)) if wanted == sent => {
                if self.rejected == Some(wanted) {
                    Step::Park
                } else {
                    Step::Nothing
                }
            }
            (Some(_), Sent::Nothing | Sent::Absent) => Step::Answer,
            (Some(_), Sent::Unknown | Sent::Version(_)) => Step::Change,
            (None, Sent::Absent) => Step::Nothing,
            (None, Sent::Nothing) => Step::Answer,
            (None, Sent::Unknown | Sent::Version(_)) => Step::Remove,
        }
    }
}

impl InFlight {
    fn is_overdue(&self, now: Instant, timeout: Duration) -> bool {
        now >= self.sent_at + timeout
    }
}

impl Subscription {
    /// Opens the subscription with the first request for its type on this stream. What the client says it holds
    /// is sent again unless it is `believed`.
    pub(super) fn open(type_url: &TypeUrl, request: &DeltaDiscoveryRequest, believed: bool) -> Self {
        let held = request.initial_resource_versions.iter().filter(|_| believed);
        let names: BTreeMap<_, _> =
            held.map(|(name, version)| (name.as_str().into(), Held::from_earlier_stream(version))).collect();
        let mut opened = Self {
            wildcard: request.resource_names_subscribe.is_empty() && type_url.has_legacy_wildcard(),
            owes_answer: names.is_empty(),
            fresh: names.is_empty(),
            names,
            in_flight: VecDeque::new(),
            due: None,
        };
        for name in &request.resource_names_subscribe {
            opened.subscribe_first(name);
        }
        opened.forget_unsubscribed();
        opened
    }

    /// Applies the subscription changes of a later request.
    pub(super) fn change(&mut self, request: &DeltaDiscoveryRequest) {
        for name in &request.resource_names_unsubscribe {
            self.unsubscribe(name);
        }
        for name in &request.resource_names_subscribe {
            self.subscribe_again(name);
        }
        if !self.is_live() {
            self.in_flight.clear();
            // Envoy drops a response of a type it wants nothing of, and never answers it.
            self.owes_answer = false;
        }
    }

    /// A client that comes back names what it has: only what differs is sent.
    fn subscribe_first(&mut self, name: &str) {
        match name {
            "*" => self.wildcard = true,
            name => self.names.entry(name.into()).or_default().explicit = true,
        }
    }

    /// Whatever is asked for on a running stream is sent, changed or not: the client has dropped it meanwhile.
    fn subscribe_again(&mut self, name: &str) {
        self.due = None;
        if name == "*" {
            self.wildcard = true;
            self.owes_answer = true;
        } else {
            let accepted = self.names.get(name).and_then(|held| held.accepted);
            self.names.insert(name.into(), Held { accepted, ..Held::explicit() });
        }
    }

    fn unsubscribe(&mut self, name: &str) {
        self.due = None;
        if name == "*" {
            self.wildcard = false;
            self.forget_unsubscribed();
        } else if self.wildcard {
            // The client has dropped the name, and only the server knows whether the wildcard still covers it.
            if let Some(held) = self.names.get_mut(name).filter(|held| held.explicit) {
                (held.explicit, held.sent) = (false, Sent::Nothing);
            }
        } else {
            self.names.remove(name);
        }
    }

    fn forget_unsubscribed(&mut self) {
        if !self.wildcard {
            self.names.retain(|_, held| held.explicit);
        }
    }

    /// Whether the client still wants anything of this type. Envoy drops responses for a type it has left
    /// without an answer, so nobody waits for that answer.
    pub(super) fn is_live(&self) -> bool {
        self.wildcard || !self.names.is_empty()
    }

    /// The content of this type is not what it was.
    pub(super) fn mark_dirty(&mut self) {
        self.due = None;
    }

    /// Has `name` sent once more, if the client is subscribed to it.
    pub(super) fn repeat(&mut self, name: &str) {
        if let Some(held) = self.names.get_mut(name) {
            held.sent = Sent::Nothing;
            self.due = None;
        }
    }

    /// The version the client has said it accepted.
    pub(super) fn accepted(&self, name: &str) -> Option<Version> {
        self.names.get(name)?.accepted
    }

    /// Clears the dirty mark.
    pub(super) fn refresh(&mut self, target: &Resources) {
        if self.due.is_none() {
            self.due = Some(self.compare(target));
        }
    }

    /// What is due. Empty before the first [`refresh`](Self::refresh).
    pub(super) fn due(&self) -> &Due {
        const NOTHING: &Due =
            &Due { answers: Vec::new(), changes: Vec::new(), removals: Vec::new(), parked: 0 };
        self.due.as_ref().unwrap_or(NOTHING)
    }

    /// One pass over two sorted lists: what is held, and what there is.
    fn compare(&self, target: &Resources) -> Due {
        let mut due = Due::default();
        let mut held = self.names.iter().peekable();
        let mut there = target.iter().peekable();
        loop {
            let order = match (held.peek(), there.peek()) {
                (None, None) => return due,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((name, _)), Some(resource)) => (***name).cmp(resource.name()),
            };
            let wanted = if order.is_ge() { there.next() } else { None };
            let known = if order.is_le() { held.next() } else { None };
            match (known, wanted) {
                (Some((name, held)), wanted) => {
                    due.add(name, held.step(wanted.map(crate::Resource::version)))
                }
                (None, Some(new)) if self.wildcard && self.fresh => due.add(new.shared_name(), Step::Answer),
                (None, Some(new)) if self.wildcard => due.add(new.shared_name(), Step::Change),
                (None, _) => {}
            }
        }
    }

    /// The names of the next response: `None` if there is nothing that may be sent.
    pub(super) fn batch(&self, permit: Permit) -> Option<Vec<Arc<str>>> {
        let due = self.due();
        let alone = |name: &&Arc<str>| self.names.get(*name).is_some_and(|held| held.alone);
        let mut names: Vec<_> = match due.permitted(permit).find(alone) {
            Some(name) => vec![Arc::clone(name)],
            None => due.permitted(permit).cloned().collect(),
        };
        names.sort_unstable();
        let only_an_answer = self.owes_answer && permit.answers && due.answers.is_empty();
        (!names.is_empty() || only_an_answer).then_some(names)
    }

    /// Records a response that is about to be written.
    pub(super) fn sending(
        &mut self,
        nonce: u64,
        revision: Revision,
        now: Instant,
        names: Vec<(Arc<str>, Option<Version>)>,
    ) {
        for (name, version) in &names {
            self.record_sent(name, *version);
        }
        (self.owes_answer, self.fresh, self.due) = (false, false, None);
        self.in_flight.push_back(InFlight { nonce, revision, sent_at: now, reported: false, names });
        if self.in_flight.len() > MAX_IN_FLIGHT {
            self.in_flight.pop_front();
        }
    }

    fn record_sent(&mut self, name: &Arc<str>, version: Option<Version>) {
        let Some(version) = version else { return self.record_absent(name) };
        let held = self.names.entry(Arc::clone(name)).or_default();
        (held.sent, held.rejected) = (Sent::Version(version), None);
    }

    fn record_absent(&mut self, name: &Arc<str>) {
        match self.names.get_mut(name) {
            Some(held) if held.explicit => *held = Held { sent: Sent::Absent, ..Held::explicit() },
            _ => drop(self.names.remove(name)),
        }
    }

    /// Takes the responses that an answer to `nonce` settles, in the order they were sent: those before it too,
    /// because a client answers in order. Empty if the nonce is stale.
    pub(super) fn settle(&mut self, nonce: u64) -> Vec<InFlight> {
        let count = self.in_flight.iter().position(|sent| sent.nonce == nonce).map_or(0, |at| at + 1);
        self.in_flight.drain(..count).collect()
    }

    /// The client has accepted `response`.
    pub(super) fn accept(&mut self, response: &InFlight) {
        for (name, version) in &response.names {
            if let Some(held) = self.names.get_mut(name) {
                (held.accepted, held.alone) = (*version, false);
            }
        }
        self.due = None;
    }

    /// The client has rejected `response`. `blame` splits its message over the names that were offered.
    ///
    /// The guilty are parked. The innocent are sent again without them: whether a client has applied them
    /// differs by type, and none remembers their versions.
    pub(super) fn reject(
        &mut self,
        response: &InFlight,
        blame: impl FnOnce(&[Arc<str>]) -> Vec<(Arc<str>, String)>,
    ) -> Vec<(Arc<str>, String)> {
        let offered =
            response.names.iter().filter_map(|(name, version)| Some((Arc::clone(name), (*version)?)));
        let (names, versions): (Vec<_>, Vec<_>) = offered.unzip();
        let guilty = blame(&names);
        for (name, version) in names.iter().zip(versions) {
            let is_guilty = guilty.iter().any(|(guilty, _)| guilty == name);
            self.record_rejected(name, version, is_guilty, guilty.is_empty());
        }
        self.due = None;
        guilty
    }

    fn record_rejected(&mut self, name: &Arc<str>, version: Version, guilty: bool, alone: bool) {
        let current = self.names.get_mut(name).filter(|held| held.sent == Sent::Version(version));
        let Some(held) = current else { return };
        held.alone = alone;
        match guilty {
            true => held.rejected = Some(version),
            // What was held before may still be in use, so that it must not go as if it had never been there.
            false if held.accepted.is_some() => held.sent = Sent::Unknown,
            false => held.sent = Sent::Nothing,
        }
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
        settled && !self.owes_answer && self.due.is_some() && self.due().is_empty() && self.due().parked == 0
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
}
