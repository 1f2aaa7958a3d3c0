//! What is in memory while a store is open; all of it can be made again from the file.

use super::counts::Counts;
use super::read::Snapshot;
use super::uses::Uses;
use crate::claim::Refused;
use crate::index::ScanMatrix;
use crate::paged::Paged;
use crate::policy::{Bank, Hot, Occupant, Rule, Usage, Victims};
use apcm_format::{MemoryId, Policy, SlotKind, StoreState};
use rustc_hash::FxHashSet;
use std::sync::{Arc, OnceLock};

/// What `stats` says about a slot without reading it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SlotSize {
    /// Bytes of the code.
    pub(super) code: u32,
    /// Bytes of the slot record.
    pub(super) record: u32,
    /// Bytes of its metadata and its key's row, and of what is kept to append to it.
    pub(super) metadata: u32,
    /// Bytes of its residual; 0 for none.
    pub(super) residual: u32,
    /// Measured error.
    pub(super) error: f32,
}

/// Beside its record a slot has a key in `slots` and a count in `counters`, four bytes each.
const BESIDE: u64 = 8;

/// Bytes of a row: its value, or its key, and the four bytes of the slot on the other side.
pub(super) fn row_bytes(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX).saturating_add(4)
}

impl SlotSize {
    /// Bytes of everything stored for the slot.
    pub(super) fn total(&self) -> u64 {
        match self.record {
            0 => 0,
            record => u64::from(record) + u64::from(self.metadata) + u64::from(self.residual) + BESIDE,
        }
    }
}

/// Sums over the occupied slots.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    pub(super) code_bytes: u64,
    pub(super) stored_bytes: u64,
    pub(super) residuals: u32,
    pub(super) error: f64,
    pub(super) damaged: u32,
}

/// Occupancy, search vectors, counts and state.
#[derive(Debug)]
pub(super) struct Live {
    /// The database at the commit that made the rest true.
    snapshot: Option<Arc<Snapshot>>,
    bank: Bank,
    scan: ScanMatrix,
    counts: Counts,
    uses: Uses,
    /// Made when the first memory has to leave: many a store is only read.
    victims: OnceLock<Victims>,
    /// Those among them that have a residual; made when the first residual has to leave.
    with_residuals: OnceLock<Victims>,
    /// Made at the first search that asks for it.
    hot: OnceLock<Hot>,
    sizes: Paged<SlotSize>,
    /// Slots that hold a part of a stream.
    parts: FxHashSet<u32>,
    /// Sum of all sizes.
    stored: u64,
    state: StoreState,
}

impl Live {
    pub(super) fn new(capacity: u32, search_dims: usize, policy: Policy, state: StoreState) -> Self {
        Self {
            snapshot: None,
            bank: Bank::new(capacity),
            scan: ScanMatrix::new(search_dims),
            counts: Counts::default(),
            uses: Uses::new(Rule(policy)),
            victims: OnceLock::new(),
            with_residuals: OnceLock::new(),
            hot: OnceLock::new(),
            sizes: Paged::default(),
            parts: FxHashSet::default(),
            stored: 0,
            state,
        }
    }

    /// Bytes in memory for all slots.
    pub(super) fn memory(&self) -> u64 {
        let hot = if self.hot.get().is_some() { Hot::BYTES_PER_SLOT as u64 } else { 0 };
        self.bank.memory()
            + self.scan.memory()
            + self.counts.memory()
            + self.uses.memory()
            + self.sizes.memory()
            + hot * u64::from(self.bank.occupied())
    }

    /// Bytes that an occupied slot takes, with others beside it: its search vector, and what is known of its occupant.
    pub(super) fn bytes_per_slot(&self) -> u64 {
        let known = Bank::BYTES_PER_SLOT + Paged::<SlotSize>::BYTES_PER_SLOT + Counts::BYTES_PER_SLOT;
        (ScanMatrix::bytes_per_slot(self.scan.dims()) + known + self.uses.bytes_per_slot()) as u64
    }

    /// Takes memory for the search vectors of so many slots more.
    pub(super) fn reserve_vectors(&mut self, slots: usize) -> Result<(), Refused> {
        self.scan.reserve_rows(self.scan.rows().saturating_add(slots))
    }

    /// Takes the memory of a slot beside its search vector: filling it takes none then.
    pub(super) fn reserve(&mut self, slot: u32) -> Result<(), Refused> {
        self.bank.reserve(slot)?;
        self.scan.reserve(slot)?;
        self.counts.reserve(slot)?;
        self.uses.reserve(slot)?;
        self.sizes.reserve(slot)
    }

