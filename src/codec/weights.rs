//! Weights as a codec image stores them.

use crate::error::{Error, Result};
use apcm_format::{DecodeError, ElementType, NamedTensor, WeightPrecision};
use half::f16;

/// A tensor's elements as `f32`.
///
/// # Errors
/// When an element is NaN or infinite: no writer stores one, and a single one would spoil every record.
pub(crate) fn floats(tensor: &NamedTensor) -> Result<Vec<f32>> {
    let values: Vec<f32> = match tensor.element {
        ElementType::F32 => {
            tensor.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        ElementType::F16 => {
            tensor.bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        }
        ElementType::U8 => tensor.bytes.iter().map(|&byte| f32::from(byte)).collect(),
        ElementType::U32 | ElementType::U16 => {
            let found = tensor.element as u64;
            return Err(Error::Format(DecodeError::Invalid { what: "the type of a weight", found }));
        }
    };
    match values.iter().find(|value| !value.is_finite()) {
        None => Ok(values),
        Some(value) => {
            Err(Error::Format(DecodeError::Invalid { what: "a weight", found: value.to_bits().into() }))
        }
    }
}

/// A tensor of a given precision; what it holds from now on is what was rounded.
pub(crate) fn tensor(
    name: String,
    dims: &[usize],
    values: &[f32],
    precision: WeightPrecision,
) -> NamedTensor {
    let limit = f16::MAX.to_f32();
    let (element, bytes) = match precision {
        WeightPrecision::F32 => {
            (ElementType::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
        WeightPrecision::F16 => (
            ElementType::F16,
            values
                .iter()
                .flat_map(|&value| f16::from_f32(value.clamp(-limit, limit)).to_le_bytes())
                .collect(),
        ),
    };
    NamedTensor { name, element, dims: dims.iter().map(|&dim| dim as u32).collect(), bytes }
}

/// The element type of a precision.
pub(crate) fn element(precision: WeightPrecision) -> ElementType {
    match precision {
        WeightPrecision::F16 => ElementType::F16,
        WeightPrecision::F32 => ElementType::F32,
    }
}
