//! Moving a store to another codec: decode, encode, and say what that added to the error.

use super::moved::{Transferred, as_they_are, batch, encode_again};
use crate::clock::Clock;
use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::policy::Occupant;
use crate::progress::{Progress, Reporter};
use crate::record::{check_shape, column_means};
use crate::store::engine::Engine;
use crate::store::file::{
    META, POSITION_PREFIX, RECODED, SOURCE_PREFIX, meta_place, optional, permissions_of, storage,
};
use crate::store::staged::{Op, Source};
use crate::store::store::Store;
use crate::store::stream::content;
use crate::store::write::durable;
use crate::stored::{Stored, corrupt_part};
use crate::whole_file::{Taken, folder_of, rename, sync_folder};
use apcm_format::stream::part_of_key;
use apcm_format::{DecodeError, MemoryId, SlotKind, StoreState, frame};
use redb::ReadableTable;
use rustc_hash::FxHashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Passes over what others change while a store is moved.
const PASSES_MAX: u32 = 100;

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
    /// Mean of the errors they have now: at most the squares of the sums of roots, because the originals are
    /// gone.
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
    codec: Arc<dyn Codec>,
    progress: Reporter<'a>,
}

impl fmt::Debug for Recode<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recode").field("from", &self.from).field("to", &self.to).finish_non_exhaustive()
    }
}

impl Store {
    /// Starts a move to another codec, into a new file or over this one: see [`Recode`].
    pub fn recode(&self, to: impl AsRef<Path>, codec: impl Codec) -> Recode<'_> {
        Recode::new(self, to.as_ref(), Arc::new(codec))
    }
}

impl<'a> Recode<'a> {
    pub(crate) fn new(from: &'a Store, to: &Path, codec: Arc<dyn Codec>) -> Self {
        Self { from, to: to.to_owned(), codec, progress: Reporter::new("recode") }
    }

