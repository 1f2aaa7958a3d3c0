//! A second file with everything in it, made while the store is in use.

use super::compact::shrink;
use crate::error::{Error, Result};
use crate::progress::{Progress, Reporter};
use crate::store::engine::Engine;
use crate::store::file::{
    CODEC, COUNTERS, KEYS, META, METADATA, RESIDUALS, SLOTS, STREAMS, USES, build, callers, optional,
    permissions_of, storage,
};
use crate::store::store::Store;
use redb::{Key, ReadTransaction, ReadableTableMetadata, TableDefinition, Value, WriteTransaction};
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

/// A backup; [`run`](Self::run) makes it.
#[must_use = "nothing is copied until it is run"]
pub struct Backup<'a> {
    store: &'a Store,
    to: PathBuf,
    progress: Reporter<'a>,
}

impl fmt::Debug for Backup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup").field("store", &self.store).field("to", &self.to).finish_non_exhaustive()
    }
}

impl Store {
    /// Starts a backup of the store as it is now, while it is in use: see [`Backup`].
    pub fn backup<'a>(&'a self, to: impl AsRef<Path>) -> Backup<'a> {
        Backup::new(self, to.as_ref())
    }
}

impl<'a> Backup<'a> {
    pub(crate) fn new(store: &'a Store, to: &Path) -> Self {
        Self { store, to: to.to_owned(), progress: Reporter::new("backup") }
    }

    /// Called now and then with how many rows were copied and how many there are; may stop the backup.
    pub fn progress(mut self, callback: impl FnMut(&Progress<'_>) -> ControlFlow<()> + 'a) -> Self {
        self.progress.set(callback);
        self
    }

    /// Copies the store as it is now: one snapshot, while others go on reading and writing.
    ///
    /// The copy is built under a temporary name, synced, and renamed: a crash leaves all of it or nothing. It
    /// is a store like the one it is of, with the same ids, keys and counts, and as small as its contents
    /// allow.
    ///
    /// # Errors
    /// [`Exists`](Error::Exists), [`Io`](Error::Io), [`Storage`](Error::Storage),
    /// [`Cancelled`](Error::Cancelled).
    pub fn run(mut self) -> Result<BackupReport> {
        self.progress.begin();
        // Counts that are only in memory belong to what is copied.
        self.store.flush()?;
        let engine = &self.store.engine;
        let mut memories = 0;
        let permissions = self.store.path().and_then(permissions_of);
        let progress = self.progress;
        let mut copied = engine.reading("look at the store", || Copied::of(engine, progress))?;
        // What fails in the copy fails there: only reading from the store can make its own handle unusable.
        build(&self.to, "write the backup", permissions, |database| {
            let to = database.begin_write().map_err(storage("begin a write"))?;
            copied.table(&to, META)?;
            copied.table(&to, CODEC)?;
            memories = copied.table(&to, SLOTS)?;
            copied.table(&to, COUNTERS)?;
            copied.optional(&to, USES)?;
            copied.optional(&to, STREAMS)?;
            copied.table(&to, KEYS)?;
            copied.table(&to, METADATA)?;
            copied.table(&to, RESIDUALS)?;
            to.commit().map_err(storage("commit the backup"))?;
            shrink(database)
        })?;
        let bytes = std::fs::metadata(&self.to).map_err(Error::io(&self.to))?.len();
        Ok(BackupReport { memories, bytes })
    }
}

/// A snapshot being copied, and how far that is.
struct Copied<'a> {
    engine: &'a Engine,
    from: ReadTransaction,
    done: u64,
    total: u64,
    progress: Reporter<'a>,
}

/// Rows between two calls of the callback.
const STRIDE: u64 = 256;

impl<'a> Copied<'a> {
    fn of(engine: &'a Engine, progress: Reporter<'a>) -> Result<Self> {
        let from = engine.handle.begin_read()?;
        let mut total = 0;
        for table in from.list_tables().map_err(storage("list the tables"))? {
            total += from
                .open_untyped_table(table)
                .and_then(|table| Ok(table.len()?))
                .map_err(storage("count the rows"))?;
        }
        Ok(Self { engine, from, done: 0, total, progress })
    }

    /// The same for a table that not every store has.
    fn optional<K: Key + 'static, V: Value + 'static>(
        &mut self,
        to: &WriteTransaction,
        table: TableDefinition<'static, K, V>,
    ) -> Result<u64> {
        let opened = optional(self.from.open_table(table)).map_err(storage("open a table"))?;
        if opened.is_some() { self.table(to, table) } else { Ok(0) }
    }

    /// Copies the rows of a table as they are: their checksums go with them. Gives how many.
    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        to: &WriteTransaction,
        table: TableDefinition<'static, K, V>,
    ) -> Result<u64> {
        let engine = self.engine;
        let open = || {
            let rows = self.from.open_table(table).map_err(storage("open a table"))?;
            rows.range::<K::SelfType<'_>>(..).map_err(storage("read a table"))
        };
        let mut rows = engine.reading("read a table", open)?;
        let mut copy = to.open_table(table).map_err(storage("create a table"))?;
        let mut count = 0;
        let mut next =
            || engine.reading("read a table", || rows.next().transpose().map_err(storage("read a table")));
        while let Some((key, value)) = next()? {
            copy.insert(key.value(), value.value()).map_err(storage("copy a row"))?;
            count += 1;
            self.done += 1;
            if self.done.is_multiple_of(STRIDE)
                && callers(|| self.progress.report(self.done, self.total)).is_break()
            {
                return Err(Error::Cancelled);
            }
        }
        Ok(count)
    }
}
