//! The rows of one write transaction: a memory's parts go into every table together and leave together.

use crate::error::Result;
use crate::policy::Rule;
use crate::store::engine::Engine;
use crate::store::file::{
    COUNTERS, KEYS, META, METADATA, RECODED, RESIDUALS, SLOTS, STREAMS, USES, counter_place, metadata_place,
    residual_place, slot_place, storage, stream_place, use_place,
};
use crate::store::resident::{SlotSize, row_bytes};
use crate::store::staged::Source;
use apcm_format::frame::FrameBody;
use apcm_format::stream::{part_key, part_of_key};
use apcm_format::{CounterChunk, ResidualRecord, SlotMetadata, SlotRecord, StreamHead, UseChunk, frame};
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

/// The tables of one write transaction.
pub(crate) struct WriteTables<'a> {
    engine: &'a Engine,
    meta: Table<'a, &'static str, &'static [u8]>,
    slots: Table<'a, u32, &'static [u8]>,
    counters: Table<'a, u32, &'static [u8]>,
    /// Opened, and so made, by the first policy that keeps words.
    uses: Option<Table<'a, u32, &'static [u8]>>,
    keys: Table<'a, &'static [u8], u32>,
    /// Opened, and so made, by the first stream.
    streams: Option<Table<'a, &'static str, &'static [u8]>>,
    transaction: &'a WriteTransaction,
    metadata: Table<'a, u32, &'static [u8]>,
    residuals: Table<'a, u32, &'static [u8]>,
    /// Many a store has none of either: then there is nothing to take away.
    any_metadata: bool,
    any_residuals: bool,
    /// A slot record being laid out.
    value: Vec<u8>,
}

impl<'a> WriteTables<'a> {
    pub(crate) fn open(engine: &'a Engine, rule: Rule, transaction: &'a WriteTransaction) -> Result<Self> {
        let metadata = transaction.open_table(METADATA).map_err(storage("open a table"))?;
        let residuals = transaction.open_table(RESIDUALS).map_err(storage("open a table"))?;
        Ok(Self {
            engine,
            meta: transaction.open_table(META).map_err(storage("open a table"))?,
            slots: transaction.open_table(SLOTS).map_err(storage("open a table"))?,
            counters: transaction.open_table(COUNTERS).map_err(storage("open a table"))?,
            uses: match rule.keeps_words() {
                true => Some(transaction.open_table(USES).map_err(storage("open a table"))?),
                false => None,
            },
            streams: None,
            transaction,
            keys: transaction.open_table(KEYS).map_err(storage("open a table"))?,
            any_metadata: !metadata.is_empty().map_err(storage("look at a table"))?,
            any_residuals: !residuals.is_empty().map_err(storage("look at a table"))?,
            metadata,
            residuals,
            value: Vec::new(),
        })
    }

    /// The slot that a key leads to. The row of a key has no checksum, so it counts only if the slot names the
    /// key in return; a row that leads astray is dropped.
    pub(crate) fn slot_of(&mut self, key: &[u8]) -> Result<Option<u32>> {
        let row = self.keys.get(key).map_err(storage("look up a key"))?.map(|slot| slot.value());
        let Some(slot) = row else { return Ok(None) };
        let named = match self.metadata.get(slot).map_err(storage("look up metadata"))? {
            None => false,
            Some(value) => {
                let place = metadata_place(self.engine.header.uuid, slot);
                frame::open::<SlotMetadata>(value.value(), place)
                    .is_ok_and(|found| found.key.as_deref() == Some(key))
            }
        };
        if named {
            return Ok(Some(slot));
        }
        self.keys.remove(key).map_err(storage("remove a key"))?;
        Ok(None)
    }