    /// Is told how many memories of how many are done; [`ControlFlow::Break`] ends the move, resumably.
    pub fn progress(mut self, callback: impl FnMut(&Progress<'_>) -> ControlFlow<()> + 'a) -> Self {
        self.progress.set(callback);
        self
    }

    /// Moves every memory: ids, keys, metadata, pins, expiries, counts and ingest positions stay what they are.
    ///
    /// The new store grows beside its name, as `NAME.<source>.recoding`, in durable transactions; a run that
    /// was interrupted goes on where it stopped, and moves what was written to the source between the runs.
    /// Others may write to the source meanwhile: what they change is moved in further passes, and only the last
    /// step, which encodes nothing, keeps them waiting. When all is there the file gets its name, unless
    /// another file got it meanwhile. Where that is the old store's own, the old file is whole until that
    /// moment, and its handle is [`Poisoned`](Error::Poisoned) from then on: drop it, and open the store again.
    /// A symbolic link to the store goes on leading to it.
    ///
    /// Lossless memories stay lossless. Bounded ones keep a residual, and their error grows by a quarter at
    /// most. Under the same codec memories stay as they are, to the bit. Damaged memories cannot be decoded,
    /// and end the move with their error: remove them first.
    ///
    /// # Errors
    /// [`Exists`](Error::Exists), [`RecordShape`](Error::RecordShape) for a codec of other records,
    /// [`Cancelled`](Error::Cancelled), [`Busy`](Error::Busy) for a source that changes faster than it can be
    /// moved, [`OverBudget`](Error::OverBudget) when under the new codec all memories take more than the
    /// store's byte budget; the old file is never touched.
    pub fn run(mut self) -> Result<RecodeReport> {
        self.progress.begin();
        let from = &self.from.engine;
        check_shape(from.header.shape, self.codec.shape())?;
        let in_place = self.from.path().is_some_and(|path| same_file(&self.to, path));
        if in_place {
            // Through a symbolic link: it is the file that is replaced, and the link goes on leading to it.
            self.to = self.to.canonicalize().map_err(Error::io(&self.to))?;
        } else if self.to.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: self.to });
        }
        // The time stands still while the source's writers wait: its clock is the caller's own code.
        let time = Arc::new(AtomicU64::new(from.now().into()));
        let partial = partial_path(&self.to, &from.header.uuid.0);
        let into = self.destination(&partial, &time)?;
        let stored_before = from.resident.read().stored();
        let mut moving = Move { from, into: &into, moved: FxHashMap::default() };
        for _ in 0..PASSES_MAX {
            let now = from.now();
            time.store(now.into(), Ordering::Relaxed);
            let mut change = moving.changed(now);
            if change.is_empty() {
                // Flush first: if the last step fails, these counts stay with the source.
                match from.flush() {
                    Ok(()) | Err(Error::NoSpace { .. }) => {}
                    Err(error) => return Err(error),
                }
                let writing = from.writer.lock();
                from.check_usable()?;
                change = moving.changed(now);
                if change.is_empty() {
                    let mut report = moving.report(stored_before, now);
                    let policy = from.resident.read().policy();
                    into.engine.set_policy(policy)?;
                    move_heads(from, &into)?;
                    report.stored_after = into.engine.resident.read().stored();
                    // The new store has the old one's budget; it must not begin by dropping what was just
                    // moved.
                    if let Some(budget) = from.resident.read().state().byte_budget
                        && report.stored_after > budget
                    {
                        return Err(Error::OverBudget { needed: report.stored_after, budget });
                    }
                    inherit(from, &into)?;
                    into.close()?;
                    // A name that was taken meanwhile is refused here, and the partial file stays to go on
                    // from.
                    rename(&partial, &self.to, if in_place { Taken::Replace } else { Taken::Refuse })?;
                    if in_place {
                        // The old handle's file has no name any more: nothing may be written to it.
                        from.poisoned.store(true, Ordering::Release);
                    }
                    drop(writing);
                    sync_folder(folder_of(&self.to))?;
                    return Ok(report);
                }
                drop(writing);
            }
            moving.remove(&change)?;
            let size = batch(from.header.shape.values());
            for some in change.written.chunks(size) {
                moving.take(some)?;
                let total = self.from.len() as u64;
                self.progress.skip(moving.moved.values().filter(|moved| moved.resumed).count() as u64);
                if self.progress.report((moving.moved.len() as u64).min(total), total).is_break() {
                    into.close()?;
                    return Err(Error::Cancelled);
                }
            }
        }
        Err(Error::Busy { passes: PASSES_MAX })
    }

    /// The partial store of an earlier run with this codec, or a new one.
    fn destination(&self, partial: &Path, time: &Arc<AtomicU64>) -> Result<Store> {
        let header = &self.from.engine.header;
        let clock = Arc::clone(time);
        let clock: Clock = Arc::new(move || clock.load(Ordering::Relaxed));
        if partial.exists() {
            // It is this program's own, and as large as what is open already.
            let builder = Store::builder().shared_clock(Arc::clone(&clock)).memory_limit(u64::MAX);
            match builder.open_with_codec(partial, Arc::clone(&self.codec)) {
                Ok(store)
                    if store.engine.header.capacity == header.capacity
                        && store.engine.header.similarity == header.similarity
                        && store.policy() == self.from.policy() =>
                {
                    // An earlier run may have come as far as the budget, which must not drop what is being
                    // moved.
                    let state = store.engine.resident.read().state();
                    if state.byte_budget.is_some() {
                        let mut transaction = store.begin_write();
                        transaction.push(Op::Inherit(StoreState { byte_budget: None, ..state }));
                        transaction.commit()?;
                    }
                    return Ok(store);
                }
                // A leftover partial file of another codec or of a failed creation: replace it. No other file
                // has this name.
                Ok(_)
                | Err(
                    Error::CodecMismatch { .. }
                    | Error::NotAStore { .. }
                    | Error::Corrupt { .. }
                    | Error::TooNew { .. },
                ) => {}
                // In use, or out of reach: that is no reason to delete it.
                Err(error) => return Err(error),
            }
            std::fs::remove_file(partial).map_err(Error::io(partial))?;
        }
        let builder = Store::builder()
            .capacity(header.capacity)
            .similarity(header.similarity)
            .policy(self.from.policy())
            .shared_clock(clock);
        match self.from.path().and_then(permissions_of) {
            Some(permissions) => builder.permissions(permissions),
            None => builder,
        }
        .create(partial, Arc::clone(&self.codec))
    }
}

/// What memory knows of a slot. While it is unchanged, the moved memory is current.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    occupant: Occupant,
    record: u32,
    residual: u32,
    error: u32,
}

/// A memory that was moved.
struct Moved {
    seen: Seen,
    before: f32,
    added: f32,
    after: f32,
    /// By an earlier run.
    resumed: bool,
}

/// Memories of the source to move, and moved ones that left the source.
struct Change {
    written: Vec<(u32, Seen)>,
    gone: Vec<MemoryId>,
}

impl Change {
    fn is_empty(&self) -> bool {
        self.written.is_empty() && self.gone.is_empty()
    }
}

