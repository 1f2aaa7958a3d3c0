//! Placements of the transactions of one commit, decided before anything is written.

use super::bank::{Bank, Occupant};
use super::victims::{Rank, Victims};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, btree_set};
use std::iter::{Copied, Peekable};

/// Where a memory goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Into a free slot.
    Free { slot: u32 },
    /// In the place of the least used memory.
    Evict { slot: u32, victim: Occupant, count: u32 },
}

impl Placement {
    pub(crate) fn slot(self) -> u32 {
        match self {
            Self::Free { slot } | Self::Evict { slot, .. } => slot,
        }
    }
}

/// Every slot is occupied, and no occupant may go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AllPinned;

/// How much the memories of a bank are used.
pub(crate) trait Usage {
    /// A slot's access count; it may grow while somebody plans.
    fn count(&self, slot: u32) -> u32;
    /// All that may go, in the order of counts that are at most those.
    fn victims(&self) -> &Victims;
}

/// Plans placements over a bank that does not change meanwhile.
///
/// Cost: `O(log n)` an operation, and as much for each memory that was read since the victims were put in order, once.
pub(crate) struct Planner<'a, U> {
    bank: &'a Bank,
    usage: &'a U,
    /// What the commit has changed.
    changed: FxHashMap<u32, Option<Occupant>>,
    /// Counts of slots the commit has written.
    new_counts: FxHashMap<u32, u32>,
    /// Slots that were emptied or got another memory: whatever was counted there is over.
    reset: FxHashSet<u32>,
    /// Slots the commit has freed.
    freed: BTreeSet<u32>,
    /// Free slots of the bank below this one are taken.
    cursor: u32,
    /// Victims among what was there before, as far as nobody has looked at them.
    listed: Option<Peekable<Copied<btree_set::Iter<'a, Rank>>>>,
    /// Possible victims that are not where the list has them: read since, unpinned, or written by an earlier transaction.
    unlisted: BinaryHeap<Reverse<Rank>>,
    /// What the transaction has written, least used first, and in which slots.
    written: BTreeSet<Rank>,
    fresh: FxHashSet<u32>,
}

impl<'a, U: Usage> Planner<'a, U> {
    pub(crate) fn new(bank: &'a Bank, usage: &'a U) -> Self {
        Self {
            bank,
            usage,
            changed: FxHashMap::default(),
            new_counts: FxHashMap::default(),
            reset: FxHashSet::default(),
            freed: BTreeSet::new(),
            cursor: 0,
            listed: None,
            unlisted: BinaryHeap::new(),
            written: BTreeSet::new(),
            fresh: FxHashSet::default(),
        }
    }

    /// Begins the next transaction of the commit: what was written so far is there before it.
    pub(crate) fn next_transaction(&mut self) {
        self.unlisted.extend(std::mem::take(&mut self.written).into_iter().map(Reverse));
        self.fresh.clear();
    }

    /// Whether the transaction has written this slot.
    pub(crate) fn is_fresh(&self, slot: u32) -> bool {
        self.fresh.contains(&slot)
    }

    /// The slot's occupant as the transaction sees it.
    pub(crate) fn get(&self, slot: u32) -> Option<Occupant> {
        self.changed.get(&slot).copied().unwrap_or_else(|| self.bank.get(slot))
    }

    /// The slot's access count as the transaction sees it.
    pub(crate) fn count(&self, slot: u32) -> u32 {
        self.new_counts.get(&slot).copied().unwrap_or_else(|| self.usage.count(slot))
    }

    /// Finds room for `occupant` and puts it there with a count of 0.
    pub(crate) fn place(&mut self, occupant: Occupant) -> Result<Placement, AllPinned> {
        let placement = match self.lowest_free() {
            Some(slot) => Placement::Free { slot },
            None => self.evict().ok_or(AllPinned)?,
        };
        self.write(placement.slot(), occupant, 0);
        self.reset.insert(placement.slot());
        Ok(placement)
    }

    /// Puts an occupant into a given slot, which must be empty, with a count of 0.
    pub(crate) fn restore(&mut self, slot: u32, occupant: Occupant) {
        debug_assert!(self.get(slot).is_none());
        self.write(slot, occupant, 0);
        self.reset.insert(slot);
    }

    /// Replaces a slot's occupant; its count stays.
    pub(crate) fn replace(&mut self, slot: u32, occupant: Occupant) {
        let count = self.count(slot);
        self.write(slot, occupant, count);
    }

    /// Empties a slot.
    pub(crate) fn remove(&mut self, slot: u32) {
        self.unlist(slot);
        self.changed.insert(slot, None);
        self.new_counts.insert(slot, 0);
        self.freed.insert(slot);
        self.reset.insert(slot);
    }

