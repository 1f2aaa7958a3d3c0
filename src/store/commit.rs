//! Commits: place purely, write once, and only then change what is in memory.

use super::Inner;
use super::counts::Taken;
use super::guard::{guarded, is_fatal, storage};
use super::live::{Live, SlotSize, row_bytes};
use super::memory::{Committed, Evicted};
use super::tables::{
    COUNTERS, KEYS, META, METADATA, RESIDUALS, SLOTS, STATE, counter_place, meta_place, metadata_place,
    residual_place, slot_place,
};
use super::transaction::{Op, Restored};
use crate::error::{Error, Result};
use crate::policy::{AllPinned, Held, Occupant, OverBudget, Placement, Planner, Relief, relieve};
use apcm_format::{
    MemoryId, ResidualRecord, SlotFlags, SlotKind, SlotMetadata, SlotRecord, StoreState, StoredReal, frame,
    limits,
};
use redb::{ReadableTable, Table, WriteTransaction};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

/// Disk space a commit wants to find, besides twice what it writes: room for redb to grow the file in its steps.
const SPACE_MARGIN: u64 = 16 << 20;
/// What a read may differ from the measurement through another batch size: rounding of the last bits.
const ROUNDING_MARGIN: f32 = 1.0001;

/// What a commit will change in memory once it is durable.
struct Changes {
    occupants: HashMap<u32, Option<Occupant>>,
    /// Search vector and size of each slot that was written.
    written: HashMap<u32, (Vec<f32>, SlotSize)>,
    /// Size of each slot that stays and gave something up.
    resized: HashMap<u32, SlotSize>,
    reset: HashSet<u32>,
    taken: Taken,
    state: StoreState,
    done: Committed,
}

impl Inner {
    pub(super) fn commit(&self, ops: Vec<Op>) -> Result<Committed> {
        self.check_usable()?;
        self.handle.writable()?;
        if ops.is_empty() {
            return Ok(Committed::default());
        }
        let _writer = self.writer.lock();
        self.check_usable()?;
        self.check_space(&ops)?;
        let changes = self.poisoning(|| self.apply(ops))?;
        Ok(self.swap_in(changes))
    }

    pub(super) fn flush(&self) -> Result<()> {
        if self.handle.writable().is_err() {
            return Ok(());
        }
        self.check_usable()?;
        let _writer = self.writer.lock();
        self.check_usable()?;
        let changes = self.poisoning(|| self.apply(Vec::new()))?;
        self.swap_in(changes);
        Ok(())
    }

    /// Runs a commit; an error of the database leaves a handle that nobody may use again.
    fn poisoning(&self, run: impl FnOnce() -> Result<Changes>) -> Result<Changes> {
        let result = guarded("commit", run);
        if let Err(error) = &result
            && is_fatal(error)
        {
            self.poisoned.store(true, Ordering::Release);
        }
        result
    }

    fn check_space(&self, ops: &[Op]) -> Result<()> {
        let bytes: usize = ops
            .iter()
            .map(|op| match op {
                Op::Write { encoded, residual, metadata_len, .. } => {
                    let residual = residual.as_ref().map_or(0, |residual| residual.payload.len());
                    encoded.code.len() + limits::SLOT_OVERHEAD_MAX + metadata_len + residual + 256
                }
                _ => 256,
            })
            .sum();
        let needed = 2 * bytes as u64 + SPACE_MARGIN;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(std::path::Path::new("."));
        // A file system that cannot say how much is free is written to all the same; it will say when it is full.
        match fs4::available_space(folder) {
            Ok(available) if available < needed => Err(Error::NoSpace { needed, available }),
            _ => Ok(()),
        }
    }

