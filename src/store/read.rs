//! Reads: rank in memory, look up in a snapshot, check that both speak of the same write, decode outside all locks.

use super::flusher::BUMPS_MAX;
use super::guard::storage;
use super::memory::Memory;
use super::tables::{KEYS, METADATA, RESIDUALS, SLOTS, metadata_place, residual_place, slot_place};
use super::{Inner, check_key};
use crate::codec::StoredCode;
use crate::codec::fidelity::restore;
use crate::error::{Error, Result};
use crate::index::{Scan, Wanted};
use crate::record::{Record, Records};
use apcm_format::{DecodeError, MemoryId, ResidualRecord, SlotMetadata, SlotRecord, frame};
use redb::ReadTransaction;

/// A slot's stored form, copied out of the database: guards pin pages and are never handed on.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) id: MemoryId,
    pub(super) code: Vec<u8>,
    pub(super) without_predictor: bool,
    pub(super) pinned: bool,
    pub(super) written_at: u32,
    pub(super) expires_at: Option<u32>,
    pub(super) error: f32,
    pub(super) norm: f32,
    pub(super) metadata: SlotMetadata,
    /// Its residual's stored bytes, not yet looked at.
    pub(super) residual: Option<Vec<u8>>,
}

impl Stored {
    pub(super) fn code(&self) -> StoredCode<'_> {
        StoredCode { bytes: &self.code, without_predictor: self.without_predictor }
    }

    pub(super) fn into_memory(self, record: Record, similarity: Option<f32>) -> Memory {
        Memory {
            id: self.id,
            key: self.metadata.key,
            metadata: self.metadata.values,
            record,
            error: self.error,
            similarity,
        }
    }
}

impl Inner {
    pub(super) fn nearest(&self, query: &Record, counted: bool) -> Result<Option<Memory>> {
        // Asked here too: what is in memory may be behind a commit of unknown outcome.
        self.check_usable()?;
        let vector = self.codec.query_vectors(&Records::from(query), self.header.similarity)?;
        for attempt in 0.. {
            let (last, writer) = self.last_attempt(attempt);
            let now = self.now();
            let best = {
                let live = self.live.read();
                let admit = |slot| live.occupant(slot, now).is_some();
                let wanted = Wanted { k: 1, floor: f32::NEG_INFINITY, scan: Scan::Auto, threads: None };
                let best = live.scan().nearest(&vector, &wanted, admit);
                best.first()
                    .and_then(|best| best.first())
                    .and_then(|best| Some((*best, live.occupant(best.slot, now)?.seq)))
            };
            let Some((best, seq)) = best else { return Ok(None) };
            let id = MemoryId { slot: best.slot, seq };
            // A commit may have come between ranking and looking: then what was ranked is gone, and the reader
            // ranks again what is there now.
            let found = self.reading("read a memory", || self.stored(&self.handle.begin_read()?, id))?;
            match found {
                Some(stored) => {
                    drop(writer);
                    let record = self.decode(&stored)?;
                    self.count(id, counted);
                    return Ok(Some(stored.into_memory(record, Some(best.similarity))));
                }
                None if last => return Err(vanished(best.slot)),
                None => std::thread::yield_now(),
            }
        }
        Ok(None)
    }

    /// After a few attempts a reader waits for the writer, so that no commit can come between; if what is in memory
    /// and what is on disk still disagree then, they always will. On a read-only handle nothing ever comes between.
    pub(super) fn last_attempt(&self, attempt: u32) -> (bool, Option<parking_lot::MutexGuard<'_, ()>>) {
        let alone = self.handle.writable().is_err();
        let last = alone || attempt >= 3;
        (last, (last && !alone).then(|| self.writer.lock()))
    }

    pub(super) fn by_key(&self, key: &[u8], counted: bool) -> Result<Option<Memory>> {
        loop {
            let Some(id) = self.find_key(key)? else { return Ok(None) };
            match self.by_id(id, counted) {
                // Replaced since: the key leads elsewhere now, or nowhere.
                Err(Error::NotFound { .. }) => std::thread::yield_now(),
                result => return result.map(Some),
            }
        }
    }

    pub(super) fn by_id(&self, id: MemoryId, counted: bool) -> Result<Memory> {
        let stored = self.reading("read a memory", || self.stored(&self.handle.begin_read()?, id))?;
        let now = self.now();
        let stored = stored
            .filter(|stored| stored.expires_at.is_none_or(|at| at > now))
            .ok_or(Error::NotFound { id })?;
        let record = self.decode(&stored)?;
        self.count(id, counted);
        Ok(stored.into_memory(record, None))
    }

    pub(super) fn find_key(&self, key: &[u8]) -> Result<Option<MemoryId>> {
        check_key(key)?;
        let found = self.reading("look up a key", || {
            let transaction = self.handle.begin_read()?;
            let keys = transaction.open_table(KEYS).map_err(storage("open a table"))?;
            let Some(slot) = keys.get(key).map_err(storage("look up a key"))? else { return Ok(None) };
            let slot = slot.value();
            // The row of a key carries no checksum: the slot must name the key in return.
            let metadata = self.metadata(&transaction, slot)?;
            if metadata.key.as_deref() != Some(key) {
                return Err(Error::Corrupt {
                    what: format!("the key {:?}", String::from_utf8_lossy(key)),
                    cause: DecodeError::Invalid { what: "the slot of a key", found: slot.into() },
                });
            }
            let slots = transaction.open_table(SLOTS).map_err(storage("open a table"))?;
            let Some(value) = slots.get(slot).map_err(storage("look up a slot"))? else { return Ok(None) };
            let record = self.slot_record(slot, value.value())?;
            Ok(Some((MemoryId { slot, seq: record.seq }, record.expires_at)))
        })?;
        let now = self.now();
        Ok(found.filter(|(_, expires_at)| expires_at.is_none_or(|at| at > now)).map(|(id, _)| id))
    }

