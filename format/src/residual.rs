//! What a fidelity tier adds to a slot.
//!
//! ```text
//! 0       version << 4 | form
//! 1..7    sequence number of the write it belongs to, 48 bits
//! 7..9    measured error without it, upper half of an f32, rounded up
//! ..      payload, in a form of its own
//! last 4  CRC-32, keyed by (store, residuals, slot)
//! ```

use crate::bytes::Reader;
use crate::limits::{RESIDUAL_LEN_MAX, SEQ_MAX};
use crate::{DecodeError, Place, StoredReal};

const WHAT: &str = "a residual";
const VERSION: u8 = 1;

/// What a residual's payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum ResidualForm {
    /// A quantized difference to the reconstruction.
    Bounded = 0,
    /// The record itself, compressed, to the bit.
    Lossless = 1,
}

/// One residual, its payload borrowed from where it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResidualRecord<'a> {
    /// What the payload is.
    pub form: ResidualForm,
    /// The write that it belongs to.
    pub seq: u64,
    /// Mean squared error per element of the code alone.
    pub error_without: StoredReal,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> ResidualRecord<'a> {
    /// Lays the residual out for its slot.
    ///
    /// # Errors
    /// [`Limit`](DecodeError::Limit) when the payload or the sequence number is too large.
    pub fn encode(&self, place: Place) -> Result<Vec<u8>, DecodeError> {
        let at_most = |what, found: u64, max: u64| {
            if found > max { Err(DecodeError::Limit { what, found, max }) } else { Ok(()) }
        };
        at_most("the length of a residual", self.payload.len() as u64, RESIDUAL_LEN_MAX as u64)?;
        at_most("a sequence number", self.seq, SEQ_MAX)?;
        let mut out = Vec::with_capacity(self.payload.len().saturating_add(16));
        out.push(VERSION << 4 | self.form as u8);
        out.extend_from_slice(self.seq.to_le_bytes().first_chunk::<6>().unwrap_or(&[0; 6]));
        out.extend_from_slice(&self.error_without.to_bits().to_le_bytes());
        out.extend_from_slice(self.payload);
        out.extend_from_slice(&place.crc(&[&out]).to_le_bytes());
        Ok(out)
    }

    /// Reads what [`encode`](Self::encode) wrote for the same place.
    ///
    /// # Errors
    /// [`Checksum`](DecodeError::Checksum) for damage or a residual of another slot, and the other variants for
    /// impossible fields.
    pub fn decode(bytes: &'a [u8], place: Place) -> Result<Self, DecodeError> {
        let body = place.body(WHAT, bytes)?;
        let mut reader = Reader::new(WHAT, body);
        let first = reader.u8()?;
        if first >> 4 != VERSION {
            let found = u64::from(first >> 4);
            return Err(DecodeError::TooNew { what: WHAT, found, known: VERSION.into() });
        }
        let form = match first & 0x0f {
            0 => ResidualForm::Bounded,
            1 => ResidualForm::Lossless,
            other => {
                return Err(DecodeError::Invalid { what: "the form of a residual", found: other.into() });
            }
        };
        let seq = reader.u48()?;
        let error_without = StoredReal::from_bits(reader.u16()?)?;
        let payload = reader.rest();
        if payload.len() > RESIDUAL_LEN_MAX {
            return Err(DecodeError::Limit {
                what: "the length of a residual",
                found: payload.len() as u64,
                max: RESIDUAL_LEN_MAX as u64,
            });
        }
        Ok(Self { form, seq, error_without, payload })
    }
}
