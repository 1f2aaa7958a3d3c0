//! A commit being put together: every operation is placed and its rows written; nothing in memory changes.

use super::tables::WriteTables;
use crate::error::{Error, Result};
use crate::policy::{AllPinned, Occupant, Placement, Planner};
use crate::store::engine::Engine;
use crate::store::file::meta_place;
use crate::store::outcome::{Committed, Evicted};
use crate::store::resident::{Resident, SlotSize, bytes_beside};
use crate::store::staged::{Content, Expected, Expiry, Op, changed};
use apcm_format::{
    MemoryId, ResidualRecord, SlotFlags, SlotKind, SlotMetadata, SlotRecord, StoreState, StoredReal,
    StreamHead, frame,
    stream::{part_key, part_of_key},
};
use rustc_hash::FxHashMap;

/// Placements, written rows, and the results to return.
pub(crate) struct CommitPlan<'a, 'o> {
    pub(crate) engine: &'a Engine,
    pub(crate) resident: &'a Resident,
    pub(crate) tables: WriteTables<'a>,
    pub(crate) planner: Planner<'a, Resident>,
    pub(crate) state: StoreState,
    pub(crate) done: Committed,
    /// Search vector, size and kind of each slot that was written.
    pub(crate) written: FxHashMap<u32, (&'o [f32], SlotSize, SlotKind)>,
    /// Size of each slot that stays and gave something up, or was emptied.
    pub(crate) resized: FxHashMap<u32, SlotSize>,
    /// Bytes of everything stored for all slots together, with what the commit has changed.
    pub(crate) stored: u64,
    pub(crate) now: u32,
}

impl<'o> CommitPlan<'_, 'o> {
    /// Expired memories leave with the first write that comes, so that their slots are free for it.
    pub(crate) fn expire(&mut self) -> Result<()> {
        for slot in self.resident.bank().expired(self.now) {
            self.tables.clear(slot)?;
            self.planner.remove(slot);
            self.resize(slot, SlotSize::default());
        }
        Ok(())
    }

    /// Does the operations of one transaction; gives what to say of it.
    pub(crate) fn transaction(&mut self, ops: &'o [Op]) -> Result<Committed> {
        self.planner.next_transaction();
        ops.iter().try_for_each(|op| self.apply(op))?;
        self.relieve()?;
        Ok(std::mem::take(&mut self.done))
    }

    fn apply(&mut self, op: &'o Op) -> Result<()> {
        match op {
            Op::Write { content, pinned, expiry, .. } => self.write(content, *pinned, *expiry),
            &Op::Restore { ref content, slot, occupant, written_at, ref source } => {
                if self.planner.get(slot).is_some() {
                    self.tables.clear(slot)?;
                    self.planner.remove(slot);
                    self.resize(slot, SlotSize::default());
                }
                self.planner.restore(slot, occupant);
                self.state.next_seq = self.state.next_seq.max(occupant.seq + 1);
                if let Some(source) = source {
                    self.tables.set_source(slot, source)?;
                }
                self.fill(slot, occupant, written_at, content)
            }
            Op::Inherit(other) => {
                let next_seq = self.state.next_seq.max(other.next_seq);
                self.state = StoreState { next_seq, ..*other };
                Ok(())
            }
            Op::RemoveKey(key) => match self.tables.slot_of(key)? {
                Some(slot) if self.planner.get(slot).is_some() => self.remove(slot),
                _ => Ok(()),
            },
            &Op::RemoveId(id) => {
                self.check_there(id)?;
                self.remove(id.slot)
            }
            &Op::Pin(id, pinned) => {
                self.check_there(id)?;
                self.tables.pin(id.slot, pinned)?;
                self.planner.pin(id.slot, pinned);
                Ok(())
            }
            Op::Expect(expected) => self.check_stream(expected),
            Op::Head(name, head) => self.head(name, head),
            Op::Position(name, position) => {
                let value = frame::seal(position, meta_place(self.engine.header.uuid, name))?;
                self.tables.set_meta(name, &value)
            }
            Op::Source(name, source) => {
                let value = frame::seal(source, meta_place(self.engine.header.uuid, name))?;
                self.tables.set_meta(name, &value)
            }
        }
    }

    /// Drops residuals and memories until everything fits into the budget, if there is one: residuals first,
    /// the lowest rank first among either, the oldest among equals. What the transaction itself has written
    /// comes after everything that was there before, or a newcomer that could not have been read yet would
    /// always be the first to pay.
    ///
    /// Cost: `O(log n)` for each of them.
    fn relieve(&mut self) -> Result<()> {
        let Some(budget) = self.state.byte_budget else { return Ok(()) };
        if self.stored <= budget {
            return Ok(());
        }
        while self.stored > budget
            && let Some(slot) = self.planner.next_residual()
        {
            self.drop_residual(slot)?;
        }
        if self.stored > budget {
            for slot in self.planner.fresh() {
                if self.stored > budget {
                    self.drop_residual(slot)?;
                }
            }
        }
        while self.stored > budget {
            let Some((slot, victim)) = self.planner.next_victim() else {
                return Err(Error::OverBudget { needed: self.stored, budget });
            };
            let count = self.planner.count(slot);
            self.evicted(slot, victim, count)?;
            self.planner.remove(slot);
        }
        Ok(())
    }

