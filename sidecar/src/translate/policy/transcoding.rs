//! JSON for services that speak gRPC.

use envoy_types::pb::envoy::extensions::filters::http::grpc_json_transcoder::v3::GrpcJsonTranscoder;
use envoy_types::pb::envoy::extensions::filters::http::grpc_json_transcoder::v3::grpc_json_transcoder::{
    DescriptorSet, PrintOptions,
};

use crate::model::policy::transcoding::{Descriptors, JsonTranscoding};

/// The file that Envoy reads, if it reads one.
pub(super) fn file(json: &JsonTranscoding) -> Option<&str> {
    match &json.descriptors {
        Descriptors::File(path) => Some(path),
        Descriptors::Inline(_) => None,
    }
}

pub(super) fn transcoder(json: &JsonTranscoding) -> GrpcJsonTranscoder {
    let descriptors = match &json.descriptors {
        Descriptors::File(path) => DescriptorSet::ProtoDescriptor(path.clone()),
        Descriptors::Inline(bytes) => DescriptorSet::ProtoDescriptorBin(bytes.clone()),
    };
    let print = PrintOptions {
        always_print_primitive_fields: json.print_defaults,
        preserve_proto_field_names: json.preserve_names,
        ..PrintOptions::default()
    };
    GrpcJsonTranscoder {
        descriptor_set: Some(descriptors),
        services: json.services.clone(),
        print_options: Some(print),
        auto_mapping: json.auto_mapping,
        // What went wrong is in the body, not in a header that JSON clients do not look at.
        convert_grpc_status: true,
        // The policy is the route's: it was found by the path that the client sent.
        match_incoming_request_route: true,
        ..GrpcJsonTranscoder::default()
    }
}
