//! Whether a route's conditions hold, and which is the first that does not.

use envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;

use super::request::Request;

/// The first condition of `matching` that does not hold, in words. An error names what is not known here.
pub(super) fn first_failing(matching: &RouteMatch, request: &Request) -> Result<Option<String>, String> {
    if let Some(unknown) = unknown(matching) {
        return Err(format!("a route that depends on {unknown}"));
    }
    if let Some(why) = path(matching, request)? {
        return Ok(Some(why));
    }
    for header in &matching.headers {
        if let Some(why) = failing_header(header, request)? {
            return Ok(Some(why));
        }
    }
    if matching.grpc.is_some() && !is_grpc(request) {
        return Ok(Some("it is not gRPC".to_owned()));
    }
    for parameter in &matching.query_parameters {
        if let Some(why) = failing_parameter(parameter, request)? {
            return Ok(Some(why));
        }
    }
    Ok(matching.runtime_fraction.as_ref().and_then(share))
}

/// Backends with filters of their own are routes of their own, each of which has a share by chance; the last one has what is
/// left, and stands for all of them.
fn share(fraction: &RuntimeFractionalPercent) -> Option<String> {
    let percent = fraction.default_value?;
    let of = match percent.denominator() {
        DenominatorType::Hundred => 100,
        DenominatorType::TenThousand => 10_000,
        DenominatorType::Million => 1_000_000,
    };
    Some(format!(
        "it takes such requests by chance, up to the {}th of {of}; this is one of the others",
        percent.numerator
    ))
}

/// The conditions of a route in words.
pub(super) fn described(matching: &RouteMatch) -> Vec<String> {
    let path = matching.path_specifier.as_ref().map(path_wanted);
    let headers = matching.headers.iter().map(|header| {
        let name =
            if header.name == ":method" { "method".to_owned() } else { format!("header {}", header.name) };
        format!("{name} {}", header_wanted(header))
    });
    let parameters = matching
        .query_parameters
        .iter()
        .map(|parameter| format!("query parameter {} {}", parameter.name, parameter_wanted(parameter)));
    let grpc = matching.grpc.map(|_| "gRPC".to_owned());
    path.into_iter().chain(headers).chain(parameters).chain(grpc).collect()
}

fn unknown(matching: &RouteMatch) -> Option<&'static str> {
    if matching.tls_context.is_some() {
        Some("a client certificate")
    } else if !matching.dynamic_metadata.is_empty() || !matching.filter_state.is_empty() {
        Some("what filters say")
    } else if !matching.cookies.is_empty() {
        Some("cookies")
    } else {
        None
    }
}

