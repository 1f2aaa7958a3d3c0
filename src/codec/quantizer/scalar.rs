//! One fixed width for all coordinates: `f32`, `f16`, `i8`.

use super::QuantizerSpec;
use crate::error::{Error, Result};
use apcm_format::{CodecImage, ElementType, NamedTensor, QuantizerKind, limits};
use half::f16;
use rayon::prelude::*;

/// Ranges tried for an `i8` coordinate, in standard deviations; the one that leaves least error is kept.
const CLIPS: [f32; 9] = [2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 8.0];

/// A quantizer of one width.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    kept: usize,
    width: Width,
}

#[derive(Debug, Clone, PartialEq)]
enum Width {
    F32,
    F16,
    /// The step of each coordinate.
    I8(Vec<f32>),
}

impl Scalar {
    pub(super) fn fit(spec: QuantizerSpec, latent: &[f32], columns: usize) -> Result<Self> {
        let kept = spec.values().unwrap_or(0);
        let most = columns.min(limits::CODE_LEN_MAX * kept.max(1) / spec.bytes().max(1));
        if kept == 0 || kept > most {
            return Err(Error::argument(
                "the number of code values",
                format!("1 to {most}, the coordinates a record has"),
                kept,
            ));
        }
        let width = match spec {
            QuantizerSpec::F16(_) => Width::F16,
            QuantizerSpec::I8(_) => Width::I8(
                (0..kept).into_par_iter().map(|column| best_step(latent, columns, column)).collect(),
            ),
            _ => Width::F32,
        };
        Ok(Self { kept, width })
    }

    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    pub(super) fn kind(&self) -> QuantizerKind {
        match self.width {
            Width::F32 => QuantizerKind::F32,
            Width::F16 => QuantizerKind::F16,
            Width::I8(_) => QuantizerKind::I8,
        }
    }

    pub(super) fn code_len(&self) -> usize {
        self.kept
            * match self.width {
                Width::F32 => 4,
                Width::F16 => 2,
                Width::I8(_) => 1,
            }
    }

    pub(super) fn encode(&self, kept: &[f32]) -> Vec<u8> {
        match &self.width {
            Width::F32 => kept.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Width::F16 => kept
                .iter()
                .flat_map(|&value| {
                    f16::from_f32(value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32())).to_le_bytes()
                })
                .collect(),
            Width::I8(steps) => {
                kept.iter().zip(steps).map(|(&value, &step)| index(value, step) as u8).collect()
            }
        }
    }

    pub(super) fn decode(&self, code: &[u8], kept: &mut [f32]) {
        match &self.width {
            Width::F32 => {
                for (value, bytes) in kept.iter_mut().zip(code.chunks_exact(4)) {
                    *value = finite(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
                }
            }
            Width::F16 => {
                for (value, bytes) in kept.iter_mut().zip(code.chunks_exact(2)) {
                    *value = finite(f16::from_le_bytes([bytes[0], bytes[1]]).to_f32());
                }
            }
            Width::I8(steps) => {
                for ((value, &byte), &step) in kept.iter_mut().zip(code).zip(steps) {
                    *value = f32::from(byte as i8) * step;
                }
            }
        }
    }

    pub(super) fn store(&self, image: &mut CodecImage) {
        if let Width::I8(steps) = &self.width {
            image.tensors.push(NamedTensor {
                name: "quantizer.steps".to_owned(),
                element: ElementType::F32,
                dims: vec![steps.len() as u32],
                bytes: steps.iter().flat_map(|step| step.to_le_bytes()).collect(),
            });
        }
    }

    pub(super) fn load(
        kind: QuantizerKind,
        kept: usize,
        code_len: usize,
        image: &CodecImage,
    ) -> Result<Self> {
        let width = match kind {
            QuantizerKind::I8 => {
                let tensor = image.tensor("quantizer.steps", ElementType::F32, &[kept])?;
                Width::I8(crate::codec::weights::floats(tensor)?)
            }
            QuantizerKind::F16 => Width::F16,
            _ => Width::F32,
        };
        let scalar = Self { kept, width };
        if scalar.code_len() != code_len {
            return Err(Error::Format(apcm_format::DecodeError::Invalid {
                what: "the length of a code",
                found: code_len as u64,
            }));
        }
        Ok(scalar)
    }
}

/// Codes come from disk: a NaN that passed the checksum of a foreign writer must not spread.
fn finite(value: f32) -> f32 {
    if value.is_finite() { value } else { 0.0 }
}

fn index(value: f32, step: f32) -> i8 {
    if step > 0.0 { (value / step).round().clamp(-127.0, 127.0) as i8 } else { 0 }
}

fn best_step(latent: &[f32], columns: usize, column: usize) -> f32 {
    let rows = latent.len() / columns;
    let stride = rows.div_ceil(10_000).max(1);
    let values: Vec<f32> = (0..rows)
        .step_by(stride)
        .map(|row| latent[row * columns + column])
        // An unclamped coupling can overflow; what overflowed is not what the step should follow.
        .filter(|value| value.is_finite())
        .collect();
    let squares: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
    let deviation = (squares / values.len().max(1) as f64).sqrt();
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let error = |step: f32| -> f64 {
        values.iter().map(|&value| f64::from(value - f32::from(index(value, step)) * step).powi(2)).sum()
    };
    CLIPS
        .iter()
        .map(|clip| clip * deviation as f32 / 127.0)
        .chain([largest / 127.0])
        .min_by(|&a, &b| error(a).total_cmp(&error(b)))
        .unwrap_or(0.0)
}
