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
use crate::error::{Error, Result};
use crate::policy::{Occupant, Planner};
use apcm_format::{StoreState, frame, limits};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

/// Disk space a commit wants to find, besides twice what it writes: room for redb to grow the file in its steps.
const SPACE_MARGIN: u64 = 16 << 20;

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

impl Changes {
    fn none(state: StoreState) -> Self {
        Self {
            occupants: HashMap::new(),
            written: HashMap::new(),
            resized: HashMap::new(),
            reset: HashSet::new(),
            taken: Taken::default(),
            state,
            done: Committed::default(),
        }
    }
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
                Op::Write { content, metadata_len, .. } => {
                    let residual = content.residual.as_ref().map_or(0, |residual| residual.payload.len());
                    content.encoded.code.len() + limits::SLOT_OVERHEAD_MAX + metadata_len + residual + 256
                }
                _ => 256,
            })
            .sum();
        let needed = 2 * bytes as u64 + SPACE_MARGIN;
        match self.medium.available() {
            Some(available) if available < needed => Err(Error::NoSpace { needed, available }),
            _ => Ok(()),
        }
    }

    /// Places and writes the operations and the pending counts; nothing in memory changes.
    fn apply(&self, ops: Vec<Op>) -> Result<Changes> {
        let live = self.live.read();
        let now = self.now();
        // A commit without operations is a flush: with nothing pending it costs nothing.
        if ops.is_empty() && !live.counts().is_dirty() {
            return Ok(Changes::none(live.state()));
        }
        let transaction = self.handle.writable()?.begin_write().map_err(storage("begin a write"))?;
        let changes = {
            let mut draft = Draft {
                inner: self,
                live: &live,
                rows: Rows::open(self, &transaction)?,
                planner: Planner::new(live.bank(), |slot| live.counts().get(slot)),
                state: live.state(),
                done: Committed::default(),
                written: HashMap::new(),
                resized: HashMap::new(),
                now,
            };
            if !ops.is_empty() {
                draft.expire()?;
            }
            ops.into_iter().try_for_each(|op| draft.apply(op))?;
            draft.relieve()?;
            let Draft { mut rows, planner, mut state, done, written, resized, .. } = draft;
            let (occupants, reset) = planner.finish();
            let taken = live.counts().take(&reset);
            state.reads = state.reads.saturating_add(taken.reads);
            taken.chunks().try_for_each(|(number, chunk)| rows.set_counts(number, &chunk))?;
            rows.set_meta(STATE, &frame::seal(&state, meta_place(self.header.uuid, STATE))?)?;
            Changes { occupants, written, resized, reset, taken, state, done }
        };
        // Whatever goes wrong from here on, an error or a panic: it may be durable, or not.
        guarded("commit", || transaction.commit().map_err(storage("commit"))).map_err(
            |error| match error {
                Error::Storage { source, .. } => Error::OutcomeUnknown { source },
                other => other,
            },
        )?;
        Ok(changes)
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
