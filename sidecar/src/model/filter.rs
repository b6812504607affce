//! What a rule, or one of its backends, does to requests and responses: HTTPRouteFilter and GRPCRouteFilter of the
//! Gateway API.

mod cors;
mod headers;
mod path;

use std::sync::Arc;

pub use cors::{Cors, Origin};
pub use headers::HeaderChanges;
pub use path::{PathChange, Redirect, Rewrite, Scheme};

use super::metadata::dns_name;
use super::reference::{BackendRef, object_ref};
use super::route::RouteKind;
use crate::diagnostic::{Diagnostic, Span};
use crate::read::Node;
use crate::read::decode::{Fields, Report, integer, one_of};

/// The filters of one list. Each kind but mirrors is there once at most, so that their order says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    /// What is changed in the headers of requests.
    pub request_headers: HeaderChanges,
    /// What is changed in the headers of responses.
    pub response_headers: HeaderChanges,
    /// To whom requests are sent as well; their answers are thrown away.
    pub mirrors: Vec<MirrorRef>,
    /// The answer that is given instead of forwarding. Excludes `rewrite`.
    pub redirect: Option<Redirect>,
    /// What is changed in the host and the path.
    pub rewrite: Option<Rewrite>,
    /// Which pages of other origins may read the answers.
    pub cors: Option<Cors>,
    /// The subset of the backend's endpoints that requests go to, as its policy names it.
    pub subset: Option<SubsetRef>,
}

/// A subset of a backend's endpoints, by name: an ExtensionRef of group `weft.dev` and kind `Subset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsetRef {
    /// Where the name stands.
    pub span: Span,
    /// The name.
    pub name: String,
}

/// HTTPRequestMirrorFilter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorRef {
    /// To whom.
    pub backend: BackendRef,
    /// Which share of the requests.
    pub share: Fraction,
}

/// A share of all requests, at most 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    numerator: u32,
    denominator: u32,
}

impl Fraction {
    /// Every request.
    pub const ALL: Self = Self { numerator: 1, denominator: 1 };

    /// In millionths, rounded to the nearest.
    pub fn millionths(self) -> u32 {
        let scaled = u64::from(self.numerator) * 1_000_000;
        let rounded = (scaled + u64::from(self.denominator) / 2) / u64::from(self.denominator.max(1));
        u32::try_from(rounded).unwrap_or(1_000_000)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestMirror,
    RequestRedirect,
    UrlRewrite,
    Cors,
    ExternalAuth,
    ExtensionRef,
}

/// The kinds, their field, and whether a GRPCRoute has them.
const KINDS: &[(&str, &str, Kind, bool)] = &[
    ("RequestHeaderModifier", "requestHeaderModifier", Kind::RequestHeaderModifier, true),
    ("ResponseHeaderModifier", "responseHeaderModifier", Kind::ResponseHeaderModifier, true),
    ("RequestMirror", "requestMirror", Kind::RequestMirror, true),
    ("RequestRedirect", "requestRedirect", Kind::RequestRedirect, false),
    ("URLRewrite", "urlRewrite", Kind::UrlRewrite, false),
    ("CORS", "cors", Kind::Cors, false),
    ("ExternalAuth", "externalAuth", Kind::ExternalAuth, false),
    ("ExtensionRef", "extensionRef", Kind::ExtensionRef, true),
];

/// One filter of a list.
enum Filter {
    RequestHeaders(HeaderChanges),
    ResponseHeaders(HeaderChanges),
    Mirror(MirrorRef),
    Redirect(Redirect),
    Rewrite(Rewrite),
    Cors(Cors),
    Subset(SubsetRef),
}

impl Filters {
    /// Reads the field `filters`; `None` if there are none.
    pub(super) fn decode(fields: &mut Fields<'_, '_>, of: RouteKind) -> Option<Arc<Self>> {
        let span = fields.key_span("filters");
        let mut seen = Vec::new();
        let list = fields.list("filters", |node, report| filter(node, report, of, &mut seen));
        if seen.contains(&Kind::RequestRedirect) && seen.contains(&Kind::UrlRewrite) {
            let both =
                "RequestRedirect and URLRewrite exclude each other: what is redirected is not forwarded";
            fields.report().error::<()>(span, both);
        }
        (!list.is_empty()).then(|| Arc::new(Self::of(list)))
    }

    fn of(list: Vec<Filter>) -> Self {
        let mut filters = Self::default();
        for filter in list {
            match filter {
                Filter::RequestHeaders(changes) => filters.request_headers = changes,
                Filter::ResponseHeaders(changes) => filters.response_headers = changes,
                Filter::Mirror(mirror) => filters.mirrors.push(mirror),
                Filter::Redirect(redirect) => filters.redirect = Some(redirect),
                Filter::Rewrite(rewrite) => filters.rewrite = Some(rewrite),
                Filter::Cors(cors) => filters.cors = Some(cors),
                Filter::Subset(subset) => filters.subset = Some(subset),
            }
        }
        filters
    }

    /// These filters, and `later` ones after them. Mirrors are resolved by themselves and left out.
    #[must_use]
    pub fn then(&self, later: &Self) -> Self {
        Self {
            request_headers: self.request_headers.then(&later.request_headers),
            response_headers: self.response_headers.then(&later.response_headers),
            mirrors: Vec::new(),
            redirect: later.redirect.clone().or_else(|| self.redirect.clone()),
            rewrite: match (&self.rewrite, &later.rewrite) {
                (Some(first), Some(later)) => Some(first.then(later)),
                (first, later) => later.clone().or_else(|| first.clone()),
            },
            cors: later.cors.clone().or_else(|| self.cors.clone()),
            subset: later.subset.clone().or_else(|| self.subset.clone()),
        }
    }

