//! Access counts: what is on disk, and what was read since.
//!
//! A counted read is two relaxed atomic additions, one to its slot's delta and one to the total that tells the
//! flusher when to run; no lock is written, nothing is synced. Deltas reach the disk with the next commit or flush:
//! they are taken into the transaction and subtracted after it succeeded, so no crash and no failed commit invents
//! a count. A slot that gets a new occupant starts at 0, and bumps meant for the old one are dropped.

use super::dirty::Dirty;
use crate::claim::{Refused, reserve};
use crate::policy::Bank;
use apcm_format::{CounterChunk, limits::COUNTERS_PER_CHUNK};
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Counts of all slots up to the highest ever filled.
#[derive(Debug, Default)]
pub(super) struct Counts {
    base: Vec<u32>,
    delta: Vec<AtomicU32>,
    /// Chunks in which some delta is not zero.
    dirty: Dirty<COUNTERS_PER_CHUNK>,
    pending: AtomicU64,
}

/// Deltas that were put into a transaction.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Slot, delta.
    deltas: Vec<(u32, u32)>,
    /// Reads counted in all, for the store's lifetime total.
    pub(super) reads: u64,
    /// New counts of every slot of each chunk that changes.
    chunks: FxHashMap<u32, [u32; COUNTERS_PER_CHUNK]>,
}

impl Taken {
    /// Slots whose counts on disk change.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.deltas.iter().map(|&(slot, _)| slot)
    }

    pub(super) fn chunks(&self) -> impl Iterator<Item = (u32, CounterChunk)> {
        self.chunks.iter().map(|(&number, &counts)| (number, CounterChunk { counts }))
    }
}

impl Counts {
    /// What a slot's count takes in memory.
    pub(super) const BYTES_PER_SLOT: usize = size_of::<u32>() + size_of::<AtomicU32>();

    /// Takes memory for slots up to `high_water`, once and exactly.
    pub(super) fn reserve(&mut self, high_water: u32) -> Result<(), Refused> {
        reserve(&mut self.base, high_water as usize)?;
        reserve(&mut self.delta, high_water as usize)?;
        self.dirty.reserve(high_water as usize)
    }

    /// Counts slots up to `high_water`.
    pub(super) fn grow(&mut self, high_water: u32) {
        let slots = high_water as usize;
        if slots > self.base.len() {
            self.base.resize(slots, 0);
            self.delta.resize_with(slots, AtomicU32::default);
            self.dirty.grow(slots);
        }
    }

    /// Sets what a chunk on disk says.
    pub(super) fn load(&mut self, number: u32, chunk: &CounterChunk, bank: &Bank) {
        let first = number as usize * COUNTERS_PER_CHUNK;
        for (offset, &count) in chunk.counts.iter().enumerate() {
            if let Some(base) = self.base.get_mut(first + offset) {
                // A count without an occupant is nobody's.
                *base = if bank.get((first + offset) as u32).is_some() { count } else { 0 };
            }
        }
    }

    /// The slot's access count.
    pub(super) fn get(&self, slot: u32) -> u32 {
        let index = slot as usize;
        match (self.base.get(index), self.delta.get(index)) {
            (Some(base), Some(delta)) => base.saturating_add(delta.load(Relaxed)),
            _ => 0,
        }
    }

    /// The slot's access count as it is on disk.
    pub(super) fn base(&self, slot: u32) -> u32 {
        self.base.get(slot as usize).copied().unwrap_or(0)
    }

    /// Counts one access, of no slot where its memory left meanwhile; gives how many are not on disk yet.
    pub(super) fn bump(&self, slot: Option<u32>) -> u64 {
        if let Some(index) = slot.map(|slot| slot as usize)
            && let Some(delta) = self.delta.get(index)
        {
            delta.fetch_add(1, Relaxed);
            self.dirty.mark(index);
        }
        self.pending.fetch_add(1, Relaxed) + 1
    }

    /// Gives a slot back counts that it had in another store; no reads of this one.
    pub(super) fn restore(&self, slot: u32, count: u32) {
        let index = slot as usize;
        if count > 0
            && let Some(delta) = self.delta.get(index)
        {
            delta.fetch_add(count, Relaxed);
            self.dirty.mark(index);
        }
    }

    /// Whether some count is not on disk yet.
    pub(super) fn is_dirty(&self) -> bool {
        self.pending() > 0 || self.dirty.any()
    }

    /// How many chunks hold such counts.
    pub(super) fn dirty_chunks(&self) -> usize {
        self.dirty.count()
    }

    /// Reads counted and not on disk yet.
    pub(super) fn pending(&self) -> u64 {
        self.pending.load(Relaxed)
    }

    /// Takes all deltas for a transaction; the slots in `reset`, in order, get a new occupant or none, and start at 0.
    pub(super) fn take(&self, reset: &[u32]) -> Taken {
        let mut taken = Taken { reads: self.pending(), ..Taken::default() };
        let mut changed: Vec<u32> = reset.iter().map(|&slot| CounterChunk::number_of(slot)).collect();
        changed.dedup();
        changed.extend(self.dirty.take());
        for number in changed {
            taken.chunks.entry(number).or_insert_with(|| {
                let first = number * COUNTERS_PER_CHUNK as u32;
                std::array::from_fn(|offset| {
                    let slot = first + offset as u32;
                    let index = slot as usize;
                    let delta = self.delta.get(index).map_or(0, |delta| delta.load(Relaxed));
                    if delta > 0 {
                        taken.deltas.push((slot, delta));
                    }
                    let base = self.base.get(index).copied().unwrap_or(0);
                    if reset.binary_search(&slot).is_ok() { 0 } else { base.saturating_add(delta) }
                })
            });
        }
        taken
    }

    /// Makes what was taken part of what is on disk. Call after the commit succeeded, with the new bank.
    ///
    /// Bumps of the slots in `reset` are dropped: they were meant for somebody who left.
    pub(super) fn settle(&mut self, taken: Taken, reset: &[u32], high_water: u32) {
        self.grow(high_water);
        for (slot, delta) in taken.deltas {
            self.delta[slot as usize].fetch_sub(delta, Relaxed);
        }
        for (number, counts) in taken.chunks {
            let first = number as usize * COUNTERS_PER_CHUNK;
            // Nobody bumps now, under the lock this needs. A bump that came between taking and here may have left its
            // delta behind a flag that was cleared around it, where the machine orders loosely.
            let left = self.delta.iter().skip(first).take(COUNTERS_PER_CHUNK);
            if left.into_iter().any(|delta| delta.load(Relaxed) > 0) {
                self.dirty.mark_chunk(number as usize);
            }
            for (offset, count) in counts.into_iter().enumerate() {
                if let Some(base) = self.base.get_mut(first + offset) {
                    *base = count;
                }
            }
        }
        for &slot in reset {
            if let Some(delta) = self.delta.get(slot as usize) {
                delta.store(0, Relaxed);
            }
        }
        self.pending.fetch_sub(taken.reads, Relaxed);
    }
}
