//! Measures of a reconstruction. PSNR is always of the mean error, for values in `[0, 1]`.

use crate::record::Records;

/// Mean squared error per element between two sets of records.
///
/// # Panics
/// When the two differ in shape or number.
pub fn mean_squared_error(records: &Records, decoded: &Records) -> f64 {
    assert_eq!((records.shape(), records.len()), (decoded.shape(), decoded.len()), "two sets of one size");
    let sum: f64 = records
        .values()
        .iter()
        .zip(decoded.values())
        .map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2))
        .sum();
    sum / records.values().len() as f64
}

/// Peak signal-to-noise ratio of a mean squared error, in decibels, for a peak of 1.
pub fn psnr_db(mean_squared_error: f64) -> f64 {
    -10.0 * mean_squared_error.log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn psnr_of_a_hundredth_is_twenty() {
        let zeros = Records::from_values(apcm_format::RecordShape::new(&[2]).unwrap(), vec![0.0; 4]).unwrap();
        let tenths = Records::from_values(zeros.shape(), vec![0.1; 4]).unwrap();
        assert!((psnr_db(mean_squared_error(&zeros, &tenths)) - 20.0).abs() < 1e-6);
    }
}
