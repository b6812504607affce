//! Changes to headers: HTTPHeaderFilter of the Gateway API.

use crate::diagnostic::Diagnostic;
use crate::model::matching::{header_name, header_value};
use crate::model::tag::HEADER_PREFIX;
use crate::read::Node;
use crate::read::decode::{Report, text};

/// What is changed in headers. Names are in lower case, and each is there once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Headers that get this one value, whatever they had.
    pub set: Vec<(String, String)>,
    /// Headers that get this value beside what they had.
    pub add: Vec<(String, String)>,
    /// Headers that are taken away.
    pub remove: Vec<String>,
}

impl HeaderChanges {
    /// Nothing is changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These changes, and `later` ones after them.
    #[must_use]
    pub fn then(&self, later: &Self) -> Self {
        let replaced =
            |name: &String| later.remove.contains(name) || later.set.iter().any(|(set, _)| set == name);
        let mut all = self.clone();
        all.set.retain(|(name, _)| !replaced(name));
        all.add.retain(|(name, _)| !replaced(name));
        all.remove.retain(|name| !replaced(name));
        all.set.extend(later.set.iter().cloned());
        all.add.extend(later.add.iter().cloned());
        all.remove.extend(later.remove.iter().cloned());
        all
    }

    /// Reads an HTTPHeaderFilter.
    pub(super) fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(node, "header modifier")?;
        let changes = Self {
            set: first_of_each(fields.list("set", header)),
            add: first_of_each(fields.list("add", header)),
            remove: fields.list("remove", name),
        };
        fields.finish();
        changes.report_conflicts(node, report);
        Some(changes)
    }

    fn report_conflicts(&self, node: &Node, report: &mut Report) {
        let names = |list: &[(String, String)]| list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let mut all = [names(&self.set), names(&self.add), self.remove.clone()].concat();
        all.sort();
        for pair in all.windows(2) {
            if let [one, other] = pair
                && one == other
            {
                report
                    .error::<()>(node.span, format!("there is more than one action for the header {one:?}"));
            }
        }
    }
}

/// Of several entries for one name only the first counts (HTTPHeader in the API reference).
fn first_of_each(headers: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut kept: Vec<(String, String)> = Vec::new();
    for (name, value) in headers {
        if kept.iter().all(|(earlier, _)| *earlier != name) {
            kept.push((name, value));
        }
    }
    kept
}

fn header(node: &Node, report: &mut Report) -> Option<(String, String)> {
    let mut fields = report.fields(node, "header")?;
    let name = fields.required("name", name);
    let value = fields.required("value", header_value);
    fields.finish();
    Some((name?, value?))
}

/// Envoy rejects a route configuration that touches the host in this way, and what the sidecar says in its tags nobody else
/// says.
fn name(node: &Node, report: &mut Report) -> Option<String> {
    let given = header_name(node, report)?;
    if given == "host" {
        let mistake = Diagnostic::error(format!("{:?} cannot be changed as a header", text(node, report)?))
            .help("use a filter of type URLRewrite with a hostname");
        return report.add(node.span, mistake);
    }
    if given.starts_with(HEADER_PREFIX) {
        let mistake = Diagnostic::error(format!(
            "{given:?} cannot be changed: headers of that prefix are the sidecar's"
        ))
        .help("tags come from labels and annotations");
        return report.add(node.span, mistake);
    }
    Some(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::tests::mistakes;

    fn changes(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderChanges {
        let pairs = |list: &[(&str, &str)]| {
            list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        HeaderChanges {
            set: pairs(set),
            add: pairs(add),
            remove: remove.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn the_tags_of_the_sidecar_cannot_be_changed() {
        let found = mistakes(
            "{set: [{name: X-Weft-Tag-Team, value: a}], add: [{name: x-weft-tag-a, value: b}], remove: [x-weft-tag-b, x-weft]}",
            HeaderChanges::decode,
        );
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().all(|mistake| mistake.contains("are the sidecar's")), "{found:?}");
    }

    #[test]
    fn the_later_of_two_changes_of_a_header_has_the_last_word() {
        let first = changes(&[("a", "1"), ("b", "1")], &[("c", "1"), ("d", "1")], &["e", "f"]);
        let later = changes(&[("a", "2"), ("e", "2")], &[("b", "2"), ("d", "2"), ("f", "2")], &["c"]);
        let both = changes(
            &[("b", "1"), ("a", "2"), ("e", "2")],
            &[("d", "1"), ("b", "2"), ("d", "2"), ("f", "2")],
            &["f", "c"],
        );
        assert_eq!(first.then(&later), both);
    }
}
