//! How often something is put back that somebody takes away again and again: at once the first times, then slower and slower, and
//! never silently.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::status::Board;

/// Between two looks, so that a burst of losses is one of them.
const PAUSE: Duration = Duration::from_millis(100);
/// What is remembered.
const WHILE: Duration = Duration::from_secs(60);
/// So many repairs within it are somebody's doing.
const MANY: usize = 10;
/// Between two repairs then. It doubles with each further [`MANY`].
const STORM_PAUSE: Duration = Duration::from_secs(1);
const MOST_DOUBLINGS: usize = 3;

/// The repairs of one kind of thing. One that goes on is in the status for as long as it does.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// What is repaired, as the status calls it.
    what: &'static str,
    board: Board,
    recent: Recent,
    /// The last thing that was put back, in words.
    last: String,
}

/// When something was put back of late. Pure.
#[derive(Debug, Default)]
struct Recent(VecDeque<Instant>);

impl Throttle {
    pub(crate) fn of(what: &'static str, board: &Board) -> Self {
        Self { what, board: board.clone(), recent: Recent::default(), last: String::new() }
    }

    /// Notes that something was put back.
    pub(crate) fn note(&mut self, last: impl Into<String>) {
        self.recent.note(Instant::now());
        self.last = last.into();
    }

    /// How long nothing more is put back, and says so where it is long.
    pub(crate) fn pause(&mut self) -> Duration {
        let storm = self.recent.storm(Instant::now());
        self.tell(storm);
        self.recent.pause()
    }

    fn tell(&self, storm: Option<usize>) {
        let was = self.board.read().repair.storms.contains_key(self.what);
        match storm {
            Some(count) => {
                let words = self.says(count);
                if !was {
                    tracing::error!("{words}");
                }
                self.board.write(|status| drop(status.repair.storms.insert(self.what.to_owned(), words)));
            }
            None if was => {
                tracing::info!("nobody takes away {} any more", self.what);
                self.board.write(|status| drop(status.repair.storms.remove(self.what)));
            }
            None => {}
        }
    }

    fn says(&self, count: usize) -> String {
        let Self { what, last, .. } = self;
        format!(
            "somebody goes on taking away {what}: they were put back {count} times in the last minute, and are now put back more \
             slowly; the last time it was {last}; stop who does it (`ip monitor`, `nft monitor` and the agent's log show more)"
        )
    }
}

impl Recent {
    fn note(&mut self, now: Instant) {
        self.0.push_back(now);
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        while self.0.front().is_some_and(|first| now.duration_since(*first) > WHILE) {
            self.0.pop_front();
        }
    }

    fn storm(&mut self, now: Instant) -> Option<usize> {
        self.forget(now);
        Some(self.0.len()).filter(|count| *count >= MANY)
    }

    fn pause(&self) -> Duration {
        match (self.0.len() / MANY).checked_sub(1) {
            Some(more) => STORM_PAUSE * (1 << more.min(MOST_DOUBLINGS)),
            None => PAUSE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repaired(recent: &mut Recent, count: usize, start: Instant) {
        (0..count).for_each(|nth| recent.note(start + Duration::from_millis(nth as u64)));
    }

    #[test]
    fn the_first_times_are_answered_at_once_and_then_slower_and_slower() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        repaired(&mut recent, 9, start);
        assert_eq!((recent.pause(), recent.storm(start)), (PAUSE, None));
        for (more, seconds) in [(1, 1), (10, 2), (10, 4), (10, 8), (100, 8)] {
            repaired(&mut recent, more, start);
            assert_eq!(recent.pause(), Duration::from_secs(seconds));
        }
        assert_eq!(recent.storm(start), Some(140));
        assert_eq!(recent.storm(start + Duration::from_secs(62)), None, "it is over");
        assert_eq!(recent.pause(), PAUSE);
    }

    #[test]
    fn who_goes_on_is_in_the_status_with_what_was_last_until_it_ends() {
        let board = Board::default();
        let mut throttle = Throttle::of("routes", &board);
        for _ in 0..9 {
            throttle.note("a route");
            assert_eq!(throttle.pause(), PAUSE);
        }
        assert!(board.read().all_warnings().is_empty());
        throttle.note("a route of bird");
        assert_eq!(throttle.pause(), STORM_PAUSE);
        let warnings = board.read().all_warnings();
        assert!(
            matches!(&warnings[..], [one] if one.contains("10 times") && one.contains("a route of bird")),
            "{warnings:?}"
        );
        throttle.recent = Recent::default();
        assert_eq!(throttle.pause(), PAUSE);
        assert!(board.read().all_warnings().is_empty());
    }
}
