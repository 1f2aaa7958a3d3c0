//! Approximate cost of a record in a chart, to choose one.
//!
//! A plain uniform quantizer of a Laplacian source stands in for the trellis: one look into a table a
//! coordinate.

use super::charts::View;
use super::tables::{BUCKETS, ratio_of};

/// Looks per step.
const FINE: usize = 4;
/// Steps the table reaches; what lies beyond counts as its end.
const REACH: usize = 64;
/// Steps of the stand-in for each step of the trellis, at about the same rate.
pub(super) const COARSER: f64 = 1.5;
/// Steps squared that a bit is worth, near the slope of the rate-distortion curve at a bit or two.
const LAMBDA: f32 = 0.12;

/// Distortion and bits by bucket and magnitude.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CostTable {
    entries: Vec<(f32, f32)>,
}

/// Cost of a record in a chart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Price {
    pub(super) bits: f32,
    /// Squared error in steps squared, and the bits at their worth.
    pub(super) total: f32,
}

impl CostTable {
    pub(super) fn new() -> Self {
        let mut entries = Vec::with_capacity(BUCKETS * REACH * FINE);
        for bucket in 0..BUCKETS {
            let scale = ratio_of(bucket) / std::f64::consts::SQRT_2;
            // Cells lean outward by a tenth of a step, as rate-distortion optimized ones do.
            let beyond = |edge: f64| (-edge / scale).exp();
            let mass = |index: usize| match index {
                0 => 1.0 - beyond(0.6),
                _ => 0.5 * (beyond(index as f64 - 0.4) - beyond(index as f64 + 0.6)),
            };
            let bits: Vec<f64> = (0..=REACH).map(|index| -mass(index).max(1e-6).log2()).collect();
            for at in 0..REACH * FINE {
                let value = (at as f64 + 0.5) / FINE as f64;
                let below = value as usize;
                let total = |&(distortion, bits): &(f64, f64)| distortion + f64::from(LAMBDA) * bits;
                let cheapest = [0, below, below + 1]
                    .map(|index| ((value - index as f64).powi(2), bits[index]))
                    .into_iter()
                    .min_by(|a, b| total(a).total_cmp(&total(b)));
                entries
                    .push(cheapest.map_or((0.0, 0.0), |(distortion, bits)| (distortion as f32, bits as f32)));
            }
        }
        Self { entries }
    }

    /// Cost of a view at a step of the approximation, with the bits of its chart.
    pub(super) fn price(
        &self,
        view: &View<'_>,
        buckets: impl Iterator<Item = u8>,
        step: f32,
        chart_bits: f32,
    ) -> Price {
        let scale = FINE as f32 / step;
        let (mut distortion, mut bits) = (view.left / (step * step), chart_bits);
        for (&x, bucket) in view.coordinates.iter().zip(buckets) {
            let at = ((x.abs() * scale) as usize).min(REACH * FINE - 1);
            let entry = self.entries[usize::from(bucket) * REACH * FINE + at];
            distortion += entry.0;
            bits += entry.1;
        }
        Price { bits, total: distortion + LAMBDA * bits }
    }
}
