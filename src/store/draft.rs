//! A commit being put together: every operation is placed and its rows written; nothing in memory changes.

use super::Inner;
use super::live::{Live, SlotSize};
use super::memory::{Committed, Evicted};
use super::rows::Rows;
use super::stream::bytes_beside;
use super::tables::meta_place;
use super::transaction::{Content, Expiry, Op};
use crate::error::{Error, Result};
use crate::policy::{AllPinned, Held, Occupant, OverBudget, Placement, Planner, Relief, relieve};
use apcm_format::{
    MemoryId, ResidualRecord, SlotFlags, SlotKind, SlotMetadata, SlotRecord, StoreState, StoredReal,
    StreamHead, frame,
    stream::{part_key, part_of_key},
};
use rustc_hash::FxHashMap;

/// Placements, rows and what will be said of them.
pub(super) struct Draft<'a, 'o> {
    pub(super) inner: &'a Inner,
    pub(super) live: &'a Live,
    pub(super) rows: Rows<'a>,
    pub(super) planner: Planner<'a, Live>,
    pub(super) state: StoreState,
    pub(super) done: Committed,
    /// Search vector, size and kind of each slot that was written.
    pub(super) written: FxHashMap<u32, (&'o [f32], SlotSize, SlotKind)>,
    /// Size of each slot that stays and gave something up.
    pub(super) resized: FxHashMap<u32, SlotSize>,
    pub(super) now: u32,
}

impl<'o> Draft<'_, 'o> {
    /// Expired memories leave with the first write that comes, so that their slots are free for it.
    pub(super) fn expire(&mut self) -> Result<()> {
        for slot in self.live.bank().expired(self.now) {
            self.rows.clear(slot)?;
            self.planner.remove(slot);
        }
        Ok(())
    }

    /// Does the operations of one transaction; gives what to say of it.
    pub(super) fn transaction(&mut self, ops: &'o [Op]) -> Result<Committed> {
        self.planner.next_transaction();
        ops.iter().try_for_each(|op| self.apply(op))?;
        self.relieve()?;
        Ok(std::mem::take(&mut self.done))
    }

    fn apply(&mut self, op: &'o Op) -> Result<()> {
        match op {
            Op::Write { content, pinned, expiry, .. } => self.write(content, *pinned, *expiry),
            &Op::Restore { ref content, slot, occupant, written_at } => {
                if self.planner.get(slot).is_some() {
                    self.rows.clear(slot)?;
                    self.planner.remove(slot);
                }
                self.planner.restore(slot, occupant);
                self.state.next_seq = self.state.next_seq.max(occupant.seq + 1);
                self.fill(slot, occupant, written_at, content)
            }
            Op::Inherit(other) => {
                let next_seq = self.state.next_seq.max(other.next_seq);
                self.state = StoreState { next_seq, ..*other };
                Ok(())
            }
            Op::RemoveKey(key) => match self.rows.slot_of(key)? {
                Some(slot) if self.planner.get(slot).is_some() => self.remove(slot),
                _ => Ok(()),
            },
            &Op::RemoveId(id) => {
                self.check_there(id)?;
                self.remove(id.slot)
            }
            &Op::Pin(id, pinned) => {
                self.check_there(id)?;
                self.rows.pin(id.slot, pinned)?;
                self.planner.pin(id.slot, pinned);
                Ok(())
            }
            &Op::Expect(id) => self.check_there(id),
            Op::Head(name, head) => self.head(name, head),
            Op::Position(name, position) => {
                let value = frame::seal(position, meta_place(self.inner.header.uuid, name))?;
                self.rows.set_meta(name, &value)
            }
        }
    }

