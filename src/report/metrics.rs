//! Measures of a reconstruction and of a search.
//!
//! Sums run in `f64`. Two sets of records that are compared must agree in shape and number; those that do not
//! are a mistake in the caller's program, and panic.

use crate::record::Records;

/// Mean squared error per element between two sets of records.
///
/// # Panics
/// When the two differ in shape or number, here and below.
pub fn mean_squared_error(records: &Records, decoded: &Records) -> f64 {
    mean_of_pairs(records, decoded, |difference| difference * difference)
}

/// Mean absolute error per element.
///
/// # Panics
/// As [`mean_squared_error`].
pub fn mean_absolute_error(records: &Records, decoded: &Records) -> f64 {
    mean_of_pairs(records, decoded, f64::abs)
}

/// Mean squared error per element of each record.
///
/// # Panics
/// As [`mean_squared_error`].
pub fn squared_errors(records: &Records, decoded: &Records) -> Vec<f64> {
    check(records, decoded);
    let error = |(record, decoded): (&[f32], &[f32])| {
        let squared = record.iter().zip(decoded).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2));
        squared.sum::<f64>() / record.len() as f64
    };
    records.rows().zip(decoded.rows()).map(error).collect()
}

/// Peak signal-to-noise ratio of a mean squared error, in decibels, for a peak of 1. Of the *mean* error, this
/// is the first of the two ways in use.
pub fn psnr_db(mean_squared_error: f64) -> f64 {
    -10.0 * mean_squared_error.log10()
}

/// The second way: the mean of the records' own ratios, never smaller (Jensen). None for no record, infinite
/// where one was reconstructed exactly.
pub fn mean_psnr_db(errors: &[f64]) -> Option<f64> {
    (!errors.is_empty())
        .then(|| errors.iter().map(|&error| psnr_db(error)).sum::<f64>() / errors.len() as f64)
}

/// Squared error over the squared deviation from the mean record: 1 for a method that always returns the mean.
/// None where all records are the same.
///
/// # Panics
/// As [`mean_squared_error`].
pub fn relative_error(records: &Records, decoded: &Records) -> Option<f64> {
    let deviation = variance(records);
    (deviation > 0.0).then(|| mean_squared_error(records, decoded) / deviation)
}

/// Mean squared deviation per element from the mean record.
pub fn variance(records: &Records) -> f64 {
    let width = records.shape().values();
    let count = records.len().max(1) as f64;
    let mut mean = vec![0.0_f64; width];
    for row in records.rows() {
        mean.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) / count);
    }
    let squared: f64 = records
        .rows()
        .map(|row| row.iter().zip(&mean).map(|(&x, mean)| (f64::from(x) - mean).powi(2)).sum::<f64>())
        .sum();
    squared / (count * width as f64)
}

/// Side and deviation of the window that SSIM looks through.
const WINDOW: usize = 11;
const WINDOW_DEVIATION: f64 = 1.5;

/// Structural similarity of two pictures in `[0, 1]`, as Wang et al. (2004) define it: an 11 x 11 Gaussian
/// window of deviation 1.5, population covariances, `K1` = 0.01, `K2` = 0.03, only windows that lie inside.
///
/// None for pictures smaller than the window.
///
/// # Shapes
/// - `picture`, `other`: `[height, width]`, one row after the other
pub fn ssim(picture: &[f32], other: &[f32], width: usize) -> Option<f64> {
    let height = picture.len().checked_div(width)?;
    if width < WINDOW || height < WINDOW || picture.len() != other.len() || picture.len() != width * height {
        return None;
    }
    let middle = (WINDOW / 2) as f64;
    let weights: Vec<f64> = (0..WINDOW)
        .map(|i| (-(i as f64 - middle).powi(2) / (2.0 * WINDOW_DEVIATION.powi(2))).exp())
        .collect();
    let total: f64 = weights.iter().sum();
    let weights: Vec<f64> = weights.into_iter().map(|weight| weight / total).collect();
    // The window is a product, so each filter is two passes of one axis.
    let filtered = |value: &dyn Fn(usize) -> f64| -> Vec<f64> {
        let (columns, rows) = (width - WINDOW + 1, height - WINDOW + 1);
        let across: Vec<f64> = (0..height)
            .flat_map(|y| (0..columns).map(move |x| (y, x)))
            .map(|(y, x)| weights.iter().enumerate().map(|(i, w)| w * value(y * width + x + i)).sum())
            .collect();
        (0..rows)
            .flat_map(|y| (0..columns).map(move |x| (y, x)))
            .map(|(y, x)| weights.iter().enumerate().map(|(i, w)| w * across[(y + i) * columns + x]).sum())
            .collect()
    };
    let (a, b) = (|i: usize| f64::from(picture[i]), |i: usize| f64::from(other[i]));
    let (mean_a, mean_b) = (filtered(&a), filtered(&b));
    let (square_a, square_b) = (filtered(&|i| a(i) * a(i)), filtered(&|i| b(i) * b(i)));
    let product = filtered(&|i| a(i) * b(i));
    let (c1, c2) = (0.01_f64.powi(2), 0.03_f64.powi(2));
    let sum: f64 = (0..mean_a.len())
        .map(|i| {
            let (x, y) = (mean_a[i], mean_b[i]);
            let (xx, yy, xy) = (square_a[i] - x * x, square_b[i] - y * y, product[i] - x * y);
            ((2.0 * x * y + c1) * (2.0 * xy + c2)) / ((x * x + y * y + c1) * (xx + yy + c2))
        })
        .sum();
    Some(sum / mean_a.len() as f64)
}

