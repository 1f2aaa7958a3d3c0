//! Bits where the variance is: greedy water-filling over Lloyd-Max quantizers.
//!
//! Reverse water-filling gives a coordinate of variance `v` the rate `max(0, log2(v / theta) / 2)`. With whole
//! bits the same optimum is reached greedily: the next bit goes where it removes most error. The error each bit
//! removes is not taken from the Gaussian table but measured on the training sample, whose coordinates are
//! peaked.

use super::bits::{BitReader, BitWriter};
use super::lloyd_max::Sample;
use crate::error::{Error, Result};
use apcm_format::{CodecImage, DecodeError, ElementType, NamedTensor, limits};
use rayon::prelude::*;

/// Most bits one coordinate may get.
const BITS_MAX: u8 = 8;

/// A fitted allocation.
#[derive(Debug, Clone, PartialEq)]
pub struct Allocated {
    code_len: usize,
    /// Bits of each kept coordinate; 0 for one that is kept only because a later one is.
    bits: Vec<u8>,
    /// Levels of each kept coordinate in rising order, `2^bits` each.
    levels: Vec<Vec<f32>>,
}

impl Allocated {
    pub(super) fn fit(code_len: usize, latent: &[f32], width: usize) -> Result<Self> {
        let most = (width * usize::from(BITS_MAX) / 8).min(limits::CODE_LEN_MAX);
        if code_len == 0 || code_len > most {
            return Err(Error::argument(
                "the bytes of a code",
                format!("1 to {most} for {width} coordinates of at most {BITS_MAX} bits"),
                code_len,
            ));
        }
        let samples: Vec<Sample> =
            (0..width).into_par_iter().map(|column| Sample::of_column(latent, width, column)).collect();
        // What each coordinate has now, and what it would have with one more bit.
        let mut now: Vec<(u8, Vec<f32>, f64)> = samples
            .par_iter()
            .map(|sample| {
                let (levels, distortion) = sample.lloyd_max(0);
                (0, levels, distortion)
            })
            .collect();
        let mut next: Vec<(Vec<f32>, f64)> = samples.par_iter().map(|sample| sample.lloyd_max(1)).collect();
        for _ in 0..code_len * 8 {
            let gain = |i: usize| if now[i].0 < BITS_MAX { now[i].2 - next[i].1 } else { f64::NEG_INFINITY };
            // Ties go to the coordinate of larger variance, the lower index.
            let best = (0..width).rev().max_by(|&a, &b| gain(a).total_cmp(&gain(b))).unwrap_or(0);
            let (levels, distortion) = std::mem::take(&mut next[best]);
            now[best] = (now[best].0 + 1, levels, distortion);
            if now[best].0 < BITS_MAX {
                next[best] = samples[best].lloyd_max(now[best].0 + 1);
            }
        }
        let kept = now.iter().rposition(|(bits, ..)| *bits > 0).map_or(0, |last| last + 1);
        now.truncate(kept);
        let (bits, levels) = now.into_iter().map(|(bits, levels, _)| (bits, levels)).unzip();
        Ok(Self { code_len, bits, levels })
    }

    pub(super) fn kept(&self) -> usize {
        self.bits.len()
    }

    pub(super) fn code_len(&self) -> usize {
        self.code_len
    }

    /// Bits of each kept coordinate.
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    pub(super) fn encode(&self, kept: &[f32]) -> Vec<u8> {
        let mut code = vec![0; self.code_len];
        let mut writer = BitWriter::new(&mut code);
        for ((&value, &bits), levels) in kept.iter().zip(&self.bits).zip(&self.levels) {
            writer.put(nearest(levels, value), bits);
        }
        code
    }

    pub(super) fn decode(&self, code: &[u8], kept: &mut [f32]) {
        let mut reader = BitReader::new(code);
        for ((value, &bits), levels) in kept.iter_mut().zip(&self.bits).zip(&self.levels) {
            *value = levels[usize::from(reader.take(bits))];
        }
    }

