//! Words of the policy for each slot's uses, apart from the codes so that a flush rewrites little.

use crate::bytes::Reader;
use crate::limits::USES_PER_CHUNK;
use crate::{DecodeError, Place, chunk};

const WHAT: &str = "a chunk of uses";

/// The policy's words of 125 neighbouring slots; what they mean is the policy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UseChunk {
    /// One word a slot; 0 for slots of which nothing is known.
    pub words: [u64; USES_PER_CHUNK],
}

impl UseChunk {
    /// The chunk a slot's word is in.
    pub fn number_of(slot: u32) -> u32 {
        slot.div_euclid(USES_PER_CHUNK as u32)
    }

    /// Lays the chunk out.
    pub fn encode(&self, place: Place) -> Vec<u8> {
        chunk::encode(self.words.iter().map(|number| number.to_le_bytes()), place)
    }

    /// Reads what [`encode`](Self::encode) wrote for the same place.
    ///
    /// # Errors
    /// Wrong length or checksum.
    pub fn decode(bytes: &[u8], place: Place) -> Result<Self, DecodeError> {
        Ok(Self { words: chunk::decode(WHAT, bytes, place, Reader::u64)? })
    }
}
