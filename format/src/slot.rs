//! Slot records: a code and 20 to 24 bytes of header.
//!
//! ```text
//! 0       version << 4 | kind
//! 1       flags
//! 2..8    sequence number of the write, 48 bits
//! 8..12   written at, seconds since 1970
//! 12..14  measured error, upper half of an f32, rounded up
//! 14..16  norm of the record, upper half of an f32, rounded up
//! [+4]    expires at           when the flag HAS_EXPIRY is set
//! [+4]    last access          when the flag HAS_ACCESS is set (reserved)
//! [+4]    policy's own word    when the flag HAS_POLICY is set (reserved)
//! ..      the code
//! last 4  CRC-32, keyed by (store, slots, slot)
//! ```
//! A 32-byte code must not drown in its header, so optional fields exist only where their flag is set.

use crate::bytes::Reader;
use crate::limits::{CODE_LEN_MAX, SEQ_MAX};
use crate::{DecodeError, Place};

const WHAT: &str = "a slot record";
const VERSION: u8 = 1;

/// A non-negative real in two bytes: the upper half of an `f32`, rounded up.
///
/// The half precision that the first design named overflows at 65,504 and loses its digits below 6e-5, where
/// the errors of unit vectors lie. The upper half of an `f32` keeps the whole range with a relative step of
/// 1/128, and rounding *up* keeps the promise "no read is worse than the stored error".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct StoredReal(u16);

impl StoredReal {
    /// The smallest stored value that is at least `value`; negative numbers become 0, NaN becomes infinity: an
    /// error that is not known must not look like none.
    pub fn at_least(value: f32) -> Self {
        if value.is_nan() {
            return Self(0x7f80);
        }
        if value <= 0.0 {
            return Self(0);
        }
        let bits = value.to_bits();
        let upper = (bits >> 16) as u16;
        let lower = bits & 0xffff;
        Self(if lower == 0 { upper } else { upper.saturating_add(1).min(0x7f80) })
    }

    /// The value kept.
    pub fn get(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// Its two bytes as a number.
    pub fn to_bits(self) -> u16 {
        self.0
    }

    /// The value of two bytes.
    ///
    /// # Errors
    /// [`Invalid`](DecodeError::Invalid) for a negative number or NaN.
    pub fn from_bits(bits: u16) -> Result<Self, DecodeError> {
        // Sign bit or NaN: no writer produces either.
        if bits > 0x7f80 {
            return Err(DecodeError::Invalid { what: "a stored real", found: bits.into() });
        }
        Ok(Self(bits))
    }
}

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SlotKind {
    /// The code of one record.
    Record = 0,
    /// The root of a sequence.
    StreamRoot = 1,
}

/// Facts about a slot that are worth one bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotFlags {
    /// Never a victim.
    pub pinned: bool,
    /// Decode this one without the predictor: that was better for it.
    pub without_predictor: bool,
    /// A residual belongs to it: what a read returns is better than the code alone.
    pub residual: bool,
}

const PINNED: u8 = 1;
const WITHOUT_PREDICTOR: u8 = 1 << 1;
const HAS_EXPIRY: u8 = 1 << 2;
const HAS_ACCESS: u8 = 1 << 3;
const HAS_POLICY: u8 = 1 << 4;
const HAS_RESIDUAL: u8 = 1 << 5;
const KNOWN: u8 = PINNED | WITHOUT_PREDICTOR | HAS_EXPIRY | HAS_ACCESS | HAS_POLICY | HAS_RESIDUAL;

/// One occupied slot, its code borrowed from where it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRecord<'a> {
    /// What the slot holds.
    pub kind: SlotKind,
    /// Facts worth one bit.
    pub flags: SlotFlags,
    /// The number of the write that filled the slot; the other half of a memory id.
    pub seq: u64,
    /// When it was written, in seconds since 1970.
    pub written_at: u32,
    /// When it stops counting as occupied, in seconds since 1970.
    pub expires_at: Option<u32>,
    /// When it was last read: reserved for policies that need it.
    pub last_access: Option<u32>,
    /// A word of the policy's own: reserved.
    pub policy_word: Option<u32>,
    /// Mean squared error per element of what a read returns.
    pub error: StoredReal,
    /// Euclidean norm of the record.
    pub norm: StoredReal,
    /// The quantized `z_comp`.
    pub code: &'a [u8],
}

impl<'a> SlotRecord<'a> {
    /// The record without its residual: with the error of the code alone, infinite where it is unknown.
    #[must_use]
    pub fn without_residual(mut self, error: Option<StoredReal>) -> Self {
        self.flags.residual = false;
        self.error = error.unwrap_or(StoredReal::at_least(f32::INFINITY));
        self
    }

    /// Lays the record out for its slot.
    ///
    /// # Errors
    /// [`Limit`](DecodeError::Limit) when the code or the sequence number is too large.
    pub fn encode(&self, place: Place) -> Result<Vec<u8>, DecodeError> {
        let mut out = Vec::new();
        self.encode_into(place, &mut out)?;
        Ok(out)
    }

