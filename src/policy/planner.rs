//! Placements of the transactions of one commit, decided before anything is written.

use super::bank::{Bank, Occupant};
use super::victims::{Standing, Victims};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, btree_set};
use std::iter::{Copied, Peekable};

/// Where a memory goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Into a free slot.
    Free { slot: u32 },
    /// In the place of the memory with the lowest rank; how often that was read.
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
    /// A slot's access count; it may grow while a commit is planned.
    fn count(&self, slot: u32) -> u32;
    /// What the policy makes of a slot's uses; it may grow while a commit is planned.
    fn rank(&self, slot: u32) -> u64;
    /// The rank that a memory begins with, written with this sequence number.
    fn written(&self, seq: u64) -> u64;
    /// The rank of a slot whose memory gives way to another under the same key.
    fn replaced(&self, rank: u64, seq: u64) -> u64;
    /// All that may go, in the order of ranks that are at most those.
    fn victims(&self) -> &Victims;
    /// Those among them that have a residual, in the same order.
    fn with_residuals(&self) -> &Victims;
    /// The oldest write that still counts as recent: a part that a stream goes on with leaves only after
    /// everything else if it was written then or later.
    fn recent(&self) -> u64;
}

/// Plans placements over a bank that does not change meanwhile.
///
/// Cost: `O(log n)` an operation, and as much for each memory that was read since the victims were put in
/// order, once.
pub(crate) struct Planner<'a, U> {
    bank: &'a Bank,
    usage: &'a U,
    /// Changed by the commit.
    changed: FxHashMap<u32, Change>,
    /// The number of the transaction, from 1.
    transaction: u32,
    /// Slots the commit has freed.
    freed: BTreeSet<u32>,
    /// Free slots of the bank below this one are taken.
    cursor: u32,
    /// Victims among what was there before, and those that are not where the list has them: read since,
    /// unpinned, or written by an earlier transaction.
    victims: Order<'a>,
    /// The same of those that have a residual; only what was there before the commit.
    with_residuals: Order<'a>,
    /// Parts that came up and are being appended to: they leave after everything else that was there before.
    under_way: BinaryHeap<Reverse<Standing>>,
    /// What the transaction has written, lowest rank first. What was written over since stays, and is passed
    /// over.
    written: BinaryHeap<Reverse<Standing>>,
}

/// Standings in the order of true ranks, each once: a list in the order of ranks as they were, and what is not
/// where the list has it.
#[derive(Default)]
struct Order<'a> {
    /// Asked for when the first of them is: many a store never needs it.
    listed: Option<Peekable<Copied<btree_set::Iter<'a, Standing>>>>,
    unlisted: BinaryHeap<Reverse<Standing>>,
}

impl<'a> Order<'a> {
    fn push(&mut self, standing: Standing) {
        self.unlisted.push(Reverse(standing));
    }

    fn next<U: Usage>(&mut self, usage: &'a U, list: impl FnOnce(&'a U) -> &'a Victims) -> Option<Standing> {
        let listed = self.listed.get_or_insert_with(|| list(usage).iter().copied().peekable());
        while let Some(&(rank, seq, slot)) = listed.peek() {
            if self.unlisted.peek().is_some_and(|&Reverse(first)| first < (rank, seq, slot)) {
                break;
            }
            listed.next();
            let now = usage.rank(slot);
            if now <= rank {
                return Some((rank, seq, slot));
            }
            self.unlisted.push(Reverse((now, seq, slot)));
        }
        self.unlisted.pop().map(|Reverse(first)| first)
    }
}

/// What a commit has made of a slot.
#[derive(Debug, Clone, Copy, Default)]
struct Change {
    occupant: Option<Occupant>,
    /// Its rank, where the commit has written it.
    rank: Option<u64>,
    /// It was emptied or got another memory: whatever was counted there is over.
    reset: bool,
    /// The transaction that wrote it; 0 for none.
    written_by: u32,
}

/// Everything a commit changes, in the order of slots.
#[derive(Debug, Default)]
pub(crate) struct Planned {
    /// Slot, and its occupant from now on.
    pub(crate) occupants: Vec<(u32, Option<Occupant>)>,
    /// Slots whose counts start again at 0.
    pub(crate) reset: Vec<u32>,
    /// Slots that were written, and their ranks.
    pub(crate) ranks: Vec<(u32, u64)>,
}

impl<'a, U: Usage> Planner<'a, U> {
    pub(crate) fn new(bank: &'a Bank, usage: &'a U) -> Self {
        Self {
            bank,
            usage,
            changed: FxHashMap::default(),
            transaction: 1,
            freed: BTreeSet::new(),
            cursor: 0,
            victims: Order::default(),
            with_residuals: Order::default(),
            under_way: BinaryHeap::new(),
            written: BinaryHeap::new(),
        }
    }

    /// Begins the next transaction of the commit: what was written so far is there before it.
    pub(crate) fn next_transaction(&mut self) {
        self.with_residuals.unlisted.extend(self.written.iter().copied());
        self.victims.unlisted.append(&mut self.written);
        self.transaction += 1;
    }

