//! Commits: place purely, write once, and only then change what is in memory.

use super::Inner;
use super::counts::Taken;
use super::draft::Draft;
use super::guard::{guarded, is_fatal, storage};
use super::live::SlotSize;
use super::memory::Committed;
use super::rows::Rows;
use super::tables::{STATE, meta_place};
use super::transaction::Op;
use super::uses::TakenUses;
use crate::error::{Error, Result};
use crate::policy::{Planned, Planner};
use apcm_format::{SlotKind, StoreState, frame};
use redb::WriteTransaction;
use rustc_hash::FxHashMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Disk space a commit wants to find, besides twice what it writes: room for redb to grow the file in its steps.
const SPACE_MARGIN: u64 = 16 << 20;

/// What a commit will change in memory once it is durable.
struct Changes<'o> {
    planned: Planned,
    /// Search vector, size and kind of each slot that was written.
    written: FxHashMap<u32, (&'o [f32], SlotSize, SlotKind)>,
    /// Size of each slot that stays and gave something up.
    resized: FxHashMap<u32, SlotSize>,
    taken: Taken,
    uses: TakenUses,
    state: StoreState,
    /// What to say of each transaction.
    done: Vec<Committed>,
}

impl Changes<'_> {
    fn none(state: StoreState) -> Self {
        Self {
            planned: Planned::default(),
            written: FxHashMap::default(),
            resized: FxHashMap::default(),
            taken: Taken::default(),
            uses: TakenUses::default(),
            state,
            done: Vec::new(),
        }
    }
}

/// Commits. Whatever goes wrong here, an error or a panic: it may be durable, or not.
pub(super) fn durable(transaction: WriteTransaction) -> Result<()> {
    guarded("commit", || transaction.commit().map_err(storage("commit"))).map_err(|error| match error {
        Error::Storage { source, .. } => Error::OutcomeUnknown { source },
        other => other,
    })
}

impl Inner {
    /// Commits a transaction, together with those of other threads that wait for the disk at the same time.
    pub(super) fn commit(&self, ops: Vec<Op>) -> Result<Committed> {
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
        // Somebody else may have had the lock for long, and what expires is counted from when it is written.
        let now = now.saturating_add(u32::try_from(asked.elapsed().as_secs()).unwrap_or(u32::MAX));
        let together = self
            .check_usable()
            .and_then(|()| self.check_space(all.iter().flatten()))
            .and_then(|()| self.poisoning(|| self.apply(all, now)));
        match together {
            Ok(changes) => self.swap_in(changes).into_iter().map(Ok).collect(),
            Err(error) if all.len() == 1 => vec![Err(error)],
            // One of them cannot be done, and took the others with it: each by itself, in the same order.
            Err(error) if !is_fatal(&error) => all
                .iter()
                .map(|ops| {
                    self.check_usable()?;
                    self.check_space(ops.iter())?;
                    let changes = self.poisoning(|| self.apply(std::slice::from_ref(ops), now))?;
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

    pub(super) fn flush(&self) -> Result<()> {
        if self.handle.writable().is_err() {
            return Ok(());
        }
        self.check_usable()?;
        let _writer = self.writer.lock();
        self.check_usable()?;
        let now = self.now();
        let changes = self.poisoning(|| self.apply(&[], now))?;
        self.swap_in(changes);
        Ok(())
    }

    /// Runs a commit; an error of the database leaves a handle that nobody may use again.
    pub(super) fn poisoning<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let result = guarded("commit", run);
        if let Err(error) = &result
            && is_fatal(error)
        {
            self.poisoned.store(true, Ordering::Release);
        }
        result
    }

    fn check_space<'a>(&self, ops: impl Iterator<Item = &'a Op>) -> Result<()> {
        let bytes: usize = ops
            .map(|op| match op {
                Op::Write { content, metadata_len, .. } => content.stored_len() + metadata_len + 256,
                Op::Head(_, head) => 4 * head.states.iter().map(Vec::len).sum::<usize>() + 512,
                Op::Restore { content, .. } => content.stored_len() + content.metadata_len() + 256,
                _ => 256,
            })
            .sum();
        self.check_room(bytes)
    }

    /// Whether the disk has room for so many bytes more.
    pub(super) fn check_room(&self, bytes: usize) -> Result<()> {
        let needed = 2 * bytes as u64 + SPACE_MARGIN;
        match self.medium.available() {
            Some(available) if available < needed => Err(Error::NoSpace { needed, available }),
            _ => Ok(()),
        }
    }

    /// Places and writes the operations of transactions and the pending counts; nothing in memory changes.
    fn apply<'o>(&self, all: &'o [Vec<Op>], now: u32) -> Result<Changes<'o>> {
        let live = self.live.read();
        // A commit without transactions is a flush: with nothing pending it costs nothing.
        if all.is_empty() && !live.counts().is_dirty() && !live.uses().is_dirty() {
            return Ok(Changes::none(live.state()));
        }
        let transaction = self.handle.writable()?.begin_write().map_err(storage("begin a write"))?;
        let changes = {
            let mut draft = Draft {
                inner: self,
                live: &live,
                rows: Rows::open(self, live.uses().rule(), &transaction)?,
                planner: Planner::new(live.bank(), &*live),
                state: live.state(),
                done: Committed::default(),
                written: FxHashMap::default(),
                resized: FxHashMap::default(),
                now,
            };
            if !all.is_empty() {
                draft.expire()?;
            }
            let done = all.iter().map(|ops| draft.transaction(ops)).collect::<Result<Vec<Committed>>>()?;
            let Draft { mut rows, planner, mut state, written, resized, .. } = draft;
            let planned = planner.finish();
            let taken = live.counts().take(&planned.reset);
            let uses = live.uses().take(&planned.ranks);
            state.reads = state.reads.saturating_add(taken.reads);
            taken.chunks().try_for_each(|(number, chunk)| rows.set_counts(number, &chunk))?;
            uses.chunks().try_for_each(|(number, chunk)| rows.set_uses(number, &chunk))?;
            rows.set_meta(STATE, &frame::seal(&state, meta_place(self.header.uuid, STATE))?)?;
            Changes { planned, written, resized, taken, uses, state, done }
        };
        durable(transaction)?;
        Ok(changes)
    }

    /// Makes memory agree with the disk. Nothing here can fail.
    fn swap_in(&self, changes: Changes<'_>) -> Vec<Committed> {
        let Changes { planned, mut written, resized, taken, uses, state, done } = changes;
        let Planned { occupants, reset, .. } = planned;
        let mut live = self.live.write();
        let slots = occupants.iter().map(|&(slot, _)| slot);
        let touched = live.changing(slots.chain(taken.slots()).chain(uses.slots()));
        for (slot, occupant) in occupants {
            match (occupant, written.remove(&slot)) {
                (Some(occupant), Some((search, size, kind))) => {
                    live.fill(slot, occupant, Some(search), size, kind);
                }
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
        live.uses_mut().settle(uses, &reset, high_water);
        live.changed(touched);
        done
    }
}