    /// As [`encode`](Self::encode), replacing the contents of `out`.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_into(&self, place: Place, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        if self.code.len() > CODE_LEN_MAX {
            return Err(DecodeError::Limit {
                what: "the length of a code",
                found: self.code.len() as u64,
                max: CODE_LEN_MAX as u64,
            });
        }
        if self.seq == 0 || self.seq > SEQ_MAX {
            return Err(DecodeError::Limit { what: "a sequence number", found: self.seq, max: SEQ_MAX });
        }
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        let flags = bit(self.flags.pinned, PINNED)
            | bit(self.flags.without_predictor, WITHOUT_PREDICTOR)
            | bit(self.flags.residual, HAS_RESIDUAL)
            | bit(self.expires_at.is_some(), HAS_EXPIRY)
            | bit(self.last_access.is_some(), HAS_ACCESS)
            | bit(self.policy_word.is_some(), HAS_POLICY);
        out.clear();
        out.reserve(self.code.len().saturating_add(32));
        out.extend_from_slice(&[VERSION << 4 | self.kind as u8, flags]);
        out.extend_from_slice(self.seq.to_le_bytes().first_chunk::<6>().unwrap_or(&[0; 6]));
        out.extend_from_slice(&self.written_at.to_le_bytes());
        out.extend_from_slice(&self.error.0.to_le_bytes());
        out.extend_from_slice(&self.norm.0.to_le_bytes());
        for word in [self.expires_at, self.last_access, self.policy_word].into_iter().flatten() {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(self.code);
        let crc = place.crc(&[out]);
        out.extend_from_slice(&crc.to_le_bytes());
        Ok(())
    }

    /// Reads what [`encode`](Self::encode) wrote for the same place.
    ///
    /// # Errors
    /// [`Checksum`](DecodeError::Checksum) for damage or a record of another slot,
    /// [`TooNew`](DecodeError::TooNew) for a later layout, and the other variants for impossible fields.
    pub fn decode(bytes: &'a [u8], place: Place) -> Result<Self, DecodeError> {
        let body = place.body(WHAT, bytes)?;
        let mut reader = Reader::new(WHAT, body);
        let first = reader.u8()?;
        if first >> 4 != VERSION {
            return Err(DecodeError::TooNew {
                what: WHAT,
                found: u64::from(first >> 4),
                known: VERSION.into(),
            });
        }
        let kind = match first & 0x0f {
            0 => SlotKind::Record,
            1 => SlotKind::StreamRoot,
            other => return Err(DecodeError::Invalid { what: "the kind of a slot", found: other.into() }),
        };
        let bits = reader.u8()?;
        if bits & !KNOWN != 0 {
            return Err(DecodeError::TooNew {
                what: "a flag of a slot",
                found: bits.into(),
                known: KNOWN.into(),
            });
        }
        let seq = reader.u48()?;
        if seq == 0 {
            return Err(DecodeError::Invalid { what: "a sequence number", found: 0 });
        }
        let written_at = reader.u32()?;
        let error = StoredReal::from_bits(reader.u16()?)?;
        let norm = StoredReal::from_bits(reader.u16()?)?;
        let mut optional = |flag: u8| if bits & flag == 0 { Ok(None) } else { reader.u32().map(Some) };
        let expires_at = optional(HAS_EXPIRY)?;
        let last_access = optional(HAS_ACCESS)?;
        let policy_word = optional(HAS_POLICY)?;
        let code = reader.rest();
        if code.len() > CODE_LEN_MAX {
            return Err(DecodeError::Limit {
                what: "the length of a code",
                found: code.len() as u64,
                max: CODE_LEN_MAX as u64,
            });
        }
        let flags = SlotFlags {
            pinned: bits & PINNED != 0,
            without_predictor: bits & WITHOUT_PREDICTOR != 0,
            residual: bits & HAS_RESIDUAL != 0,
        };
        Ok(Self { kind, flags, seq, written_at, expires_at, last_access, policy_word, error, norm, code })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_real_is_never_below_what_it_keeps() {
        for value in [0.0, 1e-38, 3.7e-9, 6e-5, 0.012_345, 1.0, 65_504.0, 1e30, f32::MAX] {
            let kept = StoredReal::at_least(value).get();
            assert!(kept >= value, "{value} was kept as {kept}");
            assert!(
                value < 1e-37 || value == f32::MAX || kept <= value * 1.008,
                "{value} was kept as {kept}"
            );
        }
        assert_eq!(StoredReal::at_least(f32::NAN).get(), f32::INFINITY);
        assert_eq!(StoredReal::at_least(-1.0).get(), 0.0);
        assert_eq!(StoredReal::at_least(f32::INFINITY).get(), f32::INFINITY);
    }
}
