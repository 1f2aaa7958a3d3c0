//! A transaction is a buffer: operations are staged and encoded here, placed and written at commit.

use super::memory::{Attributes, Committed, Put};
use super::tables::metadata_place;
use super::transfer::check_made;
use super::{Inner, check_key};
use crate::codec::fidelity::{Residual, residuals};
use crate::codec::{Encoded, Fidelity, mean_record};
use crate::error::{Error, Result};
use crate::policy::Occupant;
use crate::record::{Record, Records, check_shape};
use crate::stored::Stored;
use apcm_format::{
    IngestPosition, IngestSource, MemoryId, Place, SlotKind, SlotMetadata, StoreState, StoreUuid, StreamHead,
    Table, frame, limits,
};
use std::collections::HashMap;

/// What a read may differ from the measurement through another batch size: rounding of the last bits.
pub(super) const ROUNDING_MARGIN: f32 = 1.0001;

/// What names of ingest positions begin with in `meta`.
pub(super) const POSITION_PREFIX: &str = "ingest:";

/// What names of what was ingested up to them begin with.
pub(super) const SOURCE_PREFIX: &str = "source:";

/// One staged operation.
#[derive(Debug)]
pub(super) enum Op {
    /// A record, with its key if it has one.
    Write { content: Box<Content>, metadata_len: usize, pinned: bool, expiry: Option<Expiry> },
    /// Remove by key; nothing happens if there is none.
    RemoveKey(Vec<u8>),
    /// Remove by id; an error if its memory left.
    RemoveId(MemoryId),
    /// Pin or unpin; an error if its memory left.
    Pin(MemoryId, bool),
    /// Go on only if a stream is as it was read; an error if it changed.
    Expect(Expected),
    /// Keep what is needed to append to a stream.
    Head(String, StreamHead),
    /// Note how far a dataset was ingested.
    Position(String, IngestPosition),
    /// Note what was ingested up to there.
    Source(String, IngestSource),
    /// A memory of another store, in the slot and under the number it had there.
    Restore { content: Box<Content>, slot: u32, occupant: Occupant, written_at: u32, source: Option<Source> },
    /// The lifetime of another store goes on in this one.
    Inherit(StoreState),
}

impl Op {
    /// A memory in the slot and under the number it had where it comes from.
    pub(super) fn restore(content: Box<Content>, from: &Stored, source: Option<Source>) -> Self {
        let MemoryId { slot, seq } = from.id;
        let occupant =
            Occupant { seq, pinned: from.pinned, damaged: false, expires_at: from.expires_at, open: false };
        Self::Restore { content, slot, occupant, written_at: from.written_at, source }
    }
}

/// A stream as an append has read it.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) name: String,
    /// Where its last part begins, and the write that filled it, if it can be read.
    pub(super) last: Option<(u64, Option<MemoryId>)>,
    /// The sweeper tree that computed with it.
    pub(super) tree: u64,
}

/// What a recode notes of a memory that it moved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    /// Names what was moved, with all that was stored for it.
    pub(super) digest: [u8; 32],
    /// What the move added to its error.
    pub(super) added: f32,
}

impl Source {
    pub(super) fn encode(&self) -> Vec<u8> {
        [self.digest.as_slice(), &self.added.to_le_bytes()].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (digest, added) = bytes.split_first_chunk::<32>()?;
        Some(Self { digest: *digest, added: f32::from_le_bytes(added.try_into().ok()?) })
    }
}

/// When a memory is to leave.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expiry {
    /// So many seconds after it is written.
    In(u32),
    /// At this time, in seconds since 1970.
    At(u32),
}

impl Expiry {
    pub(super) fn at(self, now: u32) -> u32 {
        match self {
            Self::In(seconds) => now.saturating_add(seconds),
            Self::At(at) => at,
        }
    }
}

/// What a slot is to hold, with the errors that it will say.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) encoded: Encoded,
    pub(super) residual: Option<Residual>,
    pub(super) search: Vec<f32>,
    pub(super) metadata: SlotMetadata,
    pub(super) kind: SlotKind,
}

impl Content {
    /// Bytes of its code and its residual, with what is stored around them.
    pub(super) fn stored_len(&self) -> usize {
        let residual = self.residual.as_ref().map_or(0, |residual| residual.payload.len());
        self.encoded.code.len() + limits::SLOT_OVERHEAD_MAX + residual
    }

    /// Bytes of its metadata; 0 where they cannot be sealed, which the commit says.
    pub(super) fn metadata_len(&self) -> usize {
        frame::seal(&self.metadata, Place::numbered(StoreUuid([0; 16]), Table::Metadata, 0))
            .map_or(0, |bytes| bytes.len())
    }

