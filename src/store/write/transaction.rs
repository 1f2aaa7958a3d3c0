//! A transaction is a buffer: operations are staged and encoded here, placed and written at commit.

use crate::codec::fidelity::corrections;
use crate::codec::{Encoded, Fidelity, mean_record};
use crate::error::{Error, Result};
use crate::record::{Record, Records, check_shape};
use crate::store::engine::{Engine, check_length, check_made};
use crate::store::file::{POSITION_PREFIX, SOURCE_PREFIX};
use crate::store::outcome::{Attributes, Committed, Written};
use crate::store::read::check_key;
use crate::store::staged::{Content, Expiry, Op, SearchVector};
use crate::store::store::Store;
use apcm_format::{IngestPosition, IngestSource, MemoryId, SlotMetadata, limits};
use std::collections::HashMap;

/// Operations that take effect together, durably, or not at all.
///
/// Staging encodes and does not touch the store: no lock is held, other writers go on, and dropping the
/// transaction discards it. Placement and eviction are decided at [`commit`](Self::commit).
#[derive(Debug)]
#[must_use = "dropping a transaction discards it"]
pub struct Transaction<'a> {
    engine: &'a Engine,
    ops: Vec<Op>,
    /// Keys as this transaction leaves them: put or removed.
    keys: HashMap<Vec<u8>, bool>,
}

impl Store {
    /// Starts a transaction: a buffer of operations that take effect together, or not at all.
    pub fn begin_write(&self) -> Transaction<'_> {
        Transaction::new(&self.engine)
    }
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(engine: &'a Engine) -> Self {
        Self { engine, ops: Vec::new(), keys: HashMap::new() }
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
    /// As [`put`](Self::put), and [`Argument`](Error::Argument) when there are not as many attributes as
    /// records.
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
        self.engine.handle.writable()?;
        check_shape(self.engine.header.shape, records.shape())?;
        let (encoded, vectors) = self.engine.encode(records)?;
        self.stage(records, encoded, vectors, attributes)
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
        self.engine.handle.writable()?;
        check_shape(self.engine.header.shape, batch.shape())?;
        let encoded = self.engine.codec.encode_mean(batch)?;
        check_length(&encoded)?;
        let vectors = self.engine.search_vectors(&[&encoded.code])?;
        self.stage(&mean_record(batch)?, vec![encoded], vectors, vec![(None, attributes)])
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

    /// Stages pinning or unpinning; the commit fails with [`NotFound`](Error::NotFound) if the memory left
    /// before.
    pub fn pin(&mut self, id: MemoryId, pinned: bool) {
        self.ops.push(Op::Pin(id, pinned));
    }

    /// Notes how far a dataset has been ingested; see
    /// [`Store::ingest_position`](crate::Store::ingest_position).
    pub fn set_ingest_position(&mut self, name: &str, position: IngestPosition) {
        self.ops.push(Op::Position(format!("{POSITION_PREFIX}{name}"), position));
    }

    /// Notes what was ingested up to the position of that name.
    pub(crate) fn set_ingest_source(&mut self, name: &str, source: IngestSource) {
        self.ops.push(Op::Source(format!("{SOURCE_PREFIX}{name}"), source));
    }

    /// Whether there is a memory with this key, as this transaction sees it: its own staged keys come first. A
    /// removal by id is looked at only at commit.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage).
    pub fn contains(&self, key: &[u8]) -> Result<bool> {
        match self.keys.get(key) {
            Some(&there) => Ok(there),
            None => Ok(self.engine.find_key(key)?.is_some()),
        }
    }

    /// Places and writes everything that was staged, in one durable transaction.
    ///
    /// # Errors
    /// [`AllPinned`](Error::AllPinned), [`NotFound`](Error::NotFound), [`NoSpace`](Error::NoSpace): nothing was
    /// written. [`OutcomeUnknown`](Error::OutcomeUnknown): all or nothing was; open the store again and look.
    pub fn commit(self) -> Result<Committed> {
        self.engine.commit(self.ops)
    }

    /// Stages an operation that has no public name.
    pub(crate) fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// Stages a memory that is encoded already.
    pub(crate) fn push_content(&mut self, content: Box<Content>, pinned: bool, expiry: Option<Expiry>) {
        if let Some(key) = &content.key {
            self.keys.insert(key.clone(), true);
        }
        self.ops.push(Op::Write { content, pinned, expiry });
    }

    /// Commits a transaction of one record.
    pub(crate) fn commit_one(self) -> Result<Written> {
        let Committed { ids, errors, evicted, residuals_dropped, .. } = self.commit()?;
        match (ids.first(), errors.first()) {
            (Some(&id), Some(&error)) => Ok(Written { id, error, evicted, residuals_dropped }),
            _ => Err(Error::argument("a transaction of one", "one record", "none")),
        }
    }

    /// `records` are what the codes stand for, and what residuals bring back.
    fn stage(
        &mut self,
        records: &Records,
        encoded: Vec<Encoded>,
        vectors: Vec<f32>,
        attributes: Vec<(Option<Vec<u8>>, Attributes)>,
    ) -> Result<()> {
        check_made("codes of a batch", attributes.len(), encoded.len())?;
        let tiers: Vec<Fidelity> = attributes.iter().map(|(_, attributes)| attributes.fidelity).collect();
        tiers.iter().try_for_each(|fidelity| fidelity.check())?;
        let residuals = corrections(self.engine.codec.as_ref(), records, &encoded, &tiers)?;
        // Encoded before anything is staged: one bad value must not fail a whole commit.
        let described = attributes
            .into_iter()
            .map(|(key, attributes)| {
                let Attributes { metadata: values, pinned, time_to_live, fidelity: _ } = attributes;
                let metadata = SlotMetadata { key, values };
                let framed = Content::framed(&metadata).map_err(|cause| {
                    let expected = format!(
                        "at most {} levels deep, in {} bytes, with names of {}",
                        limits::METADATA_NESTING_MAX,
                        limits::METADATA_LEN_MAX,
                        limits::FIELD_NAME_LEN_MAX
                    );
                    Error::argument("metadata", expected, cause)
                })?;
                Ok((metadata.key, framed, pinned, time_to_live))
            })
            .collect::<Result<Vec<_>>>()?;
        let rows = SearchVector::rows(vectors, self.engine.header.search_dims as usize);
        let coded = encoded.into_iter().zip(residuals).zip(rows);
        for (((encoded, residual), search), (key, metadata, pinned, time_to_live)) in coded.zip(described) {
            if let Some(key) = &key {
                self.keys.insert(key.clone(), true);
            }
            let seconds =
                |time: std::time::Duration| u32::try_from(time.as_secs().max(1)).unwrap_or(u32::MAX);
            self.ops.push(Op::Write {
                content: Content::measured(encoded, residual, search, key, metadata),
                pinned,
                expiry: time_to_live.map(|time| Expiry::In(seconds(time))),
            });
        }
        Ok(())
    }
}
