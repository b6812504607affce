//! Waiting for an event with a deadline.
//!
//! The programs that are driven here offer no notification, so they are looked at again and again. A test never
//! waits for time to pass: it names the event and how long it may take at most.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};

const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Looks until there is something to see, and returns it. `look` says in its error what it saw instead.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> std::result::Result<T, String>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(seen) => return Ok(seen),
            Err(last) if Instant::now() >= deadline => {
                return Err(Error::Deadline { what: what.to_owned(), limit, last });
            }
            Err(_) => std::thread::sleep(BETWEEN_LOOKS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sight_ends_the_wait() {
        let mut looks = 0..;
        let seen = until("the third look", Duration::from_secs(5), || match looks.next() {
            Some(look) if look >= 2 => Ok(look),
            _ => Err("too early".to_owned()),
        });
        assert_eq!(seen.unwrap(), 2);
    }

    #[test]
    fn a_deadline_that_passes_tells_what_was_seen_last() {
        let never = until::<()>("godot", Duration::ZERO, || Err("an empty road".to_owned()));
        assert_eq!(never.unwrap_err().to_string(), "waited 0ns for godot, in vain: an empty road");
    }
}
