//! Streams: the part that a slot holds, and the head that appending needs.
//!
//! A *part* is as many records, one after the other, as a sweeper tree folds into one state. In its slot, in
//! place of a code:
//!
//! ```text
//! 0       version << 4
//! 1..5    number of records
//! 5..9    length of the search vector, then the vector: f32 each
//! ..+4    length of the state, then the state: f32 each
//! ..      measured error of each record in this state: upper half of an f32, rounded up
//! ```
//! The slot's metadata name the part by a key ([`part_key`]), so what leads to a part is what leads to any
//! memory, under the same checks. The *head* of a stream is a row of its own: the full subtrees of the part
//! under way.
//!
//! ```text
//! 0       version << 4: 1, or 2 where there are originals
//! 1..9    first record of the part under way
//! 9..17   number of records of the whole stream, ever
//! 17..21  number of states, then for each: length, then f32 each
//! ..      version 2: number of records, values of each; then for each how far off its copy is and what the
//!         copy is multiplied by, upper halves of f32, and its values, f16 each
//! last 4  CRC-32, keyed by (store, streams, name)
//! ```

use crate::bytes::Reader;
use crate::limits::{CODE_LEN_MAX, STREAM_NAME_LEN_MAX};
use crate::{DecodeError, Place, StoredReal};

const PART: &str = "a part of a stream";
const HEAD: &str = "the head of a stream";
const VERSION: u8 = 1;
/// Of heads that hold the records of the part under way. A program that does not know it takes such a head for
/// lost, and begins a part of its own, rather than go on with errors that it does not measure.
const VERSION_WITH_ORIGINALS: u8 = 2;

/// What keys of parts begin with; no user's key does.
pub const PART_KEY_PREFIX: &[u8] = b"\xffapcm stream\0";

/// The key of the part that begins with this record: keys of one stream stand in its order.
pub fn part_key(name: &str, first: u64) -> Vec<u8> {
    [&part_keys(name), first.to_be_bytes().as_slice()].concat()
}

/// Prefix of the keys of a stream's parts.
pub fn part_keys(name: &str) -> Vec<u8> {
    let len = u8::try_from(name.len()).unwrap_or(u8::MAX);
    [PART_KEY_PREFIX, &[len], name.as_bytes()].concat()
}

/// The stream and the first record that a key names, if it is a part's.
pub fn part_of_key(key: &[u8]) -> Option<(&str, u64)> {
    let (&len, rest) = key.strip_prefix(PART_KEY_PREFIX)?.split_first()?;
    let (name, first) = rest.split_at_checked(len.into())?;
    let first = u64::from_be_bytes(first.try_into().ok()?);
    Some((std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?, first))
}

/// A part of a stream, as its slot holds it in place of a code.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StreamPart {
    /// Mean of its records' search vectors.
    pub search: Vec<f32>,
    /// The state that the sweeper tree folded its records into.
    pub state: Vec<f32>,
    /// Mean squared error per element of each record, measured in this state.
    pub errors: Vec<StoredReal>,
}

impl StreamPart {
    /// Bytes of a part with so many numbers.
    pub fn encoded_len(search: usize, state: usize, records: usize) -> usize {
        let floats = search.saturating_add(state).saturating_mul(4);
        floats.saturating_add(records.saturating_mul(2)).saturating_add(13)
    }

    /// Lays the part out.
    ///
    /// # Errors
    /// [`Limit`](DecodeError::Limit) when it is too large for a slot, [`Invalid`](DecodeError::Invalid) for
    /// numbers that are not finite, which could not be read again.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        finite(PART, &self.search)?;
        finite(PART, &self.state)?;
        let len = Self::encoded_len(self.search.len(), self.state.len(), self.errors.len());
        if len > CODE_LEN_MAX {
            return Err(DecodeError::Limit { what: PART, found: len as u64, max: CODE_LEN_MAX as u64 });
        }
        let mut out = Vec::with_capacity(len);
        out.push(VERSION << 4);
        out.extend_from_slice(&(self.errors.len() as u32).to_le_bytes());
        put_floats(&mut out, &self.search);
        put_floats(&mut out, &self.state);
        self.errors.iter().for_each(|error| out.extend_from_slice(&error.to_bits().to_le_bytes()));
        Ok(out)
    }

    /// Reads what [`encode`](Self::encode) wrote. The slot's checksum has been looked at before.
    ///
    /// # Errors
    /// A newer version, numbers that are not finite, no records, a length that is not what it says.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(PART, bytes);
        version(PART, reader.u8()?)?;
        let records = reader.u32()? as usize;
        if records == 0 {
            return Err(DecodeError::Invalid { what: "the records of a part", found: 0 });
        }
        let search = floats(PART, &mut reader)?;
        let state = floats(PART, &mut reader)?;
        let errors = reader.take(records.saturating_mul(2))?;
        let errors = errors
            .as_chunks()
            .0
            .iter()
            .map(|&bits| StoredReal::from_bits(u16::from_le_bytes(bits)))
            .collect::<Result<Vec<StoredReal>, DecodeError>>()?;
        reader.finish()?;
        Ok(Self { search, state, errors })
    }

    /// The same in a store whose search vectors have so many values.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), and a search vector of another length.
    pub fn decode_for(bytes: &[u8], search_dims: usize) -> Result<Self, DecodeError> {
        let part = Self::decode(bytes)?;
        let found = part.search.len();
        if found != search_dims {
            let cause = format!("its search vector has {found} values, the store's have {search_dims}");
            return Err(DecodeError::Malformed { what: PART, cause });
        }
        Ok(part)
    }
}

