//! Reads: rank in memory, look up in a snapshot, check that both speak of the same write, decode outside all locks.

use super::file::Handle;
use super::flusher::BUMPS_MAX;
use super::guard::storage;
use super::tables::{KEYS, METADATA, RESIDUALS, SLOTS, metadata_place, slot_place};
use super::{Inner, check_key};
use crate::error::{Error, Result};
use crate::index::{Scan, Wanted};
use crate::memory::Memory;
use crate::record::{Record, Records};
use crate::stored::{Stored, corrupt_residual, decode_all};
use apcm_format::{DecodeError, MemoryId, SlotKind, SlotMetadata, SlotRecord, frame};
use redb::{ReadOnlyTable, ReadTransaction};
use std::sync::Arc;

/// The database as it was at one moment, its tables opened once for all that is looked up in it.
pub(super) struct Snapshot {
    pub(super) transaction: ReadTransaction,
    pub(super) slots: ReadOnlyTable<u32, &'static [u8]>,
    pub(super) metadata: ReadOnlyTable<u32, &'static [u8]>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

impl Snapshot {
    pub(super) fn of(handle: &Handle) -> Result<Arc<Self>> {
        let transaction = handle.begin_read()?;
        let slots = transaction.open_table(SLOTS).map_err(storage("open a table"))?;
        let metadata = transaction.open_table(METADATA).map_err(storage("open a table"))?;
        Ok(Arc::new(Self { transaction, slots, metadata }))
    }
}

impl Inner {
    pub(super) fn nearest(&self, query: &Record, counted: bool) -> Result<Option<Memory>> {
        // Asked here too: what is in memory may be behind a commit of unknown outcome.
        self.check_usable()?;
        let vector = self.codec.query_vectors(&Records::from(query), self.header.similarity)?;
        for attempt in 0.. {
            let now = self.now();
            let (last, writer) = self.last_attempt(attempt);
            let best = {
                let live = self.live.read();
                let admit = |slot| live.occupant(slot, now).is_some();
                let wanted = Wanted { k: 1, floor: f32::NEG_INFINITY, scan: Scan::Auto, threads: None };
                let best = live.scan().view().nearest(&vector, &wanted, admit);
                best.first()
                    .and_then(|best| best.first())
                    .and_then(|best| Some((*best, live.occupant(best.slot, now)?.seq)))
            };
            let Some((best, seq)) = best else { return Ok(None) };
            let id = MemoryId { slot: best.slot, seq };
            // A commit may have come between ranking and looking: then what was ranked is gone, and the reader
            // ranks again what is there now.
            let found = self.reading("read a memory", || self.stored(&*self.snapshot()?, id))?;
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
        let stored = self.reading("read a memory", || self.stored(&*self.snapshot()?, id))?;
        let now = self.now();
        let stored = stored.filter(|stored| stored.is_there(now)).ok_or(Error::NotFound { id })?;
        let record = self.decode(&stored)?;
        self.count(id, counted);
        Ok(stored.into_memory(record, None))
    }

    pub(super) fn find_key(&self, key: &[u8]) -> Result<Option<MemoryId>> {
        check_key(key)?;
        let found = self.reading("look up a key", || {
            let snapshot = self.snapshot()?;
            let keys = snapshot.transaction.open_table(KEYS).map_err(storage("open a table"))?;
            let Some(slot) = keys.get(key).map_err(storage("look up a key"))? else { return Ok(None) };
            let slot = slot.value();
            // The row of a key carries no checksum: the slot must name the key in return.
            let metadata = self.metadata(&snapshot, slot)?;
            if metadata.key.as_deref() != Some(key) {
                return Err(Error::Corrupt {
                    what: format!("the key {:?}", String::from_utf8_lossy(key)),
                    cause: DecodeError::Invalid { what: "the slot of a key", found: slot.into() },
                });
            }
            let Some(value) = snapshot.slots.get(slot).map_err(storage("look up a slot"))? else {
                return Ok(None);
            };
            let record = self.slot_record(slot, value.value())?;
            Ok(Some((MemoryId { slot, seq: record.seq }, record.expires_at)))
        })?;
        let now = self.now();
        Ok(found.filter(|(_, expires_at)| expires_at.is_none_or(|at| at > now)).map(|(id, _)| id))
    }

    /// The database as it was when memory last changed: a commit is seen by those who ask it and by those who ask memory
    /// at the same moment.
    pub(super) fn snapshot(&self) -> Result<Arc<Snapshot>> {
        let published = self.live.read().published();
        match published {
            Some(snapshot) => Ok(snapshot),
            // A file with a page that cannot be read, opened for reading.
            None => Snapshot::of(&self.handle),
        }
    }

    /// The memory of this id in a snapshot, or `None` when its slot is empty or another's.
    pub(super) fn stored(&self, snapshot: &Snapshot, id: MemoryId) -> Result<Option<Stored>> {
        self.stored_in(snapshot, id.slot, Some(id.seq))
    }

    /// The memory in a slot of a snapshot, if it is the one wanted.
    pub(super) fn stored_in(
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

    pub(super) fn slot_record<'a>(&self, slot: u32, bytes: &'a [u8]) -> Result<SlotRecord<'a>> {
        SlotRecord::decode(bytes, slot_place(self.header.uuid, slot))
            .map_err(|cause| Error::Corrupt { what: format!("slot {slot}"), cause })
    }

    pub(super) fn metadata(&self, snapshot: &Snapshot, slot: u32) -> Result<SlotMetadata> {
        match snapshot.metadata.get(slot).map_err(storage("look up metadata"))? {
            None => Ok(SlotMetadata::default()),
            Some(value) => frame::open(value.value(), metadata_place(self.header.uuid, slot))
                .map_err(|cause| Error::Corrupt { what: format!("the metadata of slot {slot}"), cause }),
        }
    }

    pub(super) fn decode(&self, stored: &Stored) -> Result<Record> {
        Ok(self.decode_all(&[stored])?.get(0))
    }

    /// Decodes memories in one go, each with its residual; a part of a stream to the mean of its records.
    pub(super) fn decode_all(&self, all: &[&Stored]) -> Result<Records> {
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

    /// How often a memory has been read; 0 for one that left: a count is its memory's, not its slot's.
    pub(super) fn count_of(&self, id: MemoryId) -> u32 {
        let live = self.live.read();
        let there = live.bank().get(id.slot).is_some_and(|occupant| occupant.seq == id.seq);
        if there { live.counts().get(id.slot) } else { 0 }
    }

    /// Counts an access: the store's total always, the memory's own count if it is still there. Read-only handles
    /// never count.
    pub(super) fn count(&self, id: MemoryId, counted: bool) {
        if !counted || self.handle.writable().is_err() {
            return;
        }
        let live = self.live.read();
        let there = live.bank().get(id.slot).is_some_and(|occupant| occupant.seq == id.seq);
        if there {
            live.uses().touch(id.slot, live.tick());
        }
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
