//! Writes of one memory: each a transaction of its own.

use crate::error::Result;
use crate::record::{Record, Records};
use crate::store::outcome::{Attributes, Written};
use crate::store::store::Store;
use apcm_format::MemoryId;

impl Store {
    /// Stores a record: in the first free slot, or in the place of a victim.
    ///
    /// One durable transaction. For many records, [`begin_write`](Self::begin_write) is many times faster.
    ///
    /// # Errors
    /// [`RecordShape`](crate::Error::RecordShape), [`AllPinned`](crate::Error::AllPinned),
    /// [`NoSpace`](crate::Error::NoSpace): nothing was written.
    /// [`OutcomeUnknown`](crate::Error::OutcomeUnknown): open the store again and look.
    pub fn insert(&self, record: &Record) -> Result<Written> {
        self.insert_with(record, Attributes::default())
    }

    /// Stores a record with metadata, a pin or an expiry.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn insert_with(&self, record: &Record, attributes: impl Into<Attributes>) -> Result<Written> {
        let mut transaction = self.begin_write();
        transaction.insert_with(record, attributes)?;
        transaction.commit_one()
    }

    /// Stores a record under a key, in the place of the record that had it: that one's count, pin and expiry
    /// stay.
    ///
    /// # Errors
    /// As [`insert`](Self::insert), and [`Argument`](crate::Error::Argument) for an empty or overlong key.
    pub fn put(&self, key: &[u8], record: &Record, attributes: impl Into<Attributes>) -> Result<Written> {
        let mut transaction = self.begin_write();
        transaction.put(key, record, attributes)?;
        transaction.commit_one()
    }

    /// Stores the mean of a batch in one slot: the write of the ApCM paper, which averages `z_comp` over the
    /// batch.
    ///
    /// The measured error is against the mean of the batch's records.
    ///
    /// # Errors
    /// As [`insert`](Self::insert), and [`Argument`](crate::Error::Argument) for an empty batch.
    pub fn write_mean(&self, batch: &Records) -> Result<Written> {
        let mut transaction = self.begin_write();
        transaction.write_mean(batch, Attributes::default())?;
        transaction.commit_one()
    }

    /// Removes the memory with this key; whether there was one.
    ///
    /// # Errors
    /// [`Storage`](crate::Error::Storage), [`OutcomeUnknown`](crate::Error::OutcomeUnknown).
    pub fn remove(&self, key: &[u8]) -> Result<bool> {
        let mut transaction = self.begin_write();
        transaction.remove(key)?;
        Ok(transaction.commit()?.removed > 0)
    }

    /// Removes the memory with this id.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound) for an id whose memory left.
    pub fn remove_id(&self, id: MemoryId) -> Result<()> {
        let mut transaction = self.begin_write();
        transaction.remove_id(id);
        transaction.commit().map(drop)
    }

    /// Makes a memory never a victim, or a possible one again.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound) for an id whose memory left.
    pub fn pin(&self, id: MemoryId, pinned: bool) -> Result<()> {
        let mut transaction = self.begin_write();
        transaction.pin(id, pinned);
        transaction.commit().map(drop)
    }
}
