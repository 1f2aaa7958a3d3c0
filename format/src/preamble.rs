//! The common parts of the headers of stores and packs.

use crate::bytes::{Reader, split_crc};
use crate::limits::CAPACITY_MAX;
use crate::{DecodeError, RecordShape};

/// How a header begins.
pub(crate) struct Preamble {
    /// What to call the header in an error.
    pub(crate) what: &'static str,
    /// What to call the file.
    pub(crate) file: &'static str,
    pub(crate) magic: [u8; 8],
    pub(crate) major: u16,
    pub(crate) minor: u16,
}

impl Preamble {
    /// Magic, version and the header's length.
    pub(crate) fn encode(&self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&self.magic);
        out.extend_from_slice(&self.major.to_le_bytes());
        out.extend_from_slice(&self.minor.to_le_bytes());
        out.extend_from_slice(&(len as u32).to_le_bytes());
        out
    }

    /// The fields behind magic, version and length, of a header whose CRC fits.
    pub(crate) fn fields<'a>(&self, bytes: &'a [u8], len: usize) -> Result<Reader<'a>, DecodeError> {
        let Some(rest) = bytes.strip_prefix(&self.magic) else {
            return Err(DecodeError::Magic { what: self.file });
        };
        let mut reader = Reader::new(self.what, rest);
        // The version is looked at before the checksum: a newer version may lay out, and check, the rest
        // differently.
        let major = reader.u16()?;
        if major > self.major {
            let (found, known) = (major.into(), self.major.into());
            return Err(DecodeError::TooNew { what: self.what, found, known });
        }
        let (body, crc) = split_crc(self.what, bytes)?;
        if crc32fast::hash(body) != crc {
            return Err(DecodeError::Checksum { what: self.what });
        }
        if major == 0 {
            return Err(DecodeError::Invalid { what: "the format's major version", found: 0 });
        }
        let _minor = reader.u16()?;
        let found = reader.u32()?;
        if found as usize != len {
            return Err(DecodeError::Invalid { what: "the header's length", found: found.into() });
        }
        Ok(reader)
    }
}

/// Ends a header with its CRC.
pub(crate) fn sealed<const LEN: usize>(mut out: Vec<u8>) -> [u8; LEN] {
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    let mut bytes = [0; LEN];
    for (to, from) in bytes.iter_mut().zip(out) {
        *to = from;
    }
    bytes
}

/// Reads how many slots a store has.
pub(crate) fn capacity(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
    match reader.u32()? {
        found if found == 0 || found > CAPACITY_MAX => {
            Err(DecodeError::Limit { what: "the capacity", found: found.into(), max: CAPACITY_MAX.into() })
        }
        capacity => Ok(capacity),
    }
}

/// Reads the length of a search vector of records of a shape.
pub(crate) fn search_dims(reader: &mut Reader<'_>, shape: RecordShape) -> Result<u32, DecodeError> {
    let found = reader.u32()?;
    // One more than the record has: the part of the mean that no kept axis carries.
    let max = (shape.values() as u64).saturating_add(1);
    if found == 0 || u64::from(found) > max {
        let what = "the length of a search vector";
        return Err(DecodeError::Limit { what, found: found.into(), max });
    }
    Ok(found)
}