/// A move under way.
struct Move<'a> {
    from: &'a Engine,
    into: &'a Store,
    moved: FxHashMap<u32, Moved>,
}

impl Move<'_> {
    fn changed(&self, now: u32) -> Change {
        let (from, into) = (self.from.resident.read(), self.into.engine.resident.read());
        let there = |slot| from.occupant(slot, now);
        let seen = |(slot, occupant): (u32, Occupant)| {
            let size = from.size(slot);
            let seen =
                Seen { occupant, record: size.record, residual: size.residual, error: size.error.to_bits() };
            let moved = self.moved.get(&slot).is_some_and(|moved| moved.seen == seen);
            (there(slot).is_some() && !moved).then_some((slot, seen))
        };
        let left = |(slot, occupant): (u32, Occupant)| {
            let id = MemoryId { slot, seq: occupant.seq };
            // Expired memories leave with the next commit by themselves.
            let expired = occupant.expires_at.is_some_and(|at| at <= now);
            (!expired && there(slot).is_none_or(|source| source.seq != id.seq)).then_some(id)
        };
        Change {
            written: from.bank().iter().filter_map(seen).collect(),
            gone: into.bank().iter().filter_map(left).collect(),
        }
    }

    /// Removes what was moved, by an earlier run perhaps, and left the source.
    fn remove(&mut self, change: &Change) -> Result<()> {
        let mut transaction = self.into.begin_write();
        for &id in &change.gone {
            self.moved.remove(&id.slot);
            transaction.remove_id(id);
        }
        transaction.commit().map(drop)
    }

    /// Moves memories, as far as they are still what was found; those of which nothing changed since an earlier
    /// run are there.
    fn take(&mut self, some: &[(u32, Seen)]) -> Result<()> {
        let stored = self.from.reading("read a memory", || {
            let snapshot = self.from.snapshot()?;
            let read = |&(slot, seen): &(u32, Seen)| {
                let stored =
                    self.from.stored_in(&snapshot, slot, Some(seen.occupant.seq).filter(|&seq| seq > 0))?;
                Ok(stored.map(|stored| (stored, seen)))
            };
            some.iter().map(read).filter_map(Result::transpose).collect::<Result<Vec<(Stored, Seen)>>>()
        })?;
        let mut left = Vec::new();
        for (stored, seen) in &stored {
            let source = stored.digest()?;
            match self.earlier(stored, &source)? {
                Some(added) => {
                    let after = self.into.engine.resident.read().error(stored.id.slot);
                    let moved = Moved { seen: *seen, before: stored.error, added, after, resumed: true };
                    self.moved.insert(stored.id.slot, moved);
                }
                None => left.push((stored, *seen, source)),
            }
        }
        let (parts, memories): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|(stored, ..)| stored.kind == SlotKind::StreamRoot);
        let mut transaction = self.into.begin_write();
        let mut taken = Vec::new();
        for (stored, seen, source) in parts {
            taken.push((stored, seen, source, self.part(stored)?));
        }
        let all: Vec<&Stored> = memories.iter().map(|(stored, ..)| *stored).collect();
        if !all.is_empty() {
            let (engine, uuid) = (&self.into.engine, self.from.header.uuid);
            // Decoding and encoding once more would add rounding to every error, and nothing else.
            let contents = if self.from.header.fingerprint == engine.header.fingerprint {
                as_they_are(engine, uuid, &all)?
            } else {
                encode_again(engine, uuid, &all, &self.from.decode_all(&all)?)?
            };
            let memories = memories.into_iter().zip(contents);
            taken.extend(memories.map(|((stored, seen, source), content)| (stored, seen, source, content)));
        }
        for (stored, seen, source, Transferred { content, added, error }) in taken {
            let before = stored.error;
            self.moved.insert(stored.id.slot, Moved { seen, before, added, after: error, resumed: false });
            transaction.push(Op::restore(content, stored, Some(Source { digest: source, added })));
        }
        transaction.commit().map(drop)
    }

    /// What an earlier run added to the error of this very memory, if it moved it. Its numbers are not enough
    /// to know it by: a source that was restored from a backup and written on has the same for other memories.
    fn earlier(&self, stored: &Stored, source: &[u8; 32]) -> Result<Option<f32>> {
        let engine = &self.into.engine;
        if self.moved.contains_key(&stored.id.slot) || !engine.resident.read().holds(stored.id, 0) {
            return Ok(None);
        }
        engine.reading("look at the partial store", || {
            let table = engine.handle.begin_read()?.open_table(RECODED);
            let Some(table) = optional(table).map_err(storage("open a table"))? else { return Ok(None) };
            let row = table.get(stored.id.slot).map_err(storage("look up a move"))?;
            Ok(row
                .and_then(|row| Source::decode(row.value()))
                .filter(|row| row.digest == *source)
                .map(|row| row.added))
        })
    }

    /// A part of a stream: its state is the sweeper tree's and stays what it is, its search vector is made
    /// again.
    fn part(&self, stored: &Stored) -> Result<Transferred> {
        let engine = &self.into.engine;
        let Some((name, first)) = stored.metadata.key.as_deref().and_then(part_of_key) else {
            let cause = DecodeError::Truncated { what: "the key of a part", needed: 1, found: 0 };
            return Err(corrupt_part(stored.id.slot, cause));
        };
        let mut part = stored.part()?;
        if self.from.header.fingerprint != engine.header.fingerprint {
            let vectors = engine.finite_vectors(&self.from.records_of_part(stored)?)?;
            part.search = column_means(&vectors, engine.header.search_dims as usize);
        }
        let content = content(name, first, &part, stored.norm)?;
        Ok(Transferred { content, added: 0.0, error: stored.error })
    }

    fn report(&mut self, stored_before: u64, now: u32) -> RecodeReport {
        // Memories that expired since they were moved are in neither store.
        let resident = self.from.resident.read();
        self.moved.retain(|&slot, _| resident.occupant(slot, now).is_some());
        drop(resident);
        let mean = |of: fn(&Moved) -> f32| {
            let sum: f64 = self.moved.values().map(|moved| f64::from(of(moved))).sum();
            sum / (self.moved.len() as f64).max(1.0)
        };
        RecodeReport {
            records: self.moved.len() as u64,
            resumed: self.moved.values().filter(|moved| moved.resumed).count() as u64,
            error_before: mean(|moved| moved.before),
            error_added: mean(|moved| moved.added),
            error_after: mean(|moved| moved.after),
            stored_before,
            stored_after: 0,
        }
    }
}

