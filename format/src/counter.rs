//! Access counts, apart from the codes so that a flush rewrites little.

use crate::bytes::Reader;
use crate::limits::COUNTERS_PER_CHUNK;
use crate::{DecodeError, Place};

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
        let mut out: Vec<u8> = self.counts.iter().flat_map(|count| count.to_le_bytes()).collect();
        out.extend_from_slice(&place.crc(&[&out]).to_le_bytes());
        out
    }

    /// Reads what [`encode`](Self::encode) wrote for the same place.
    ///
    /// # Errors
    /// Wrong length or checksum.
    pub fn decode(bytes: &[u8], place: Place) -> Result<Self, DecodeError> {
        let body = place.body(WHAT, bytes)?;
        let mut reader = Reader::new(WHAT, body);
        let mut counts = [0; COUNTERS_PER_CHUNK];
        for count in &mut counts {
            *count = reader.u32()?;
        }
        reader.finish()?;
        Ok(Self { counts })
    }
}
