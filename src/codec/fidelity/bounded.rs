//! A quantized difference to the reconstruction, as coarse as a bound allows.
//!
//! ```text
//! 0       which of 32 two-sided geometric distributions
//! 1..5    step, f32
//! ..      one index a value, range coded
//! ```
//! The difference is taken in the record's own space, where the quantizer's error is the record's error. A dead
//! zone keeps what is small at zero, so that a bound a little below the code's own error costs little.

use super::malformed::malformed;
use crate::codec::error_and_norm;
use crate::codec::quantizer::range_coder::{Categorical, Reader, Writer, bits_of, categorical, frequencies};
use crate::error::Result;

/// How far another backend or batch size may move a reconstruction, as a share of its largest value; each value
/// by at most this, so the root mean square too. Tested as the codecs' device tolerance.
const BACKEND_MARGIN: f64 = 1e-4;
/// Where a reconstruction is a small difference of large numbers, their rounding is what remains.
const CANCELLATION: f64 = 1e-5;
/// Rounding of the sums, and of the error's two stored bytes.
const ROUNDING: f64 = 1.01;
const SUMS: f64 = 1.002;
/// Distributions to choose from.
const SHAPES: u8 = 32;
/// Symbols either side of zero; what is larger is escaped.
const HALF: i32 = 20;
/// An index counts from this share of a step beyond its lower neighbour on.
const ROUND_UP_AT: f64 = 0.62;
const INDEX_MAX: f64 = (1 << 24) as f64;
/// Steps that are tried.
const LADDER: u32 = 32;

pub(super) enum Packed {
    /// The code alone keeps the bound.
    Unneeded,
    Payload(Vec<u8>),
    /// The margin alone is more than the bound.
    OutOfReach,
}

/// What may be lost so that the bound holds on every backend, as a root mean square, and how much backends may
/// differ. `scale` is the largest number a codec adds up to reconstruct, if that is more than the record shows.
fn allowance(decoded: &[f32], bound: f32, scale: f32) -> (f64, f64) {
    let largest = decoded.iter().fold(0.0_f64, |largest, &x| largest.max(f64::from(x).abs()));
    let margin = BACKEND_MARGIN * largest + CANCELLATION * f64::from(scale);
    // Errors of two sources add up at most by their roots.
    (f64::from(bound).sqrt() / ROUNDING - margin, margin)
}

/// Whether what was restored is as good as [`pack`] meant it to be, with the rounding of its sums.
pub(super) fn keeps(record: &[f32], restored: &[f32], decoded: &[f32], bound: f32, scale: f32) -> bool {
    error_and_norm(record, restored).0.sqrt() <= allowance(decoded, bound, scale).0 * SUMS
}

pub(super) fn pack(record: &[f32], decoded: &[f32], bound: f32, scale: f32) -> Packed {
    let (allowed, margin) = allowance(decoded, bound, scale);
    if error_and_norm(record, decoded).0.sqrt() <= allowed {
        return Packed::Unneeded;
    }
    if allowed <= margin {
        return Packed::OutOfReach;
    }
    let differences: Vec<f64> =
        record.iter().zip(decoded).map(|(&x, &y)| f64::from(x) - f64::from(y)).collect();
    let reach = differences.iter().fold(0.0_f64, |reach, d| reach.max(d.abs()));
    let quantized = |step: f32| {
        let indices: Vec<i32> = differences.iter().map(|&difference| index(difference, step)).collect();
        let squared: f64 = differences
            .iter()
            .zip(&indices)
            .map(|(difference, &index)| (difference - f64::from(index) * f64::from(step)).powi(2))
            .sum();
        ((squared / differences.len() as f64).sqrt() <= allowed).then_some(indices)
    };
    // The error does not quite rise with the step, nor the bits quite fall: a ladder of steps is tried, and the
    // cheapest that keeps the bound is taken. The finest always keeps it: this dead zone errs by less than a
    // step.
    let (finest, coarsest) = (allowed, reach.max(allowed));
    let ladder =
        (0..=LADDER).map(|rung| finest * (coarsest / finest).powf(f64::from(rung) / f64::from(LADDER)));
    let cheapest = ladder
        .map(|step| step as f32)
        .filter(|&step| step > 0.0 && reach / f64::from(step) <= INDEX_MAX)
        .filter_map(|step| {
            let indices = quantized(step)?;
            let shape = shape_of(&indices);
            Some((bits(shape, &indices), step, shape, indices))
        })
        .min_by(|a, b| a.0.total_cmp(&b.0));
    let Some((_, step, shape, indices)) = cheapest else { return Packed::OutOfReach };
    let Some(model) = model(shape) else { return Packed::OutOfReach };
    let mut writer = Writer::default();
    for &index in &indices {
        if index.abs() <= HALF {
            writer.put((index + HALF) as usize, model.as_view());
        } else {
            writer.put(2 * HALF as usize + 1, model.as_view());
            writer.put_bits(u32::from(index < 0), 1);
            writer.put_exp_golomb(index.unsigned_abs() - HALF as u32 - 1, 2);
        }
    }
    let mut payload = vec![shape];
    payload.extend(step.to_le_bytes());
    payload.extend(writer.finish());
    Packed::Payload(payload)
}