    /// Whether the transaction has written this slot.
    pub(crate) fn is_fresh(&self, slot: u32) -> bool {
        self.changed.get(&slot).is_some_and(|change| change.written_by == self.transaction)
    }

    /// The slot's occupant as the transaction sees it.
    pub(crate) fn get(&self, slot: u32) -> Option<Occupant> {
        self.changed.get(&slot).map_or_else(|| self.bank.get(slot), |change| change.occupant)
    }

    /// The slot's access count as the transaction sees it.
    pub(crate) fn count(&self, slot: u32) -> u32 {
        let reset = self.changed.get(&slot).is_some_and(|change| change.reset);
        if reset { 0 } else { self.usage.count(slot) }
    }

    /// The slot's rank as the transaction sees it.
    pub(crate) fn rank(&self, slot: u32) -> u64 {
        let written = self.changed.get(&slot).and_then(|change| change.rank);
        written.unwrap_or_else(|| self.usage.rank(slot))
    }

    /// Places `occupant` as a memory that was never read: in a free slot, or a victim's.
    pub(crate) fn place(&mut self, occupant: Occupant) -> Result<Placement, AllPinned> {
        let placement = match self.lowest_free() {
            Some(slot) => Placement::Free { slot },
            None => self.evict().ok_or(AllPinned)?,
        };
        self.write(placement.slot(), occupant, self.usage.written(occupant.seq), true);
        Ok(placement)
    }

    /// Puts an occupant into a given slot, which must be empty, as a memory that was never read.
    pub(crate) fn restore(&mut self, slot: u32, occupant: Occupant) {
        debug_assert!(self.get(slot).is_none());
        self.write(slot, occupant, self.usage.written(occupant.seq), true);
    }

    /// Replaces a slot's occupant; its count stays.
    pub(crate) fn replace(&mut self, slot: u32, occupant: Occupant) {
        let rank = self.usage.replaced(self.rank(slot), occupant.seq);
        self.write(slot, occupant, rank, false);
    }

    /// Empties a slot.
    pub(crate) fn remove(&mut self, slot: u32) {
        self.changed.insert(slot, Change { occupant: None, rank: Some(0), reset: true, written_by: 0 });
        self.freed.insert(slot);
    }

    /// Changes whether a slot may be a victim.
    pub(crate) fn pin(&mut self, slot: u32, pinned: bool) {
        let Some(occupant) = self.get(slot) else { return };
        let changed = Occupant { pinned, ..occupant };
        let rank = self.rank(slot);
        if self.is_fresh(slot) {
            self.write(slot, changed, rank, false);
        } else {
            self.changed.entry(slot).or_default().occupant = Some(changed);
            self.victims.push((rank, occupant.seq, slot));
            self.with_residuals.push((rank, occupant.seq, slot));
        }
    }

    /// Changes whether a slot holds a part that a stream goes on with.
    pub(crate) fn set_open(&mut self, slot: u32, open: bool) {
        if let Some(occupant) = self.get(slot).filter(|occupant| occupant.open != open) {
            self.changed.entry(slot).or_default().occupant = Some(Occupant { open, ..occupant });
            // It may have come up already, and been put off.
            self.victims.push((self.rank(slot), occupant.seq, slot));
        }
    }

    /// All changes.
    pub(crate) fn finish(self) -> Planned {
        let mut changed: Vec<(u32, Change)> = self.changed.into_iter().collect();
        changed.sort_unstable_by_key(|&(slot, _)| slot);
        debug_assert!(changed.is_sorted_by(|(a, _), (b, _)| a < b));
        Planned {
            occupants: changed.iter().map(|&(slot, change)| (slot, change.occupant)).collect(),
            reset: changed.iter().filter(|(_, change)| change.reset).map(|&(slot, _)| slot).collect(),
            ranks: changed.iter().filter_map(|&(slot, change)| Some((slot, change.rank?))).collect(),
        }
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
        let (slot, victim) = self.next_victim().or_else(|| {
            while let Some(Reverse((_, seq, slot))) = self.written.pop() {
                if let Some(victim) = self.victim(slot, seq) {
                    return Some((slot, victim));
                }
            }
            None
        })?;
        Some(Placement::Evict { slot, victim, count: self.count(slot) })
    }

    /// The next victim among what was there before the transaction: the lowest rank, the oldest among equals,
    /// and parts that are under way last. Each is given once.
    pub(crate) fn next_victim(&mut self) -> Option<(u32, Occupant)> {
        let (usage, recent) = (self.usage, self.usage.recent());
        // Entries go stale when the commit writes, empties or pins their slot; they are dropped here.
        while let Some(standing @ (_, seq, slot)) = self.victims.next(usage, Usage::victims) {
            match self.victim(slot, seq).filter(|_| !self.is_fresh(slot)) {
                Some(victim) if victim.open && seq >= recent => self.under_way.push(Reverse(standing)),
                Some(victim) => return Some((slot, victim)),
                None => {}
            }
        }
        while let Some(Reverse((_, seq, slot))) = self.under_way.pop() {
            if let Some(victim) = self.victim(slot, seq).filter(|_| !self.is_fresh(slot)) {
                return Some((slot, victim));
            }
        }
        None
    }

