//! Commits: place purely, write once, and only then change what is in memory. Other writes outside a
//! transaction (`policy`, `tree`, the last step of a recode, repairs) call [`durable`] too, and owe memory the
//! same order.

use super::plan::CommitPlan;
use super::tables::WriteTables;
use crate::error::{Error, Result};
use crate::policy::{Planned, Planner};
use crate::store::engine::Engine;
use crate::store::file::{STATE, Snapshot, guarded, is_fatal, meta_place, storage};
use crate::store::outcome::Committed;
use crate::store::resident::{SlotSize, TakenCounts, TakenUses};
use crate::store::staged::Op;
use crate::store::store::Store;
use apcm_format::{SlotKind, StoreState, frame};
use redb::WriteTransaction;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::time::Instant;

/// Changes of memory, to apply once the commit is durable.
struct Changes<'o> {
    planned: Planned,
    /// Search vector, size and kind of each slot that was written.
    written: FxHashMap<u32, (&'o [f32], SlotSize, SlotKind)>,
    /// Size of each slot that stays and gave something up.
    resized: FxHashMap<u32, SlotSize>,
    taken: TakenCounts,
    uses: TakenUses,
    state: StoreState,
    /// The result of each transaction.
    done: Vec<Committed>,
    /// The database with them.
    snapshot: Option<Arc<Snapshot>>,
}

impl Changes<'_> {
    fn none(state: StoreState) -> Self {
        Self {
            planned: Planned::default(),
            written: FxHashMap::default(),
            resized: FxHashMap::default(),
            taken: TakenCounts::default(),
            uses: TakenUses::default(),
            state,
            done: Vec::new(),
            snapshot: None,
        }
    }
}

/// Commits. Whatever goes wrong here, an error or a panic: it may be durable, or not.
pub(crate) fn durable(transaction: WriteTransaction) -> Result<()> {
    guarded("commit", || transaction.commit().map_err(storage("commit"))).map_err(|error| match error {
        Error::Storage { source, .. } => Error::OutcomeUnknown { source },
        other => other,
    })
}

impl Store {
    /// Brings access counts to the disk.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage), [`OutcomeUnknown`](Error::OutcomeUnknown). Nothing to do on a read-only
    /// handle.
    pub fn flush(&self) -> Result<()> {
        self.engine.flush()
    }
}

impl Engine {
    /// Commits a transaction, together with those of other threads that wait for the disk at the same time.
    pub(crate) fn commit(&self, ops: Vec<Op>) -> Result<Committed> {
        self.check_usable()?;
        self.handle.writable()?;
        if ops.is_empty() {
            return Ok(Committed::default());
        }
        // Asked by everybody for themselves: a clock that panics is one transaction's.
        let now = self.now();
        self.group.commit(ops, |all| self.commit_all(all, now))
    }

    /// Commits transactions one after the other, in one of the database's: one answer for each.
    fn commit_all(&self, all: &[Vec<Op>], now: u32) -> Vec<Result<Committed>> {
        let asked = Instant::now();
        let _writer = self.writer.lock();
        // Another thread may have held the lock for long; expiry counts from the time of the write.
        let now = now.saturating_add(u32::try_from(asked.elapsed().as_secs()).unwrap_or(u32::MAX));
        let together = self
            .check_usable()
            .and_then(|()| self.check_space(all.iter().flatten()))
            .and_then(|()| self.poisoning("commit", || self.apply(all, now)));
        match together {
            Ok(changes) => self.swap_in(changes).into_iter().map(Ok).collect(),
            Err(error) if all.len() == 1 => vec![Err(error)],
            // One of them cannot be done, and took the others with it: each by itself, in the same order.
            Err(error) if !is_fatal(&error) => all
                .iter()
                .map(|ops| {
                    self.check_usable()?;
                    self.check_space(ops.iter())?;
                    let changes = self.poisoning("commit", || self.apply(std::slice::from_ref(ops), now))?;
                    Ok(self.swap_in(changes).pop().unwrap_or_default())
                })
                .collect(),
            Err(error) => {
                let source = format!("{error}, in a commit of {} transactions", all.len());
                let shared = |_| match &error {
                    Error::OutcomeUnknown { .. } => Error::OutcomeUnknown { source: source.clone().into() },
                    _ => Error::Storage { during: "commit", source: source.clone().into() },
                };
                all.iter().map(shared).map(Err).collect()
            }
        }
    }

