//! Outlier detection.

use envoy_types::pb::envoy::config::cluster::v3::OutlierDetection as Envoys;
use envoy_types::pb::google::protobuf::{BoolValue, UInt32Value};

use crate::model::policy::outlier::OutlierDetection;
use crate::translate::duration;

/// What nobody asked for is switched off by saying so: some of Envoy's detections are on by default.
pub(super) fn detection(of: &OutlierDetection) -> Envoys {
    let number = |value: u32| Some(UInt32Value { value });
    let wrap = |value: Option<u32>| value.map(|value| UInt32Value { value });
    let enforced = |asked: bool| number(if asked { 100 } else { 0 });
    let rate = of.success_rate.as_ref();
    let failures = of.failure_percentage.as_ref();
    Envoys {
        consecutive_5xx: number(of.consecutive_5xx).filter(|value| value.value > 0),
        enforcing_consecutive_5xx: enforced(of.consecutive_5xx > 0),
        consecutive_gateway_failure: wrap(of.consecutive_gateway_failures),
        enforcing_consecutive_gateway_failure: enforced(of.consecutive_gateway_failures.is_some()),
        split_external_local_origin_errors: of.consecutive_local_failures.is_some(),
        consecutive_local_origin_failure: wrap(of.consecutive_local_failures),
        enforcing_consecutive_local_origin_failure: enforced(of.consecutive_local_failures.is_some()),
        enforcing_local_origin_success_rate: enforced(false),
        interval: Some(duration(of.interval)),
        base_ejection_time: Some(duration(of.base_ejection_time)),
        max_ejection_time: Some(duration(of.max_ejection_time)),
        max_ejection_percent: number(of.max_ejection_percent),
        always_eject_one_host: Some(BoolValue { value: of.max_ejection_percent > 0 }),
        enforcing_success_rate: enforced(rate.is_some()),
        success_rate_minimum_hosts: wrap(rate.map(|rate| rate.minimum_hosts)),
        success_rate_request_volume: wrap(rate.map(|rate| rate.request_volume)),
        success_rate_stdev_factor: wrap(rate.map(|rate| rate.stdev_factor)),
        enforcing_failure_percentage: enforced(failures.is_some()),
        failure_percentage_threshold: wrap(failures.map(|failures| failures.threshold)),
        failure_percentage_minimum_hosts: wrap(failures.map(|failures| failures.minimum_hosts)),
        failure_percentage_request_volume: wrap(failures.map(|failures| failures.request_volume)),
        ..Envoys::default()
    }
}