/// Adds a packed difference. An empty one adds nothing: the code alone keeps the bound, and says that there is
/// one.
pub(super) fn add(payload: &[u8], decoded: &mut [f32]) -> Result<()> {
    if payload.is_empty() {
        return Ok(());
    }
    let (&shape, rest) = payload.split_first().ok_or_else(|| malformed("it is empty"))?;
    let (step, code) = rest.split_first_chunk::<4>().ok_or_else(|| malformed("its step is cut short"))?;
    let step = f32::from_le_bytes(*step);
    if shape >= SHAPES || !(step > 0.0 && step.is_finite()) {
        return Err(malformed("its shape or its step is impossible"));
    }
    let model = model(shape).ok_or_else(|| malformed("its shape is impossible"))?;
    let mut reader = Reader::new(code);
    for value in decoded {
        let symbol = reader.take(model.as_view()).ok_or_else(|| malformed("an index is impossible"))? as i32;
        let index = if symbol <= 2 * HALF {
            symbol - HALF
        } else {
            let negative = reader.take_bits(1).ok_or_else(|| malformed("an index is impossible"))? == 1;
            let beyond = reader.take_exp_golomb(2).ok_or_else(|| malformed("an index is impossible"))?;
            let magnitude = HALF + 1 + beyond as i32;
            if negative { -magnitude } else { magnitude }
        };
        *value = (f64::from(*value) + f64::from(index) * f64::from(step)) as f32;
        if !value.is_finite() {
            return Err(malformed("a value is not finite"));
        }
    }
    Ok(())
}

fn index(difference: f64, step: f32) -> i32 {
    let magnitude = (difference.abs() / f64::from(step) + (1.0 - ROUND_UP_AT)).floor().min(INDEX_MAX);
    if difference < 0.0 { -(magnitude as i32) } else { magnitude as i32 }
}

/// Two-sided geometric: each index further from zero is less likely by one factor. Multiplications and
/// divisions only, which are the same everywhere.
fn weights(shape: u8) -> Vec<u16> {
    let factor = (f64::from(shape) + 1.0).powi(2) / f64::from(SHAPES + 1).powi(2);
    let mut falling = vec![1.0];
    for k in 0..HALF as usize {
        falling.push(falling[k] * factor);
    }
    let escape = falling[HALF as usize] * factor + 1e-6;
    let both = (0..=2 * HALF).map(|symbol| falling[(symbol - HALF).unsigned_abs() as usize]);
    frequencies(&both.chain([escape]).collect::<Vec<_>>())
}

fn model(shape: u8) -> Option<Categorical> {
    categorical(&weights(shape))
}

