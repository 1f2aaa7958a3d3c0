//! How many bytes the file keeps for a slot.

use apcm_format::{Original, StreamHead};

/// Sizes of a slot's rows, for `stats` and the byte budget.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SlotSize {
    /// Bytes of the code.
    pub(crate) code: u32,
    /// Bytes of the slot record.
    pub(crate) record: u32,
    /// Bytes of its metadata, its key's row and its stream head.
    pub(crate) metadata: u32,
    /// Bytes of its residual; 0 for none.
    pub(crate) residual: u32,
    /// Measured error.
    pub(crate) error: f32,
}

/// Each slot also takes four bytes for its key in `slots` and four in `counters`.
const BESIDE: u64 = 8;

/// Bytes of a row: its value or key, and four bytes for the slot.
pub(crate) fn row_bytes(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX).saturating_add(4)
}

impl SlotSize {
    /// Bytes of everything stored for the slot.
    pub(crate) fn total(&self) -> u64 {
        match self.record {
            0 => 0,
            record => u64::from(record) + u64::from(self.metadata) + u64::from(self.residual) + BESIDE,
        }
    }
}

/// Sums over the occupied slots.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sums {
    pub(crate) code_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) residuals: u32,
    pub(crate) error: f64,
    pub(crate) damaged: u32,
}

/// Size of a stream head in bytes.
pub(crate) fn bytes_beside(head: &StreamHead) -> u32 {
    let states = 4 * head.states.iter().map(Vec::len).sum::<usize>();
    let originals = head.originals.iter().map(|original| Original::encoded_len(original.values.len()));
    u32::try_from(states + originals.sum::<usize>()).unwrap_or(u32::MAX)
}
