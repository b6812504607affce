//! Keeps the table of map fields true to the `.proto` files of the messages in use.
//! `WEFT_BLESS=1 cargo test -p weft-xds --test schema` writes it anew.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use protox::prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};
use protox::{Compiler, Error};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/canonical/schema.rs");

/// Messages of configuration: what a resource, or an `Any` in one, can be.
const CONFIGURATION: [&str; 6] =
    ["envoy.config.", "envoy.extensions.", "envoy.type.", "google.protobuf.", "xds.", "udpa."];

#[test]
fn the_table_of_map_fields_is_that_of_the_protos() {
    let table = render(&reaching_maps(&protos()));
    if std::env::var_os("WEFT_BLESS").is_some() {
        std::fs::write(TABLE, &table).unwrap();
    }
    let kept = std::fs::read_to_string(TABLE).unwrap();
    assert!(kept == table, "src/canonical/schema.rs is out of date: run this test with WEFT_BLESS=1");
}

fn protos() -> DescriptorPool {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    // What other platforms need may never have been downloaded.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let offline = ["--offline".to_owned(), "--filter-platform".to_owned(), platform];
    let metadata =
        cargo_metadata::MetadataCommand::new().manifest_path(manifest).other_options(offline).exec().unwrap();
    let package = metadata.packages.iter().find(|package| package.name.as_str() == "envoy-types").unwrap();
    let root = package.manifest_path.parent().unwrap().join("proto").into_std_path_buf();
    let folders = ["data-plane-api", "xds", "googleapis", "protoc-gen-validate", "cel-spec/proto"];
    let folders = folders.into_iter().chain(["opentelemetry-proto", "client_model", "ratelimit"]);
    let folders: Vec<_> = folders.map(|folder| root.join(folder)).collect();
    let names: Vec<_> = folders.iter().take(2).flat_map(|folder| names_in(folder)).collect();
    let mut resolver = ChainFileResolver::new();
    resolver.add(Protos(folders));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.open_files(names).unwrap();
    compiler.descriptor_pool()
}

/// The `.proto` files of Envoy.
struct Protos(Vec<PathBuf>);

impl FileResolver for Protos {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        let text = self.0.iter().find_map(|folder| std::fs::read_to_string(folder.join(name)).ok());
        let text = text.ok_or_else(|| Error::file_not_found(name))?;
        File::from_source(name, &rooted(name, text))
    }
}

/// The text with names from its root. Envoy's compiler looks for a name in the packages that a file includes; ours in all
/// there are, and stops at `envoy.extensions.config` or `envoy.extensions.clusters.common`.
fn rooted(name: &str, text: String) -> String {
    if !name.starts_with("envoy/extensions/") {
        return text;
    }
    let packages =
        ["config", "type", "data"].map(|package| (format!(" {package}."), format!(" .envoy.{package}.")));
    let common = ["async_files", "aws", "dynamic_forward_proxy", "ratelimit", "tap"];
    let common = common.map(|of| (format!(" common.{of}."), format!(" .envoy.extensions.common.{of}.")));
    packages.iter().chain(&common).fold(text, |text, (short, rooted)| text.replace(short, rooted))
}

fn names_in(folder: &Path) -> Vec<PathBuf> {
    proto_files(folder).iter().map(|path| path.strip_prefix(folder).unwrap().to_owned()).collect()
}

fn proto_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let files =
        files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.chain(folders.iter().flat_map(|folder| proto_files(folder))).collect()
}

/// The messages of configuration in which a map, or an `Any`, can be found at some depth.
fn reaching_maps(pool: &DescriptorPool) -> BTreeMap<String, MessageDescriptor> {
    let all = pool.all_messages().filter(|message| !message.is_map_entry());
    let mut rest: BTreeMap<_, _> = all
        .map(|message| (message.full_name().to_owned(), message))
        .filter(|(name, _)| CONFIGURATION.iter().any(|package| name.starts_with(package)))
        .collect();
    let mut reaching = BTreeMap::new();
    loop {
        let reaches = |field: FieldDescriptor| {
            field.is_map() || child(&field).is_some_and(|m| reaching.contains_key(m.full_name()))
        };
        let reaches_map = |message: &MessageDescriptor| {
            message.full_name() == "google.protobuf.Any" || message.fields().any(reaches)
        };
        let (found, others): (BTreeMap<_, _>, _) =
            rest.into_iter().partition(|(_, message)| reaches_map(message));
        if found.is_empty() {
            return reaching;
        }
        reaching.extend(found);
        rest = others;
    }
}

fn child(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) => Some(message),
        _ => None,
    }
}

fn render(messages: &BTreeMap<String, MessageDescriptor>) -> String {
    let places: BTreeMap<_, _> = messages.keys().zip(0u16..).collect();
    let place = |message: Option<MessageDescriptor>| {
        message.and_then(|m| places.get(&m.full_name().to_owned()).copied())
    };
    let mut table = String::from(
        "//! Generated by `tests/schema.rs` from the `.proto` files: the fields in which a map can be found.\n\n\
         use super::Kind::{Map, MapOf, Message as M};\nuse super::{Kind, Message};\n\n\
         const fn m(name: &'static str, fields: &'static [(u32, Kind)]) -> Message {\n    Message { name, fields }\n}\n\n\
         /// Sorted by name.\n#[rustfmt::skip]\npub(super) static MESSAGES: &[Message] = &[\n",
    );
    for (name, message) in messages {
        let mut fields: Vec<_> = message.fields().collect();
        fields.sort_by_key(FieldDescriptor::number);
        let kinds = fields.iter().filter_map(|field| {
            let value = |entry: MessageDescriptor| child(&entry.map_entry_value_field());
            let kind = match (field.is_map(), child(field)) {
                (true, Some(entry)) => {
                    place(value(entry)).map_or("Map".to_owned(), |value| format!("MapOf({value})"))
                }
                (_, message) => format!("M({})", place(message)?),
            };
            Some(format!("({}, {kind})", field.number()))
        });
        let kinds = kinds.collect::<Vec<_>>().join(", ");
        writeln!(table, "    m(\"{name}\", &[{kinds}]),").unwrap();
    }
    table + "];\n"
}
