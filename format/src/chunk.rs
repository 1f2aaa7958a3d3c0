//! Numbers of neighbouring slots under one checksum: how counts and uses lie in their tables.

use crate::bytes::Reader;
use crate::{DecodeError, Place};

/// Numbers, one after the other, and the CRC of their place.
pub(crate) fn encode<const BYTES: usize>(
    numbers: impl Iterator<Item = [u8; BYTES]>,
    place: Place,
) -> Vec<u8> {
    let mut out: Vec<u8> = numbers.flatten().collect();
    out.extend_from_slice(&place.crc(&[&out]).to_le_bytes());
    out
}

/// As many numbers as there must be, each read by `number`.
pub(crate) fn decode<'a, T: Copy + Default, const LEN: usize>(
    what: &'static str,
    bytes: &'a [u8],
    place: Place,
    number: impl Fn(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<[T; LEN], DecodeError> {
    let mut reader = Reader::new(what, place.body(what, bytes)?);
    let mut numbers = [T::default(); LEN];
    for slot in &mut numbers {
        *slot = number(&mut reader)?;
    }
    reader.finish()?;
    Ok(numbers)
}
