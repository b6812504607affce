//! Which nodes are asked for: `envoy.type.matcher.v3.NodeMatcher`.

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::r#type::matcher::v3::double_matcher::MatchPattern as NumberPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::list_matcher::MatchPattern as ListPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern as TextPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::struct_matcher::path_segment::Segment;
use envoy_types::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern as ValuePattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{
    DoubleMatcher, ListMatcher, NodeMatcher, StringMatcher, StructMatcher, ValueMatcher,
};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use tonic::Status;

/// A test of `T`, made of a matcher.
type Test<T> = Box<dyn Fn(&T) -> bool + Send + Sync>;

/// The nodes that a request asks for: those that any of its matchers accepts, or all if it has none.
pub(super) struct Nodes(Vec<Test<Node>>);

impl Nodes {
    /// Of the matchers in a request. What cannot be matched is an error, whatever nodes there are.
    pub(super) fn new(matchers: &[NodeMatcher]) -> Result<Self, Status> {
        matchers.iter().map(node).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn include(&self, node: &Node) -> bool {
        self.0.is_empty() || self.0.iter().any(|accepts| accepts(node))
    }
}

/// Its id and all of the metadata have to match.
fn node(matcher: &NodeMatcher) -> Result<Test<Node>, Status> {
    let id = matcher.node_id.as_ref().map(text).transpose()?;
    let metadata: Vec<_> = matcher.node_metadatas.iter().map(metadata).collect::<Result<_, _>>()?;
    Ok(Box::new(move |node| {
        let of_node = node.metadata.as_ref();
        id.as_ref().is_none_or(|accepts| accepts(&node.id))
            && metadata.iter().all(|accepts| of_node.is_some_and(accepts))
    }))
}

fn metadata(matcher: &StructMatcher) -> Result<Test<Struct>, Status> {
    let key = |segment: &Option<Segment>| segment.as_ref().map(|Segment::Key(key)| key.clone());
    let path: Option<Vec<_>> = matcher.path.iter().map(|one| key(&one.segment)).collect();
    let path = path.filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| invalid("a matcher of metadata needs a path of keys"))?;
    let accepts = value(matcher.value.as_ref())?;
    Ok(Box::new(move |all| find(all, &path).is_some_and(&accepts)))
}

fn find<'a>(all: &'a Struct, path: &[String]) -> Option<&'a Value> {
    let (key, rest) = path.split_first()?;
    match (all.fields.get(key)?, rest) {
        (found, []) => Some(found),
        (Value { kind: Some(Kind::StructValue(inner)) }, rest) => find(inner, rest),
        _ => None,
    }
}

fn value(matcher: Option<&ValueMatcher>) -> Result<Test<Value>, Status> {
    let pattern = matcher.and_then(|matcher| matcher.match_pattern.as_ref());
    Ok(match pattern.ok_or_else(|| invalid("a matcher of a value has no pattern"))? {
        ValuePattern::NullMatch(_) => Box::new(|value| matches!(value.kind, Some(Kind::NullValue(_)))),
        ValuePattern::DoubleMatch(matcher) => number(matcher)?,
        ValuePattern::StringMatch(matcher) => {
            let accepts = text(matcher)?;
            Box::new(move |value| matches!(&value.kind, Some(Kind::StringValue(text)) if accepts(text)))
        }
        ValuePattern::BoolMatch(wanted) => {
            let wanted = Some(Kind::BoolValue(*wanted));
            Box::new(move |value| value.kind == wanted)
        }
        ValuePattern::PresentMatch(present) => {
            let present = *present;
            Box::new(move |value| present && value.kind.is_some())
        }
        ValuePattern::ListMatch(matcher) => list(matcher)?,
        ValuePattern::OrMatch(matcher) => {
            let any: Vec<_> =
                matcher.value_matchers.iter().map(|one| value(Some(one))).collect::<Result<_, _>>()?;
            Box::new(move |value| any.iter().any(|accepts| accepts(value)))
        }
    })
}