/// The head of a stream.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StreamHead {
    /// The first record of the part under way.
    pub first: u64,
    /// Records ever appended.
    pub len: u64,
    /// The full subtrees of that part, from the lowest level.
    pub states: Vec<Vec<f32>>,
    /// Its records, nearly: what the error of each is measured against as long as the part is appended to. None
    /// in heads that older versions wrote.
    pub originals: Vec<Original>,
}

/// A record in two bytes a value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Original {
    /// Root of the mean squared difference from the record, rounded up.
    pub off: StoredReal,
    /// The factor of the values.
    pub scale: StoredReal,
    /// Bits of half-precision floats in `[-1, 1]`.
    pub values: Vec<u16>,
}

impl Original {
    /// Bytes it takes with so many values.
    pub fn encoded_len(values: usize) -> usize {
        values.saturating_mul(2).saturating_add(4)
    }
}

impl StreamHead {
    /// Lays the head out for its stream.
    pub fn encode(&self, place: Place) -> Vec<u8> {
        let version = if self.originals.is_empty() { VERSION } else { VERSION_WITH_ORIGINALS };
        let mut out = vec![version << 4];
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&(self.states.len() as u32).to_le_bytes());
        self.states.iter().for_each(|state| put_floats(&mut out, state));
        if let Some(one) = self.originals.first() {
            out.extend_from_slice(&(self.originals.len() as u32).to_le_bytes());
            out.extend_from_slice(&(one.values.len() as u32).to_le_bytes());
            for Original { off, scale, values } in &self.originals {
                out.extend_from_slice(&off.to_bits().to_le_bytes());
                out.extend_from_slice(&scale.to_bits().to_le_bytes());
                values.iter().for_each(|bits| out.extend_from_slice(&bits.to_le_bytes()));
            }
        }
        out.extend_from_slice(&place.crc(&[&out]).to_le_bytes());
        out
    }

    /// Reads what [`encode`](Self::encode) wrote for the same place.
    ///
    /// # Errors
    /// Any damage, a newer version, a part that begins beyond the stream's end.
    pub fn decode(bytes: &[u8], place: Place) -> Result<Self, DecodeError> {
        let body = place.body(HEAD, bytes)?;
        let mut reader = Reader::new(HEAD, body);
        let found = reader.u8()?;
        if found != VERSION_WITH_ORIGINALS << 4 {
            version(HEAD, found)?;
        }
        let (first, len) = (reader.u64()?, reader.u64()?);
        if first > len {
            return Err(DecodeError::Invalid { what: "the first record of a part", found: first });
        }
        let count = reader.u32()?;
        if count > u64::BITS {
            return Err(DecodeError::Limit { what: HEAD, found: count.into(), max: u64::BITS.into() });
        }
        let states = (0..count).map(|_| floats(HEAD, &mut reader)).collect::<Result<Vec<_>, _>>()?;
        let originals =
            if found == VERSION_WITH_ORIGINALS << 4 { originals(&mut reader)? } else { Vec::new() };
        reader.finish()?;
        Ok(Self { first, len, states, originals })
    }
}

fn originals(reader: &mut Reader<'_>) -> Result<Vec<Original>, DecodeError> {
    let (count, width) = (reader.u32()?, reader.u32()? as usize);
    if count == 0 {
        return Err(DecodeError::Invalid { what: "the records of a head that has some", found: 0 });
    }
    // Grown as they arrive: a number is only a claim until the bytes are there.
    let mut originals = Vec::new();
    for _ in 0..count {
        let off = StoredReal::from_bits(reader.u16()?)?;
        let scale = StoredReal::from_bits(reader.u16()?)?;
        finite(HEAD, &[scale.get()])?;
        let bytes = reader.take(width.saturating_mul(2))?;
        let values = bytes.as_chunks().0.iter().map(|&bits| u16::from_le_bytes(bits)).collect();
        originals.push(Original { off, scale, values });
    }
    Ok(originals)
}

/// Whether a stream can have this name.
pub fn is_stream_name(name: &str) -> bool {
    (1..=STREAM_NAME_LEN_MAX).contains(&name.len())
}

fn version(what: &'static str, byte: u8) -> Result<(), DecodeError> {
    if byte == VERSION << 4 {
        return Ok(());
    }
    Err(DecodeError::TooNew { what, found: byte.into(), known: u64::from(VERSION << 4) })
}

fn put_floats(out: &mut Vec<u8>, values: &[f32]) {
    out.extend_from_slice(&(values.len() as u32).to_le_bytes());
    values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
}

fn floats(what: &'static str, reader: &mut Reader<'_>) -> Result<Vec<f32>, DecodeError> {
    let len = reader.u32()? as usize;
    let bytes = reader.take(len.saturating_mul(4))?;
    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    finite(what, &values)?;
    Ok(values)
}

fn finite(what: &'static str, values: &[f32]) -> Result<(), DecodeError> {
    match values.iter().find(|value| !value.is_finite()) {
        None => Ok(()),
        Some(value) => Err(DecodeError::Invalid { what, found: value.to_bits().into() }),
    }
}
