//! Write attributes and result types.

use crate::codec::Fidelity;
use crate::summary::ErrorSummary;
use apcm_format::{MemoryId, Metadata, Policy, RecordShape};
use std::time::Duration;

/// Attributes of a memory that is written.
///
/// ```
/// use apcm::{Attributes, Metadata};
/// use std::time::Duration;
/// let attributes = Attributes::default()
///     .with_metadata(Metadata::from([("kind".into(), "note".into())]))
///     .pinned()
///     .expiring_in(Duration::from_secs(3600));
/// # let _ = attributes;
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
#[must_use = "attributes do nothing by themselves"]
pub struct Attributes {
    /// The user's values.
    pub metadata: Metadata,
    /// Never a victim.
    pub pinned: bool,
    /// Time to live; unlimited by default.
    pub time_to_live: Option<Duration>,
    /// How well the record is to be kept.
    pub fidelity: Fidelity,
}

impl Attributes {
    /// Adds values.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Makes it never a victim.
    pub fn pinned(mut self) -> Self {
        self.pinned = true;
        self
    }

    /// Keeps the record better than its code does.
    pub fn with_fidelity(mut self, fidelity: Fidelity) -> Self {
        self.fidelity = fidelity;
        self
    }

    /// Lets it count as free after a while.
    pub fn expiring_in(mut self, time_to_live: Duration) -> Self {
        self.time_to_live = Some(time_to_live);
        self
    }
}

impl From<Metadata> for Attributes {
    fn from(metadata: Metadata) -> Self {
        Self { metadata, ..Self::default() }
    }
}

/// A memory that was evicted.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Evicted {
    /// Its name, which finds nothing from now on.
    pub id: MemoryId,
    /// The user's key.
    pub key: Option<Vec<u8>>,
    /// The user's values.
    pub metadata: Metadata,
    /// How often it had been read.
    pub count: u32,
}

/// A memory that was written.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Written {
    /// Its name for good.
    pub id: MemoryId,
    /// Mean squared error per element of what a read will return, rounded up.
    pub error: f32,
    /// Memories that were evicted for it.
    pub evicted: Vec<Evicted>,
    /// Memories whose residuals were dropped for it; they stay, with the error of their codes.
    pub residuals_dropped: Vec<MemoryId>,
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Committed {
    /// A name for each record put in, in order. With more records than slots, the first ones are stale already.
    pub ids: Vec<MemoryId>,
    /// The measured error of each.
    pub errors: Vec<f32>,
    /// Memories that were evicted, in that order.
    pub evicted: Vec<Evicted>,
    /// Memories whose residuals were dropped; they stay, with the error of their codes.
    pub residuals_dropped: Vec<MemoryId>,
    /// How many memories were removed on request.
    pub removed: usize,
}

/// The store in numbers.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Slots.
    pub capacity: u32,
    /// Slots that hold a memory, damaged ones included.
    pub occupied: u32,
    /// Slots that are free.
    pub free: u32,
    /// The eviction policy.
    pub policy: Policy,
    /// Slots whose memory is never a victim.
    pub pinned: u32,
    /// Slots whose stored bytes failed their checks.
    pub damaged: u32,
    /// Bytes of a code, averaged over the occupied slots.
    pub code_bytes: f64,
    /// Bytes of everything stored for a slot (code, header, checksums, count, keys, metadata, residual),
    /// averaged.
    pub slot_bytes: f64,
    /// Axes of a record.
    pub record_shape: Vec<usize>,
    /// Memories that are kept better than their codes: bounded or lossless.
    pub residuals: u32,
    /// Bytes of everything stored for all slots together: what a byte budget counts.
    pub stored_bytes: u64,
    /// Bytes in memory for the slots that are filled: search vectors, occupancy, counts. The codec and the
    /// database's cache of pages, at most 64 MiB, come on top.
    pub memory_bytes: u64,
    /// The store's byte budget, if it has one.
    pub byte_budget: Option<u64>,
    /// Residuals that left because the store was over its budget.
    pub residuals_dropped: u64,
    /// Length of the store's file.
    pub file_bytes: u64,
    /// Measured error, averaged over the readable slots.
    pub mean_error: f64,
    /// Quantiles and histogram of the measured errors; none in an empty store.
    pub errors: Option<ErrorSummary>,
    /// Counted reads in the store's life.
    pub reads: u64,
    /// Memories that left because the store was full.
    pub evictions: u64,
    /// Evicted memories that were never read. If these are most, new memories leave before they are found: give
    /// the store more slots, pin what must stay, or read what you write.
    pub evictions_never_read: u64,
    /// The codec in the file.
    pub codec: CodecStats,
}

/// The codec in numbers.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct CodecStats {
    /// `ordered`, `paper`, `plain`, or a codec's own name.
    pub preset: String,
    /// Name of the quantizer.
    pub quantizer: String,
    /// BLAKE3 of the codec's bytes.
    pub fingerprint: String,
    /// Weights.
    pub parameters: u64,
    /// Bytes it takes in the file.
    pub bytes: u64,
}

/// What a store is: fixed when it was created.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Description {
    /// Shape of every record.
    pub shape: RecordShape,
    /// How many slots.
    pub capacity: u32,
    /// What nearness means.
    pub similarity: apcm_format::Similarity,
}

/// What a hot-first search finds of what is there.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct HotFirstReport {
    /// Queries asked.
    pub queries: usize,
    /// Memories it looks at first.
    pub candidates: usize,
    /// Of the hits of a search over everything, the part that it finds.
    pub recall: f64,
    /// Of the queries, the part whose nearest memory it finds.
    pub first: f64,
}
