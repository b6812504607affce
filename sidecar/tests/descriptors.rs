//! Holds `src/translate/envoy.binpb` equal to the `.proto` files of the `envoy-types` that is built in.

#![cfg(test)]

use std::path::{Path, PathBuf};

use protox::Compiler;
use protox::prost::Message;

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
    "envoy/extensions/filters/http/header_mutation/v3/header_mutation.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/http/stateful_session/v3/stateful_session.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/http/stateful_session/cookie/v3/cookie.proto",
    "envoy/extensions/http/stateful_session/header/v3/header.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
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
    let mut compiler = Compiler::new(roots.map(|root| protos.join(root))).expect("compiler");
    compiler.include_imports(true).open_files(FILES).expect("the protos of envoy-types compile");
    compiler.file_descriptor_set().encode_to_vec()
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
