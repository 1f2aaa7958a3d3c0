//! Which slots hold a memory.

use crate::claim::Refused;
use crate::paged::Paged;
use std::collections::{BTreeMap, BTreeSet};

/// What the policy knows of an occupied slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Occupant {
    /// Number of the write that filled the slot.
    pub(crate) seq: u64,
    /// Never a victim.
    pub(crate) pinned: bool,
    /// Its stored bytes failed their checks: kept for salvage, never a victim, never a hit.
    pub(crate) damaged: bool,
    /// Counts as free from this second on.
    pub(crate) expires_at: Option<u32>,
    /// It is a part of a stream that the next append goes on with.
    pub(crate) open: bool,
}

impl Occupant {
    /// Whether it may be evicted.
    pub(crate) fn may_go(&self) -> bool {
        !self.pinned && !self.damaged
    }
}

/// Occupancy of all slots.
#[derive(Debug, Clone)]
pub(crate) struct Bank {
    capacity: u32,
    slots: Paged<Option<Occupant>>,
    occupied: u32,
    /// One more than the highest slot ever filled; all from there on are free.
    high_water: u32,
    /// Free slots below it, as runs: the first of each, and the one after its last.
    free: BTreeMap<u32, u32>,
    /// Slots with an expiry, by when it comes.
    expiring: BTreeSet<(u32, u32)>,
    pinned: u32,
}

impl Bank {
    /// Bytes that an occupied slot takes, with others beside it.
    pub(crate) const BYTES_PER_SLOT: usize = Paged::<Option<Occupant>>::BYTES_PER_SLOT;

    /// An empty bank.
    pub(crate) fn new(capacity: u32) -> Self {
        Self {
            capacity,
            slots: Paged::default(),
            occupied: 0,
            high_water: 0,
            free: BTreeMap::new(),
            expiring: BTreeSet::new(),
            pinned: 0,
        }
    }

    /// Takes the memory of a slot.
    pub(crate) fn reserve(&mut self, slot: u32) -> Result<(), Refused> {
        self.slots.reserve(slot)
    }

    pub(crate) fn memory(&self) -> u64 {
        // Nodes of the tree are half empty more often than not.
        self.slots.memory() + (self.free.len() * size_of::<(u32, u32)>() * 5 / 2) as u64
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(crate) fn occupied(&self) -> u32 {
        self.occupied
    }

    pub(crate) fn pinned(&self) -> u32 {
        self.pinned
    }

    pub(crate) fn get(&self, slot: u32) -> Option<Occupant> {
        self.slots.get(slot).copied().flatten()
    }

    /// Occupied slots in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Occupant)> {
        self.slots.iter().filter_map(|(slot, occupant)| occupant.map(|occupant| (slot, occupant)))
    }

    /// The lowest free slot at or above `from`.
    pub(crate) fn free_from(&self, from: u32) -> Option<u32> {
        let within = self.free.range(..=from).next_back().filter(|&(_, &end)| end > from).map(|_| from);
        within
            .or_else(|| self.free.range(from..).next().map(|(&first, _)| first))
            .or_else(|| Some(from.max(self.high_water)).filter(|&slot| slot < self.capacity))
    }

    /// Slots whose expiry has come.
    pub(crate) fn expired(&self, now: u32) -> impl Iterator<Item = u32> {
        self.expiring.range(..=(now, u32::MAX)).map(|&(_, slot)| slot)
    }

    /// Fills or empties a slot.
    pub(crate) fn set(&mut self, slot: u32, occupant: Option<Occupant>) {
        debug_assert!(slot < self.capacity);
        let old = match occupant {
            Some(_) => std::mem::replace(self.slots.entry(slot), occupant),
            None => self.slots.get_mut(slot).and_then(Option::take),
        };
        if let Some(old) = old {
            self.pinned -= u32::from(old.pinned);
            if let Some(at) = old.expires_at {
                self.expiring.remove(&(at, slot));
            }
        }
        if let Some(new) = occupant {
            self.pinned += u32::from(new.pinned);
            if let Some(at) = new.expires_at {
                self.expiring.insert((at, slot));
            }
        }
        match (old.is_some(), occupant.is_some()) {
            (false, true) => self.occupy(slot),
            (true, false) => self.release(slot),
            _ => {}
        }
    }

    /// Takes a slot out of the free ones.
    fn occupy(&mut self, slot: u32) {
        self.occupied += 1;
        if slot >= self.high_water {
            if slot > self.high_water {
                self.add_run(self.high_water, slot);
            }
            self.high_water = slot + 1;
        } else if let Some((&first, &end)) = self.free.range(..=slot).next_back() {
            self.free.remove(&first);
            if first < slot {
                self.free.insert(first, slot);
            }
            if slot + 1 < end {
                self.free.insert(slot + 1, end);
            }
        }
    }

    /// Puts a slot among the free ones.
    fn release(&mut self, slot: u32) {
        self.occupied -= 1;
        self.add_run(slot, slot + 1);
    }

    /// Adds free slots, joined to the runs that they touch.
    fn add_run(&mut self, mut first: u32, mut end: u32) {
        if let Some((&before, _)) = self.free.range(..first).next_back().filter(|&(_, &end)| end == first) {
            self.free.remove(&before);
            first = before;
        }
        if let Some(after) = self.free.remove(&end) {
            end = after;
        }
        self.free.insert(first, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Runs say what a list of all slots says.
        #[test]
        fn free_slots_are_those_without_an_occupant(
            sets in prop::collection::vec((0_u32..90, any::<bool>()), 0..200), from in 0_u32..100,
        ) {
            const CAPACITY: u32 = 90;
            let mut bank = Bank::new(CAPACITY);
            let mut filled = [false; CAPACITY as usize];
            let occupant = Occupant { seq: 1, pinned: true, damaged: false, expires_at: Some(5), open: false };
            for (slot, fill) in sets {
                bank.set(slot, fill.then_some(occupant));
                filled[slot as usize] = fill;
                let count = filled.iter().filter(|filled| **filled).count();
                prop_assert_eq!((bank.occupied(), bank.pinned()), (count as u32, count as u32));
                prop_assert_eq!(bank.expired(5).count(), count);
                let free = (from..CAPACITY).find(|&slot| !filled[slot as usize]);
                prop_assert_eq!(bank.free_from(from), free);
                prop_assert!(bank.free.len() <= count + 1, "runs that touch are one");
            }
        }
    }
}
