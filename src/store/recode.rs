//! Moving a store to another codec: decode, encode, and say what that added to the error.

use super::file::permissions_of;
use super::guard::storage;
use super::iter::Entry;
use super::tables::META;
use super::transaction::{Op, POSITION_PREFIX};
use super::transfer::{batch, encode_again};
use super::{Callback, Store};
use crate::codec::column_means;
use crate::codec::{Codec, Device};
use crate::error::{Error, Result};
use crate::record::check_shape;
use crate::stored::{Stored, corrupt_part};
use crate::whole_file::{folder_of, sync_folder};
use apcm_format::stream::part_of_key;
use apcm_format::{DecodeError, IngestPosition, MemoryId, SlotKind, StreamPart, frame};
use redb::ReadableTable;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// What a recode did.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct RecodeReport {
    /// Memories in the new store.
    pub records: u64,
    /// Those among them that an earlier, interrupted run had moved already.
    pub resumed: u64,
    /// Mean of the errors they had.
    pub error_before: f64,
    /// Mean squared error per element between what they were and what they are: what the move added.
    pub error_added: f64,
    /// Mean of the errors they have now: at most the squares of the sums of roots, because the originals are gone.
    pub error_after: f64,
    /// Bytes stored for all slots before and after.
    pub stored_before: u64,
    /// After.
    pub stored_after: u64,
}

/// A move to another codec, under construction; [`run`](Self::run) makes it.
#[must_use = "a recode does nothing until it is run"]
pub struct Recode<'a> {
    from: &'a Store,
    to: PathBuf,
    codec: Box<dyn Codec>,
    progress: Option<Callback<'a>>,
}

impl fmt::Debug for Recode<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recode").field("from", &self.from).field("to", &self.to).finish_non_exhaustive()
    }
}

impl<'a> Recode<'a> {
    pub(super) fn new(from: &'a Store, to: &Path, codec: Box<dyn Codec>) -> Self {
        Self { from, to: to.to_owned(), codec, progress: None }
    }

