//! Who is to blame for a rejected response.

use std::sync::Arc;

/// Splits a client's message over the `offered`; a resource that was alone in its response needs no naming.
pub(super) fn blame(message: &str, offered: &[Arc<str>]) -> Vec<(Arc<str>, String)> {
    let named = split(message, offered);
    match (named.is_empty(), offered) {
        (true, [only]) => vec![(Arc::clone(only), message.to_owned())],
        _ => named,
    }
}

/// Splits a client's message into one reason per resource.
///
/// Envoy writes `Error adding/updating cluster(s) a: reason, b: reason` for clusters and puts a line break instead
/// of the comma for listeners (`cds_api_helper.cc`, `lds_api.cc` of 1.40). A reason may hold commas and colons
/// itself, so the text is cut only where one of `offered`, the names in the response, begins.
fn split(message: &str, offered: &[Arc<str>]) -> Vec<(Arc<str>, String)> {
    let mut starts: Vec<_> =
        offered.iter().filter_map(|name| Some((position(message, name)?, name))).collect();
    starts.sort();
    let ends = starts.iter().skip(1).map(|(start, _)| *start).chain([message.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|((start, name), end)| (Arc::clone(name), reason(message, *start, end, name)))
        .collect()
}

/// Where `message` begins to speak of `name`: at a `name: ` that starts a list item.
fn position(message: &str, name: &str) -> Option<usize> {
    let item = format!("{name}: ");
    let starts_item = |before: &str| {
        before.is_empty()
            || [", ", "\n", "cluster(s) ", "listener(s) "].iter().any(|end| before.ends_with(end))
    };
    message.match_indices(&item).map(|(at, _)| at).find(|at| message.get(..*at).is_some_and(starts_item))
}

fn reason(message: &str, start: usize, end: usize, name: &str) -> String {
    let text = message.get(start + name.len() + 2..end).unwrap_or_default();
    text.trim_end_matches([',', ' ', '\n']).to_owned()
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
}