    /// The database as readers see it.
    pub(super) fn published(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    pub(super) fn publish(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = Some(snapshot);
    }

    pub(super) fn bank(&self) -> &Bank {
        &self.bank
    }

    pub(super) fn scan(&self) -> &ScanMatrix {
        &self.scan
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn uses(&self) -> &Uses {
        &self.uses
    }

    pub(super) fn uses_mut(&mut self) -> &mut Uses {
        &mut self.uses
    }

    pub(super) fn policy(&self) -> Policy {
        self.uses.rule().0
    }

    /// Puts another policy's words in the place of those that were there; who leaves next is found out again.
    pub(super) fn set_uses(&mut self, uses: Uses) {
        self.uses = uses;
        self.victims = OnceLock::new();
        self.with_residuals = OnceLock::new();
    }

    /// Counted reads in the store's life.
    pub(super) fn reads(&self) -> u64 {
        self.state.reads.saturating_add(self.counts.pending())
    }

    /// The store's own time: how many reads and writes it has seen.
    pub(super) fn tick(&self) -> u64 {
        self.state.next_seq.saturating_add(self.reads())
    }

    /// The time at which a memory was written, as far as its number tells: reads are taken to have come evenly.
    pub(super) fn tick_of(&self, seq: u64) -> u64 {
        let (now, writes) = (u128::from(self.tick()), u128::from(self.state.next_seq.max(1)));
        u64::try_from(u128::from(seq) * now / writes).unwrap_or(u64::MAX)
    }

    /// What the policy makes of a slot's uses, as far as they are on disk.
    fn standing(&self, slot: u32) -> u64 {
        self.uses.rule().rank(self.counts.base(slot), self.uses.base(slot))
    }

    pub(super) fn counts_mut(&mut self) -> (&mut Counts, &Bank) {
        (&mut self.counts, &self.bank)
    }

    pub(super) fn state(&self) -> StoreState {
        self.state
    }

    pub(super) fn set_state(&mut self, state: StoreState) {
        self.state = state;
    }

    /// Whether the memory of this id is there, and has not expired.
    pub(super) fn holds(&self, id: MemoryId, now: u32) -> bool {
        self.occupant(id.slot, now).is_some_and(|occupant| occupant.seq == id.seq)
    }

    /// The slot's occupant, unless it has expired.
    pub(super) fn occupant(&self, slot: u32, now: u32) -> Option<Occupant> {
        self.bank.get(slot).filter(|occupant| occupant.expires_at.is_none_or(|at| at > now))
    }

    /// Fills a slot.
    pub(super) fn fill(
        &mut self,
        slot: u32,
        occupant: Occupant,
        search: Option<&[f32]>,
        size: SlotSize,
        kind: SlotKind,
    ) {
        match kind {
            SlotKind::Record => self.parts.remove(&slot),
            SlotKind::StreamRoot => self.parts.insert(slot),
        };
        self.bank.set(slot, Some(occupant));
        match search {
            Some(vector) => self.scan.set(slot, vector),
            None => self.scan.clear(slot),
        }
        self.sizes.entry(slot);
        self.resize(slot, |old| *old = size);
        self.counts.keep(slot);
        self.uses.keep(slot);
    }

    /// Changes what is known of an occupant that stays.
    pub(super) fn update(&mut self, slot: u32, occupant: Occupant) {
        self.bank.set(slot, Some(occupant));
    }

    /// Makes an occupant one that is never found and never a victim: something of it cannot be read.
    pub(super) fn damage(&mut self, slot: u32) {
        if let Some(occupant) = self.bank.get(slot) {
            self.bank.set(slot, Some(Occupant { damaged: true, ..occupant }));
            self.scan.clear(slot);
        }
    }

    /// How many slots hold parts of streams.
    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Whether the slot holds a part of a stream.
    pub(super) fn is_part(&self, slot: u32) -> bool {
        self.parts.contains(&slot)
    }

    /// Empties a slot.
    pub(super) fn empty(&mut self, slot: u32) {
        self.parts.remove(&slot);
        self.bank.set(slot, None);
        self.scan.clear(slot);
        self.resize(slot, |size| *size = SlotSize::default());
    }

    /// Begins a change of slots: takes them out of the orders that are kept. Gives what
    /// [`Self::changed`] puts back.
    pub(super) fn changing(&mut self, slots: impl Iterator<Item = u32>) -> FxHashSet<u32> {
        // Without victims in order nothing has left yet, and no residual either.
        if self.victims.get().is_none() && self.with_residuals.get().is_none() && self.hot.get().is_none() {
            return FxHashSet::default();
        }
        let slots: FxHashSet<u32> = slots.collect();
        for &slot in &slots {
            let (occupant, count) = (self.bank.get(slot), self.counts.base(slot));
            let rank = self.standing(slot);
            for order in [&mut self.victims, &mut self.with_residuals] {
                if let Some(order) = order.get_mut() {
                    order.remove(slot, occupant, rank);
                }
            }
            if let Some(hot) = self.hot.get_mut() {
                hot.remove(slot, occupant, count);
            }
        }
        slots
    }

    /// Ends it: puts them back with the occupants and counts that they have now.
    pub(super) fn changed(&mut self, slots: FxHashSet<u32>) {
        for slot in slots {
            let (occupant, count) = (self.bank.get(slot), self.counts.base(slot));
            let rank = self.standing(slot);
            if let Some(victims) = self.victims.get_mut() {
                victims.insert(slot, occupant, rank);
            }
            let has_residual = self.size(slot).residual > 0;
            if let Some(order) = self.with_residuals.get_mut().filter(|_| has_residual) {
                order.insert(slot, occupant, rank);
            }
            if let Some(hot) = self.hot.get_mut() {
                hot.insert(slot, occupant, count);
            }
        }
    }

    /// The most used slots and the latest ones, of those that have not expired.
    pub(super) fn hot(&self, frequent: usize, recent: usize, now: u32) -> Vec<u32> {
        let hot = self.hot.get_or_init(|| Hot::of(&self.bank, |slot| self.counts.base(slot)));
        hot.slots(frequent, recent, |slot| self.occupant(slot, now).is_some())
    }

    /// Bytes of everything stored for all slots together.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// What is stored for a slot.
    pub(super) fn size(&self, slot: u32) -> SlotSize {
        self.sizes.get(slot).copied().unwrap_or_default()
    }

    /// Changes what is known of what a slot stores.
    pub(super) fn resize(&mut self, slot: u32, change: impl FnOnce(&mut SlotSize)) {
        if let Some(size) = self.sizes.get_mut(slot) {
            self.stored -= size.total();
            change(size);
            self.stored += size.total();
        }
    }

    /// Measured error of a slot's memory.
    pub(super) fn error(&self, slot: u32) -> f32 {
        self.sizes.get(slot).map_or(f32::INFINITY, |size| size.error)
    }

    /// Measured errors of all readable memories.
    pub(super) fn errors(&self) -> Vec<f32> {
        let readable = self.bank.iter().filter(|(_, occupant)| !occupant.damaged);
        readable.map(|(slot, _)| self.error(slot)).collect()
    }

    pub(super) fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for (slot, occupant) in self.bank.iter() {
            let size = self.sizes.get(slot).copied().unwrap_or_default();
            sums.stored_bytes += size.total();
            sums.damaged += u32::from(occupant.damaged);
            if !occupant.damaged {
                sums.code_bytes += u64::from(size.code);
                sums.residuals += u32::from(size.residual > 0);
                sums.error += f64::from(size.error);
            }
        }
        sums
    }
}

impl Usage for Live {
    fn count(&self, slot: u32) -> u32 {
        self.counts.get(slot)
    }

    fn rank(&self, slot: u32) -> u64 {
        self.uses.rule().rank(self.counts.get(slot), self.uses.get(slot))
    }

    fn written(&self, seq: u64) -> u64 {
        self.uses.rule().written(seq.saturating_add(self.reads()))
    }

    fn replaced(&self, rank: u64, seq: u64) -> u64 {
        self.uses.rule().replaced(rank, seq.saturating_add(self.reads()))
    }

    fn victims(&self) -> &Victims {
        self.victims.get_or_init(|| Victims::of(self.bank.iter(), |slot| self.standing(slot)))
    }

    fn with_residuals(&self) -> &Victims {
        let some = || self.bank.iter().filter(|&(slot, _)| self.size(slot).residual > 0);
        self.with_residuals.get_or_init(|| Victims::of(some(), |slot| self.standing(slot)))
    }

    fn recent(&self) -> u64 {
        self.state.next_seq.saturating_sub(self.bank.capacity().into())
    }
}
