//! A second file with everything in it, made while the store is in use.

use super::compact::shrink;
use crate::error::{Error, Result};
use crate::store::Store;
use crate::store::file::build;
use crate::store::guard::storage;
use crate::store::tables::{CODEC, COUNTERS, KEYS, META, METADATA, RESIDUALS, SLOTS};
use redb::{
    Key, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, Value, WriteTransaction,
};
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct BackupReport {
    /// Memories in it.
    pub memories: u64,
    /// Bytes of its file.
    pub bytes: u64,
}

type Callback<'a> = Box<dyn FnMut(u64, u64) -> ControlFlow<()> + 'a>;

/// A backup; [`run`](Self::run) makes it.
#[must_use = "nothing is copied until it is run"]
pub struct Backup<'a> {
    store: &'a Store,
    to: PathBuf,
    progress: Option<Callback<'a>>,
}

impl fmt::Debug for Backup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup").field("store", &self.store).field("to", &self.to).finish_non_exhaustive()
    }
}

impl<'a> Backup<'a> {
    pub(crate) fn new(store: &'a Store, to: &Path) -> Self {
        Self { store, to: to.to_owned(), progress: None }
    }

    /// Called now and then with how many rows were copied and how many there are; may stop the backup.
    pub fn progress(mut self, callback: impl FnMut(u64, u64) -> ControlFlow<()> + 'a) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Copies the store as it is now: one snapshot, while others go on reading and writing.
    ///
    /// The copy is built under a temporary name, synced, and renamed: a crash leaves all of it or nothing. It is a store
    /// like the one it is of, with the same ids, keys and counts, and as small as its contents allow.
    ///
    /// # Errors
    /// [`Exists`](Error::Exists), [`Io`](Error::Io), [`Storage`](Error::Storage), [`Cancelled`](Error::Cancelled).
    pub fn run(mut self) -> Result<BackupReport> {
        // Counts that are only in memory belong to what is copied.
        self.store.flush()?;
        let inner = &self.store.inner;
        let mut memories = 0;
        // Whoever may read the store may read its copy, and nobody else.
        let permissions =
            self.store.path().and_then(|path| Some(std::fs::metadata(path).ok()?.permissions()));
        inner.reading("copy the store", || {
            let from = inner.handle.begin_read()?;
            let mut copied = Copied::of(&from, self.progress.take())?;
            build(&self.to, "write the backup", permissions, |database| {
                let to = database.begin_write().map_err(storage("begin a write"))?;
                copied.table(&from, &to, META)?;
                copied.table(&from, &to, CODEC)?;
                memories = copied.table(&from, &to, SLOTS)?;
                copied.table(&from, &to, COUNTERS)?;
                copied.table(&from, &to, KEYS)?;
                copied.table(&from, &to, METADATA)?;
                copied.table(&from, &to, RESIDUALS)?;
                to.commit().map_err(storage("commit the backup"))?;
                shrink(database)
            })
        })?;
        let bytes = std::fs::metadata(&self.to).map_err(Error::io(&self.to))?.len();
        Ok(BackupReport { memories, bytes })
    }
}

/// How far a copy is.
struct Copied<'a> {
    done: u64,
    total: u64,
    progress: Option<Callback<'a>>,
}

/// Rows between two calls of the callback.
const STRIDE: u64 = 256;

impl<'a> Copied<'a> {
    fn of(from: &ReadTransaction, progress: Option<Callback<'a>>) -> Result<Self> {
        let mut total = 0;
        for table in from.list_tables().map_err(storage("list the tables"))? {
            total += from
                .open_untyped_table(table)
                .and_then(|table| Ok(table.len()?))
                .map_err(storage("count the rows"))?;
        }
        Ok(Self { done: 0, total, progress })
    }

    /// Copies the rows of a table as they are: their checksums go with them. Gives how many.
    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        from: &ReadTransaction,
        to: &WriteTransaction,
        table: TableDefinition<'static, K, V>,
    ) -> Result<u64> {
        let rows = from.open_table(table).map_err(storage("open a table"))?;
        let mut copy = to.open_table(table).map_err(storage("create a table"))?;
        let mut count = 0;
        for row in rows.iter().map_err(storage("read a table"))? {
            let (key, value) = row.map_err(storage("read a table"))?;
            copy.insert(key.value(), value.value()).map_err(storage("copy a row"))?;
            count += 1;
            self.done += 1;
            if self.done.is_multiple_of(STRIDE)
                && let Some(callback) = &mut self.progress
                && callback(self.done, self.total).is_break()
            {
                return Err(Error::Cancelled);
            }
        }
        Ok(count)
    }
}