    /// The next slot that may have a residual to give up, of those that were there before the transaction, in
    /// the order of victims.
    pub(crate) fn next_residual(&mut self) -> Option<u32> {
        let usage = self.usage;
        loop {
            let (_, seq, slot) = self.with_residuals.next(usage, Usage::with_residuals)?;
            if self.victim(slot, seq).is_some() && !self.is_fresh(slot) {
                return Some(slot);
            }
        }
    }

    /// Slots that the transaction has written and that may give something up, in the order of victims.
    pub(crate) fn fresh(&self) -> Vec<u32> {
        let fresh = self.changed.iter().filter(|(_, change)| change.written_by == self.transaction);
        let standing = |(&slot, change): (&u32, &Change)| {
            let occupant = change.occupant.filter(Occupant::may_go)?;
            Some((change.rank?, occupant.seq, slot))
        };
        let mut standings: Vec<Standing> = fresh.filter_map(standing).collect();
        standings.sort_unstable();
        standings.into_iter().map(|(_, _, slot)| slot).collect()
    }

    /// The occupant of a slot, if it is still the one that this write put there, and may go.
    fn victim(&self, slot: u32, seq: u64) -> Option<Occupant> {
        self.get(slot).filter(|victim| victim.seq == seq && victim.may_go())
    }

    fn write(&mut self, slot: u32, occupant: Occupant, rank: u64, reset: bool) {
        self.freed.remove(&slot);
        let change = self.changed.entry(slot).or_default();
        *change = Change {
            occupant: Some(occupant),
            rank: Some(rank),
            reset: reset || change.reset,
            written_by: self.transaction,
        };
        if occupant.may_go() {
            self.written.push(Reverse((rank, occupant.seq, slot)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn occupant(seq: u64) -> Occupant {
        Occupant { seq, pinned: false, damaged: false, expires_at: None, open: false }
    }

    fn full(counts: &[u32]) -> Bank {
        let mut bank = Bank::new(counts.len() as u32);
        for slot in 0..counts.len() as u32 {
            bank.set(slot, Some(occupant(u64::from(slot) + 1)));
        }
        bank
    }

    /// Parts under way that were written before are victims like all others.
    const RECENT: u64 = 5;

    /// Counts as they are, and as they were when the victims were put in order.
    struct Counts(Vec<u32>, Victims);

    impl Counts {
        fn of(bank: &Bank, counts: &[u32]) -> Self {
            Self(counts.to_vec(), Victims::of(bank.iter(), |slot| counts[slot as usize].into()))
        }

        /// Of a bank whose counts have grown since.
        fn grown(bank: &Bank, before: &[u32], counts: &[u32]) -> Self {
            Self(counts.to_vec(), Victims::of(bank.iter(), |slot| before[slot as usize].into()))
        }
    }

    impl Usage for Counts {
        fn count(&self, slot: u32) -> u32 {
            self.0[slot as usize]
        }

        fn rank(&self, slot: u32) -> u64 {
            self.0[slot as usize].into()
        }

        fn written(&self, _: u64) -> u64 {
            0
        }

        fn replaced(&self, rank: u64, _: u64) -> u64 {
            rank
        }

        fn victims(&self) -> &Victims {
            &self.1
        }

        fn with_residuals(&self) -> &Victims {
            &self.1
        }

        fn recent(&self) -> u64 {
            RECENT
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
        Open(u32, bool),
        Remove(u32),
        Pin(u32, bool),
        Replace(u32),
        Next,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => prop::bool::weighted(0.2).prop_map(Op::Place),
            1 => (0_u32..8).prop_map(Op::Remove),
            2 => (0_u32..8, prop::bool::weighted(0.7)).prop_map(|(slot, open)| Op::Open(slot, open)),
            1 => (0_u32..8, any::<bool>()).prop_map(|(slot, pinned)| Op::Pin(slot, pinned)),
            1 => (0_u32..8).prop_map(Op::Replace),
            1 => Just(Op::Next),
        ]
    }

    proptest! {
        /// The planner's shortcuts agree with the rule as the design states it, applied by looking at every
        /// slot.
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
                            .filter_map(|(slot, held)| held.map(|(o, count, new)| (new, count, slot, o)))
                            .filter(|(.., o)| !o.pinned)
                            .min_by_key(|&(new, count, _, o)| {
                                (new, !new && o.open && o.seq >= RECENT, count, o.seq)
                            });
                        let expected = free.or(least.map(|(_, _, slot, _)| slot));
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
                    Op::Open(slot, open) => {
                        planner.set_open(slot, open);
                        if let Some((occupant, ..)) = &mut plain[slot as usize] {
                            occupant.open = open;
                        }
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
