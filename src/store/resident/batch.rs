//! Slots on their way from the file into memory.

use super::sizes::SlotSize;
use super::slots::Resident;
use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::policy::Occupant;
use crate::store::file::slot_place;
use apcm_format::{Similarity, SlotKind, SlotRecord, StoreHeader, StreamPart};

/// Slots whose search vectors are derived at a time; most numbers of those, and most bytes of their codes.
const BATCH: usize = 4_096;
const BATCH_NUMBERS: usize = 1 << 20;
const BATCH_BYTES: usize = 16 << 20;

/// Slots on their way from the file into memory.
#[derive(Default)]
pub(crate) struct Batch {
    readable: Vec<(u32, Occupant, SlotSize)>,
    /// Their codes, one after the other, and where each ends.
    codes: Vec<u8>,
    ends: Vec<usize>,
    /// Parts of streams, with their search vectors.
    parts: Vec<(u32, Occupant, SlotSize, Vec<f32>)>,
    /// Slots whose records cannot be read, and their lengths.
    damaged: Vec<(u32, usize)>,
}

impl Batch {
    pub(crate) fn add(&mut self, slot: u32, bytes: &[u8], header: &StoreHeader) {
        match SlotRecord::decode(bytes, slot_place(header.uuid, slot)) {
            Ok(record) => {
                let occupant = Occupant {
                    seq: record.seq,
                    pinned: record.flags.pinned,
                    damaged: false,
                    expires_at: record.expires_at,
                    open: false,
                };
                let size = SlotSize {
                    code: record.code.len() as u32,
                    record: bytes.len() as u32,
                    error: record.error.get(),
                    ..SlotSize::default()
                };
                match record.kind {
                    SlotKind::Record => {
                        self.readable.push((slot, occupant, size));
                        self.codes.extend_from_slice(record.code);
                        self.ends.push(self.codes.len());
                    }
                    // A part of a stream stores its search vector.
                    SlotKind::StreamRoot => {
                        match StreamPart::decode_for(record.code, header.search_dims as usize) {
                            Ok(part) => self.parts.push((slot, occupant, size, part.search)),
                            Err(_) => self.damaged.push((slot, bytes.len())),
                        }
                    }
                }
            }
            // One damaged slot must not take the others with it: it stays where it is, and is no hit.
            Err(_) => self.damaged.push((slot, bytes.len())),
        }
    }

    pub(crate) fn is_full(&self, dims: usize) -> bool {
        self.readable.len() + self.parts.len() >= BATCH.min(BATCH_NUMBERS / dims).max(1)
            || self.codes.len() > BATCH_BYTES
    }

    /// Takes the memory that filling its slots needs, if it may be taken.
    pub(crate) fn reserve(
        &self,
        resident: &mut Resident,
        may_take: &impl Fn(u64) -> Result<()>,
    ) -> Result<()> {
        let vectors = self.readable.len() + self.parts.len();
        resident.reserve_vectors(vectors).map_err(Error::memory("what a store keeps in memory"))?;
        let readable = self.readable.iter().map(|&(slot, ..)| slot);
        let parts = self.parts.iter().map(|&(slot, ..)| slot);
        for slot in readable.chain(parts).chain(self.damaged.iter().map(|&(slot, _)| slot)) {
            // Asked after the pages of one slot were taken: they are few, and what they take is known then.
            resident.reserve(slot).map_err(Error::memory("what a store keeps in memory"))?;
            may_take(resident.memory())?;
        }
        Ok(())
    }

    pub(crate) fn fill(self, resident: &mut Resident, codec: &dyn Codec, similarity: Similarity) {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let codes: Vec<&[u8]> = starts.zip(&self.ends).map(|(start, &end)| &self.codes[start..end]).collect();
        let dims = resident.scan().dims();
        match codec.search_vectors(&codes, similarity) {
            Ok(vectors) => {
                for ((slot, occupant, size), vector) in self.readable.iter().zip(vectors.chunks_exact(dims)) {
                    resident.fill(*slot, *occupant, Some(vector), *size, SlotKind::Record);
                }
            }
            // Some code is not one of this codec's. One by one, to find which.
            Err(_) => {
                for ((slot, occupant, size), code) in self.readable.iter().zip(codes) {
                    match codec.search_vectors(&[code], similarity) {
                        Ok(vector) => resident.fill(*slot, *occupant, Some(&vector), *size, SlotKind::Record),
                        Err(_) => fill_damaged(resident, *slot, size.record as usize),
                    }
                }
            }
        }
        for (slot, occupant, size, search) in self.parts {
            resident.fill(slot, occupant, Some(&search), size, SlotKind::StreamRoot);
        }
        for (slot, record) in self.damaged {
            fill_damaged(resident, slot, record);
        }
    }
}

fn fill_damaged(resident: &mut Resident, slot: u32, record: usize) {
    let occupant = Occupant { seq: 0, pinned: false, damaged: true, expires_at: None, open: false };
    let size = SlotSize { record: record as u32, ..SlotSize::default() };
    resident.fill(slot, occupant, None, size, SlotKind::Record);
}
