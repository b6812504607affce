//! How fast the requests of one stream are taken.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Lets a burst of requests through at once, and then so many per second (the generic cell rate algorithm, in one
/// number).
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// How far requests may run ahead.
    ahead: Duration,
    /// When all requests so far would have been due at an even pace.
    due: Option<Instant>,
}

impl Pace {
    pub(super) fn new(burst: NonZeroU32, per_second: NonZeroU32) -> Self {
        let interval = Duration::from_secs(1) / per_second.get();
        Self { interval, ahead: interval * (burst.get() - 1), due: None }
    }

    /// A request has been taken.
    pub(super) fn take(&mut self, now: Instant) {
        self.due = Some(self.due.unwrap_or(now).max(now) + self.interval);
    }

    /// When the next one may be, if that is not now.
    pub(super) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.due.and_then(|due| due.checked_sub(self.ahead)).filter(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(burst: u32, per_second: u32) -> Pace {
        Pace::new(NonZeroU32::new(burst).unwrap(), NonZeroU32::new(per_second).unwrap())
    }

    #[test]
    fn after_a_burst_requests_are_taken_at_an_even_pace() {
        let (mut pace, start) = (pace(3, 10), Instant::now());
        for _ in 0..3 {
            assert_eq!(pace.paused_until(start), None);
            pace.take(start);
        }
        let next = start + Duration::from_millis(100);
        assert_eq!(pace.paused_until(start), Some(next));
        assert_eq!(pace.paused_until(next), None);
        pace.take(next);
        assert_eq!(pace.paused_until(next), Some(start + Duration::from_millis(200)));
    }

    #[test]
    fn who_rests_may_have_a_burst_again_and_no_more() {
        let (mut pace, start) = (pace(3, 10), Instant::now());
        (0..3).for_each(|_| pace.take(start));
        let later = start + Duration::from_secs(100);
        (0..3).for_each(|_| pace.take(later));
        assert_eq!(pace.paused_until(later), Some(later + Duration::from_millis(100)));
    }
}
