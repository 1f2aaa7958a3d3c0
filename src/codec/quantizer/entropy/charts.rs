//! Charts: local frames, each with a mean and the principal axes of the records near it.

use super::tables::BUCKETS;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// Rows projected at a time: little enough to stay in the cache, enough for a matrix product.
pub(super) const BLOCK: usize = 128;

/// Levels of an axis's components either side of zero.
pub(super) const AXIS_LEVELS: f32 = 127.0;

/// One local frame.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chart {
    /// `[width]`
    pub(super) mean: Vec<f32>,
    /// Orthonormal but for rounding to eight bits, `[axis, width]`, largest variance first.
    pub(super) axes: Vec<f32>,
    /// Step of each axis's components; empty before [`stored`](Self::stored).
    pub(super) scales: Vec<f32>,
    /// Bucket of each axis: the deviation along it over the quantizer's step.
    pub(super) buckets: Vec<u8>,
}

impl Chart {
    /// The chart as it will be loaded again: the axes in eight bits. Rounding an axis moves
    /// a coordinate's energy by 36 dB less than the coordinate, and halves the codec.
    pub(super) fn stored(self, width: usize) -> Self {
        let scales: Vec<f32> = self.axes.chunks_exact(width).map(axis_scale).collect();
        let mut axes = self.axes;
        for (axis, &scale) in axes.chunks_exact_mut(width).zip(&scales) {
            axis.iter_mut().for_each(|x| *x = (*x / scale).round() * scale);
        }
        Self { axes, scales, ..self }
    }

    /// The buckets where steps are coarser by `quarters` of an octave.
    pub(super) fn buckets_at(&self, quarters: i32) -> impl Iterator<Item = u8> {
        self.buckets
            .iter()
            .map(move |&bucket| (i32::from(bucket) - quarters).clamp(0, BUCKETS as i32 - 1) as u8)
    }
}

/// Step of an axis.
fn axis_scale(axis: &[f32]) -> f32 {
    let largest = axis.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    if largest > 0.0 { largest / AXIS_LEVELS } else { 1.0 }
}

/// All frames, ready to project on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Charts {
    pub(super) width: usize,
    pub(super) all: Vec<Chart>,
    /// All axes and then all means, `[axis or mean, width]`.
    stacked: Vec<f32>,
    /// Projection of each chart's mean on its axes, then the squared length of each mean.
    offsets: Vec<f32>,
}

/// A block of rows seen from every chart.
pub(super) struct Projected<'a> {
    charts: &'a Charts,
    /// `[row, axis or mean]`
    coordinates: Vec<f32>,
    /// Squared length of each row.
    lengths: Vec<f32>,
}

/// One row seen from one chart.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) coordinates: &'a [f32],
    /// Squared length of what the chart's axes do not carry.
    pub(super) left: f32,
}

impl Charts {
    pub(super) fn new(width: usize, all: Vec<Chart>) -> Self {
        let mut stacked: Vec<f32> = all.iter().flat_map(|chart| &chart.axes).copied().collect();
        stacked.extend(all.iter().flat_map(|chart| &chart.mean));
        let dot = |a: &[f32], b: &[f32]| {
            a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32
        };
        let mut offsets: Vec<f32> = all
            .iter()
            .flat_map(|chart| chart.axes.chunks_exact(width).map(|axis| dot(axis, &chart.mean)))
            .collect();
        offsets.extend(all.iter().map(|chart| dot(&chart.mean, &chart.mean)));
        Self { width, all, stacked, offsets }
    }

    pub(super) fn stored(self) -> Self {
        let width = self.width;
        Self::new(width, self.all.into_iter().map(|chart| chart.stored(width)).collect())
    }

    /// Projects rows on every chart, in one matrix product.
    ///
    /// # Shapes
    /// - `rows`: `[row, width]`
    pub(super) fn project(&self, rows: &[f32]) -> Projected<'_> {
        let (count, columns) = (rows.len() / self.width, self.offsets.len());
        let mut coordinates = vec![0.0_f32; count * columns];
        matmul(
            MatMut::from_row_major_slice_mut(&mut coordinates, count, columns),
            Accum::Replace,
            MatRef::from_row_major_slice(rows, count, self.width),
            MatRef::from_row_major_slice(&self.stacked, columns, self.width).transpose(),
            1.0,
            Par::Seq,
        );
        let axes = columns - self.all.len();
        for row in coordinates.chunks_exact_mut(columns) {
            row[..axes].iter_mut().zip(&self.offsets).for_each(|(value, offset)| *value -= offset);
        }
        let lengths = rows.chunks_exact(self.width).map(|row| row.iter().map(|x| x * x).sum()).collect();
        Projected { charts: self, coordinates, lengths }
    }
}

impl Projected<'_> {
    pub(super) fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// A row seen from each chart in turn.
    pub(super) fn views(&self, row: usize) -> Vec<View<'_>> {
        let columns = self.charts.offsets.len();
        let (axes, means) =
            self.coordinates[row * columns..(row + 1) * columns].split_at(columns - self.charts.all.len());
        let squared_means = &self.charts.offsets[axes.len()..];
        let mut at = 0;
        self.charts
            .all
            .iter()
            .zip(means.iter().zip(squared_means))
            .map(|(chart, (mean, squared_mean))| {
                let coordinates = &axes[at..at + chart.buckets.len()];
                at += chart.buckets.len();
                let carried: f32 = coordinates.iter().map(|x| x * x).sum();
                let distance = self.lengths[row] - 2.0 * mean + squared_mean;
                View { coordinates, left: (distance - carried).max(0.0) }
            })
            .collect()
    }
}
