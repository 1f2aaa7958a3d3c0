//! Reverse water-filling: the rate-distortion function of a Gaussian source.
//!
//! With variances `v` and a water level `w`, each coordinate is coded with error `min(v, w)` at the rate
//! `max(0, log2(v / w) / 2)`. (Cover and Thomas, section 10.3.3.)

/// Bits of a Gaussian source at a water level.
pub(crate) fn rate(variances: &[f64], level: f64) -> f64 {
    variances.iter().map(|&variance| 0.5 * (variance / level).log2().max(0.0)).sum()
}

/// Distortion of a Gaussian source at a water level.
pub(crate) fn left(variances: &[f64], level: f64) -> f64 {
    variances.iter().map(|&variance| variance.min(level)).sum()
}

/// Reverse water-filling: the level where `too_low` turns false.
pub(crate) fn water_level(variances: &[f64], too_low: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, variances.iter().copied().fold(f64::MIN_POSITIVE, f64::max));
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if too_low(middle) { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_on_one_coordinate_leaves_a_quarter() {
        let level = water_level(&[4.0, 0.5], |level| rate(&[4.0, 0.5], level) > 1.0);
        assert!((level - 1.0).abs() < 1e-9);
        assert!((left(&[4.0, 0.5], level) - 1.5).abs() < 1e-9);
    }
}
