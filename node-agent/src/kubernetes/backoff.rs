//! How long to leave an API alone that has failed.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Pauses that double from half a second to half a minute. Each is shortened by chance to as little as half, so that the
/// nodes of a cluster whose API comes back do not all ask at the same moment.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    chance: RandomState,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST, chance: RandomState::new() }
    }
}

impl Backoff {
    /// The pause after a failure.
    pub(super) fn pause(&mut self) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(LONGEST);
        self.shortened(longest)
    }

    /// Anything between the half and the whole of it.
    pub(super) fn shortened(&mut self, longest: Duration) -> Duration {
        self.chance = RandomState::new();
        let share = self.chance.hash_one(()) % 1024;
        longest / 2 + longest / 2 * u32::try_from(share).unwrap_or(0) / 1024
    }

    /// All is well: the next failure is a first one.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_stay_within_bounds() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..12).map(|_| backoff.pause()).collect();
        assert!(pauses.iter().all(|pause| (FIRST / 2..=LONGEST).contains(pause)), "{pauses:?}");
        assert!(pauses[11] >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }

    #[test]
    fn two_agents_do_not_pause_for_the_same_time() {
        let pauses = || (0..8).map(|_| Backoff::default().pause()).collect::<Vec<_>>();
        assert_ne!(pauses(), pauses());
    }
}
