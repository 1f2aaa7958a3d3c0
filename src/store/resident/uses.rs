//! What the policy keeps of each slot's uses, where counts do not say enough: what is on disk, and what it is
//! now.
//!
//! A counted read changes its slot's word by one atomic operation. Words reach the disk with the counts, and
//! like them are never invented: a crash loses the latest uses and nothing else. Under a policy that follows
//! from counts or sequence numbers there are no words, in memory or on disk.

use super::dirty::Dirty;
use crate::claim::Refused;
use crate::paged::Paged;
use crate::policy::Rule;
use apcm_format::{UseChunk, limits::USES_PER_CHUNK};
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A slot's word: what is on disk, and what it is now.
#[derive(Debug, Default)]
struct Word {
    base: u64,
    now: AtomicU64,
}

/// Words of all slots that were filled; none under a policy that needs none.
#[derive(Debug)]
pub(crate) struct Uses {
    rule: Rule,
    slots: Paged<Word>,
    dirty: Dirty<USES_PER_CHUNK>,
}

/// Words that were put into a transaction.
#[derive(Debug, Default)]
pub(crate) struct TakenUses {
    /// Slot, word; of those that change.
    changed: Vec<(u32, u64)>,
    chunks: FxHashMap<u32, [u64; USES_PER_CHUNK]>,
}

impl TakenUses {
    /// Slots whose words on disk change.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> {
        self.changed.iter().map(|&(slot, _)| slot)
    }

    pub(crate) fn chunks(&self) -> impl Iterator<Item = (u32, UseChunk)> {
        self.chunks.iter().map(|(&number, &words)| (number, UseChunk { words }))
    }
}

impl Uses {
    pub(crate) fn new(rule: Rule) -> Self {
        Self { rule, slots: Paged::default(), dirty: Dirty::default() }
    }

    pub(crate) fn rule(&self) -> Rule {
        self.rule
    }

    /// How many chunks hold words that are not on disk yet.
    pub(crate) fn dirty_chunks(&self) -> usize {
        self.dirty.count()
    }

    /// Bytes that a slot takes, with others beside it.
    pub(crate) fn bytes_per_slot(&self) -> usize {
        if self.rule.keeps_words() { Paged::<Word>::BYTES_PER_SLOT } else { 0 }
    }

    pub(crate) fn memory(&self) -> u64 {
        self.slots.memory() + self.dirty.memory()
    }

    /// Takes the memory of a slot's word.
    pub(crate) fn reserve(&mut self, slot: u32) -> Result<(), Refused> {
        if !self.rule.keeps_words() {
            return Ok(());
        }
        self.slots.reserve(slot)?;
        self.dirty.reserve(slot)
    }

    /// Keeps the word of a slot.
    pub(crate) fn keep(&mut self, slot: u32) {
        if self.rule.keeps_words() {
            self.slots.entry(slot);
            self.dirty.keep(slot);
        }
    }

    /// Sets what a chunk on disk says.
    pub(crate) fn load(&mut self, number: u32, chunk: &UseChunk) {
        for (slot, &word) in Dirty::<USES_PER_CHUNK>::slots(number).zip(&chunk.words) {
            self.set(slot, word);
        }
    }

    /// Sets a slot's word, as if it were on disk.
    pub(crate) fn set(&mut self, slot: u32, word: u64) {
        if let Some(found) = self.slots.get_mut(slot) {
            *found = Word { base: word, now: AtomicU64::new(word) };
        }
    }

    /// The slot's word.
    pub(crate) fn get(&self, slot: u32) -> u64 {
        self.slots.get(slot).map_or(0, |word| word.now.load(Relaxed))
    }

    /// The slot's word as it is on disk.
    pub(crate) fn base(&self, slot: u32) -> u64 {
        self.slots.get(slot).map_or(0, |word| word.base)
    }

    /// Notes a read.
    pub(crate) fn touch(&self, slot: u32, tick: u64) {
        self.change(slot, |word| self.rule.read(word, tick));
    }

    /// Gives a slot the word that it had in another store, or should have.
    pub(crate) fn restore(&self, slot: u32, word: u64) {
        self.change(slot, |_| word);
    }

    fn change(&self, slot: u32, change: impl Fn(u64) -> u64) {
        if let Some(word) = self.slots.get(slot) {
            let changed = word.now.fetch_update(Relaxed, Relaxed, |word| Some(change(word)));
            debug_assert!(changed.is_ok());
            self.dirty.mark(slot);
        }
    }

    /// Whether some word is not on disk yet.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.any()
    }

    /// Takes all words that changed for a transaction; `written`, in order of slots, are those that it decides
    /// itself.
    pub(crate) fn take(&self, written: &[(u32, u64)]) -> TakenUses {
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

    /// Makes what was taken part of what is on disk. Call after the commit succeeded, with a word for every
    /// slot that it filled; `reset` slots have another occupant than before, or none.
    pub(crate) fn settle(&mut self, taken: TakenUses, reset: &[u32]) {
        for (slot, word) in taken.changed {
            if let Some(found) = self.slots.get_mut(slot) {
                found.base = word;
                let now = found.now.get_mut();
                // Ranks never fall: a read that came meanwhile left more than was taken.
                *now = if reset.binary_search(&slot).is_ok() { word } else { word.max(*now) };
            }
        }
        // No reader runs now: this needs the lock. A use between `take` and here may have left its word changed
        // behind a cleared flag, on machines with weak memory ordering.
        for number in taken.chunks.into_keys() {
            let mut words = Dirty::<USES_PER_CHUNK>::slots(number).filter_map(|slot| self.slots.get(slot));
            if words.any(|word| word.base != word.now.load(Relaxed)) {
                self.dirty.mark_chunk(number);
            }
        }
    }
}
