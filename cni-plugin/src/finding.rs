//! One line of a comparison: what the plan asks for, and what stands. CHECK tells of those that differ; `explain` shows
//! all of them.

use std::fmt;

/// Something that is planned, or that stands beside what is planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Where it is: `pod eth0`, `node cni0`, `nft inet weft`.
    pub(crate) place: String,
    /// What kind of thing, in the kernel's word.
    pub(crate) what: &'static str,
    /// What is planned; what stands, where nothing is.
    pub(crate) planned: String,
    pub(crate) state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    AsPlanned,
    Missing,
    /// This stands in its place.
    Different(String),
    /// It stands, and bears the attachment's mark, but is not in the plan.
    Extra,
    /// It stands beside the plan, and may be anybody's: later plugins of the list put things there.
    Beside,
}

impl Finding {
    /// Whether the attachment is not as planned.
    pub(crate) const fn differs(&self) -> bool {
        !matches!(self.state, State::AsPlanned | State::Beside)
    }

    fn is_missing_link(&self) -> bool {
        self.state == State::Missing && self.what == "link"
    }
}

/// `pod eth0: address 10.244.0.2/24 is missing`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, what, planned, state } = self;
        write!(f, "{place}: {what} ")?;
        match state {
            State::AsPlanned => write!(f, "{planned} stands"),
            State::Missing => write!(f, "{planned} is missing"),
            State::Different(found) => write!(f, "is {found} instead of {planned}"),
            State::Extra | State::Beside => write!(f, "{planned} is not planned"),
        }
    }
}

/// Findings at a place.
#[derive(Debug)]
pub(crate) struct Findings {
    place: String,
    list: Vec<Finding>,
}

impl Findings {
    pub(crate) fn at(place: impl Into<String>) -> Self {
        Self { place: place.into(), list: Vec::new() }
    }

    /// Notes what is `planned` beside what is `found` in its place.
    pub(crate) fn note(&mut self, what: &'static str, planned: impl Into<String>, found: Option<String>) {
        let planned = planned.into();
        let state = match found {
            None => State::Missing,
            Some(found) if found == planned => State::AsPlanned,
            Some(found) => State::Different(found),
        };
        self.add(what, planned, state);
    }

    /// Notes that something is `planned`, which stands or does not.
    pub(crate) fn note_presence(&mut self, what: &'static str, planned: impl Into<String>, stands: bool) {
        self.add(what, planned.into(), if stands { State::AsPlanned } else { State::Missing });
    }

    pub(crate) fn add(&mut self, what: &'static str, planned: String, state: State) {
        self.list.push(Finding { place: self.place.clone(), what, planned, state });
    }

    pub(crate) fn into_list(self) -> Vec<Finding> {
        self.list
    }
}

/// What differs, in words.
pub(crate) fn differences(findings: &[Finding]) -> Vec<String> {
    differing(findings).map(ToString::to_string).collect()
}

/// What differs. What goes with a link that is missing is missing too, and not worth a word.
pub(crate) fn differing(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    let goes_with_its_link = |finding: &Finding| {
        let of_place = |other: &&Finding| other.place == finding.place && other.is_missing_link();
        !finding.is_missing_link() && findings.iter().any(|other| of_place(&other))
    };
    findings.iter().filter(move |finding| finding.differs() && !goes_with_its_link(finding))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Vec<Finding> {
        let mut pod = Findings::at("pod eth0");
        pod.note_presence("link", "up", true);
        pod.note("mac", "02::1", Some("02::1".to_owned()));
        pod.note("shaping", "10 Mbit/s", Some("20 Mbit/s".to_owned()));
        pod.note_presence("address", "10.1.0.2/24", false);
        pod.add("route", "10.9.0.0/16".to_owned(), State::Beside);
        let mut node = Findings::at("node weft0");
        node.note_presence("link", "up", false);
        node.note("alias", "a/b/c", None);
        [pod, node].into_iter().flat_map(Findings::into_list).collect()
    }

    #[test]
    fn only_differences_are_told_and_a_link_that_is_missing_once() {
        assert_eq!(
            differences(&found()),
            [
                "pod eth0: shaping is 20 Mbit/s instead of 10 Mbit/s",
                "pod eth0: address 10.1.0.2/24 is missing",
                "node weft0: link up is missing",
            ]
        );
    }
}
