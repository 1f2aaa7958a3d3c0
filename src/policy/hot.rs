//! The most used and the latest memories, kept in order across commits.

use super::bank::{Bank, Occupant};
use std::collections::BTreeSet;

/// Occupants by use and by age: what a hot-first search looks at before all others.
///
/// Made at the first such search; then `O(log n)` for each slot a commit changes. Counts are those of the last
/// commit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hot {
    /// Access count, sequence number, slot.
    by_use: BTreeSet<(u32, u64, u32)>,
    /// Sequence number, slot.
    by_age: BTreeSet<(u64, u32)>,
}

impl Hot {
    /// What a slot takes here: two entries, and a half more for the trees around them.
    pub(crate) const BYTES_PER_SLOT: usize = (size_of::<(u32, u64, u32)>() + size_of::<(u64, u32)>()) * 3 / 2;

    /// Of a whole bank. Cost: two sorts.
    pub(crate) fn of(bank: &Bank, count: impl Fn(u32) -> u32) -> Self {
        let there = || bank.iter().filter(|(_, occupant)| !occupant.damaged);
        Self {
            by_use: there().map(|(slot, occupant)| (count(slot), occupant.seq, slot)).collect(),
            by_age: there().map(|(slot, occupant)| (occupant.seq, slot)).collect(),
        }
    }

    /// Takes a slot out, with the count under which it was put in.
    pub(crate) fn remove(&mut self, slot: u32, occupant: Option<Occupant>, count: u32) {
        if let Some(occupant) = occupant {
            self.by_use.remove(&(count, occupant.seq, slot));
            self.by_age.remove(&(occupant.seq, slot));
        }
    }

    /// Puts a slot in.
    pub(crate) fn insert(&mut self, slot: u32, occupant: Option<Occupant>, count: u32) {
        if let Some(occupant) = occupant.filter(|occupant| !occupant.damaged) {
            self.by_use.insert((count, occupant.seq, slot));
            self.by_age.insert((occupant.seq, slot));
        }
    }

    /// The most used slots and the latest ones that `there` lets through, each once, in order.
    pub(crate) fn slots(&self, frequent: usize, recent: usize, there: impl Fn(u32) -> bool) -> Vec<u32> {
        let used = self.by_use.iter().rev().map(|&(_, _, slot)| slot).filter(|&slot| there(slot));
        let late = self.by_age.iter().rev().map(|&(_, slot)| slot).filter(|&slot| there(slot));
        let mut slots: Vec<u32> = used.take(frequent).chain(late.take(recent)).collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }
}
