//! Small values behind a length, a schema number and a keyed checksum; bincode inside.
//!
//! ```text
//! 0      kind
//! 1      schema of that kind
//! 2..4   zero
//! 4..8   length of the payload
//! 8..    the payload: bincode, little-endian, variable-length integers
//! last 4 CRC-32, keyed by the value's place
//! ```
//! bincode is unmaintained and frozen at 2.0.1. It stays behind this frame, which checks length and CRC first,
//! and it always runs with a byte limit; nothing on a hot path goes through it.

use crate::bytes::Reader;
use crate::limits::METADATA_LEN_MAX;
use crate::{DecodeError, Place};
use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{BorrowDecode, Encode};

/// Bytes a frame adds to its payload.
pub const OVERHEAD: usize = 12;

/// How deep decoding may still descend; the context of every framed decoder.
#[derive(Debug)]
pub struct Depth(pub(crate) u32);

/// A value that can be framed.
pub trait Framed: Encode + for<'de> BorrowDecode<'de, Depth> {
    /// Which kind of value; part of the format.
    const KIND: u8;
    /// Which version of its fields; part of the format.
    const SCHEMA: u8;
    /// What to call it in an error.
    const WHAT: &'static str;
}

/// bincode counts every integer against its limit as if it took all of its eight bytes, and a length beside it,
/// so the limit is a multiple of the payload's, which the frame has bounded already.
const CLAIMS_MAX: usize = 16 * METADATA_LEN_MAX;

const CONFIG: Configuration<LittleEndian, Varint, Limit<CLAIMS_MAX>> =
    bincode::config::standard().with_limit::<CLAIMS_MAX>();

/// A value in its frame, encoded once: [`seal`](Self::seal) adds the checksum of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameBody(Vec<u8>);

impl FrameBody {
    /// Encodes a value.
    ///
    /// # Errors
    /// [`Limit`](DecodeError::Limit) when the payload is longer than [`METADATA_LEN_MAX`], and every error of
    /// [`open`]: a value that could not be read back is not written.
    pub fn of<T: Framed>(value: &T) -> Result<Self, DecodeError> {
        let payload = bincode::encode_to_vec(value, CONFIG)
            .map_err(|cause| DecodeError::Malformed { what: T::WHAT, cause: cause.to_string() })?;
        if payload.len() > METADATA_LEN_MAX {
            return Err(DecodeError::Limit {
                what: T::WHAT,
                found: payload.len() as u64,
                max: METADATA_LEN_MAX as u64,
            });
        }
        decode_payload::<T>(&payload)?;
        let mut out = Vec::with_capacity(payload.len().saturating_add(OVERHEAD));
        out.extend_from_slice(&[T::KIND, T::SCHEMA, 0, 0]);
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.extend_from_slice(&payload);
        Ok(Self(out))
    }

    /// Bytes of the sealed frame.
    pub fn sealed_len(&self) -> usize {
        self.0.len().saturating_add(4)
    }

    /// The frame for a place, with its checksum.
    pub fn seal(&self, place: Place) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.sealed_len());
        out.extend_from_slice(&self.0);
        out.extend_from_slice(&place.crc(&[&self.0]).to_le_bytes());
        out
    }
}

/// Frames a value for its place.
///
/// # Errors
/// As [`FrameBody::of`].
pub fn seal<T: Framed>(value: &T, place: Place) -> Result<Vec<u8>, DecodeError> {
    Ok(FrameBody::of(value)?.seal(place))
}

/// Opens what [`seal`] made for the same place.
///
/// # Errors
/// Any damage, another kind, a newer schema, a payload that does not end where its length says.
pub fn open<T: Framed>(bytes: &[u8], place: Place) -> Result<T, DecodeError> {
    let body = place.body(T::WHAT, bytes)?;
    let mut reader = Reader::new(T::WHAT, body);
    let kind = reader.u8()?;
    if kind != T::KIND {
        return Err(DecodeError::Invalid { what: "the kind of a frame", found: kind.into() });
    }
    let schema = reader.u8()?;
    if schema != T::SCHEMA {
        return Err(DecodeError::TooNew { what: T::WHAT, found: schema.into(), known: T::SCHEMA.into() });
    }
    let reserved = reader.u16()?;
    if reserved != 0 {
        return Err(DecodeError::Invalid { what: "reserved bytes of a frame", found: reserved.into() });
    }
    let len = reader.u32()?;
    if len as usize > METADATA_LEN_MAX {
        return Err(DecodeError::Limit { what: T::WHAT, found: len.into(), max: METADATA_LEN_MAX as u64 });
    }
    let payload = reader.take(len as usize)?;
    reader.finish()?;
    decode_payload(payload)
}

pub(crate) fn decode_payload<T: Framed>(payload: &[u8]) -> Result<T, DecodeError> {
    let depth = Depth(crate::limits::METADATA_NESTING_MAX);
    let (value, used) = bincode::borrow_decode_from_slice_with_context(payload, CONFIG, depth)
        .map_err(|cause| DecodeError::Malformed { what: T::WHAT, cause: cause.to_string() })?;
    match payload.len().saturating_sub(used) {
        0 => Ok(value),
        bytes => Err(DecodeError::Trailing { what: T::WHAT, bytes: bytes as u64 }),
    }
}
