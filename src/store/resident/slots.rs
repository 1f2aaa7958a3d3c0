//! What is kept in memory for each slot; all of it can be rebuilt from the file.

use super::counts::Counts;
use super::sizes::{SlotSize, Sums};
use super::uses::Uses;
use crate::claim::Refused;
use crate::index::ScanMatrix;
use crate::paged::Paged;
use crate::policy::{Bank, Hot, Occupant, Rule, Usage, Victims};
use crate::store::file::Snapshot;
use apcm_format::{MemoryId, Policy, SlotKind, StoreState};
use rustc_hash::FxHashSet;
use std::sync::{Arc, OnceLock};

/// Occupancy, search vectors, counts and state.
#[derive(Debug)]
pub(crate) struct Resident {
    /// The database at the commit that made the rest true.
    snapshot: Option<Arc<Snapshot>>,
    bank: Bank,
    scan: ScanMatrix,
    counts: Counts,
    uses: Uses,
    /// Built at the first eviction; many stores are only read.
    victims: OnceLock<Victims>,
    /// Victims with a residual; built when the first residual has to leave.
    with_residuals: OnceLock<Victims>,
    /// Built at the first hot-first search.
    hot: OnceLock<Hot>,
    sizes: Paged<SlotSize>,
    /// Slots that hold a part of a stream.
    parts: FxHashSet<u32>,
    /// Sum of all sizes.
    stored: u64,
    state: StoreState,
}

