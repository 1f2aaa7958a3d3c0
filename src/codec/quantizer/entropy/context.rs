//! How loud a record has been so far, in integers.
//!
//! Records differ in contrast: where the coordinates read so far were larger than usual, the next ones will be
//! too. The decoder knows those coordinates, so this costs no bits.

/// Classes of loudness.
pub(super) const CLASSES: usize = 6;
/// Upper ends of all classes but the last: heard over expected, in sixteenths.
const CLASS_ENDS: [u64; CLASSES - 1] = [7, 11, 15, 20, 27];
/// Unit of magnitudes.
pub(super) const UNIT: u32 = 256;
/// Largest expected magnitude: sums of them must fit.
pub(super) const EXPECTED_MAX: u32 = 1 << 20;
/// The past fades by one part in this power of two with each coordinate.
const FADE: u32 = 5;

/// Magnitudes heard and expected, both fading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Context {
    heard: u32,
    expected: u32,
}

impl Context {
    /// Before the first coordinate: as loud as expected.
    pub(super) fn start() -> Self {
        Self { heard: 4 * UNIT, expected: 4 * UNIT }
    }

    /// The class that chooses the next table.
    pub(super) fn class(self) -> usize {
        let heard = u64::from(self.heard) * 16;
        CLASS_ENDS.iter().take_while(|&&end| heard >= u64::from(self.expected) * end).count()
    }

    /// After a coordinate of `magnitude` steps where `expected` [`UNIT`]s were expected.
    pub(super) fn after(self, magnitude: u32, expected: u32) -> Self {
        // Clipped, so that one wild coordinate does not drown the rest.
        let heard = magnitude.saturating_mul(UNIT).min(expected * 4 + 2 * UNIT);
        let fade = |sum: u32| sum - (sum >> FADE);
        Self { heard: fade(self.heard) + heard, expected: fade(self.expected) + expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loud_and_quiet_records_reach_the_outer_classes_and_nothing_overflows() {
        let after =
            |magnitude, expected| (0..500).fold(Context::start(), |c, _| c.after(magnitude, expected));
        assert_eq!(after(0, UNIT).class(), 0);
        assert_eq!(after(1, UNIT).class(), 3);
        assert_eq!(after(9, UNIT).class(), CLASSES - 1);
        assert_eq!(after(u32::MAX, EXPECTED_MAX).class(), CLASSES - 1);
        assert!(Context::start().after(0, EXPECTED_MAX).class() == 0);
    }
}
