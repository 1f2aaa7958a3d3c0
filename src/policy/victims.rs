//! The order in which memories are evicted, kept across commits.

use super::bank::Occupant;
use std::collections::BTreeSet;
use std::collections::btree_set;

/// What the policy makes of its uses, sequence number, slot: the least of them leaves first.
pub(super) type Standing = (u64, u64, u32);

/// Occupants that may go, the lowest rank first and the oldest among equals.
///
/// Ranks grow between commits without being updated here: a rank here is at most the true one. A search for a
/// victim looks at the true rank of each that comes up, and passes over those that were read since. Cost:
/// `O(log n)` for each slot a commit changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Victims(BTreeSet<Standing>);

impl Victims {
    /// Of these occupants. Cost: one sort.
    pub(crate) fn of(occupants: impl Iterator<Item = (u32, Occupant)>, rank: impl Fn(u32) -> u64) -> Self {
        Self(
            occupants
                .filter(|(_, occupant)| occupant.may_go())
                .map(|(slot, occupant)| (rank(slot), occupant.seq, slot))
                .collect(),
        )
    }

    /// Takes a slot out, with the rank under which it was put in.
    pub(crate) fn remove(&mut self, slot: u32, occupant: Option<Occupant>, rank: u64) {
        if let Some(occupant) = occupant {
            self.0.remove(&(rank, occupant.seq, slot));
        }
    }

    /// Puts a slot in, if its occupant may go.
    pub(crate) fn insert(&mut self, slot: u32, occupant: Option<Occupant>, rank: u64) {
        if let Some(occupant) = occupant.filter(Occupant::may_go) {
            self.0.insert((rank, occupant.seq, slot));
        }
    }

    pub(super) fn iter(&self) -> btree_set::Iter<'_, Standing> {
        self.0.iter()
    }
}
