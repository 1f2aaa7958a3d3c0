//! Principal axes of a sample, in `f64`.
//!
//! Eigenvectors of the covariance of centred data, largest variance first. With fewer records than values the
//! Gram matrix has the same spectrum and is smaller, so that one is taken apart instead.

use crate::error::{Error, Result};
use crate::record::Records;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par, Side};

/// Rows that are centred and multiplied at a time.
const BLOCK: usize = 1_024;
/// Largest matrix that is taken apart: 8,192 squared in `f64` is 512 MiB and minutes of work.
const ORDER_MAX: usize = 8_192;
/// An axis with less than this share of the largest variance is rounding, not data.
const RANK_TOLERANCE: f64 = 1e-12;

/// Mean, axes and variances of a sample.
pub(crate) struct PrincipalAxes {
    /// Mean of the sample, `[value]`.
    pub(crate) mean: Vec<f64>,
    /// Orthonormal axes, `[value, axis]`, largest variance first.
    pub(crate) axes: Mat<f64>,
    /// Variance along each axis.
    pub(crate) variances: Vec<f64>,
}

impl PrincipalAxes {
    /// Fits the axes of the given rows of `records`.
    pub(crate) fn fit(records: &Records, rows: &[usize]) -> Result<Self> {
        let width = records.shape().values();
        // Beyond the order limit both ways an even sample of the rows stands for all of them.
        let stride = if width > ORDER_MAX { rows.len().div_ceil(ORDER_MAX).max(1) } else { 1 };
        let rows: Vec<usize> = rows.iter().copied().step_by(stride).collect();
        let n = rows.len();
        let mut mean = vec![0.0; width];
        for &row in &rows {
            for (sum, &value) in mean.iter_mut().zip(records.row(row)) {
                *sum += f64::from(value);
            }
        }
        mean.iter_mut().for_each(|sum| *sum /= n as f64);
        let centred = |rows: &[usize]| {
            Mat::from_fn(rows.len(), width, |i, j| f64::from(records.row(rows[i])[j]) - mean[j])
        };
        let (axes, variances) = if n < width {
            let data = centred(&rows);
            let mut gram = Mat::zeros(n, n);
            matmul(&mut gram, Accum::Replace, &data, data.transpose(), 1.0 / n as f64, Par::rayon(0));
            let (vectors, variances) = eigen(&gram)?;
            let mut axes = Mat::zeros(width, variances.len());
            matmul(&mut axes, Accum::Replace, data.transpose(), &vectors, 1.0, Par::rayon(0));
            for (j, variance) in variances.iter().enumerate() {
                let scale = 1.0 / (variance * n as f64).sqrt();
                for i in 0..width {
                    axes[(i, j)] *= scale;
                }
            }
            (axes, variances)
        } else {
            let mut covariance = Mat::zeros(width, width);
            for block in rows.chunks(BLOCK) {
                let data = centred(block);
                matmul(&mut covariance, Accum::Add, data.transpose(), &data, 1.0 / n as f64, Par::rayon(0));
            }
            eigen(&covariance)?
        };
        Ok(Self { mean, axes, variances })
    }
}

/// Eigenvectors as columns and eigenvalues, largest first, without those that are rounding.
pub(super) fn eigen(matrix: &Mat<f64>) -> Result<(Mat<f64>, Vec<f64>)> {
    let solved = matrix.self_adjoint_eigen(Side::Lower).map_err(|cause| {
        Error::argument(
            "the training data",
            "numbers whose covariance has eigenvectors",
            format!("{cause:?}"),
        )
    })?;
    let order = matrix.nrows();
    let value = |rising: usize| solved.S().column_vector()[rising];
    let floor = value(order - 1).max(0.0) * RANK_TOLERANCE;
    let rank = (0..order).rev().take_while(|&rising| value(rising) > floor).count();
    // An eigenvector's sign is the solver's whim; with its largest component positive it is ours.
    let signs: Vec<f64> = (0..rank)
        .map(|j| {
            let component = |k| solved.U()[(k, order - 1 - j)];
            let largest =
                (0..order).map(component).fold(0.0_f64, |a, b| if b.abs() > a.abs() { b } else { a });
            largest.signum()
        })
        .collect();
    let vectors = Mat::from_fn(order, rank, |i, j| solved.U()[(i, order - 1 - j)] * signs[j]);
    Ok((vectors, (0..rank).map(|j| value(order - 1 - j)).collect()))
}