    /// The memory of this id in a snapshot, or `None` when its slot is empty or another's.
    pub(super) fn stored(&self, transaction: &ReadTransaction, id: MemoryId) -> Result<Option<Stored>> {
        self.stored_in(transaction, id.slot, Some(id.seq))
    }

    /// The memory in a slot of a snapshot, if it is the one wanted.
    pub(super) fn stored_in(
        &self,
        transaction: &ReadTransaction,
        slot: u32,
        wanted: Option<u64>,
    ) -> Result<Option<Stored>> {
        let slots = transaction.open_table(SLOTS).map_err(storage("open a table"))?;
        let Some(value) = slots.get(slot).map_err(storage("look up a slot"))? else { return Ok(None) };
        let record = self.slot_record(slot, value.value())?;
        if wanted.is_some_and(|seq| seq != record.seq) {
            return Ok(None);
        }
        let metadata = self.metadata(transaction, slot)?;
        let residual = if record.flags.residual { self.residual(transaction, slot)? } else { None };
        Ok(Some(Stored {
            id: MemoryId { slot, seq: record.seq },
            code: record.code.to_vec(),
            without_predictor: record.flags.without_predictor,
            pinned: record.flags.pinned,
            written_at: record.written_at,
            expires_at: record.expires_at,
            error: record.error.get(),
            norm: record.norm.get(),
            metadata,
            residual,
        }))
    }

    pub(super) fn slot_record<'a>(&self, slot: u32, bytes: &'a [u8]) -> Result<SlotRecord<'a>> {
        SlotRecord::decode(bytes, slot_place(self.header.uuid, slot))
            .map_err(|cause| Error::Corrupt { what: format!("slot {slot}"), cause })
    }

    pub(super) fn metadata(&self, transaction: &ReadTransaction, slot: u32) -> Result<SlotMetadata> {
        let table = transaction.open_table(METADATA).map_err(storage("open a table"))?;
        match table.get(slot).map_err(storage("look up metadata"))? {
            None => Ok(SlotMetadata::default()),
            Some(value) => frame::open(value.value(), metadata_place(self.header.uuid, slot))
                .map_err(|cause| Error::Corrupt { what: format!("the metadata of slot {slot}"), cause }),
        }
    }

    fn residual(&self, transaction: &ReadTransaction, slot: u32) -> Result<Option<Vec<u8>>> {
        let table = transaction.open_table(RESIDUALS).map_err(storage("open a table"))?;
        match table.get(slot).map_err(storage("look up a residual"))? {
            Some(value) => Ok(Some(value.value().to_vec())),
            None => Err(corrupt_residual(
                slot,
                DecodeError::Truncated { what: "a residual", needed: 1, found: 0 },
            )),
        }
    }

    pub(super) fn decode(&self, stored: &Stored) -> Result<Record> {
        Ok(self.decode_all(&[stored])?.get(0))
    }

    /// Decodes memories in one go, each with its residual.
    pub(super) fn decode_all(&self, all: &[&Stored]) -> Result<Records> {
        let codes: Vec<StoredCode<'_>> = all.iter().map(|stored| stored.code()).collect();
        let slot = all.first().map_or(0, |stored| stored.id.slot);
        let mut records = self.codec.decode(&codes).map_err(|error| corrupt_code(slot, error))?;
        for (index, stored) in all.iter().enumerate() {
            let Some(bytes) = &stored.residual else { continue };
            let slot = stored.id.slot;
            let residual = ResidualRecord::decode(bytes, residual_place(self.header.uuid, slot))
                .map_err(|cause| corrupt_residual(slot, cause))?;
            if residual.seq != stored.id.seq {
                let what = "the write that a residual belongs to";
                return Err(corrupt_residual(slot, DecodeError::Invalid { what, found: residual.seq }));
            }
            restore(residual.form, residual.payload, records.row_mut(index)).map_err(
                |error| match error {
                    Error::Format(cause) => corrupt_residual(slot, cause),
                    other => other,
                },
            )?;
        }
        Ok(records)
    }

    /// Counts an access: the store's total always, the memory's own count if it is still there. Read-only handles
    /// never count.
    pub(super) fn count(&self, id: MemoryId, counted: bool) {
        if !counted || self.handle.writable().is_err() {
            return;
        }
        let live = self.live.read();
        let there = live.bank().get(id.slot).is_some_and(|occupant| occupant.seq == id.seq);
        if live.counts().bump(there.then_some(id.slot)) == BUMPS_MAX {
            self.signal.flush_soon();
        }
    }
}

/// A slot that is ranked and is not there.
pub(super) fn vanished(slot: u32) -> Error {
    let cause =
        DecodeError::Invalid { what: "a slot that was there when the store was opened", found: slot.into() };
    Error::Corrupt { what: format!("slot {slot}"), cause }
}

fn corrupt_residual(slot: u32, cause: DecodeError) -> Error {
    Error::Corrupt { what: format!("the residual of slot {slot}"), cause }
}

/// A code that passed its checksum and that the codec refuses all the same.
pub(super) fn corrupt_code(slot: u32, error: Error) -> Error {
    match error {
        Error::Format(cause) => Error::Corrupt { what: format!("the code in slot {slot}"), cause },
        other => other,
    }
}
