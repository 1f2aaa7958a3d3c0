//! What the policy keeps of each slot's uses, where counts do not say enough: what is on disk, and what it is now.
//!
//! A counted read changes its slot's word by one atomic operation. Words reach the disk with the counts, and like them
//! are never invented: a crash loses the latest uses and nothing else. Under a policy that follows from counts or
//! sequence numbers there are no words, in memory or on disk.

use super::dirty::Dirty;
use crate::claim::{Refused, reserve};
use crate::policy::Rule;
use apcm_format::{UseChunk, limits::USES_PER_CHUNK};
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Words of all slots up to the highest ever filled; none under a policy that needs none.
#[derive(Debug)]
pub(super) struct Uses {
    rule: Rule,
    base: Vec<u64>,
    now: Vec<AtomicU64>,
    dirty: Dirty<USES_PER_CHUNK>,
}

/// Words that were put into a transaction.
#[derive(Debug, Default)]
pub(super) struct TakenUses {
    /// Slot, word; of those that change.
    changed: Vec<(u32, u64)>,
    chunks: FxHashMap<u32, [u64; USES_PER_CHUNK]>,
}

impl TakenUses {
    /// Slots whose words on disk change.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.changed.iter().map(|&(slot, _)| slot)
    }

    pub(super) fn chunks(&self) -> impl Iterator<Item = (u32, UseChunk)> {
        self.chunks.iter().map(|(&number, &words)| (number, UseChunk { words }))
    }
}

impl Uses {
    pub(super) fn new(rule: Rule) -> Self {
        Self { rule, base: Vec::new(), now: Vec::new(), dirty: Dirty::default() }
    }

    pub(super) fn rule(&self) -> Rule {
        self.rule
    }

    /// How many chunks hold words that are not on disk yet.
    pub(super) fn dirty_chunks(&self) -> usize {
        self.dirty.count()
    }

    /// What a slot takes in memory.
    pub(super) fn bytes_per_slot(&self) -> usize {
        if self.rule.keeps_words() { size_of::<u64>() + size_of::<AtomicU64>() } else { 0 }
    }

    /// Takes memory for slots up to `high_water`, once and exactly.
    pub(super) fn reserve(&mut self, high_water: u32) -> Result<(), Refused> {
        if !self.rule.keeps_words() {
            return Ok(());
        }
        reserve(&mut self.base, high_water as usize)?;
        reserve(&mut self.now, high_water as usize)?;
        self.dirty.reserve(high_water as usize)
    }

    /// Keeps words of slots up to `high_water`.
    pub(super) fn grow(&mut self, high_water: u32) {
        let slots = high_water as usize;
        if self.rule.keeps_words() && slots > self.base.len() {
            self.base.resize(slots, 0);
            self.now.resize_with(slots, AtomicU64::default);
            self.dirty.grow(slots);
        }
    }

    /// Sets what a chunk on disk says.
    pub(super) fn load(&mut self, number: u32, chunk: &UseChunk) {
        let first = number as usize * USES_PER_CHUNK;
        for (at, &word) in (first..).zip(&chunk.words) {
            if let Ok(slot) = u32::try_from(at) {
                self.set(slot, word);
            }
        }
    }

    /// Sets a slot's word, as if it were on disk.
    pub(super) fn set(&mut self, slot: u32, word: u64) {
        if let (Some(base), Some(now)) = (self.base.get_mut(slot as usize), self.now.get_mut(slot as usize)) {
            *base = word;
            *now.get_mut() = word;
        }
    }

    /// The slot's word.
    pub(super) fn get(&self, slot: u32) -> u64 {
        self.now.get(slot as usize).map_or(0, |word| word.load(Relaxed))
    }

    /// The slot's word as it is on disk.
    pub(super) fn base(&self, slot: u32) -> u64 {
        self.base.get(slot as usize).copied().unwrap_or(0)
    }

    /// Notes a read.
    pub(super) fn touch(&self, slot: u32, tick: u64) {
        self.change(slot, |word| self.rule.read(word, tick));
    }

    /// Gives a slot the word that it had in another store, or should have.
    pub(super) fn restore(&self, slot: u32, word: u64) {
        self.change(slot, |_| word);
    }

    fn change(&self, slot: u32, change: impl Fn(u64) -> u64) {
        let index = slot as usize;
        if let Some(word) = self.now.get(index) {
            let changed = word.fetch_update(Relaxed, Relaxed, |word| Some(change(word)));
            debug_assert!(changed.is_ok());
            self.dirty.mark(index);
        }
    }

    /// Whether some word is not on disk yet.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty.any()
    }

    /// Takes all words that changed for a transaction; `written`, in order of slots, are those that it decides itself.
    pub(super) fn take(&self, written: &[(u32, u64)]) -> TakenUses {
        let mut taken = TakenUses::default();
        if !self.rule.keeps_words() {
            return taken;
        }
        let mut changed: Vec<u32> = written.iter().map(|&(slot, _)| UseChunk::number_of(slot)).collect();
        changed.dedup();
        changed.extend(self.dirty.take());
        for number in changed {
            taken.chunks.entry(number).or_insert_with(|| {
                let first = number * USES_PER_CHUNK as u32;
                std::array::from_fn(|offset| {
                    let slot = first + offset as u32;
                    let decided =
                        written.binary_search_by_key(&slot, |&(slot, _)| slot).map(|at| written[at].1);
                    let word = decided.unwrap_or_else(|_| self.get(slot));
                    if decided.is_ok() || word != self.base(slot) {
                        taken.changed.push((slot, word));
                    }
                    word
                })
            });
        }
        taken
    }

    /// Makes what was taken part of what is on disk. Call after the commit succeeded, with the new bank; `reset` slots
    /// have another occupant than before, or none.
    pub(super) fn settle(&mut self, taken: TakenUses, reset: &[u32], high_water: u32) {
        self.grow(high_water);
        for (slot, word) in taken.changed {
            let index = slot as usize;
            if let (Some(base), Some(now)) = (self.base.get_mut(index), self.now.get_mut(index)) {
                *base = word;
                let now = now.get_mut();
                // Ranks never fall: a read that came meanwhile left more than was taken.
                *now = if reset.binary_search(&slot).is_ok() { word } else { word.max(*now) };
            }
        }
        // Nobody reads now, under the lock this needs. What came between taking and here may stand behind a flag that
        // was cleared around it, where the machine orders loosely.
        for number in taken.chunks.into_keys() {
            let first = number as usize * USES_PER_CHUNK;
            let mut words = self.base.iter().zip(&mut self.now).skip(first).take(USES_PER_CHUNK);
            if words.any(|(base, now)| base != now.get_mut()) {
                self.dirty.mark_chunk(number as usize);
            }
        }
    }
}
