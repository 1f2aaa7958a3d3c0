//! Fitting charts: a mixture of principal component analyzers with hard assignments.
//!
//! Tipping and Bishop (1999) assign by likelihood. Here a record belongs to the chart that codes it cheapest at
//! the working step, which is what the charts are for. Covariances of small charts are shrunk toward the one
//! that all records have about their charts' means.

use super::charts::{BLOCK, Chart, Charts};
use super::cost::CostTable;
use super::tables::bucket_of;
use crate::error::{Error, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par, Side};
use rayon::prelude::*;

/// Records at which a chart's own covariance weighs as much as the pooled one.
const SHRINKAGE: f64 = 1_000.0;
/// Rows that are centred and multiplied at a time.
const SCATTER_BLOCK: usize = 1_024;

/// A mixture: all axes of all parts, with their variances.
pub(super) struct Mixture {
    width: usize,
    parts: Vec<Part>,
}

struct Part {
    rows: usize,
    mean: Vec<f32>,
    /// `[axis, width]`
    axes: Vec<f32>,
    variances: Vec<f64>,
}

impl Mixture {
    /// Means and principal axes of assigned rows; parts without rows are gone.
    ///
    /// # Shapes
    /// - `rows`: `[row, width]`
    /// - `assigned`: `[row]`
    pub(super) fn fit(rows: &[f32], width: usize, assigned: &[usize]) -> Result<Self> {
        let mut members = vec![Vec::new(); assigned.iter().max().map_or(0, |&most| most + 1)];
        assigned.iter().enumerate().for_each(|(row, &part)| members[part].push(row));
        members.retain(|rows| !rows.is_empty());
        let scattered: Vec<(Vec<f64>, Mat<f32>)> =
            members.par_iter().map(|members| scatter(rows, width, members)).collect();
        let mut pooled = Mat::<f64>::zeros(width, width);
        for (_, scatter) in &scattered {
            pooled += Mat::from_fn(width, width, |i, j| f64::from(scatter[(i, j)]));
        }
        let pooled_weight = SHRINKAGE / assigned.len() as f64;
        let parts = scattered
            .into_par_iter()
            .zip(&members)
            .map(|((mean, scatter), members)| {
                let weight = members.len() as f64 + SHRINKAGE;
                let covariance = Mat::from_fn(width, width, |i, j| {
                    (f64::from(scatter[(i, j)]) + pooled_weight * pooled[(i, j)]) / weight
                });
                Part::new(members.len(), mean, &covariance)
            })
            .collect::<Result<_>>()?;
        Ok(Self { width, parts })
    }

    /// Charts at a step; axes along which deviations are below `least` steps are left out.
    pub(super) fn charts(&self, step: f64, least: f64) -> Charts {
        let chart = |part: &Part| {
            let kept = part.variances.iter().take_while(|variance| variance.sqrt() >= least * step).count();
            let kept = kept.max(1);
            Chart {
                mean: part.mean.clone(),
                axes: part.axes[..kept * self.width].to_vec(),
                scales: Vec::new(),
                buckets: part.variances[..kept]
                    .iter()
                    .map(|variance| bucket_of(variance.sqrt() / step))
                    .collect(),
            }
        };
        Charts::new(self.width, self.parts.iter().map(chart).collect())
    }

    /// How many rows each part was fitted to.
    pub(super) fn rows(&self) -> Vec<f64> {
        self.parts.iter().map(|part| part.rows as f64).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }
}

impl Part {
    fn new(rows: usize, mean: Vec<f64>, covariance: &Mat<f64>) -> Result<Self> {
        let width = mean.len();
        let solved = covariance.self_adjoint_eigen(Side::Lower).map_err(|cause| {
            Error::argument(
                "the training data",
                "numbers whose covariance has eigenvectors",
                format!("{cause:?}"),
            )
        })?;
        // Eigenvalues rise; axes are wanted by falling variance.
        let mut axes = Vec::with_capacity(width * width);
        let mut variances = Vec::with_capacity(width);
        for axis in (0..width).rev() {
            axes.extend((0..width).map(|i| solved.U()[(i, axis)] as f32));
            variances.push(solved.S().column_vector()[axis].max(0.0));
        }
        Ok(Self { rows, mean: mean.into_iter().map(|x| x as f32).collect(), axes, variances })
    }
}

/// Mean and scatter matrix of some rows.
fn scatter(rows: &[f32], width: usize, members: &[usize]) -> (Vec<f64>, Mat<f32>) {
    let row = |index: usize| &rows[index * width..(index + 1) * width];
    let mut mean = vec![0.0_f64; width];
    for &member in members {
        mean.iter_mut().zip(row(member)).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    mean.iter_mut().for_each(|sum| *sum /= members.len() as f64);
    let mut scatter = Mat::<f32>::zeros(width, width);
    for block in members.chunks(SCATTER_BLOCK) {
        let centred = Mat::from_fn(block.len(), width, |i, j| (f64::from(row(block[i])[j]) - mean[j]) as f32);
        matmul(&mut scatter, Accum::Add, centred.transpose(), &centred, 1.0, Par::Seq);
    }
    (mean, scatter)
}

/// Which chart codes each row cheapest, and the mean bits of doing so.
pub(super) fn assign(charts: &Charts, rows: &[f32], step: f32, cost: &CostTable) -> (Vec<usize>, f64) {
    let chart_bits = (charts.all.len() as f32).log2();
    let found: Vec<(usize, f32)> = rows
        .par_chunks(BLOCK * charts.width)
        .flat_map_iter(|block| {
            let projected = charts.project(block);
            (0..projected.rows())
                .map(|row| {
                    let mut best = (0, f32::INFINITY, 0.0);
                    for (index, (view, chart)) in projected.views(row).iter().zip(&charts.all).enumerate() {
                        let price = cost.price(view, chart.buckets.iter().copied(), step, chart_bits);
                        if price.total < best.1 {
                            best = (index, price.total, price.bits);
                        }
                    }
                    (best.0, best.2)
                })
                .collect::<Vec<_>>()
        })
        .collect();
    let bits = found.iter().map(|&(_, bits)| f64::from(bits)).sum::<f64>() / found.len() as f64;
    (found.into_iter().map(|(chart, _)| chart).collect(), bits)
}
