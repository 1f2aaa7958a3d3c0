//! The tiers, and what each record needs for the one that was asked for.

use crate::codec::fidelity::{bounded, lossless};
use crate::codec::{Codec, Encoded, StoredCode, error_and_norm};
use crate::error::{Error, Result};
use crate::record::Records;
use apcm_format::ResidualForm;

/// How well a record is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Fidelity {
    /// The code alone, with the error it has.
    #[default]
    Compact,
    /// Mean squared error per element of at most this, on every backend and at every batch size: a quantized
    /// difference to the reconstruction is kept beside the code, as much as the bound needs. A record is kept
    /// losslessly where no difference can guarantee the bound, or where that takes no more bytes.
    Bounded(f32),
    /// To the bit: the record itself is kept beside the code, compressed.
    Lossless,
}

/// What is kept beside a code.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Correction {
    pub(crate) form: ResidualForm,
    pub(crate) payload: Vec<u8>,
    /// Mean squared error per element with it.
    pub(crate) error: f32,
}

impl Fidelity {
    /// Refuses bounds that are not numbers above 0.
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Bounded(bound) if !(bound > 0.0 && bound.is_finite()) => {
                Err(Error::argument("the largest error of a record", "a number above 0", bound))
            }
            _ => Ok(()),
        }
    }
}

/// The residual of each record; decodes in one batch the codes whose error may be too large.
pub(crate) fn corrections(
    codec: &dyn Codec,
    records: &Records,
    encoded: &[Encoded],
    wanted: &[Fidelity],
) -> Result<Vec<Option<Correction>>> {
    let bounded: Vec<usize> =
        (0..encoded.len()).filter(|&row| matches!(wanted[row], Fidelity::Bounded(_))).collect();
    let codes: Vec<StoredCode<'_>> = bounded
        .iter()
        .map(|&row| StoredCode {
            bytes: &encoded[row].code,
            without_predictor: encoded[row].without_predictor,
        })
        .collect();
    let decoded = if codes.is_empty() { None } else { Some(codec.decode(&codes)?) };
    let mut corrections = Vec::with_capacity(encoded.len());
    let mut next = 0;
    for (row, &wanted) in wanted.iter().enumerate() {
        let record = records.row(row);
        corrections.push(match (wanted, &decoded) {
            (Fidelity::Bounded(bound), Some(decoded)) => {
                let decoded = decoded.row(next);
                next += 1;
                Some(bounded_residual(record, decoded, bound, codec.reconstruction_scale()))
            }
            (Fidelity::Lossless, _) => Some(lossless_residual(record)),
            _ => None,
        });
    }
    Ok(corrections)
}

/// A difference that keeps the bound, or the record itself where none does or where it is shorter.
fn bounded_residual(record: &[f32], decoded: &[f32], bound: f32, scale: f32) -> Correction {
    let payload = match bounded::pack(record, decoded, bound, scale) {
        bounded::Packed::Unneeded => Vec::new(),
        bounded::Packed::Payload(payload) => payload,
        bounded::Packed::OutOfReach => return lossless_residual(record),
    };
    // Measured, not assumed: sums of large and small numbers round.
    let mut restored = decoded.to_vec();
    let restores = bounded::add(&payload, &mut restored).is_ok()
        && bounded::keeps(record, &restored, decoded, bound, scale);
    if !restores {
        return lossless_residual(record);
    }
    // An empty payload is a bound that the code alone keeps: nothing is shorter.
    let lossless = (!payload.is_empty()).then(|| lossless_residual(record));
    if let Some(lossless) = lossless.filter(|lossless| lossless.payload.len() <= payload.len()) {
        return lossless;
    }
    let error = error_and_norm(record, &restored).0 as f32;
    Correction { form: ResidualForm::Bounded, payload, error }
}

fn lossless_residual(record: &[f32]) -> Correction {
    Correction { form: ResidualForm::Lossless, payload: lossless::pack(record), error: 0.0 }
}

/// Applies a stored correction to what the code decoded to.
///
/// # Errors
/// [`Format`](Error::Format) for a payload that no writer makes.
pub(crate) fn restore(form: ResidualForm, payload: &[u8], decoded: &mut [f32]) -> Result<()> {
    match form {
        ResidualForm::Bounded => bounded::add(payload, decoded),
        ResidualForm::Lossless => {
            let values = lossless::unpack(payload, decoded.len())?;
            decoded.copy_from_slice(&values);
            Ok(())
        }
    }
}