    /// Is told how many memories of how many are done; [`ControlFlow::Break`] ends the move, resumably.
    pub fn progress(mut self, callback: impl FnMut(u64, u64) -> ControlFlow<()> + 'a) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Moves every memory: ids, keys, metadata, pins, expiries, counts and ingest positions stay what they are.
    ///
    /// The new store grows beside its name, as `NAME.<source>.recoding`, in durable transactions; a run that was
    /// interrupted goes on where it stopped, and moves what was written to the source between the runs. During a run the
    /// source's writers wait (do not write to it from the progress callback). Only when all is there the file gets its
    /// name. Where that is the old store's own, the old file is whole until that moment, and its handle is
    /// [`Poisoned`](Error::Poisoned) from then on: drop it, and open the store again.
    ///
    /// Lossless memories stay lossless. Bounded ones keep a residual, and their error grows by a quarter at most. Damaged
    /// memories cannot be decoded, and end the move with their error: remove them first.
    ///
    /// # Errors
    /// [`Exists`](Error::Exists), [`RecordShape`](Error::RecordShape) for a codec of other records,
    /// [`Cancelled`](Error::Cancelled), [`Corrupt`](Error::Corrupt), [`OverBudget`](Error::OverBudget) when under the new
    /// codec all memories take more than the store's byte budget; the old file is never touched.
    pub fn run(mut self) -> Result<RecodeReport> {
        let shape = self.from.inner.header.shape;
        check_shape(shape, self.codec.shape())?;
        let in_place = self.from.path().is_some_and(|path| same_file(&self.to, path));
        if self.to.exists() && !in_place {
            return Err(Error::Exists { path: self.to });
        }
        // Nobody writes to the source meanwhile: what came after the snapshot would be missing in the result.
        let writing = self.from.inner.writer.lock();
        let partial = partial_path(&self.to, &self.from.inner.header.uuid.0);
        let into = self.destination(&partial)?;
        let mut report = RecodeReport {
            records: 0,
            resumed: 0,
            error_before: 0.0,
            error_added: 0.0,
            error_after: 0.0,
            stored_before: self.from.inner.live.read().stored(),
            stored_after: 0,
        };
        self.remove_strangers(&into)?;
        let total = self.from.len() as u64;
        let size = batch(shape.values());
        let mut entries = self.from.iter()?;
        loop {
            let some = entries.by_ref().take(size).collect::<Result<Vec<Entry<'_>>>>()?;
            if some.is_empty() {
                break;
            }
            move_batch(&into, &some, &mut report)?;
            if let Some(callback) = &mut self.progress
                && callback(report.records, total).is_break()
            {
                into.close()?;
                return Err(Error::Cancelled);
            }
        }
        drop(entries);
        move_heads(self.from, &into)?;
        report.stored_after = into.inner.live.read().stored();
        // The new store has the old one's budget; it must not begin by dropping what was just moved.
        if let Some(budget) = self.from.inner.live.read().state().byte_budget
            && report.stored_after > budget
        {
            return Err(Error::OverBudget { needed: report.stored_after, budget });
        }
        inherit(self.from, &into)?;
        into.close()?;
        std::fs::rename(&partial, &self.to).map_err(Error::io(&self.to))?;
        if in_place {
            // The old handle still holds the old file, which has no name any more: nothing may be written to it.
            self.from.inner.poisoned.store(true, std::sync::atomic::Ordering::Release);
        }
        drop(writing);
        sync_folder(folder_of(&self.to))?;
        let records = (report.records as f64).max(1.0);
        report.error_before /= records;
        report.error_added /= records;
        report.error_after /= records;
        Ok(report)
    }

    /// The partial store of an earlier run with this codec, or a new one.
    fn destination(&mut self, partial: &Path) -> Result<Store> {
        let header = &self.from.inner.header;
        let image = self.codec.image()?;
        if partial.exists() {
            let wanted = crate::codec::fingerprint(&image.encode()?);
            // It is this program's own, and as large as what is open already.
            let builder = Store::builder().shared_clock(self.from.inner.clock.clone()).memory_limit(u64::MAX);
            match builder.open(partial) {
                Ok(store)
                    if store.inner.header.fingerprint == wanted
                        && store.inner.header.capacity == header.capacity
                        && store.inner.header.similarity == header.similarity
                        && store.policy() == self.from.policy() =>
                {
                    return Ok(store);
                }
                // Another codec's beginning, or one that never became a store: nobody else's file has this name.
                Ok(_) | Err(Error::NotAStore { .. } | Error::Corrupt { .. } | Error::TooNew { .. }) => {}
                // In use, or out of reach: that is no reason to delete it.
                Err(error) => return Err(error),
            }
            std::fs::remove_file(partial).map_err(Error::io(partial))?;
        }
        let codec = crate::codec::load(&image.encode()?, Device::default())?;
        let builder = Store::builder()
            .capacity(header.capacity)
            .similarity(header.similarity)
            .policy(self.from.policy())
            .shared_clock(self.from.inner.clock.clone());
        match self.from.path().and_then(permissions_of) {
            Some(permissions) => builder.permissions(permissions),
            None => builder,
        }
        .create_boxed(partial, codec)
    }

    /// Removes what an interrupted run moved and the source no longer has.
    fn remove_strangers(&self, into: &Store) -> Result<()> {
        let mut transaction = into.begin_write();
        {
            let (from, live) = (self.from.inner.live.read(), into.inner.live.read());
            for (slot, occupant) in live.bank().iter() {
                if from.bank().get(slot).is_none_or(|source| source.seq != occupant.seq) {
                    transaction.remove_id(MemoryId { slot, seq: occupant.seq });
                }
            }
        }
        transaction.commit().map(drop)
    }
}

/// Moves memories that are not there yet; adds to the report's sums.
fn move_batch(into: &Store, some: &[Entry<'_>], report: &mut RecodeReport) -> Result<()> {
    let (parts, some): (Vec<&Entry<'_>>, Vec<&Entry<'_>>) =
        some.iter().partition(|entry| entry.stored().kind == SlotKind::StreamRoot);
    move_parts(into, &parts, report)?;
    let Some(records) = Entry::records_of(&some)? else { return Ok(()) };
    let there = some.iter().map(|entry| is_there(into, entry)).collect::<Result<Vec<bool>>>()?;
    let stored: Vec<&Stored> = some.iter().map(|entry| entry.stored()).collect();
    let mut transaction = into.begin_write();
    let moved = encode_again(&into.inner, some[0].store_uuid(), &stored, &records)?;
    for ((entry, moved), there) in some.iter().zip(moved).zip(there) {
        report.records += 1;
        report.resumed += u64::from(there);
        report.error_before += f64::from(entry.error());
        report.error_added += f64::from(moved.added);
        report.error_after += f64::from(moved.error);
        if !there {
            transaction.push(Op::restore(moved.content, entry.stored()));
        }
    }
    transaction.commit().map(drop)
}

/// Moves parts of streams: their states are the sweeper tree's and stay what they are, their search vectors are made again.
fn move_parts(into: &Store, parts: &[&Entry<'_>], report: &mut RecodeReport) -> Result<()> {
    let inner = &into.inner;
    let mut transaction = into.begin_write();
    for entry in parts {
        let stored = entry.stored();
        let there = is_there(into, entry)?;
        report.records += 1;
        report.resumed += u64::from(there);
        report.error_before += f64::from(entry.error());
        report.error_after += f64::from(entry.error());
        let Some((name, first)) = stored.metadata.key.as_deref().and_then(part_of_key) else {
            let cause = DecodeError::Truncated { what: "the key of a part", needed: 1, found: 0 };
            return Err(corrupt_part(stored.id.slot, cause));
        };
        if there {
            continue;
        }
        let vectors = inner.finite_vectors(&entry.records_of_part()?)?;
        let search = column_means(&vectors, inner.header.search_dims as usize);
        let part = StreamPart { search, ..stored.part()? };
        transaction.push(Op::restore(super::stream::content(name, first, &part, stored.norm)?, stored));
    }
    transaction.commit().map(drop)
}

/// What appending to streams needs, which counts with what was moved.
fn move_heads(from: &Store, into: &Store) -> Result<()> {
    let mut transaction = into.begin_write();
    for (name, head) in from.inner.reading("read the streams", || from.inner.heads())? {
        transaction.push(Op::Head(name, head));
    }
    transaction.commit().map(drop)
}

/// Whether an earlier run moved this very memory. The number of the write is not enough: a source that was restored from
/// a backup and written on has the same numbers for other memories, and pins change without a write.
fn is_there(into: &Store, entry: &Entry<'_>) -> Result<bool> {
    let inner = &into.inner;
    let found =
        inner.reading("look at the partial store", || inner.stored(&inner.snapshot()?, entry.id()))?;
    Ok(found.is_some_and(|found| {
        found.written_at == entry.written_at()
            && found.expires_at == entry.expires_at()
            && found.pinned == entry.is_pinned()
            && found.metadata == entry.stored().metadata
    }))
}

/// Counts, lifetime totals, ingest positions, and what streams go on from.
fn inherit(from: &Store, into: &Store) -> Result<()> {
    let inner = &from.inner;
    if let Some(image) = inner.reading("read the sweeper tree", || inner.tree_image())? {
        into.inner.put_tree(&image)?;
    }
    let mut transaction = into.begin_write();
    let positions = inner.reading("read the positions", || {
        let meta = inner.handle.begin_read()?.open_table(META).map_err(storage("open a table"))?;
        let mut positions: Vec<(String, IngestPosition)> = Vec::new();
        for entry in meta.iter().map_err(storage("read the positions"))? {
            let (name, value) = entry.map_err(storage("read the positions"))?;
            let name = name.value().to_owned();
            if name.starts_with(POSITION_PREFIX)
                && let Ok(position) = frame::open(value.value(), super::meta_place(inner.header.uuid, &name))
            {
                positions.push((name, position));
            }
        }
        Ok(positions)
    })?;
    for (name, position) in positions {
        transaction.push(Op::Position(name, position));
    }
    let reads = inner.live.read().counts().pending();
    let state = inner.live.read().state();
    transaction
        .push(Op::Inherit(apcm_format::StoreState { reads: state.reads.saturating_add(reads), ..state }));
    transaction.commit()?;
    {
        let (source, live) = (inner.live.read(), into.inner.live.read());
        for (slot, occupant) in live.bank().iter() {
            if source.bank().get(slot).is_some_and(|source| source.seq == occupant.seq) {
                let missing = source.counts().get(slot).saturating_sub(live.counts().get(slot));
                live.counts().restore(slot, missing);
                live.uses().restore(slot, source.uses().get(slot));
            }
        }
    }
    into.flush()
}

/// Beside the target, and named after the source too: another store's beginning is not this one's.
fn partial_path(to: &Path, source: &[u8; 16]) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    let source: String = source[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    name.push(format!(".{source}.recoding"));
    to.with_file_name(name)
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
