//! Giving back what a file no longer needs.

use crate::error::{Error, Result};
use crate::store::file::{Backing, Handle, guarded, open_writable, storage};
use crate::store::store::Store;
use redb::Database;
use std::path::Path;

/// Most passes over a file.
const PASSES_MAX: usize = 8;

/// What a compaction gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct CompactReport {
    /// Bytes of the file before.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
}

impl Store {
    /// Makes a file as small as its contents allow. No process may have it open.
    ///
    /// Cost: moves every page that lies behind a free one; durable at each step, so a crash leaves the store
    /// whole.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn compact(path: impl AsRef<Path>) -> Result<CompactReport> {
        compact(path.as_ref())
    }
}

pub(crate) fn compact(path: &Path) -> Result<CompactReport> {
    let backing = Backing::File(path.to_owned());
    let bytes_before = backing.len()?;
    let (mut handle, _) = open_writable(&backing)?;
    guarded("compact the file", || {
        let Handle::Writable(database) = &mut handle else { return Err(Error::ReadOnly) };
        shrink(database)
    })?;
    drop(handle);
    Ok(CompactReport { bytes_before, bytes_after: backing.len()? })
}

/// Moves pages to the front until no more can be moved.
pub(crate) fn shrink(database: &mut Database) -> Result<()> {
    for _ in 0..PASSES_MAX {
        if !database.compact().map_err(storage("compact the file"))? {
            break;
        }
    }
    Ok(())
}