fn number(matcher: &DoubleMatcher) -> Result<Test<Value>, Status> {
    // The end of a range is not in it (`envoy.type.v3.DoubleRange`).
    let accepts: Test<f64> = match matcher.match_pattern {
        #[expect(clippy::float_cmp, reason = "that is what an exact match asks for")]
        Some(NumberPattern::Exact(exact)) => Box::new(move |number| *number == exact),
        Some(NumberPattern::Range(range)) => {
            Box::new(move |number| (range.start..range.end).contains(number))
        }
        None => return Err(invalid("a matcher of a number has no pattern")),
    };
    Ok(Box::new(move |value| matches!(&value.kind, Some(Kind::NumberValue(number)) if accepts(number))))
}

fn list(matcher: &ListMatcher) -> Result<Test<Value>, Status> {
    let Some(ListPattern::OneOf(one)) = &matcher.match_pattern else {
        return Err(invalid("a matcher of a list has no pattern"));
    };
    let accepts = value(Some(one))?;
    Ok(Box::new(move |value| match &value.kind {
        Some(Kind::ListValue(list)) => list.values.iter().any(&accepts),
        _ => false,
    }))
}

fn text(matcher: &StringMatcher) -> Result<Test<str>, Status> {
    let ignore_case = matcher.ignore_case;
    let fold = move |text: &str| if ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
    Ok(match &matcher.match_pattern {
        Some(TextPattern::Exact(exact)) => {
            let exact = fold(exact);
            Box::new(move |text| fold(text) == exact)
        }
        Some(TextPattern::Prefix(prefix)) => {
            let prefix = fold(prefix);
            Box::new(move |text| fold(text).starts_with(&prefix))
        }
        Some(TextPattern::Suffix(suffix)) => {
            let suffix = fold(suffix);
            Box::new(move |text| fold(text).ends_with(&suffix))
        }
        Some(TextPattern::Contains(part)) => {
            let part = fold(part);
            Box::new(move |text| fold(text).contains(&part))
        }
        Some(TextPattern::SafeRegex(_) | TextPattern::Custom(_)) | None => {
            return Err(invalid("texts are matched by exact, prefix, suffix or contains only"));
        }
    })
}

