//! What each policy makes of a memory's uses: a *rank*; the lowest leaves first.
//!
//! Time is the store's own: a *tick* is how many reads and writes it had seen. A rank never falls while a
//! memory stays, so a search for a victim may start from outdated ranks (`victims.rs`).

use apcm_format::Policy;

/// Bits of a [`weight`] behind its leading one.
const FRACTION: u32 = 31;
const ONE: u64 = 1 << FRACTION;
const MOST: u64 = u64::MAX;

/// A policy at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule(pub(crate) Policy);

impl Rule {
    /// Whether ranks are words of their own, kept for each slot; if not they follow from the counts.
    pub(crate) fn keeps_words(self) -> bool {
        matches!(self.0, Policy::Lru | Policy::LfuAged { .. })
    }

    /// Rank of a slot with this access count and this word.
    pub(crate) fn rank(self, count: u32, word: u64) -> u64 {
        match self.0 {
            Policy::Lru | Policy::LfuAged { .. } => word,
            Policy::Fifo => 0,
            _ => count.into(),
        }
    }

    /// Rank of a memory that is written now.
    pub(crate) fn written(self, tick: u64) -> u64 {
        match self.0 {
            Policy::Lru => tick,
            Policy::LfuAged { half_life } => weight(tick, half_life),
            _ => 0,
        }
    }

    /// Rank of a memory that takes the place of another under the same key now.
    pub(crate) fn replaced(self, rank: u64, tick: u64) -> u64 {
        match self.0 {
            Policy::Lru | Policy::LfuAged { .. } => self.read(rank, tick),
            _ => rank,
        }
    }

    /// Word of a slot that is read now.
    pub(crate) fn read(self, word: u64, tick: u64) -> u64 {
        match self.0 {
            Policy::Lru => word.max(tick),
            Policy::LfuAged { half_life } => sum(word, weight(tick, half_life)),
            _ => word,
        }
    }

    /// Word of a memory of which only this is known: when it was written and how often it was read since. What
    /// uses it had were, for all one knows, all at once and just then.
    pub(crate) fn estimated(self, written: u64, count: u32) -> u64 {
        match self.0 {
            Policy::LfuAged { half_life } => times(weight(written, half_life), count.saturating_add(1)),
            _ => self.written(written),
        }
    }
}

/// What a use weighs at a tick, as a binary floating-point number: the exponent, then the fraction behind a
/// leading one.
///
/// Instead of halving all old weights, new ones double every half-life, so no order ever changes by itself.
/// Between doublings a weight grows in a straight line: the bits of such a number are the tick divided by the
/// half-life. Memories that were used once therefore stand in the order of those uses, as under LRU. Numbers
/// stand in the order of their bits; 0 is none.
fn weight(tick: u64, half_life: u32) -> u64 {
    let half_life = u64::from(half_life.max(1));
    let epochs = tick / half_life;
    let part = ((tick % half_life) << FRACTION) / half_life;
    // Exponents start at one, so that the first weight is not none.
    epochs.checked_add(1).and_then(|exponent| exponent.checked_mul(ONE)).map_or(MOST, |bits| bits | part)
}

/// The exponent of such a number, and its fraction with the leading one.
fn parts(number: u64) -> (u64, u64) {
    (number >> FRACTION, ONE | (number & (ONE - 1)))
}

/// The number `mantissa * 2^exponent`, where the mantissa has its leading one at [`FRACTION`] or above; rounded
/// down.
fn joined(exponent: u64, mantissa: u64) -> u64 {
    let excess = u64::from(mantissa.ilog2() - FRACTION);
    let mantissa = mantissa >> excess;
    match exponent.checked_add(excess) {
        Some(exponent) if exponent < MOST >> FRACTION => (exponent << FRACTION) | (mantissa & (ONE - 1)),
        _ => MOST,
    }
}

/// The sum of two such numbers, rounded down.
fn sum(a: u64, b: u64) -> u64 {
    let (high, low) = (a.max(b), a.min(b));
    if low == 0 {
        return high;
    }
    let ((exponent, mantissa), (lower, addend)) = (parts(high), parts(low));
    let shift = u32::try_from(exponent - lower).unwrap_or(u32::MAX);
    joined(exponent, mantissa + addend.checked_shr(shift).unwrap_or(0))
}

/// Such a number so many times, rounded down.
fn times(number: u64, factor: u32) -> u64 {
    match (number, factor) {
        (0, _) | (_, 0) => 0,
        _ => {
            let (exponent, mantissa) = parts(number);
            joined(exponent, mantissa * u64::from(factor))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn real(number: u64) -> f64 {
        let (exponent, mantissa) = parts(number);
        mantissa as f64 / ONE as f64 * 2_f64.powi(exponent as i32)
    }

    #[test]
    fn a_use_weighs_half_of_one_a_half_life_later() {
        for (tick, half_life) in [(0, 1), (0, 1_000), (777, 1_000), (123_456, 333)] {
            let (now, later) =
                (real(weight(tick, half_life)), real(weight(tick + u64::from(half_life), half_life)));
            assert_eq!(later, 2.0 * now);
        }
        // Two uses now are as good as one a half-life later, which then is the younger.
        let now = weight(50, 100);
        assert_eq!(sum(now, now), weight(150, 100));
        assert_eq!(times(now, 2), sum(now, now));
    }

    #[test]
    fn what_was_used_once_stands_in_the_order_of_uses() {
        let rule = Rule(Policy::LfuAged { half_life: 77 });
        let ranks: Vec<u64> = (0..1_000).map(|tick| rule.written(tick)).collect();
        assert!(ranks.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn numbers_too_large_to_keep_are_the_largest() {
        assert_eq!(weight(MOST, 1), MOST);
        assert_eq!(sum(MOST, MOST), MOST);
        assert_eq!(times(MOST, MOST as u32), MOST);
    }

    proptest! {
        /// Ranks are what exact arithmetic makes of the same uses, within what 32 bits of mantissa lose.
        #[test]
        fn ranks_are_decayed_counts(ticks in prop::collection::vec(0_u64..5_000, 1..60),
            half_life in 50_u32..2_000) {
            let mut ticks = ticks;
            ticks.sort_unstable();
            let rule = Rule(Policy::LfuAged { half_life });
            let rank = ticks[1..].iter().fold(rule.written(ticks[0]), |word, &tick| rule.read(word, tick));
            let exact: f64 = ticks.iter().map(|&tick| real(weight(tick, half_life))).sum();
            let lost = (exact - real(rank)) / exact;
            prop_assert!((0.0..60.0 / f64::from(1 << 30)).contains(&lost), "{lost}");
        }

        /// A use never lowers a rank, whatever the policy: victims are looked for on that ground.
        #[test]
        fn a_rank_never_falls(word: u64, tick: u64, count: u32, half_life: u32) {
            for policy in [Policy::Lfu, Policy::Lru, Policy::Fifo, Policy::LfuAged { half_life }] {
                let rule = Rule(policy);
                let before = rule.rank(count, word);
                prop_assert!(rule.rank(count.saturating_add(1), rule.read(word, tick)) >= before);
                prop_assert!(rule.replaced(before, tick) >= before);
            }
        }
    }
}