    /// Places and writes the operations and the pending counts; nothing in memory changes.
    fn apply(&self, ops: Vec<Op>) -> Result<Changes> {
        let live = self.live.read();
        let now = self.now();
        let mut state = live.state();
        let mut planner = Planner::new(live.bank(), |slot| live.counts().get(slot));
        let mut done = Committed::default();
        let mut written = HashMap::new();
        let mut resized = HashMap::new();
        // A commit without operations is a flush: with nothing pending it costs nothing.
        if ops.is_empty() && !live.counts().is_dirty() {
            return Ok(Changes {
                occupants: HashMap::new(),
                written,
                resized,
                reset: HashSet::new(),
                taken: Taken::default(),
                state,
                done,
            });
        }
        let transaction = self.handle.writable()?.begin_write().map_err(storage("begin a write"))?;
        let (occupants, reset, taken) = {
            let mut tables = Tables::open(self, &transaction)?;
            if !ops.is_empty() {
                // Expired memories leave with the first write that comes, so that their slots are free for it.
                for slot in live.bank().expired(now) {
                    tables.clear(slot)?;
                    planner.remove(slot);
                }
            }
            for op in ops {
                match op {
                    Op::Write { encoded, residual, search, metadata, pinned, time_to_live, .. } => {
                        let error_without = StoredReal::at_least(encoded.error * ROUNDING_MARGIN);
                        let error = residual.as_ref().map_or(error_without, |residual| {
                            StoredReal::at_least(residual.error * ROUNDING_MARGIN)
                        });
                        let seq = state.next_seq;
                        state.next_seq += 1;
                        let expires_at = time_to_live.map(|seconds| now.saturating_add(seconds));
                        let mut occupant = Occupant { seq, pinned, damaged: false, expires_at };
                        let old_slot = match &metadata.key {
                            Some(key) => tables.slot_of(key)?,
                            None => None,
                        };
                        let slot = match old_slot.and_then(|slot| Some((slot, planner.get(slot)?))) {
                            Some((slot, old)) => {
                                occupant.pinned |= old.pinned;
                                occupant.expires_at = expires_at.or(old.expires_at);
                                planner.replace(slot, occupant);
                                slot
                            }
                            None => {
                                let placement = planner.place(occupant);
                                let placement = placement.map_err(|AllPinned| Error::AllPinned {
                                    capacity: self.header.capacity,
                                })?;
                                if let Placement::Evict { slot, victim, count } = placement {
                                    let SlotMetadata { key, values } = tables.clear(slot)?;
                                    state.evictions = state.evictions.saturating_add(1);
                                    state.evictions_never_read =
                                        state.evictions_never_read.saturating_add(u64::from(count == 0));
                                    let id = MemoryId { slot, seq: victim.seq };
                                    done.evicted.push(Evicted { id, key, metadata: values, count });
                                }
                                placement.slot()
                            }
                        };
                        let record = SlotRecord {
                            kind: SlotKind::Record,
                            flags: SlotFlags {
                                pinned: occupant.pinned,
                                without_predictor: encoded.without_predictor,
                                residual: residual.is_some(),
                            },
                            seq,
                            written_at: now,
                            expires_at: occupant.expires_at,
                            last_access: None,
                            policy_word: None,
                            error,
                            norm: StoredReal::at_least(encoded.norm),
                            code: &encoded.code,
                        };
                        let kept = residual.as_ref().map(|residual| ResidualRecord {
                            form: residual.form,
                            seq,
                            error_without,
                            payload: &residual.payload,
                        });
                        let size = tables.write(slot, &record, &metadata, kept.as_ref())?;
                        written.insert(slot, (search, size));
                        done.ids.push(MemoryId { slot, seq });
                        done.errors.push(error.get());
                    }
                    Op::Restore(restored) => {
                        let Restored {
                            id,
                            encoded,
                            residual,
                            search,
                            metadata,
                            pinned,
                            written_at,
                            expires_at,
                        } = *restored;
                        if planner.get(id.slot).is_some() {
                            tables.clear(id.slot)?;
                            planner.remove(id.slot);
                        }
                        planner
                            .restore(id.slot, Occupant { seq: id.seq, pinned, damaged: false, expires_at });
                        state.next_seq = state.next_seq.max(id.seq + 1);
                        let error_without = StoredReal::at_least(encoded.error * ROUNDING_MARGIN);
                        let error = residual.as_ref().map_or(error_without, |residual| {
                            StoredReal::at_least(residual.error * ROUNDING_MARGIN)
                        });
                        let record = SlotRecord {
                            kind: SlotKind::Record,
                            flags: SlotFlags {
                                pinned,
                                without_predictor: encoded.without_predictor,
                                residual: residual.is_some(),
                            },
                            seq: id.seq,
                            written_at,
                            expires_at,
                            last_access: None,
                            policy_word: None,
                            error,
                            norm: StoredReal::at_least(encoded.norm),
                            code: &encoded.code,
                        };
                        let kept = residual.as_ref().map(|residual| ResidualRecord {
                            form: residual.form,
                            seq: id.seq,
                            error_without,
                            payload: &residual.payload,
                        });
                        let size = tables.write(id.slot, &record, &metadata, kept.as_ref())?;
                        written.insert(id.slot, (search, size));
                        done.ids.push(id);
                        done.errors.push(error.get());
                    }
                    Op::Inherit(other) => {
                        let next_seq = state.next_seq.max(other.next_seq);
                        state = StoreState { next_seq, byte_budget: state.byte_budget, ..other };
                    }
                    Op::RemoveKey(key) => {
                        if let Some(slot) = tables.slot_of(&key)?.filter(|&slot| planner.get(slot).is_some())
                        {
                            tables.clear(slot)?;
                            planner.remove(slot);
                            done.removed += 1;
                        }
                    }
                    Op::RemoveId(id) => {
                        check_there(&planner, id)?;
                        tables.clear(id.slot)?;
                        planner.remove(id.slot);
                        done.removed += 1;
                    }
                    Op::Pin(id, pinned) => {
                        check_there(&planner, id)?;
                        tables.pin(id.slot, pinned)?;
                        planner.pin(id.slot, pinned);
                    }
                    Op::Position(name, position) => {
                        let value = frame::seal(&position, meta_place(self.header.uuid, &name))?;
                        tables.set_meta(&name, &value)?;
                    }
                }
            }
            if let Some(budget) = state.byte_budget {
                let changed: u64 = written.values().map(|(_, size): &(_, SlotSize)| size.total()).sum();
                // A cheap upper bound first: only a store near its budget is looked at slot by slot.
                if live.stored() + changed > budget {
                    let mut relieved =
                        Relieved { live: &live, tables: &mut tables, state: &mut state, done: &mut done };
                    relieved.run(&mut planner, &mut written, &mut resized, budget)?;
                }
            }
            let (occupants, reset) = planner.finish();
            let taken = live.counts().take(&reset);
            state.reads = state.reads.saturating_add(taken.reads);
            for (number, chunk) in taken.chunks() {
                let value = chunk.encode(counter_place(self.header.uuid, number));
                tables.counters.insert(number, value.as_slice()).map_err(storage("write counts"))?;
            }
            let value = frame::seal(&state, meta_place(self.header.uuid, STATE))?;
            tables.set_meta(STATE, &value)?;
            (occupants, reset, taken)
        };
        // Whatever goes wrong from here on, an error or a panic: it may be durable, or not.
        guarded("commit", || transaction.commit().map_err(storage("commit"))).map_err(
            |error| match error {
                Error::Storage { source, .. } => Error::OutcomeUnknown { source },
                other => other,
            },
        )?;
        Ok(Changes { occupants, written, resized, reset, taken, state, done })
    }