    /// Of what was just encoded and measured.
    pub(super) fn measured(
        encoded: Encoded,
        residual: Option<Residual>,
        search: &[f32],
        metadata: SlotMetadata,
    ) -> Box<Self> {
        let encoded = Encoded { error: encoded.error * ROUNDING_MARGIN, ..encoded };
        let margin = |residual: Residual| Residual { error: residual.error * ROUNDING_MARGIN, ..residual };
        let residual = residual.map(margin);
        Box::new(Self { encoded, residual, search: search.to_vec(), metadata, kind: SlotKind::Record })
    }
}

/// Operations that take effect together, durably, or not at all.
///
/// Staging encodes and does not touch the store: no lock is held, other writers go on, and dropping the transaction
/// discards it. Where records go, and who leaves, is decided at [`commit`](Self::commit).
#[derive(Debug)]
#[must_use = "dropping a transaction discards it"]
pub struct Transaction<'a> {
    inner: &'a Inner,
    ops: Vec<Op>,
    /// Keys as this transaction leaves them: put or removed.
    keys: HashMap<Vec<u8>, bool>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(inner: &'a Inner) -> Self {
        Self { inner, ops: Vec::new(), keys: HashMap::new() }
    }

    /// How many operations are staged.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Stages a record.
    ///
    /// # Errors
    /// [`RecordShape`](Error::RecordShape); the transaction stays usable, here and below.
    pub fn insert(&mut self, record: &Record) -> Result<()> {
        self.insert_with(record, Attributes::default())
    }

    /// Stages a record with metadata, a pin or an expiry.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn insert_with(&mut self, record: &Record, attributes: impl Into<Attributes>) -> Result<()> {
        self.write_all(&Records::from(record), [(None, attributes.into())])
    }

    /// Stages many records: one encoding for all of them.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn insert_all(&mut self, records: &Records) -> Result<()> {
        self.write_all(records, std::iter::repeat_n((None, Attributes::default()), records.len()))
    }

    /// Stages a record under a key.
    ///
    /// # Errors
    /// As [`insert`](Self::insert), and [`Argument`](Error::Argument) for an empty or overlong key.
    pub fn put(&mut self, key: &[u8], record: &Record, attributes: impl Into<Attributes>) -> Result<()> {
        self.write_all(&Records::from(record), [(Some(key.to_vec()), attributes.into())])
    }

    /// Stages many records, each with an optional key and attributes: one encoding for all of them.
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`Argument`](Error::Argument) when there are not as many attributes as records.
    pub fn write_all(
        &mut self,
        records: &Records,
        attributes: impl IntoIterator<Item = (Option<Vec<u8>>, Attributes)>,
    ) -> Result<()> {
        let attributes: Vec<_> = attributes.into_iter().collect();
        if attributes.len() != records.len() {
            return Err(Error::argument(
                "the attributes of a batch",
                records.len().to_string(),
                attributes.len(),
            ));
        }
        attributes.iter().filter_map(|(key, _)| key.as_deref()).try_for_each(check_key)?;
        self.inner.handle.writable()?;
        check_shape(self.inner.header.shape, records.shape())?;
        let encoded = self.inner.codec.encode(records)?;
        self.stage(records, encoded, attributes)
    }

    /// Stages the mean of a batch as one record.
    ///
    /// # Errors
    /// As [`insert`](Self::insert), and [`Argument`](Error::Argument) for an empty batch.
    pub fn write_mean(&mut self, batch: &Records, attributes: impl Into<Attributes>) -> Result<()> {
        if batch.is_empty() {
            return Err(Error::argument("a batch to average", "at least one record", "none"));
        }
        let attributes = attributes.into();
        self.inner.handle.writable()?;
        check_shape(self.inner.header.shape, batch.shape())?;
        let encoded = self.inner.codec.encode_mean(batch)?;
        self.stage(&mean_record(batch)?, vec![encoded], vec![(None, attributes)])
    }

    /// Stages the removal of the memory with this key, if there is one at commit.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) for an empty or overlong key.
    pub fn remove(&mut self, key: &[u8]) -> Result<()> {
        check_key(key)?;
        self.keys.insert(key.to_vec(), false);
        self.ops.push(Op::RemoveKey(key.to_vec()));
        Ok(())
    }

    /// Stages the removal of a memory; the commit fails with [`NotFound`](Error::NotFound) if it left before.
    pub fn remove_id(&mut self, id: MemoryId) {
        self.ops.push(Op::RemoveId(id));
    }

    /// Stages pinning or unpinning; the commit fails with [`NotFound`](Error::NotFound) if the memory left before.
    pub fn pin(&mut self, id: MemoryId, pinned: bool) {
        self.ops.push(Op::Pin(id, pinned));
    }

    /// Notes how far a dataset has been ingested; see [`Store::ingest_position`](super::Store::ingest_position).
    pub fn set_ingest_position(&mut self, name: &str, position: IngestPosition) {
        self.ops.push(Op::Position(format!("{POSITION_PREFIX}{name}"), position));
    }

    /// Notes what was ingested up to the position of that name.
    pub(crate) fn set_ingest_source(&mut self, name: &str, source: IngestSource) {
        self.ops.push(Op::Source(format!("{SOURCE_PREFIX}{name}"), source));
    }

    /// Whether there is a memory with this key, as this transaction sees it: its own staged keys come first. A removal
    /// by id is looked at only at commit.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage).
    pub fn contains(&self, key: &[u8]) -> Result<bool> {
        match self.keys.get(key) {
            Some(&there) => Ok(there),
            None => Ok(self.inner.find_key(key)?.is_some()),
        }
    }

    /// Places and writes everything that was staged, in one durable transaction.
    ///
    /// # Errors
    /// [`AllPinned`](Error::AllPinned), [`NotFound`](Error::NotFound), [`NoSpace`](Error::NoSpace): nothing was
    /// written. [`OutcomeUnknown`](Error::OutcomeUnknown): all or nothing was; open the store again and look.
    pub fn commit(self) -> Result<Committed> {
        self.inner.commit(self.ops)
    }

    /// Stages an operation that has no public name.
    pub(super) fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// Stages a memory that is encoded already.
    pub(super) fn push_content(&mut self, content: Box<Content>, pinned: bool, expiry: Option<Expiry>) {
        let metadata_len = content.metadata_len();
        if let Some(key) = &content.metadata.key {
            self.keys.insert(key.clone(), true);
        }
        self.ops.push(Op::Write { content, metadata_len, pinned, expiry });
    }

    /// Commits a transaction of one record.
    pub(super) fn commit_one(self) -> Result<Put> {
        let Committed { ids, errors, evicted, residuals_dropped, .. } = self.commit()?;
        match (ids.first(), errors.first()) {
            (Some(&id), Some(&error)) => Ok(Put { id, error, evicted, residuals_dropped }),
            _ => Err(Error::argument("a transaction of one", "one record", "none")),
        }
    }

    /// `records` are what the codes stand for, and what residuals bring back.
    fn stage(
        &mut self,
        records: &Records,
        encoded: Vec<Encoded>,
        attributes: Vec<(Option<Vec<u8>>, Attributes)>,
    ) -> Result<()> {
        if let Some(long) = encoded.iter().find(|encoded| encoded.code.len() > limits::CODE_LEN_MAX) {
            return Err(Error::argument(
                "the length of a code",
                format!("at most {}", limits::CODE_LEN_MAX),
                long.code.len(),
            ));
        }
        // Derived from the code, as opening the store will: what is ranked now is what is ranked then.
        let codes: Vec<&[u8]> = encoded.iter().map(|encoded| encoded.code.as_slice()).collect();
        let vectors = self.inner.search_vectors(&codes)?;
        let dims = self.inner.header.search_dims as usize;
        check_made("codes of a batch", attributes.len(), encoded.len())?;
        let wanted: Vec<Fidelity> = attributes.iter().map(|(_, attributes)| attributes.fidelity).collect();
        wanted.iter().try_for_each(|fidelity| fidelity.check())?;
        let residuals = residuals(self.inner.codec.as_ref(), records, &encoded, &wanted)?;
        // Sealed here to see that it can be: one bad value must not fail a whole commit.
        let sealed = attributes
            .iter()
            .map(|(key, attributes)| {
                let metadata = SlotMetadata { key: key.clone(), values: attributes.metadata.clone() };
                let bytes = frame::seal(&metadata, metadata_place(self.inner.header.uuid, 0));
                bytes.map(|bytes| bytes.len()).map_err(|cause| {
                    let expected = format!(
                        "at most {} levels deep, in {} bytes, with names of {}",
                        limits::METADATA_NESTING_MAX,
                        limits::METADATA_LEN_MAX,
                        limits::FIELD_NAME_LEN_MAX
                    );
                    Error::argument("metadata", expected, cause)
                })
            })
            .collect::<Result<Vec<usize>>>()?;
        let coded = encoded.into_iter().zip(residuals).zip(vectors.chunks_exact(dims));
        for ((((encoded, residual), search), (key, attributes)), metadata_len) in
            coded.zip(attributes).zip(sealed)
        {
            if let Some(key) = &key {
                self.keys.insert(key.clone(), true);
            }
            let Attributes { metadata: values, pinned, time_to_live, fidelity: _ } = attributes;
            let seconds =
                |time: std::time::Duration| u32::try_from(time.as_secs().max(1)).unwrap_or(u32::MAX);
            self.ops.push(Op::Write {
                content: Content::measured(encoded, residual, search, SlotMetadata { key, values }),
                metadata_len,
                pinned,
                expiry: time_to_live.map(|time| Expiry::In(seconds(time))),
            });
        }
        Ok(())
    }
}
