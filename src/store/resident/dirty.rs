//! Which chunks of numbers, one a slot, differ from what is on disk.

use crate::claim::Refused;
use crate::paged::Paged;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// One flag for every `CHUNK` slots: some number there is not on disk.
#[derive(Debug, Default)]
pub(crate) struct Dirty<const CHUNK: usize> {
    /// By chunk.
    flags: Paged<AtomicBool>,
}

impl<const CHUNK: usize> Dirty<CHUNK> {
    /// Slots of a chunk, whose number may come from a file.
    pub(crate) fn slots(chunk: u32) -> impl Iterator<Item = u32> {
        let first = u64::from(chunk) * CHUNK as u64;
        (first..first + CHUNK as u64).map_while(|slot| u32::try_from(slot).ok())
    }

    /// Takes memory for the flag of a slot.
    pub(crate) fn reserve(&mut self, slot: u32) -> Result<(), Refused> {
        self.flags.reserve(slot / CHUNK as u32)
    }

    /// Keeps a flag for a slot.
    pub(crate) fn keep(&mut self, slot: u32) {
        self.flags.entry(slot / CHUNK as u32);
    }

    pub(crate) fn memory(&self) -> u64 {
        self.flags.memory()
    }

    /// Notes that a slot's number changed. Call after the change.
    pub(crate) fn mark(&self, slot: u32) {
        self.mark_chunk(slot / CHUNK as u32);
    }

    /// The same for some slot of a chunk.
    pub(crate) fn mark_chunk(&self, chunk: u32) {
        // Most are marked already: a load leaves the cache line where it is.
        if let Some(flag) = self.flags.get(chunk)
            && !flag.load(Relaxed)
        {
            flag.store(true, Relaxed);
        }
    }

    /// Whether some chunk is marked.
    pub(crate) fn any(&self) -> bool {
        self.flags.iter().any(|(_, flag)| flag.load(Relaxed))
    }

    /// How many chunks are marked.
    pub(crate) fn count(&self) -> usize {
        self.flags.iter().filter(|(_, flag)| flag.load(Relaxed)).count()
    }

    /// Chunks that are marked, and no longer are. They are cleared before the caller looks at the numbers: a
    /// change that comes later marks its chunk again.
    pub(crate) fn take(&self) -> impl Iterator<Item = u32> {
        let cleared = |flag: &AtomicBool| flag.load(Relaxed) && flag.swap(false, Relaxed);
        self.flags.iter().filter_map(move |(chunk, flag)| cleared(flag).then_some(chunk))
    }
}
