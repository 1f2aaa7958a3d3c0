//! All memories, one after the other.

use super::Inner;
use super::guard::storage;
use super::read::Stored;
use super::tables::{SLOTS, residual_place};
use crate::error::Result;
use crate::record::{Record, Records};
use apcm_format::{MemoryId, Metadata, ResidualForm, ResidualRecord, SlotMetadata};
use redb::{ReadTransaction, ReadableTable};

/// Memories in slot order, as they were when the iteration began.
///
/// Holds a snapshot: while it lives, the file cannot reuse what later commits free.
pub struct Entries<'a> {
    inner: &'a Inner,
    transaction: ReadTransaction,
    /// Slots still to come, highest first.
    left: Vec<u32>,
    now: u32,
}

impl std::fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entries").field("left", &self.left.len()).finish()
    }
}

impl<'a> Entries<'a> {
    pub(super) fn new(inner: &'a Inner) -> Result<Self> {
        let (transaction, mut left) = inner.reading("begin an iteration", || {
            let transaction = inner.handle.begin_read()?;
            let slots = transaction.open_table(SLOTS).map_err(storage("open a table"))?;
            let left = slots
                .iter()
                .map_err(storage("read the slots"))?
                .map(|entry| entry.map(|(slot, _)| slot.value()).map_err(storage("read the slots")))
                .collect::<Result<Vec<u32>>>()?;
            Ok((transaction, left))
        })?;
        left.reverse();
        Ok(Self { inner, transaction, left, now: inner.now() })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let slot = self.left.pop()?;
            let inner = self.inner;
            match inner.reading("read a memory", || inner.stored_in(&self.transaction, slot, None)) {
                Ok(Some(stored)) if stored.expires_at.is_none_or(|at| at > self.now) => {
                    let live = inner.live.read();
                    // A count is its memory's, not its slot's: one that left since the snapshot has none any more.
                    let there = live.bank().get(slot).is_some_and(|occupant| occupant.seq == stored.id.seq);
                    let count = if there { live.counts().get(slot) } else { 0 };
                    return Some(Ok(Entry { inner, stored, count }));
                }
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// One memory of an iteration; its record is decoded when asked for.
#[derive(Debug)]
pub struct Entry<'a> {
    inner: &'a Inner,
    stored: Stored,
    count: u32,
}

impl Entry<'_> {
    /// Its name for good.
    pub fn id(&self) -> MemoryId {
        self.stored.id
    }

    /// The user's key.
    pub fn key(&self) -> Option<&[u8]> {
        self.stored.metadata.key.as_deref()
    }

    /// The user's values.
    pub fn metadata(&self) -> &Metadata {
        &self.stored.metadata.values
    }

    /// Mean squared error per element of its reconstruction, measured when it went in, rounded up.
    pub fn error(&self) -> f32 {
        self.stored.error
    }

    /// Euclidean norm of the record that went in, rounded up.
    pub fn norm(&self) -> f32 {
        self.stored.norm
    }

    /// Key and values as the slot keeps them.
    pub(super) fn slot_metadata(&self) -> &SlotMetadata {
        &self.stored.metadata
    }

    /// What is kept beside its code.
    pub(super) fn residual_form(&self) -> Option<ResidualForm> {
        let place = residual_place(self.inner.header.uuid, self.stored.id.slot);
        let bytes = self.stored.residual.as_deref()?;
        ResidualRecord::decode(bytes, place).ok().map(|residual| residual.form)
    }

    /// Bytes of its code.
    pub fn code_len(&self) -> usize {
        self.stored.code.len()
    }

    /// Bytes of what is kept beside its code; 0 where the code is all.
    pub fn residual_len(&self) -> usize {
        self.stored.residual.as_ref().map_or(0, Vec::len)
    }

    /// How often it was read.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether it is never a victim.
    pub fn is_pinned(&self) -> bool {
        self.stored.pinned
    }

    /// When it was written, in seconds since 1970.
    pub fn written_at(&self) -> u32 {
        self.stored.written_at
    }

    /// When it begins to count as free, in seconds since 1970.
    pub fn expires_at(&self) -> Option<u32> {
        self.stored.expires_at
    }

    /// Decodes its record. Not counted.
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt).
    pub fn record(&self) -> Result<Record> {
        self.inner.decode(&self.stored)
    }

    /// Decodes the records of several entries in one go, which is many times faster than one by one.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn records(entries: &[Self]) -> Result<Option<Records>> {
        let Some(first) = entries.first() else { return Ok(None) };
        let stored: Vec<&Stored> = entries.iter().map(|entry| &entry.stored).collect();
        first.inner.decode_all(&stored).map(Some)
    }
}
