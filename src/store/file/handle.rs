//! An open database, and what it was at one moment.

use super::guard::{Closing, storage};
use super::tables::{METADATA, SLOTS};
use crate::error::{Error, Result};
use redb::{Database, ReadOnlyDatabase, ReadOnlyTable, ReadTransaction, ReadableDatabase};
use std::sync::Arc;

/// An open database, for writing or for reading only.
pub(crate) enum Handle {
    Writable(Closing<Database>),
    ReadOnly(Closing<ReadOnlyDatabase>),
}

impl Handle {
    pub(crate) fn begin_read(&self) -> Result<ReadTransaction> {
        match self {
            Self::Writable(database) => database.begin_read(),
            Self::ReadOnly(database) => database.begin_read(),
        }
        .map_err(storage("begin a read"))
    }

    /// Closing writes nothing from now on.
    pub(crate) fn abandon(&mut self) {
        match self {
            Self::Writable(database) => database.abandon(),
            Self::ReadOnly(database) => database.abandon(),
        }
    }

    pub(crate) fn writable(&self) -> Result<&Database> {
        match self {
            Self::Writable(database) => Ok(database),
            Self::ReadOnly(_) => Err(Error::ReadOnly),
        }
    }
}

/// The database as it was at one moment, its tables opened once for all that is looked up in it.
pub(crate) struct Snapshot {
    pub(crate) transaction: ReadTransaction,
    pub(crate) slots: ReadOnlyTable<u32, &'static [u8]>,
    pub(crate) metadata: ReadOnlyTable<u32, &'static [u8]>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

impl Snapshot {
    pub(crate) fn of(handle: &Handle) -> Result<Arc<Self>> {
        let transaction = handle.begin_read()?;
        let slots = transaction.open_table(SLOTS).map_err(storage("open a table"))?;
        let metadata = transaction.open_table(METADATA).map_err(storage("open a table"))?;
        Ok(Arc::new(Self { transaction, slots, metadata }))
    }
}
