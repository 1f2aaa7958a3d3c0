//! Static integer frequency tables.
//!
//! A table belongs to a *bucket* (the ratio of a coordinate's deviation to the step, in quarter octaves), to a
//! *class* of the [`Context`](super::context::Context) and to one of the two quantizers of the trellis.
//! Everything that decides which table comes next is an integer kept in the codec, so a code decodes alike on
//! every machine.

use super::context::{CLASSES, UNIT};
use super::states::point;
use crate::codec::quantizer::range_coder::{Categorical, bits_of, categorical, frequencies};

/// Buckets, a quarter octave each.
pub(super) const BUCKETS: usize = 48;
/// Octaves below a deviation of one step at which bucket 0 begins.
const OCTAVES_BELOW: i32 = 4;
/// Most symbols either side of zero.
const HALF_MAX: i32 = 60;

/// The bucket of a ratio of deviation to step. Only fitting asks: codecs store buckets.
pub(super) fn bucket_of(ratio: f64) -> u8 {
    let bucket = 4.0 * (ratio.max(f64::MIN_POSITIVE).log2() + f64::from(OCTAVES_BELOW));
    bucket.clamp(0.0, (BUCKETS - 1) as f64) as u8
}

/// The ratio in the middle of a bucket.
pub(super) fn ratio_of(bucket: usize) -> f64 {
    ((bucket as f64 + 0.5) / 4.0 - f64::from(OCTAVES_BELOW)).exp2()
}

/// Symbols either side of zero, and bits of an escape that are written as they are. Stored with the codec's
/// tables as their lengths, so rounding in [`ratio_of`] decides nothing at run time.
pub(super) fn half_of(bucket: usize) -> i32 {
    ((ratio_of(bucket) * 2.5).ceil() as i32 + 1).min(HALF_MAX)
}

/// Order of the Exp-Golomb code behind a bucket's escape: wide buckets have wide tails.
pub(super) fn escape_order(bucket: usize) -> u32 {
    (bucket as i32 / 4 - OCTAVES_BELOW - 3).max(0) as u32
}

/// The alphabet of one (bucket, class, quantizer): `2 half + 1` indices from `-half`, then the escape.
#[derive(Debug, Clone)]
pub(super) struct Model {
    half: i32,
    frequencies: Vec<u16>,
    categorical: Categorical,
    bits: Vec<f32>,
    escape_order: u32,
}

impl Model {
    /// None where frequencies are zero, do not add up, or are not those of an alphabet.
    pub(super) fn new(frequencies: Vec<u16>, escape_order: u32) -> Option<Self> {
        let symbols = i32::try_from(frequencies.len()).ok().filter(|n| *n >= 4 && n % 2 == 0)?;
        let categorical = categorical(&frequencies)?;
        let bits = frequencies.iter().map(|&frequency| bits_of(frequency)).collect();
        Some(Self { half: (symbols - 2) / 2, frequencies, categorical, bits, escape_order })
    }

    pub(super) fn half(&self) -> i32 {
        self.half
    }

    pub(super) fn escape_order(&self) -> u32 {
        self.escape_order
    }

    pub(super) fn frequencies(&self) -> &[u16] {
        &self.frequencies
    }

    pub(super) fn categorical(&self) -> &Categorical {
        &self.categorical
    }

    /// Bits that an index costs.
    pub(super) fn bits(&self, index: i32) -> f32 {
        match self.bits.get((index + self.half) as usize) {
            Some(&bits) if index <= self.half => bits,
            _ => {
                let beyond = index.unsigned_abs() - self.half as u32 - 1;
                let prefix = ((beyond >> self.escape_order) + 1).ilog2();
                self.bits[self.bits.len() - 1] + (1 + 2 * prefix + 1 + self.escape_order) as f32
            }
        }
    }
}

/// All tables of a codec.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    /// By bucket, class, quantizer.
    pub(super) models: Vec<Model>,
    /// Expected magnitude by bucket, in [`UNIT`]s.
    pub(super) expected: Vec<u32>,
    /// How far the centroid of a cell lies outside its point, in steps; by bucket and quantizer, then magnitude
    /// of the index.
    pub(super) centroids: Vec<Vec<f32>>,
}

impl Tables {
    pub(super) fn model(&self, bucket: usize, class: usize, quantizer: usize) -> &Model {
        &self.models[(bucket * CLASSES + class) * 2 + quantizer]
    }

    /// The value of an index, in steps.
    pub(super) fn reconstruct(&self, bucket: usize, quantizer: usize, index: i32) -> f32 {
        let offsets = &self.centroids[bucket * 2 + quantizer];
        let offset = offsets.get(index.unsigned_abs() as usize).copied().unwrap_or(0.0);
        point(quantizer, index) as f32 + if index < 0 { -offset } else { offset }
    }

    /// Tables of a Laplacian source: where fitting begins.
    pub(super) fn laplacian() -> Self {
        let model = |at: usize| {
            let (bucket, quantizer) = (at / (CLASSES * 2), at % 2);
            let scale = ratio_of(bucket) / std::f64::consts::SQRT_2;
            let beyond = |edge: f64| (-edge / scale).exp();
            let mass = |index: i32| {
                let near = f64::from(point(quantizer, index.abs()));
                match index {
                    0 => 1.0 - beyond(1.2),
                    _ => 0.5 * (beyond((near - 0.8).max(1.2)) - beyond(near + 1.2)),
                }
            };
            let half = half_of(bucket);
            let weights: Vec<f64> = (-half..=half).map(mass).chain([1e-4]).collect();
            Model::new(frequencies(&weights), escape_order(bucket))
        };
        Self {
            models: (0..BUCKETS * CLASSES * 2).filter_map(model).collect(),
            // The mean magnitude of a Laplacian is 0.7 of its deviation.
            expected: (0..BUCKETS)
                .map(|bucket| (0.7 * ratio_of(bucket) * f64::from(UNIT)) as u32 + 1)
                .collect(),
            centroids: (0..BUCKETS * 2).map(|at| vec![0.0; half_of(at / 2) as usize + 1]).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_class_and_quantizer_has_a_table() {
        assert_eq!(Tables::laplacian().models.len(), BUCKETS * CLASSES * 2);
        assert!(Model::new(vec![1, 2, 3, 4], 0).is_none());
    }

    #[test]
    fn a_bucket_holds_the_ratio_in_its_middle() {
        for bucket in 0..BUCKETS {
            assert_eq!(usize::from(bucket_of(ratio_of(bucket))), bucket);
        }
        assert_eq!((bucket_of(0.0), bucket_of(f64::MAX)), (0, BUCKETS as u8 - 1));
    }
}
