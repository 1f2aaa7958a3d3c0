//! Everything that can still be read of a damaged file, in a new one.

use super::compact::shrink;
use crate::error::{Error, Result};
use crate::progress::{Progress, Reporter};
use crate::store::file::{
    COUNTERS, HEADER, KEYS, Look, META, METADATA, OWN_CODEC, POSITION_PREFIX, RESIDUALS, SLOTS,
    SOURCE_PREFIX, STATE, STREAMS, SWEEPER_TREE, build, callers, counter_place, guarded, look,
    look_recovering, meta_place, metadata_place, optional, permissions_of, read_codec, read_image,
    residual_place, slot_place, storage, stream_place, write_codec,
};
use crate::store::store::Store;
use apcm_format::{
    CounterChunk, IngestPosition, IngestSource, ResidualRecord, SlotKind, SlotMetadata, SlotRecord,
    StoreHeader, StoreState, StreamHead, StreamPart, frame, limits, stream::part_of_key,
};
use redb::{
    Key, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, Value, WriteTransaction,
};
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Memories and rows that were saved and lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Memories in the new file.
    pub memories: u64,
    /// Slots of which something was there and nothing could be read.
    pub slots_lost: u64,
    /// Memories in the new file whose key and values could not be read.
    pub metadata_lost: u64,
    /// Memories in the new file that are only as good as their codes now.
    pub residuals_lost: u64,
    /// Chunks of access counts that begin again at 0.
    pub counter_chunks_lost: u64,
}

/// A salvage of a damaged file; [`run`](Self::run) makes it.
#[must_use = "nothing is copied until it is run"]
pub struct Salvage<'a> {
    from: PathBuf,
    to: PathBuf,
    progress: Reporter<'a>,
}

impl fmt::Debug for Salvage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Salvage").field("from", &self.from).field("to", &self.to).finish_non_exhaustive()
    }
}

impl Store {
    /// Starts to copy what can be read of a damaged file into a new one: see [`Salvage`].
    pub fn salvage<'a>(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Salvage<'a> {
        let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
        Salvage { from, to, progress: Reporter::new("salvage") }
    }
}

impl<'a> Salvage<'a> {
    /// Called now and then with slots done and to do; may stop it.
    pub fn progress(mut self, callback: impl FnMut(&Progress<'_>) -> ControlFlow<()> + 'a) -> Self {
        self.progress.set(callback);
        self
    }

    /// Copies what can be read. The damaged file is only read.
    ///
    /// Rows are read one by one, so that an unreadable page loses only its own rows. Keys are written again
    /// from the metadata of the slots. What [`Policy`](crate::Policy) keeps of uses is estimated from counts
    /// and ages.
    ///
    /// # Errors
    /// [`Exists`](Error::Exists), [`Locked`](Error::Locked), [`NotAStore`](Error::NotAStore),
    /// [`Cancelled`](Error::Cancelled); [`Corrupt`](Error::Corrupt) or [`Storage`](Error::Storage) when the
    /// header or the codec cannot be read: codes cannot be decoded without them.
    pub fn run(mut self) -> Result<SalvageReport> {
        self.progress.begin();
        let (from, to, progress) = (&self.from, &self.to, &mut self.progress);
        if to.exists() {
            return Err(Error::Exists { path: to.clone() });
        }
        match look(from).and_then(|look| copy(&look, from, to, progress)) {
            // The database's account of its pages is unreadable: once more, with the account made again.
            Err(first @ (Error::Storage { .. } | Error::Corrupt { .. })) => {
                look_recovering(from).and_then(|look| copy(&look, from, to, progress)).map_err(|_| first)
            }
            other => other,
        }
    }
}

fn copy(
    Look { database, header, .. }: &Look,
    from: &Path,
    to: &Path,
    progress: &mut Reporter<'_>,
) -> Result<SalvageReport> {
    let transaction = guarded("read the file", || database.begin_read().map_err(storage("begin a read")))?;
    let image = guarded("read the codec", || read_codec(&transaction, header, u64::MAX))?;
    let mut report = SalvageReport::default();
    build(to, "write the new file", permissions_of(from), |database| {
        let target = database.begin_write().map_err(storage("begin a write"))?;
        let streams = HashSet::new();
        Copy { from: &transaction, header, report: &mut report, streams }.copy(&target, &image, progress)?;
        target.commit().map_err(storage("commit the new file"))?;
        shrink(database)
    })?;
    Ok(report)
}

/// A copy under way.
struct Copy<'a> {
    from: &'a ReadTransaction,
    header: &'a StoreHeader,
    report: &'a mut SalvageReport,
    /// Streams of which a part was saved.
    streams: HashSet<String>,
}

/// What a slot holds.
struct Row {
    seq: u64,
    kind: SlotKind,
    record: Vec<u8>,
    residual: Option<Vec<u8>>,
}

/// One value, copied out; the database's panic over it is an error like any other.
fn value(
    from: &ReadTransaction,
    table: TableDefinition<'static, u32, &'static [u8]>,
    key: u32,
) -> Result<Option<Vec<u8>>> {
    guarded("read a row", || {
        let table = from.open_table(table).map_err(storage("open a table"))?;
        let value = table.get(key).map_err(storage("read a row"))?;
        Ok(value.map(|value| value.value().to_vec()))
    })
}

