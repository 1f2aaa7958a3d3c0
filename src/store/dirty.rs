//! Which chunks of numbers, one a slot, differ from what is on disk.

use crate::claim::{Refused, reserve};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// One flag for every `CHUNK` slots: some number there is not on disk.
#[derive(Debug, Default)]
pub(super) struct Dirty<const CHUNK: usize> {
    flags: Vec<AtomicBool>,
}

impl<const CHUNK: usize> Dirty<CHUNK> {
    /// Takes memory for flags of so many slots.
    pub(super) fn reserve(&mut self, slots: usize) -> Result<(), Refused> {
        reserve(&mut self.flags, slots.div_ceil(CHUNK))
    }

    /// Keeps flags for so many slots.
    pub(super) fn grow(&mut self, slots: usize) {
        self.flags.resize_with(slots.div_ceil(CHUNK), AtomicBool::default);
    }

    /// Notes that a slot's number changed. Call after the change.
    pub(super) fn mark(&self, slot: usize) {
        self.mark_chunk(slot / CHUNK);
    }

    /// The same for some slot of a chunk.
    pub(super) fn mark_chunk(&self, chunk: usize) {
        // Most are marked already: a load leaves the cache line where it is.
        if let Some(flag) = self.flags.get(chunk)
            && !flag.load(Relaxed)
        {
            flag.store(true, Relaxed);
        }
    }

    /// Whether some chunk is marked.
    pub(super) fn any(&self) -> bool {
        self.flags.iter().any(|flag| flag.load(Relaxed))
    }

    /// How many chunks are marked.
    pub(super) fn count(&self) -> usize {
        self.flags.iter().filter(|flag| flag.load(Relaxed)).count()
    }

    /// Chunks that are marked, and no longer are. They are cleared before the caller looks at the numbers: a change that
    /// comes later marks its chunk again.
    pub(super) fn take(&self) -> impl Iterator<Item = u32> {
        let marked = self.flags.iter().map(|flag| flag.load(Relaxed) && flag.swap(false, Relaxed));
        (0..).zip(marked).filter_map(|(chunk, marked)| marked.then_some(chunk))
    }
}