    pub(crate) fn flush(&self) -> Result<()> {
        if self.handle.writable().is_err() {
            return Ok(());
        }
        self.check_usable()?;
        let _writer = self.writer.lock();
        self.check_usable()?;
        let chunks = {
            let resident = self.resident.read();
            resident.counts().dirty_chunks() + resident.uses().dirty_chunks()
        };
        // On a full disk the counts stay in memory, and the store stays usable: a write that fails would end
        // that.
        if chunks > 0 {
            self.check_room(0, chunks as u64)?;
        }
        // Nothing expires by a flush, so the time does not matter, and the clock, which is the caller's own,
        // cannot fail it.
        let changes = self.poisoning("commit", || self.apply(&[], 0))?;
        self.swap_in(changes);
        Ok(())
    }

    /// Places and writes the operations of transactions and the pending counts; nothing in memory changes.
    fn apply<'o>(&self, all: &'o [Vec<Op>], now: u32) -> Result<Changes<'o>> {
        let resident = self.resident.read();
        // A commit without transactions is a flush: with nothing pending it costs nothing.
        if all.is_empty() && !resident.counts().is_dirty() && !resident.uses().is_dirty() {
            return Ok(Changes::none(resident.state()));
        }
        let transaction = self.handle.writable()?.begin_write().map_err(storage("begin a write"))?;
        let changes = {
            let mut plan = CommitPlan {
                engine: self,
                resident: &resident,
                tables: WriteTables::open(self, resident.uses().rule(), &transaction)?,
                planner: Planner::new(resident.bank(), &*resident),
                state: resident.state(),
                done: Committed::default(),
                written: FxHashMap::default(),
                resized: FxHashMap::default(),
                stored: resident.stored(),
                now,
            };
            if !all.is_empty() {
                plan.expire()?;
            }
            let done = all.iter().map(|ops| plan.transaction(ops)).collect::<Result<Vec<Committed>>>()?;
            let CommitPlan { mut tables, planner, mut state, written, resized, .. } = plan;
            let planned = planner.finish();
            let taken = resident.counts().take(&planned.reset);
            let uses = resident.uses().take(&planned.ranks);
            state.reads = state.reads.saturating_add(taken.reads);
            taken.chunks().try_for_each(|(number, chunk)| tables.set_counts(number, &chunk))?;
            uses.chunks().try_for_each(|(number, chunk)| tables.set_uses(number, &chunk))?;
            tables.set_meta(STATE, &frame::seal(&state, meta_place(self.header.uuid, STATE))?)?;
            Changes { planned, written, resized, taken, uses, state, done, snapshot: None }
        };
        durable(transaction)?;
        // Readers go on with what was there before until memory agrees with what is there now.
        let snapshot =
            Snapshot::of(&self.handle).map_err(|error| Error::OutcomeUnknown { source: error.into() })?;
        Ok(Changes { snapshot: Some(snapshot), ..changes })
    }

    /// Makes memory agree with the disk. Nothing here can fail.
    fn swap_in(&self, changes: Changes<'_>) -> Vec<Committed> {
        let Changes { planned, mut written, resized, taken, uses, state, done, snapshot } = changes;
        let Planned { occupants, reset, .. } = planned;
        let mut resident = self.resident.write();
        let slots = occupants.iter().map(|&(slot, _)| slot);
        let changed = slots.chain(resized.keys().copied()).chain(taken.slots()).chain(uses.slots());
        let touched = resident.changing(changed);
        for (slot, occupant) in occupants {
            match (occupant, written.remove(&slot)) {
                (Some(occupant), Some((search, size, kind))) => {
                    resident.fill(slot, occupant, Some(search), size, kind);
                }
                (Some(occupant), None) => resident.update(slot, occupant),
                (None, _) => resident.empty(slot),
            }
        }
        for (slot, size) in resized {
            resident.resize(slot, |old| *old = size);
        }
        resident.set_state(state);
        if let Some(snapshot) = snapshot {
            resident.publish(snapshot);
        }
        resident.counts_mut().0.settle(taken, &reset);
        resident.uses_mut().settle(uses, &reset);
        resident.changed(touched);
        done
    }
}
