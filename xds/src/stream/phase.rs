//! Make before break: what may be sent now, decided from what the client holds.

use std::time::Instant;

use super::Stream;
use super::due::Permit;
use super::subscription::Subscription;
use crate::TypeUrl;

impl Stream {
    /// Which part of what is due for a type its phase lets through.
    pub(super) fn permit(&self, type_url: &TypeUrl, now: Instant) -> Permit {
        if type_url.is_supply() {
            return Permit { answers: true, changes: true, removals: self.may_retire(type_url, now) };
        }
        let ready = !self.is_supply_underway(now);
        let safe = ready && !self.is_rejected(TypeUrl::is_supply) && !self.awaits_clusters(now);
        Permit { answers: ready, changes: safe, removals: safe }
    }

    /// Whether a cluster is still warming, or has not been given what it warms on.
    fn is_supply_underway(&self, now: Instant) -> bool {
        let owed =
            |subscription: &Subscription| subscription.due().answers() + subscription.due().changes() > 0;
        let clusters = self.subscriptions.get(&TypeUrl::CLUSTER);
        clusters.is_some_and(|clusters| clusters.is_in_flight(now, self.policy.warm_timeout))
            || self.of_phase(TypeUrl::is_supply).any(owed)
    }

    /// Whether the client has rejected something of this phase that has not been replaced since.
    fn is_rejected(&self, phase: impl Fn(&TypeUrl) -> bool) -> bool {
        self.of_phase(phase).any(|subscription| subscription.due().parked() > 0)
    }

    /// Whether a client that has come back, and holds routes of old, has yet to ask for its clusters.
    fn awaits_clusters(&self, now: Instant) -> bool {
        let supplied = self.target.as_ref().is_some_and(|target| target.has_any(&TypeUrl::CLUSTER));
        supplied
            && self.service.type_url.is_none()
            && !self.subscriptions.contains_key(&TypeUrl::CLUSTER)
            && self.is_resuming(now)
    }

    fn is_resuming(&self, now: Instant) -> bool {
        self.resumed && self.opened_at.is_some_and(|at| now < at + self.policy.resume_wait)
    }

    /// Whether resources that are gone may go. Endpoints and secrets follow the clusters that used them: Envoy
    /// then drops its subscriptions by itself.
    fn may_retire(&self, type_url: &TypeUrl, now: Instant) -> bool {
        let rested = self.idle_since.is_some_and(|since| now >= since + self.policy.removal_grace);
        let clusters = self.subscriptions.get(&TypeUrl::CLUSTER).filter(|_| *type_url != TypeUrl::CLUSTER);
        let leading = clusters.is_some_and(|clusters| {
            clusters.due().removals() > 0 || clusters.is_in_flight(now, self.policy.warm_timeout)
        });
        rested && !leading
    }

    /// Keeps track of since when listeners and routes are settled.
    pub(super) fn note_idle(&mut self, now: Instant) {
        self.idle_since = if self.is_settled(now) { self.idle_since.or(Some(now)) } else { None };
    }

    fn is_settled(&self, now: Instant) -> bool {
        let traffic = |type_url: &TypeUrl| !type_url.is_supply();
        let busy = |subscription: &Subscription| {
            !subscription.due().is_empty() || subscription.is_in_flight(now, self.policy.warm_timeout)
        };
        !self.is_resuming(now)
            && !self.is_rejected(|_| true)
            && !self.is_supply_underway(now)
            && !self.of_phase(traffic).any(busy)
    }

    fn of_phase(&self, phase: impl Fn(&TypeUrl) -> bool) -> impl Iterator<Item = &Subscription> {
        let of_phase = self.subscriptions.iter().filter(move |(type_url, _)| phase(type_url));
        of_phase.map(|(_, subscription)| subscription)
    }
}
