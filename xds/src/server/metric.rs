//! The names of the metrics, which stay what they are.
//!
//! Types are labels by their short name, such as `envoy.config.cluster.v3.Cluster`, if they are well-known, and `other`
//! if not: a client cannot make labels.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::stream::{Response, Service, Variant};
use crate::{Event, TypeUrl};

/// Gauge: streams that are open, by `variant`.
pub const STREAMS: &str = "xds_streams";
/// Counter: streams that have ended, by the `code` of their status.
pub const STREAMS_ENDED: &str = "xds_streams_ended_total";
/// Counter: requests, answers included, by `type`.
pub const REQUESTS: &str = "xds_requests_total";
/// Counter: requests that were made to wait, because the client sends more of them than
/// [`max_requests_per_second`](super::Config::max_requests_per_second).
pub const REQUESTS_DELAYED: &str = "xds_requests_delayed_total";
/// Counter: responses by `type` and `variant`.
pub const RESPONSES: &str = "xds_responses_total";
/// Histogram: the length of responses by `type`.
pub const RESPONSE_BYTES: &str = "xds_response_bytes";
/// Counter: messages beyond the 4 MiB that ordinary gRPC clients take, by `direction` (`in`, `out`).
pub const LARGE_MESSAGES: &str = "xds_large_messages_total";
/// Counter: responses that were accepted, by `type`.
pub const ACKS: &str = "xds_acks_total";
/// Histogram: seconds from when a response was written to when it was accepted, by `type`. For clusters that includes the
/// warming.
pub const ACK_SECONDS: &str = "xds_ack_seconds";
/// Counter: responses that were rejected, by `type`.
pub const NACKS: &str = "xds_nacks_total";
/// Counter: responses that were left unanswered for too long, by `type`.
pub const UNANSWERED: &str = "xds_unanswered_total";
/// Counter: resources that were too large to be sent, by `type`.
pub const WITHHELD: &str = "xds_withheld_total";

/// What an ordinary gRPC client takes: a warning before it hurts.
const LARGE: usize = 4 << 20;

/// Tells the recorder what the metrics mean. Call it after one has been installed.
pub fn describe() {
    describe_gauge!(STREAMS, "xDS streams that are open");
    describe_counter!(STREAMS_ENDED, "xDS streams that have ended, by status");
    describe_counter!(REQUESTS, "xDS requests, answers included");
    describe_counter!(REQUESTS_DELAYED, "xDS requests that were made to wait, because there were too many");
    describe_counter!(RESPONSES, "xDS responses");
    describe_histogram!(RESPONSE_BYTES, Unit::Bytes, "Length of xDS responses");
    describe_counter!(LARGE_MESSAGES, "xDS messages beyond 4 MiB, which ordinary gRPC clients refuse");
    describe_counter!(ACKS, "xDS responses that were accepted");
    describe_histogram!(ACK_SECONDS, Unit::Seconds, "From an xDS response to its acceptance");
    describe_counter!(NACKS, "xDS responses that were rejected");
    describe_counter!(UNANSWERED, "xDS responses that were left unanswered for too long");
    describe_counter!(WITHHELD, "xDS resources that were too large to be sent");
}

/// Counts an open stream until it is dropped.
#[derive(Debug)]
pub(super) struct OpenStream(&'static str);

impl OpenStream {
    pub(super) fn new(service: &Service) -> Self {
        let variant = of_variant(service.variant);
        gauge!(STREAMS, "variant" => variant).increment(1);
        Self(variant)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        gauge!(STREAMS, "variant" => self.0).decrement(1);
    }
}

pub(super) fn ended(code: tonic::Code) {
    counter!(STREAMS_ENDED, "code" => format!("{code:?}")).increment(1);
}

pub(super) fn received(type_url: &str, bytes: usize) {
    counter!(REQUESTS, "type" => of_type(&TypeUrl::new(type_url))).increment(1);
    if bytes > LARGE {
        counter!(LARGE_MESSAGES, "direction" => "in").increment(1);
    }
}

pub(super) fn delayed() {
    counter!(REQUESTS_DELAYED).increment(1);
}

pub(super) fn sent(response: &Response, variant: Variant, bytes: usize) {
    let of_type = of_type(response.type_url());
    counter!(RESPONSES, "type" => of_type, "variant" => of_variant(variant)).increment(1);
    histogram!(RESPONSE_BYTES, "type" => of_type).record(bytes as f64);
    if bytes > LARGE {
        counter!(LARGE_MESSAGES, "direction" => "out").increment(1);
        tracing::warn!(type_url = %response.type_url(), bytes, "an xDS response beyond 4 MiB, which ordinary gRPC clients refuse");
    }
}

pub(super) fn happened(event: &Event) {
    if let Event::Acked { type_url, after, .. } = event {
        histogram!(ACK_SECONDS, "type" => of_type(type_url)).record(after.as_secs_f64());
    }
    let (name, type_url, count) = match event {
        Event::Acked { type_url, .. } => (ACKS, type_url, 1),
        Event::Nacked { type_url, .. } => (NACKS, type_url, 1),
        Event::Unanswered { type_url, .. } => (UNANSWERED, type_url, 1),
        Event::Withheld { type_url, resources, .. } => (WITHHELD, type_url, resources.len()),
        Event::Connected { .. } | Event::InSync { .. } | Event::Disconnected { .. } => return,
    };
    counter!(name, "type" => of_type(type_url)).increment(count as u64);
}

fn of_variant(variant: Variant) -> &'static str {
    match variant {
        Variant::Incremental => "incremental",
        Variant::StateOfTheWorld => "sotw",
    }
}

fn of_type(type_url: &TypeUrl) -> &'static str {
    type_url.well_known().and_then(|url| url.strip_prefix("type.googleapis.com/")).unwrap_or("other")
}