    /// Removes a slot's memory from every table; returns its metadata.
    pub(crate) fn clear(&mut self, slot: u32) -> Result<SlotMetadata> {
        self.slots.remove(slot).map_err(storage("empty a slot"))?;
        self.residuals.remove(slot).map_err(storage("empty a slot"))?;
        let place = metadata_place(self.engine.header.uuid, slot);
        let said = match self.metadata.remove(slot).map_err(storage("empty a slot"))? {
            None => Ok(SlotMetadata::default()),
            Some(value) => frame::open::<SlotMetadata>(value.value(), place),
        };
        let Ok(metadata) = said else {
            // Damaged metadata cannot say which key was theirs: every row that leads here goes with them.
            self.keys.retain(|_, to| to != slot).map_err(storage("remove a key"))?;
            return Ok(SlotMetadata::default());
        };
        if let Some(key) = &metadata.key {
            let leads_here = self
                .keys
                .get(key.as_slice())
                .map_err(storage("look up a key"))?
                .is_some_and(|to| to.value() == slot);
            if leads_here {
                self.keys.remove(key.as_slice()).map_err(storage("remove a key"))?;
            }
            if let Some((stream, first)) = part_of_key(key) {
                self.forget(stream, first)?;
            }
        }
        Ok(metadata)
    }

    /// Forgets what was kept to append to a part that leaves; all of it where that was the stream's last: what
    /// is kept of streams is bounded by the slots.
    fn forget(&mut self, stream: &str, first: u64) -> Result<()> {
        let (from, to) = (part_key(stream, 0), part_key(stream, u64::MAX));
        let mut parts = self.keys.range(from.as_slice()..=to.as_slice()).map_err(storage("look up a key"))?;
        let any = parts.next().is_some();
        drop(parts);
        if !any {
            self.streams()?.remove(stream).map_err(storage("forget a stream"))?;
        } else if let Some(head) = self.head(stream)?.filter(|head| head.first == first) {
            self.set_head(stream, &StreamHead { states: Vec::new(), originals: Vec::new(), ..head })?;
        }
        Ok(())
    }

    /// Where the last part of a stream begins, and its slot. Rows of keys that lead astray are dropped.
    pub(crate) fn last_part(&mut self, stream: &str) -> Result<Option<(u64, u32)>> {
        loop {
            let (from, to) = (part_key(stream, 0), part_key(stream, u64::MAX));
            let mut parts =
                self.keys.range(from.as_slice()..=to.as_slice()).map_err(storage("look up a key"))?;
            let last = parts.next_back().transpose().map_err(storage("look up a key"))?;
            let Some(key) = last.map(|(key, _)| key.value().to_vec()) else { return Ok(None) };
            drop(parts);
            if let Some(slot) = self.slot_of(&key)? {
                return Ok(Some((part_of_key(&key).map_or(0, |(_, first)| first), slot)));
            }
        }
    }

    /// What is kept to append to a stream, if it can be read.
    pub(crate) fn head(&mut self, stream: &str) -> Result<Option<StreamHead>> {
        let place = stream_place(self.engine.header.uuid, stream);
        let value = self.streams()?.get(stream).map_err(storage("look up a stream"))?;
        Ok(value.and_then(|value| StreamHead::decode(value.value(), place).ok()))
    }

