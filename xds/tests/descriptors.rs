//! Holds `src/server/reflection/services.binpb` equal to the `.proto` files of the services.
//! `WEFT_BLESS=1 cargo test -p weft-xds --test descriptors` writes it anew.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use prost::Message;
use protox::Compiler;

/// The services. What their messages need comes with them, resources do not.
const FILES: [&str; 11] = [
    "envoy/service/cluster/v3/cds.proto",
    "envoy/service/discovery/v3/ads.proto",
    "envoy/service/endpoint/v3/eds.proto",
    "envoy/service/extension/v3/config_discovery.proto",
    "envoy/service/listener/v3/lds.proto",
    "envoy/service/route/v3/rds.proto",
    "envoy/service/route/v3/srds.proto",
    "envoy/service/runtime/v3/rtds.proto",
    "envoy/service/secret/v3/sds.proto",
    "envoy/service/status/v3/csds.proto",
    "envoy/config/route/v3/route.proto",
];

fn protos() -> PathBuf {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    // What other platforms need may never have been downloaded.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let offline = ["--offline".to_owned(), "--filter-platform".to_owned(), platform];
    let metadata =
        cargo_metadata::MetadataCommand::new().manifest_path(manifest).other_options(offline).exec().unwrap();
    let package = metadata.packages.iter().find(|package| package.name.as_str() == "envoy-types").unwrap();
    package.manifest_path.parent().unwrap().join("proto").into_std_path_buf()
}

#[test]
fn reflection_shows_the_services_there_are() {
    let folders = ["data-plane-api", "xds", "googleapis", "protoc-gen-validate", "cel-spec/proto"];
    let folders = folders.into_iter().chain(["opentelemetry-proto", "client_model"]);
    let mut compiler = Compiler::new(folders.map(|folder| protos().join(folder))).unwrap();
    compiler.include_imports(true).open_files(FILES).unwrap();
    let compiled = compiler.file_descriptor_set().encode_to_vec();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/reflection/services.binpb");
    if std::env::var_os("WEFT_BLESS").is_some() {
        std::fs::write(&file, &compiled).unwrap();
    }
    let kept = std::fs::read(&file).unwrap();
    assert!(kept == compiled, "services.binpb is out of date: run this test with WEFT_BLESS=1");
}