    fn write(&mut self, content: &'o Content, pinned: bool, expiry: Option<Expiry>) -> Result<()> {
        let seq = self.state.next_seq;
        self.state.next_seq += 1;
        let expires_at = expiry.map(|expiry| expiry.at(self.now));
        let mut occupant = Occupant { seq, pinned, damaged: false, expires_at, open: false };
        let old_slot = match &content.key {
            Some(key) => self.tables.slot_of(key)?,
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
                let capacity = self.engine.header.capacity;
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
        let Content { encoded, residual, search, key, metadata, kind } = content;
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
        let size = self.tables.write(slot, &record, key.as_deref(), metadata.as_ref(), kept.as_ref())?;
        self.stored = self.stored.saturating_sub(self.size(slot).total()).saturating_add(size.total());
        self.written.insert(slot, (search.values(), size, *kind));
        self.resized.remove(&slot);
        self.done.ids.push(MemoryId { slot, seq: occupant.seq });
        self.done.errors.push(error.get());
        Ok(())
    }

    fn remove(&mut self, slot: u32) -> Result<()> {
        self.tables.clear(slot)?;
        self.planner.remove(slot);
        self.resize(slot, SlotSize::default());
        self.done.removed += 1;
        Ok(())
    }

    /// Clears the rows of a victim and notes that it left.
    fn evicted(&mut self, slot: u32, victim: Occupant, count: u32) -> Result<()> {
        let SlotMetadata { key, values } = self.tables.clear(slot)?;
        self.resize(slot, SlotSize::default());
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
        if let Some(old) = self.tables.head(name)?
            && let Some(slot) = self.tables.slot_of(&part_key(name, old.first))?
            && !self.written.contains_key(&slot)
        {
            let size = self.size(slot);
            let metadata = size.metadata.saturating_sub(bytes_beside(&old));
            self.resize(slot, SlotSize { metadata, ..size });
            self.planner.set_open(slot, false);
        }
        self.tables.set_head(name, head)?;
        if let Some(slot) = self.tables.slot_of(&part_key(name, head.first))? {
            let size = self.size(slot);
            self.resize(
                slot,
                SlotSize { metadata: size.metadata.saturating_add(bytes_beside(head)), ..size },
            );
            self.planner.set_open(slot, !head.states.is_empty());
        }
        Ok(())
    }

    fn drop_residual(&mut self, slot: u32) -> Result<()> {
        if self.size(slot).residual == 0 {
            return Ok(());
        }
        let Some((seq, size)) = self.tables.drop_residual(slot, self.size(slot))? else { return Ok(()) };
        let id = MemoryId { slot, seq };
        if let Some(at) = self.done.ids.iter().position(|&written| written == id) {
            self.done.errors[at] = size.error;
        }
        self.resize(slot, size);
        self.state.residuals_dropped = self.state.residuals_dropped.saturating_add(1);
        self.done.residuals_dropped.push(id);
        Ok(())
    }

    /// Notes what a slot takes from now on; nothing where it was emptied.
    fn resize(&mut self, slot: u32, size: SlotSize) {
        self.stored = self.stored.saturating_sub(self.size(slot).total()).saturating_add(size.total());
        if size.record == 0 {
            self.written.remove(&slot);
        }
        match self.written.get_mut(&slot) {
            Some((_, old, _)) => *old = size,
            None => drop(self.resized.insert(slot, size)),
        }
    }

    fn size(&self, slot: u32) -> SlotSize {
        let changed = self.written.get(&slot).map(|(_, size, _)| size).or_else(|| self.resized.get(&slot));
        changed.copied().unwrap_or_else(|| self.resident.size(slot))
    }

    /// Whether a stream is as an append has read it: it computes with no lock held, and others may have been
    /// faster.
    fn check_stream(&mut self, expected: &Expected) -> Result<()> {
        let Expected { name, last, tree } = expected;
        let found = self.tables.last_part(name)?;
        let same = match (found, *last) {
            (None, None) => true,
            // A damaged last part cannot say which write filled it; no later part may have begun.
            (found, Some((expected, None))) => found.is_none_or(|(first, _)| first <= expected),
            (Some((first, slot)), Some((expected, Some(id)))) => {
                let there = self.planner.get(slot).map(|occupant| MemoryId { slot, seq: occupant.seq });
                first == expected && there == Some(id)
            }
            _ => false,
        };
        if same && self.engine.trees.generation() == *tree { Ok(()) } else { Err(changed()) }
    }

    fn check_there(&self, id: MemoryId) -> Result<()> {
        match self.planner.get(id.slot) {
            Some(occupant) if occupant.seq == id.seq => Ok(()),
            _ => Err(Error::NotFound { id }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Fidelity, PlainCodec};
    use crate::record::Record;
    use crate::storage::InMemoryBackend;
    use crate::store::{Attributes, Store};
    use proptest::prelude::*;

    /// The bytes of a slot, for the rule.
    #[derive(Debug, Clone, Copy)]
    struct Held {
        slot: u32,
        rank: u64,
        seq: u64,
        residual: u64,
        rest: u64,
        may_give: bool,
        new: bool,
    }

    /// The rule as it is stated, by looking at every slot: residuals and memories to give up, in order; or
    /// none, if that is not enough.
    fn plain(mut held: Vec<Held>, budget: u64) -> Option<(Vec<u32>, Vec<u32>)> {
        let mut total: u64 = held.iter().map(|held| held.residual + held.rest).sum();
        held.retain(|held| held.may_give);
        held.sort_by_key(|held| (held.new, held.rank, held.seq));
        let (mut residuals, mut memories) = (Vec::new(), Vec::new());
        for held in held.iter().filter(|held| held.residual > 0) {
            if total > budget {
                total -= held.residual;
                residuals.push(held.slot);
            }
        }
        for held in held.iter().filter(|held| !held.new) {
            if total > budget {
                total -= held.rest;
                memories.push(held.slot);
            }
        }
        (total <= budget).then_some((residuals, memories))
    }

    fn held(store: &Store, new: bool) -> Vec<Held> {
        let resident = store.engine.resident.read();
        let held = resident.bank().iter().map(|(slot, occupant)| {
            let size = resident.size(slot);
            Held {
                slot,
                rank: resident.counts().get(slot).into(),
                seq: occupant.seq,
                residual: size.residual.into(),
                rest: size.total() - u64::from(size.residual),
                may_give: occupant.may_go(),
                new,
            }
        });
        held.collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn what_leaves_over_a_budget_is_what_the_plain_rule_says(
            steps in prop::collection::vec((0_u8..4, 0_usize..8, prop::bool::weighted(0.1), 0_u32..1_000),
                1..40),
            budget in 300_u64..1_500,
        ) {
            let codec = || PlainCodec::new(&[4], 1).unwrap();
            let builder = || Store::builder().capacity(40).clock(|| 1_000);
            let store = builder().byte_budget(budget).create_on(InMemoryBackend::new(), codec()).unwrap();
            for (kind, read, pinned, value) in steps {
                let ids: Vec<MemoryId> = store.iter().unwrap().map(|entry| entry.unwrap().id()).collect();
                if kind == 3 && !ids.is_empty() {
                    store.get_id(ids[read % ids.len()]).unwrap();
                    continue;
                }
                let record = Record::vector(vec![1.0, value as f32 * 0.37, 0.5, -(value as f32)]).unwrap();
                let tier = [Fidelity::Compact, Fidelity::Lossless,
                    Fidelity::Bounded(1e-3)][usize::from(kind % 3)];
                let mut attributes = Attributes::default().with_fidelity(tier);
                if pinned {
                    attributes = attributes.pinned();
                }
                // Its bytes, in a store of its own.
                let alone = builder().create_on(InMemoryBackend::new(), codec()).unwrap();
                alone.insert_with(&record, attributes.clone()).unwrap();
                let mut all = held(&store, false);
                let new_slot = (0..40).find(|slot| all.iter().all(|held| held.slot != *slot)).unwrap();
                all.push(Held { slot: new_slot, rank: 0, seq: u64::MAX, ..held(&alone, true)[0] });
                match (plain(all, budget), store.insert_with(&record, attributes)) {
                    (None, Err(Error::OverBudget { .. })) => {}
                    (Some((residuals, memories)), Ok(put)) => {
                        let slots = |ids: &[MemoryId]| ids.iter().map(|id| id.slot).collect::<Vec<u32>>();
                        prop_assert_eq!(slots(&put.residuals_dropped), residuals);
                        prop_assert_eq!(put.evicted.iter().map(|evicted| evicted.id.slot)
                            .collect::<Vec<u32>>(), memories);
                        prop_assert_eq!(put.id.slot, new_slot);
                    }
                    (plain, found) => prop_assert!(false, "{:?}, {:?}", plain, found),
                }
                prop_assert!(store.stats().unwrap().stored_bytes <= budget);
            }
        }
    }
}
