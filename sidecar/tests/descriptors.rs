//! Holds `src/translate/envoy.binpb` equal to the `.proto` files of the `envoy-types` that is built in.

#![cfg(test)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use protox::Compiler;
use protox::prost::Message;
use protox::prost_reflect::prost_types::FileDescriptorSet;

/// What can stand in a resource or in the bootstrap. What these import comes with them.
const FILES: &[&str] = &[
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/config/trace/v3/opentelemetry.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/access_loggers/grpc/v3/als.proto",
    "envoy/extensions/access_loggers/stats/v3/stats.proto",
    "envoy/extensions/access_loggers/stream/v3/stream.proto",
    "envoy/extensions/filters/http/cors/v3/cors.proto",
    "envoy/extensions/clusters/dns/v3/dns_cluster.proto",
    "envoy/extensions/filters/http/ext_authz/v3/ext_authz.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/filter_chain/v3/filter_chain.proto",
    "envoy/extensions/filters/http/grpc_json_transcoder/v3/transcoder.proto",
    "envoy/extensions/filters/http/grpc_web/v3/grpc_web.proto",
    "envoy/extensions/filters/http/header_mutation/v3/header_mutation.proto",
    "envoy/extensions/filters/http/jwt_authn/v3/config.proto",
    "envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.proto",
    "envoy/extensions/filters/http/rbac/v3/rbac.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/http/stateful_session/v3/stateful_session.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/http/stateful_session/cookie/v3/cookie.proto",
    "envoy/extensions/http/stateful_session/header/v3/header.proto",
    "envoy/extensions/load_balancing_policies/least_request/v3/least_request.proto",
    "envoy/extensions/load_balancing_policies/maglev/v3/maglev.proto",
    "envoy/extensions/load_balancing_policies/random/v3/random.proto",
    "envoy/extensions/load_balancing_policies/ring_hash/v3/ring_hash.proto",
    "envoy/extensions/load_balancing_policies/round_robin/v3/round_robin.proto",
    "envoy/extensions/load_balancing_policies/subset/v3/subset.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    // What a patch may add beside these.
    "envoy/extensions/filters/http/buffer/v3/buffer.proto",
    "envoy/extensions/filters/http/compressor/v3/compressor.proto",
    "envoy/extensions/filters/http/ext_proc/v3/ext_proc.proto",
    "envoy/extensions/filters/http/header_to_metadata/v3/header_to_metadata.proto",
    "envoy/extensions/filters/http/lua/v3/lua.proto",
    "envoy/extensions/filters/http/ratelimit/v3/rate_limit.proto",
    "envoy/extensions/filters/http/set_metadata/v3/set_metadata.proto",
    "envoy/extensions/compression/gzip/compressor/v3/gzip.proto",
];

fn protos() -> PathBuf {
    let metadata = cargo_metadata::MetadataCommand::new().exec().expect("cargo metadata");
    let package = metadata.packages.iter().find(|package| package.name.as_str() == "envoy-types");
    let manifest = &package.expect("envoy-types is a dependency").manifest_path;
    manifest.parent().expect("a manifest is in a directory").join("proto").into_std_path_buf()
}

fn compiled(protos: &Path) -> Vec<u8> {
    let roots = [
        "data-plane-api",
        "googleapis",
        "xds",
        "protoc-gen-validate",
        "cel-spec/proto",
        "opentelemetry-proto",
        "client_model",
    ];
    let mut all = FileDescriptorSet::default();
    // Each by itself: a name is to be looked up among what a file imports, and not among what others do.
    for file in FILES {
        let mut compiler = Compiler::new(roots.map(|root| protos.join(root))).expect("compiler");
        compiler.include_imports(true).open_file(file).expect("the protos of envoy-types compile");
        let found = compiler.file_descriptor_set().file;
        let known: BTreeSet<String> = all.file.iter().map(|file| file.name().to_owned()).collect();
        all.file.extend(found.into_iter().filter(|file| !known.contains(file.name())));
    }
    all.encode_to_vec()
}

#[test]
fn the_descriptors_are_those_of_the_messages_we_send() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/translate/envoy.binpb");
    let compiled = compiled(&protos());
    if std::env::var_os("WEFT_BLESS").is_some() {
        std::fs::write(&file, &compiled).expect("write");
    }
    let kept = std::fs::read(&file).expect("read");
    assert!(kept == compiled, "{} is stale: run with WEFT_BLESS=1", file.display());
}