    /// Changes whether a slot may be a victim.
    pub(crate) fn pin(&mut self, slot: u32, pinned: bool) {
        let Some(occupant) = self.get(slot) else { return };
        let changed = Occupant { pinned, ..occupant };
        let count = self.count(slot);
        if self.fresh.contains(&slot) {
            self.write(slot, changed, count);
        } else {
            self.changed.insert(slot, Some(changed));
            self.unlisted.push(Reverse((count, occupant.seq, slot)));
        }
    }

    /// All occupants as the transaction sees them.
    pub(crate) fn occupied(&self) -> impl Iterator<Item = (u32, Occupant)> {
        let untouched = self.bank.iter().filter(|(slot, _)| !self.changed.contains_key(slot));
        let changed = self.changed.iter().filter_map(|(&slot, &occupant)| Some((slot, occupant?)));
        untouched.chain(changed)
    }

    /// All changes: occupants by slot, and the slots whose counts start again at 0.
    pub(crate) fn finish(self) -> (FxHashMap<u32, Option<Occupant>>, FxHashSet<u32>) {
        (self.changed, self.reset)
    }

    fn lowest_free(&mut self) -> Option<u32> {
        let fresh = self.bank.free_from(self.cursor);
        let freed = self.freed.first().copied();
        match (fresh, freed) {
            (Some(fresh), Some(freed)) if freed < fresh => self.freed.pop_first(),
            (Some(fresh), _) => {
                self.cursor = fresh + 1;
                Some(fresh)
            }
            (None, _) => self.freed.pop_first(),
        }
    }

    fn evict(&mut self) -> Option<Placement> {
        while let Some((count, seq, slot)) = self.next_victim() {
            // Entries go stale when the commit writes, empties or pins their slot; they are dropped here.
            let current = self.get(slot).filter(|_| !self.fresh.contains(&slot));
            if let Some(victim) = current.filter(|victim| victim.seq == seq && victim.may_go()) {
                return Some(Placement::Evict { slot, victim, count });
            }
        }
        let &(count, _, slot) = self.written.first()?;
        let victim = self.get(slot)?;
        Some(Placement::Evict { slot, victim, count })
    }

    /// The next in the order of true counts, of those nobody has looked at.
    fn next_victim(&mut self) -> Option<Rank> {
        let usage = self.usage;
        let listed = self.listed.get_or_insert_with(|| usage.victims().iter().copied().peekable());
        while let Some(&(count, seq, slot)) = listed.peek() {
            if self.unlisted.peek().is_some_and(|&Reverse(first)| first < (count, seq, slot)) {
                break;
            }
            listed.next();
            let now = usage.count(slot);
            if now <= count {
                return Some((count, seq, slot));
            }
            self.unlisted.push(Reverse((now, seq, slot)));
        }
        self.unlisted.pop().map(|Reverse(first)| first)
    }

    fn write(&mut self, slot: u32, occupant: Occupant, count: u32) {
        self.unlist(slot);
        self.freed.remove(&slot);
        self.changed.insert(slot, Some(occupant));
        self.new_counts.insert(slot, count);
        self.fresh.insert(slot);
        if occupant.may_go() {
            self.written.insert((count, occupant.seq, slot));
        }
    }

