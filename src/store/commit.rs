//! Commits: place purely, write once, and only then change what is in memory.

use super::Inner;
use super::counts::Taken;
use super::draft::Draft;
use super::guard::{guarded, is_fatal, storage};
use super::live::SlotSize;
use super::memory::Committed;
use super::read::Snapshot;
use super::rows::Rows;
use super::stream::bytes_beside;
use super::tables::{STATE, meta_place};
use super::transaction::Op;
use super::uses::TakenUses;
use crate::error::{Error, Result};
use crate::policy::{Planned, Planner};
use apcm_format::{SlotKind, StoreState, frame};
use redb::WriteTransaction;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Bytes of the database's pages.
const PAGE: u64 = 4_096;
/// What the database takes for itself.
const FILE_MIN: u64 = 256 << 10;
/// Pages that any commit may write: the ways to one leaf of each table, and the database's own lists.
const PAGES_A_COMMIT: u64 = 48;
/// Pages that an operation may write besides: a leaf, or two where one is split, in each table that it touches.
const PAGES_AN_OPERATION: u64 = 6;

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
    /// The database with them.
    snapshot: Option<Arc<Snapshot>>,
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
            snapshot: None,
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
        let chunks = {
            let live = self.live.read();
            live.counts().dirty_chunks() + live.uses().dirty_chunks()
        };
        // On a full disk the counts stay in memory, and the store stays usable: a write that fails would end that.
        if chunks > 0 {
            self.check_room(0, chunks as u64)?;
        }
        // Nothing expires by a flush, so the time does not matter, and the clock, which is the caller's own, cannot fail it.
        let changes = self.poisoning(|| self.apply(&[], 0))?;
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

    /// Whether the disk has room for what these operations may write. Those that only take away are tried on a full disk too:
    /// the database has free pages of its own more often than not, and they are how a full store gets room again.
    fn check_space<'a>(&self, ops: impl Iterator<Item = &'a Op>) -> Result<()> {
        let (mut bytes, mut operations, mut adds) = (0, 0, false);
        for op in ops {
            operations += 1;
            let more = match op {
                Op::Write { content, metadata_len, .. } => content.stored_len() + metadata_len + 256,
                Op::Head(_, head) => bytes_beside(head) as usize + 512,
                Op::Restore { content, .. } => content.stored_len() + content.metadata_len() + 256,
                Op::RemoveKey(_) | Op::RemoveId(_) | Op::Pin(..) | Op::Expect(_) => continue,
                Op::Inherit(_) | Op::Position(..) | Op::Source(..) => 256,
            };
            bytes += more;
            adds = true;
        }
        if adds { self.check_room(bytes, operations) } else { Ok(()) }
    }

    /// Whether the disk has room for so many bytes more, of so many operations: as much as the commit may write at most.
    /// Twice the bytes, because a leaf that is half full takes as much as a full one.
    pub(super) fn check_room(&self, bytes: usize, operations: u64) -> Result<()> {
        // However many operations there are, no page is written twice.
        // A file that was renamed or removed meanwhile cannot say how long it is, and is written to all the same.
        let pages =
            (self.medium.len().unwrap_or(u64::MAX) / PAGE).min(PAGES_AN_OPERATION.saturating_mul(operations));
        let needed = 2 * bytes as u64 + (pages + PAGES_A_COMMIT) * PAGE;
        match self.medium.available() {
            // What is free inside the file is asked only where the disk alone has too little.
            Some(available)
                if available < needed && available.saturating_add(self.free_inside()) < needed =>
            {
                Err(Error::NoSpace { needed, available })
            }
            _ => Ok(()),
        }
    }

    /// Bytes of the file that are certainly free: half of what it takes on the disk beyond three times its contents. A file
    /// that is written to for long takes 1.6 times those.
    fn free_inside(&self) -> u64 {
        let contents = self.live.read().stored() + self.codec_bytes + FILE_MIN;
        self.medium.allocated().map_or(0, |allocated| allocated.saturating_sub(3 * contents) / 2)
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
                stored: live.stored(),
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
        let mut live = self.live.write();
        let slots = occupants.iter().map(|&(slot, _)| slot);
        let changed = slots.chain(resized.keys().copied()).chain(taken.slots()).chain(uses.slots());
        let touched = live.changing(changed);
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
        if let Some(snapshot) = snapshot {
            live.publish(snapshot);
        }
        live.counts_mut().0.settle(taken, &reset);
        live.uses_mut().settle(uses, &reset);
        live.changed(touched);
        done
    }
}
