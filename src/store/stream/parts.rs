//! Where a stream is: its parts, found by their keys, and its head.

use crate::error::{Error, Result};
use crate::store::engine::Engine;
use crate::store::file::{KEYS, STREAMS, Snapshot, optional, storage, stream_place};
use crate::stored::corrupt_part;
use apcm_format::stream::{PART_KEY_PREFIX, part_key, part_keys, part_of_key};
use apcm_format::{MemoryId, SlotKind, StreamHead, StreamPart};
use redb::ReadableTable;
use std::ops::Range;

/// A part of a stream.
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) first: u64,
    pub(crate) id: MemoryId,
    pub(crate) norm: f32,
    pub(crate) content: StreamPart,
}

impl Part {
    pub(crate) fn len(&self) -> u64 {
        self.content.errors.len() as u64
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.first..self.first.saturating_add(self.len())
    }
}

/// Where a stream is.
pub(crate) struct Position {
    pub(crate) len: u64,
    /// The first record of its last part, and the write that filled it, if readable.
    pub(crate) last: Option<(u64, Option<MemoryId>)>,
    /// The part under way, and what is needed to append to it.
    pub(crate) open: Option<(Part, StreamHead)>,
}

impl Engine {
    /// All heads that can be read.
    pub(crate) fn heads(&self) -> Result<Vec<(String, StreamHead)>> {
        let table =
            optional(self.handle.begin_read()?.open_table(STREAMS)).map_err(storage("open a table"))?;
        let Some(table) = table else { return Ok(Vec::new()) };
        let mut heads = Vec::new();
        for row in table.iter().map_err(storage("read the streams"))? {
            let (name, value) = row.map_err(storage("read the streams"))?;
            let name = name.value().to_owned();
            let head = StreamHead::decode(value.value(), stream_place(self.header.uuid, &name));
            heads.extend(head.ok().map(|head| (name, head)));
        }
        Ok(heads)
    }

    /// Readable parts of all streams, in order.
    pub(crate) fn parts(&self, snapshot: &Snapshot) -> Result<Vec<Part>> {
        let (from, to) = (part_keys(""), [PART_KEY_PREFIX, &[u8::MAX; 264]].concat());
        let keys = snapshot.transaction.open_table(KEYS).map_err(storage("open a table"))?;
        let mut parts = Vec::new();
        for row in keys.range(from.as_slice()..=to.as_slice()).map_err(storage("read the keys"))? {
            let (key, slot) = row.map_err(storage("read the keys"))?;
            match self.part(snapshot, key.value(), slot.value()) {
                Ok(part) => parts.extend(part),
                // One damaged part must not take the others with it.
                Err(Error::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(parts)
    }

    /// Where the parts of a stream begin, readable or not.
    pub(crate) fn first_records(&self, snapshot: &Snapshot, name: &str) -> Result<Vec<u64>> {
        let keys = snapshot.transaction.open_table(KEYS).map_err(storage("open a table"))?;
        let (from, to) = (part_key(name, 0), part_key(name, u64::MAX));
        let rows = keys.range(from.as_slice()..=to.as_slice()).map_err(storage("read the keys"))?;
        let first = |key: &[u8]| part_of_key(key).map_or(0, |(_, first)| first);
        rows.map(|row| row.map(|(key, _)| first(key.value())).map_err(storage("read the keys"))).collect()
    }

    /// The part that a key leads to, where the slot names the key in return and it has not expired.
    fn part(&self, snapshot: &Snapshot, key: &[u8], slot: u32) -> Result<Option<Part>> {
        let Some((name, first)) = part_of_key(key) else { return Ok(None) };
        let Some(stored) = self.stored_in(snapshot, slot, None)? else { return Ok(None) };
        if stored.kind != SlotKind::StreamRoot || stored.metadata.key.as_deref() != Some(key) {
            return Ok(None);
        }
        if !stored.is_there(self.now()) {
            return Ok(None);
        }
        let dims = self.header.search_dims as usize;
        let content =
            StreamPart::decode_for(&stored.code, dims).map_err(|cause| corrupt_part(slot, cause))?;
        Ok(Some(Part { name: name.to_owned(), first, id: stored.id, norm: stored.norm, content }))
    }

    /// The last part of a stream that begins at or before an index: where it begins, and the part or how it is
    /// damaged. Rows of keys have no checksum; those that lead to another memory are skipped.
    pub(crate) fn part_before(
        &self,
        snapshot: &Snapshot,
        name: &str,
        index: u64,
    ) -> Result<Option<(u64, Result<Part>)>> {
        let keys = snapshot.transaction.open_table(KEYS).map_err(storage("open a table"))?;
        let (from, to) = (part_key(name, 0), part_key(name, index));
        let mut rows = keys.range(from.as_slice()..=to.as_slice()).map_err(storage("look up a key"))?;
        while let Some(row) = rows.next_back() {
            let (key, slot) = row.map_err(storage("look up a key"))?;
            match self.part(snapshot, key.value(), slot.value()) {
                Ok(Some(part)) => return Ok(Some((part.first, Ok(part)))),
                Ok(None) => {}
                Err(damage @ Error::Corrupt { .. }) => {
                    let first = part_of_key(key.value()).map_or(0, |(_, first)| first);
                    return Ok(Some((first, Err(damage))));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    pub(crate) fn position(&self, snapshot: &Snapshot, name: &str) -> Result<Position> {
        let Some((first, last)) = self.part_before(snapshot, name, u64::MAX)? else {
            // Of a stream of which nothing is left nothing is known.
            return Ok(Position { len: 0, last: None, open: None });
        };
        let streams = optional(snapshot.transaction.open_table(STREAMS)).map_err(storage("open a table"))?;
        let head = match streams {
            Some(streams) => streams.get(name).map_err(storage("look up a stream"))?.and_then(|value| {
                // A head that cannot be read is one that was lost.
                StreamHead::decode(value.value(), stream_place(self.header.uuid, name)).ok()
            }),
            None => None,
        };
        // A part that cannot be read held one record at least.
        let end = last.as_ref().map_or(first.saturating_add(1), |last| last.range().end);
        let len = head.as_ref().map_or(end, |head| head.len.max(end));
        let seen = Some((first, last.as_ref().ok().map(|part| part.id)));
        let open = last
            .ok()
            .zip(head)
            .filter(|(last, head)| last.first == head.first && last.range().end == head.len);
        Ok(Position { len, last: seen, open })
    }
}