    fn streams(&mut self) -> Result<&mut Table<'a, &'static str, &'static [u8]>> {
        let opened = match self.streams.take() {
            Some(opened) => opened,
            None => self.transaction.open_table(STREAMS).map_err(storage("open a table"))?,
        };
        Ok(self.streams.insert(opened))
    }

    /// Keeps what is needed to append to a stream.
    pub(crate) fn set_head(&mut self, stream: &str, head: &StreamHead) -> Result<()> {
        let value = head.encode(stream_place(self.engine.header.uuid, stream));
        self.streams()?.insert(stream, value.as_slice()).map_err(storage("write a stream"))?;
        Ok(())
    }

    /// Writes a slot's memory to every table; gives the bytes it takes.
    pub(crate) fn write(
        &mut self,
        slot: u32,
        record: &SlotRecord<'_>,
        key: Option<&[u8]>,
        metadata: Option<&FrameBody>,
        residual: Option<&ResidualRecord<'_>>,
    ) -> Result<SlotSize> {
        record.encode_into(slot_place(self.engine.header.uuid, slot), &mut self.value)?;
        self.slots.insert(slot, self.value.as_slice()).map_err(storage("write a slot"))?;
        let mut size = SlotSize {
            code: record.code.len() as u32,
            record: self.value.len() as u32,
            error: record.error.get(),
            ..SlotSize::default()
        };
        match residual {
            Some(residual) => {
                let value = residual.encode(residual_place(self.engine.header.uuid, slot))?;
                self.residuals.insert(slot, value.as_slice()).map_err(storage("write a residual"))?;
                size.residual = row_bytes(value.len());
                self.any_residuals = true;
            }
            None if self.any_residuals => {
                self.residuals.remove(slot).map_err(storage("write a residual"))?;
            }
            None => {}
        }
        if let Some(key) = key {
            self.keys.insert(key, slot).map_err(storage("write a key"))?;
            size.metadata += row_bytes(key.len());
        }
        match metadata {
            Some(metadata) => {
                self.any_metadata = true;
                let value = metadata.seal(metadata_place(self.engine.header.uuid, slot));
                self.metadata.insert(slot, value.as_slice()).map_err(storage("write metadata"))?;
                size.metadata += row_bytes(value.len());
            }
            None if self.any_metadata => {
                self.metadata.remove(slot).map_err(storage("write metadata"))?;
            }
            None => {}
        }
        Ok(size)
    }

    /// Drops a slot's residual: its memory stays, with the error of its code. None where there is nothing to
    /// drop.
    pub(crate) fn drop_residual(&mut self, slot: u32, size: SlotSize) -> Result<Option<(u64, SlotSize)>> {
        let uuid = self.engine.header.uuid;
        // A damaged residual cannot say how good the code is without it: then that is not known.
        let error = self.residuals.remove(slot).map_err(storage("drop a residual"))?.and_then(|value| {
            let residual = ResidualRecord::decode(value.value(), residual_place(uuid, slot)).ok()?;
            Some(residual.error_without)
        });
        let (seq, error, changed) = {
            let Some(value) = self.slots.get(slot).map_err(storage("look up a slot"))? else {
                return Ok(None);
            };
            let record = self.engine.slot_record(slot, value.value())?.without_residual(error);
            (record.seq, record.error.get(), record.encode(slot_place(uuid, slot))?)
        };
        self.slots.insert(slot, changed.as_slice()).map_err(storage("write a slot"))?;
        Ok(Some((seq, SlotSize { residual: 0, error, ..size })))
    }

    pub(crate) fn pin(&mut self, slot: u32, pinned: bool) -> Result<()> {
        let changed = {
            let Some(value) = self.slots.get(slot).map_err(storage("look up a slot"))? else { return Ok(()) };
            let mut record = self.engine.slot_record(slot, value.value())?;
            record.flags.pinned = pinned;
            record.encode(slot_place(self.engine.header.uuid, slot))?
        };
        self.slots.insert(slot, changed.as_slice()).map_err(storage("write a slot"))?;
        Ok(())
    }

    /// Notes what was moved into a slot.
    pub(crate) fn set_source(&mut self, slot: u32, source: &Source) -> Result<()> {
        let mut table = self.transaction.open_table(RECODED).map_err(storage("open a table"))?;
        table.insert(slot, source.encode().as_slice()).map_err(storage("note a move"))?;
        Ok(())
    }

    pub(crate) fn set_counts(&mut self, number: u32, chunk: &CounterChunk) -> Result<()> {
        let value = chunk.encode(counter_place(self.engine.header.uuid, number));
        self.counters.insert(number, value.as_slice()).map_err(storage("write counts"))?;
        Ok(())
    }

    pub(crate) fn set_uses(&mut self, number: u32, chunk: &UseChunk) -> Result<()> {
        let value = chunk.encode(use_place(self.engine.header.uuid, number));
        if let Some(uses) = &mut self.uses {
            uses.insert(number, value.as_slice()).map_err(storage("write the uses"))?;
        }
        Ok(())
    }

    pub(crate) fn set_meta(&mut self, name: &str, value: &[u8]) -> Result<()> {
        self.meta.insert(name, value).map_err(storage("write the state"))?;
        Ok(())
    }
}
