//! What a client asks for: the wildcard, in both its forms, and single names.
//!
//! ```text
//!             first request asks for nothing in particular          a name, or "*"
//!   legacy ─────────────────────────────────────────────▶ all  ──────────────────────▶ explicit
//!      └──────────────────────────────── a name, or "*" ─────────────────────────────────▲
//! ```
//!
//! In the explicit state nothing is nothing, and `*` is subscribed to and left like a name. In the incremental variant
//! the way from the legacy wildcard to explicit names keeps the wildcard; in the other the new set replaces it
//! ([how the client specifies what resources to return][rules]).
//!
//! [rules]: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#how-the-client-specifies-what-resources-to-return

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::{Collections, Subscription};
use crate::snapshot::Resources;
use crate::stream::due::Due;
use crate::stream::held::{Held, Sent};
use crate::stream::memory::Remembered;
use crate::stream::request::Wants;
use crate::{TypeUrl, Version};

/// What is known when a client asks for a type for the first time on a stream.
#[derive(Debug)]
pub(in crate::stream) struct Opening<'a> {
    /// What there is.
    pub(in crate::stream) target: &'a Resources,
    /// What the client says it holds may be relied on.
    pub(in crate::stream) believed: bool,
    /// What an earlier stream knew.
    pub(in crate::stream) remembered: Option<&'a Remembered>,
    /// The client has shown that it is the one that the earlier stream was of.
    pub(in crate::stream) resumed: bool,
}

impl Subscription {
    /// Opens the subscription with the first request for its type on this stream.
    pub(in crate::stream) fn open(type_url: TypeUrl, wants: &Wants, opening: &Opening<'_>) -> Self {
        let name_bytes = type_url.as_str().len();
        let mut opened = Self {
            type_url,
            wildcard: false,
            legacy: true,
            explicit: BTreeSet::new(),
            name_bytes,
            collections: Collections::default(),
            target: opening.target.clone(),
            base: Resources::default(),
            held: BTreeMap::new(),
            suspects: BTreeSet::new(),
            due: Due::default(),
            in_flight: VecDeque::new(),
            owes_answer: false,
            fresh: true,
            beat_at: None,
            last_nonce: None,
            accepted_version: None,
            changed_at: BTreeMap::new(),
            settled_at: None,
        };
        opened.change(wants);
        match wants {
            Wants::Change { holds, .. } if !holds.is_empty() || opening.remembered.is_some() => {
                opened.resume(holds, opening);
            }
            Wants::All { version, .. } if !version.is_empty() => opened.resume_at(version, opening),
            Wants::Change { .. } | Wants::All { .. } => opened.owes_answer = true,
        }
        opened.forget_the_rest();
        let held = opened.held.keys().filter(|name| !opened.explicit.contains(*name));
        opened.name_bytes += held.map(|name| name.len()).sum::<usize>();
        opened.touch_all();
        opened
    }

    /// Applies the subscription changes of a request.
    pub(in crate::stream) fn change(&mut self, wants: &Wants) {
        match wants {
            Wants::Change { subscribe, unsubscribe, .. } => self.change_by(subscribe, unsubscribe),
            Wants::All { names, .. } => self.change_to(names),
        }
        if !self.is_live() {
            self.in_flight.clear();
            // Envoy drops a response of a type it wants nothing of, and never answers it.
            self.owes_answer = false;
        }
    }

    /// An incremental client that comes back names what it has: only what differs is sent.
    fn resume(&mut self, holds: &HashMap<String, String>, opening: &Opening<'_>) {
        (self.owes_answer, self.fresh) = (holds.is_empty(), holds.is_empty());
        for (name, version) in holds {
            let (name, mut held) = (self.shared(name), Held::from_earlier_stream(version));
            if !opening.believed {
                held.sent = if self.explicit.contains(&name) { Sent::Nothing } else { Sent::Unknown };
            }
            self.held.insert(name, held);
        }
        for (name, known) in opening.remembered.into_iter().flat_map(|remembered| &remembered.held) {
            self.recall(name, known, opening.resumed);
        }
    }

