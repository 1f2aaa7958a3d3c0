//! How little a Gaussian source with these records' covariance can lose.

use super::principal_axes::PrincipalAxes;
use super::quantizer::water::{left, rate, water_level};
use crate::error::Result;
use crate::record::{Records, column_means};

/// The Gaussian rate-distortion function: axes from training records, variances along them from held-out ones,
/// so that nothing is fitted to what is judged.
///
/// A codec that uses second-order statistics alone cannot lose less; one that does is using more. (Cover and
/// Thomas, section 10.3.3.)
#[derive(Debug, Clone)]
pub struct GaussianBound {
    variances: Vec<f64>,
    /// Squared length of what no training axis carries, averaged.
    outside: f64,
    values: usize,
}

impl GaussianBound {
    /// Takes axes from `training` and variances from `held_out`.
    ///
    /// # Errors
    /// [`Argument`](crate::Error::Argument) for a covariance that has no eigenvectors.
    pub fn new(training: &Records, held_out: &Records) -> Result<Self> {
        let rows: Vec<usize> = (0..training.len()).collect();
        let axes = PrincipalAxes::fit(training, &rows)?;
        let values = training.shape().values();
        let mean = column_means(training.values(), values);
        let rank = axes.variances.len();
        let (mut variances, mut total) = (vec![0.0_f64; rank], 0.0);
        for row in held_out.rows() {
            let centred: Vec<f64> = row.iter().zip(&mean).map(|(x, mean)| f64::from(x - mean)).collect();
            total += centred.iter().map(|x| x * x).sum::<f64>();
            for (axis, variance) in variances.iter_mut().enumerate() {
                let along: f64 = centred.iter().enumerate().map(|(i, x)| x * axes.axes[(i, axis)]).sum();
                *variance += along * along;
            }
        }
        let count = held_out.len().max(1) as f64;
        variances.iter_mut().for_each(|variance| *variance /= count);
        let outside = (total / count - variances.iter().sum::<f64>()).max(0.0);
        Ok(Self { variances, outside, values })
    }

    /// Mean squared error per element at a rate.
    pub fn error_at(&self, bytes: f64) -> f64 {
        let level = water_level(&self.variances, |level| rate(&self.variances, level) > 8.0 * bytes);
        (left(&self.variances, level) + self.outside) / self.values as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_quarters_the_error_of_one_gaussian_coordinate() {
        let values: Vec<f32> = (0..500).map(|i| ((i * 37) % 101) as f32).collect();
        let shape = apcm_format::RecordShape::new(&[1]).unwrap();
        let records = Records::from_values(shape, values).unwrap();
        let bound = GaussianBound::new(&records, &records).unwrap();
        assert!((bound.error_at(0.25) / bound.error_at(0.125) - 0.25).abs() < 1e-9);
    }
}