    /// Makes memory agree with the disk. Nothing here can fail.
    fn swap_in(&self, changes: Changes) -> Committed {
        let Changes { occupants, mut written, resized, reset, taken, state, done } = changes;
        let mut live = self.live.write();
        for (slot, occupant) in occupants {
            match (occupant, written.remove(&slot)) {
                (Some(occupant), Some((search, size))) => live.fill(slot, occupant, Some(&search), size),
                (Some(occupant), None) => live.update(slot, occupant),
                (None, _) => live.empty(slot),
            }
        }
        for (slot, size) in resized {
            live.resize(slot, |old| *old = size);
        }
        live.set_state(state);
        let high_water = live.bank().high_water();
        live.counts_mut().0.settle(taken, &reset, high_water);
        done
    }
}

/// Brings a transaction under the byte budget.
struct Relieved<'r, 'a> {
    live: &'r Live,
    tables: &'r mut Tables<'a>,
    state: &'r mut StoreState,
    done: &'r mut Committed,
}

impl Relieved<'_, '_> {
    fn run<C: Fn(u32) -> u32>(
        &mut self,
        planner: &mut Planner<'_, C>,
        written: &mut HashMap<u32, (Vec<f32>, SlotSize)>,
        resized: &mut HashMap<u32, SlotSize>,
        budget: u64,
    ) -> Result<()> {
        let size = |written: &HashMap<u32, (Vec<f32>, SlotSize)>, slot| {
            written.get(&slot).map_or_else(|| self.live.size(slot), |(_, size)| *size)
        };
        let held = planner
            .occupied()
            .map(|(slot, occupant)| {
                let size = size(written, slot);
                Held {
                    slot,
                    count: planner.count(slot),
                    seq: occupant.seq,
                    residual: u64::from(size.residual),
                    rest: size.total() - u64::from(size.residual),
                    may_give: !occupant.pinned && !occupant.damaged,
                    new: written.contains_key(&slot),
                }
            })
            .collect();
        let given =
            relieve(held, budget).map_err(|OverBudget { needed }| Error::OverBudget { needed, budget })?;
        for relief in given {
            match relief {
                Relief::Residual(slot) => {
                    let Some((seq, size)) = self.tables.drop_residual(slot, size(written, slot))? else {
                        continue;
                    };
                    let id = MemoryId { slot, seq };
                    if let Some(at) = self.done.ids.iter().position(|&written| written == id) {
                        self.done.errors[at] = size.error;
                    }
                    match written.get_mut(&slot) {
                        Some((_, old)) => *old = size,
                        None => {
                            resized.insert(slot, size);
                        }
                    }
                    self.state.residuals_dropped = self.state.residuals_dropped.saturating_add(1);
                    self.done.residuals_dropped.push(id);
                }
                Relief::Memory(slot) => {
                    let Some(victim) = planner.get(slot) else { continue };
                    let count = planner.count(slot);
                    let SlotMetadata { key, values } = self.tables.clear(slot)?;
                    planner.remove(slot);
                    written.remove(&slot);
                    resized.remove(&slot);
                    self.state.evictions = self.state.evictions.saturating_add(1);
                    self.state.evictions_never_read =
                        self.state.evictions_never_read.saturating_add(u64::from(count == 0));
                    let id = MemoryId { slot, seq: victim.seq };
                    self.done.evicted.push(Evicted { id, key, metadata: values, count });
                }
            }
        }
        Ok(())
    }
}

