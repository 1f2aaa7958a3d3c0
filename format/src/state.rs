//! What changes with every commit.

use crate::frame::Framed;
use bincode::{BorrowDecode, Encode};

/// The store's own counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, BorrowDecode)]
pub struct StoreState {
    /// The sequence number the next write gets.
    pub next_seq: u64,
    /// Counted reads in the store's life, as far as they were flushed.
    pub reads: u64,
    /// Memories that left because the store was full.
    pub evictions: u64,
    /// Evictions of memories that were never read.
    pub evictions_never_read: u64,
    /// Residuals that left because the store was over its byte budget.
    pub residuals_dropped: u64,
    /// Most bytes of all slots together; none where only slots are counted.
    pub byte_budget: Option<u64>,
}

impl Framed for StoreState {
    const KIND: u8 = 2;
    const SCHEMA: u8 = 1;
    const WHAT: &'static str = "the store's state";
}

/// The progress of an ingest; committed with the batch it describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub struct IngestPosition {
    /// The first record that is not in the store yet.
    pub next: u64,
    /// How many records the source had.
    pub total: u64,
    /// Length of the source in bytes: another length is another source.
    pub source_bytes: u64,
}

impl Framed for IngestPosition {
    const KIND: u8 = 3;
    const SCHEMA: u8 = 1;
    const WHAT: &'static str = "an ingest position";
}

/// Digests of what was ingested up to a position. They tell two datasets apart that have the same name, count
/// and length.
#[derive(Debug, Clone, PartialEq, Eq, Encode, BorrowDecode)]
pub struct IngestSource {
    /// The position that this speaks of. A program that does not know of sources moves the position alone.
    pub next: u64,
    /// BLAKE3 of the values of the records before it, `f32`, little-endian.
    pub records: [u8; 32],
    /// BLAKE3 of the lines of metadata before it.
    pub lines: [u8; 32],
    /// Where it was, for people to read.
    pub path: String,
}

impl Framed for IngestSource {
    const KIND: u8 = 8;
    const SCHEMA: u8 = 1;
    const WHAT: &'static str = "what an ingest position speaks of";
}
