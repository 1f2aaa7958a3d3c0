//! Reads of one memory, by its key or its id, and what an access counts.

use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::store::engine::Engine;
use crate::store::file::{KEYS, storage};
use crate::store::resident::BUMPS_MAX;
use crate::store::store::Store;
use apcm_format::{DecodeError, MemoryId};

impl Store {
    /// Reads the memory with this key and counts the access.
    ///
    /// # Errors
    /// [`Corrupt`](Error::Corrupt), [`Storage`](Error::Storage).
    pub fn get(&self, key: &[u8]) -> Result<Option<Memory>> {
        self.engine.by_key(key, true)
    }

    /// Reads the memory with this key without counting the access.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn peek_key(&self, key: &[u8]) -> Result<Option<Memory>> {
        self.engine.by_key(key, false)
    }

    /// Reads the memory with this id and counts the access.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound) for an id whose memory left, even if another occupies its slot.
    pub fn get_id(&self, id: MemoryId) -> Result<Memory> {
        self.engine.by_id(id, true)
    }

    /// Reads the memory with this id without counting the access.
    ///
    /// # Errors
    /// As [`get_id`](Self::get_id).
    pub fn peek_id(&self, id: MemoryId) -> Result<Memory> {
        self.engine.by_id(id, false)
    }

    /// Whether there is a memory with this key.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage).
    pub fn contains(&self, key: &[u8]) -> Result<bool> {
        Ok(self.engine.find_key(key)?.is_some())
    }

    /// The id of the memory with this key.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage).
    pub fn id_of(&self, key: &[u8]) -> Result<Option<MemoryId>> {
        self.engine.find_key(key)
    }

    /// How often the memory has been read since it was written; `None` for an id whose memory left.
    pub fn access_count(&self, id: MemoryId) -> Option<u32> {
        let now = self.engine.now();
        let resident = self.engine.resident.read();
        resident.holds(id, now).then(|| resident.counts().get(id.slot))
    }
}

impl Engine {
    pub(crate) fn by_key(&self, key: &[u8], counted: bool) -> Result<Option<Memory>> {
        loop {
            let Some(id) = self.find_key(key)? else { return Ok(None) };
            match self.by_id(id, counted) {
                // Replaced since: the key leads elsewhere now, or nowhere.
                Err(Error::NotFound { .. }) => std::thread::yield_now(),
                result => return result.map(Some),
            }
        }
    }

    pub(crate) fn by_id(&self, id: MemoryId, counted: bool) -> Result<Memory> {
        let stored = self.reading("read a memory", || self.stored(&*self.snapshot()?, id))?;
        let now = self.now();
        let stored = stored.filter(|stored| stored.is_there(now)).ok_or(Error::NotFound { id })?;
        let record = self.decode(&stored)?;
        self.count(id, counted);
        Ok(stored.into_memory(record, None))
    }

    pub(crate) fn find_key(&self, key: &[u8]) -> Result<Option<MemoryId>> {
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

    /// How often a memory has been read; 0 for one that left: a count is its memory's, not its slot's.
    pub(crate) fn count_of(&self, id: MemoryId) -> u32 {
        let resident = self.resident.read();
        let there = resident.bank().get(id.slot).is_some_and(|occupant| occupant.seq == id.seq);
        if there { resident.counts().get(id.slot) } else { 0 }
    }

    /// Counts an access: the store's total always, the memory's own count if it is still there. Read-only
    /// handles never count.
    pub(crate) fn count(&self, id: MemoryId, counted: bool) {
        if !counted || self.handle.writable().is_err() {
            return;
        }
        let resident = self.resident.read();
        let there = resident.bank().get(id.slot).is_some_and(|occupant| occupant.seq == id.seq);
        if there {
            resident.uses().touch(id.slot, resident.tick());
        }
        if resident.counts().bump(there.then_some(id.slot)) == BUMPS_MAX {
            self.signal.flush_soon();
        }
    }
}

/// A key as the public face takes it, or an error with the numbers.
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    let most = apcm_format::limits::KEY_LEN_MAX;
    if key.starts_with(apcm_format::stream::PART_KEY_PREFIX) {
        return Err(Error::argument(
            "a key",
            "one that does not begin like those of streams",
            format!("{key:?}"),
        ));
    }
    if key.is_empty() || key.len() > most {
        return Err(Error::argument("a key", format!("1 to {most} bytes"), format!("{} bytes", key.len())));
    }
    Ok(())
}