fn path(matching: &RouteMatch, request: &Request) -> Result<Option<String>, String> {
    let Some(specifier) = &matching.path_specifier else { return Ok(None) };
    let sensitive = matching.case_sensitive.is_none_or(|sensitive| sensitive.value);
    let fold = |text: &str| if sensitive { text.to_owned() } else { text.to_ascii_lowercase() };
    let given = fold(request.path_alone());
    let holds = match specifier {
        PathSpecifier::Prefix(prefix) => given.starts_with(&fold(prefix)),
        PathSpecifier::Path(path) => given == fold(path),
        PathSpecifier::PathSeparatedPrefix(prefix) => {
            given.strip_prefix(&fold(prefix)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathSpecifier::SafeRegex(regex) => matches_whole(&regex.regex, request.path_alone())?,
        PathSpecifier::ConnectMatcher(_) => request.method == "CONNECT",
        PathSpecifier::PathMatchPolicy(_) => return Err("a route with a path template".to_owned()),
    };
    Ok((!holds)
        .then(|| format!("{} is wanted, the path is {}", path_wanted(specifier), request.path_alone())))
}

fn path_wanted(specifier: &PathSpecifier) -> String {
    match specifier {
        PathSpecifier::Prefix(prefix) if prefix == "/" => "any path".to_owned(),
        PathSpecifier::Prefix(prefix) => format!("a path that begins with {prefix}"),
        PathSpecifier::Path(path) => format!("the path {path}"),
        PathSpecifier::PathSeparatedPrefix(prefix) => format!("{prefix} or a path below it"),
        PathSpecifier::SafeRegex(regex) => format!("a path like {}", regex.regex),
        PathSpecifier::ConnectMatcher(_) => "CONNECT".to_owned(),
        PathSpecifier::PathMatchPolicy(_) => "a template".to_owned(),
    }
}

fn failing_header(matcher: &HeaderMatcher, request: &Request) -> Result<Option<String>, String> {
    let value = request.header(&matcher.name);
    if header_holds(matcher, value.as_deref())? {
        return Ok(None);
    }
    let wanted = header_wanted(matcher);
    Ok(Some(if matcher.name == ":method" {
        format!("method {wanted} is wanted, it is {}", request.method)
    } else {
        format!("header {} {wanted} is wanted, {}", matcher.name, given(value.as_deref()))
    }))
}

fn given(value: Option<&str>) -> String {
    value.map_or_else(|| "it is absent".to_owned(), |value| format!("it is {value:?}"))
}

/// `HeaderUtility::matchHeaders`: an absent header fails, also an inverted matcher, except for one that asks for presence.
fn header_holds(matcher: &HeaderMatcher, value: Option<&str>) -> Result<bool, String> {
    let Some(specifier) = &matcher.header_match_specifier else {
        return Ok(value.is_some() != matcher.invert_match);
    };
    if let HeaderMatchSpecifier::PresentMatch(present) = specifier {
        return Ok((value.is_some() == *present) != matcher.invert_match);
    }
    let value = match value {
        Some(value) => value,
        None if matcher.treat_missing_header_as_empty => "",
        None => return Ok(false),
    };
    let holds = match specifier {
        HeaderMatchSpecifier::StringMatch(matcher) => string_holds(matcher, value)?,
        HeaderMatchSpecifier::RangeMatch(range) => {
            value.parse::<i64>().is_ok_and(|number| (range.start..range.end).contains(&number))
        }
        _ => return Err("a route with a deprecated header match".to_owned()),
    };
    Ok(holds != matcher.invert_match)
}

fn header_wanted(matcher: &HeaderMatcher) -> String {
    let wanted = match &matcher.header_match_specifier {
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => string_wanted(matcher),
        Some(HeaderMatchSpecifier::RangeMatch(range)) => {
            format!("from {} to below {}", range.start, range.end)
        }
        Some(HeaderMatchSpecifier::PresentMatch(false)) => "absent".to_owned(),
        _ => "present".to_owned(),
    };
    if matcher.invert_match { format!("not {wanted}") } else { wanted }
}

fn failing_parameter(matcher: &QueryParameterMatcher, request: &Request) -> Result<Option<String>, String> {
    let value = request.query(&matcher.name);
    let holds = match (&matcher.query_parameter_match_specifier, value) {
        (Some(QueryParameterMatchSpecifier::PresentMatch(present)), value) => value.is_some() == *present,
        (_, None) => false,
        (Some(QueryParameterMatchSpecifier::StringMatch(matcher)), Some(value)) => {
            string_holds(matcher, value)?
        }
        (None, Some(_)) => true,
    };
    let wanted = parameter_wanted(matcher);
    Ok((!holds).then(|| format!("query parameter {} {wanted} is wanted, {}", matcher.name, given(value))))
}

fn parameter_wanted(matcher: &QueryParameterMatcher) -> String {
    match &matcher.query_parameter_match_specifier {
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => string_wanted(matcher),
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => "absent".to_owned(),
        _ => "present".to_owned(),
    }
}

fn string_holds(matcher: &StringMatcher, value: &str) -> Result<bool, String> {
    let fold = |text: &str| if matcher.ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
    let value = fold(value);
    Ok(match &matcher.match_pattern {
        Some(MatchPattern::Exact(wanted)) => value == fold(wanted),
        Some(MatchPattern::Prefix(wanted)) => value.starts_with(&fold(wanted)),
        Some(MatchPattern::Suffix(wanted)) => value.ends_with(&fold(wanted)),
        Some(MatchPattern::Contains(wanted)) => value.contains(&fold(wanted)),
        Some(MatchPattern::SafeRegex(regex)) => matches_whole(&regex.regex, &value)?,
        Some(MatchPattern::Custom(_)) | None => {
            return Err("a route with a matcher of another kind".to_owned());
        }
    })
}

fn string_wanted(matcher: &StringMatcher) -> String {
    match &matcher.match_pattern {
        Some(MatchPattern::Exact(wanted)) => format!("{wanted:?}"),
        Some(MatchPattern::Prefix(wanted)) => format!("that begins with {wanted:?}"),
        Some(MatchPattern::Suffix(wanted)) => format!("that ends with {wanted:?}"),
        Some(MatchPattern::Contains(wanted)) => format!("with {wanted:?} in it"),
        Some(MatchPattern::SafeRegex(regex)) => format!("like {}", regex.regex),
        Some(MatchPattern::Custom(_)) | None => "of another kind".to_owned(),
    }
}

fn is_grpc(request: &Request) -> bool {
    let content = request.header("content-type").unwrap_or_default();
    let rest = content.strip_prefix("application/grpc");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
}

/// RE2 matches bytes here as this does; what one of them would not take is found when the files are read.
fn matches_whole(expression: &str, text: &str) -> Result<bool, String> {
    let whole = format!("^(?:{expression})$");
    regex::bytes::RegexBuilder::new(&whole)
        .unicode(false)
        .build()
        .map(|regex| regex.is_match(text.as_bytes()))
        .map_err(|_invalid| format!("a route with the expression {expression:?}"))
}