fn invalid(what: &str) -> Status {
    Status::invalid_argument(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::r#type::matcher::v3::struct_matcher::PathSegment;
    use envoy_types::pb::envoy::r#type::matcher::v3::{OrMatcher, RegexMatcher};
    use envoy_types::pb::envoy::r#type::v3::DoubleRange;
    use envoy_types::pb::google::protobuf::ListValue;

    fn of(kind: Kind) -> Value {
        Value { kind: Some(kind) }
    }

    fn structure(fields: &[(&str, Value)]) -> Struct {
        Struct { fields: fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect() }
    }

    fn web() -> Node {
        let texts = ["a", "b"].map(|text| of(Kind::StringValue(text.into())));
        let labels = structure(&[("app", of(Kind::StringValue("Web".into())))]);
        let metadata = structure(&[
            ("labels", of(Kind::StructValue(labels))),
            ("weight", of(Kind::NumberValue(2.0))),
            ("canary", of(Kind::BoolValue(true))),
            ("nothing", of(Kind::NullValue(0))),
            ("list", of(Kind::ListValue(ListValue { values: texts.to_vec() }))),
        ]);
        Node { id: "web-0".into(), metadata: Some(metadata), ..Default::default() }
    }

    fn says(pattern: TextPattern) -> StringMatcher {
        StringMatcher { match_pattern: Some(pattern), ignore_case: false }
    }

    fn exactly(text: &str) -> ValuePattern {
        ValuePattern::StringMatch(says(TextPattern::Exact(text.into())))
    }

    fn matcher(pattern: ValuePattern) -> ValueMatcher {
        ValueMatcher { match_pattern: Some(pattern) }
    }

    fn at(path: &[&str], pattern: ValuePattern) -> StructMatcher {
        let segment = |key: &&str| PathSegment { segment: Some(Segment::Key((*key).into())) };
        StructMatcher { path: path.iter().map(segment).collect(), value: Some(matcher(pattern)) }
    }

    fn includes(id: Option<StringMatcher>, metadata: Vec<StructMatcher>) -> bool {
        let matcher = NodeMatcher { node_id: id, node_metadatas: metadata };
        Nodes::new(&[matcher]).unwrap().include(&web())
    }

    #[test]
    fn ids_are_matched_as_texts() {
        let id = |pattern| includes(Some(says(pattern)), Vec::new());
        assert!(id(TextPattern::Exact("web-0".into())));
        assert!(!id(TextPattern::Exact("WEB-0".into())));
        assert!(id(TextPattern::Prefix("web".into())));
        assert!(id(TextPattern::Suffix("-0".into())));
        assert!(id(TextPattern::Contains("b-".into())));
        let folded = StringMatcher { ignore_case: true, ..says(TextPattern::Exact("WEB-0".into())) };
        assert!(includes(Some(folded), Vec::new()));
    }

    #[test]
    fn metadata_is_matched_by_every_kind_of_value() {
        let has = |path: &[&str], pattern| includes(None, vec![at(path, pattern)]);
        assert!(has(&["labels", "app"], exactly("Web")));
        assert!(!has(&["labels", "tier"], ValuePattern::PresentMatch(true)));
        assert!(has(&["labels"], ValuePattern::PresentMatch(true)));
        let number = |pattern| ValuePattern::DoubleMatch(DoubleMatcher { match_pattern: Some(pattern) });
        assert!(has(&["weight"], number(NumberPattern::Exact(2.0))));
        assert!(has(&["weight"], number(NumberPattern::Range(DoubleRange { start: 2.0, end: 3.0 }))));
        assert!(!has(&["weight"], number(NumberPattern::Range(DoubleRange { start: 1.0, end: 2.0 }))));
        assert!(has(&["canary"], ValuePattern::BoolMatch(true)));
        assert!(!has(&["canary"], ValuePattern::BoolMatch(false)));
        assert!(has(&["nothing"], ValuePattern::NullMatch(Default::default())));
        let one_of = Some(ListPattern::OneOf(Box::new(matcher(exactly("b")))));
        assert!(has(&["list"], ValuePattern::ListMatch(Box::new(ListMatcher { match_pattern: one_of }))));
        let value_matchers = vec![matcher(exactly("x")), matcher(ValuePattern::BoolMatch(true))];
        assert!(has(&["canary"], ValuePattern::OrMatch(OrMatcher { value_matchers })));
    }

    #[test]
    fn all_of_a_matcher_must_be_true_and_one_matcher_is_enough() {
        let id = Some(says(TextPattern::Exact("web-0".into())));
        let other = at(&["canary"], ValuePattern::BoolMatch(false));
        assert!(!includes(id.clone(), vec![other.clone()]));
        let either = [
            NodeMatcher { node_id: None, node_metadatas: vec![other] },
            NodeMatcher { node_id: id, node_metadatas: Vec::new() },
        ];
        assert!(Nodes::new(&either).unwrap().include(&web()));
        assert!(Nodes::new(&[]).unwrap().include(&Node::default()));
    }

    #[test]
    fn what_cannot_be_matched_is_refused() {
        let regex = says(TextPattern::SafeRegex(RegexMatcher::default()));
        let refused = |id: Option<StringMatcher>, metadata: Vec<StructMatcher>| {
            let matcher = NodeMatcher { node_id: id, node_metadatas: metadata };
            Nodes::new(&[matcher]).err().map(|status| status.code())
        };
        assert_eq!(refused(Some(regex), Vec::new()), Some(tonic::Code::InvalidArgument));
        assert_eq!(refused(None, vec![at(&[], exactly("x"))]), Some(tonic::Code::InvalidArgument));
        assert_eq!(refused(None, vec![StructMatcher::default()]), Some(tonic::Code::InvalidArgument));
    }
}