    /// Drops residuals and memories until everything fits into the budget, if there is one.
    fn relieve(&mut self) -> Result<()> {
        let Some(budget) = self.state.byte_budget else { return Ok(()) };
        // A cheap upper bound first: only a store near its budget is looked at slot by slot.
        let written: u64 = self.written.values().map(|(_, size, _)| size.total()).sum();
        let grown =
            |(&slot, size): (&u32, &SlotSize)| size.total().saturating_sub(self.live.size(slot).total());
        let new = written + self.resized.iter().map(grown).sum::<u64>();
        if self.live.stored() + new <= budget {
            return Ok(());
        }
        let held = self
            .planner
            .occupied()
            .map(|(slot, occupant)| {
                let size = self.size(slot);
                Held {
                    slot,
                    rank: self.planner.rank(slot),
                    seq: occupant.seq,
                    residual: u64::from(size.residual),
                    rest: size.total() - u64::from(size.residual),
                    may_give: !occupant.pinned && !occupant.damaged,
                    new: self.planner.is_fresh(slot),
                }
            })
            .collect();
        let over = |OverBudget { needed }| Error::OverBudget { needed, budget };
        for relief in relieve(held, budget).map_err(over)? {
            match relief {
                Relief::Residual(slot) => self.drop_residual(slot)?,
                Relief::Memory(slot) => {
                    if let Some(victim) = self.planner.get(slot) {
                        let count = self.planner.count(slot);
                        self.evicted(slot, victim, count)?;
                        self.planner.remove(slot);
                        self.written.remove(&slot);
                        self.resized.remove(&slot);
                    }
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, content: &'o Content, pinned: bool, expiry: Option<Expiry>) -> Result<()> {
        let seq = self.state.next_seq;
        self.state.next_seq += 1;
        let expires_at = expiry.map(|expiry| expiry.at(self.now));
        let mut occupant = Occupant { seq, pinned, damaged: false, expires_at };
        let old_slot = match &content.metadata.key {
            Some(key) => self.rows.slot_of(key)?,
            None => None,
        };
        let slot = match old_slot.and_then(|slot| Some((slot, self.planner.get(slot)?))) {
            Some((slot, old)) => {
                occupant.pinned |= old.pinned;
                occupant.expires_at = expires_at.or(old.expires_at);
                self.planner.replace(slot, occupant);
                slot
            }
            None => {
                let capacity = self.inner.header.capacity;
                let placement =
                    self.planner.place(occupant).map_err(|AllPinned| Error::AllPinned { capacity })?;
                if let Placement::Evict { slot, victim, count } = placement {
                    self.evicted(slot, victim, count)?;
                }
                placement.slot()
            }
        };
        self.fill(slot, occupant, self.now, content)
    }

    /// Writes a memory's rows into a slot that was placed.
    fn fill(&mut self, slot: u32, occupant: Occupant, written_at: u32, content: &'o Content) -> Result<()> {
        let Content { encoded, residual, search, metadata, kind } = content;
        let error_without = StoredReal::at_least(encoded.error);
        let error = residual.as_ref().map_or(error_without, |residual| StoredReal::at_least(residual.error));
        let record = SlotRecord {
            kind: *kind,
            flags: SlotFlags {
                pinned: occupant.pinned,
                without_predictor: encoded.without_predictor,
                residual: residual.is_some(),
            },
            seq: occupant.seq,
            written_at,
            expires_at: occupant.expires_at,
            last_access: None,
            policy_word: None,
            error,
            norm: StoredReal::at_least(encoded.norm),
            code: &encoded.code,
        };
        let kept = residual.as_ref().map(|residual| ResidualRecord {
            form: residual.form,
            seq: occupant.seq,
            error_without,
            payload: &residual.payload,
        });
        let size = self.rows.write(slot, &record, metadata, kept.as_ref())?;
        self.written.insert(slot, (search.as_slice(), size, *kind));
        self.resized.remove(&slot);
        self.done.ids.push(MemoryId { slot, seq: occupant.seq });
        self.done.errors.push(error.get());
        Ok(())
    }

    fn remove(&mut self, slot: u32) -> Result<()> {
        self.rows.clear(slot)?;
        self.planner.remove(slot);
        self.written.remove(&slot);
        self.resized.remove(&slot);
        self.done.removed += 1;
        Ok(())
    }

    /// Clears the rows of a victim and notes that it left.
    fn evicted(&mut self, slot: u32, victim: Occupant, count: u32) -> Result<()> {
        let SlotMetadata { key, values } = self.rows.clear(slot)?;
        self.state.evictions = self.state.evictions.saturating_add(1);
        self.state.evictions_never_read =
            self.state.evictions_never_read.saturating_add(u64::from(count == 0));
        let id = MemoryId { slot, seq: victim.seq };
        let key = key.filter(|key| part_of_key(key).is_none());
        self.done.evicted.push(Evicted { id, key, metadata: values, count });
        Ok(())
    }

    /// Keeps what is needed to append to a stream; its bytes count as those of the part under way.
    fn head(&mut self, name: &str, head: &StreamHead) -> Result<()> {
        if let Some(old) = self.rows.head(name)?
            && let Some(slot) = self.rows.slot_of(&part_key(name, old.first))?
            && !self.written.contains_key(&slot)
        {
            let size = self.size(slot);
            let metadata = size.metadata.saturating_sub(bytes_beside(&old));
            self.resized.insert(slot, SlotSize { metadata, ..size });
        }
        self.rows.set_head(name, head)?;
        if let Some(slot) = self.rows.slot_of(&part_key(name, head.first))? {
            let mut size = self.size(slot);
            size.metadata = size.metadata.saturating_add(bytes_beside(head));
            match self.written.get_mut(&slot) {
                Some((_, old, _)) => *old = size,
                None => drop(self.resized.insert(slot, size)),
            }
        }
        Ok(())
    }

    fn drop_residual(&mut self, slot: u32) -> Result<()> {
        let Some((seq, size)) = self.rows.drop_residual(slot, self.size(slot))? else { return Ok(()) };
        let id = MemoryId { slot, seq };
        if let Some(at) = self.done.ids.iter().position(|&written| written == id) {
            self.done.errors[at] = size.error;
        }
        match self.written.get_mut(&slot) {
            Some((_, old, _)) => *old = size,
            None => {
                self.resized.insert(slot, size);
            }
        }
        self.state.residuals_dropped = self.state.residuals_dropped.saturating_add(1);
        self.done.residuals_dropped.push(id);
        Ok(())
    }

    fn size(&self, slot: u32) -> SlotSize {
        let changed = self.written.get(&slot).map(|(_, size, _)| size).or_else(|| self.resized.get(&slot));
        changed.copied().unwrap_or_else(|| self.live.size(slot))
    }

    fn check_there(&self, id: MemoryId) -> Result<()> {
        match self.planner.get(id.slot) {
            Some(occupant) if occupant.seq == id.seq => Ok(()),
            _ => Err(Error::NotFound { id }),
        }
    }
}
