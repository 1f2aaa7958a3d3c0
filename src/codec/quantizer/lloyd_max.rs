//! Lloyd-Max: the scalar quantizer of least mean squared error for a sample.
//!
//! Lloyd's two conditions in turn: each level is the mean of its cell, each cell border the midpoint of two
//! levels. On a sorted sample with prefix sums an iteration costs `levels * log(sample)`.

/// Most samples that are looked at; more change the levels by less than they cost.
const SAMPLE_MAX: usize = 20_000;
const ITERATIONS_MAX: usize = 80;
/// Relative improvement of the distortion below which Lloyd's iteration has converged.
const CONVERGED: f64 = 1e-5;

/// A sorted sample of one coordinate.
pub(super) struct Sample {
    sorted: Vec<f32>,
    /// `sum[i]` and `square[i]` are over the first `i` values.
    sum: Vec<f64>,
    square: Vec<f64>,
}

impl Sample {
    /// Takes an evenly spaced sample of column `column` of `[record, width]`.
    pub(super) fn of_column(latent: &[f32], width: usize, column: usize) -> Self {
        let rows = latent.len() / width;
        let step = rows.div_ceil(SAMPLE_MAX).max(1);
        let mut sorted: Vec<f32> = (0..rows).step_by(step).map(|row| latent[row * width + column]).collect();
        sorted.sort_unstable_by(f32::total_cmp);
        let prefix = |term: fn(f64) -> f64| {
            let mut sums = vec![0.0];
            let mut total = 0.0;
            for &value in &sorted {
                total += term(f64::from(value));
                sums.push(total);
            }
            sums
        };
        let (sum, square) = (prefix(|x| x), prefix(|x| x * x));
        Self { sorted, sum, square }
    }

    /// Levels in rising order, `2^bits` of them, and the mean squared error they leave.
    pub(super) fn lloyd_max(&self, bits: u8) -> (Vec<f32>, f64) {
        let count = 1_usize << bits;
        let n = self.sorted.len();
        // Quantiles of a density flattened to its cube root, the high-resolution optimum, are not known for a
        // sample; plain mid-quantiles mixed with an even grid start close enough for Lloyd's iteration to
        // finish.
        let (low, high) = (f64::from(self.sorted[0]), f64::from(self.sorted[n - 1]));
        let mut levels: Vec<f64> = (0..count)
            .map(|i| {
                let position = (i as f64 + 0.5) / count as f64;
                let quantile = f64::from(self.sorted[((position * n as f64) as usize).min(n - 1)]);
                let even = low + position * (high - low);
                0.75 * quantile + 0.25 * even
            })
            .collect();
        let mut distortion = f64::INFINITY;
        for _ in 0..ITERATIONS_MAX {
            let mut next = 0.0;
            let mut from = 0;
            for i in 0..count {
                let to = match levels.get(i + 1) {
                    Some(above) => {
                        let border = 0.5 * (levels[i] + above);
                        from + self.sorted[from..].partition_point(|&value| f64::from(value) < border)
                    }
                    None => n,
                };
                if to > from {
                    let cell = (to - from) as f64;
                    let sum = self.sum[to] - self.sum[from];
                    levels[i] = sum / cell;
                    next += self.square[to] - self.square[from] - sum * sum / cell;
                }
                from = to;
            }
            let next = (next / n as f64).max(0.0);
            let converged = distortion - next <= CONVERGED * next;
            distortion = next;
            if converged {
                break;
            }
        }
        let mut levels: Vec<f32> = levels.into_iter().map(|level| level as f32).collect();
        levels.sort_unstable_by(f32::total_cmp);
        (levels, distortion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn a_gaussian_sample_reaches_the_textbook_distortions() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        // Sum of twelve uniforms: close enough to a Gaussian for two digits.
        let values: Vec<f32> =
            (0..20_000).map(|_| (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0).collect();
        let sample = Sample::of_column(&values, 1, 0);
        for (bits, textbook) in [(0, 1.0), (1, 0.3634), (2, 0.1175), (3, 0.0345), (4, 0.0095)] {
            let (levels, distortion) = sample.lloyd_max(bits);
            assert_eq!(levels.len(), 1 << bits);
            assert!((distortion / textbook - 1.0).abs() < 0.06, "{bits} bits: {distortion}, not {textbook}");
        }
    }

    #[test]
    fn a_constant_column_has_no_distortion() {
        let (levels, distortion) = Sample::of_column(&[2.5; 40], 1, 0).lloyd_max(3);
        assert_eq!(distortion, 0.0);
        assert!(levels.contains(&2.5));
    }
}
