//! What time it is, and when this boot began.

use std::fs;
use std::time::{Duration, SystemTime};

/// By the clock as it is now, and two seconds early: `/proc/uptime` says less than a file's time. 1970 where it cannot be told.
pub(crate) fn boot() -> SystemTime {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split('.').next().and_then(|seconds| seconds.parse().ok());
    let up = seconds.map(|seconds: u64| Duration::from_secs(seconds.saturating_add(2)));
    up.and_then(|up| SystemTime::now().checked_sub(up)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Seconds of the epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