/// Share of the true `k` nearest that are among the `k` found, averaged over queries: overlap recall@k. None
/// without queries or with an empty truth.
///
/// # Shapes
/// - `found`, `truth`: `[query][rank]`; only the first `k` of each count
pub fn recall_at(k: usize, found: &[Vec<usize>], truth: &[Vec<usize>]) -> Option<f64> {
    assert_eq!(found.len(), truth.len(), "as many answers as queries");
    let wanted: usize = truth.iter().map(|truth| truth.len().min(k)).sum();
    let hits: usize = found
        .iter()
        .zip(truth)
        .map(|(found, truth)| {
            truth.iter().take(k).filter(|&wanted| found.iter().take(k).any(|found| found == wanted)).count()
        })
        .sum();
    (wanted > 0).then(|| hits as f64 / wanted as f64)
}

fn mean_of_pairs(records: &Records, decoded: &Records, of: impl Fn(f64) -> f64) -> f64 {
    check(records, decoded);
    let pairs = records.values().iter().zip(decoded.values());
    pairs.map(|(&x, &y)| of(f64::from(x) - f64::from(y))).sum::<f64>() / records.values().len() as f64
}

fn check(records: &Records, decoded: &Records) {
    assert_eq!((records.shape(), records.len()), (decoded.shape(), decoded.len()), "two sets of one size");
}

#[cfg(test)]
mod tests {
    use super::*;
    use apcm_format::RecordShape;

    fn records(width: usize, values: &[f32]) -> Records {
        Records::from_values(RecordShape::new(&[width]).unwrap(), values.to_vec()).unwrap()
    }

    #[test]
    fn errors_computed_by_hand() {
        let x = records(2, &[0.0, 1.0, 0.5, 0.5]);
        let y = records(2, &[0.5, 1.0, 0.5, 0.25]);
        // (0.25 + 0 + 0 + 0.0625) / 4, (0.5 + 0.25) / 4
        assert_eq!(mean_squared_error(&x, &y), 0.078_125);
        assert_eq!(mean_absolute_error(&x, &y), 0.187_5);
        assert_eq!(squared_errors(&x, &y), [0.125, 0.031_25]);
        // Means 0.25 and 0.75; deviations 0.25 each.
        assert_eq!(variance(&x), 0.0625);
        assert_eq!(relative_error(&x, &y), Some(1.25));
        assert_eq!(relative_error(&records(2, &[1.0, 2.0]), &records(2, &[1.0, 3.0])), None);
    }

    #[test]
    fn a_hundredth_is_twenty_decibels_and_the_mean_of_ratios_is_no_smaller() {
        assert!((psnr_db(0.01) - 20.0).abs() < 1e-12);
        let errors = [0.1, 0.001];
        assert!((mean_psnr_db(&errors).unwrap() - 20.0).abs() < 1e-12);
        assert!(psnr_db(0.0505) < 20.0);
        assert_eq!(mean_psnr_db(&[]), None);
    }

    /// Against `skimage.metrics.structural_similarity` with `gaussian_weights`, `sigma` 1.5, no sample
    /// covariance, `data_range` 1, cropped to whole windows.
    #[test]
    fn ssim_agrees_with_scikit_image() {
        let picture: Vec<f32> = (0..16 * 16).map(|i| ((i * 37) % 101) as f32 / 100.0).collect();
        let other: Vec<f32> =
            picture.iter().enumerate().map(|(i, x)| x * 0.8 + ((i * 53) % 17) as f32 / 100.0).collect();
        assert!((ssim(&picture, &picture, 16).unwrap() - 1.0).abs() < 1e-12);
        assert!(
            (ssim(&picture, &other, 16).unwrap() - SKIMAGE).abs() < 1e-5,
            "{:?}",
            ssim(&picture, &other, 16)
        );
        assert_eq!(ssim(&picture[..100], &other[..100], 10), None);
    }
    const SKIMAGE: f64 = 0.956_884_864;

    #[test]
    fn recall_counts_what_both_lists_share() {
        let truth = vec![vec![1, 2, 3], vec![4, 5, 6]];
        let found = vec![vec![3, 9, 1], vec![7, 8, 9]];
        assert_eq!(recall_at(3, &found, &truth), Some(2.0 / 6.0));
        assert_eq!(recall_at(1, &found, &truth), Some(0.0));
        assert_eq!(recall_at(3, &[], &[]), None);
    }
}
