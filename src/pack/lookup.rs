//! Memories of a pack, by row, by slot, by key.

use super::handle::Pack;
use crate::error::{Error, Result};
use crate::record::{Record, Records};
use crate::stored::{Stored, decode_all};
use apcm_format::pack::ROW_LEN;
use apcm_format::stream::PART_KEY_PREFIX;
use apcm_format::{
    DecodeError, MemoryId, Metadata, PackRow, Place, SlotKind, SlotMetadata, SlotRecord, Table, frame,
};

/// What a verification of a pack looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct PackVerification {
    /// Memories.
    pub memories: u64,
    /// Keys.
    pub keys: u64,
    /// Blocks of 64 KiB.
    pub blocks: u64,
}

impl Pack {
    /// All memories in slot order that have not expired.
    pub fn iter(&self) -> PackEntries<'_> {
        PackEntries::new(self)
    }

    /// Looks at everything: every block, every memory, every key.
    ///
    /// # Errors
    /// [`Corrupt`](Error::Corrupt), for the first damage.
    pub fn verify(&self) -> Result<PackVerification> {
        self.look_at_everything()
    }

    pub(super) fn row(&self, row: u32) -> Result<PackRow> {
        let start = u64::from(row) * ROW_LEN as u64;
        let bytes = self.blocks.get(&self.blocks.layout().rows, start..start + ROW_LEN as u64)?;
        PackRow::decode(bytes).map_err(|cause| corrupt(row, cause))
    }

    /// Key and values of a row.
    pub(super) fn metadata(&self, row: u32, known: &PackRow) -> Result<SlotMetadata> {
        let [_, metadata, _] = known.parts();
        if metadata.is_empty() {
            return Ok(SlotMetadata::default());
        }
        // Copied first: text is looked at where it lies, and what is mapped is only ever numbers (see
        // `mapping`).
        let bytes = self.blocks.get(&self.blocks.layout().memories, metadata)?.to_vec();
        let place = Place::numbered(self.header().store, Table::Metadata, known.slot.into());
        frame::open(&bytes, place).map_err(|cause| corrupt(row, cause))
    }

    pub(super) fn stored(&self, row: u32) -> Result<Stored> {
        let known = self.row(row)?;
        let [record, _, residual] = known.parts();
        let memories = &self.blocks.layout().memories;
        let place = Place::numbered(self.header().store, Table::Slots, known.slot.into());
        let record = SlotRecord::decode(self.blocks.get(memories, record)?, place)
            .map_err(|cause| corrupt(row, cause))?;
        let possible = known.agrees(&record) && known.seq <= self.header().last_seq;
        if record.kind != SlotKind::Record || !possible {
            return Err(corrupt(row, DecodeError::Invalid { what: "a row's memory", found: record.seq }));
        }
        let metadata = self.metadata(row, &known)?;
        if metadata.key.as_deref().is_some_and(|key| key.starts_with(PART_KEY_PREFIX)) {
            let cause = DecodeError::Malformed {
                what: "a pack",
                cause: "a memory has the key of a stream".to_owned(),
            };
            return Err(corrupt(row, cause));
        }
        let residual =
            if residual.is_empty() { None } else { Some(self.blocks.get(memories, residual)?.to_vec()) };
        Ok(Stored::new(known.slot, &record, metadata, residual))
    }

    /// The memory of this id, if it is there and has not expired.
    pub(super) fn with_id(&self, id: MemoryId) -> Result<Option<Stored>> {
        let found = self.search_by(self.header().memories, |row| Ok(self.row(row)?.slot.cmp(&id.slot)))?;
        let Some(row) = found else { return Ok(None) };
        if self.row(row)?.seq != id.seq {
            return Ok(None);
        }
        Ok(Some(self.stored(row)?).filter(|stored| stored.is_there(self.now())))
    }

    /// The memory of this key, if there is one that has not expired.
    pub(super) fn with_key(&self, key: &[u8]) -> Result<Option<Stored>> {
        let found = self.search_by(self.header().keys, |at| {
            let row = self.keyed(at)?;
            Ok(self.key_of(row)?.as_slice().cmp(key))
        })?;
        let Some(at) = found else { return Ok(None) };
        Ok(Some(self.stored(self.keyed(at)?)?).filter(|stored| stored.is_there(self.now())))
    }

    /// The row of a key, by its place in the order of keys.
    fn keyed(&self, at: u32) -> Result<u32> {
        let start = u64::from(at) * 4;
        let bytes = self.blocks.get(&self.blocks.layout().keys, start..start + 4)?;
        let row = bytes.first_chunk().map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes));
        if row < self.header().memories {
            return Ok(row);
        }
        let cause = DecodeError::Invalid { what: "the row of a key", found: row.into() };
        Err(Error::Corrupt { what: format!("key {at} of the pack"), cause })
    }

    fn key_of(&self, row: u32) -> Result<Vec<u8>> {
        let key = self.metadata(row, &self.row(row)?)?.key;
        key.ok_or_else(|| {
            let what = "the key of a row that a key leads to";
            corrupt(row, DecodeError::Invalid { what, found: row.into() })
        })
    }

    /// Binary search among the first `len` of something in order.
    fn search_by(
        &self,
        len: u32,
        mut compare: impl FnMut(u32) -> Result<std::cmp::Ordering>,
    ) -> Result<Option<u32>> {
        let (mut low, mut high) = (0, len);
        while low < high {
            let middle = low + (high - low) / 2;
            match compare(middle)? {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(Some(middle)),
            }
        }
        Ok(None)
    }

    pub(super) fn look_at_everything(&self) -> Result<PackVerification> {
        let layout = self.blocks.layout();
        self.blocks.check(layout.data())?;
        let mut last_slot = None;
        let mut keyed = 0;
        for row in 0..self.header().memories {
            let stored = self.stored(row)?;
            stored.residual(self.header().store)?;
            let slot = stored.id.slot;
            if last_slot.is_some_and(|last| last >= slot) || slot >= self.header().capacity {
                return Err(corrupt(row, DecodeError::Invalid { what: "a row's slot", found: slot.into() }));
            }
            last_slot = Some(slot);
            keyed += u32::from(stored.metadata.key.is_some());
        }
        if keyed != self.header().keys {
            let cause = DecodeError::Invalid { what: "the number of keys", found: self.header().keys.into() };
            return Err(Error::Corrupt { what: "the keys of the pack".to_owned(), cause });
        }
        let mut last: Option<Vec<u8>> = None;
        for at in 0..self.header().keys {
            let key = self.key_of(self.keyed(at)?)?;
            if last.is_some_and(|last| last >= key) {
                let cause = DecodeError::Invalid { what: "the order of keys", found: at.into() };
                return Err(Error::Corrupt { what: format!("key {at} of the pack"), cause });
            }
            last = Some(key);
        }
        Ok(PackVerification {
            memories: self.header().memories.into(),
            keys: self.header().keys.into(),
            blocks: layout.block_count(),
        })
    }
}