/// Heads of streams; their bytes count with their parts.
fn move_heads(from: &Engine, into: &Store) -> Result<()> {
    let mut transaction = into.begin_write();
    for (name, head) in from.reading("read the streams", || from.heads())? {
        transaction.push(Op::Head(name, head));
    }
    transaction.commit().map(drop)
}

/// Counts, lifetime totals, ingest positions, and what streams go on from.
fn inherit(engine: &Engine, into: &Store) -> Result<()> {
    if let Some(image) = engine.reading("read the sweeper tree", || engine.tree_image())? {
        into.engine.put_tree(&image)?;
    }
    let mut transaction = into.begin_write();
    let noted = engine.reading("read the positions", || {
        let meta = engine.handle.begin_read()?.open_table(META).map_err(storage("open a table"))?;
        let mut noted = Vec::new();
        for entry in meta.iter().map_err(storage("read the positions"))? {
            let (name, value) = entry.map_err(storage("read the positions"))?;
            let (name, value) = (name.value().to_owned(), value.value());
            let place = meta_place(engine.header.uuid, &name);
            if name.starts_with(POSITION_PREFIX) {
                noted.extend(frame::open(value, place).ok().map(|position| Op::Position(name, position)));
            } else if name.starts_with(SOURCE_PREFIX) {
                noted.extend(frame::open(value, place).ok().map(|source| Op::Source(name, source)));
            }
        }
        Ok(noted)
    })?;
    noted.into_iter().for_each(|op| transaction.push(op));
    let reads = engine.resident.read().counts().pending();
    let state = engine.resident.read().state();
    transaction.push(Op::Inherit(StoreState { reads: state.reads.saturating_add(reads), ..state }));
    transaction.commit()?;
    {
        let (source, resident) = (engine.resident.read(), into.engine.resident.read());
        for (slot, occupant) in resident.bank().iter() {
            if source.bank().get(slot).is_some_and(|source| source.seq == occupant.seq) {
                let missing = source.counts().get(slot).saturating_sub(resident.counts().get(slot));
                resident.counts().restore(slot, missing);
                resident.uses().restore(slot, source.uses().get(slot));
            }
        }
    }
    into.flush()?;
    // The move is complete: the table of source digests is no longer needed.
    let target = &into.engine;
    target.poisoning("commit", || {
        let transaction = target.handle.writable()?.begin_write().map_err(storage("begin a write"))?;
        transaction.delete_table(RECODED).map_err(storage("forget what was moved"))?;
        durable(transaction)
    })
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
