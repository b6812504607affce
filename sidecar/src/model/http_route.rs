//! `HTTPRoute` (gateway.networking.k8s.io/v1).

use super::matching::http_match;
use super::route::{Retry, Route, RouteKind, RouteRule, Timeouts};
use crate::read::Node;
use crate::read::decode::{Fields, Report, duration};

/// Reads the `spec` of an `HTTPRoute`.
pub fn decode(spec: &Node, report: &mut Report) -> Option<Route> {
    Route::decode(
        RouteKind::Http,
        spec,
        report,
        http_match,
        |fields: &mut Fields<'_, '_>, rule: &mut RouteRule| {
            rule.timeouts = fields.optional("timeouts", timeouts).unwrap_or_default();
            rule.retry = fields.optional("retry", Retry::decode);
        },
    )
}

/// 0 means no limit (HTTPRouteTimeouts).
fn timeouts(node: &Node, report: &mut Report) -> Option<Timeouts> {
    let mut fields = report.fields(node, "timeouts")?;
    let request = fields.optional("request", duration).filter(|time| !time.is_zero());
    let backend_request = fields.optional("backendRequest", duration).filter(|time| !time.is_zero());
    let span = fields.key_span("backendRequest");
    fields.finish();
    if let (Some(whole), Some(part)) = (request, backend_request)
        && part > whole
    {
        report.error::<()>(span, "the backendRequest timeout is longer than the one of the request");
    }
    Some(Timeouts { request, backend_request })
}
