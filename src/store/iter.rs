//! All memories, one after the other.

use super::Inner;
use super::guard::storage;
use super::read::Stored;
use super::tables::SLOTS;
use crate::error::Result;
use crate::record::{Record, Records};
use apcm_format::{MemoryId, Metadata};
use redb::ReadTransaction;

/// Memories in slot order, as they were when the iteration began.
///
/// Holds a snapshot: while it lives, the file cannot reuse what later commits free.
pub struct Entries<'a> {
    inner: &'a Inner,
    transaction: ReadTransaction,
    /// Slots still to come, highest first.
    left: Vec<MemoryId>,
}

impl std::fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entries").field("left", &self.left.len()).finish()
    }
}

impl<'a> Entries<'a> {
    pub(super) fn new(inner: &'a Inner) -> Result<Self> {
        let transaction = inner.reading("begin an iteration", || inner.handle.begin_read())?;
        let now = inner.now();
        let live = inner.live.read();
        let ids = live.bank().iter().filter(|(slot, _)| live.occupant(*slot, now).is_some());
        let mut left: Vec<MemoryId> =
            ids.map(|(slot, occupant)| MemoryId { slot, seq: occupant.seq }).collect();
        drop(live);
        left.reverse();
        Ok(Self { inner, transaction, left })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let id = self.left.pop()?;
            let found = self.inner.reading("read a memory", || {
                // A slot that was damaged when the store was opened has no sequence number: its record says why.
                if id.seq == 0 {
                    let slots = self.transaction.open_table(SLOTS).map_err(storage("open a table"))?;
                    if let Some(value) = slots.get(id.slot).map_err(storage("look up a slot"))? {
                        self.inner.slot_record(id.slot, value.value())?;
                    }
                }
                self.inner.stored(&self.transaction, id)
            });
            match found {
                Ok(None) => {}
                Ok(Some(stored)) => {
                    let count = self.inner.live.read().counts().get(id.slot);
                    return Some(Ok(Entry { inner: self.inner, stored, count }));
                }
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

    /// Bytes of its code.
    pub fn code_len(&self) -> usize {
        self.stored.code.len()
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
        let codes: Vec<_> = entries.iter().map(|entry| entry.stored.code()).collect();
        first.inner.codec.decode(&codes).map(Some)
    }
}