    /// What the client says about a name, corrected by what an earlier stream knew.
    ///
    /// That it may have a resource is believed of any client: the removal of what it does not have does no harm. That
    /// it would reject one is not believed of a client that holds nothing: it may be another process.
    fn recall(&mut self, name: &Arc<str>, known: &Held, resumed: bool) {
        if known.doubtful {
            let asked = self.explicit.contains(name);
            let held = self.held.entry(Arc::clone(name)).or_default();
            held.doubtful = true;
            // What is asked for is answered at once, whatever the client has of it.
            if !asked || held.sent != Sent::Nothing {
                held.sent = Sent::Unknown;
            }
        }
        if resumed && known.rejected.is_some() {
            self.held.entry(Arc::clone(name)).or_default().rejected.clone_from(&known.rejected);
        }
    }

    /// A client of the other variant that comes back names a version, which stands for names and contents only where
    /// it has asked for everything. Where it is not known what it stands for, all is sent.
    fn resume_at(&mut self, version: &str, opening: &Opening<'_>) {
        self.fresh = false;
        let remembered = opening.remembered;
        let known = remembered.and_then(|remembered| remembered.in_force_at(version));
        let current = || opening.target.version().to_string() == version;
        let in_force = known.or_else(|| (self.wildcard && current()).then_some(opening.target));
        self.accepted_version = in_force.and_then(|_| Version::parse(version));
        match in_force {
            Some(in_force) if self.wildcard => self.base = in_force.clone(),
            in_force => {
                self.owes_answer = true;
                let accepted = |name: &str| in_force.and_then(|in_force| in_force.get(name));
                let names = self.explicit.iter().cloned();
                self.held.extend(names.map(|name| (Arc::clone(&name), Held::unknown(accepted(&name)))));
            }
        }
        for (name, known) in remembered.into_iter().flat_map(|remembered| &remembered.held) {
            let sent = if known.doubtful { Sent::Unknown } else { known.sent.clone() };
            self.held.insert(Arc::clone(name), Held { sent, ..known.clone() });
        }
        // A cluster may warm on them, and this variant has no removal that would end it.
        if known.is_some() && self.type_url == TypeUrl::ENDPOINT {
            self.ask_again();
        }
    }

    fn change_by(&mut self, subscribe: &[String], unsubscribe: &[String]) {
        if self.legacy && subscribe.is_empty() && unsubscribe.is_empty() && !self.type_url.is_named() {
            self.wildcard = true;
        }
        self.legacy &= subscribe.is_empty() && !unsubscribe.iter().any(|name| name == "*");
        unsubscribe.iter().for_each(|name| self.unsubscribe(name));
        subscribe.iter().for_each(|name| self.subscribe(name));
    }

    fn change_to(&mut self, names: &[String]) {
        self.legacy &= names.is_empty();
        if self.legacy {
            self.wildcard = !self.type_url.is_named();
            return;
        }
        let all = names.iter().any(|name| name == "*");
        if self.wildcard && !all {
            self.leave_wildcard();
        } else if all && !self.wildcard {
            self.subscribe("*");
        }
        let names: BTreeSet<&str> = names.iter().map(String::as_str).filter(|name| *name != "*").collect();
        let left = self.collections.iter().filter(|one| !names.contains(&***one)).cloned();
        left.collect::<Vec<_>>().iter().for_each(|one| self.leave_collection(one));
        let gone = self.explicit.iter().filter(|name| !names.contains(&***name)).cloned();
        gone.collect::<Vec<_>>().iter().for_each(|name| self.drop_name(name));
        let known = |name: &str| self.explicit.contains(name) || self.collections.contains(name);
        let new: Vec<_> = names.into_iter().filter(|name| !known(name)).collect();
        new.into_iter().for_each(|name| self.subscribe(name));
    }

    /// Whatever is asked for on a running stream is sent, changed or not: the client has dropped it meanwhile.
    fn subscribe(&mut self, name: &str) {
        if name == "*" {
            return self.subscribe_to_all();
        }
        if Collections::is_one(name) {
            return self.subscribe_to_collection(name);
        }
        let name = self.shared(name);
        let accepted = self.state(&name).and_then(|held| held.accepted.clone());
        self.name_explicitly(&name);
        self.held.insert(Arc::clone(&name), Held { accepted, ..Held::default() });
        self.touch(&name);
    }