impl Resident {
    pub(crate) fn new(capacity: u32, search_dims: usize, policy: Policy, state: StoreState) -> Self {
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
    pub(crate) fn memory(&self) -> u64 {
        let hot = if self.hot.get().is_some() { Hot::BYTES_PER_SLOT as u64 } else { 0 };
        self.bank.memory()
            + self.scan.memory()
            + self.counts.memory()
            + self.uses.memory()
            + self.sizes.memory()
            + hot * u64::from(self.bank.occupied())
    }

    /// Bytes that an occupied slot takes, with others beside it: its search vector, and what is known of its
    /// occupant.
    pub(crate) fn bytes_per_slot(&self) -> u64 {
        let known = Bank::BYTES_PER_SLOT + Paged::<SlotSize>::BYTES_PER_SLOT + Counts::BYTES_PER_SLOT;
        (ScanMatrix::bytes_per_slot(self.scan.dims()) + known + self.uses.bytes_per_slot()) as u64
    }

    /// Reserves memory for the search vectors of this many more slots.
    pub(crate) fn reserve_vectors(&mut self, slots: usize) -> Result<(), Refused> {
        self.scan.reserve_rows(self.scan.rows().saturating_add(slots))
    }

    /// Reserves memory for a slot, except its search vector; filling it then allocates nothing.
    pub(crate) fn reserve(&mut self, slot: u32) -> Result<(), Refused> {
        self.bank.reserve(slot)?;
        self.scan.reserve(slot)?;
        self.counts.reserve(slot)?;
        self.uses.reserve(slot)?;
        self.sizes.reserve(slot)
    }

    /// The database as readers see it.
    pub(crate) fn published(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    pub(crate) fn publish(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = Some(snapshot);
    }

    pub(crate) fn bank(&self) -> &Bank {
        &self.bank
    }

    pub(crate) fn scan(&self) -> &ScanMatrix {
        &self.scan
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) fn uses(&self) -> &Uses {
        &self.uses
    }

    pub(crate) fn uses_mut(&mut self) -> &mut Uses {
        &mut self.uses
    }

    pub(crate) fn policy(&self) -> Policy {
        self.uses.rule().0
    }

    /// Replaces the words by those of another policy; the order of victims is built again when needed.
    pub(crate) fn set_uses(&mut self, uses: Uses) {
        self.uses = uses;
        self.victims = OnceLock::new();
        self.with_residuals = OnceLock::new();
    }

    /// Counted reads in the store's life.
    pub(crate) fn reads(&self) -> u64 {
        self.state.reads.saturating_add(self.counts.pending())
    }

    /// The store's own time: how many reads and writes it has seen.
    pub(crate) fn tick(&self) -> u64 {
        self.state.next_seq.saturating_add(self.reads())
    }

    /// The time at which a memory was written, as far as its number tells: reads are taken to have come evenly.
    pub(crate) fn tick_of(&self, seq: u64) -> u64 {
        let (now, writes) = (u128::from(self.tick()), u128::from(self.state.next_seq.max(1)));
        u64::try_from(u128::from(seq) * now / writes).unwrap_or(u64::MAX)
    }

    /// The slot's rank by the uses that are on disk.
    fn standing(&self, slot: u32) -> u64 {
        self.uses.rule().rank(self.counts.base(slot), self.uses.base(slot))
    }

    pub(crate) fn counts_mut(&mut self) -> (&mut Counts, &Bank) {
        (&mut self.counts, &self.bank)
    }

    pub(crate) fn state(&self) -> StoreState {
        self.state
    }

    pub(crate) fn set_state(&mut self, state: StoreState) {
        self.state = state;
    }

    /// Whether the memory of this id is there, and has not expired.
    pub(crate) fn holds(&self, id: MemoryId, now: u32) -> bool {
        self.occupant(id.slot, now).is_some_and(|occupant| occupant.seq == id.seq)
    }

    /// The slot's occupant, unless it has expired.
    pub(crate) fn occupant(&self, slot: u32, now: u32) -> Option<Occupant> {
        self.bank.get(slot).filter(|occupant| occupant.expires_at.is_none_or(|at| at > now))
    }

    /// Fills a slot.
    pub(crate) fn fill(
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

    /// Updates the occupant of a slot that keeps its memory.
    pub(crate) fn update(&mut self, slot: u32, occupant: Occupant) {
        self.bank.set(slot, Some(occupant));
    }

    /// Marks a memory as damaged: it is never found and never evicted.
    pub(crate) fn damage(&mut self, slot: u32) {
        if let Some(occupant) = self.bank.get(slot) {
            self.bank.set(slot, Some(Occupant { damaged: true, ..occupant }));
            self.scan.clear(slot);
        }
    }

    /// How many slots hold parts of streams.
    pub(crate) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Whether the slot holds a part of a stream.
    pub(crate) fn is_part(&self, slot: u32) -> bool {
        self.parts.contains(&slot)
    }

    /// Empties a slot.
    pub(crate) fn empty(&mut self, slot: u32) {
        self.parts.remove(&slot);
        self.bank.set(slot, None);
        self.scan.clear(slot);
        self.resize(slot, |size| *size = SlotSize::default());
    }

    /// Removes slots that are about to change from the orders; returns those that [`Self::changed`] puts back.
    pub(crate) fn changing(&mut self, slots: impl Iterator<Item = u32>) -> FxHashSet<u32> {
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

    /// Puts slots back into the orders with their new occupants and counts.
    pub(crate) fn changed(&mut self, slots: FxHashSet<u32>) {
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
    pub(crate) fn hot(&self, frequent: usize, recent: usize, now: u32) -> Vec<u32> {
        let hot = self.hot.get_or_init(|| Hot::of(&self.bank, |slot| self.counts.base(slot)));
        hot.slots(frequent, recent, |slot| self.occupant(slot, now).is_some())
    }

    /// Bytes of everything stored for all slots together.
    pub(crate) fn stored(&self) -> u64 {
        self.stored
    }

    /// What is stored for a slot.
    pub(crate) fn size(&self, slot: u32) -> SlotSize {
        self.sizes.get(slot).copied().unwrap_or_default()
    }

    /// Updates the sizes of a slot.
    pub(crate) fn resize(&mut self, slot: u32, change: impl FnOnce(&mut SlotSize)) {
        if let Some(size) = self.sizes.get_mut(slot) {
            self.stored -= size.total();
            change(size);
            self.stored += size.total();
        }
    }

    /// Measured error of a slot's memory.
    pub(crate) fn error(&self, slot: u32) -> f32 {
        self.sizes.get(slot).map_or(f32::INFINITY, |size| size.error)
    }

    /// Measured errors of all readable memories.
    pub(crate) fn errors(&self) -> Vec<f32> {
        let readable = self.bank.iter().filter(|(_, occupant)| !occupant.damaged);
        readable.map(|(slot, _)| self.error(slot)).collect()
    }

    pub(crate) fn sums(&self) -> Sums {
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

impl Usage for Resident {
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