fn check_there<C: Fn(u32) -> u32>(planner: &Planner<'_, C>, id: MemoryId) -> Result<()> {
    match planner.get(id.slot) {
        Some(occupant) if occupant.seq == id.seq && !occupant.damaged => Ok(()),
        _ => Err(Error::NotFound { id }),
    }
}

/// The tables of one write transaction.
struct Tables<'a> {
    inner: &'a Inner,
    meta: Table<'a, &'static str, &'static [u8]>,
    slots: Table<'a, u32, &'static [u8]>,
    counters: Table<'a, u32, &'static [u8]>,
    keys: Table<'a, &'static [u8], u32>,
    metadata: Table<'a, u32, &'static [u8]>,
    residuals: Table<'a, u32, &'static [u8]>,
}

impl<'a> Tables<'a> {
    fn open(inner: &'a Inner, transaction: &'a WriteTransaction) -> Result<Self> {
        Ok(Self {
            inner,
            meta: transaction.open_table(META).map_err(storage("open a table"))?,
            slots: transaction.open_table(SLOTS).map_err(storage("open a table"))?,
            counters: transaction.open_table(COUNTERS).map_err(storage("open a table"))?,
            keys: transaction.open_table(KEYS).map_err(storage("open a table"))?,
            metadata: transaction.open_table(METADATA).map_err(storage("open a table"))?,
            residuals: transaction.open_table(RESIDUALS).map_err(storage("open a table"))?,
        })
    }

