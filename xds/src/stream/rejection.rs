//! Who is to blame for a rejected response.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Reasons are kept for as long as the rejection stands, and a client writes what it likes.
const LONGEST_REASON: usize = 16 << 10;

/// Splits a client's message over the `offered`; a resource that was alone in its response needs no naming.
pub(super) fn blame(message: &str, offered: &[Arc<str>]) -> Vec<(Arc<str>, String)> {
    let named = split(message, offered);
    match (named.is_empty(), offered) {
        (true, [only]) => vec![(Arc::clone(only), shortened(message))],
        _ => named,
    }
}

/// What is remembered of a reason.
fn shortened(reason: &str) -> String {
    reason.get(..reason.floor_char_boundary(LONGEST_REASON)).unwrap_or_default().to_owned()
}

/// Splits a client's message into one reason per resource.
///
/// Envoy writes `Error adding/updating cluster(s) a: reason, b: reason` for clusters and puts a line break instead
/// of the comma for listeners (`cds_api_helper.cc`, `lds_api.cc` of 1.40). A reason may hold commas and colons
/// itself, so the text is cut only where one of `offered`, the names in the response, begins. The message is the client's
/// and may be as long as a request: it is looked at once, not once for each name.
fn split(message: &str, offered: &[Arc<str>]) -> Vec<(Arc<str>, String)> {
    let mut offered = Offered::new(offered);
    let starts: BTreeSet<_> = item_starts(message).collect();
    let items: Vec<_> =
        starts.into_iter().filter_map(|start| Some((start, offered.take(message.get(start..)?)?))).collect();
    let ends = items.iter().skip(1).map(|(start, _)| *start).chain([message.len()]);
    items
        .iter()
        .zip(ends)
        .map(|((start, name), end)| (Arc::clone(name), reason(message, *start, end, name)))
        .collect()
}

/// Where the items of a list begin, and other places that look like it.
fn item_starts(message: &str) -> impl Iterator<Item = usize> {
    let behind = [", ", "\n", "cluster(s) ", "listener(s) "];
    let starts =
        behind.into_iter().flat_map(|text| message.match_indices(text).map(|(at, text)| at + text.len()));
    [0].into_iter().chain(starts)
}

/// The names that have not been found yet.
struct Offered<'a> {
    names: BTreeMap<&'a str, &'a Arc<str>>,
    longest: usize,
}

impl<'a> Offered<'a> {
    fn new(names: &'a [Arc<str>]) -> Self {
        let longest = names.iter().map(|name| name.len()).max().unwrap_or_default();
        Self { names: names.iter().map(|name| (&**name, name)).collect(), longest }
    }

    /// The name that `item` begins with, once: a colon and a space follow it. No more of the item is looked at.
    fn take(&mut self, item: &str) -> Option<&'a Arc<str>> {
        let head = item.as_bytes().get(..self.longest + 2).unwrap_or(item.as_bytes());
        let colons = head.windows(2).enumerate().filter(|(_, two)| *two == b": ");
        colons.filter_map(|(at, _)| item.get(..at)).find_map(|name| self.names.remove(name))
    }
}

fn reason(message: &str, start: usize, end: usize, name: &str) -> String {
    let text = message.get(start + name.len() + 2..end).unwrap_or_default();
    shortened(text.trim_end_matches([',', ' ', '\n']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blame<'a>(message: &str, offered: &[&'a str]) -> Vec<(&'a str, String)> {
        let names: Vec<Arc<str>> = offered.iter().map(|name| Arc::from(*name)).collect();
        let named = |name: &str| *offered.iter().find(|offered| **offered == name).unwrap();
        split(message, &names).into_iter().map(|(name, reason)| (named(&name), reason)).collect()
    }

    #[test]
    fn each_cluster_gets_its_own_reason() {
        // Text measured with Envoy 1.40.
        let message =
            "Error adding/updating cluster(s) bad00: field: \"x\", reason: too low, bad01: no such filter";
        assert_eq!(
            blame(message, &["bad01", "good", "bad00"]),
            [("bad00", "field: \"x\", reason: too low".to_owned()), ("bad01", "no such filter".to_owned())]
        );
    }

    #[test]
    fn each_listener_gets_its_own_reason() {
        // istio: `ADS:LDS: ACK ERROR … duplicate listener`, one per line.
        let message =
            "Error adding/updating listener(s) a_82: duplicate listener a_82 found\nb_445: duplicate\n";
        assert_eq!(
            blame(message, &["a_82", "b_445"]),
            [("a_82", "duplicate listener a_82 found".to_owned()), ("b_445", "duplicate".to_owned())]
        );
    }

    #[test]
    fn a_name_inside_another_or_inside_a_reason_is_not_blamed() {
        let message = "Error adding/updating cluster(s) web-v1: needs v1: to exist";
        assert_eq!(blame(message, &["v1", "web-v1"]), [("web-v1", "needs v1: to exist".to_owned())]);
    }

    #[test]
    fn a_message_that_names_nobody_blames_nobody() {
        assert_eq!(blame("Only unique values for domains are permitted", &["r1", "r2"]), []);
    }

    // Ten thousand searches through it would hold up all streams for a minute.
    #[test]
    fn a_long_message_about_many_names_is_looked_at_once() {
        let names: Vec<Arc<str>> = (0..10_000).map(|at| format!("cluster-{at}").into()).collect();
        let text = names.iter().map(|name| format!("{name}: {}, ", "no, ".repeat(20))).collect::<String>();
        let begun = std::time::Instant::now();
        assert_eq!(super::blame(&text, &names).len(), names.len());
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_reason_is_cut_where_it_is_too_long_to_keep() {
        let only: Arc<str> = "a".into();
        let blamed = super::blame(&"é".repeat(LONGEST_REASON), std::slice::from_ref(&only));
        assert_eq!(blamed, [(only, "é".repeat(LONGEST_REASON / 2))]);
    }
}
