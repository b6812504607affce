//! Delays and errors made on purpose.

use envoy_types::pb::envoy::extensions::filters::common::fault::v3::FaultDelay;
use envoy_types::pb::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault};

use super::fraction;
use crate::model::policy::faults::{Abort, AbortStatus, Delay, Faults};
use crate::translate::duration;
use crate::translate::route::header_matcher;

pub(super) fn fault(faults: &Faults) -> HttpFault {
    HttpFault {
        delay: faults.delay.as_ref().map(delay),
        abort: faults.abort.as_ref().map(abort),
        headers: faults
            .headers
            .iter()
            .map(|header| header_matcher(&header.name, &header.value, header.regex))
            .collect(),
        // They would be counted by cluster, in a statistic of each.
        disable_downstream_cluster_stats: true,
        ..HttpFault::default()
    }
}

fn delay(delay: &Delay) -> FaultDelay {
    FaultDelay {
        percentage: Some(fraction(delay.percent)),
        fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(duration(delay.duration))),
    }
}

fn abort(abort: &Abort) -> FaultAbort {
    let status = match abort.status {
        AbortStatus::Http(status) => ErrorType::HttpStatus(status),
        AbortStatus::Grpc(status) => ErrorType::GrpcStatus(status),
    };
    FaultAbort {
        percentage: Some(fraction(abort.percent)),
        error_type: Some(status),
        ..FaultAbort::default()
    }
}
