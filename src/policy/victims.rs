//! Who leaves next, kept in order from commit to commit.

use super::bank::{Bank, Occupant};
use std::collections::BTreeSet;
use std::collections::btree_set;

/// Access count, sequence number, slot: the least of them leaves first.
pub(super) type Rank = (u32, u64, u32);

/// Occupants that may go, least used first and the oldest among equals.
///
/// Counts grow between commits without anybody telling it: a count here is at most the true one. Whoever looks for a
/// victim looks at the true count of each that comes up, and passes over those that were read since. Cost: `O(log n)`
/// for each slot a commit changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Victims(BTreeSet<Rank>);

impl Victims {
    /// Of a whole bank. Cost: one sort.
    pub(crate) fn of(bank: &Bank, count: impl Fn(u32) -> u32) -> Self {
        Self(
            bank.iter()
                .filter(|(_, occupant)| occupant.may_go())
                .map(|(slot, occupant)| (count(slot), occupant.seq, slot))
                .collect(),
        )
    }

    /// Takes a slot out, with the count under which it was put in.
    pub(crate) fn remove(&mut self, slot: u32, occupant: Option<Occupant>, count: u32) {
        if let Some(occupant) = occupant {
            self.0.remove(&(count, occupant.seq, slot));
        }
    }

    /// Puts a slot in, if its occupant may go.
    pub(crate) fn insert(&mut self, slot: u32, occupant: Option<Occupant>, count: u32) {
        if let Some(occupant) = occupant.filter(Occupant::may_go) {
            self.0.insert((count, occupant.seq, slot));
        }
    }

    pub(super) fn iter(&self) -> btree_set::Iter<'_, Rank> {
        self.0.iter()
    }
}
