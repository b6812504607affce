//! Envoy's bootstrap: how it introduces itself, where it finds us, and what it measures.
//!
//! JSON, which Envoy reads as it reads YAML: `envoy -c bootstrap.json`.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use crate::model::sidecar::{Sidecar, StatsKept};
use crate::model::tag::Tag;
use crate::model::telemetry::label;
use crate::translate::TAGS_NAMESPACE;

/// The cluster that leads to us.
const XDS_CLUSTER: &str = "weft-xds";

/// Without a limit Envoy warns at every start; this one is far above what one workload needs.
const MAX_DOWNSTREAM_CONNECTIONS: u32 = 100_000;

/// The largest program of a regular expression, in RE2's steps: about a megabyte.
const MAX_REGEX_PROGRAM: u32 = 32_768;

/// The statistics that are kept. They are most of what a cluster costs: 46 KB with all of them, 23 KB with a selection
/// (Envoy 1.40, measured). What tells about requests, connections, membership and updates stays.
const STATS_PREFIXES: &[&str] = &[
    "cluster_manager.",
    "control_plane.",
    "filter_chain.",
    "http.gateway/",
    "http.inbound/",
    "http.outbound.",
    "listener_manager.",
    "overload.",
    "runtime.deprecated_feature_use",
    "server.",
    "vhost.",
    "weft.",
];
const STATS_OF_CLUSTERS: &str = concat!(
    r"cluster\..*\.(assignment_.*|external\.upstream_rq_.*|membership_.*|update_.*|version|",
    r"ext_authz\..*|health_check\.(failure|healthy|success)|lb_subsets_(active|fallback|selected)|",
    r"outlier_detection\.ejections_(active|enforced_total)|",
    r"upstream_cx_(active|connect_fail|connect_timeout|destroy_with_active_rq|none_healthy|total)|",
    r"upstream_rq_(\dxx|\d+|active|cancelled|completed|pending_.*|per_try_timeout|retry.*|rx_reset|time|timeout|total|tx_reset))",
);
const STATS_OF_LISTENERS: &str =
    r"listener\..*\.(downstream_cx_(active|destroy|length_ms|overflow|total)|http\..*|no_filter_chain_match)";

/// The bootstrap for the Envoy next to `sidecar`.
pub fn bootstrap(sidecar: &Sidecar) -> Value {
    json!({
        "node": node(sidecar),
        "admin": { "address": socket_address(sidecar.envoy_admin) },
        "dynamic_resources": dynamic_resources(),
        "static_resources": { "clusters": [xds_cluster(sidecar)] },
        "layered_runtime": layered_runtime(),
        "overload_manager": overload_manager(),
        "stats_config": stats_config(sidecar),
    })
}

fn node(sidecar: &Sidecar) -> Value {
    json!({
        "id": format!("{}/{}", sidecar.namespace, sidecar.name),
        "cluster": sidecar.name,
        "metadata": { TAGS_NAMESPACE: tags(&sidecar.tags) },
    })
}

fn tags(tags: &[Tag]) -> Value {
    let pairs = tags.iter().map(|tag| (tag.key.clone(), Value::String(tag.value.clone())));
    Value::Object(pairs.collect::<Map<_, _>>())
}

fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// Envoy waits for us for as long as it takes: with its default of 15 s it would declare itself ready with no
/// configuration at all. It sends its node once, not the 61 KB of it with every answer.
fn dynamic_resources() -> Value {
    let by_ads = json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" });
    json!({
        "ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": true,
            "grpc_services": [{
                "envoy_grpc": {
                    "cluster_name": XDS_CLUSTER,
                    "retry_policy": {
                        "retry_back_off": { "base_interval": "0.1s", "max_interval": "1s" },
                    },
                },
            }],
        },
        "cds_config": by_ads,
        "lds_config": by_ads,
    })
}

/// Without explicit HTTP/2 options Envoy opens no stream and says nothing about it.
fn xds_cluster(sidecar: &Sidecar) -> Value {
    let endpoint = json!({ "endpoint": { "address": { "pipe": { "path": sidecar.xds_socket } } } });
    let http2 = json!({ "connection_keepalive": { "interval": "30s", "timeout": "5s" } });
    json!({
        "name": XDS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": XDS_CLUSTER,
            "endpoints": [{ "lb_endpoints": [endpoint] }],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": http2 },
            },
        },
    })
}

/// Envoy rejects an expression whose program has more than 100 steps, which `/orders/[0-9]{1,60}` has already. The admin
/// layer is what Envoy has by default.
fn layered_runtime() -> Value {
    json!({
        "layers": [
            { "name": "weft", "static_layer": { "re2.max_program_size.error_level": MAX_REGEX_PROGRAM } },
            { "name": "admin", "admin_layer": {} },
        ],
    })
}

fn overload_manager() -> Value {
    let name = "envoy.resource_monitors.global_downstream_max_connections";
    json!({
        "resource_monitors": [{
            "name": name,
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": MAX_DOWNSTREAM_CONNECTIONS,
            },
        }],
    })
}

/// The workload's tags among those that `inject.stats` names become labels of every series.
fn stats_config(sidecar: &Sidecar) -> Value {
    let named = |tag: &&Tag| sidecar.inject.stats.iter().any(|named| named.key == tag.key);
    let tags = sidecar.tags.iter().filter(named);
    let tags: Vec<Value> =
        tags.map(|tag| json!({ "tag_name": label(&tag.key), "fixed_value": tag.value })).collect();
    match &sidecar.stats {
        StatsKept::All => json!({ "stats_tags": tags }),
        StatsKept::Selected(more) => {
            json!({ "stats_tags": tags, "stats_matcher": { "inclusion_list": { "patterns": patterns(more) } } })
        }
    }
}

fn patterns(more: &[String]) -> Vec<Value> {
    let more = more.iter().map(String::as_str);
    let prefixes = STATS_PREFIXES.iter().copied().chain(more).map(|prefix| json!({ "prefix": prefix }));
    let expressions = [STATS_OF_CLUSTERS, STATS_OF_LISTENERS];
    let expressions = expressions.iter().map(|regex| json!({ "safe_regex": { "regex": regex } }));
    prefixes.chain(expressions).collect()
}
