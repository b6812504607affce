//! What is told about requests: the access log, traces, and counts by tag.

use envoy_types::pb::envoy::config::accesslog::v3::access_log::ConfigType;
use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, AndFilter, ComparisonFilter, OrFilter, ResponseFlagFilter, RuntimeFilter,
    StatusCodeFilter, comparison_filter,
};
use envoy_types::pb::envoy::config::core::v3::substitution_format_string::Format;
use envoy_types::pb::envoy::config::core::v3::{
    ApiVersion, HttpService, RuntimeUInt32, SubstitutionFormatString,
};
use envoy_types::pb::envoy::config::trace::v3::{OpenTelemetryConfig, tracing::http};
use envoy_types::pb::envoy::config::trace::v3::tracing::Http as Provider;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use envoy_types::pb::envoy::extensions::access_loggers::grpc::v3::{
    CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig,
};
use envoy_types::pb::envoy::extensions::access_loggers::stats::v3 as stats;
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3::{StdoutAccessLog, stdout_access_log};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing;
use envoy_types::pb::envoy::r#type::metadata::v3::metadata_key::{PathSegment, path_segment};
use envoy_types::pb::envoy::r#type::metadata::v3::{MetadataKey, MetadataKind, metadata_kind};
use envoy_types::pb::envoy::r#type::tracing::v3::{CustomTag, custom_tag};
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, Percent, Scope};
use envoy_types::pb::google::protobuf::{Any, Struct, UInt32Value, UInt64Value, Value, value};

use super::asked::{authority, over_grpc, over_http};
use super::{any, tags};
use crate::model::sidecar::Sidecar;
use crate::model::sidecar::inject::{Logged, Share};
use crate::model::sidecar::observe::{Otlp, Sink};
use crate::model::telemetry::{self, label};
use crate::model::{Backend, Proxy};

/// How long Envoy waits for a collector to take spans.
const EXPORT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// The name of a cluster that does not exist; those of Services have slashes.
const NO_COLLECTOR: &str = "none";

