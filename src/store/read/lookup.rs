//! One memory from a snapshot: its rows looked up, checked and decoded.

use crate::error::{Error, Result};
use crate::record::{Record, Records};
use crate::store::engine::Engine;
use crate::store::file::{RESIDUALS, Snapshot, metadata_place, slot_place, storage};
use crate::stored::{Stored, corrupt_residual, decode_all};
use apcm_format::{DecodeError, MemoryId, SlotKind, SlotMetadata, SlotRecord, frame};
use redb::ReadTransaction;
use std::sync::Arc;

impl Engine {
    /// The database as of the last change of memory, so that snapshot and memory show a commit at the same
    /// moment.
    pub(crate) fn snapshot(&self) -> Result<Arc<Snapshot>> {
        let published = self.resident.read().published();
        match published {
            Some(snapshot) => Ok(snapshot),
            // A file with a page that cannot be read, opened for reading.
            None => Snapshot::of(&self.handle),
        }
    }

    /// The memory of this id in a snapshot, or `None` when its slot is empty or another's.
    pub(crate) fn stored(&self, snapshot: &Snapshot, id: MemoryId) -> Result<Option<Stored>> {
        self.stored_in(snapshot, id.slot, Some(id.seq))
    }

    /// The memory in a slot of a snapshot, if it is the one wanted.
    pub(crate) fn stored_in(
        &self,
        snapshot: &Snapshot,
        slot: u32,
        wanted: Option<u64>,
    ) -> Result<Option<Stored>> {
        let Some(value) = snapshot.slots.get(slot).map_err(storage("look up a slot"))? else {
            return Ok(None);
        };
        let record = self.slot_record(slot, value.value())?;
        if wanted.is_some_and(|seq| seq != record.seq) {
            return Ok(None);
        }
        let metadata = self.metadata(snapshot, slot)?;
        let residual =
            if record.flags.residual { Some(residual(&snapshot.transaction, slot)?) } else { None };
        Ok(Some(Stored::new(slot, &record, metadata, residual)))
    }

    pub(crate) fn slot_record<'a>(&self, slot: u32, bytes: &'a [u8]) -> Result<SlotRecord<'a>> {
        SlotRecord::decode(bytes, slot_place(self.header.uuid, slot))
            .map_err(|cause| Error::Corrupt { what: format!("slot {slot}"), cause })
    }

    pub(crate) fn metadata(&self, snapshot: &Snapshot, slot: u32) -> Result<SlotMetadata> {
        match snapshot.metadata.get(slot).map_err(storage("look up metadata"))? {
            None => Ok(SlotMetadata::default()),
            Some(value) => frame::open(value.value(), metadata_place(self.header.uuid, slot))
                .map_err(|cause| Error::Corrupt { what: format!("the metadata of slot {slot}"), cause }),
        }
    }

    pub(crate) fn decode(&self, stored: &Stored) -> Result<Record> {
        Ok(self.decode_all(&[stored])?.get(0))
    }

    /// Decodes memories in one go, each with its residual; a part of a stream to the mean of its records.
    pub(crate) fn decode_all(&self, all: &[&Stored]) -> Result<Records> {
        let coded: Vec<&Stored> =
            all.iter().copied().filter(|stored| stored.kind == SlotKind::Record).collect();
        let decoded = decode_all(self.codec.as_ref(), self.header.uuid, &coded)?;
        if coded.len() == all.len() {
            return Ok(decoded);
        }
        let mut rows = decoded.rows();
        let mut records = Records::new(self.header.shape);
        for stored in all {
            match stored.kind {
                SlotKind::Record => rows.next().map_or(Ok(()), |row| records.push_values(row))?,
                SlotKind::StreamRoot => records.push_values(&self.mean_of_part(stored)?)?,
            }
        }
        Ok(records)
    }
}

/// A slot that is ranked and is not there.
pub(crate) fn vanished(slot: u32) -> Error {
    let cause =
        DecodeError::Invalid { what: "a slot that was there when the store was opened", found: slot.into() };
    Error::Corrupt { what: format!("slot {slot}"), cause }
}

fn residual(transaction: &ReadTransaction, slot: u32) -> Result<Vec<u8>> {
    let table = transaction.open_table(RESIDUALS).map_err(storage("open a table"))?;
    match table.get(slot).map_err(storage("look up a residual"))? {
        Some(value) => Ok(value.value().to_vec()),
        None => {
            let cause = DecodeError::Truncated { what: "a residual", needed: 1, found: 0 };
            Err(corrupt_residual(slot, cause))
        }
    }
}
