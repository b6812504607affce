//! One pod after the other, every contestant in turn.

use std::process::Command;
use std::time::{Duration, Instant};

use weft_e2e::{Result, binaries, output};

use crate::contestant::{Contestant, Guest};
use crate::progress::Progress;
use crate::times::Times;

/// What each contestant took, by its name.
pub(crate) type Turns = Vec<(String, Times)>;

pub(crate) fn measure(contestants: &[&Contestant], pods: u16, progress: &Progress) -> Result<Turns> {
    let mut turns: Turns = contestants.iter().map(|who| (who.name.clone(), Times::default())).collect();
    let mut gone = Vec::new();
    for number in 0..pods {
        progress.show("one by one", number.into(), pods.into());
        let mut order: Vec<_> = contestants.iter().zip(&mut turns).collect();
        // Who goes first changes with every turn.
        let first = usize::from(number) % order.len().max(1);
        order.rotate_left(first);
        // And so does who comes after whom: what the kernel puts off, as it does with the half of a DEL, the next one waits for.
        if number % 2 == 1 {
            order.reverse();
        }
        for (contestant, (_, times)) in order {
            gone.push(once(contestant, number, times)?);
        }
    }
    Ok(turns)
}

/// Attaches a pod and detaches it again. To be kept until all is measured: the kernel takes a namespace apart in the
/// background, and whoever comes next would wait for its locks.
pub(crate) fn once(contestant: &Contestant, number: u16, times: &mut Times) -> Result<Guest> {
    let guest = contestant.guest(number)?;
    let (add, result) = contestant.add(&guest)?;
    times.add.push(add);
    times.del.push(contestant.del(&guest, &result)?);
    Ok(guest)
}

/// The start of an empty static binary: nothing that is executed can take less.
pub(crate) fn process_start(times: u16) -> Result<Vec<Duration>> {
    let empty = binaries::system("busybox")?;
    let start_one = |_| {
        let start = Instant::now();
        output(Command::new(&empty).arg("true")).map(|_| start.elapsed())
    };
    (0..times).map(start_one).collect()
}
