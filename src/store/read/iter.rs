//! All memories, one after the other.

use crate::claim::reserve;
use crate::error::{Error, Result};
use crate::record::{Record, Records};
use crate::store::engine::Engine;
use crate::store::file::{Snapshot, storage};
use crate::store::store::Store;
use crate::stored::Stored;
use apcm_format::{MemoryId, Metadata};
use redb::{ReadableTable, ReadableTableMetadata};
use std::sync::Arc;

/// Memories in slot order, as they were when the iteration began.
///
/// Holds a snapshot: while it lives, the file cannot reuse what later commits free.
#[must_use = "an iterator is lazy"]
pub struct Entries<'a> {
    engine: &'a Engine,
    snapshot: Arc<Snapshot>,
    /// Slots still to come, highest first.
    left: Vec<u32>,
    now: u32,
}

impl Store {
    /// All memories in slot order, as of now; records are decoded only where asked for.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage).
    pub fn iter(&self) -> Result<Entries<'_>> {
        Entries::new(&self.engine)
    }
}

impl std::fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entries").field("left", &self.left.len()).finish()
    }
}

impl<'a> Entries<'a> {
    pub(crate) fn new(engine: &'a Engine) -> Result<Self> {
        let (snapshot, mut left) = engine.reading("begin an iteration", || {
            let snapshot = engine.snapshot()?;
            let mut left = Vec::new();
            let rows = usize::try_from(snapshot.slots.len().map_err(storage("count the slots"))?);
            reserve(&mut left, rows.unwrap_or(usize::MAX)).map_err(Error::memory("the slots of a store"))?;
            for entry in snapshot.slots.iter().map_err(storage("read the slots"))? {
                left.push(entry.map_err(storage("read the slots"))?.0.value());
            }
            Ok((snapshot, left))
        })?;
        left.reverse();
        Ok(Self { engine, snapshot, left, now: engine.now() })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let slot = self.left.pop()?;
            let engine = self.engine;
            match engine.reading("read a memory", || engine.stored_in(&self.snapshot, slot, None)) {
                Ok(Some(stored)) if stored.is_there(self.now) => {
                    let count = engine.count_of(stored.id);
                    return Some(Ok(Entry { engine, stored, count }));
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
    engine: &'a Engine,
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
        self.stored.key()
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

    /// Decodes its record, or of a part of a stream the mean of its records. Not counted.
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt).
    pub fn record(&self) -> Result<Record> {
        self.engine.decode(&self.stored)
    }

    /// Decodes the records of several entries in one go, which is many times faster than one by one.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn records(entries: &[Self]) -> Result<Option<Records>> {
        let Some(first) = entries.first() else { return Ok(None) };
        let stored: Vec<&Stored> = entries.iter().map(|entry| &entry.stored).collect();
        first.engine.decode_all(&stored).map(Some)
    }
}