impl Copy<'_> {
    fn copy(&mut self, target: &WriteTransaction, image: &[u8], progress: &mut Reporter<'_>) -> Result<()> {
        let mut slots = target.open_table(SLOTS).map_err(storage("create a table"))?;
        let mut metadata = target.open_table(METADATA).map_err(storage("create a table"))?;
        let mut keys = target.open_table(KEYS).map_err(storage("create a table"))?;
        let mut residuals = target.open_table(RESIDUALS).map_err(storage("create a table"))?;
        let mut occupied = HashSet::new();
        let mut highest = 0;
        let mut next = 0;
        let mut told = 0;
        while let Some(slot) = self.next_slot(next) {
            next = slot + 1;
            if slot >= told {
                told = slot.saturating_add(256);
                if callers(|| progress.report(slot.into(), self.header.capacity.into())).is_break() {
                    return Err(Error::Cancelled);
                }
            }
            let Some(row) = self.record(slot) else { continue };
            highest = highest.max(row.seq);
            let (mut said, mut lost) = self.metadata(slot);
            if let Some(key) = said.as_ref().and_then(|(said, _)| said.key.as_ref())
                && keys.get(key.as_slice()).map_err(storage("look up a key"))?.is_some()
            {
                // The same key twice: this memory is kept without its metadata.
                (said, lost) = (None, true);
            }
            if row.kind == SlotKind::StreamRoot {
                let key = said.as_ref().and_then(|(said, _)| said.key.as_deref());
                let Some((stream, _)) = key.and_then(part_of_key) else {
                    // It could never be found.
                    self.report.slots_lost += 1;
                    continue;
                };
                self.streams.insert(stream.to_owned());
            }
            occupied.insert(slot);
            self.report.memories += 1;
            self.report.metadata_lost += u64::from(lost);
            insert(&mut slots, slot, &row.record)?;
            if let Some(residual) = row.residual {
                insert(&mut residuals, slot, &residual)?;
            }
            let Some((said, bytes)) = said else { continue };
            if let Some(key) = &said.key {
                keys.insert(key.as_slice(), slot).map_err(storage("write a key"))?;
            }
            insert(&mut metadata, slot, &bytes)?;
        }
        self.counters(target, &occupied)?;
        self.meta(target, highest)?;
        self.streams(target)?;
        write_codec(target, self.header.uuid, OWN_CODEC, image)
    }

    /// The next slot that has a row, or may have one: where a page cannot be read every number is asked for by
    /// itself.
    fn next_slot(&self, from: u32) -> Option<u32> {
        if from >= self.header.capacity {
            return None;
        }
        let first = guarded("look for a row", || {
            let table = self.from.open_table(SLOTS).map_err(storage("open a table"))?;
            let mut rows = table.range(from..).map_err(storage("read the slots"))?;
            Ok(rows.next().transpose().map_err(storage("read the slots"))?.map(|(slot, _)| slot.value()))
        });
        match first {
            Ok(slot) => slot.filter(|&slot| slot < self.header.capacity),
            Err(_) => Some(from),
        }
    }

    /// What a slot holds, as far as it can be read.
    fn record(&mut self, slot: u32) -> Option<Row> {
        let place = slot_place(self.header.uuid, slot);
        let bytes = match value(self.from, SLOTS, slot) {
            Ok(None) => return None,
            Ok(Some(bytes)) => bytes,
            Err(_) => {
                self.report.slots_lost += 1;
                return None;
            }
        };
        let Ok(record) = SlotRecord::decode(&bytes, place) else {
            self.report.slots_lost += 1;
            return None;
        };
        let (seq, kind) = (record.seq, record.kind);
        let dims = self.header.search_dims as usize;
        if kind == SlotKind::StreamRoot && StreamPart::decode_for(record.code, dims).is_err() {
            self.report.slots_lost += 1;
            return None;
        }
        if !record.flags.residual {
            return Some(Row { seq, kind, record: bytes, residual: None });
        }
        let residual = value(self.from, RESIDUALS, slot).ok().flatten().filter(|bytes| {
            ResidualRecord::decode(bytes, residual_place(self.header.uuid, slot))
                .is_ok_and(|residual| residual.seq == seq)
        });
        if residual.is_some() {
            return Some(Row { seq, kind, record: bytes, residual });
        }
        self.report.residuals_lost += 1;
        // How good the code is alone stood in the residual.
        let changed = record.without_residual(None).encode(place).ok()?;
        Some(Row { seq, kind, record: changed, residual: None })
    }

    /// A memory's metadata with its row, and whether they are lost.
    fn metadata(&self, slot: u32) -> (Option<(SlotMetadata, Vec<u8>)>, bool) {
        let bytes = match value(self.from, METADATA, slot) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return (None, false),
            Err(_) => return (None, true),
        };
        let said = frame::open::<SlotMetadata>(&bytes, metadata_place(self.header.uuid, slot));
        let said = said.ok().map(|said| (said, bytes));
        let lost = said.is_none();
        (said, lost)
    }

    fn counters(&mut self, target: &WriteTransaction, occupied: &HashSet<u32>) -> Result<()> {
        let mut counters = target.open_table(COUNTERS).map_err(storage("create a table"))?;
        let numbers: BTreeSet<u32> = occupied.iter().map(|&slot| CounterChunk::number_of(slot)).collect();
        for number in numbers {
            let place = counter_place(self.header.uuid, number);
            let chunk = match value(self.from, COUNTERS, number) {
                Ok(None) => continue,
                Ok(Some(bytes)) => CounterChunk::decode(&bytes, place).ok(),
                Err(_) => None,
            };
            let Some(mut chunk) = chunk else {
                self.report.counter_chunks_lost += 1;
                continue;
            };
            let first = number * limits::COUNTERS_PER_CHUNK as u32;
            for (slot, count) in (first..).zip(&mut chunk.counts) {
                if !occupied.contains(&slot) {
                    *count = 0;
                }
            }
            insert(&mut counters, number, &chunk.encode(place))?;
        }
        Ok(())
    }

    /// The sweeper tree and the heads of streams of which something is left, as far as they can be read. A head
    /// that is lost costs a part.
    fn streams(&mut self, target: &WriteTransaction) -> Result<()> {
        let uuid = self.header.uuid;
        let read = guarded("read the sweeper tree", || read_image(self.from, uuid, SWEEPER_TREE, u64::MAX));
        if let Ok(image) = read
            && !image.is_empty()
        {
            write_codec(target, uuid, SWEEPER_TREE, &image)?;
        }
        let heads = guarded("read the streams", || {
            let table = optional(self.from.open_table(STREAMS)).map_err(storage("open a table"))?;
            let Some(table) = table else { return Ok(Vec::new()) };
            let mut heads = Vec::new();
            for row in table.iter().map_err(storage("read the streams"))? {
                let (name, value) = row.map_err(storage("read the streams"))?;
                let name = name.value();
                let head = StreamHead::decode(value.value(), stream_place(uuid, name));
                if head.is_ok() && self.streams.contains(name) {
                    heads.push((name.to_owned(), value.value().to_vec()));
                }
            }
            Ok(heads)
        });
        let heads = heads.unwrap_or_default();
        if !heads.is_empty() {
            let mut table = target.open_table(STREAMS).map_err(storage("create a table"))?;
            for (name, value) in heads {
                table.insert(name.as_str(), value.as_slice()).map_err(storage("write a stream"))?;
            }
        }
        Ok(())
    }

    fn meta(&mut self, target: &WriteTransaction, highest: u64) -> Result<()> {
        let mut meta = target.open_table(META).map_err(storage("create a table"))?;
        let uuid = self.header.uuid;
        meta.insert(HEADER, self.header.encode().as_slice()).map_err(storage("write the header"))?;
        let known = guarded("read the state", || {
            let table = self.from.open_table(META).map_err(storage("open a table"))?;
            let value = table.get(STATE).map_err(storage("read the state"))?;
            Ok(value.and_then(|value| frame::open::<StoreState>(value.value(), meta_place(uuid, STATE)).ok()))
        });
        let known = known.ok().flatten();
        let state = known.unwrap_or_default();
        let next_seq = known.map_or(1, |known| known.next_seq).max(highest + 1);
        let state = frame::seal(&StoreState { next_seq, ..state }, meta_place(uuid, STATE))?;
        meta.insert(STATE, state.as_slice()).map_err(storage("write the state"))?;
        for (name, bytes) in self.positions() {
            meta.insert(name.as_str(), bytes.as_slice()).map_err(storage("write a position"))?;
        }
        Ok(())
    }

    /// Ingest positions, as far as they can be read: without one a dataset is begun again.
    fn positions(&self) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        // What was found before an error stays.
        let _ = guarded("read the positions", || {
            let meta = self.from.open_table(META).map_err(storage("open a table"))?;
            for row in meta.iter().map_err(storage("read the positions"))? {
                let (name, value) = row.map_err(storage("read the positions"))?;
                let (name, value) = (name.value(), value.value());
                let place = meta_place(self.header.uuid, name);
                let position = || frame::open::<IngestPosition>(value, place).is_ok();
                let source = || frame::open::<IngestSource>(value, place).is_ok();
                if name.starts_with(POSITION_PREFIX) && position()
                    || name.starts_with(SOURCE_PREFIX) && source()
                {
                    found.push((name.to_owned(), value.to_vec()));
                }
            }
            Ok(())
        });
        found
    }
}

fn insert<'k, K: Key + 'static>(
    table: &mut Table<'_, K, &'static [u8]>,
    key: impl std::borrow::Borrow<K::SelfType<'k>>,
    value: &[u8],
) -> Result<()>
where
    for<'v> &'static [u8]: Value<SelfType<'v> = &'v [u8]>,
{
    table.insert(key, value).map(drop).map_err(storage("write a row"))
}
