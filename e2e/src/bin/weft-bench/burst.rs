//! Many pods at once.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use weft_e2e::{Result, chain};

use crate::contestant::Contestant;
use crate::progress::Progress;
use crate::times::Times;

/// What became of a contestant's burst.
#[derive(Debug)]
pub(crate) struct Burst {
    pub(crate) name: String,
    pub(crate) times: Times,
    pub(crate) all_added: Duration,
    pub(crate) all_deleted: Duration,
    /// What those pods' plugins said that could not be attached or detached.
    pub(crate) failures: Vec<String>,
}

pub(crate) fn measure(
    contestants: &[&Contestant],
    pods: u16,
    at_once: usize,
    progress: &Progress,
) -> Result<Vec<Burst>> {
    let one = |(index, contestant): (usize, &&Contestant)| {
        progress.show(&format!("a burst of {pods}: {}", contestant.name), index, contestants.len());
        burst(contestant, pods, at_once)
    };
    contestants.iter().enumerate().map(one).collect()
}

fn burst(contestant: &Contestant, pods: u16, at_once: usize) -> Result<Burst> {
    let guests = (0..pods).map(|number| contestant.guest(number)).collect::<Result<Vec<_>>>()?;
    let (all_added, added) = timed(|| parallel(&guests, at_once, |guest| contestant.add(guest)));
    let mut times = Times::default();
    let (mut failures, mut attached) = (Vec::new(), Vec::new());
    for (guest, outcome) in guests.iter().zip(added) {
        match outcome {
            Ok((took, result)) => {
                times.add.push(took);
                attached.push((guest, result));
            }
            Err(error) => failures.push(chain(&error)),
        }
    }
    let (all_deleted, deleted) =
        timed(|| parallel(&attached, at_once, |(guest, result)| contestant.del(guest, result)));
    for outcome in deleted {
        match outcome {
            Ok(took) => times.del.push(took),
            Err(error) => failures.push(chain(&error)),
        }
    }
    Ok(Burst { name: contestant.name.clone(), times, all_added, all_deleted, failures })
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

/// Does `work` to all of `items`, `width` at a time, and returns what came of each, in their order.
pub(crate) fn parallel<T: Sync, U: Send>(
    items: &[T],
    width: usize,
    work: impl Fn(&T) -> Result<U> + Sync,
) -> Vec<Result<U>> {
    let queue = Mutex::new(items.iter().enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let worker = || std::iter::from_fn(next).map(|(index, item)| (index, work(item))).collect::<Vec<_>>();
    let mut outcomes: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..width.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(join).collect()
    });
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_at_once_comes_back_in_order() {
        let items: Vec<u32> = (0..100).collect();
        let outcomes = parallel(&items, 7, |item| Ok(item * 2));
        assert!(outcomes.into_iter().map(Result::unwrap).eq((0..100).map(|item| item * 2)));
        assert_eq!(parallel(&[1], 0, |item| Ok(*item)).len(), 1);
    }
}
