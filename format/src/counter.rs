//! Access counts, apart from the codes so that a flush rewrites little.

use crate::bytes::Reader;
use crate::limits::COUNTERS_PER_CHUNK;
use crate::{DecodeError, Place, chunk};

const WHAT: &str = "a counter chunk";

/// The access counts of 250 neighbouring slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterChunk {
    /// One saturating count a slot; 0 for slots that are free.
    pub counts: [u32; COUNTERS_PER_CHUNK],
}

impl CounterChunk {
    /// The chunk a slot's count is in.
    pub fn number_of(slot: u32) -> u32 {
        slot.div_euclid(COUNTERS_PER_CHUNK as u32)
    }

    /// Lays the chunk out.
    pub fn encode(&self, place: Place) -> Vec<u8> {
        chunk::encode(self.counts.iter().map(|number| number.to_le_bytes()), place)
    }

    /// Reads what [`encode`](Self::encode) wrote for the same place.
    ///
    /// # Errors
    /// Wrong length or checksum.
    pub fn decode(bytes: &[u8], place: Place) -> Result<Self, DecodeError> {
        Ok(Self { counts: chunk::decode(WHAT, bytes, place, Reader::u32)? })
    }
}