fn corrupt(row: u32, cause: DecodeError) -> Error {
    Error::Corrupt { what: format!("memory {row} of the pack"), cause }
}

/// Memories of a pack in slot order.
#[derive(Debug)]
#[must_use = "an iterator is lazy"]
pub struct PackEntries<'a> {
    pack: &'a Pack,
    next: u32,
    now: u32,
}

impl<'a> PackEntries<'a> {
    pub(super) fn new(pack: &'a Pack) -> Self {
        Self { pack, next: 0, now: pack.now() }
    }
}

impl<'a> Iterator for PackEntries<'a> {
    type Item = Result<PackEntry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.pack.header().memories {
            let row = self.next;
            self.next += 1;
            let read = || Ok((self.pack.stored(row)?, self.pack.row(row)?.count));
            match read() {
                Ok((stored, count)) if stored.is_there(self.now) => {
                    return Some(Ok(PackEntry { pack: self.pack, stored, count }));
                }
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

/// One memory of a pack; its record is decoded when asked for.
#[derive(Debug)]
pub struct PackEntry<'a> {
    pack: &'a Pack,
    stored: Stored,
    count: u32,
}

impl PackEntry<'_> {
    /// Its name in the store.
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

    /// How often it had been read when the pack was made.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether it is never a victim in its store.
    pub fn is_pinned(&self) -> bool {
        self.stored.pinned
    }

    /// Euclidean norm of the record that went in, rounded up.
    pub fn norm(&self) -> f32 {
        self.stored.norm
    }

    /// When it was written, in seconds since 1970.
    pub fn written_at(&self) -> u32 {
        self.stored.written_at
    }

    /// When it begins to count as gone, in seconds since 1970.
    pub fn expires_at(&self) -> Option<u32> {
        self.stored.expires_at
    }

    /// As it is stored.
    pub(crate) fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Decodes its record.
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt).
    pub fn record(&self) -> Result<Record> {
        Ok(decode_all(self.pack.codec(), self.pack.header().store, &[&self.stored])?.get(0))
    }

    /// Decodes the records of several entries in one go, which is many times faster than one by one.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn records(entries: &[Self]) -> Result<Option<Records>> {
        let Some(first) = entries.first() else { return Ok(None) };
        let stored: Vec<&Stored> = entries.iter().map(|entry| &entry.stored).collect();
        decode_all(first.pack.codec(), first.pack.header().store, &stored).map(Some)
    }
}