    /// Whether they say nothing else than which endpoints are meant.
    pub fn only_choose_a_subset(&self) -> bool {
        Self { subset: None, ..self.clone() } == Self::default()
    }

    /// Whether the prefix that was matched is to be replaced, which only a rule with one PathPrefix match can do.
    pub fn replaces_prefix(&self) -> bool {
        let redirected = self.redirect.as_ref().and_then(|redirect| redirect.path.as_ref());
        let rewritten = self.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref());
        [redirected, rewritten].into_iter().flatten().any(|path| matches!(path, PathChange::Prefix(_)))
    }
}

/// Mirrors may be repeated, other filters not (HTTPRouteRule.filters, the API's own validation).
fn filter(node: &Node, report: &mut Report, of: RouteKind, seen: &mut Vec<Kind>) -> Option<Filter> {
    let mut fields = report.fields(node, "filter")?;
    let words: Vec<(&str, (&'static str, Kind))> = KINDS
        .iter()
        .filter(|(.., in_grpc)| *in_grpc || of == RouteKind::Http)
        .map(|(word, field, kind, _)| (*word, (*field, *kind)))
        .collect();
    let (field, kind) = fields.required("type", one_of(&words))?;
    if kind != Kind::RequestMirror && seen.contains(&kind) {
        let span = fields.key_span("type");
        fields
            .report()
            .error::<()>(span, format!("there is a second filter of this type; {field} is given once"));
    }
    seen.push(kind);
    let filter = fields.required(field, |node, report| settings(kind, node, report));
    for (word, other, ..) in KINDS.iter().filter(|(_, other, ..)| *other != field) {
        if fields.optional(other, |node, _| Some(node)).is_some() {
            let span = fields.key_span(other);
            fields.report().error::<()>(span, format!("{other:?} belongs to a filter of type {word}"));
        }
    }
    fields.finish();
    filter
}

fn settings(kind: Kind, node: &Node, report: &mut Report) -> Option<Filter> {
    match kind {
        Kind::RequestHeaderModifier => HeaderChanges::decode(node, report).map(Filter::RequestHeaders),
        Kind::ResponseHeaderModifier => HeaderChanges::decode(node, report).map(Filter::ResponseHeaders),
        Kind::RequestMirror => mirror(node, report).map(Filter::Mirror),
        Kind::RequestRedirect => Redirect::decode(node, report).map(Filter::Redirect),
        Kind::UrlRewrite => Rewrite::decode(node, report).map(Filter::Rewrite),
        Kind::Cors => Cors::decode(node, report).map(Filter::Cors),
        Kind::ExternalAuth => {
            let mistake = Diagnostic::error("a filter of type ExternalAuth is not supported")
                .help("external authorisation is said by a TrafficPolicy");
            report.add(node.span, mistake)
        }
        Kind::ExtensionRef => extension(node, report),
    }
}

/// The API has a request fail whose filter is unknown; nobody wants that, so the document is refused.
fn extension(node: &Node, report: &mut Report) -> Option<Filter> {
    let mut fields = report.fields(node, "extensionRef")?;
    fields.required("group", one_of(&[("weft.dev", ())]));
    fields.required("kind", one_of(&[("Subset", ())]));
    let name = fields.required("name", |node, report| dns_name(node, report, true));
    fields.finish();
    let span = node.get("name").map_or(node.span, |name| name.span);
    Some(Filter::Subset(SubsetRef { span, name: name? }))
}

fn mirror(node: &Node, report: &mut Report) -> Option<MirrorRef> {
    let mut fields = report.fields(node, "requestMirror")?;
    let backend = fields.required("backendRef", object_ref);
    let percent = fields.optional("percent", integer(0_u32, 100));
    let fraction = fields.optional("fraction", fraction);
    if percent.is_some() && fraction.is_some() {
        let span = fields.key_span("fraction");
        fields.report().error::<()>(span, "only one of percent and fraction can be given");
    }
    fields.finish();
    let percent = percent.map(|numerator| Fraction { numerator, denominator: 100 });
    Some(MirrorRef { backend: backend?, share: percent.or(fraction).unwrap_or(Fraction::ALL) })
}

fn fraction(node: &Node, report: &mut Report) -> Option<Fraction> {
    const MOST: u32 = i32::MAX.cast_unsigned();
    let mut fields = report.fields(node, "fraction")?;
    let numerator = fields.required("numerator", integer(0, MOST));
    let denominator = fields.optional("denominator", integer(1, MOST)).unwrap_or(100);
    fields.finish();
    let numerator = numerator?;
    if numerator > denominator {
        return report.error(node.span, format!("{numerator}/{denominator} is more than 1"));
    }
    Some(Fraction { numerator, denominator })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_to_the_nearest_millionth() {
        for (numerator, denominator, millionths) in [
            (0, 100, 0),
            (1, 100, 10_000),
            (1, 3, 333_333),
            (2, 3, 666_667),
            (7, 7, 1_000_000),
            (u32::MAX, u32::MAX, 1_000_000),
        ] {
            assert_eq!(
                Fraction { numerator, denominator }.millionths(),
                millionths,
                "{numerator}/{denominator}"
            );
        }
    }
}
