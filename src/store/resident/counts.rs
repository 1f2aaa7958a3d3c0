//! Access counts: what is on disk, and what was read since.
//!
//! A counted read is two relaxed atomic additions, one to its slot's delta and one to the total that tells the
//! flusher when to run; no lock is written, nothing is synced. Deltas reach the disk with the next commit or
//! flush: they are taken into the transaction and subtracted after it succeeded, so no crash and no failed
//! commit invents a count. A slot that gets a new occupant starts at 0, and bumps meant for the old one are
//! dropped.

use super::dirty::Dirty;
use crate::claim::Refused;
use crate::paged::Paged;
use crate::policy::Bank;
use apcm_format::{CounterChunk, limits::COUNTERS_PER_CHUNK};
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// A slot's count: what is on disk, and what was read since.
#[derive(Debug, Default)]
struct Count {
    base: u32,
    delta: AtomicU32,
}

/// Counts of all slots that were filled.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    slots: Paged<Count>,
    /// Chunks in which some delta is not zero.
    dirty: Dirty<COUNTERS_PER_CHUNK>,
    pending: AtomicU64,
}

/// Deltas that were put into a transaction.
#[derive(Debug, Default)]
pub(crate) struct TakenCounts {
    /// Slot, delta.
    deltas: Vec<(u32, u32)>,
    /// Reads counted in all, for the store's lifetime total.
    pub(crate) reads: u64,
    /// New counts of every slot of each chunk that changes.
    chunks: FxHashMap<u32, [u32; COUNTERS_PER_CHUNK]>,
}

impl TakenCounts {
    /// Slots whose counts on disk change.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> {
        self.deltas.iter().map(|&(slot, _)| slot)
    }

    pub(crate) fn chunks(&self) -> impl Iterator<Item = (u32, CounterChunk)> {
        self.chunks.iter().map(|(&number, &counts)| (number, CounterChunk { counts }))
    }
}

impl Counts {
    /// Bytes that a slot's count takes, with others beside it.
    pub(crate) const BYTES_PER_SLOT: usize = Paged::<Count>::BYTES_PER_SLOT;

    /// Takes the memory of a slot's count.
    pub(crate) fn reserve(&mut self, slot: u32) -> Result<(), Refused> {
        self.slots.reserve(slot)?;
        self.dirty.reserve(slot)
    }

    pub(crate) fn memory(&self) -> u64 {
        self.slots.memory() + self.dirty.memory()
    }

    /// Counts a slot.
    pub(crate) fn keep(&mut self, slot: u32) {
        self.slots.entry(slot);
        self.dirty.keep(slot);
    }

    /// Sets what a chunk on disk says.
    pub(crate) fn load(&mut self, number: u32, chunk: &CounterChunk, bank: &Bank) {
        for (slot, &count) in Dirty::<COUNTERS_PER_CHUNK>::slots(number).zip(&chunk.counts) {
            // An empty slot has no count.
            if let Some(found) = self.slots.get_mut(slot)
                && bank.get(slot).is_some()
            {
                found.base = count;
            }
        }
    }

    /// The slot's access count.
    pub(crate) fn get(&self, slot: u32) -> u32 {
        self.slots.get(slot).map_or(0, |count| count.base.saturating_add(count.delta.load(Relaxed)))
    }

    /// The slot's access count as it is on disk.
    pub(crate) fn base(&self, slot: u32) -> u32 {
        self.slots.get(slot).map_or(0, |count| count.base)
    }

    /// Counts one access, of no slot where its memory left meanwhile; gives how many are not on disk yet.
    pub(crate) fn bump(&self, slot: Option<u32>) -> u64 {
        if let Some(slot) = slot {
            self.restore(slot, 1);
        }
        self.pending.fetch_add(1, Relaxed) + 1
    }

    /// Gives a slot back counts that it had in another store; no reads of this one.
    pub(crate) fn restore(&self, slot: u32, count: u32) {
        if count > 0
            && let Some(found) = self.slots.get(slot)
        {
            found.delta.fetch_add(count, Relaxed);
            self.dirty.mark(slot);
        }
    }

    /// Whether some count is not on disk yet.
    pub(crate) fn is_dirty(&self) -> bool {
        self.pending() > 0 || self.dirty.any()
    }

    /// How many chunks hold such counts.
    pub(crate) fn dirty_chunks(&self) -> usize {
        self.dirty.count()
    }

    /// Reads counted and not on disk yet.
    pub(crate) fn pending(&self) -> u64 {
        self.pending.load(Relaxed)
    }

    /// Takes all deltas for a transaction; the slots in `reset`, in order, get a new occupant or none, and
    /// start at 0.
    pub(crate) fn take(&self, reset: &[u32]) -> TakenCounts {
        let mut taken = TakenCounts { reads: self.pending(), ..TakenCounts::default() };
        let mut changed: Vec<u32> = reset.iter().map(|&slot| CounterChunk::number_of(slot)).collect();
        changed.dedup();
        changed.extend(self.dirty.take());
        for number in changed {
            taken.chunks.entry(number).or_insert_with(|| {
                let first = number * COUNTERS_PER_CHUNK as u32;
                std::array::from_fn(|offset| {
                    let slot = first + offset as u32;
                    let Some(count) = self.slots.get(slot) else { return 0 };
                    let delta = count.delta.load(Relaxed);
                    if delta > 0 {
                        taken.deltas.push((slot, delta));
                    }
                    if reset.binary_search(&slot).is_ok() { 0 } else { count.base.saturating_add(delta) }
                })
            });
        }
        taken
    }

    /// Makes what was taken part of what is on disk. Call after the commit succeeded, with a count for every
    /// slot that it filled.
    ///
    /// Accesses of the slots in `reset` are dropped: they belong to memories that left.
    pub(crate) fn settle(&mut self, taken: TakenCounts, reset: &[u32]) {
        for (slot, delta) in taken.deltas {
            if let Some(count) = self.slots.get(slot) {
                count.delta.fetch_sub(delta, Relaxed);
            }
        }
        for (number, counts) in taken.chunks {
            for (slot, now) in Dirty::<COUNTERS_PER_CHUNK>::slots(number).zip(counts) {
                let Some(count) = self.slots.get_mut(slot) else { continue };
                count.base = now;
                // No reader runs now: this needs the lock. An access between `take` and here may have left its
                // delta behind a cleared flag, on machines with weak memory ordering.
                if *count.delta.get_mut() > 0 {
                    self.dirty.mark(slot);
                }
            }
        }
        for &slot in reset {
            if let Some(count) = self.slots.get_mut(slot) {
                *count.delta.get_mut() = 0;
            }
        }
        self.pending.fetch_sub(taken.reads, Relaxed);
    }
}