    pub(super) fn store(&self, image: &mut CodecImage) {
        let levels: Vec<u8> = self.levels.iter().flatten().flat_map(|level| level.to_le_bytes()).collect();
        image.tensors.push(NamedTensor {
            name: "quantizer.bits".to_owned(),
            element: ElementType::U8,
            dims: vec![self.bits.len() as u32],
            bytes: self.bits.clone(),
        });
        image.tensors.push(NamedTensor {
            name: "quantizer.levels".to_owned(),
            element: ElementType::F32,
            dims: vec![(levels.len() / 4) as u32],
            bytes: levels,
        });
    }

    pub(super) fn load(kept: usize, code_len: usize, image: &CodecImage) -> Result<Self> {
        let bits = image.tensor("quantizer.bits", ElementType::U8, &[kept])?.bytes.clone();
        if let Some(&wide) = bits.iter().find(|&&bits| bits > BITS_MAX) {
            return Err(Error::Format(DecodeError::Limit {
                what: "the bits of a coordinate",
                found: wide.into(),
                max: BITS_MAX.into(),
            }));
        }
        let total: usize = bits.iter().map(|&bits| usize::from(bits)).sum();
        if total > code_len * 8 {
            return Err(Error::Format(DecodeError::Limit {
                what: "the bits of a code",
                found: total as u64,
                max: code_len as u64 * 8,
            }));
        }
        let count: usize = bits.iter().map(|&bits| 1_usize << bits).sum();
        let tensor = image.tensor("quantizer.levels", ElementType::F32, &[count])?;
        let mut all = crate::codec::weights::floats(tensor)?.into_iter();
        let levels: Vec<Vec<f32>> = bits.iter().map(|&bits| all.by_ref().take(1 << bits).collect()).collect();
        if !levels.iter().all(|levels| levels.is_sorted()) {
            return Err(Error::Format(DecodeError::Invalid {
                what: "the order of a quantizer's levels",
                found: 0,
            }));
        }
        Ok(Self { code_len, bits, levels })
    }
}

/// Index of the nearest level; the lower of two at the same distance.
fn nearest(levels: &[f32], value: f32) -> u8 {
    let above = levels.partition_point(|&level| level < value);
    let index = match (above.checked_sub(1), levels.get(above)) {
        (Some(below), Some(&level)) => {
            if value - levels[below] <= level - value {
                below
            } else {
                above
            }
        }
        (Some(below), None) => below,
        (None, _) => 0,
    };
    index as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_the_nearest() {
        let levels = [-2.0, -0.5, 0.5, 2.0];
        for (value, index) in [(-9.0, 0), (-1.3, 0), (-1.2, 1), (0.0, 1), (0.01, 2), (1.3, 3), (9.0, 3)] {
            assert_eq!(nearest(&levels, value), index, "{value}");
        }
    }

    #[test]
    fn bits_follow_the_variance_and_spend_the_whole_budget() {
        let rows = 4_000;
        let scales = [8.0, 4.0, 4.0, 2.0, 0.01];
        let latent: Vec<f32> = (0..rows * 5)
            .map(|i| {
                // A fixed pseudo-random phase spreads each coordinate evenly over [-1, 1].
                let phase = (i as f32 * 0.618_034).fract() * 2.0 - 1.0;
                phase * scales[i % 5]
            })
            .collect();
        let allocated = Allocated::fit(2, &latent, 5).unwrap();
        assert_eq!(allocated.bits.iter().map(|&bits| u32::from(bits)).sum::<u32>(), 16);
        assert!(allocated.bits.is_sorted_by(|a, b| a >= b), "{:?}", allocated.bits);
        assert_eq!(allocated.kept(), 4);
        // One bit halves a uniform cell: each doubling of the scale earns one more bit.
        assert_eq!(allocated.bits, [5, 4, 4, 3], "{:?}", allocated.bits);
    }

    #[test]
    fn more_bytes_than_the_coordinates_can_use_is_an_error_with_numbers() {
        let error = Allocated::fit(3, &[0.0; 20], 2).unwrap_err().to_string();
        assert!(error.contains("1 to 2") && error.contains("found 3"), "{error}");
    }
}
