//! Operations of a transaction, as values: what is to be written, before anything is placed.

use super::content::Content;
use crate::error::Error;
use crate::policy::Occupant;
use crate::stored::Stored;
use apcm_format::{IngestPosition, IngestSource, MemoryId, StoreState, StreamHead};

/// One staged operation.
#[derive(Debug)]
pub(crate) enum Op {
    /// A record, with its key if it has one.
    Write { content: Box<Content>, pinned: bool, expiry: Option<Expiry> },
    /// Remove by key; nothing happens if there is none.
    RemoveKey(Vec<u8>),
    /// Remove by id; an error if its memory left.
    RemoveId(MemoryId),
    /// Pin or unpin; an error if its memory left.
    Pin(MemoryId, bool),
    /// Fail if a stream changed since it was read.
    Expect(Expected),
    /// Write the head of a stream.
    Head(String, StreamHead),
    /// Write an ingest position.
    Position(String, IngestPosition),
    /// Write the digests of what was ingested up to a position.
    Source(String, IngestSource),
    /// A memory of another store, with its slot and sequence number.
    Restore { content: Box<Content>, slot: u32, occupant: Occupant, written_at: u32, source: Option<Source> },
    /// Continue the lifetime totals of another store.
    Inherit(StoreState),
}

impl Op {
    /// A memory in the slot and under the number it had where it comes from.
    pub(crate) fn restore(content: Box<Content>, from: &Stored, source: Option<Source>) -> Self {
        let MemoryId { slot, seq } = from.id;
        let occupant =
            Occupant { seq, pinned: from.pinned, damaged: false, expires_at: from.expires_at, open: false };
        Self::Restore { content, slot, occupant, written_at: from.written_at, source }
    }
}

/// The state of a stream as an append read it.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) name: String,
    /// The first record of its last part, and the write that filled it, if readable.
    pub(crate) last: Option<(u64, Option<MemoryId>)>,
    /// The sweeper tree that computed with it.
    pub(crate) tree: u64,
}

/// A recode's note about a memory that it moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    /// Names what was moved, with all that was stored for it.
    pub(crate) digest: [u8; 32],
    /// What the move added to its error.
    pub(crate) added: f32,
}

impl Source {
    pub(crate) fn encode(&self) -> Vec<u8> {
        [self.digest.as_slice(), &self.added.to_le_bytes()].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (digest, added) = bytes.split_first_chunk::<32>()?;
        Some(Self { digest: *digest, added: f32::from_le_bytes(added.try_into().ok()?) })
    }
}

/// When a memory expires.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expiry {
    /// So many seconds after it is written.
    In(u32),
    /// At this time, in seconds since 1970.
    At(u32),
}

impl Expiry {
    pub(crate) fn at(self, now: u32) -> u32 {
        match self {
            Self::In(seconds) => now.saturating_add(seconds),
            Self::At(at) => at,
        }
    }
}

/// The error of a commit whose expected stream or tree has changed. It never leaves the store.
pub(crate) fn changed() -> Error {
    Error::NotFound { id: MemoryId { slot: u32::MAX, seq: 0 } }
}

pub(crate) fn is_changed(error: &Error) -> bool {
    matches!(error, Error::NotFound { id: MemoryId { slot: u32::MAX, seq: 0 } })
}