/// The shape whose mean magnitude is that of the indices: with factor `q` it is `2 q / (1 - q^2)`.
fn shape_of(indices: &[i32]) -> u8 {
    let mean =
        indices.iter().map(|index| f64::from(index.unsigned_abs())).sum::<f64>() / indices.len() as f64;
    let factor = if mean > 0.0 { ((1.0 + mean * mean).sqrt() - 1.0) / mean } else { 0.0 };
    let shape = (factor.sqrt() * f64::from(SHAPES + 1)).round() - 1.0;
    shape.clamp(0.0, f64::from(SHAPES - 1)) as u8
}

/// About what indices cost under a shape.
fn bits(shape: u8, indices: &[i32]) -> f32 {
    let frequencies = weights(shape);
    let cost = |&index: &i32| {
        if index.abs() <= HALF {
            bits_of(frequencies[(index + HALF) as usize])
        } else {
            bits_of(frequencies[2 * HALF as usize + 1]) + 2.0 * (index.unsigned_abs() as f32).log2()
        }
    };
    indices.iter().map(cost).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record and a reconstruction that is off by something like a Laplacian.
    fn record(seed: usize) -> (Vec<f32>, Vec<f32>) {
        let record: Vec<f32> = (0..300).map(|i| ((i * 37 + seed) % 101) as f32 / 100.0).collect();
        let off = |i: usize| {
            let u = ((i * 7_919 + seed * 31) % 997) as f32 / 498.5 - 1.0;
            -0.05 * u.signum() * (1.0 - u.abs() * 0.998).ln()
        };
        let decoded = record.iter().enumerate().map(|(i, x)| x + off(i)).collect();
        (record, decoded)
    }

    /// With every value of the reconstruction moved as far as another backend may move it, against the record.
    #[test]
    fn the_bound_holds_with_the_margin_and_a_tighter_one_costs_more() {
        let mut last = 0;
        for bound in [2e-3_f32, 1e-3, 1e-4, 1e-5, 1e-6] {
            let (record, decoded) = record(3);
            let Packed::Payload(payload) = pack(&record, &decoded, bound, 0.0) else { panic!("{bound}") };
            for sign in [-1.0, 1.0_f32] {
                let mut moved: Vec<f32> = decoded
                    .iter()
                    .zip(&record)
                    .map(|(y, x)| y + sign * (y - x).signum() * 1e-4 * 1.1)
                    .collect();
                add(&payload, &mut moved).unwrap();
                let error = error_and_norm(&record, &moved).0;
                assert!(error <= f64::from(bound), "{error:e} for {bound:e}");
            }
            assert!(payload.len() > last, "{bound}");
            last = payload.len();
        }
    }

    #[test]
    fn only_as_much_as_needed() {
        let (record, decoded) = record(5);
        let error = error_and_norm(&record, &decoded).0 as f32;
        assert!(matches!(pack(&record, &decoded, error * 1.1, 0.0), Packed::Unneeded));
        let Packed::Payload(little) = pack(&record, &decoded, error * 0.8, 0.0) else { panic!() };
        let Packed::Payload(much) = pack(&record, &decoded, error * 0.01, 0.0) else { panic!() };
        assert!(little.len() * 2 < much.len(), "{} and {}", little.len(), much.len());
        let mut restored = decoded.clone();
        add(&little, &mut restored).unwrap();
        // Not much better than asked: bytes would have been wasted.
        assert!(error_and_norm(&record, &restored).0 > f64::from(error) * 0.6);
        assert!(matches!(pack(&record, &decoded, 1e-9, 0.0), Packed::OutOfReach));
        assert!(matches!(pack(&record, &[f32::MAX; 300], 1e-3, 0.0), Packed::OutOfReach));
    }

    #[test]
    fn hostile_payloads_are_errors_or_finite() {
        for len in 0..40_u8 {
            let payload: Vec<u8> = (0..len).map(|i| i.wrapping_mul(97).wrapping_add(len)).collect();
            let _ = add(&payload, &mut [0.5; 30]);
        }
        assert!(add(&[], &mut [0.0]).is_ok() && add(&[1], &mut [0.0]).is_err());
        assert!(add(&[SHAPES, 0, 0, 128, 63], &mut [0.0]).is_err());
        assert!(add(&[0, 0, 0, 192, 127], &mut [0.0]).is_err(), "a step that is not a number");
    }
}
