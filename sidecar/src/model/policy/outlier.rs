//! `outlierDetection`: endpoints whose answers are bad are left alone for a while.

use std::time::Duration;

use super::value::some_time;
use crate::read::Node;
use crate::read::decode::{Report, integer};

/// When an endpoint is ejected, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// After so many answers of 5xx in a row; a failed connection counts as one. 0: never.
    pub consecutive_5xx: u32,
    /// After so many answers of 502, 503 and 504 in a row.
    pub consecutive_gateway_failures: Option<u32>,
    /// After so many failures in a row to reach it; these then do not count as 5xx.
    pub consecutive_local_failures: Option<u32>,
    /// How often the rates are looked at and the ejected taken back.
    pub interval: Duration,
    /// How long the first ejection lasts; the second lasts twice as long, and so on.
    pub base_ejection_time: Duration,
    /// How long one lasts at most.
    pub max_ejection_time: Duration,
    /// Not more than this part of the endpoints, except that one always can be.
    pub max_ejection_percent: u32,
    /// Endpoints that succeed less often than the others.
    pub success_rate: Option<SuccessRate>,
    /// Endpoints that fail too often.
    pub failure_percentage: Option<FailurePercentage>,
}

/// An endpoint is ejected when its success rate is further below the average than so many standard deviations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuccessRate {
    /// With fewer endpoints nothing is compared.
    pub minimum_hosts: u32,
    /// Endpoints with fewer requests in an interval are left out.
    pub request_volume: u32,
    /// Thousandths of a standard deviation.
    pub stdev_factor: u32,
}

/// An endpoint is ejected when so many of its requests fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailurePercentage {
    /// In percent.
    pub threshold: u32,
    /// With fewer endpoints nothing is done.
    pub minimum_hosts: u32,
    /// Endpoints with fewer requests in an interval are left out.
    pub request_volume: u32,
}

/// Reads `outlierDetection`. The defaults are Envoy's.
pub(super) fn decode(node: &Node, report: &mut Report) -> Option<OutlierDetection> {
    let mut fields = report.fields(node, "outlierDetection")?;
    let count = || integer(1, u32::MAX);
    let base = fields.optional("baseEjectionTime", some_time).unwrap_or(Duration::from_secs(30));
    let detection = OutlierDetection {
        consecutive_5xx: fields.optional("consecutive5xx", integer(0, u32::MAX)).unwrap_or(5),
        consecutive_gateway_failures: fields.optional("consecutiveGatewayFailures", count()),
        consecutive_local_failures: fields.optional("consecutiveLocalFailures", count()),
        interval: fields.optional("interval", some_time).unwrap_or(Duration::from_secs(10)),
        base_ejection_time: base,
        max_ejection_time: fields
            .optional("maxEjectionTime", some_time)
            .unwrap_or(Duration::from_secs(300).max(base)),
        max_ejection_percent: fields.optional("maxEjectionPercent", integer(0, 100)).unwrap_or(10),
        success_rate: fields.optional("successRate", success_rate),
        failure_percentage: fields.optional("failurePercentage", failure_percentage),
    };
    let span = fields.key_span("maxEjectionTime");
    fields.finish();
    if detection.max_ejection_time < base {
        return report.error(span, "the longest ejection is shorter than the first");
    }
    Some(detection)
}

fn success_rate(node: &Node, report: &mut Report) -> Option<SuccessRate> {
    let mut fields = report.fields(node, "successRate")?;
    let minimum_hosts = fields.optional("minimumHosts", integer(1, u32::MAX)).unwrap_or(5);
    let request_volume = fields.optional("requestVolume", integer(1, u32::MAX)).unwrap_or(100);
    let stdev_factor = fields.optional("stdevFactor", integer(1, u32::MAX)).unwrap_or(1_900);
    fields.finish();
    Some(SuccessRate { minimum_hosts, request_volume, stdev_factor })
}

fn failure_percentage(node: &Node, report: &mut Report) -> Option<FailurePercentage> {
    let mut fields = report.fields(node, "failurePercentage")?;
    let threshold = fields.optional("threshold", integer(1, 100)).unwrap_or(85);
    let minimum_hosts = fields.optional("minimumHosts", integer(1, u32::MAX)).unwrap_or(5);
    let request_volume = fields.optional("requestVolume", integer(1, u32::MAX)).unwrap_or(50);
    fields.finish();
    Some(FailurePercentage { threshold, minimum_hosts, request_volume })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    #[test]
    fn rates_are_compared_only_where_that_is_asked_for() {
        let detection = good("{consecutive5xx: 3}", decode);
        assert_eq!((detection.consecutive_5xx, detection.max_ejection_percent), (3, 10));
        assert_eq!((detection.success_rate, detection.failure_percentage), (None, None));
        assert_eq!(good("{successRate: {}}", decode).success_rate.map(|rate| rate.stdev_factor), Some(1_900));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(
            mistakes("{baseEjectionTime: 10s, maxEjectionTime: 1s, maxEjectionPercent: 101}", decode),
            [
                "1:69 a whole number from 0 to 100 is expected, this is the number 101",
                "1:28 the longest ejection is shorter than the first",
            ]
        );
    }

    #[test]
    fn a_long_first_ejection_is_not_cut_off() {
        assert_eq!(good("{baseEjectionTime: 10m}", decode).max_ejection_time, Duration::from_secs(600));
    }
}
