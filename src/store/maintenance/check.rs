//! Every row of a store against its checksum and against every other row that must agree with it.

use crate::codec::{self, Codec, Device};
use crate::error::{Error, Result};
use crate::progress::Reporter;
use crate::sequence::SweeperTree;
use crate::store::file::{
    CODEC, COUNTERS, KEYS, META, METADATA, POSITION_PREFIX, RESIDUALS, SLOTS, SOURCE_PREFIX, STATE, STREAMS,
    SWEEPER_TREE, USES, callers, counter_place, guarded, meta_place, metadata_place, optional, read_codec,
    read_image, residual_place, slot_place, storage, stream_place, use_place,
};
use apcm_format::{
    CodecImage, CounterChunk, IngestPosition, IngestSource, ResidualRecord, SlotKind, SlotMetadata,
    SlotRecord, StoreHeader, StoreState, StreamHead, StreamPart, UseChunk, frame, limits,
    stream::part_of_key,
};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Codes whose search vectors are derived at a time.
const BATCH: usize = 1_024;

/// What would make a finding go away.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Mend {
    /// Forget the memory: nothing of it can be read.
    Free(u32),
    /// Keep the memory without its key and values.
    DropMetadata(u32),
    /// Keep the memory and its values without its key, which is another's.
    Unname(u32),
    /// Keep the memory as its code alone gives it.
    DropResidual(u32),
    /// Forget a row of `keys` that leads nowhere.
    DropKey(Vec<u8>),
    /// Write the row of `keys` that the slot's metadata call for.
    AddKey(Vec<u8>, u32),
    /// Begin a chunk's counts again at 0.
    ResetCounts(u32),
    /// Forget what a chunk says of slots that are free.
    ClearCounts(u32, Vec<u32>),
    /// Forget what is kept to append to a stream: its next record begins a part.
    DropHead(String),
    /// Forget what a chunk says of uses.
    DropUses(u32),
    /// Begin the lifetime totals again, with a sequence number above all that are there.
    ResetState,
    /// Forget how far a dataset was ingested.
    DropPosition(String),
    /// Copy what is readable into a new file: `salvage`.
    Salvage,
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Defect {
    pub(crate) slot: Option<u32>,
    pub(crate) what: String,
    pub(crate) cause: String,
    pub(crate) mend: Mend,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Checked {
    pub(crate) slots: u64,
    pub(crate) metadata: u64,
    pub(crate) residuals: u64,
    pub(crate) keys: u64,
    pub(crate) counter_chunks: u64,
    pub(crate) use_chunks: u64,
    pub(crate) streams: u64,
    pub(crate) codec_chunks: u64,
    pub(crate) names: u64,
}

/// What is known of an intact slot record.
struct Slot {
    seq: u64,
    residual: bool,
}

/// One pass over all tables of a snapshot.
pub(crate) struct Check<'a> {
    transaction: &'a ReadTransaction,
    header: &'a StoreHeader,
    slots: HashMap<u32, Slot>,
    /// Slots with a row, readable or not.
    occupied: HashSet<u32>,
    /// Keys that slots name, where their metadata can be read.
    named: HashMap<u32, Vec<u8>>,
    /// Parts of streams: slot, records, values of the state.
    parts: Vec<(u32, u64, usize)>,
    pub(crate) findings: Vec<Defect>,
    pub(crate) checked: Checked,
}

impl<'a> Check<'a> {
    pub(crate) fn new(transaction: &'a ReadTransaction, header: &'a StoreHeader) -> Self {
        Self {
            transaction,
            header,
            slots: HashMap::new(),
            occupied: HashSet::new(),
            named: HashMap::new(),
            parts: Vec::new(),
            findings: Vec::new(),
            checked: Checked::default(),
        }
    }

    /// # Errors
    /// [`Cancelled`](Error::Cancelled); what is wrong with the store is a finding.
    pub(crate) fn run(&mut self, progress: &mut Reporter<'_>) -> Result<()> {
        let codec = self.codec();
        self.table("slots", |check| check.slots(codec.as_deref(), progress))?;
        self.table("metadata", Self::metadata)?;
        self.table("keys", Self::keys)?;
        self.table("residuals", Self::residuals)?;
        self.table("counters", Self::counters)?;
        self.table("uses", Self::uses)?;
        self.table("streams", Self::streams)?;
        self.table("meta", Self::meta)
    }

    fn find(&mut self, slot: Option<u32>, what: String, cause: impl std::fmt::Display, mend: Mend) {
        self.findings.push(Defect { slot, what, cause: cause.to_string(), mend });
    }

