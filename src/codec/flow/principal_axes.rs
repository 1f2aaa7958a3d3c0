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
/// Pairs that a fit looks at; more tell no more.
const PAIRS_MAX: usize = 65_536;
/// Pairs that tell whether one coordinate goes with others.
const PAIRS_A_COORDINATE: usize = 16;
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

impl PrincipalAxes {
    /// Fits the axes of pairs of neighbouring states, each half of a record one of them, for a merge of the two.
    ///
    /// States are coordinates on principal axes already: centred, and uncorrelated among themselves. A sequence is taken to
    /// be stationary, so both halves have the same variances `v`, and all that is left to learn is how a state goes with the
    /// next, `B`: the covariance is `[[diag v, B], [B^T, diag v]]`. Of that a sample shows chance as well, which is cut
    /// away ([`beyond_chance`]). So of independent items the axes are the items' own, the larger half of them, however few pairs
    /// there are.
    pub(crate) fn fit_pairs(records: &Records, rows: &[usize]) -> Result<Self> {
        let half = records.shape().values() / 2;
        let rows = &rows[..rows.len().min(PAIRS_MAX)];
        let n = (rows.len() as f64).max(1.0);
        let mut variances = vec![0.0; half];
        let mut cross = Mat::zeros(half, half);
        for block in rows.chunks(BLOCK) {
            let side =
                |at: usize| Mat::from_fn(block.len(), half, |i, j| f64::from(records.row(block[i])[at + j]));
            let (left, right) = (side(0), side(half));
            for (j, variance) in variances.iter_mut().enumerate() {
                let squares = |side: &Mat<f64>| (0..block.len()).map(|i| side[(i, j)].powi(2)).sum::<f64>();
                *variance += (squares(&left) + squares(&right)) / (2.0 * n);
            }
            matmul(&mut cross, Accum::Add, left.transpose(), &right, 1.0 / n, Par::rayon(0));
        }
        let cross = beyond_chance(&cross, &variances, rows.len())?;
        let covariance = Mat::from_fn(2 * half, 2 * half, |i, j| match (i < half, j < half) {
            (true, false) => cross[(i, j - half)],
            (false, true) => cross[(j, i - half)],
            _ if i == j => variances[i % half],
            _ => 0.0,
        });
        let (axes, variances) = eigen(&covariance)?;
        Ok(Self { mean: vec![0.0; 2 * half], axes, variances })
    }
}

/// What a sample of `n` pairs says of the covariance of their halves, without what it would say of independent ones.
///
/// Between `r` coordinates of unit variance that have nothing to do with each other a sample shows singular values up to
/// `e = 2 g (1 + g)`, `g = sqrt(r / n)`. A value `y` above that stands for about `sqrt(y^2 - e^2)` (Gavish and Donoho, "Optimal
/// shrinkage of singular values", 2017), one below for nothing. Only as many coordinates are looked at, the strongest, as
/// there are pairs to tell anything of. Rejected: shrinking all of it by one factor, because chance is spread over all
/// directions and truth is in few (MNIST's writers come in an order; at 128 images that cost a tenth of the error).
fn beyond_chance(cross: &Mat<f64>, variances: &[f64], n: usize) -> Result<Mat<f64>> {
    let width = variances.len();
    let mut order: Vec<usize> = (0..width).filter(|&axis| variances[axis] > 0.0).collect();
    order.sort_by(|&a, &b| variances[b].total_cmp(&variances[a]).then(a.cmp(&b)));
    order.truncate(n / PAIRS_A_COORDINATE);
    let mut kept = Mat::zeros(width, width);
    if order.is_empty() {
        return Ok(kept);
    }
    let scale = |i: usize, j: usize| (variances[order[i]] * variances[order[j]]).sqrt();
    let white = Mat::from_fn(order.len(), order.len(), |i, j| cross[(order[i], order[j])] / scale(i, j));
    let solved = white.svd().map_err(|cause| {
        let found = format!("{cause:?}");
        Error::argument("the training sequences", "numbers whose covariance has singular values", found)
    })?;
    let share = (order.len() as f64 / n as f64).sqrt();
    let edge = 2.0 * share * (1.0 + share);
    let values = solved.S().column_vector();
    let above = (0..order.len()).take_while(|&k| values[k] > edge).count();
    let strength = |k: usize| (values[k].powi(2) - edge.powi(2)).sqrt();
    let left = Mat::from_fn(order.len(), above, |i, k| solved.U()[(i, k)] * strength(k));
    let right = Mat::from_fn(order.len(), above, |j, k| solved.V()[(j, k)]);
    let mut found = Mat::zeros(order.len(), order.len());
    matmul(&mut found, Accum::Replace, &left, right.transpose(), 1.0, Par::rayon(0));
    for (i, &row) in order.iter().enumerate() {
        for (j, &column) in order.iter().enumerate() {
            kept[(row, column)] = found[(i, j)] * scale(i, j);
        }
    }
    Ok(kept)
}

/// Eigenvectors as columns and eigenvalues, largest first, without those that are rounding.
fn eigen(matrix: &Mat<f64>) -> Result<(Mat<f64>, Vec<f64>)> {
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
