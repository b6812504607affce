//! `subsets`: some of the endpoints of a service, by name, for routes to choose.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Span};
use crate::model::metadata::dns_name;
use crate::read::Node;
use crate::read::decode::{Report, one_of, texts};

/// All subsets of a service. Names differ from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subsets(pub Vec<Subset>);

/// Some of the endpoints of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    /// The name by which routes choose it.
    pub name: String,
    /// Who is in it.
    pub members: Members,
    /// What becomes of a request when nobody is, or nobody in it is healthy.
    pub when_empty: WhenEmpty,
}

/// Who is in a subset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Members {
    /// The endpoints that have all of these tags.
    Tags(BTreeMap<String, String>),
    /// Those that are endpoints of this service of the same namespace, too.
    Service {
        /// Its name.
        name: String,
        /// Where it stands.
        span: Span,
    },
}

/// What becomes of a request for a subset that is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenEmpty {
    /// It is answered with 503.
    Fail,
    /// Any endpoint gets it.
    AnyEndpoint,
}

impl Subsets {
    /// The subset of this name.
    pub fn get(&self, name: &str) -> Option<&Subset> {
        self.0.iter().find(|subset| subset.name == name)
    }

    /// The names, for messages.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|subset| subset.name.as_str())
    }
}

/// Reads `subsets`, a list.
pub(super) fn decode(items: Vec<(Span, Subset)>, report: &mut Report) -> Subsets {
    let mut subsets = Subsets::default();
    for (span, subset) in items {
        if subsets.get(&subset.name).is_some() {
            report.error::<()>(span, format!("the subset {:?} is there twice", subset.name));
        } else {
            subsets.0.push(subset);
        }
    }
    subsets
}

/// Reads one of `subsets`.
pub(super) fn subset(node: &Node, report: &mut Report) -> Option<(Span, Subset)> {
    let mut fields = report.fields(node, "subset")?;
    let name = fields.required("name", |node, report| dns_name(node, report, true));
    let tags = fields.optional("tags", tags);
    let service = fields.optional("service", |node, report| {
        Some(Members::Service { name: dns_name(node, report, true)?, span: node.span })
    });
    let choices = [("Fail", WhenEmpty::Fail), ("AnyEndpoint", WhenEmpty::AnyEndpoint)];
    let when_empty = fields.optional("whenEmpty", one_of(&choices)).unwrap_or(WhenEmpty::Fail);
    if node.get("tags").is_some() == node.get("service").is_some() {
        let mistake = Diagnostic::error("a subset has either \"tags\" or \"service\"").help(
            "tags are the labels of the EndpointSlice and its annotation weft.dev/tags; \
             service names another Service whose endpoints are meant",
        );
        fields.report().add::<()>(node.span, mistake);
    }
    let span = fields.key_span("name");
    fields.finish();
    Some((span, Subset { name: name?, members: tags.or(service)?, when_empty }))
}

fn tags(node: &Node, report: &mut Report) -> Option<Members> {
    let tags: BTreeMap<String, String> =
        texts(node, report)?.into_iter().map(|(entry, value)| (entry.key.clone(), value)).collect();
    if tags.is_empty() && node.is_empty() {
        return report.error(node.span, "without a tag every endpoint would be in the subset");
    }
    Some(Members::Tags(tags))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    #[test]
    fn members_have_tags_or_are_in_another_service() {
        let (_, canary) = good("{name: canary, tags: {version: v2}}", subset);
        let tags = BTreeMap::from([("version".to_owned(), "v2".to_owned())]);
        assert_eq!((canary.members, canary.when_empty), (Members::Tags(tags), WhenEmpty::Fail));
        let (_, canary) = good("{name: canary, service: web-v2, whenEmpty: AnyEndpoint}", subset);
        assert!(matches!(canary.members, Members::Service { name, .. } if name == "web-v2"));
        assert_eq!(canary.when_empty, WhenEmpty::AnyEndpoint);
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(
            mistakes("{name: Canary, tags: {}}", subset),
            [
                "1:11 \"Canary\" is not a DNS label (use lower-case letters, digits and dashes, with a letter or digit at both ends)",
                "1:25 without a tag every endpoint would be in the subset",
            ]
        );
        assert_eq!(mistakes("{name: a}", subset).len(), 1);
    }
}