    fn subscribe_to_all(&mut self) {
        self.unfold();
        self.wildcard = true;
        self.say_again(|_| true);
    }

    /// It is answered even if it is empty.
    fn subscribe_to_collection(&mut self, name: &str) {
        self.unfold();
        self.collections.insert(name);
        let mut new = Collections::default();
        new.insert(name);
        self.say_again(|name| new.cover(name));
    }

    /// What is not asked for by name, and is chosen, is due again whatever the client holds.
    fn say_again(&mut self, chosen: impl Fn(&str) -> bool) {
        let explicit = &self.explicit;
        let again = |name: &Arc<str>| !explicit.contains(name) && chosen(name);
        for (_, held) in self.held.iter_mut().filter(|(name, _)| again(name)) {
            (held.sent, held.rejected) = (Sent::Nothing, None);
        }
        self.owes_answer = true;
        self.touch_all();
    }

    fn unsubscribe(&mut self, name: &str) {
        match name {
            "*" => self.leave_wildcard(),
            name if self.collections.contains(name) => self.leave_collection(name),
            name if self.is_covered(name) => self.unname(name),
            name => self.drop_name(&self.shared(name)),
        }
    }

    /// The client has dropped a name, and only the server knows whether the wildcard still covers it.
    fn unname(&mut self, name: &str) {
        let name = self.shared(name);
        if self.explicit.contains(&name) {
            self.held_mut(&name).sent = Sent::Nothing;
            self.unname_explicitly(&name);
            self.touch(&name);
        }
    }

    fn name_explicitly(&mut self, name: &Arc<str>) {
        if self.explicit.insert(Arc::clone(name)) {
            self.name_bytes += name.len();
        }
    }

    fn unname_explicitly(&mut self, name: &Arc<str>) {
        if self.explicit.remove(name) {
            self.name_bytes -= name.len();
        }
    }

    /// The client no longer asks for a name. What it holds of it under the wildcard it keeps.
    fn drop_name(&mut self, name: &Arc<str>) {
        self.unname_explicitly(name);
        self.changed_at.remove(name);
        if !self.is_covered(name) {
            self.held.remove(name);
            self.suspects.remove(name);
        }
        self.touch(name);
    }

    fn leave_wildcard(&mut self) {
        self.unfold();
        self.wildcard = false;
        self.forget_the_rest();
        self.touch_all();
    }

    fn leave_collection(&mut self, name: &str) {
        self.unfold();
        self.collections.remove(name);
        self.forget_the_rest();
        self.touch_all();
    }

    /// Nothing more is known of what is no longer subscribed to.
    fn forget_the_rest(&mut self) {
        let Self { wildcard, explicit, collections, .. } = self;
        let stays = |name: &Arc<str>| *wildcard || explicit.contains(name) || collections.cover(name);
        self.held.retain(|name, _| stays(name));
        self.suspects.retain(|name| stays(name));
        self.changed_at.retain(|name, _| stays(name));
    }

    /// Notes every name on its own, so that what is held no longer depends on what is subscribed to.
    fn unfold(&mut self) {
        for name in self.all_names() {
            if let Some(held) = self.state(&name).map(std::borrow::Cow::into_owned) {
                self.held.insert(name, held);
            }
        }
        self.base = Resources::default();
    }

    /// The client repeats its last request, which a state-of-the-world Envoy does when a cluster warms that it knows
    /// the endpoints of.
    pub(in crate::stream) fn ask_again(&mut self) {
        for name in self.explicit.clone() {
            self.held_mut(&name).sent = Sent::Nothing;
            self.touch(&name);
        }
    }

    /// Whether a request asks for exactly what is subscribed to by name.
    pub(in crate::stream) fn is_named_so(&self, wants: &Wants) -> bool {
        let Wants::All { names, .. } = wants else { return false };
        let same = || names.iter().all(|name| self.explicit.contains(name.as_str()));
        !self.wildcard
            && self.collections.is_empty()
            && !names.is_empty()
            && names.len() == self.explicit.len()
            && same()
    }
}
