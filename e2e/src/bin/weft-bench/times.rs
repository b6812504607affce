//! Times, and what is said of many.

use std::time::Duration;

/// What ADD and DEL took, each time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    pub(crate) add: Vec<Duration>,
    pub(crate) del: Vec<Duration>,
}

/// The nearest rank, in milliseconds.
pub(crate) fn percentile(times: &[Duration], rank: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort();
    let index = (sorted.len() * rank).div_ceil(100).saturating_sub(1);
    millis(sorted.get(index).copied().unwrap_or_default())
}

pub(crate) fn p50(times: &[Duration]) -> f64 {
    percentile(times, 50)
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!([50, 99, 100].map(|rank| percentile(&times, rank).round()), [50.0, 99.0, 100.0]);
        assert_eq!(percentile(&times[..1], 99), millis(times[0]));
        assert_eq!(percentile(&[], 50), 0.0);
    }
}