    /// Takes a slot out of the list of what this transaction has written.
    fn unlist(&mut self, slot: u32) {
        if let Some(occupant) = self.get(slot) {
            self.written.remove(&(self.count(slot), occupant.seq, slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn occupant(seq: u64) -> Occupant {
        Occupant { seq, pinned: false, damaged: false, expires_at: None }
    }

    fn full(counts: &[u32]) -> Bank {
        let mut bank = Bank::new(counts.len() as u32);
        for slot in 0..counts.len() as u32 {
            bank.set(slot, Some(occupant(u64::from(slot) + 1)));
        }
        bank
    }

    /// Counts as they are, and as they were when the victims were put in order.
    struct Counts(Vec<u32>, Victims);

    impl Counts {
        fn of(bank: &Bank, counts: &[u32]) -> Self {
            Self(counts.to_vec(), Victims::of(bank, |slot| counts[slot as usize]))
        }

        /// Of a bank whose counts have grown since.
        fn grown(bank: &Bank, before: &[u32], counts: &[u32]) -> Self {
            Self(counts.to_vec(), Victims::of(bank, |slot| before[slot as usize]))
        }
    }

    impl Usage for Counts {
        fn count(&self, slot: u32) -> u32 {
            self.0[slot as usize]
        }

        fn victims(&self) -> &Victims {
            &self.1
        }
    }

    #[test]
    fn free_slots_go_first_and_the_lowest_of_them() {
        let mut bank = full(&[0; 5]);
        bank.set(3, None);
        bank.set(1, None);
        let usage = Counts::of(&bank, &[0; 5]);
        let mut planner = Planner::new(&bank, &usage);
        assert_eq!(planner.place(occupant(6)), Ok(Placement::Free { slot: 1 }));
        assert_eq!(planner.place(occupant(7)), Ok(Placement::Free { slot: 3 }));
        assert!(matches!(planner.place(occupant(8)), Ok(Placement::Evict { slot: 0, .. })));
    }

    #[test]
    fn the_least_used_leaves_and_the_oldest_among_equals() {
        let counts = [5, 2, 9, 2];
        let bank = full(&counts);
        let usage = Counts::of(&bank, &counts);
        let mut planner = Planner::new(&bank, &usage);
        let order: Vec<u32> = (0..4).map(|i| planner.place(occupant(10 + i)).unwrap().slot()).collect();
        assert_eq!(order, [1, 3, 0, 2]);
    }

    #[test]
    fn a_batch_as_large_as_a_hot_bank_replaces_all_of_it() {
        let bank = full(&[100; 8]);
        let usage = Counts::of(&bank, &[100; 8]);
        let mut planner = Planner::new(&bank, &usage);
        let mut slots: Vec<u32> = (0..8).map(|i| planner.place(occupant(100 + i)).unwrap().slot()).collect();
        slots.sort_unstable();
        assert_eq!(slots, [0, 1, 2, 3, 4, 5, 6, 7]);
        // Only now is there nothing but the transaction's own writes, and the first of them goes.
        assert!(matches!(
            planner.place(occupant(200)),
            Ok(Placement::Evict { victim: Occupant { seq: 100, .. }, .. })
        ));
    }

    #[test]
    fn pinned_and_damaged_slots_stay() {
        let mut bank = full(&[0; 3]);
        bank.set(0, Some(Occupant { pinned: true, ..occupant(1) }));
        bank.set(1, Some(Occupant { damaged: true, ..occupant(2) }));
        let usage = Counts::of(&bank, &[0; 3]);
        let mut planner = Planner::new(&bank, &usage);
        planner.pin(2, true);
        assert_eq!(planner.place(occupant(9)), Err(AllPinned));
        planner.pin(2, false);
        assert_eq!(planner.place(occupant(9)).unwrap().slot(), 2);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Place(bool),
        Remove(u32),
        Pin(u32, bool),
        Replace(u32),
        Next,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => prop::bool::weighted(0.2).prop_map(Op::Place),
            1 => (0_u32..8).prop_map(Op::Remove),
            1 => (0_u32..8, any::<bool>()).prop_map(|(slot, pinned)| Op::Pin(slot, pinned)),
            1 => (0_u32..8).prop_map(Op::Replace),
            1 => Just(Op::Next),
        ]
    }

    proptest! {
        /// The planner's shortcuts agree with the rule as the design states it, applied by looking at every slot.
        #[test]
        fn agrees_with_the_plain_rule(
            before in prop::collection::vec(0_u32..4, 8),
            reads in prop::collection::vec(0_u32..3, 8),
            holes in prop::collection::vec(any::<bool>(), 8),
            ops in prop::collection::vec(op(), 0..40),
        ) {
            let mut bank = full(&before);
            for slot in (0..8).filter(|&slot| holes[slot as usize]) {
                bank.set(slot, None);
            }
            let counts: Vec<u32> = before.iter().zip(reads).map(|(before, reads)| before + reads).collect();
            let usage = Counts::grown(&bank, &before, &counts);
            let mut planner = Planner::new(&bank, &usage);
            // (occupant, count, written by this transaction)
            let mut plain: Vec<Option<(Occupant, u32, bool)>> = (0..8)
                .map(|slot| bank.get(slot).map(|occupant| (occupant, counts[slot as usize], false)))
                .collect();
            for (seq, op) in (100_u64..).zip(ops) {
                match op {
                    Op::Place(pinned) => {
                        let new = Occupant { pinned, ..occupant(seq) };
                        let free = plain.iter().position(Option::is_none);
                        let least = plain
                            .iter()
                            .enumerate()
                            .filter_map(|(slot, held)| held.map(|(o, count, new)| (new, count, o.seq, slot, o)))
                            .filter(|(.., o)| !o.pinned)
                            .min_by_key(|&(new, count, seq, ..)| (new, count, seq));
                        let expected = free.or(least.map(|(_, _, _, slot, _)| slot));
                        prop_assert_eq!(planner.place(new).ok().map(|p| p.slot() as usize), expected);
                        if let Some(slot) = expected {
                            plain[slot] = Some((new, 0, true));
                        }
                    }
                    Op::Remove(slot) => {
                        if plain[slot as usize].take().is_some() {
                            planner.remove(slot);
                        }
                    }
                    Op::Next => {
                        planner.next_transaction();
                        plain.iter_mut().flatten().for_each(|(_, _, new)| *new = false);
                    }
                    Op::Pin(slot, pinned) => {
                        planner.pin(slot, pinned);
                        if let Some((occupant, ..)) = &mut plain[slot as usize] {
                            occupant.pinned = pinned;
                        }
                    }
                    Op::Replace(slot) => {
                        if let Some((old, _, new)) = &mut plain[slot as usize] {
                            let next = Occupant { seq, ..*old };
                            planner.replace(slot, next);
                            *old = next;
                            *new = true;
                        }
                    }
                }
            }
        }
    }
}