/// The fields of a line of the access log, which stay what they are. Beside them are `listener`, `workload` and `tags`.
const FIELDS: &[(&str, &str)] = &[
    ("time", "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%"),
    ("method", "%REQ(:METHOD)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("status", "%RESPONSE_CODE%"),
    ("flags", "%RESPONSE_FLAGS%"),
    ("detail", "%RESPONSE_CODE_DETAILS%"),
    ("grpc_status", "%GRPC_STATUS_NUMBER%"),
    ("duration_ms", "%DURATION%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("route", "%ROUTE_NAME%"),
    ("cluster", "%UPSTREAM_CLUSTER%"),
    ("upstream", "%UPSTREAM_HOST%"),
    ("attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
    ("upstream_failure", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("peer", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("trace_id", "%TRACE_ID%"),
];

/// A second lock behind the check of the configuration: Envoy drops what would be one series more.
const MAX_SERIES: u32 = (telemetry::MAX_STATS_BYTES / telemetry::BYTES_PER_SERIES) as u32;

/// The access loggers of an HTTP listener: those that are asked for, and the one that counts by tag.
pub(super) fn access_logs(proxy: &Proxy, listener: &str) -> Vec<AccessLog> {
    let log = proxy.telemetry.access_log.iter();
    let sinks = log.flat_map(|log| log.sinks.iter().map(move |sink| (log, sink)));
    let logs = sinks.map(|(log, sink)| AccessLog { filter: filter(log), ..to(sink, proxy, listener) });
    logs.chain(counts(&proxy.telemetry, listener)).collect()
}

/// Tracing of an HTTP listener.
pub(super) fn tracing(proxy: &Proxy) -> Option<Tracing> {
    let tracing = proxy.telemetry.tracing.as_ref()?;
    let provider = Provider {
        name: "envoy.tracers.opentelemetry".into(),
        config_type: Some(http::ConfigType::TypedConfig(any(&open_telemetry(&proxy.sidecar, tracing)))),
    };
    Some(Tracing {
        random_sampling: Some(Percent { value: f64::from(tracing.share.of_a_million()) / 10_000.0 }),
        custom_tags: custom_tags(proxy),
        provider: Some(provider),
        ..Tracing::default()
    })
}

fn to(sink: &Sink<Backend>, proxy: &Proxy, listener: &str) -> AccessLog {
    let format = || json_format(&proxy.sidecar, listener);
    match sink {
        Sink::Stdout => {
            let log_format = stdout_access_log::AccessLogFormat::LogFormat(format());
            logger(
                "envoy.access_loggers.stdout",
                any(&StdoutAccessLog { access_log_format: Some(log_format) }),
            )
        }
        Sink::File(path) => {
            let log_format = file_access_log::AccessLogFormat::LogFormat(format());
            let path = path.display().to_string();
            let file = FileAccessLog { path, access_log_format: Some(log_format) };
            logger("envoy.access_loggers.file", any(&file))
        }
        Sink::Grpc { to, log_name } => {
            let common = CommonGrpcAccessLogConfig {
                log_name: log_name.clone(),
                grpc_service: Some(over_grpc(to)),
                transport_api_version: ApiVersion::V3.into(),
                custom_tags: custom_tags(proxy),
                ..CommonGrpcAccessLogConfig::default()
            };
            let config = HttpGrpcAccessLogConfig {
                common_config: Some(common),
                additional_request_headers_to_log: vec!["x-request-id".into(), "user-agent".into()],
                ..HttpGrpcAccessLogConfig::default()
            };
            logger("envoy.access_loggers.http_grpc", any(&config))
        }
    }
}

fn logger(name: &str, config: Any) -> AccessLog {
    AccessLog {
        name: name.into(),
        config_type: Some(ConfigType::TypedConfig(config)),
        ..AccessLog::default()
    }
}

/// Numbers stay numbers, and what there is nothing to say about is null.
fn json_format(sidecar: &Sidecar, listener: &str) -> SubstitutionFormatString {
    let text = |text: String| Value { kind: Some(value::Kind::StringValue(text)) };
    let fields = FIELDS.iter().map(|(name, format)| ((*name).to_owned(), text((*format).to_owned())));
    let workload = format!("{}/{}", sidecar.namespace, sidecar.name);
    let ours = [("listener", listener.to_owned()), ("workload", workload), ("tags", tags::all_of_request())];
    let ours = ours.into_iter().map(|(name, value)| (name.to_owned(), text(value)));
    SubstitutionFormatString {
        format: Some(Format::JsonFormat(Struct { fields: fields.chain(ours).collect() })),
        ..SubstitutionFormatString::default()
    }
}

fn filter(log: &telemetry::AccessLog) -> Option<AccessLogFilter> {
    let errors = (log.which == Logged::Errors).then(errors);
    let sample = (log.sample != Share::ALL).then(|| sample(log.sample));
    match (errors, sample) {
        (Some(errors), Some(sample)) => {
            Some(specified(FilterSpecifier::AndFilter(AndFilter { filters: vec![errors, sample] })))
        }
        (one, other) => one.or(other),
    }
}

fn specified(filter: FilterSpecifier) -> AccessLogFilter {
    AccessLogFilter { filter_specifier: Some(filter) }
}

/// Answered with 500 or more; or anything that Envoy flags: no route, no endpoint, a reset, a timeout, a limit.
fn errors() -> AccessLogFilter {
    let from = RuntimeUInt32 { default_value: 500, runtime_key: "weft.access_log.errors_from".into() };
    let comparison = ComparisonFilter { op: comparison_filter::Op::Ge.into(), value: Some(from) };
    let status = FilterSpecifier::StatusCodeFilter(StatusCodeFilter { comparison: Some(comparison) });
    let flagged = FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter::default());
    let filters = vec![specified(status), specified(flagged)];
    specified(FilterSpecifier::OrFilter(OrFilter { filters }))
}

fn sample(share: Share) -> AccessLogFilter {
    let percent =
        FractionalPercent { numerator: share.of_a_million(), denominator: DenominatorType::Million.into() };
    specified(FilterSpecifier::RuntimeFilter(RuntimeFilter {
        runtime_key: "weft.access_log.sample".into(),
        percent_sampled: Some(percent),
        // Otherwise whole traces would be in or out by their id, and those of one caller together.
        use_independent_randomness: true,
    }))
}

/// Without a collector the tracer makes ids, decides, and passes both on. Envoy 1.40 wants an exporter all the same: it
/// gets one to nowhere, and room for no span, so that none is ever sent there.
fn open_telemetry(sidecar: &Sidecar, tracing: &telemetry::Tracing) -> OpenTelemetryConfig {
    let mut config =
        OpenTelemetryConfig { service_name: sidecar.name.clone(), ..OpenTelemetryConfig::default() };
    let Some(collector) = &tracing.collector else {
        config.http_service = Some(export_over_http(NO_COLLECTOR.into(), "http://none.invalid".into()));
        config.max_cache_size = Some(UInt32Value { value: 0 });
        return config;
    };
    match &collector.protocol {
        Otlp::Grpc => config.grpc_service = Some(over_grpc(&collector.to)),
        Otlp::Http(path) => {
            let uri = format!("http://{}{path}", authority(&collector.to));
            config.http_service = Some(export_over_http(collector.to.to_string(), uri));
        }
    }
    config
}

fn export_over_http(cluster: String, uri: String) -> HttpService {
    HttpService { http_uri: Some(over_http(cluster, uri, EXPORT_TIMEOUT)), ..HttpService::default() }
}

/// The tags as attributes of spans and of entries in a log service. A request that no route takes has the workload's.
fn custom_tags(proxy: &Proxy) -> Vec<CustomTag> {
    let tags = &proxy.sidecar.tags;
    let of_workload = |key: &str| tags.iter().find(|tag| tag.key == key).map(|tag| tag.value.clone());
    let keys = proxy.telemetry.keys.iter();
    keys.map(|key| custom_tag(key, of_workload(key).unwrap_or_default())).collect()
}

fn custom_tag(key: &str, default_value: String) -> CustomTag {
    let segment = PathSegment { segment: Some(path_segment::Segment::Key(key.to_owned())) };
    let metadata = custom_tag::Metadata {
        kind: Some(MetadataKind { kind: Some(metadata_kind::Kind::Route(metadata_kind::Route {})) }),
        metadata_key: Some(MetadataKey { key: tags::NAMESPACE.into(), path: vec![segment] }),
        default_value,
    };
    CustomTag {
        tag: format!("{}.{key}", tags::NAMESPACE),
        r#type: Some(custom_tag::Type::Metadata(metadata)),
    }
}

/// Requests, errors and durations by the tags that are asked for, by cluster and listener. Of labels that make series
/// only these: none has a value that a request brings.
fn counts(telemetry: &telemetry::Telemetry, listener: &str) -> Vec<AccessLog> {
    if telemetry.stats.is_empty() {
        return Vec::new();
    }
    let all = stats::Config {
        counters: vec![counter("requests", telemetry, listener)],
        histograms: vec![duration_histogram(telemetry, listener)],
        ..counting()
    };
    let failed = stats::Config { counters: vec![counter("errors", telemetry, listener)], ..counting() };
    let name = "envoy.access_loggers.stats";
    vec![logger(name, any(&all)), AccessLog { filter: Some(errors()), ..logger(name, any(&failed)) }]
}

fn counting() -> stats::Config {
    let most = Some(UInt32Value { value: MAX_SERIES });
    let scope = Scope { prefix: "weft".into(), max_counters: most, max_histograms: most, ..Scope::default() };
    stats::Config { stats_scope: Some(scope), ..stats::Config::default() }
}

fn counter(name: &str, telemetry: &telemetry::Telemetry, listener: &str) -> stats::config::Counter {
    stats::config::Counter {
        stat: Some(stat(name, telemetry, listener)),
        value_fixed: Some(UInt64Value { value: 1 }),
        ..stats::config::Counter::default()
    }
}

fn duration_histogram(telemetry: &telemetry::Telemetry, listener: &str) -> stats::config::Histogram {
    stats::config::Histogram {
        stat: Some(stat("request_duration_ms", telemetry, listener)),
        unit: stats::config::histogram::Unit::Milliseconds.into(),
        value_format: "%DURATION%".into(),
    }
}

fn stat(name: &str, telemetry: &telemetry::Telemetry, listener: &str) -> stats::config::Stat {
    let tag = |name: String, value_format: String| stats::config::Tag { name, value_format, rules: None };
    let by_tag = telemetry.stats.iter().map(|key| tag(label(key), tags::one_of_request(key)));
    let fixed = [
        tag("listener".into(), listener.to_owned()),
        tag("envoy_cluster_name".into(), "%UPSTREAM_CLUSTER%".into()),
    ];
    stats::config::Stat { name: name.into(), tags: fixed.into_iter().chain(by_tag).collect() }
}
