//! Which slots hold a memory.

use crate::claim::{Refused, reserve};
use std::collections::BTreeSet;

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
    /// Whether it may make room for another.
    pub(crate) fn may_go(&self) -> bool {
        !self.pinned && !self.damaged
    }
}

/// Occupancy of all slots.
#[derive(Debug, Clone)]
pub(crate) struct Bank {
    capacity: u32,
    /// Slots below the high-water mark; all above are free.
    slots: Vec<Option<Occupant>>,
    /// Free slots below the high-water mark.
    free: BTreeSet<u32>,
    /// Slots with an expiry, by when it comes.
    expiring: BTreeSet<(u32, u32)>,
    pinned: u32,
}

impl Bank {
    /// An empty bank.
    pub(crate) fn new(capacity: u32) -> Self {
        Self { capacity, slots: Vec::new(), free: BTreeSet::new(), expiring: BTreeSet::new(), pinned: 0 }
    }

    /// Takes memory for slots below this one, once and exactly.
    pub(crate) fn reserve(&mut self, slots: u32) -> Result<(), Refused> {
        reserve(&mut self.slots, slots as usize)
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(crate) fn occupied(&self) -> u32 {
        (self.slots.len() - self.free.len()) as u32
    }

    pub(crate) fn pinned(&self) -> u32 {
        self.pinned
    }

    /// One more than the highest slot ever filled.
    pub(crate) fn high_water(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(crate) fn get(&self, slot: u32) -> Option<Occupant> {
        self.slots.get(slot as usize).copied().flatten()
    }

    /// Occupied slots in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Occupant)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(slot, occupant)| occupant.map(|occupant| (slot as u32, occupant)))
    }

    /// The lowest free slot at or above `from`.
    pub(crate) fn free_from(&self, from: u32) -> Option<u32> {
        self.free
            .range(from..)
            .next()
            .copied()
            .or_else(|| Some(from.max(self.high_water())).filter(|&slot| slot < self.capacity))
    }

    /// Slots whose expiry has come.
    pub(crate) fn expired(&self, now: u32) -> impl Iterator<Item = u32> {
        self.expiring.range(..=(now, u32::MAX)).map(|&(_, slot)| slot)
    }

    /// Fills or empties a slot.
    pub(crate) fn set(&mut self, slot: u32, occupant: Option<Occupant>) {
        debug_assert!(slot < self.capacity);
        let mark = self.high_water();
        if slot >= mark {
            if occupant.is_none() {
                return;
            }
            self.free.extend(mark..slot);
            self.slots.resize(slot as usize + 1, None);
        }
        let old = std::mem::replace(&mut self.slots[slot as usize], occupant);
        if let Some(old) = old {
            self.pinned -= u32::from(old.pinned);
            if let Some(at) = old.expires_at {
                self.expiring.remove(&(at, slot));
            }
        }
        match occupant {
            Some(new) => {
                if slot < mark {
                    self.free.remove(&slot);
                }
                self.pinned += u32::from(new.pinned);
                if let Some(at) = new.expires_at {
                    self.expiring.insert((at, slot));
                }
            }
            None => {
                self.free.insert(slot);
            }
        }
    }
}