    /// Checks one table; an error or panic of the database is a finding too.
    fn table(&mut self, name: &str, look: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        match guarded("read a table", || look(self)) {
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => {
                self.find(None, format!("the table {name}"), error, Mend::Salvage);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// The codec, where its image is whole and of a kind that can be loaded.
    fn codec(&mut self) -> Option<Box<dyn Codec>> {
        let read = guarded("read the codec", || {
            let chunks = self.transaction.open_table(CODEC).map_err(storage("open a table"))?;
            self.checked.codec_chunks = chunks.len().map_err(storage("count the codec's chunks"))?;
            read_codec(self.transaction, self.header, u64::MAX)
        });
        match read.and_then(|image| codec::load(&image, Device::default())) {
            Ok(codec) => Some(codec),
            // A codec of the user's own is not known here; its codes are checked by their checksums alone.
            Err(Error::UnknownCodec { .. }) => None,
            Err(error) => {
                self.find(None, "the codec".to_owned(), error, Mend::Salvage);
                None
            }
        }
    }

    fn slots(&mut self, codec: Option<&dyn Codec>, progress: &mut Reporter<'_>) -> Result<()> {
        let uuid = self.header.uuid;
        let table = self.transaction.open_table(SLOTS).map_err(storage("open a table"))?;
        let total = table.len().map_err(storage("count the slots"))?;
        let mut seen: HashMap<u64, u32> = HashMap::new();
        let mut codes: Vec<(u32, Vec<u8>)> = Vec::new();
        for entry in table.iter().map_err(storage("read the slots"))? {
            let (slot, value) = entry.map_err(storage("read the slots"))?;
            let slot = slot.value();
            self.checked.slots += 1;
            self.occupied.insert(slot);
            let what = format!("slot {slot}");
            if slot >= self.header.capacity {
                let cause = format!("the store has {} slots", self.header.capacity);
                self.find(Some(slot), what, cause, Mend::Free(slot));
                continue;
            }
            match SlotRecord::decode(value.value(), slot_place(uuid, slot)) {
                Err(cause) => self.find(Some(slot), what, cause, Mend::Free(slot)),
                Ok(record) => {
                    if let Some(other) = seen.insert(record.seq, slot) {
                        let cause = format!("it has the sequence number {} of slot {other}", record.seq);
                        self.find(Some(slot), what, cause, Mend::Free(slot));
                    }
                    self.slots.insert(slot, Slot { seq: record.seq, residual: record.flags.residual });
                    match record.kind {
                        SlotKind::Record => codes.push((slot, record.code.to_vec())),
                        SlotKind::StreamRoot => self.part(slot, record.code),
                    }
                }
            }
            if codes.len() == BATCH {
                self.codes(codec, std::mem::take(&mut codes));
            }
            if callers(|| progress.report(self.checked.slots, total)).is_break() {
                return Err(Error::Cancelled);
            }
        }
        self.codes(codec, codes);
        Ok(())
    }

    fn part(&mut self, slot: u32, bytes: &[u8]) {
        let cause = match StreamPart::decode_for(bytes, self.header.search_dims as usize) {
            Ok(part) => {
                self.parts.push((slot, part.errors.len() as u64, part.state.len()));
                return;
            }
            Err(cause) => cause,
        };
        self.slots.remove(&slot);
        self.find(Some(slot), format!("the part of a stream in slot {slot}"), cause, Mend::Free(slot));
    }

    fn heads(
        &mut self,
        table: &ReadOnlyTable<&'static str, &'static [u8]>,
        parts: &HashSet<String>,
    ) -> Result<()> {
        for row in table.iter().map_err(storage("read the streams"))? {
            let (name, value) = row.map_err(storage("read the streams"))?;
            let name = name.value().to_owned();
            self.checked.streams += 1;
            let what = format!("the head of the stream {name:?}");
            match StreamHead::decode(value.value(), stream_place(self.header.uuid, &name)) {
                Err(cause) => self.find(None, what, cause, Mend::DropHead(name)),
                Ok(_) if !parts.contains(&name) => {
                    self.find(None, what, "nothing is left of the stream", Mend::DropHead(name));
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Streams: each head can be read and has a part, each part is led to and fits the tree.
    fn streams(&mut self) -> Result<()> {
        let table = optional(self.transaction.open_table(STREAMS)).map_err(storage("open a table"))?;
        let parts: HashSet<String> =
            self.named.values().filter_map(|key| Some(part_of_key(key)?.0.to_owned())).collect();
        if let Some(table) = table {
            self.heads(&table, &parts)?;
        }
        // A part that nothing leads to cannot be recalled, and one that the tree cannot have made not unfolded.
        for (slot, _, _) in self.parts.clone() {
            if self.named.get(&slot).is_none_or(|key| part_of_key(key).is_none()) {
                let what = format!("the part of a stream in slot {slot}");
                self.find(Some(slot), what, "its metadata do not say of which stream", Mend::Free(slot));
            }
        }
        if !self.parts.is_empty() {
            let image = read_image(self.transaction, self.header.uuid, SWEEPER_TREE, u64::MAX);
            let tree = image.and_then(|image| Ok(CodecImage::decode(&image)?));
            match tree.and_then(|image| SweeperTree::from_image(&image, Device::default())) {
                Err(error) => self.find(None, "the sweeper tree".to_owned(), error, Mend::Salvage),
                Ok(tree) => {
                    for (slot, records, state) in self.parts.clone() {
                        if records > tree.capacity() || state != tree.state_len(records) {
                            let what = format!("the part of a stream in slot {slot}");
                            let cause =
                                format!("a state of {state} values for {records} records is not the tree's");
                            self.find(Some(slot), what, cause, Mend::Free(slot));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the codec takes the codes for its own.
    fn codes(&mut self, codec: Option<&dyn Codec>, codes: Vec<(u32, Vec<u8>)>) {
        let Some(codec) = codec else { return };
        let similarity = self.header.similarity;
        let all: Vec<&[u8]> = codes.iter().map(|(_, code)| code.as_slice()).collect();
        if codes.is_empty() || codec.search_vectors(&all, similarity).is_ok() {
            return;
        }
        for (slot, code) in &codes {
            if let Err(error) = codec.search_vectors(&[code], similarity) {
                self.slots.remove(slot);
                self.find(Some(*slot), format!("the code in slot {slot}"), error, Mend::Free(*slot));
            }
        }
    }

    fn metadata(&mut self) -> Result<()> {
        let table = self.transaction.open_table(METADATA).map_err(storage("open a table"))?;
        for entry in table.iter().map_err(storage("read metadata"))? {
            let (slot, value) = entry.map_err(storage("read metadata"))?;
            let slot = slot.value();
            self.checked.metadata += 1;
            let what = format!("the metadata of slot {slot}");
            match frame::open::<SlotMetadata>(value.value(), metadata_place(self.header.uuid, slot)) {
                Err(cause) => self.find(Some(slot), what, cause, Mend::DropMetadata(slot)),
                Ok(_) if !self.occupied.contains(&slot) => {
                    self.find(Some(slot), what, "the slot is free", Mend::DropMetadata(slot));
                }
                Ok(SlotMetadata { key: Some(key), .. }) => {
                    self.named.insert(slot, key);
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }

    fn keys(&mut self) -> Result<()> {
        let table = self.transaction.open_table(KEYS).map_err(storage("open a table"))?;
        let mut rows: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        for entry in table.iter().map_err(storage("read the keys"))? {
            let (key, slot) = entry.map_err(storage("read the keys"))?;
            self.checked.keys += 1;
            rows.insert(key.value().to_vec(), slot.value());
        }
        for (key, slot) in &rows {
            if self.named.get(slot) != Some(key) {
                let what = format!("the key {:?}", String::from_utf8_lossy(key));
                let cause = format!("it leads to slot {slot}, which does not name it");
                self.find(Some(*slot), what, cause, Mend::DropKey(key.clone()));
            }
        }
        let mut named: Vec<(u32, Vec<u8>)> =
            self.named.iter().map(|(&slot, key)| (slot, key.clone())).collect();
        named.sort_unstable();
        let mut leads: HashMap<&[u8], u32> = HashMap::new();
        for (slot, key) in &named {
            let row = rows.get(key.as_slice()).copied();
            if row == Some(*slot) {
                continue;
            }
            // Another slot names the key and is led to, or comes first.
            let other = row
                .filter(|row| self.named.get(row) == Some(key))
                .or_else(|| leads.get(key.as_slice()).copied());
            let what = format!("slot {slot}");
            match other {
                Some(other) => {
                    let cause = format!("it names a key that is slot {other}'s");
                    self.find(Some(*slot), what, cause, Mend::Unname(*slot));
                }
                None => {
                    leads.insert(key, *slot);
                    self.find(Some(*slot), what, "its key leads elsewhere", Mend::AddKey(key.clone(), *slot));
                }
            }
        }
        Ok(())
    }

    fn residuals(&mut self) -> Result<()> {
        let table = self.transaction.open_table(RESIDUALS).map_err(storage("open a table"))?;
        let mut there = HashSet::new();
        for entry in table.iter().map_err(storage("read the residuals"))? {
            let (slot, value) = entry.map_err(storage("read the residuals"))?;
            let slot = slot.value();
            self.checked.residuals += 1;
            there.insert(slot);
            let cause = match ResidualRecord::decode(value.value(), residual_place(self.header.uuid, slot)) {
                Err(cause) => cause.to_string(),
                Ok(residual) => match self.slots.get(&slot) {
                    Some(owner) if !owner.residual => "its slot has none".to_owned(),
                    Some(owner) if owner.seq != residual.seq => {
                        format!("it belongs to write {}, its slot is of write {}", residual.seq, owner.seq)
                    }
                    None if !self.occupied.contains(&slot) => "the slot is free".to_owned(),
                    _ => continue,
                },
            };
            self.find(Some(slot), format!("the residual of slot {slot}"), cause, Mend::DropResidual(slot));
        }
        let mut missing: Vec<u32> = self
            .slots
            .iter()
            .filter(|(slot, owner)| owner.residual && !there.contains(slot))
            .map(|(&slot, _)| slot)
            .collect();
        missing.sort_unstable();
        for slot in missing {
            self.find(
                Some(slot),
                format!("the residual of slot {slot}"),
                "it is missing",
                Mend::DropResidual(slot),
            );
        }
        Ok(())
    }

    fn counters(&mut self) -> Result<()> {
        let table = self.transaction.open_table(COUNTERS).map_err(storage("open a table"))?;
        for entry in table.iter().map_err(storage("read the counts"))? {
            let (number, value) = entry.map_err(storage("read the counts"))?;
            let number = number.value();
            self.checked.counter_chunks += 1;
            let what = format!("chunk {number} of the counts");
            match CounterChunk::decode(value.value(), counter_place(self.header.uuid, number)) {
                Err(cause) => self.find(None, what, cause, Mend::ResetCounts(number)),
                Ok(chunk) => {
                    let first = u64::from(number) * limits::COUNTERS_PER_CHUNK as u64;
                    let slots = (first..).zip(chunk.counts).filter(|&(_, count)| count > 0);
                    let free: Vec<u32> = slots
                        .filter_map(|(slot, _)| u32::try_from(slot).ok())
                        .filter(|slot| !self.occupied.contains(slot))
                        .collect();
                    if let Some(slot) = free.first() {
                        let cause = format!("slot {slot} is free and has a count");
                        self.find(None, what, cause, Mend::ClearCounts(number, free));
                    }
                }
            }
        }
        Ok(())
    }

    fn uses(&mut self) -> Result<()> {
        let table = optional(self.transaction.open_table(USES)).map_err(storage("open a table"))?;
        let Some(table) = table else { return Ok(()) };
        for entry in table.iter().map_err(storage("read the uses"))? {
            let (number, value) = entry.map_err(storage("read the uses"))?;
            let number = number.value();
            self.checked.use_chunks += 1;
            if let Err(cause) = UseChunk::decode(value.value(), use_place(self.header.uuid, number)) {
                self.find(None, format!("chunk {number} of the uses"), cause, Mend::DropUses(number));
            }
        }
        Ok(())
    }

    fn meta(&mut self) -> Result<()> {
        let table = self.transaction.open_table(META).map_err(storage("open a table"))?;
        let mut state = None;
        for entry in table.iter().map_err(storage("read the state"))? {
            let (name, value) = entry.map_err(storage("read the state"))?;
            let (name, value) = (name.value(), value.value());
            self.checked.names += 1;
            let place = meta_place(self.header.uuid, name);
            if name == STATE {
                state = Some(frame::open::<StoreState>(value, place));
                continue;
            }
            let checked = if name.starts_with(POSITION_PREFIX) {
                frame::open::<IngestPosition>(value, place).map(drop)
            } else if name.starts_with(SOURCE_PREFIX) {
                frame::open::<IngestSource>(value, place).map(drop)
            } else {
                Ok(())
            };
            if let Err(cause) = checked {
                let mend = Mend::DropPosition(name.to_owned());
                self.find(None, format!("the position {name:?}"), cause, mend);
            }
        }
        let highest = self.slots.values().map(|slot| slot.seq).max().unwrap_or(0);
        let cause = match state {
            None => "it is missing".to_owned(),
            Some(Err(cause)) => cause.to_string(),
            Some(Ok(state)) if state.next_seq <= highest => {
                format!("its next sequence number is {}, and {highest} is taken", state.next_seq)
            }
            Some(Ok(_)) => return Ok(()),
        };
        self.find(None, "the store's state".to_owned(), cause, Mend::ResetState);
        Ok(())
    }
}
