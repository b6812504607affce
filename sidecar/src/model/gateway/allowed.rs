//! Which routes may attach to a listener: AllowedRoutes, RouteNamespaces and LabelSelector.

use crate::diagnostic::Span;
use crate::model::metadata::dns_name;
use crate::read::Node;
use crate::read::decode::{Report, one_of, text, texts};

/// Which routes may attach. By default those of the Gateway's own namespace, of the kinds that the protocol knows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AllowedRoutes {
    /// In which namespaces they are.
    pub namespaces: Namespaces,
    /// Of which kinds; empty means those that the protocol knows.
    pub kinds: Vec<RouteGroupKind>,
}

/// In which namespaces routes may be.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Namespaces {
    /// In that of the Gateway.
    #[default]
    Same,
    /// In any.
    All,
    /// In those whose labels this selects.
    Selected(LabelSelector),
}

/// A kind of route.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteGroupKind {
    /// Where it stands.
    pub span: Span,
    /// Its group.
    pub group: String,
    /// Its kind.
    pub kind: String,
}

/// Selects objects by their labels (meta/v1, LabelSelector): all of it must hold; an empty one selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Expression>);

/// What must hold for one label (LabelSelectorRequirement).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

/// How a label is compared with values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// It is one of them.
    In,
    /// It is none of them, or not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not.
    DoesNotExist,
}

const OPERATORS: &[(&str, Operator)] = &[
    ("In", Operator::In),
    ("NotIn", Operator::NotIn),
    ("Exists", Operator::Exists),
    ("DoesNotExist", Operator::DoesNotExist),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Same,
    All,
    Selector,
}

const FROM: &[(&str, From)] = &[("Same", From::Same), ("All", From::All), ("Selector", From::Selector)];

impl AllowedRoutes {
    pub(super) fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(node, "allowedRoutes")?;
        let namespaces = fields.optional("namespaces", namespaces).unwrap_or_default();
        let kinds = fields.list("kinds", route_group_kind);
        fields.finish();
        Some(Self { namespaces, kinds })
    }
}

impl LabelSelector {
    /// Whether an object with these labels is meant.
    pub fn selects(&self, labels: &[(String, String)]) -> bool {
        self.0.iter().all(|expression| {
            let value = labels.iter().find(|(key, _)| *key == expression.key).map(|(_, value)| value);
            match expression.operator {
                Operator::In => value.is_some_and(|value| expression.values.contains(value)),
                Operator::NotIn => value.is_none_or(|value| !expression.values.contains(value)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }

    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(node, "selector")?;
        let labels = fields.optional("matchLabels", texts).unwrap_or_default();
        let expressions = fields.list("matchExpressions", expression);
        fields.finish();
        let labels = labels.into_iter().map(|(entry, value)| Expression {
            key: entry.key.clone(),
            operator: Operator::In,
            values: vec![value],
        });
        Some(Self(labels.chain(expressions).collect()))
    }
}

fn expression(node: &Node, report: &mut Report) -> Option<Expression> {
    let mut fields = report.fields(node, "matchExpression")?;
    let key = fields.required("key", text);
    let operator = fields.required("operator", one_of(OPERATORS));
    let values = fields.list("values", text);
    let span = fields.key_span("values");
    fields.finish();
    let operator = operator?;
    let compares = matches!(operator, Operator::In | Operator::NotIn);
    if compares == values.is_empty() {
        let mistake = if compares { "this operator needs values" } else { "this operator has no values" };
        report.error::<()>(span, mistake);
    }
    Some(Expression { key: key?, operator, values })
}

fn namespaces(node: &Node, report: &mut Report) -> Option<Namespaces> {
    let mut fields = report.fields(node, "namespaces")?;
    let from = fields.optional("from", one_of(FROM)).unwrap_or(From::Same);
    let selector = fields.optional("selector", LabelSelector::decode);
    if from == From::Selector && node.get("selector").is_none() {
        fields.error::<()>("from: Selector needs a \"selector\"");
    }
    fields.finish();
    Some(match from {
        From::Same => Namespaces::Same,
        From::All => Namespaces::All,
        From::Selector => Namespaces::Selected(selector?),
    })
}

fn route_group_kind(node: &Node, report: &mut Report) -> Option<RouteGroupKind> {
    let mut fields = report.fields(node, "kind")?;
    let group = fields.optional("group", |node, report| dns_name(node, report, false));
    let kind = fields.required("kind", text);
    let span = fields.key_span("kind");
    fields.finish();
    let group = group.unwrap_or_else(|| "gateway.networking.k8s.io".into());
    Some(RouteGroupKind { span, group, kind: kind? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_holds_where_all_of_it_holds() {
        let labels = [("env".to_owned(), "prod".to_owned()), ("team".to_owned(), "a".to_owned())];
        let one = |key: &str, operator, values: &[&str]| Expression {
            key: key.into(),
            operator,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        for (expression, expected) in [
            (one("env", Operator::In, &["prod", "test"]), true),
            (one("env", Operator::In, &["test"]), false),
            (one("gone", Operator::In, &["prod"]), false),
            (one("env", Operator::NotIn, &["test"]), true),
            (one("gone", Operator::NotIn, &["test"]), true),
            (one("env", Operator::Exists, &[]), true),
            (one("gone", Operator::Exists, &[]), false),
            (one("gone", Operator::DoesNotExist, &[]), true),
        ] {
            assert_eq!(LabelSelector(vec![expression.clone()]).selects(&labels), expected, "{expression:?}");
        }
        let both = LabelSelector(vec![one("env", Operator::Exists, &[]), one("gone", Operator::Exists, &[])]);
        assert!(!both.selects(&labels));
        assert!(LabelSelector::default().selects(&[]));
    }
}