    /// The slot that a key leads to. The row of a key has no checksum, so it counts only if the slot names the key in
    /// return; a row that leads astray is dropped.
    fn slot_of(&mut self, key: &[u8]) -> Result<Option<u32>> {
        let row = self.keys.get(key).map_err(storage("look up a key"))?.map(|slot| slot.value());
        let Some(slot) = row else { return Ok(None) };
        let named = match self.metadata.get(slot).map_err(storage("look up metadata"))? {
            None => false,
            Some(value) => {
                let place = metadata_place(self.inner.header.uuid, slot);
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

    /// Takes a slot's memory out of every table; gives what was said about it.
    fn clear(&mut self, slot: u32) -> Result<SlotMetadata> {
        self.slots.remove(slot).map_err(storage("empty a slot"))?;
        self.residuals.remove(slot).map_err(storage("empty a slot"))?;
        let place = metadata_place(self.inner.header.uuid, slot);
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
        }
        Ok(metadata)
    }

    /// Writes a slot's memory to every table; gives the bytes it takes.
    fn write(
        &mut self,
        slot: u32,
        record: &SlotRecord<'_>,
        metadata: &SlotMetadata,
        residual: Option<&ResidualRecord<'_>>,
    ) -> Result<SlotSize> {
        let value = record.encode(slot_place(self.inner.header.uuid, slot))?;
        self.slots.insert(slot, value.as_slice()).map_err(storage("write a slot"))?;
        let mut size = SlotSize {
            code: record.code.len() as u32,
            record: value.len() as u32,
            error: record.error.get(),
            ..SlotSize::default()
        };
        match residual {
            Some(residual) => {
                let value = residual.encode(residual_place(self.inner.header.uuid, slot))?;
                self.residuals.insert(slot, value.as_slice()).map_err(storage("write a residual"))?;
                size.residual = row_bytes(value.len());
            }
            None => {
                self.residuals.remove(slot).map_err(storage("write a residual"))?;
            }
        }
        if let Some(key) = &metadata.key {
            self.keys.insert(key.as_slice(), slot).map_err(storage("write a key"))?;
            size.metadata += row_bytes(key.len());
        }
        if *metadata == SlotMetadata::default() {
            self.metadata.remove(slot).map_err(storage("write metadata"))?;
        } else {
            let value = frame::seal(metadata, metadata_place(self.inner.header.uuid, slot))?;
            self.metadata.insert(slot, value.as_slice()).map_err(storage("write metadata"))?;
            size.metadata += row_bytes(value.len());
        }
        Ok(size)
    }

    /// Drops a slot's residual: its memory stays, with the error of its code. None where there is nothing to drop.
    fn drop_residual(&mut self, slot: u32, size: SlotSize) -> Result<Option<(u64, SlotSize)>> {
        let uuid = self.inner.header.uuid;
        // A damaged residual cannot say how good the code is without it: then that is not known.
        let unknown = StoredReal::at_least(f32::INFINITY);
        let error = match self.residuals.remove(slot).map_err(storage("drop a residual"))? {
            None => unknown,
            Some(value) => ResidualRecord::decode(value.value(), residual_place(uuid, slot))
                .map_or(unknown, |residual| residual.error_without),
        };
        let (seq, changed) = {
            let Some(value) = self.slots.get(slot).map_err(storage("look up a slot"))? else {
                return Ok(None);
            };
            let mut record = self.inner.slot_record(slot, value.value())?;
            record.flags.residual = false;
            record.error = error;
            (record.seq, record.encode(slot_place(uuid, slot))?)
        };
        self.slots.insert(slot, changed.as_slice()).map_err(storage("write a slot"))?;
        Ok(Some((seq, SlotSize { residual: 0, error: error.get(), ..size })))
    }

    fn pin(&mut self, slot: u32, pinned: bool) -> Result<()> {
        let changed = {
            let Some(value) = self.slots.get(slot).map_err(storage("look up a slot"))? else { return Ok(()) };
            let mut record = self.inner.slot_record(slot, value.value())?;
            record.flags.pinned = pinned;
            record.encode(slot_place(self.inner.header.uuid, slot))?
        };
        self.slots.insert(slot, changed.as_slice()).map_err(storage("write a slot"))?;
        Ok(())
    }

    fn set_meta(&mut self, name: &str, value: &[u8]) -> Result<()> {
        self.meta.insert(name, value).map_err(storage("write the state"))?;
        Ok(())
    }
}
