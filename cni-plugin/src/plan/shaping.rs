//! Token buckets from limits.

use weft_datapath::Shaping;

use crate::config::Limit;

/// The burst is what is asked for, within bounds that the rate sets.
///
/// Above: what the rate passes in 20 ms. containerd and CRI-O ask for 4 Gbit where an annotation names only a rate, and
/// the first half gigabyte would pass unshaped. With less than this, a 10 Gbit/s stream loses 10 % of its rate to timers on
/// a busy node.
///
/// Below: 1 ms, and 16 kB. With 3 kB, a 1 Gbit/s stream came to 0.56 of its rate.
///
/// `docs/adr/0009-shaping-at-both-ends.md` has the measurements.
pub(super) fn shaping(limit: Limit) -> Shaping {
    const FLOOR: u64 = 16_000;
    let most = FLOOR.max(limit.rate / 50);
    let least = FLOOR.max(limit.rate / 1000);
    let burst = limit.burst.clamp(least, most);
    Shaping { rate: limit.rate, burst: u32::try_from(burst).unwrap_or(u32::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_what_is_asked_for_within_what_the_rate_sets() {
        const MBIT: u64 = 1_000_000 / 8;
        const UNLIMITED: u64 = u32::MAX as u64 / 8;
        for (rate, asked, burst) in [
            (1, 1, 16_000),
            (MBIT, UNLIMITED, 16_000),
            (10 * MBIT, UNLIMITED, 25_000),
            (10 * MBIT, 20_000, 20_000),
            (1000 * MBIT, 3_000, 125_000),
            (1000 * MBIT, 400_000, 400_000),
            (1000 * MBIT, UNLIMITED, 2_500_000),
            (u64::MAX, u64::from(u32::MAX), u32::MAX),
        ] {
            assert_eq!(shaping(Limit { rate, burst: asked }), Shaping { rate, burst }, "{rate} {asked}");
        }
    }
}
