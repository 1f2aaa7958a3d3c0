//! A memory, as it is given back.

use crate::record::Record;
use apcm_format::{MemoryId, Metadata};

/// One memory, read.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Memory {
    /// Its name for good.
    pub id: MemoryId,
    /// The user's key.
    pub key: Option<Vec<u8>>,
    /// The user's values.
    pub metadata: Metadata,
    /// The record, reconstructed.
    pub record: Record,
    /// Mean squared error per element of the reconstruction, measured when the record went in, rounded up.
    pub error: f32,
    /// Nearness to the query, where there was one.
    pub similarity: Option<f32>,
}

/// One memory found by a search.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Hit {
    /// Its name for good.
    pub id: MemoryId,
    /// The user's key.
    pub key: Option<Vec<u8>>,
    /// The user's values.
    pub metadata: Metadata,
    /// Cosine with the query, in `[-1, 1]`.
    pub similarity: f32,
    /// Mean squared error per element of its reconstruction, measured when it went in, rounded up.
    pub error: f32,
    /// The record, reconstructed, where the search asked for it.
    pub record: Option<Record>,
}
